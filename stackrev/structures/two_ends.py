"""What is in a queue or a deque after each step, from the strengths alone; see columns.py."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stackrev.structures.columns import FAINT, Columns, Element, History

_NONE = -1


class QueueColumns:
    """A queue after each of T steps, as a column whose bottom is its front; see `structures/queue.py`.

    Args:
        push: d of each step.
        pop: u of each step.

    Attributes:
        heights: How much is in the queue after each step, S - F.
    """

    def __init__(self, push: Sequence[float], pop: Sequence[float]) -> None:
        self._ends = [0.0, *itertools.accumulate(push)]  # element i lies between the ends i and i + 1
        self._low: list[float] = []
        low = 0.0
        for u, start in zip(pop, self._ends, strict=False):
            low = min(start, low + u)
            self._low.append(low)
        self._whole = [0, *itertools.accumulate(int(d >= FAINT) for d in push)]
        self.heights = [end - low for end, low in zip(self._ends[1:], self._low, strict=True)]

    def __len__(self) -> int:
        return len(self.heights)

    def elements(self, step: int) -> Iterator[Element]:
        """The elements after a step, from the front on; their places are those above the front."""
        low, ends = self._low[step], self._ends
        for place in range(self._front(step), step + 1):
            bottom, top = max(0.0, ends[place] - low), ends[place + 1] - low
            if top > bottom:
                yield Element(place, bottom, top, max(0.0, min(top, 1.0) - bottom))

    def read(self, step: int, end: int = 0) -> list[Element]:
        """Those of the elements after a step that are within the read."""
        return list(itertools.takewhile(lambda element: element.read > 0, self.elements(step)))

    def count(self, step: int) -> int:
        """How many elements after a step are not faint."""
        front = self._front(step)
        if front > step:
            return 0
        left = self._ends[front + 1] - max(self._ends[front], self._low[step])
        return (left >= FAINT) + self._whole[step + 1] - self._whole[front + 1]

    def _front(self, step: int) -> int:
        """The first element of which something is left; the step after if there is none."""
        return bisect_right(self._ends, self._low[step], 1, step + 2) - 1


class DequeColumns:
    """A deque after each of T steps; see `structures/deque.py`.

    What was pushed at the top is a chain from the newest down to the oldest that is left, and what was pushed at the
    bottom one from the newest up to the oldest that is left; between the two oldest the chains meet. An element keeps
    its older neighbour for as long as it lives, so both chains of a step can be told from their ends.

    Args:
        push: d of each step at the top.
        pop: u of each step at the top.
        bottom_push: d of each step at the bottom.
        bottom_pop: u of each step at the bottom.

    Attributes:
        heights: How much is in the deque after each step, H - G.
    """

    def __init__(
        self, push: Sequence[float], pop: Sequence[float], bottom_push: Sequence[float], bottom_pop: Sequence[float]
    ) -> None:
        self.heights: list[float] = []
        self._low: list[float] = []
        self._levels: tuple[list[float], list[float]] = ([], [])  # where a step's pushes touch what was there: h, and g
        self._older = [_NONE] * len(push), [_NONE] * len(push)  # the next older element that was pushed at the same end
        self._chains: list[tuple[tuple[int, int], tuple[int, int]]] = []  # of each end, its newest and oldest element
        self._meeting: list[float] = []  # where the two chains touch
        tops, bottoms = alive = deque[_Alive](), deque[_Alive]()  # from the oldest to the newest
        low = high = 0.0
        for step, (d, u, d_bottom, u_bottom) in enumerate(zip(push, pop, bottom_push, bottom_pop, strict=True)):
            h = max(low, high - u)
            g = min(h, low + u_bottom)
            _pop_top(tops, bottoms, h)
            _pop_bottom(tops, bottoms, g)
            high, low = h + d, g - d_bottom
            for end, (level, strength) in enumerate(((h, d), (g, d_bottom))):
                self._levels[end].append(level)
                if strength > 0:
                    self._older[end][step] = alive[end][-1].step if alive[end] else _NONE
                    alive[end].append(_Alive(step, low, g) if end else _Alive(step, h, high))
            self.heights.append(high - low)
            self._low.append(low)
            self._meeting.append(tops[0].bottom if tops and bottoms else low)
            ends = [(each[-1].step, each[0].step) if each else (_NONE, _NONE) for each in alive]
            self._chains.append((ends[0], ends[1]))

    def __len__(self) -> int:
        return len(self.heights)

    def elements(self, step: int) -> Iterator[Element]:
        """The elements after a step, from the top down."""
        low = self._low[step]
        top = high = low + self.heights[step]
        tops, bottoms = (self._chain(step, end) for end in (0, 1))
        borders = [self._levels[0][each] for each in tops[:-1]] + [self._meeting[step]] * bool(tops and bottoms)
        borders += [self._levels[1][each] for each in reversed(bottoms[:-1])] + [low]
        order = [(each, 0) for each in tops] + [(each, 1) for each in reversed(bottoms)]
        for (element, end), bottom in zip(order, borders, strict=False):
            at_top, at_bottom = top - max(bottom, high - 1), min(top, low + 1) - bottom
            yield Element(element, bottom, top, max(0.0, at_top), end, max(0.0, at_bottom))
            top = bottom

    def read(self, step: int, end: int = 0) -> list[Element]:
        """Those of the elements after a step that are within the read at an end."""
        return [each for each in self.elements(step) if (each.bottom_read if end else each.read) > 0]

    def count(self, step: int) -> int:
        """How many elements after a step are not faint."""
        return sum(each.strength >= FAINT for each in self.elements(step))

    def _chain(self, step: int, end: int) -> list[int]:
        """What is left after a step of what was pushed at an end, the newest first."""
        element, oldest = self._chains[step][end]
        found = []
        while element != _NONE:
            found.append(element)
            element = _NONE if element == oldest else self._older[end][element]
        return found


@dataclass
class _Alive:
    """An element of a deque, and where what is left of it lies."""

    step: int
    bottom: float
    top: float


def _pop_top(tops: deque[_Alive], bottoms: deque[_Alive], h: float) -> None:
    """Drain what lies above h: of what was pushed at the top, then of what was pushed at the bottom."""
    while tops and tops[-1].bottom >= h:
        tops.pop()
    while not tops and bottoms and bottoms[0].bottom >= h:
        bottoms.popleft()
    uppermost = tops[-1] if tops else bottoms[0] if bottoms else None
    if uppermost is not None:
        uppermost.top = min(uppermost.top, h)


def _pop_bottom(tops: deque[_Alive], bottoms: deque[_Alive], g: float) -> None:
    """Drain what lies below g, likewise."""
    while bottoms and bottoms[-1].top <= g:
        bottoms.pop()
    while not bottoms and tops and tops[0].top <= g:
        tops.popleft()
    lowest = bottoms[-1] if bottoms else tops[0] if tops else None
    if lowest is not None:
        lowest.bottom = max(lowest.bottom, g)


def history_of(
    structure: str,
    push: Sequence[float],
    pop: Sequence[float],
    bottom_push: Sequence[float] = (),
    bottom_pop: Sequence[float] = (),
) -> History:
    """What is in a structure of this name after each step.

    Args:
        structure: "stack", "queue" or "deque".
        push: d of each step; of a deque, at the top.
        pop: u of each step, likewise.
        bottom_push: d of each step at the bottom of a deque.
        bottom_pop: u of each step there.
    """
    if structure == "deque":
        return DequeColumns(push, pop, bottom_push, bottom_pop)
    return QueueColumns(push, pop) if structure == "queue" else Columns(push, pop)
