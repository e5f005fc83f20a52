"""Foreign text made fit for a terminal: what acts on it, or can't be seen, becomes a mark.

A terminal obeys control characters, reorders what stands between bidirectional controls, and shows nothing at all for
format characters, so that a name may look like another. Each of them is shown by a mark of its own. The same characters
are part of ordinary text where a script or an emoji needs them (a zero-width joiner in a family, a variation selector
after a heart, a joiner beside an Indic virama): there they stay as they are.

Sources: UAX #9 (bidirectional controls), UAX #44 (`Default_Ignorable_Code_Point`), UTS #51 (emoji sequences), RFC 5892
appendix A (joiners in context).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped]


def visible(text: str, mark: Callable[[str], str] | None = None) -> str:
    """A text in which everything that a terminal would act on, or not show, is shown by a mark.

    Args:
        text: Any text, lone surrogates included.
        mark: What is shown for a character; by default ␛ and its like for ASCII's control characters, `‹xFF›` for a
            byte of a file name that is not UTF-8, and `‹202E›`, the code point, for all others.
    """
    mark = mark or _mark
    if text.isascii():
        return text if text.isprintable() else "".join(each if each.isprintable() else mark(each) for each in text)

    def show(found: regex.Match[str]) -> str:
        whole: str = found[0]
        return whole if found["needed"] is not None else mark(whole)

    shown: str = _pattern().sub(show, text)
    return shown


def mark(symbol: str) -> str:
    """A symbol as a mark that can be seen wherever a symbol is shown alone: a space too."""
    return "␣" if symbol == " " else visible(symbol)


def code_point(character: str) -> str:
    """A character by its code point, such as `‹202E›`."""
    return f"‹{ord(character):02X}›"


def _mark(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # ␀ to ␟
    if code == 0x7F:
        return "␡"
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        return f"‹x{code - 0xDC00:02X}›"
    return code_point(character)


_TAGS = {code: chr(0xE0000 + ord(code)) for code in "abcdefghijklmnopqrstuvwxyz"}
_FLAGS = "|".join("".join(map(_TAGS.__getitem__, region)) for region in ("gbeng", "gbsct", "gbwls"))
_JOINER, _NON_JOINER, _GRAPHEME_JOINER = "\u200d", "\u200c", "\u034f"
_NEEDED = (
    # emoji: families and the like, the presentation as emoji or as text, keycaps, the three flags made of tags
    rf"(?<=\p{{Extended_Pictographic}}[\ufe0f\U0001f3fb-\U0001f3ff]?){_JOINER}(?=\p{{Extended_Pictographic}})",
    r"(?<=(?![0-9#*])\p{Emoji})[\ufe0e\ufe0f]",
    r"(?<=[0-9#*])[\ufe0e\ufe0f](?=\u20e3)",
    rf"(?<=\U0001f3f4)(?:{_FLAGS})\U000e007f",
    # other variation selectors, after what has variants
    r"(?<=\p{Ideographic})[\ufe00-\ufe02\U000e0100-\U000e01ef]",
    r"(?<=[\p{Sm}\p{Myanmar}\p{Phags_Pa}\p{Manichaean}\p{Egyptian_Hieroglyphs}])[\ufe00-\ufe06]",
    r"(?<=(?![\u180b-\u180f])\p{Mongolian})[\u180b-\u180f]",
    # joiners beside a virama in Indic scripts, and between letters that would join in Arabic and its like
    rf"(?<=\p{{ccc=9}})[{_JOINER}{_NON_JOINER}]|(?<=\p{{L}})[{_JOINER}{_NON_JOINER}](?=\p{{ccc=9}})",
    rf"(?<=\p{{jt=D}}\p{{M}}*){_NON_JOINER}(?=\p{{M}}*[\p{{jt=D}}\p{{jt=R}}])",
    # between two Hebrew points, whose order it keeps
    rf"(?<=[\u0591-\u05c7]){_GRAPHEME_JOINER}(?=[\u0591-\u05c7])",
    # signs that stand below or around digits: format characters by name, and drawn
    r"\p{Prepended_Concatenation_Mark}",
)
_HIDDEN = r"[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}]"

_compiled: list[regex.Pattern[str]] = []


def _pattern() -> regex.Pattern[str]:
    """What is needed where it stands, or else hidden; compiled when a text first asks for it."""
    if not _compiled:
        import regex

        _compiled.append(regex.compile(rf"(?={_HIDDEN})(?:(?P<needed>{'|'.join(_NEEDED)})|(?s:.))"))
    return _compiled[0]
