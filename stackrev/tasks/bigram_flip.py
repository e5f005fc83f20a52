"""Bigram flipping: the symbols of each pair swapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from stackrev.errors import DataError
from stackrev.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class BigramFlip(Task):
    """The string with the two symbols of each pair swapped; only strings of even length are sources.

    Section 4.1 of Grefenstette et al. 2015: a1 a2 a3 a4 becomes a2 a1 a4 a3.

    >>> BigramFlip().answer([7, 5, 9, 4])
    [5, 7, 4, 9]
    """

    name = "bigram-flip"
    summary = "the string with the symbols of each pair swapped"
    length_step = 2
    shortest = 2

    @override
    def answer(self, string: Sequence[int]) -> list[int]:
        if len(string) % 2:
            raise DataError(
                f"a string of {len(string):,} symbols cannot be cut into pairs", hint="give one of even length"
            )
        return [symbol for start in range(0, len(string), 2) for symbol in (string[start + 1], string[start])]

    @override
    def answers(self, strings: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        if bool((lengths % 2).any()):
            return super().answers(strings, lengths)  # which says what is wrong
        place = torch.arange(strings.shape[0] // 2 * 2).view(-1, 2).flip(1).flatten()
        return strings[place], lengths
