"""What is measured of a run after its training: a short list of named functions.

A new measurement is one more entry of `MEASUREMENTS`. Its name is a key of an experiment's `setting.json`, under which
stands what it is asked to measure, and of each seed's line, under which stands what it found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackrev.config import LengthRange
from stackrev.errors import ConfigError
from stackrev.tasks import REVERSAL

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task

OnProgress = Callable[[int], object]
"""Called with the number of symbols measured since the last call."""


@dataclass(frozen=True)
class Measurement:
    """One thing that can be measured of a solved run.

    Attributes:
        parse: Reads what is asked of it, as on a command line, into plain JSON values; raises `ConfigError`.
        check: Reads the same from a `setting.json`; raises `ConfigError`.
        symbols: How many symbols it will go through, strings and targets, for a view of how far it is; 0 if none are
            counted.
        measure: Measures a model of a task; plain JSON values.
        nothing: What stands for a run that was not solved, and is not measured.
        valid: Whether plain JSON values are what `measure` gives; of what is stored, by whomever.
        tell: What it found, in a few words.
        summarise: What it found of all runs (one object a solved run, and the number of all runs), for `summary.json`.
    """

    parse: Callable[[str], Any]
    check: Callable[[Any], Any]
    symbols: Callable[[Any], int]
    measure: Callable[[Reverser[Any], Task, Any, OnProgress], Any]
    nothing: Any
    valid: Callable[[Any], bool]
    tell: Callable[[Any], Sequence[str]]
    summarise: Callable[[Mapping[int, Any], int], Any]


# Strings of certain lengths.


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
        isinstance(length, str) and length.isdecimal() and type(count) is int and count >= 1
        for length, count in raw.items()
    )
    if not good:
        raise ConfigError("the lengths to try are no object of numbers of strings")
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
    return _tried(model, task, strings, on_progress)


def _tried(
    model: Reverser[Any], task: Task, strings: Sequence[Tensor], on_progress: OnProgress | None
) -> dict[str, Any]:
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


def has_numbers(raw: Any, *names: str) -> bool:
    """Whether plain JSON values are an object that has numbers of these names."""
    return isinstance(raw, dict) and all(type(raw.get(name)) in (int, float) for name in names)


def _tell_exact(found: Mapping[str, Any]) -> list[str]:
    return [f"{int(length):,}: {each['exact']}/{each['samples']}" for length, each in found.items()]


def _summarise_exact(found: Mapping[int, Mapping[str, Any]], runs: int) -> dict[str, Any]:
    lengths = sorted({int(length) for each in found.values() for length in each})
    return {
        str(length): _counted({seed: each.get(str(length)) for seed, each in found.items()}, runs) for length in lengths
    }


def _counted(found: Mapping[int, Any], runs: int) -> dict[str, Any]:
    """How many runs are exact on every string."""
    had = {seed: each for seed, each in found.items() if each is not None}
    wrong = [seed for seed, each in had.items() if each["exact"] < each["samples"]]
    samples = max((each["samples"] for each in had.values()), default=0)
    return {"runs": len(had) - len(wrong), "of": runs, "samples": samples, "not_exact_seeds": wrong}


# One symbol over and over.


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
    """A string of each symbol alone: where a random string has variety, such a one stays on one thing for long.

    Returns:
        `length`; `exact`, how many of the `samples` symbols' strings are answered exactly; `wrong`, the others'
        symbols; and `margin` where there is one, as for `exact`.
    """
    import torch

    wrong, margins = [], []
    symbols = task.vocabulary.ids
    for symbol in symbols:
        found = _tried(model, task, [torch.full((length,), symbol, dtype=torch.int64)], on_progress)
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


# A proof.


def _check_true(raw: Any) -> bool:
    if raw is not True:
        raise ConfigError("whether to prove is either said to be true or not at all")
    return True


def _prove(model: Reverser[Any], task: Task, asked: bool, on_progress: OnProgress) -> dict[str, Any]:
    """Whether the model reverses every string of every length, by docs/proof.md.

    Returns:
        `proved`, and the least margins of the proof by name: how far gates are past 0 and 1, and logits apart.
    """
    from stackrev.models.certification import prove_model

    proof = prove_model(model) if task.certifiable else None
    if proof is None or not proof.proved or proof.conditions is None:
        return {"proved": False}
    names = ("encoder_push", "encoder_pop", "decoder_push", "decoder_pop", "logits")
    return {"proved": True, "margins": {name: round(proof.conditions.margins[name], 3) for name in names}}


def _valid_proof(found: Any) -> bool:
    return found is None or (isinstance(found, dict) and type(found.get("proved")) is bool)


def _tell_proof(found: Any) -> list[str]:
    return [] if found is None else ["proved" if found["proved"] else "not proved"]


def _summarise_proofs(found: Mapping[int, Any], runs: int) -> dict[str, Any]:
    had = {seed: each for seed, each in found.items() if each is not None}
    missing = [seed for seed, each in had.items() if not each["proved"]]
    return {"runs": len(had) - len(missing), "of": runs, "not_proved_seeds": missing}


MEASUREMENTS: dict[str, Measurement] = {
    "exact": Measurement(
        parse_exact,
        _check_exact,
        lambda asked: sum((2 * int(length) + 2) * samples for length, samples in asked.items()),
        _exact,
        {},
        _valid_exact,
        _tell_exact,
        _summarise_exact,
    ),
    "runs_of_each": Measurement(
        _parse_length,
        _check_length,
        lambda length: 128 * (2 * length + 2),
        _runs_of_each,
        None,
        _valid_runs,
        _tell_runs,
        _counted,
    ),
    "proof": Measurement(
        lambda text: True, _check_true, lambda asked: 0, _prove, None, _valid_proof, _tell_proof, _summarise_proofs
    ),
}
"""Everything that can be measured, by name."""
