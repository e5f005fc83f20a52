"""The structures that a controller can work: what each is called, and what sets it apart from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from stackrev.structures.base import Positions
from stackrev.structures.deque import Controls, DequeState, advance_deque
from stackrev.structures.queue import QueueState, advance_queue
from stackrev.structures.stack import StackState

MemoryState = StackState | QueueState | DequeState
S = TypeVar("S", bound=MemoryState)
Advance = Callable[[Positions, Tensor, Tensor], tuple[tuple[Tensor, ...], Positions]]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """One kind of memory.

    Attributes:
        name: What it is called.
        state: The class of its states.
        ends: E, at how many ends it is worked: each has a push and a pop gate, a value and a read.
        advance: One step of its positions, given push and pop [B, E]: how much of each element is read at each end, and
            the positions after. None for the stack, whose recurrence in plain torch has a derivative written by hand.
    """

    name: str
    state: type[MemoryState]
    ends: int
    advance: Advance | None


def _queue(line: Positions, push: Tensor, pop: Tensor) -> tuple[tuple[Tensor, ...], Positions]:
    return advance_queue(line, push[:, 0], pop[:, 0])


def _deque(column: Positions, push: Tensor, pop: Tensor) -> tuple[tuple[Tensor, ...], Positions]:
    return advance_deque(column, Controls(*push.unbind(1), *pop.unbind(1)))


STACK = Structure(name="stack", state=StackState, ends=1, advance=None)
QUEUE = Structure(name="queue", state=QueueState, ends=1, advance=_queue)
DEQUE = Structure(name="deque", state=DequeState, ends=2, advance=_deque)

STRUCTURES = STACK, QUEUE, DEQUE


def without_gone(state: S) -> S:
    """The same memory without the elements of which nothing is left in any row."""
    values, bottoms, tops, *ends = state
    left = ~(tops <= bottoms).all(1)  # NaN is kept
    return type(state)(values[left], bottoms[left], tops[left], *ends)


def structure_of(state: MemoryState) -> Structure:
    """The structure whose state it is."""
    return next(each for each in STRUCTURES if isinstance(state, each.state))  # torch.compile takes no table of classes
