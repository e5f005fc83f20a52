"""What a task is: it draws sources, says what is to be written for each, and names its vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackrev.config import LengthRange
from stackrev.tasks.vocabulary import ASCII, Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Task:
    """A map from strings to strings that a model is to learn.

    A task is one file with a class derived from this one, and a line in `stackrev.tasks.TASKS`. For example, to write
    every symbol twice:

    >>> class Doubling(Task):
    ...     name = "doubling"
    ...     summary = "every symbol of the string twice"
    ...
    ...     def answer(self, string):
    ...         return [symbol for symbol in string for _ in range(2)]
    >>> Doubling().answer([7, 5])
    [7, 7, 5, 5]

    A model then reads `$ 7 5`, and after `|` it is to write `7 7 5 5 &`.

    Attributes:
        name: What configurations and the command line call it.
        summary: What is to be written, in a few words.
        certifiable: Whether a proof for every length is about this task; see `evaluation/certificate`.
        vocabulary: The ids that it reads and writes.
        uniform: Whether every string of symbols is a source, each symbol as likely as any other. If not, `draw` is the
            task's own.
    """

    name: str
    summary: str
    vocabulary: Vocabulary = ASCII
    uniform: bool = True
    certifiable: bool = False

    def answer(self, string: Sequence[int]) -> list[int]:
        """What is to be written for a string of symbol ids, without the end marker."""
        raise NotImplementedError

    def answers(self, strings: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`answer` for strings side by side.

        Args:
            strings: [N, B] ids; whatever stands past a string's end.
            lengths: [B], the lengths of the strings.

        Returns:
            Targets [M, B], whatever stands past their ends, and their lengths [B].
        """
        import torch

        rows = strings.T.tolist()
        found = [torch.tensor(self.answer(row[:length])) for row, length in zip(rows, lengths.tolist(), strict=True)]
        return torch.nn.utils.rnn.pad_sequence(found).long(), torch.tensor([len(each) for each in found])

    def draw(self, lengths: LengthRange, samples: int, generator: torch.Generator) -> list[Tensor]:
        """Draw sources: a length, uniform over the range, then symbols, uniform over the vocabulary.

        Args:
            lengths: The range of lengths.
            samples: How many.
            generator: Where the draws come from.
        """
        from stackrev.tasks.strings import sample_strings

        return sample_strings(lengths, samples, generator, alphabet=self.vocabulary.ids)
