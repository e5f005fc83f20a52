"""What a command is asked to do, measured before it begins: what cannot fit into memory is refused at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stackrev.cli import memory
from stackrev.cli.common import UsageError
from stackrev.config import LengthRange
from stackrev.errors import StackrevError

if TYPE_CHECKING:
    from stackrev.kinds.config import Config
    from stackrev.models.base import Reverser

MAX_SYMBOLS = 2**31
"""The most symbols that a command draws; more is a slip of the keyboard."""
MANY = 1_000_000
"""To draw the lengths of more strings than these takes a moment."""

_DRAWN = 16  # bytes that a symbol takes while it is drawn
_TRAINED = 16  # a number of a model while it is trained
_WRITTEN = 80  # while it becomes part of a line of a data file, as lists and as text


def require_draw(lengths: LengthRange, samples: int, *, written: bool = False) -> None:
    """Make sure that strings can be drawn, a piece at a time.

    Args:
        lengths: Of the strings.
        samples: How many of them.
        written: Whether they become lines of a data file.

    Raises:
        UsageError: There are too many symbols, or the longest string does not fit into memory.
    """
    if lengths.maximum * samples > MAX_SYMBOLS:
        raise UsageError(
            f"{samples} strings of up to {lengths.maximum} symbols are too many",
            hint="ask for fewer, or for shorter ones",
        )
    _require((_DRAWN + written * _WRITTEN) * lengths.maximum, lengths.maximum, UsageError)


def require_scoring(model: Reverser[Any], length: int) -> None:
    """Make sure that a string of so many symbols can be scored.

    Raises:
        StackrevError: It does not fit into memory.
    """
    from stackrev.evaluation.scoring import memory_for

    _require(memory_for(model, length), length, StackrevError)


def require_training(config: Config) -> None:
    """Make sure that a model can be trained: its weights, their gradients and the optimizer's two moments.

    Raises:
        UsageError: They do not fit into memory.
    """
    needed = _TRAINED * sum(map(math.prod, config.model.shapes().values()))
    there = memory.available()
    if there is not None and needed > there:
        message = f"to train this model takes {memory.size(needed)} of memory, and there are {memory.size(there)}"
        raise UsageError(message, hint="give it fewer --layers or a smaller --hidden-size")


def _require(needed: int, length: int, kind: type[StackrevError]) -> None:
    there = memory.available()
    if there is not None and needed > there:
        raise kind(
            f"a string of {length:,} symbols would take {memory.size(needed)} of memory, and there are"
            f" {memory.size(there)}",
            hint="ask for shorter strings",
        )
