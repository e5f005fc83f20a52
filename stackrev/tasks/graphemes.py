"""What a reader sees as one character: extended grapheme clusters (UAX #29). Imports `regex` only when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped]

_compiled: list[regex.Pattern[str]] = []


def pattern() -> regex.Pattern[str]:
    """What matches one cluster."""
    if not _compiled:
        import regex

        _compiled.append(regex.compile(r"\X"))
    return _compiled[0]


def clusters(text: str) -> list[str]:
    """The extended grapheme clusters of a text."""
    found: list[str] = pattern().findall(text)
    return found
