"""Random strings in any number: drawn a piece at a time, and the same as if they were drawn at once.

The sources of a task that draws them itself are drawn at once, and handed over in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.tasks.base import Task
from stackrev.tasks.strings import draw_lengths
from stackrev.tasks.vocabulary import ASCII

_LENGTHS = 1 << 16  # how many lengths are drawn at once
MOST_AT_ONCE = 1 << 24
"""The most symbols that a task may draw at once."""


class Drawn(Protocol):
    """Random sources of a task."""

    samples: int

    @property
    def symbols(self) -> int:
        """How many symbols the strings have in all."""
        ...

    def pieces(self, *, symbols: int, strings: int) -> Iterator[list[Tensor]]:
        """The strings in their order, in pieces of at most so many symbols and strings, and at least one string."""
        ...


def draw(task: Task, lengths: LengthRange, samples: int, seed: int, *, alphabet: Sequence[int] | None = None) -> Drawn:
    """The sources that a task draws from a newly seeded generator.

    Args:
        task: The task.
        lengths: The range of lengths.
        samples: How many sources.
        seed: Of the generator.
        alphabet: The symbol ids to draw from, where sources are strings of any symbols; all of them if None.

    Raises:
        DataError: No source has a length in the range, or there are too many symbols to be drawn at once.
    """
    if task.uniform:
        ids = task.vocabulary.ids if alphabet is None else alphabet
        return Draw(lengths, samples, seed, alphabet=ids, step=task.length_step)
    if lengths.maximum * samples > MOST_AT_ONCE:
        raise DataError(
            f"{samples:,} strings of {task.name} of up to {lengths.maximum:,} symbols are too many",
            hint="ask for fewer, or for shorter ones",
        )
    return _AtOnce(task.draw(lengths, samples, torch.Generator().manual_seed(seed)))


class _AtOnce:
    """Strings that have been drawn."""

    def __init__(self, strings: list[Tensor]) -> None:
        self.samples = len(strings)
        self._strings = strings

    @property
    def symbols(self) -> int:
        return sum(map(len, self._strings))

    def pieces(self, *, symbols: int, strings: int) -> Iterator[list[Tensor]]:
        piece: list[Tensor] = []
        total = 0
        for string in self._strings:
            if piece and (total + len(string) > symbols or len(piece) == strings):
                yield piece
                piece, total = [], 0
            piece.append(string)
            total += len(string)
        if piece:
            yield piece


class Draw:
    """The strings that `sample_strings` draws from a newly seeded generator, in pieces that fit into memory.

    A generator gives the lengths of all strings first, and then their symbols. So the lengths are drawn twice: once to
    come to where the symbols begin, and once more beside them.

    Args:
        lengths: The range of lengths.
        samples: How many strings.
        seed: Of the generator.
        alphabet: The symbol ids to draw from; all of ASCII if None.
        step: What every length is a multiple of.

    Raises:
        DataError: There is no such length in the range.
    """

    def __init__(
        self, lengths: LengthRange, samples: int, seed: int, *, alphabet: Sequence[int] | None = None, step: int = 1
    ) -> None:
        self.lengths, self.samples, self._seed, self._step = lengths, samples, seed, step
        self._alphabet = torch.tensor(ASCII.ids if alphabet is None else alphabet)
        draw_lengths(lengths, (0,), torch.Generator(), step=step)

    @property
    def symbols(self) -> int:
        """How many symbols the strings have in all."""
        return self._measured[0]

    def pieces(self, *, symbols: int, strings: int) -> Iterator[list[Tensor]]:
        """The strings in their order, in pieces of at most so many symbols and strings, and at least one string."""
        generator = torch.Generator()
        generator.set_state(self._measured[1])
        piece: list[int] = []
        total = 0
        for length in self._each_length():
            if piece and (total + length > symbols or len(piece) == strings):
                yield self._strings(piece, generator)
                piece, total = [], 0
            piece.append(length)
            total += length
        if piece:
            yield self._strings(piece, generator)

    def _strings(self, counts: list[int], generator: torch.Generator) -> list[Tensor]:
        places = torch.randint(len(self._alphabet), (sum(counts),), generator=generator)
        return list(torch.split(self._alphabet[places], counts))

    def _each_length(self) -> Iterator[int]:
        for counts in self._counts(torch.Generator().manual_seed(self._seed)):
            yield from counts.tolist()

    def _counts(self, generator: torch.Generator) -> Iterator[Tensor]:
        for start in range(0, self.samples, _LENGTHS):
            shape = (min(_LENGTHS, self.samples - start),)
            yield draw_lengths(self.lengths, shape, generator, step=self._step)

    @cached_property
    def _measured(self) -> tuple[int, Tensor]:
        """How many symbols there are, and the generator's state where they begin."""
        generator = torch.Generator().manual_seed(self._seed)
        return sum(int(counts.sum()) for counts in self._counts(generator)), generator.get_state()
