"""What a training run shows on stderr while it goes: a moving line on a terminal, and a line a check everywhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from stackrev.cli.common import share
from stackrev.training import BatchEvent, CheckEvent, Event, OnEvent, Trainer


@contextlib.contextmanager
def training_view(trainer: Trainer, *, quiet: bool) -> Iterator[OnEvent]:
    """The callback through which a run is shown while it goes."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _live(trainer) as on_event:
            yield on_event
    else:
        yield _plain(trainer)


def _plain(trainer: Trainer) -> OnEvent:
    speed = _Speed(trainer)

    def on_event(event: Event) -> None:
        if isinstance(event, CheckEvent):
            print(_check_line(trainer, event, speed), file=sys.stderr, flush=True)

    return on_event


@contextlib.contextmanager
def _live(trainer: Trainer) -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}", markup=False),
        TextColumn("{task.fields[speed]:.1f} batches/s", markup=False),
        TimeRemainingColumn(),
    )
    speed = _Speed(trainer)
    with Progress(*columns, console=console, transient=True) as bar:
        kind, done = trainer.config.model.kind, trainer.progress.batch
        task = bar.add_task(kind, total=_end(trainer), completed=done, loss=float("nan"), speed=0.0)

        def on_event(event: Event) -> None:
            if isinstance(event, BatchEvent):
                bar.update(task, completed=event.batch, total=_end(trainer), loss=event.loss, speed=speed())
            else:
                console.print(_check_line(trainer, event, speed))

        yield on_event


def _check_line(trainer: Trainer, event: CheckEvent, speed: _Speed) -> str:
    data = trainer.config.data
    scores = "   ".join(
        f"{lengths} coarse {share(each.coarse)} fine {share(each.fine)}"
        for lengths, each in ((data.lengths, event.validation), (data.test_lengths, event.test))
    )
    return f"batch {event.batch:>6}   loss {event.loss:.4f}   {scores}   {speed():.1f} batches/s"


def _end(trainer: Trainer) -> int:
    """After how many batches the run ends if nothing changes."""
    training, settled = trainer.config.training, trainer.progress.settled_from
    if settled is None or training.settle_batches is None:
        return training.batches
    return min(training.batches, settled + training.settle_batches)


class _Speed:
    """Batches a second since the view was opened."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._start = (trainer.progress.batch, time.perf_counter())

    def __call__(self) -> float:
        batch, start = self._start
        return (self._trainer.progress.batch - batch) / max(1e-9, time.perf_counter() - start)
