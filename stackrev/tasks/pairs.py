"""Pairs: whatever turns the inputs of a user's file into its targets."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.tasks.base import Task
from stackrev.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Ids = tuple[int, ...]


class Pairs(Task):
    """What is to be written is known of the pairs alone that come with the task.

    Args:
        vocabulary: The symbols of inputs and targets.
        expansion: How many symbols are written at most for each that is read; see `most_written`.
        answers: What is to be written for each input.
        training: The inputs to learn from.
        validation: Inputs of lengths that are learned from, held out.
        test: Inputs to test with, held out.

    >>> task = Pairs(Vocabulary.of("ab"), answers={(3, 4): (4,)})
    >>> task.answer([3, 4])
    [4]
    """

    name = "pairs"
    summary = "what a file of examples has taught it"
    uniform = False
    knows = False

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        expansion: int = 2,
        answers: Mapping[Ids, Ids] | None = None,
        training: Sequence[Ids] = (),
        validation: Sequence[Ids] = (),
        test: Sequence[Ids] = (),
    ) -> None:
        self.vocabulary = vocabulary
        self._expansion = expansion
        self._answers = dict(answers or {})
        self._training = sorted(training, key=len)
        self._lengths = [len(each) for each in self._training]
        self._held_out = (list(validation), list(test))

    @override
    def answer(self, string: Sequence[int]) -> list[int]:
        try:
            return list(self._answers[tuple(string)])
        except KeyError:
            raise DataError(
                "no pair has this input", hint="stackrev evaluate --data tests on a file of pairs"
            ) from None

    @override
    def most_written(self, length: int) -> int:
        return self._expansion * max(1, length) + 16

    @override
    def held_out(self) -> tuple[list[Tensor], list[Tensor]]:
        import torch

        if not all(self._held_out):
            raise DataError("no pairs are held out", hint="name a file with --data")
        validation, test = ([torch.tensor(each, dtype=torch.int64) for each in part] for part in self._held_out)
        return validation, test

    @override
    def draw(self, lengths: LengthRange, samples: int, generator: torch.Generator) -> list[Tensor]:
        """Draw inputs to learn from, each as likely as any other: those of a length in the range, or the nearest."""
        import torch

        if not self._training:
            raise self.no_source(lengths)
        low, high = bisect.bisect_left(self._lengths, lengths.minimum), bisect.bisect(self._lengths, lengths.maximum)
        if low == high:  # none: take those of the next length above, or the longest
            near = self._lengths[min(low, len(self._lengths) - 1)]
            low, high = bisect.bisect_left(self._lengths, near), bisect.bisect(self._lengths, near)
        places = torch.randint(low, high, (samples,), generator=generator).tolist()
        return [torch.tensor(self._training[place], dtype=torch.int64) for place in places]
