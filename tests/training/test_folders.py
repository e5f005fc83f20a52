"""One process trains in a folder at a time, and no run harms a file that is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_runs import AfterBatches, tiny

import stackrev
from stackrev.errors import CheckpointError, TrainingError
from stackrev.storage import checkpoints, locks
from stackrev.training import runs
from stackrev.training.runs import STATE, Run

ROOT = Path(stackrev.__file__).parent.parent
SCRIPT = Path(__file__).parents[2] / "scripts" / "race_runs.py"


def contents(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir()}


# One process at a time.


def test_nobody_else_trains_in_the_folder_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "WAIT_SECONDS", 0.0)
    run, other = Run.start(tmp_path / "run", tiny()), Run.resume(tmp_path / "run")
    refusals = []

    def intrude(event):
        for attempt in (
            lambda: Run.resume(run.folder),
            lambda: Run.start(run.folder, tiny(), overwrite=True),
            other.train,
            lambda: runs.measure(run.folder),
        ):
            with pytest.raises(TrainingError, match=rf"another process \({os.getpid()}\) trains in ") as caught:
                attempt()
            refusals.append(caught.value.hint)

    run.train(intrude, stop=AfterBatches(run, 1))
    assert len(refusals) == 4
    assert not (run.folder / locks.LOCK).exists()
    Run.resume(run.folder).train()


def test_a_run_goes_on_only_from_what_it_knows(tmp_path):
    first = Run.start(tmp_path / "run", tiny())
    second = Run.resume(tmp_path / "run")
    second.train()
    before = contents(tmp_path / "run")
    for attempt in (first.train, first.train):
        with pytest.raises(TrainingError, match="another process has trained in"):
            attempt()
    assert contents(tmp_path / "run") == before
    assert Run.resume(tmp_path / "run").trainer.done


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_pairs_and_kills_damage_nothing():
    """Two processes are started at once on one folder, or are killed; `scripts/race_runs.py` does it more often."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--pairs", "4", "--kills", "3"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    gave_up = int(done.stdout.split(" pairs: ")[1].split()[0])
    assert gave_up >= 1  # in the first pair, whose processes have both read the folder before either trains


# Files that are not a run's.


FOREIGN = {
    "config.json": '{"model_type": "gpt2"}',
    "model.safetensors": "somebody's weights",
    "history.jsonl": '{"epoch": 1}\n',
    "README.md": "# My project\n",
    "training.safetensors": "somebody's state",
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("beside", [False, True])
def test_only_what_is_wholly_a_run_s_is_replaced(tmp_path, name, beside):
    folder = tmp_path / "run"
    folder.mkdir()
    if beside:
        Run.start(folder, tiny()).train()
    (folder / name).write_text(FOREIGN[name])
    before = contents(folder)
    for overwrite in (False, True):
        with pytest.raises(TrainingError, match=rf"has a {name} that is not a run's"):
            Run.start(folder, tiny(seed=1), overwrite=overwrite)
    assert contents(folder) == before


def test_another_s_state_of_the_same_form_is_not_a_run_s(tmp_path):
    from safetensors.torch import save_file

    save_file({"model.output.bias": torch.zeros(8)}, tmp_path / STATE, metadata={"state": '{"config": {}}'})
    with pytest.raises(TrainingError, match=r"training\.safetensors that is not a run's"):
        Run.start(tmp_path, tiny(), overwrite=True)


def test_a_run_of_ours_is_replaced_with_what_its_writers_left_behind(tmp_path):
    folder = tmp_path / "run"
    Run.start(folder, tiny()).train()
    (folder / "notes.txt").write_text("mine")
    (folder / locks.LOCK).write_text("123\n")
    (folder / ".model.safetensors.new").write_text("of an earlier version")
    (folder / ".training.safetensors.0123456789abcdef.new").write_text("of a writer that was killed")
    Run.start(folder, tiny(seed=1), overwrite=True)
    assert Run.resume(folder).config.training.seed == 1
    assert sorted(contents(folder)) == sorted([*checkpoints.FILES, STATE, "notes.txt"])
    (folder / checkpoints.CONFIG).unlink()
    for name in (checkpoints.WEIGHTS, checkpoints.HISTORY, checkpoints.CARD):
        (folder / name).unlink()  # as after a kill before the first checkpoint
    Run.start(folder, tiny(seed=2), overwrite=True)
    assert Run.resume(folder).config.training.seed == 2


@pytest.mark.parametrize("digits", ["", ".0123456789abcdef"])
def test_nothing_at_a_staged_name_is_written_through(tmp_path, digits):
    (tmp_path / "victim").write_text("mine")
    run = Run.start(tmp_path / "run", tiny())
    staged = run.folder / f".{STATE}{digits}.new"
    staged.symlink_to("../victim")
    run.train(stop=AfterBatches(run, 3))
    staged.unlink()
    os.mkfifo(staged)
    Run.resume(run.folder).train()
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("name", [STATE, *checkpoints.FILES])
def test_a_link_in_place_of_a_file_of_a_run_is_refused_and_what_it_leads_to_is_left_alone(tmp_path, name):
    run = Run.start(tmp_path / "run", tiny())
    (run.folder / name).rename(tmp_path / "victim")
    (run.folder / name).symlink_to("../victim")
    before = (tmp_path / "victim").read_bytes()
    with pytest.raises(CheckpointError, match="not a regular file"):
        Run.resume(run.folder).train()
    with pytest.raises((CheckpointError, TrainingError)):
        run.train()
    assert (tmp_path / "victim").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_a_run_in_a_folder_whose_name_is_not_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"run-\xff")
    run = Run.start(folder, tiny(), command=os.fsdecode(b"stackrev train -o \xff"))
    run.train(stop=AfterBatches(run, 3))
    Run.resume(folder).train()
    runs.measure(folder)
    checkpoints.verify(folder)


def test_a_folder_is_made_only_for_a_run_that_can_start(tmp_path):
    with pytest.raises(TrainingError, match="device"):
        Run.start(tmp_path / "a" / "run", tiny(device="mps" if not torch.backends.mps.is_available() else "cuda"))
    assert list(tmp_path.iterdir()) == []
