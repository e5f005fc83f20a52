"""The 131 ids that models read and write: three markers and the 128 ASCII code points.

Markers are ids of their own, so a `$`, `|` or `&` inside a string is an ordinary character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stackrev.errors import VocabularyError


@dataclass(frozen=True)
class Vocabulary:
    """The ids that a task reads and writes: the markers, and after them so many symbols.

    Attributes:
        symbols: How many symbols there are.
    """

    symbols: int

    @property
    def size(self) -> int:
        """How many ids there are, markers included."""
        return FIRST_SYMBOL + self.symbols

    @property
    def ids(self) -> range:
        """The ids of the symbols."""
        return range(FIRST_SYMBOL, self.size)


START = 0
SEPARATOR = 1
END = 2
MARKERS = "$|&"
FIRST_SYMBOL = len(MARKERS)
SYMBOLS = 128
ASCII = Vocabulary(SYMBOLS)
SIZE = ASCII.size


def encode(text: str) -> list[int]:
    """The ids of an ASCII string, without markers.

    Raises:
        VocabularyError: A character is not ASCII.
    """
    ids = [FIRST_SYMBOL + ord(character) for character in text]
    if ids and max(ids) >= SIZE:
        place, character = next((i, each) for i, each in enumerate(text) if ord(each) >= SYMBOLS)
        raise VocabularyError(
            f"character {place + 1}, {character!r}, is not ASCII", hint="data files hold ASCII strings alone"
        )
    return ids


def decode(ids: Iterable[int]) -> str:
    """The characters of ids; markers appear as `$`, `|` and `&`.

    Raises:
        VocabularyError: An id is outside the vocabulary.
    """
    characters = []
    for each in ids:
        if not 0 <= each < SIZE:
            raise VocabularyError(f"there is no symbol {each}", hint=f"ids run from 0 to {SIZE - 1}")
        characters.append(MARKERS[each] if each < FIRST_SYMBOL else chr(each - FIRST_SYMBOL))
    return "".join(characters)


def source_ids(string: Sequence[int]) -> list[int]:
    """What a model reads for a string of symbol ids: `$`, the string, `|`."""
    return [START, *string, SEPARATOR]


def target_ids(string: Sequence[int]) -> list[int]:
    """What a model should write for it: the string reversed, `&`."""
    return [*reversed(string), END]
