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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackrev.errors import VocabularyError
from stackrev.tasks import vocabulary

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Bound:
    """A text as a model reads it.

    Attributes:
        ids: Its symbols, without markers, one for each cluster.
        glyphs: What symbols stand for that do not stand for their own ASCII character.
    """

    ids: list[int]
    glyphs: Mapping[int, str] = field(default_factory=dict)

    def show(self, ids: Iterable[int]) -> str:
        """The text that symbols stand for; markers appear as `$`, `|` and `&`."""
        if not self.glyphs:
            return vocabulary.decode(ids)
        return "".join(self.clusters(ids))

    def clusters(self, ids: Iterable[int]) -> list[str]:
        """What each symbol stands for."""
        return [self.glyphs.get(each) or vocabulary.decode((each,)) for each in ids]


def bind(text: str) -> Bound:
    """Cut a text into clusters and give each a symbol.

    Raises:
        VocabularyError: The text has more than 128 different clusters, or half of a surrogate pair.
    """
    if text.isascii():
        return Bound(vocabulary.encode(text))
    if surrogate := next((each for each in text if "\ud800" <= each <= "\udfff"), None):
        raise VocabularyError(f"the text has half a surrogate pair, U+{ord(surrogate):04X}", hint="encode it as UTF-8")
    parts = clusters(text)
    distinct = dict.fromkeys(parts)
    if len(distinct) > vocabulary.SYMBOLS:
        raise VocabularyError(
            f"the text has {len(distinct):,} different characters, and the network has {vocabulary.SYMBOLS} symbols",
            hint="reverse it in parts, or line by line from stdin",
        )
    unused = (symbol for symbol in range(vocabulary.SYMBOLS) if chr(symbol) not in distinct)
    symbols = {
        each: vocabulary.FIRST_SYMBOL + (ord(each) if len(each) == 1 and each.isascii() else next(unused))
        for each in distinct
    }
    glyphs = {symbol: each for each, symbol in symbols.items() if not (len(each) == 1 and each.isascii())}
    return Bound([symbols[each] for each in parts], glyphs)


def clusters(text: str) -> list[str]:
    """The extended grapheme clusters of a text."""
    found: list[str] = _pattern().findall(text)
    return found


def visible(text: str) -> str:
    """A text whose control characters are made visible: a terminal would act on them."""
    return text if text.isprintable() else text.translate(_PICTURES)


_PICTURES: dict[int, str | int] = {
    **{code: 0x2400 + code for code in range(0x20)},  # ␀ to ␟
    0x7F: "␡",
    **{code: f"‹{code:02X}›" for code in range(0x80, 0xA0)},
}

_compiled: list[regex.Pattern[str]] = []


def _pattern() -> regex.Pattern[str]:
    if not _compiled:
        import regex

        _compiled.append(regex.compile(r"\X"))
    return _compiled[0]
