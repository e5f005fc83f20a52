"""What a task is: it draws sources, says what is to be written for each, and names its vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.tasks import text as texts
from stackrev.tasks.vocabulary import ASCII, Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONGEST_SENTENCE = 2_000_000
"""How many words the longest sentence of a grammar has that can be drawn."""


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
        vocabulary: The ids that it reads.
        target_vocabulary: The ids that it writes; None if they are those that it reads.
        uniform: Whether sources are strings of symbols, each symbol as likely as any other. If not, `draw` is the
            task's own.
        length_step: What the length of every source is a multiple of, where sources are uniform.
        shortest: How many symbols the shortest source has, the empty one aside.
        longest: How many the longest has that can be drawn; None if any number can.
        knows: Whether `answer` knows what is to be written for any source.
    """

    name: str
    summary: str
    vocabulary: Vocabulary = ASCII
    target_vocabulary: Vocabulary | None = None
    uniform: bool = True
    length_step: int = 1
    shortest: int = 1
    longest: int | None = None
    certifiable: bool = False
    knows: bool = True

    @property
    def written(self) -> Vocabulary:
        """The vocabulary of what is written."""
        return self.target_vocabulary or self.vocabulary

    @property
    def unit(self) -> str:
        """What a symbol is called in messages."""
        return "word" if self.vocabulary.words else "character"

    @property
    def size(self) -> int:
        """How many ids a model of the task has, markers included: as many as the larger vocabulary."""
        return max(self.vocabulary.size, self.written.size)

    def answer(self, string: Sequence[int]) -> list[int]:
        """What is to be written for a string of symbol ids, without the end marker.

        Raises:
            DataError: The string is not a source of the task.
        """
        raise NotImplementedError

    def most_written(self, length: int) -> int:
        """After how many symbols a model that writes for a source of this length is stopped, if it does not end."""
        return 2 * length + 16

    def answers(self, strings: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`answer` for strings side by side.

        Args:
            strings: [N, B] ids; past a string's end they may be anything.
            lengths: [B], the lengths of the strings.

        Returns:
            Targets [M, B], which may be anything past their ends, and their lengths [B].
        """
        import torch

        rows = strings.T.tolist()
        found = [
            torch.tensor(self.answer(row[:length]), dtype=torch.int64)
            for row, length in zip(rows, lengths.tolist(), strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(found).long(), torch.tensor([len(each) for each in found])

    def held_out(self) -> tuple[list[Tensor], list[Tensor]] | None:
        """The sources to validate and to test with, where the task has its own; None if they are drawn."""
        return None

    def draw(self, lengths: LengthRange, samples: int, generator: torch.Generator) -> list[Tensor]:
        """Draw sources: a length, uniform over those in the range, then symbols, uniform over the vocabulary.

        Args:
            lengths: The range of lengths.
            samples: How many.
            generator: Where the draws come from.

        Raises:
            DataError: No source has a length in the range.
        """
        from stackrev.tasks.strings import sample_strings

        return sample_strings(lengths, samples, generator, alphabet=self.vocabulary.ids, step=self.length_step)

    def bind(self, text: str, *, on_progress: Callable[[int], object] | None = None) -> texts.Reading:
        """A text as a model of the task reads it.

        Args:
            text: Without markers. Where the vocabulary is ASCII, any text: see `tasks/text`.
            on_progress: Called as a long text is cut up, with how many more of its code points are done.

        Raises:
            VocabularyError: The vocabulary has no symbol for a part of it.
            DataError: No source is so long.
        """
        if self.vocabulary is ASCII:
            read: texts.Reading = texts.bind(text, on_progress=on_progress)
        else:
            read = texts.Named(self.vocabulary.encode(text), self.vocabulary, self.written)
        count = len(read.ids)
        if count % self.length_step or 1 < self.shortest > count:
            raise self.no_source(LengthRange(minimum=count, maximum=count))
        return read

    def has_source(self, lengths: LengthRange) -> bool:
        """Whether sources of a range of lengths can be drawn, by `length_step`, `shortest` and `longest`."""
        if self.longest is not None and lengths.maximum > self.longest:
            return False
        return lengths.maximum // self.length_step * self.length_step >= max(lengths.minimum, self.shortest)

    def no_source(self, lengths: LengthRange) -> DataError:
        """The error that no source has a length in a range."""
        hint = "ask for other lengths"
        if lengths.maximum < self.shortest:
            hint = f"the shortest has {self.shortest} {self.unit}{'s' if self.shortest > 1 else ''}"
        elif self.longest is not None and lengths.maximum > self.longest:
            hint = f"at most {self.longest:,} {self.unit}s"
        elif self.length_step > 1:
            hint = f"a length must be a multiple of {self.length_step}"
        return DataError(f"{self.name} has no string of {lengths} symbols", hint=hint)
