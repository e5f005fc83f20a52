"""Random strings in any number: drawn a piece at a time, and the same as if they were drawn at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.tasks import vocabulary

_LENGTHS = 1 << 16  # how many lengths are drawn at once


class Draw:
    """The strings that `sample_strings` draws from a newly seeded generator, in pieces that fit into memory.

    A generator gives the lengths of all strings first, and then their symbols. So the lengths are drawn twice: once to
    come to where the symbols begin, and once more beside them.

    Args:
        lengths: The range of lengths.
        samples: How many strings.
        seed: Of the generator.
        alphabet: The symbol ids to draw from; all of ASCII if None.
    """

    def __init__(self, lengths: LengthRange, samples: int, seed: int, *, alphabet: Sequence[int] | None = None) -> None:
        self.lengths, self.samples, self._seed = lengths, samples, seed
        self._alphabet = torch.tensor(range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE) if alphabet is None else alphabet)

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
            yield torch.randint(self.lengths.minimum, self.lengths.maximum + 1, shape, generator=generator)

    @cached_property
    def _measured(self) -> tuple[int, Tensor]:
        """How many symbols there are, and the generator's state where they begin."""
        generator = torch.Generator().manual_seed(self._seed)
        return sum(int(counts.sum()) for counts in self._counts(generator)), generator.get_state()
