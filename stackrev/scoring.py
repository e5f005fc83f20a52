"""Coarse and fine accuracy, from teacher forcing alone.

A greedy decoder need not be run to score a model. Suppose it has written the first k symbols of the target. Then what
it is fed at its next step is what teacher forcing feeds there: `|` and those k symbols, and its state is the same. So
its next symbol is the same, and by induction over k the two agree up to and including the first error, which decides
both scores: coarse asks whether there is one, fine where it is. A decoder that has written the whole target has
written its end marker, and stops there with nothing after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stackrev import native, vocabulary
from stackrev.data import Batch, make_batch
from stackrev.models import Reverser, StackLSTMReverser, pack_targets

BATCH_SYMBOLS = 16_384
"""How many symbols, padding included, a scoring batch may hold; it bounds the memory that scoring takes."""


@dataclass(frozen=True)
class Scores:
    """How well a model reverses a set of strings.

    Attributes:
        correct: Of each string, in the order given, how many symbols are right before the first error; the whole
            target, end marker included, is its length + 1.
        lengths: The lengths of the strings.
    """

    correct: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def samples(self) -> int:
        """How many strings were scored."""
        return len(self.lengths)

    @property
    def coarse(self) -> float:
        """The share of strings whose whole output is right, end marker included and nothing after it."""
        return sum(right == length + 1 for right, length in self._pairs()) / self.samples

    @property
    def fine(self) -> float:
        """The mean over strings of the share of the target, end marker included, that is right before an error."""
        return sum(right / (length + 1) for right, length in self._pairs()) / self.samples

    @property
    def perfect(self) -> bool:
        """Whether every string is reversed exactly."""
        return all(right == length + 1 for right, length in self._pairs())

    def by_length(self) -> dict[int, Scores]:
        """The scores of each length apart, shortest first."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for right, length in self._pairs():
            groups[length].append(right)
        return {length: Scores(tuple(groups[length]), (length,) * len(groups[length])) for length in sorted(groups)}

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return zip(self.correct, self.lengths, strict=True)


def score(
    model: Reverser[Any], strings: Sequence[Tensor], *, on_progress: Callable[[int], object] | None = None
) -> Scores:
    """Score a model on strings, in evaluation mode, without gradients.

    Args:
        model: The model; its mode is put back afterwards.
        strings: At least one string of symbol ids.
        on_progress: Called after each batch with the number of strings scored in it.

    Raises:
        ValueError: There are no strings.
    """
    if not strings:
        raise ValueError("there are no strings to score")
    correct = [0] * len(strings)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for places in _group([len(each) for each in strings]):
                counts = _correct(model, [strings[place] for place in places])
                for place, count in zip(places, counts, strict=True):
                    correct[place] = count
                if on_progress is not None:
                    on_progress(len(places))
    finally:
        model.train(training)
    return Scores(tuple(correct), tuple(len(each) for each in strings))


def correct_symbols(model: Reverser[Any], batch: Batch) -> list[int]:
    """Of each row of a batch, how many symbols of the target are right before the first error."""
    device = next(model.parameters()).device
    predicted = model(batch.to(device)).argmax(-1).cpu()
    right = predicted == pack_targets(batch)
    # unpack: `right` lists the running rows of step 0, then of step 1, ...; where none runs, nothing is right
    inside = torch.arange(batch.target.shape[0])[:, None] < batch.steps
    table = torch.zeros(inside.shape, dtype=torch.bool)
    table[inside] = right
    counts: list[int] = table.long().cumprod(0).sum(0).tolist()
    return counts


def _correct(model: Reverser[Any], strings: Sequence[Tensor]) -> list[int]:
    """`correct_symbols`, longest first; of a string too long for a batch by the compiled kernels, if they are there."""
    if len(strings[0]) >= BATCH_SYMBOLS and isinstance(model, StackLSTMReverser) and native.available():
        return [_stream(model, string) for string in strings]
    return correct_symbols(model, make_batch(strings))


def _stream(model: StackLSTMReverser, string: Tensor) -> int:
    """`correct_symbols` of one string, in memory that holds its stack and no more."""
    symbols = string.tolist()
    session = model.session()
    session.encode([vocabulary.START, *symbols])
    return session.score(vocabulary.SEPARATOR, vocabulary.target_ids(symbols)).right


def _group(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of strings, longest first, in groups that fit a batch and waste little of it on padding."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    group: list[int] = []
    for place in order:
        if group and (len(group) + 1) * (lengths[group[0]] + 1) > BATCH_SYMBOLS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group
