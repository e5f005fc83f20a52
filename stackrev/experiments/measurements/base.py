"""What a measurement of a trained run is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task

OnProgress = Callable[[int], object]
"""Called with the number of symbols measured since the last call."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One thing that can be measured of a solved run.

    Attributes:
        help: What is measured, in one sentence, for the help of its option.
        metavar: What stands for the option's value on a help page; empty for an option without a value.
        parse: Reads what is asked of it, as on a command line, into plain JSON values; raises `ConfigError`.
        check: Reads the same from a `setting.json`; raises `ConfigError`.
        symbols: How many symbols it will go through, strings and targets, for a view of how far it is; 0 if none are
            counted.
        measure: Measures a model of a task; plain JSON values.
        nothing: What stands for a run that was not solved, and is not measured.
        valid: Whether plain JSON values are what `measure` gives; asked of stored results, which may come from anybody.
        tell: What it found, in a few words.
        summarise: What it found of all runs (one object a solved run, and the number of all runs), for `summary.json`.
    """

    help: str
    metavar: str = ""
    parse: Callable[[str], Any]
    check: Callable[[Any], Any]
    symbols: Callable[[Any], int]
    measure: Callable[[Reverser[Any], Task, Any, OnProgress], Any]
    nothing: Any
    valid: Callable[[Any], bool]
    tell: Callable[[Any], Sequence[str]]
    summarise: Callable[[Mapping[int, Any], int], Any]


def has_numbers(raw: Any, *names: str) -> bool:
    """Whether plain JSON values are an object that has numbers of these names."""
    return isinstance(raw, dict) and all(type(raw.get(name)) in (int, float) for name in names)


def counted(found: Mapping[int, Any], runs: int) -> dict[str, Any]:
    """How many runs are exact on every string; each of `found` has `exact` and `samples`, or is None."""
    had = {seed: each for seed, each in found.items() if each is not None}
    wrong = [seed for seed, each in had.items() if each["exact"] < each["samples"]]
    samples = max((each["samples"] for each in had.values()), default=0)
    return {"runs": len(had) - len(wrong), "of": runs, "samples": samples, "not_exact_seeds": wrong}
