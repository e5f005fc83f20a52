"""Reversal: the string backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from stackrev.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class Reversal(Task):
    """The string backwards.

    >>> Reversal().answer([7, 5, 9])
    [9, 5, 7]
    """

    name = "reversal"
    summary = "the string reversed"
    certifiable = True

    @override
    def answer(self, string: Sequence[int]) -> list[int]:
        return list(reversed(string))

    @override
    def answers(self, strings: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        place = torch.arange(strings.shape[0])[:, None]
        return strings.gather(0, (lengths - 1 - place).clamp(min=0)), lengths
