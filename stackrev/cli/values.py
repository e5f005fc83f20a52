"""Values on the command line: what an option takes, and what is said of a value that it does not take.

Each function gives keyword arguments of `typer.Option`: what reads the value, how it is written on a help page, and
what completes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from stackrev.cli.usage import UsageError
from stackrev.config import Setting
from stackrev.errors import did_you_mean

NONE = "none"
"""How None is written on a command line."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")


def number(option: str, limits: Setting) -> dict[str, Any]:
    """An option that takes a number.

    Args:
        option: What it is called.
        limits: Whether the number is whole, the range it is in, and whether it may be none.
    """

    def read(text: Any) -> Any:
        if not isinstance(text, str):  # a default comes as it is
            return text
        if text == NONE and limits.optional:
            return NONE
        value = _number(text, limits.type)
        if value is None or not limits.takes(value):
            kind = "a whole number" if limits.type is int else "a number"
            within = f" that is {limits.range}" if limits.range else ""
            raise UsageError(f"{option} takes {kind}{within}{', or none' * limits.optional}, not {text!r}")
        return value

    return {"parser": read, "metavar": f"N|{NONE}" if limits.optional else "N" if limits.type is int else "X"}


def whole(option: str, low: int, high: int | None = None) -> dict[str, Any]:
    """An option that takes a whole number from `low` to `high`."""
    limits = Setting(
        name=option, default=None, type=int, optional=False, choices=(), help="", low=low, high=high
    )  # as if it were a setting
    return number(option, limits)


def choice(option: str, names: Sequence[str], *, aliases: Sequence[str] = ()) -> dict[str, Any]:
    """An option that takes one of a few names, or an alias of one, which help pages do not show."""

    def read(text: Any) -> Any:
        if isinstance(text, str) and text not in (*names, *aliases):
            raise UsageError(f"{option} cannot be {text!r}", hint=did_you_mean(text, names))
        return text

    return {"parser": read, "metavar": f"<{'|'.join(names)}>", "autocompletion": _completion(names)}


def _completion(names: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [each for each in names if each.startswith(incomplete)]

    return complete


def _number(text: str, kind: type) -> Any:
    """The number that a text is, or None."""
    if kind is int:
        return int(text) if _WHOLE.fullmatch(text) else None
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
