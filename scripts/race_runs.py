"""Let processes fight for the folder of a run, and kill them: no folder may be damaged, and no save may be lost.

A *pair* is two `stackrev train --resume` started at once on one folder. Every second pair is killed at a random moment,
and a third process goes on. Of the other pairs, every second one *meets*: both processes have read the folder before
either trains, so that one trains and the other gives up with one line. Where they do not meet, one may be done before
the other begins. A *kill* ends a run with SIGKILL at a random moment, and the next goes on. In the end the weights must
be, bit for bit, those of an undisturbed run.

    python scripts/race_runs.py --pairs 20 --kills 30
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stackrev.cli import main as stackrev
from stackrev.storage import checkpoints
from stackrev.training.events import Event
from stackrev.training.runs import Run
from stackrev.training.trainer import Trainer

SETTINGS = (
    *("--hidden-size", "8", "--stack-width", "8", "--batch-size", "4", "--lengths", "1-4", "--test-lengths", "5-6"),
    *("--held-out-samples", "5", "--check-every", "1", "--device", "cpu", "--threads", "1", "--quiet"),
)
BATCHES = 60
UNEXPECTED = 70
"""The exit code of a process that ended by an exception."""
MEETING_SECONDS = 100.0
"""How long the first of two processes waits for the second to have read the folder."""


class _Reached(Exception):
    """The run has had as many batches as were asked for."""


def main() -> None:
    """Run the races; a failed assertion says what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pace = _pace(folder)
        gave_up = sum(_pair(folder / f"pair{number}", number, chance, pace) for number in range(arguments.pairs))
        reached = _kills(folder / "killed", arguments.kills, chance, pace) if arguments.kills else 0
    print(f"{arguments.pairs} pairs: {gave_up} gave up in one line; {arguments.kills} kills: {reached} batches kept")


def _pace(folder: Path) -> float:
    """How long a short run takes in a process that has imported everything, in seconds."""
    for name in ("first", "second"):
        start = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            code = stackrev(["train", *SETTINGS, "--batches", "10", "--output", str(folder / name)])
        assert code == 0
        pace = time.monotonic() - start
    return pace


def _start(folder: Path, **training: Any) -> None:
    """Make a run without training it."""
    config = Run.resume(folder.with_name("first")).config
    Run.start(folder, replace(config, training=replace(config.training, **training)))


def _resume(folder: Path, errors: Path, ready: int, meet: Callable[[], object] = lambda: None) -> int:
    """A process that goes on with a run as soon as it can read a byte; its id.

    It calls `meet` when it has read the folder and before it trains.
    """
    child = os.fork()
    if child:
        return child
    train = Run.train

    def train_together(run: Run, *arguments: Any, **options: Any) -> bool:
        meet()
        return train(run, *arguments, **options)

    Run.train = train_together  # type: ignore[method-assign]
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT, 0o666), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = UNEXPECTED
    try:
        os.read(ready, 1)
        code = stackrev(["train", "--resume", "--output", str(folder), "--quiet"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # whatever happened: the scratch folder is the parent's to remove


def _pair(folder: Path, number: int, chance: random.Random, pace: float) -> int:
    """Two processes at once; how many of them gave up."""
    _start(folder, seed=number, batches=BATCHES, settle_batches=None)
    ready, go = os.pipe()
    logs = [folder.with_name(f"{folder.name}-{which}") for which in "ab"]
    killed = number % 2 == 1
    met = number % 4 == 0
    barrier = multiprocessing.get_context("fork").Barrier(2, timeout=MEETING_SECONDS)
    children = [_resume(folder, log, ready, barrier.wait if met else lambda: None) for log in logs]
    os.write(go, b"xx")
    if killed:
        time.sleep(pace * chance.uniform(0.0, 2.0))
        for child in children:
            os.kill(child, signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(ready)
    os.close(go)
    checkpoints.verify(folder)
    for code, log in zip(codes, logs, strict=True):
        lines = log.read_text().splitlines()
        assert code in ((0, 1, -signal.SIGKILL) if killed else (0, 1)), lines
        assert code != 1 or (lines[0].startswith("error: another process") and len(lines) <= 2), lines
    assert killed or 0 in codes, "nobody went on"
    assert not met or sorted(codes) == [0, 1], "both went on from the same batch"
    run = Run.resume(folder)
    run.train()
    left = [each.name for each in folder.iterdir() if each.name.startswith(".")]
    assert not left, f"{left} were left behind"
    _require_equal(run, BATCHES)
    return codes.count(1)


def _kills(folder: Path, kills: int, chance: random.Random, pace: float) -> int:
    """One run, killed again and again; how many batches it has kept."""
    _start(folder, batches=100_000, settle_batches=None)
    reached = 0
    for _ in range(kills):
        ready, go = os.pipe()
        child = _resume(folder, folder.with_name("log"), ready)
        os.write(go, b"x")
        time.sleep(pace * chance.uniform(0.1, 2.0))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, folder.with_name("log").read_text()
        os.close(ready)
        os.close(go)
        checkpoints.verify(folder)
        batch = Run.resume(folder).trainer.progress.batch
        assert batch >= reached, "a save was lost"
        reached = batch
    _require_equal(Run.resume(folder), reached)
    return reached


def _require_equal(run: Run, batches: int) -> None:
    """Make sure that a run has the weights of one that was never disturbed."""
    undisturbed = Trainer(run.config)

    def stop(event: Event) -> None:
        if undisturbed.progress.batch >= batches:
            raise _Reached

    with contextlib.suppress(_Reached):
        undisturbed.run(stop)
    ours, theirs = run.trainer.model.state_dict(), undisturbed.model.state_dict()
    assert undisturbed.progress.batch == run.trainer.progress.batch
    assert all(torch.equal(each, theirs[name]) for name, each in ours.items()), "the weights differ"


if __name__ == "__main__":
    main()
