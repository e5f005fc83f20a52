"""Runs in folders: they resume bit for bit, and no kill costs more than what came after the last save."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shapes import shape_of

from stackrev.config import LengthRange
from stackrev.errors import CheckpointError, TrainingError
from stackrev.evaluation.scoring import symbols_of
from stackrev.kinds.config import Config
from stackrev.models import load
from stackrev.storage import checkpoints
from stackrev.tasks.batches import held_out
from stackrev.tasks.data import DataConfig
from stackrev.training import runs
from stackrev.training import state as states
from stackrev.training.events import BatchEvent
from stackrev.training.runs import Run
from stackrev.training.trainer import Trainer
from stackrev.training_config import TrainingConfig


def tiny(kind: str = "stack-lstm", **training) -> Config:
    short, longer = LengthRange(minimum=1, maximum=4), LengthRange(minimum=5, maximum=6)
    return Config(
        data=DataConfig(lengths=short, test_lengths=longer, held_out_samples=5),
        model=shape_of(kind, hidden_size=8, stack_width=8),
        training=TrainingConfig(
            **{"batches": 12, "batch_size": 4, "check_every": 5, "settle_batches": 300, "device": "cpu"} | training
        ),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).model.state_dict()


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class AfterBatches:
    """Asks to stop at certain batches."""

    def __init__(self, run: Run, *batches: int) -> None:
        self.run, self.batches = run, batches

    def __call__(self) -> bool:
        return self.run.trainer.progress.batch in self.batches


@pytest.mark.parametrize("kind", ["rnn", "lstm", "stack-lstm"])
@pytest.mark.parametrize(
    "training",
    [
        {},
        {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.1},
        {"optimizer": "rmsprop", "momentum": 0.9, "schedule": "linear", "warmup_batches": 3},
        {"optimizer": "sgd", "momentum": 0.9, "mixed_lengths": False},
        {"curriculum_start": 1, "curriculum_loss": 100.0},
    ],
    ids=lambda training: training.get("optimizer", "curriculum" if training else "adam"),
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, kind, training):
    config = tiny(kind, **training)
    whole = Run.start(tmp_path / "whole", config)
    assert whole.train()

    parts = Run.start(tmp_path / "parts", config)
    for stop in (3, 5, 11):
        assert not parts.train(stop=AfterBatches(parts, stop))
        parts = Run.resume(tmp_path / "parts")
        assert parts.trainer.progress.batch == stop
    assert parts.train()

    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert_equal(whole.trainer.state()[0], parts.trainer.state()[0])
    timeless = [
        [{**line, "seconds": None} for line in checkpoints.read_history(tmp_path / name)] for name in ("whole", "parts")
    ]
    assert timeless[0] == timeless[1]
    assert [line["batch"] for line in timeless[0]] == [5, 10, 12]


def test_a_run_in_a_folder_ends_like_one_without(tmp_path):
    run = Run.start(tmp_path / "run", tiny())
    run.train()
    trainer = Trainer(tiny())
    trainer.run()
    assert_equal(weights(tmp_path / "run"), trainer.model.state_dict())


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    Run.start(tmp_path / "run", tiny()).train()
    before = weights(tmp_path / "run")
    again = Run.resume(tmp_path / "run")
    assert again.train()
    assert_equal(before, weights(tmp_path / "run"))


def test_the_checkpoint_is_whole_from_the_first_moment(tmp_path):
    run = Run.start(tmp_path / "run", tiny(), command="stackrev train")
    assert checkpoints.verify(tmp_path / "run")
    assert_equal(weights(tmp_path / "run"), run.trainer.model.state_dict())
    assert checkpoints.describe(tmp_path / "run").command == "stackrev train"


def test_slow_runs_are_saved_between_checks(tmp_path):
    run = Run.start(tmp_path / "run", tiny(check_every=1000))
    saved = []

    def look(event):
        if isinstance(event, BatchEvent) and event.batch > 1:
            saved.append(states.read(tmp_path / "run")[1].progress["batch"])

    run.train(look, save_seconds=0.0)
    assert saved == list(range(1, 12))


def test_an_exception_in_the_callback_passes_through(tmp_path):
    run = Run.start(tmp_path / "run", tiny())

    def fail(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(fail)
    assert Run.resume(tmp_path / "run").trainer.progress.batch == 0


def test_scores_in_a_checkpoint_are_those_of_its_weights(tmp_path):
    run = Run.start(tmp_path / "run", tiny())
    assert checkpoints.load_config(tmp_path / "run")[1] == {}
    run.train(stop=AfterBatches(run, 7))
    assert checkpoints.load_config(tmp_path / "run")[1] == {}
    run.train()
    scores = checkpoints.load_config(tmp_path / "run")[1]
    assert scores.keys() == {"1-4", "5-6"}
    assert scores["1-4"].keys() == {"coarse", "fine", "samples", "seed"}


def test_measure_scores_the_file_and_records_it(tmp_path):
    Run.start(tmp_path / "run", tiny()).train()
    counted = []
    scores = runs.measure(tmp_path / "run", on_progress=counted.append)
    assert sum(counted) == sum(map(symbols_of, held_out(tiny().data)))
    recorded = checkpoints.load_config(tmp_path / "run")[1]
    assert recorded == {name: runs.summary(each, 0) for name, each in scores.items()}


def test_nothing_is_overwritten_unasked(tmp_path):
    folder = tmp_path / "run"
    Run.start(folder, tiny()).train()
    before = weights(folder)
    with pytest.raises(TrainingError, match="already holds a run"):
        Run.start(folder, tiny(seed=1))
    assert_equal(before, weights(folder))
    Run.start(folder, tiny(seed=1), overwrite=True)
    assert Run.resume(folder).config.training.seed == 1


def test_a_packaged_checkpoint_is_not_overwritten_either(tmp_path):
    run = Run.start(tmp_path / "run", tiny())
    (run.folder / runs.STATE).unlink()
    with pytest.raises(TrainingError, match="already holds a run"):
        Run.start(run.folder, tiny())


def test_a_folder_of_something_else_is_never_written_to(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(TrainingError, match=r"README\.md that is not a run's"):
            Run.start(tmp_path, tiny(), overwrite=overwrite)
    assert (tmp_path / "README.md").read_text() == "mine"
    with pytest.raises(TrainingError, match="not a folder"):
        Run.start(tmp_path / "README.md", tiny())


def test_what_makes_another_run_is_refused(tmp_path):
    run = Run.start(tmp_path / "run", tiny())
    assert run.change(tiny()) == []
    for other, message in [
        (tiny(seed=1), "seed = 0, not 1"),
        (tiny(mixed_lengths=False), "mixed_lengths = true, not false"),
        (dataclasses.replace(tiny(), data=DataConfig()), "lengths = 1-4, not 8-64"),
        (tiny("rnn"), "kind = stack-lstm, not rnn"),
    ]:
        with pytest.raises(TrainingError, match=message):
            run.change(other)
    assert run.config == tiny()


def resumed(folder: Path, **training) -> Run:
    """A run that stopped after four batches, and goes on with other settings."""
    Run.start(folder, tiny(batches=8, **training)).train(stop=iter([False, False, False, True] + [True] * 9).__next__)
    return Run.resume(folder)


def test_a_run_goes_on_with_more_batches(tmp_path):
    run = resumed(tmp_path / "run")
    had = run.trainer.progress.batch
    assert 0 < had < 8
    (change,) = run.change(tiny(batches=12))
    assert (change.setting, change.old, change.new, change.exact) == ("batches", "8", "12", True)
    run.train()
    again = Run.resume(tmp_path / "run")
    assert again.config.training.batches == again.trainer.progress.batch == 12
    whole = Trainer(tiny(batches=12))
    whole.run()
    found = whole.model.state_dict()
    assert all(each.equal(found[name]) for name, each in again.trainer.model.state_dict().items())


def test_it_says_when_bits_are_no_longer_those_of_another_run(tmp_path):
    run = resumed(tmp_path / "run", schedule="linear")
    with pytest.raises(TrainingError, match="batches already"):
        run.change(tiny(batches=1, schedule="linear"))
    changed = run.change(tiny(batches=12, schedule="linear", settle_batches=None, check_every=3))
    assert {each.setting: each.exact for each in changed} == {
        "batches": False,
        "settle_batches": True,
        "check_every": False,
    }


@pytest.mark.parametrize(
    "setting", [{"settle_growth": 0.1}, {"settle_rate": 0.5}, {"symbol_noise": 0.1}, {"settle_noise": 0.1}]
)
@pytest.mark.parametrize("solved", [None, 1])
def test_a_solved_run_that_settles_by_number_has_other_bits_with_another(tmp_path, setting, solved):
    run = resumed(tmp_path / "run", **setting)
    run.trainer.progress.solved_batch = solved
    (changed,) = run.change(tiny(batches=8, **setting, settle_batches=99))
    assert (changed.setting, changed.exact) == ("settle_batches", solved is None)


def test_a_change_is_recorded(tmp_path):
    Run.start(tmp_path / "run", tiny(batches=8), command="stackrev train").train(stop=lambda: True)
    run = Run.resume(tmp_path / "run")
    run.change(tiny(batches=9, settle_batches=None))
    run.save()
    recorded = checkpoints.describe(tmp_path / "run")
    assert recorded.config.training.batches == 9
    assert recorded.command == "stackrev train; from batch 1 on with --batches 9 --settle-batches none"


def test_what_cannot_be_resumed_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="holds no run"):
        Run.resume(tmp_path)
    run = Run.start(tmp_path / "run", tiny())
    tensors, state = states.read(run.folder)
    other = dataclasses.replace(state.config, training=dataclasses.replace(state.config.training, optimizer="sgd"))
    states.write(run.folder, tensors, dataclasses.replace(state, config=other))
    with pytest.raises(TrainingError, match="does not fit"):
        Run.resume(run.folder)

    (run.folder / runs.STATE).write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        Run.resume(run.folder)


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from stackrev.storage import checkpoints
from stackrev.cli import main
from stackrev.training.runs import Run, STATE

folder = Path(sys.argv[1]) / "run"
chance = random.Random(0)
common = ["train", "--hidden-size", "8", "--stack-width", "8", "--batch-size", "4", "--lengths", "1-4",
          "--test-lengths", "5-6", "--held-out-samples", "5", "--check-every", "1", "--device", "cpu",
          "--threads", "1", "--quiet"]
for name in ("first", "second"):  # the first imports everything, the second tells how fast this machine is today
    start = time.monotonic()
    assert main([*common, "--output", str(folder.parent / name), "--batches", "2"]) == 0
    pace = time.monotonic() - start
reached = []
for _ in range(20):
    child = os.fork()
    if not child:
        again = ["--resume"] if (folder / STATE).exists() else ["--force"]
        os._exit(main([*common, "--output", str(folder), "--batches", "100000", *again]))
    time.sleep(pace * chance.uniform(0.1, 2.0))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the run ended by itself"
    if not (folder / STATE).exists():
        assert not reached, "a save was lost"
        continue
    reached.append(Run.resume(folder).trainer.progress.batch)
    if (folder / checkpoints.CONFIG).exists():
        checkpoints.verify(folder)
    assert reached == sorted(reached), "a save was lost"
print(reached[-1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
def test_killing_a_run_at_any_moment_loses_no_save(tmp_path):
    # the runs are forked from a process that has torch already, so that the kills fall into their work
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 0
