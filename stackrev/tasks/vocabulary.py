"""The ids that models read and write: three markers, and after them the symbols of a task.

Most tasks have the 128 ASCII code points, 131 ids in all; others have words. Markers are ids of their own, so a `$`,
`|` or `&` inside a string is an ordinary character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from stackrev.errors import VocabularyError

START = 0
SEPARATOR = 1
END = 2
MARKERS = "$|&"
FIRST_SYMBOL = len(MARKERS)
SYMBOLS = 128


@dataclass(frozen=True)
class Vocabulary:
    """The ids that a task reads or writes: the markers, and after them so many symbols.

    Attributes:
        symbols: How many symbols there are.
        names: What each symbol stands for: a character or a word. Empty for symbols that are numbers alone.
        words: Whether symbols are words, which spaces separate in a text.
    """

    symbols: int
    names: tuple[str, ...] = ()
    words: bool = False

    @classmethod
    def of(cls, names: Iterable[str], *, words: bool = False) -> Vocabulary:
        """The vocabulary of these characters or words."""
        listed = tuple(names)
        return cls(len(listed), listed, words)

    @property
    def size(self) -> int:
        """How many ids there are, markers included."""
        return FIRST_SYMBOL + self.symbols

    @property
    def ids(self) -> range:
        """The ids of the symbols."""
        return range(FIRST_SYMBOL, self.size)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without markers.

        Raises:
            VocabularyError: A character or a word is not in the vocabulary.
        """
        return self.encode_tokens(self.split(text))

    def encode_tokens(self, tokens: Sequence[str]) -> list[int]:
        """The ids of characters or words.

        Raises:
            VocabularyError: One of them is not in the vocabulary.
        """
        try:
            return [self._ids[token] for token in tokens]
        except KeyError:
            pass
        place, token = next((i, each) for i, each in enumerate(tokens, start=1) if each not in self._ids)
        if self == ASCII:
            raise VocabularyError(
                f"character {place}, {token!r}, is not ASCII", hint="data files hold ASCII strings alone"
            )
        kind = "word" if self.words else "character"
        raise VocabularyError(
            f"{kind} {place}, {token!r}, is not in the vocabulary", hint=f"the {kind}s are {self._some()}"
        )

    def split(self, text: str) -> list[str]:
        """A text as the words, or the characters, that the vocabulary has symbols for."""
        if self.words:
            return text.split()
        if text.isascii() or (self.names and self.characters):
            return list(text)
        from stackrev.tasks.graphemes import clusters

        return clusters(text)

    @property
    def characters(self) -> bool:
        """Whether every symbol is one code point."""
        return all(len(name) == 1 for name in self.names)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """What each id stands for; markers are `$`, `|` and `&`.

        Raises:
            VocabularyError: An id is outside the vocabulary.
        """
        found = []
        for each in ids:
            if not 0 <= each < self.size:
                raise VocabularyError(f"there is no symbol {each}", hint=f"ids run from 0 to {self.size - 1}")
            found.append(MARKERS[each] if each < FIRST_SYMBOL else self.names[each - FIRST_SYMBOL])
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; markers appear as `$`, `|` and `&`.

        Raises:
            VocabularyError: An id is outside the vocabulary.
        """
        return self.join(self.tokens(ids))

    def join(self, tokens: Iterable[str]) -> str:
        """Characters or words as one text."""
        return (" " if self.words else "").join(tokens)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: FIRST_SYMBOL + place for place, name in enumerate(self.names)}

    def _some(self) -> str:
        """The first few of the names, for a message."""
        shown = [each if self.words else repr(each) for each in self.names[:12]]
        return ", ".join([*shown, "..."] if len(self.names) > len(shown) else shown)


ASCII = Vocabulary.of(map(chr, range(SYMBOLS)))
SIZE = ASCII.size


def encode(text: str) -> list[int]:
    """The ids of an ASCII string, without markers.

    Raises:
        VocabularyError: A character is not ASCII.
    """
    return ASCII.encode(text)


def decode(ids: Iterable[int]) -> str:
    """The characters of ids; markers appear as `$`, `|` and `&`.

    Raises:
        VocabularyError: An id is outside the vocabulary.
    """
    return ASCII.decode(ids)


def source_ids(string: Sequence[int]) -> list[int]:
    """What a model reads for a string of symbol ids: `$`, the string, `|`."""
    return [START, *string, SEPARATOR]


def target_ids(string: Sequence[int]) -> list[int]:
    """What a model that reverses should write for it: the string reversed, `&`."""
    return [*reversed(string), END]
