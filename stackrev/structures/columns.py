"""The column of liquid after each step, from the strengths alone: what is in a memory, without its values.

The equations are those of `structures/stack.py`, `queue.py` and `deque.py`; this file is about the stack, and
two_ends.py about the others. An element begins at the level L at which it was pushed, and ends
where the element above it begins, or at the height H if it is the topmost. A pop removes elements from the top alone,
so an element keeps its lower neighbour for as long as it lives: for each element it is enough to know that neighbour,
and for each step the topmost element. This takes memory and time linear in the steps, whatever the stack holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

FAINT = 0.005
"""An element of which less than this is left is not shown."""

_NONE = -1


class Element(NamedTuple):
    """What is left of what one step has pushed.

    Attributes:
        step: The step that pushed it, from 0.
        bottom: The height at which it begins.
        top: The height at which it ends.
        read: How much of it is within the read: of a stack and of a deque the topmost unit of height, of a queue the
            lowest.
        end: At which end it was pushed: 0, or 1 for the bottom of a deque.
        bottom_read: How much of it is within the read at the bottom of a deque.
    """

    step: int
    bottom: float
    top: float
    read: float
    end: int = 0
    bottom_read: float = 0.0

    @property
    def strength(self) -> float:
        """What is left of it."""
        return self.top - self.bottom


class History(Protocol):
    """A memory after each of T steps."""

    @property
    def heights(self) -> Sequence[float]:
        """How much is in it after each step."""
        ...

    def __len__(self) -> int: ...

    def elements(self, step: int) -> Iterator[Element]:
        """The elements after a step: from the top down, or from the front of a queue."""
        ...

    def read(self, step: int, end: int = 0) -> list[Element]:
        """Those of the elements after a step that are within the read at an end."""
        ...

    def count(self, step: int) -> int:
        """How many elements after a step are not faint."""
        ...


class Columns:
    """A stack after each of T steps.

    Args:
        push: d of each step.
        pop: u of each step.

    Attributes:
        heights: H after each step.
    """

    def __init__(self, push: Sequence[float], pop: Sequence[float]) -> None:
        self.heights: list[float] = []
        self._topmost: list[int] = []  # after each step, the element on top
        self._bottom: list[float] = []  # of the element that a step pushed
        self._below: list[int] = []  # the element below it
        self._covered: list[int] = []  # how many of the elements below it are not faint
        height, topmost = 0.0, _NONE
        for step, (d, u) in enumerate(zip(push, pop, strict=True)):
            level = max(0.0, height - u)
            while topmost != _NONE and self._bottom[topmost] >= level:
                topmost = self._below[topmost]
            self._bottom.append(level)
            self._below.append(topmost)
            self._covered.append(self._count(topmost, level))
            height = level + d
            if d > 0:
                topmost = step
            self.heights.append(height)
            self._topmost.append(topmost)

    def __len__(self) -> int:
        return len(self.heights)

    def elements(self, step: int) -> Iterator[Element]:
        """The elements after a step, from the top down."""
        height = top = self.heights[step]
        element = self._topmost[step]
        while element != _NONE:
            bottom = self._bottom[element]
            yield Element(element, bottom, top, max(0.0, top - max(bottom, height - 1)))
            element, top = self._below[element], bottom

    def read(self, step: int, end: int = 0) -> list[Element]:
        """Those of the elements after a step that are within the read, from the bottom up."""
        inside: list[Element] = []
        for element in self.elements(step):
            if element.top <= self.heights[step] - 1:
                break
            inside.append(element)
        return [element for element in reversed(inside) if element.read > 0]

    def count(self, step: int) -> int:
        """How many elements after a step are not faint."""
        return self._count(self._topmost[step], self.heights[step])

    def _count(self, topmost: int, height: float) -> int:
        """How many elements from `topmost` down are not faint, if it ends at `height`."""
        if topmost == _NONE:
            return 0
        return self._covered[topmost] + (height - self._bottom[topmost] >= FAINT)
