r"""Any text as symbols: what is not ASCII borrows symbols that the text leaves unused.

A model knows 128 symbols, not 128 characters: what reversal does to a symbol does not depend on which one it is. So a
text is cut into user-perceived characters (extended grapheme clusters, UAX #29), each ASCII character keeps its own
symbol, and every other cluster, whether one code point or ten, is bound to a symbol that no character of the text
has. A text may therefore have up to 128 different clusters.

A text of ASCII alone needs no binding and is not cut up: its symbols are its code points, control characters too, so
that `\r\n` comes back as `\n\r`. In any other text `\r\n` is what it is for UAX #29, one cluster that stays whole.

Imports no torch, and `regex` only where a text is not ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from stackrev.errors import VocabularyError
from stackrev.tasks import graphemes, vocabulary
from stackrev.tasks.vocabulary import Vocabulary


class Reading(Protocol):
    """A text as a model reads it, and how to show what the model writes."""

    @property
    def ids(self) -> Sequence[int]:
        """Its symbols, without markers."""
        ...

    def show(self, ids: Iterable[int]) -> str:
        """The text of what is written; markers appear as `$`, `|` and `&`."""
        ...

    def clusters(self, ids: Iterable[int]) -> list[str]:
        """What each symbol that is written stands for."""
        ...

    def sources(self, ids: Iterable[int]) -> list[str]:
        """What each symbol that is read stands for."""
        ...


@dataclass(frozen=True, slots=True)
class Named:
    """A text in the vocabulary of a task whose symbols have names: `Reading`.

    Attributes:
        ids: Its symbols, without markers.
        read: The vocabulary of what is read.
        written: The vocabulary of what is written.
    """

    ids: list[int]
    read: Vocabulary
    written: Vocabulary

    def show(self, ids: Iterable[int]) -> str:
        """See `Reading.show`."""
        return self.written.join(self.clusters(ids))

    def clusters(self, ids: Iterable[int]) -> list[str]:
        """See `Reading.clusters`; an id that the language has no word for, as the model may write it, is `?`."""
        return [self.written.tokens([each])[0] if each < self.written.size else "?" for each in ids]

    def sources(self, ids: Iterable[int]) -> list[str]:
        """See `Reading.sources`."""
        return self.read.tokens(ids)


_NO_GLYPHS: Mapping[int, str] = MappingProxyType({})


class Bound(NamedTuple):
    """A text of any characters as a model reads it: `Reading`.

    Attributes:
        ids: Its symbols, without markers, one for each cluster; a byte each, since texts are many or long.
        glyphs: What symbols stand for that do not stand for their own ASCII character.
    """

    ids: bytes
    glyphs: Mapping[int, str] = _NO_GLYPHS

    def show(self, ids: Iterable[int]) -> str:
        """The text that symbols stand for; markers appear as `$`, `|` and `&`."""
        if self.glyphs:
            return "".join(self.clusters(ids))
        ids = ids if isinstance(ids, list | bytes) else list(ids)
        try:
            return bytes(ids).translate(_CHARACTERS).decode("ascii")
        except ValueError:  # an id that is no symbol: `decode` says which
            return vocabulary.decode(ids)

    def clusters(self, ids: Iterable[int]) -> list[str]:
        """What each symbol stands for."""
        shown = dict(self.glyphs)
        return [shown.get(each) or shown.setdefault(each, vocabulary.decode((each,))) for each in ids]

    def sources(self, ids: Iterable[int]) -> list[str]:
        """What each symbol stands for: the same, read or written."""
        return self.clusters(ids)


def bind(text: str, *, on_progress: Callable[[int], object] | None = None) -> Bound:
    """Cut a text into clusters and give each a symbol.

    Args:
        text: Any text.
        on_progress: Called as a text that is not ASCII is cut up, with how many more of its code points are done.

    Raises:
        VocabularyError: The text has more than 128 different clusters, or half of a surrogate pair.
    """
    if text.isascii():
        return Bound(text.encode().translate(_SYMBOLS))
    if surrogate := _SURROGATE.search(text):
        half = f"U+{ord(surrogate[0]):04X}"
        raise VocabularyError(f"the text has half a surrogate pair, {half}", hint="encode it as UTF-8")
    places, distinct = _number(text, on_progress or (lambda count: None))
    if len(distinct) > vocabulary.SYMBOLS:
        raise VocabularyError(
            f"the text has {len(distinct):,} different characters, and the network has {vocabulary.SYMBOLS} symbols",
            hint="reverse it in parts, or line by line from stdin",
        )
    unused = (symbol for symbol in range(vocabulary.SYMBOLS) if chr(symbol) not in distinct)
    symbols = {each: vocabulary.FIRST_SYMBOL + (ord(each) if _stands(each) else next(unused)) for each in distinct}
    glyphs = {symbol: each for each, symbol in symbols.items() if not _stands(each)}
    ids = bytes(symbols.values())
    return Bound(bytes(ids[place] for place in places), glyphs)


def _stands(cluster: str) -> bool:
    """Whether a cluster is an ASCII character, whose symbol is its own."""
    return len(cluster) == 1 and cluster.isascii()


def _number(text: str, tell: Callable[[int], object]) -> tuple[list[int], dict[str, int]]:
    """The clusters of a text, by their place among the different ones: a long text has many, and few different."""
    places: list[int] = []
    distinct: dict[str, int] = {}
    done = 0
    for found in graphemes.pattern().finditer(text):
        places.append(distinct.setdefault(found[0], len(distinct)))
        if found.end() - done >= _PIECE:
            tell(found.end() - done)
            done = found.end()
    tell(len(text) - done)
    return places, distinct


_PIECE = 65_536  # code points between two reports of progress
_SURROGATE = re.compile("[\ud800-\udfff]")
_SYMBOLS = bytes(vocabulary.FIRST_SYMBOL + code if code < vocabulary.SYMBOLS else 0 for code in range(256))
_CHARACTERS = bytes(
    ord(vocabulary.decode((each,))) if each < vocabulary.SIZE else 0xFF  # which is not ASCII
    for each in range(256)
)
