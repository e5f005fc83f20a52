"""How many random strings of certain lengths a run answers exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackrev.config import LengthRange
from stackrev.errors import ConfigError
from stackrev.experiments.measurements.base import Measurement, OnProgress, counted, has_numbers
from stackrev.tasks import REVERSAL

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task


def parse_exact(text: str, samples: int = 20) -> dict[str, int]:
    """How many strings to try of each length: `1024,1000000:1` is `samples` of the first and one of the second.

    Raises:
        ConfigError: It is something else.
    """
    found = {}
    for part in filter(None, text.split(",")):
        length, colon, count = part.partition(":")
        found[length.strip()] = count.strip() if colon else samples
    try:
        return _check_exact({str(int(length)): int(count) for length, count in found.items()})
    except ValueError:
        raise ConfigError(f"{text!r} is not a list of lengths", hint="write 10000:20,1000000:1") from None


def _check_exact(raw: Any) -> dict[str, int]:
    good = isinstance(raw, dict) and all(
        isinstance(length, str) and re.fullmatch(r"[1-9][0-9]{0,9}", length) and type(count) is int and count >= 1
        for length, count in raw.items()
    )
    if not good:
        raise ConfigError("the lengths to try are no object of numbers of strings", hint='as in {"10000": 20}')
    if any(not 1 <= int(length) <= 10**9 or int(length) * count > 2**31 for length, count in raw.items()):
        raise ConfigError("the strings to try are too long or too many", hint="ask for fewer, or for shorter ones")
    return dict(raw)


def _exact(model: Reverser[Any], task: Task, asked: Mapping[str, int], on_progress: OnProgress) -> dict[str, Any]:
    found = {}
    for length, samples in asked.items():
        found[length] = try_length(model, int(length), samples, on_progress, task=task)
    return found


def try_length(
    model: Reverser[Any],
    length: int,
    samples: int,
    on_progress: OnProgress | None = None,
    *,
    task: Task = REVERSAL,
) -> dict[str, Any]:
    """How a model does on long strings, always the same ones of a length and a task.

    Returns:
        `exact`, how many of the `samples` are answered exactly; `fine`, their fine accuracy; and, of a model that can
        tell, `margin`, the least by which the right symbol's logit exceeded the second best before an error.
    """
    import torch

    generator = torch.Generator().manual_seed(length)
    strings = task.draw(LengthRange(minimum=length, maximum=length), samples, generator)
    return tried(model, task, strings, on_progress)


def tried(
    model: Reverser[Any], task: Task, strings: Sequence[Tensor], on_progress: OnProgress | None
) -> dict[str, Any]:
    """How a model does on strings; see `try_length`."""
    from stackrev import kernels
    from stackrev.evaluation.scoring import score
    from stackrev.kinds import kind_of

    margins = kind_of(model.config.kind).open_stream is not None and kernels.available()
    scores = score(model, strings, task=task, margins=margins, on_progress=on_progress)
    found = {"exact": round(scores.coarse * scores.samples), "samples": scores.samples, "fine": round(scores.fine, 6)}
    if scores.margins is None or not math.isfinite(scores.margins.logits):
        return found
    return {**found, "margin": float(f"{scores.margins.logits:.3g}")}


def _valid_exact(found: Any) -> bool:
    return isinstance(found, dict) and all(
        length.isascii() and length.isdecimal() and has_numbers(each, "exact", "samples")
        for length, each in found.items()
    )


def _tell_exact(found: Mapping[str, Any]) -> list[str]:
    return [f"{int(length):,}: {each['exact']}/{each['samples']}" for length, each in found.items()]


def _summarise_exact(found: Mapping[int, Mapping[str, Any]], runs: int) -> dict[str, Any]:
    lengths = sorted({int(length) for each in found.values() for length in each})
    return {
        str(length): counted({seed: each.get(str(length)) for seed, each in found.items()}, runs) for length in lengths
    }


EXACT = Measurement(
    help="Try solved runs on strings so long: how many of each, 10000:20.",
    metavar="LENGTHS",
    parse=parse_exact,
    check=_check_exact,
    symbols=lambda asked: sum((2 * int(length) + 2) * samples for length, samples in asked.items()),
    measure=_exact,
    nothing={},
    valid=_valid_exact,
    tell=_tell_exact,
    summarise=_summarise_exact,
)
