"""How many strings of one symbol over and over a run answers exactly: one string for each symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackrev.errors import ConfigError
from stackrev.experiments.measurements.base import Measurement, OnProgress, counted, has_numbers
from stackrev.experiments.measurements.exact import tried

if TYPE_CHECKING:
    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task


def _parse_length(text: str) -> int:
    try:
        return _check_length(int(text))
    except ValueError:
        raise ConfigError(f"{text!r} is not a length", hint="write 10000") from None


def _check_length(raw: Any) -> int:
    if type(raw) is not int or not 1 <= raw <= 10_000_000:
        raise ConfigError("the length of the runs must be between 1 and 10,000,000")
    return raw


def _runs_of_each(model: Reverser[Any], task: Task, length: int, on_progress: OnProgress) -> dict[str, Any]:
    """How a model does on a string of one symbol repeated, for each symbol.

    Random strings never repeat a symbol for long, so that they do not test whether a state drifts.

    Returns:
        `length`; `exact`, how many of the `samples` symbols' strings are answered exactly; `wrong`, the others'
        symbols; and `margin` where there is one, as for `exact`.
    """
    import torch

    wrong, margins = [], []
    symbols = task.vocabulary.ids
    for symbol in symbols:
        found = tried(model, task, [torch.full((length,), symbol, dtype=torch.int64)], on_progress)
        if not found["exact"]:
            wrong.append(symbol)
        if "margin" in found:
            margins.append(found["margin"])
    result = {"length": length, "exact": len(symbols) - len(wrong), "samples": len(symbols), "wrong": wrong}
    return {**result, "margin": min(margins)} if margins else result


def _valid_runs(found: Any) -> bool:
    return found is None or has_numbers(found, "length", "exact", "samples")


def _tell_runs(found: Any) -> list[str]:
    if found is None:
        return []
    return [f"runs of {found['length']:,} of one symbol: {found['exact']}/{found['samples']}"]


RUNS_OF_EACH = Measurement(
    help="Try solved runs on strings of one symbol alone, so long, of each symbol.",
    metavar="LENGTH",
    parse=_parse_length,
    check=_check_length,
    symbols=lambda length: 128 * (2 * length + 2),
    measure=_runs_of_each,
    nothing=None,
    valid=_valid_runs,
    tell=_tell_runs,
    summarise=counted,
)
