"""How many random strings a run answers exactly that have decided nothing in it.

The held-out strings are not drawn for training, but they decide when a run is solved and which weights it ends with.
These strings decide nothing: they say what to expect of any others. They are meant to be longer than those of training,
and so long that no two draws give the same string; short ones may have been learned or held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackrev.config import LengthRange
from stackrev.errors import ConfigError
from stackrev.experiments.measurements.base import Measurement, OnProgress, counted, has_numbers
from stackrev.experiments.measurements.exact import tried

if TYPE_CHECKING:
    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task

SEED = 3_735_928_559
"""What the strings are drawn with, and hardly any held-out set; torch's generator has seeds of 32 bits."""
_SAMPLES = 1000
_MOST_SYMBOLS = 2**30
_LONGEST_RANGE = 50
"""How many characters of a range are read: what is longer is none."""


def _parse_unseen(text: str) -> dict[str, Any]:
    """The lengths of the strings, and how many: `65-128:1000`.

    Raises:
        ConfigError: It is something else.
    """
    lengths, colon, samples = text.partition(":")
    try:
        return _check_unseen({"lengths": lengths.strip(), "samples": int(samples) if colon else _SAMPLES})
    except ValueError:
        raise ConfigError(f"{text!r} is no range of lengths and a number", hint="write 65-128:1000") from None


def _check_unseen(raw: Any) -> dict[str, Any]:
    good = isinstance(raw, dict) and raw.keys() == {"lengths", "samples"} and isinstance(raw["lengths"], str)
    if not good or type(raw["samples"]) is not int or raw["samples"] < 1:
        raise ConfigError("the unseen strings are no object of `lengths` and `samples`", hint="write 65-128:1000")
    lengths = LengthRange.parse(raw["lengths"][:_LONGEST_RANGE])
    if lengths.maximum * raw["samples"] > _MOST_SYMBOLS:
        raise ConfigError("the unseen strings are too long or too many", hint="ask for fewer, or for shorter ones")
    return {"lengths": str(lengths), "samples": raw["samples"]}


def _unseen(model: Reverser[Any], task: Task, asked: Mapping[str, Any], on_progress: OnProgress) -> dict[str, Any]:
    """How a model does on the strings, always the same ones of a task.

    Returns:
        `lengths`, and what `tried` finds.
    """
    import torch

    generator = torch.Generator().manual_seed(SEED)
    strings = task.draw(LengthRange.parse(asked["lengths"]), asked["samples"], generator)
    return {"lengths": asked["lengths"], **tried(model, task, strings, on_progress)}


def _symbols(asked: Mapping[str, Any]) -> int:
    """About how many there are: lengths differ."""
    lengths = LengthRange.parse(asked["lengths"])
    return (lengths.minimum + lengths.maximum + 2) * int(asked["samples"])


def _valid_unseen(found: Any) -> bool:
    return found is None or (has_numbers(found, "exact", "samples") and isinstance(found.get("lengths"), str))


def _tell_unseen(found: Any) -> Sequence[str]:
    return [] if found is None else [f"unseen {found['lengths']}: {found['exact']}/{found['samples']}"]


UNSEEN = Measurement(
    help="Score solved runs on strings that have decided nothing: 65-128:1000.",
    metavar="LENGTHS",
    parse=_parse_unseen,
    check=_check_unseen,
    symbols=_symbols,
    measure=_unseen,
    nothing=None,
    valid=_valid_unseen,
    tell=_tell_unseen,
    summarise=counted,
)
