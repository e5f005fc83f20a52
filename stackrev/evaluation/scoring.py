"""Coarse and fine accuracy, from teacher forcing alone.

A greedy decoder need not be run to score a model. Suppose it has written the first k symbols of the target. Then what
it is fed at its next step is what teacher forcing feeds there: `|` and those k symbols, and its state is the same. So
its next symbol is the same, and by induction over k the two agree up to and including the first error, which decides
both scores: coarse asks whether there is one, fine where it is. A decoder that has written the whole target has
written its end marker, and stops there with nothing after it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from threading import Event, Lock
from typing import Any

import torch
from torch import Tensor

from stackrev import kernels
from stackrev.evaluation.capabilities import CanStream, HasMargins, Transducer
from stackrev.evaluation.margins import Margins, margins_of
from stackrev.evaluation.threads import in_order
from stackrev.kernels.cpu.stream import Stream
from stackrev.kernels.defaults import torch_defaults
from stackrev.readout import read_out_right
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.tasks.base import Task
from stackrev.tasks.batches import Batch, held_out, make_batch
from stackrev.tasks.data import DataConfig, task_of

BATCH_SYMBOLS = 16_384
"""How many symbols, padding included, a scoring batch may hold; it bounds the memory that scoring takes."""
SIDE_BY_SIDE = 1_000_000
"""How many symbols, of several strings together, may be in streams at once."""
_PIECE = 1 << 15
"""How many symbols of one long string are scored between two reports of progress."""


@dataclass(frozen=True)
class Scores:
    """How well a model transduces a set of strings.

    Attributes:
        correct: Of each string, in the order given, how many symbols of its target, end marker included, are right
            before the first error.
        lengths: The lengths of the strings.
        margins: How far the model was from doing something else, if that was asked for.
        targets: Of each string, how many symbols its target has, end marker included; empty where that is its own
            length + 1.
    """

    correct: tuple[int, ...]
    lengths: tuple[int, ...]
    margins: Margins | None = None
    targets: tuple[int, ...] = ()

    @property
    def samples(self) -> int:
        """How many strings were scored."""
        return len(self.lengths)

    @property
    def exact(self) -> int:
        """How many strings are answered exactly."""
        return sum(right == whole for right, whole in self._pairs())

    @property
    def total_fine(self) -> float:
        """The sum over strings of the share of the target that is right before an error."""
        return sum(right / whole for right, whole in self._pairs())

    @property
    def coarse(self) -> float:
        """The share of strings whose whole output is right, end marker included and nothing after it."""
        return self.exact / self.samples

    @property
    def fine(self) -> float:
        """The mean over strings of the share of the target, end marker included, that is right before an error."""
        return self.total_fine / self.samples

    @property
    def perfect(self) -> bool:
        """Whether every string is answered exactly."""
        return all(right == whole for right, whole in self._pairs())

    def by_length(self) -> dict[int, Scores]:
        """The scores of each length apart, shortest first."""
        groups: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for length, pair in zip(self.lengths, self._pairs(), strict=True):
            groups[length].append(pair)
        found = {}
        for length in sorted(groups):
            correct, targets = zip(*groups[length], strict=True)
            found[length] = Scores(correct, (length,) * len(correct), targets=targets if self.targets else ())
        return found

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """Of each string, how many symbols of its target are right before the first error, and how many it has."""
        return zip(self.correct, self.targets or (length + 1 for length in self.lengths), strict=True)


def score_held_out(
    model: Transducer,
    data: DataConfig,
    task: Task | None = None,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> dict[str, dict[str, Any]]:
    """What a model scores on the held-out strings of a configuration.

    Args:
        model: The model.
        data: What is held out.
        task: Its task, where that has been opened.
        on_progress: As for `score`, over both sets.

    Returns:
        For each range of lengths, such as "65-128", an object with `coarse`, `fine`, `samples` and `seed`.
    """
    scores = {}
    task = task or task_of(data)
    for lengths, strings in zip((data.lengths, data.test_lengths), held_out(data, task), strict=True):
        result = score(model, strings, task=task, on_progress=on_progress)
        scores[str(lengths)] = {
            "coarse": result.coarse,
            "fine": result.fine,
            "samples": result.samples,
            "seed": data.held_out_seed,
        }
    return scores


def score(
    model: Transducer,
    strings: Sequence[Tensor],
    *,
    task: Task = REVERSAL,
    margins: bool = False,
    on_progress: Callable[[int], object] | None = None,
) -> Scores:
    """Score a model on strings, in evaluation mode, without gradients.

    Args:
        model: The model; its mode is put back afterwards.
        strings: At least one string of symbol ids.
        task: What is to be written for them.
        margins: Whether to measure the margins too; see `HasMargins`.
        on_progress: Called with the number of symbols that have been gone through since the last call, each string's
            and its target's; `symbols_of` tells how many there are in all.

    Raises:
        ValueError: There are no strings, or the model has no margins and they are asked for.
    """
    if not strings:
        raise ValueError("there are no strings to score")
    if margins and not isinstance(model, HasMargins):
        raise ValueError("only a model with a stack, a queue or a deque has margins")
    found = [(0, 0)] * len(strings)
    nearest: list[Margins] = []
    report = on_progress or (lambda _: None)
    training = model.training
    model.eval()
    try:
        with torch_defaults(), torch.inference_mode():
            order = sorted(range(len(strings)), key=lambda place: -len(strings[place]))
            streamed = _streamed(model, [len(strings[place]) for place in order], margins=margins)
            alone = [strings[place] for place in order[:streamed]]
            for place, (pair, margin) in zip(order, _streams(model, alone, task, report), strict=False):
                found[place] = pair
                nearest += [margin] if margins else []
            for places in _group(order[streamed:], [len(each) for each in strings]):
                group = [strings[place] for place in places]
                pairs, measured = _correct(model, group, task, margins=margins)
                report(symbols_of(group))
                nearest += measured
                for place, pair in zip(places, pairs, strict=True):
                    found[place] = pair
    finally:
        model.train(training)
    least = Margins(*map(min, *map(astuple, nearest), (math.inf,) * 5)) if nearest else None
    lengths = tuple(len(each) for each in strings)
    correct, targets = zip(*found, strict=True)
    usual = all(target == length + 1 for target, length in zip(targets, lengths, strict=True))
    return Scores(correct, lengths, least, () if usual else targets)


def memory_for(model: Transducer, length: int) -> int:
    """About how many bytes it takes to score a string of so many symbols."""
    if isinstance(model, CanStream) and kernels.available():  # the ids as numbers and lists, and the stack
        return length * (4 * model.config.input_width + 64)
    states = length * 16 * model.config.hidden_size * model.config.layers  # and what they are made of
    stacks = 12 * length**2 if isinstance(model, CanStream) else 0  # plain torch keeps the column after every step
    return states + stacks


def symbols_of(strings: Sequence[Tensor]) -> int:
    """How many symbols `score` goes through: each string with its marker, and its target."""
    return sum(2 * len(string) + 2 for string in strings)


def correct_symbols(model: Transducer, batch: Batch) -> list[int]:
    """Of each row of `batch.target`, how many symbols of the target are right before the first error."""
    device = next(model.parameters()).device
    batch = batch.to(device)
    table = read_out_right(model.hidden(batch), batch.target, batch.target_steps, model.read_out_weights)
    counts: list[int] = table.long().cumprod(0).sum(0).tolist()
    return counts


def _correct(
    model: Transducer, strings: Sequence[Tensor], task: Task, *, margins: bool
) -> tuple[list[tuple[int, int]], list[Margins]]:
    """Of each string, how many symbols of its target are right and how many it has; and the margins if wanted."""
    batch = make_batch(strings, task).to(next(model.parameters()).device)
    correct = correct_symbols(model, batch)
    measured = [margins_of(model, batch, correct)] if margins and isinstance(model, HasMargins) else []
    return batch.of_sources(list(zip(correct, batch.target_steps.tolist(), strict=True))), measured


class _Stopped(Exception):
    """Nobody waits for the results any more."""


def _streamed(model: Transducer, lengths: Sequence[int], *, margins: bool) -> int:
    """How many of the longest strings go through a stream of the compiled kernels: those that are too long for a batch.

    All do where margins are wanted.
    """
    if not (isinstance(model, CanStream) and kernels.available()):
        return 0
    return len(lengths) if margins else sum(length >= BATCH_SYMBOLS for length in lengths)


def _streams(
    model: Transducer, strings: Sequence[Tensor], task: Task, report: Callable[[int], object]
) -> Iterator[tuple[tuple[int, int], Margins]]:
    """Of each string, how many symbols of its target are right and how many it has, and its margins.

    Strings go side by side, on as many threads as torch has, unless they are so long that this would take much memory.

    Args:
        model: One that can stream, if there are strings.
        strings: Longest first.
        task: What is to be written for them.
        report: As `on_progress` of `score`.
    """
    if not (strings and isinstance(model, CanStream)):
        return
    stream, saturation = model.stream(), model.saturation if isinstance(model, HasMargins) else math.inf
    threads = max(1, min(torch.get_num_threads(), len(strings), SIDE_BY_SIDE // max(1, len(strings[0]))))
    lock, stopped = Lock(), Event()

    def tell(count: int) -> None:
        with lock:
            if stopped.is_set():
                raise _Stopped
            report(count)

    def work(string: Tensor) -> tuple[tuple[int, int], Margins]:
        return _stream(stream.fresh(), string.tolist(), task, saturation, tell)

    yield from in_order(work, strings, threads=threads, stop=stopped.set)


def _stream(
    stream: Stream, symbols: list[int], task: Task, saturation: float, report: Callable[[int], object]
) -> tuple[tuple[int, int], Margins]:
    """`_correct` and the margins of one string, in memory that holds its stack and no more."""
    source, target = [vocabulary.START, *symbols], [*task.answer(symbols), vocabulary.END]
    for start in range(0, len(source), _PIECE):
        piece = source[start : start + _PIECE]
        stream.encode(piece)
        report(len(piece))
    right, margin = 0, math.inf
    while right < len(target):
        piece = target[right : right + _PIECE]
        found = stream.score(target[right - 1] if right else vocabulary.SEPARATOR, piece)
        right, margin = right + found.right, min(margin, found.margin)
        if found.right < len(piece):  # the rest of the target is not gone through: report it with this piece
            report(len(target) - right + found.right)
            break
        report(len(piece))
    encoder_push, encoder_pop, decoder_push, decoder_pop = (each - saturation for each in stream.nearest())
    return (right, len(target)), Margins(encoder_push, encoder_pop, decoder_push, decoder_pop, margin)


def _group(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of strings, longest first, in groups that fit a batch and waste little of it on padding."""
    group: list[int] = []
    for place in order:
        if group and (len(group) + 1) * (lengths[group[0]] + 1) > BATCH_SYMBOLS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group
