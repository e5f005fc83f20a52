"""What a training run shows on stderr while it goes: a live view on a terminal, a line a check elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from stackrev.cli.check_lines import CheckLines
from stackrev.cli.common import share
from stackrev.cli.output import Output, cells
from stackrev.evaluation.capabilities import CanTrace
from stackrev.evaluation.decoding import greedy
from stackrev.evaluation.traces import trace
from stackrev.tasks import vocabulary
from stackrev.tasks.visible import visible
from stackrev.tasks.vocabulary import Vocabulary
from stackrev.training.certified import Closing
from stackrev.training.events import BatchEvent, CheckEvent, Event, OnEvent
from stackrev.training.trainer import Trainer

if TYPE_CHECKING:
    from rich.text import Text

SAMPLE = "The quick brown fox jumps over the lazy dog"
SPARKS, BAR = 40, 20
"""How many columns a sparkline and a bar have, where there is room."""
NAME, VALUE = 10, 8
"""How many columns a line's name and its number have."""
FRAME_SECONDS = 0.1
SAMPLE_SECONDS = 1.0
"""How often the sample is transduced anew; less often where that takes more than a twentieth of the time."""

_LEVELS = "▁▂▃▄▅▆▇█"


@contextlib.contextmanager
def training_view(trainer: Trainer, *, quiet: bool) -> Iterator[OnEvent]:
    """The callback through which a run is shown while it goes."""
    output = Output(result=False)
    if quiet:
        yield lambda event: None
    elif output.err.terminal:
        with _live(trainer) as on_event:
            yield on_event
    else:
        yield _plain(trainer, output)


def sparkline(values: Sequence[float], *, low: float, high: float) -> str:
    """Values as a row of bars, `low` the lowest and `high` the highest."""
    span = high - low
    places = [0.0 if span <= 0 else min(1.0, max(0.0, (value - low) / span)) for value in values]
    return "".join(_LEVELS[min(len(_LEVELS) - 1, int(place * len(_LEVELS)))] for place in places)


class Series:
    """Values in order, however many, as at most so many means of equally many neighbours.

    Args:
        most: How many means to keep.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._each = 1  # values to a mean
        self._means: list[float] = []
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """One more value."""
        self._open.append(value)
        if len(self._open) == self._each:
            self._means.append(sum(self._open) / self._each)
            self._open.clear()
        if len(self._means) > self._most:
            if len(self._means) % 2:
                self._open = [self._means.pop()] * self._each
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._each *= 2

    @property
    def means(self) -> list[float]:
        """The means so far, the last of them of as many values as there are."""
        return self._means + ([sum(self._open) / len(self._open)] if self._open else [])


class Gates(NamedTuple):
    """Mean strengths over the steps that read or that write."""

    push: float
    pop: float


class Peek(NamedTuple):
    """What a model makes of the sample.

    Attributes:
        text: The sample.
        written: What it writes, symbol by symbol.
        wanted: What it should write.
        vocabulary: What symbols of both are of.
        reading: The gates while it reads; None without a stack.
        writing: The gates while it writes.
    """

    text: str
    written: tuple[str, ...]
    wanted: tuple[str, ...]
    vocabulary: Vocabulary
    reading: Gates | None
    writing: Gates | None


def peek(trainer: Trainer) -> Peek:
    """Transduce the sample with the model as it stands; nothing of the run is changed."""
    model, task = trainer.model, trainer.task
    text = _sample_of(trainer)
    bound = task.bind(text)
    wanted = tuple(bound.clusters([*task.answer(bound.ids), vocabulary.END]))
    if isinstance(model, CanTrace):
        found = trace(model, text, task)
        middle = found.encoder_steps
        gates = [
            Gates(_mean(found.push[part]), _mean(found.pop[part])) for part in (slice(middle), slice(middle, None))
        ]
        return Peek(text, found.written, wanted, task.written, *gates)
    training = model.training
    model.eval()
    try:
        (written,) = greedy(model, [torch.tensor(list(bound.ids))], limit=len(wanted))
    finally:
        model.train(training)
    return Peek(text, tuple(bound.clusters(written)), wanted, task.written, None, None)


def _sample_of(trainer: Trainer) -> str:
    """A source that is shown while the run goes: a known sentence, or the first one that is held out."""
    task, lengths = trainer.task, trainer.config.data.lengths
    if task.uniform and task.vocabulary is vocabulary.ASCII:
        length = min(len(SAMPLE), lengths.maximum)
        return SAMPLE[: length - length % task.length_step]
    return task.vocabulary.decode(trainer.held_out.validation[0].tolist())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plain(trainer: Trainer, output: Output) -> OnEvent:
    speed, checks = _Speed(trainer), CheckLines(trainer.config.data)

    def on_event(event: Event) -> None:
        if isinstance(event, CheckEvent):
            for line in checks.lines(event, speed(), None):
                output.say(line)

    return on_event


@contextlib.contextmanager
def _live(trainer: Trainer) -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.live import Live

    from stackrev.cli.resizing import resizable

    console = Console(stderr=True, highlight=False, markup=False)
    view, checks = _View(trainer), CheckLines(trainer.config.data)
    with Live(console=console, auto_refresh=False, transient=True) as live, resizable(live):

        def on_event(event: Event) -> None:
            if isinstance(event, CheckEvent):
                console.print("\n".join(checks.lines(event, view.speed(), console.width)))
            if view.take(event):
                live.update(view.draw(console.width), refresh=True)

        yield on_event


class _View:
    """What there is to draw."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._losses, self._accuracies = Series(SPARKS), (Series(SPARKS), Series(SPARKS))
        self._loss = math.nan
        self._closing: Closing | None = None
        self._peek: Peek | None = None
        self._next_frame = self._next_peek = 0.0
        self.speed = _Speed(trainer)

    def take(self, event: Event) -> bool:
        """Note an event; whether it is time to draw."""
        now = time.perf_counter()
        if isinstance(event, CheckEvent):
            for series, scores in zip(self._accuracies, (event.validation, event.test), strict=True):
                series.add(scores.fine)
        else:
            self._loss = event.loss
            self._losses.add(math.log10(max(event.loss, 1e-9)))
            self._closing = event.closing
        if now >= self._next_peek:
            self._peek = peek(self._trainer)
            end = time.perf_counter()
            self._next_peek = end + max(SAMPLE_SECONDS, 20 * (end - now))
        if now < self._next_frame and isinstance(event, BatchEvent):
            return False
        self._next_frame = now + FRAME_SECONDS
        return True

    def draw(self, width: int) -> Text:
        """The view, for so many columns."""
        from rich.text import Text

        config = self._trainer.config
        room = width - NAME - VALUE - 2
        lines = [Text(line, style="bold") for line in _flowing(self._title(width), width)]
        lines.append(_row("loss", f"{self._loss:.4f}", _trend(_thinned(self._losses.means, room)), "blue"))
        for lengths, series in zip((config.data.lengths, config.data.test_lengths), self._accuracies, strict=True):
            if means := _thinned(series.means, room):
                lines.append(_row(f"{lengths}", share(means[-1]), sparkline(means, low=0, high=1), "green"))
        if self._closing is not None:
            lines += _near(self._closing, width)
        if self._peek is not None:
            lines += _sample(self._peek, width)
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    def _title(self, width: int) -> list[str]:
        """The kind of model, how far it is, how fast, and how much time is left."""
        config, batch, end = self._trainer.config, self._trainer.progress.batch, self._trainer.end
        speed = self.speed()
        left = _clock((end - batch) / speed) if speed > 0 else "?"
        bar = _bar(batch / max(1, end), min(BAR, width // 8))
        counted = f"batch {batch:,} of {end:,}"
        return [config.model.kind, bar, counted, f"{speed * config.training.batch_size:,.0f} strings/s", f"{left} left"]


def _flowing(pieces: Sequence[str], width: int) -> list[str]:
    """Pieces in as few lines as they fit, two blanks between neighbours."""
    lines: list[str] = []
    for piece in pieces:
        if lines and cells(lines[-1]) + 2 + cells(piece) <= width:
            lines[-1] += f"  {piece}"
        else:
            lines.append(piece)
    return lines


def _bar(done: float, length: int) -> str:
    full = round(length * min(1.0, max(0.0, done)))
    return "█" * full + "░" * (length - full)


def _thinned(means: list[float], most: int) -> list[float]:
    """Values as means of as few neighbours as it takes for at most so many of them."""
    each = max(1, -(-len(means) // max(1, most)))
    return [sum(part) / len(part) for part in (means[at : at + each] for at in range(0, len(means), each))]


def _row(name: str, value: str, sparks: str, style: str) -> Text:
    from rich.text import Text

    return Text(f"{name:<{NAME}}{value:>{VALUE}}  ") + Text(sparks, style=style)


def _near(closing: Closing, width: int) -> list[Text]:
    """How near the run is to a proof: how wide the boxes are, as a share of what it takes, and the margins in them."""
    from rich.text import Text

    wide = min(1.0, closing.scale)
    style = "green" if closing.gates > 0 and closing.logits > 0 else "yellow"
    parts = [f"gates {closing.gates:+.1f}, logits {closing.logits:+.1f}", "at the worst of all strings"]
    room = width - NAME - VALUE - 2
    bar, margins = _bar(wide, min(BAR, max(0, room))), " ".join(parts)
    if len(bar) + 2 + len(margins) <= room:
        return [_row("proof", f"{wide:.1%}", f"{bar}  {margins}", style)]
    below = [margins] if len(margins) <= width - NAME else parts
    return [_row("proof", f"{wide:.1%}", bar, style), *(Text(" " * NAME).append(line, style=style) for line in below)]


def _trend(logarithms: Sequence[float]) -> str:
    """Losses on a logarithmic scale that spans at least one decade."""
    if not logarithms:
        return ""
    high = max(logarithms)
    return sparkline(logarithms, low=min(min(logarithms), high - 1), high=high)


def _sample(peek: Peek, width: int) -> list[Text]:
    """The gates, the sample, and below it what is written, wrong characters marked."""
    from rich.text import Text

    lines = []
    if peek.reading and peek.writing:
        parts = [f"{name} push {each.push:.2f} pop {each.pop:.2f}" for name, each in
                 (("reading:", peek.reading), ("writing:", peek.writing))]  # fmt: skip
        flowing = _flowing(parts, width - NAME)
        lines += [Text(f"{name:<{NAME}}{line}") for name, line in zip(("gates", ""), flowing, strict=False)]
    lines.append(Text(f"{'sample':<{NAME}}{visible(peek.text)}"))
    written = Text(" " * NAME)
    for place, symbol in enumerate(peek.written):
        wrong = peek.wanted[place : place + 1] != (symbol,)
        if place:
            written.append(peek.vocabulary.join(("", "")))
        written.append(visible(symbol), style="bold red reverse" if wrong else "green")
    return [*lines, written]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _Speed:
    """Batches a second since the view was opened."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._start = (trainer.progress.batch, time.perf_counter())

    def __call__(self) -> float:
        batch, start = self._start
        return (self._trainer.progress.batch - batch) / max(1e-9, time.perf_counter() - start)
