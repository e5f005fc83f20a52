"""Settings, the frozen configurations that are made of them, and how these are read: an unknown key is an error.

A setting is declared once, as a field made by `setting`: its default, what it does, its range, and what a search tries.
From that declaration follow the check of its range, its option on the command line and its place in a search.

Imports no torch, so that the command line can show its defaults without it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from stackrev.errors import ConfigError, did_you_mean

Initialisation = Literal["tuned", "torch"]

_T = TypeVar("_T")
READER = "reader"
"""The key of a dataclass field's metadata for a function that reads it, where its type alone does not say how."""
_METADATA = "setting"  # the key under which a dataclass field keeps what `setting` was told


@dataclass(frozen=True)
class Between:
    """What a search tries: the numbers from `low` to `high`, whole ones if both are, and on a log scale if `log`."""

    low: float
    high: float
    log: bool = False


Space = Between | tuple[Any, ...]
"""What a search tries: a range of numbers, or these values."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a configuration.

    Attributes:
        name: Its field.
        default: Its value where none is given.
        type: `int`, `float`, `bool`, `str` or `LengthRange`.
        optional: Whether it may be None.
        choices: Its only values, if they can be listed; otherwise empty.
        aliases: Other names of choices, which the command line takes.
        help: What it does, in one sentence.
        low: Its least value, if it has one.
        high: Its greatest value, if it has one.
        above: Whether `low` itself is excluded.
        below: Whether `high` itself is excluded.
        range_note: What an error about the range adds in brackets.
        search: What a search tries; None if a search leaves it alone.
        option: Whether it is an option of the command line; otherwise it follows from the other settings.
        resumable: Whether a run can go on with another value of it.
    """

    name: str
    default: Any
    type: type
    optional: bool
    choices: tuple[str, ...]
    help: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    range_note: str = ""
    search: Space | None = None
    option: bool = True
    resumable: bool = False

    def check(self, value: Any) -> None:
        """Make sure that a value is one that the setting takes.

        Raises:
            ConfigError: It is not.
        """
        if value is None and self.optional:
            return
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name} is {value!r}", hint=did_you_mean(str(value), self.choices))
        if not self.takes(value):
            raise ConfigError(f"{self.name} must be {'null or ' if self.optional else ''}{self.range}, not {value!r}")

    def takes(self, value: Any) -> bool:
        """Whether a number is in the range. NaN is in none: every comparison with it is false."""
        enough = self.low is None or (value > self.low if self.above else value >= self.low)
        return enough and (self.high is None or (value < self.high if self.below else value <= self.high))

    @property
    def range(self) -> str:
        """The range in words, such as "between 1 and 4,096"; empty if there is none."""
        low, high = _figure(self.low), _figure(self.high)
        if low and high and not (self.above or self.below):
            words = f"between {low} and {high}"
        else:
            least = f"{'above' if self.above else 'at least'} {low}" if low else ""
            most = f"{'below' if self.below else 'at most'} {high}" if high else ""
            words = " and ".join(filter(None, (least, most)))
        return f"{words} ({self.range_note})" if self.range_note else words


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    aliases: Mapping[str, str] | None = None,
    above: float | None = None,
    below: float | None = None,
    range_note: str = "",
    search: Space | None = None,
    option: bool = True,
    resumable: bool = False,
) -> Any:
    """Declare a setting, as a field of a dataclass that derives from `Settings`.

    Its name, its type and the choices of a `Literal` are those of the field.

    Args:
        default: Its value where none is given.
        help: What it does, in one sentence.
        low: Its least value.
        high: Its greatest value.
        choices: Its only values, where a table lists them; those of a `Literal` are taken from the type.
        aliases: Other names of choices, which the command line takes.
        above: In place of `low`: a bound that is itself excluded.
        below: In place of `high`: a bound that is itself excluded.
        range_note: What an error about the range adds in brackets.
        search: What a search tries; None if a search leaves it alone.
        option: Whether it is an option of the command line.
        resumable: Whether a run can go on with another value of it.
    """
    declared = {
        "help": help,
        "low": low if above is None else above,
        "high": high if below is None else below,
        "above": above is not None,
        "below": below is not None,
        "range_note": range_note,
        "search": search,
        "option": option,
        "resumable": resumable,
        "choices": choices,
        "aliases": dict(aliases or {}),
    }
    return field(default=default, metadata={_METADATA: declared})


def settings(cls: type) -> Mapping[str, Setting]:
    """The settings that a configuration's fields declare, by name, in their order."""
    return _declared(cls)


@functools.cache
def _declared(cls: Any) -> Mapping[str, Setting]:
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType(
        {
            each.name: _setting_of(each, hints[each.name])
            for each in dataclasses.fields(cls)
            if _METADATA in each.metadata
        }
    )


def _setting_of(declared: dataclasses.Field[Any], hint: Any) -> Setting:
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if optional:
        (hint,) = (inner for inner in typing.get_args(hint) if inner is not type(None))
    more = dict(declared.metadata[_METADATA])
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else more.pop("choices")
    literal = more.pop("choices", None) is not None
    return Setting(
        name=declared.name,
        default=declared.default,
        type=str if literal else hint,
        optional=optional,
        choices=choices,
        **more,
    )


def _figure(bound: float | None) -> str:
    """A bound for a message; empty if there is none."""
    if bound is None:
        return ""
    return "2**63 - 1" if bound == 2**63 - 1 else f"{bound:,}" if bound == int(bound) else f"{bound:g}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A configuration whose fields are settings: each value is checked when it is made."""

    def __post_init__(self) -> None:
        for name, each in settings(type(self)).items():
            each.check(getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class LengthRange:
    """An inclusive range of string lengths, in symbols; written `65-128`, or `64` for one length."""

    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise ConfigError(
                f"lengths {self.minimum}-{self.maximum} are not a range",
                hint="give the shorter length first, as in 65-128",
            )
        if self.maximum > 10**9:
            raise ConfigError("lengths must be at most 1,000,000,000")

    @classmethod
    def parse(cls, text: str) -> LengthRange:
        """Read `MIN-MAX` or `N`.

        Raises:
            ConfigError: The text is neither.
        """
        first, dash, last = text.strip().partition("-")
        try:
            low = int(first)
            high = int(last) if dash else low
        except ValueError:
            raise ConfigError(
                f"{text!r} is not a range of lengths", hint="write 65-128, or 64 for one length"
            ) from None
        return cls(minimum=low, maximum=high)

    def __str__(self) -> str:
        return str(self.minimum) if self.minimum == self.maximum else f"{self.minimum}-{self.maximum}"


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    raw: dict[str, Any] = _plain(dataclasses.asdict(config))
    return raw


def _plain(value: Any) -> Any:
    """A value with lists for tuples, as JSON has it."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def from_dict(cls: type[_T], raw: object, *, where: str = "config") -> _T:
    """Read a configuration from plain JSON values, refusing what it does not know.

    Args:
        cls: A dataclass whose fields are settings, numbers, or dataclasses of these.
        raw: What `json.load` gave.
        where: The path of `raw` in its file, for messages.

    Raises:
        ConfigError: A key is unknown, missing a default or of the wrong type, or a value is out of range.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} must be an object, not {type(raw).__name__}")
    fields = {each.name: each for each in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := [str(key) for key in raw if key not in fields]:
        raise ConfigError(f"{where} has the unknown key {unknown[0]!r}", hint=f"the keys are {', '.join(fields)}")
    hints = typing.get_type_hints(cls)
    values = {
        name: each.metadata[READER](raw[name], f"{where}.{name}")
        if READER in each.metadata
        else _read(hints[name], raw[name], f"{where}.{name}")
        for name, each in fields.items()
        if name in raw
    }
    required = [
        each.name
        for each in fields.values()
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in values]:
        raise ConfigError(f"{where} lacks the key {missing[0]!r}")
    return cls(**values)


def _read(hint: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast("type[Any]", hint), value, where=where)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{where} is {value!r}", hint=did_you_mean(str(value), choices))
        return value
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        return None if value is None else _read(inner[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 2**53:
            raise ConfigError(f"{where} is out of range")
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} must be {_IN_WORDS.get(hint, 'a text')}, not {reprlib.repr(value)}")
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{where} is not a number")
    return value


_IN_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}
