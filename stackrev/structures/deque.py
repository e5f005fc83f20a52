"""The differentiable neural deque of Grefenstette et al. 2015: its equations, its step and its state.

Picture the deque as a column of liquid that is filled, drained and read at both ends. With B rows in a batch, T steps,
N elements in the deque before them and values of width M, at the top and at the bottom:

    v, values   [T, B, M]     what is pushed there
    d, push     [T, B]        how much of it
    u, pop      [T, B]        how much is drained before
    r, reads    [T, B, M]     what is read after
    H, high     [B]           the height at which the column ends
    G, low      [B]           the height at which it begins; it falls as the bottom is filled

One step, the top first, as in the paper::

    h   = max(G_{t-1}, H_{t-1} - u_top)        H_t = h + d_top
    g   = min(h, G_{t-1} + u_bottom)           G_t = g - d_bottom

What is pushed at the top lies from h to H_t, and what is pushed at the bottom from G_t to g. Both end where a later h
has cut them from above, and begin where a later g has cut them from below. The read at the top is the unit below H_t,
and that at the bottom the unit above G_t.

Heights are kept in float64, as those of a stack are. Where `max` and `min` meet a tie, the derivative is torch's own:
it is divided between tied arguments, and that of `max(0, x)` at 0 is 0. So derivatives are comparable between
implementations only away from ties.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stackrev.structures.base import (
    Depth,
    Memory,
    Positions,
    checked_step,
    height_dtype,
    run,
    strengths_of,
    weighted_sum,
)


class DequeState(NamedTuple):
    """A deque between two steps, N elements long: an immutable value.

    What is left of element i lies from `bottoms[i]` to `tops[i]`; its strength, s[i] in the paper, is what lies between
    them. Elements are in the order in which they were pushed, each step's top push before its bottom push.

    Attributes:
        values: [N, B, M].
        bottoms: [N, B], heights.
        tops: [N, B], heights; at or below `bottoms` for an element that has been popped.
        low: [B], G: the height at which the column begins.
        high: [B], H: the height at which it ends.
    """

    values: Tensor
    bottoms: Tensor
    tops: Tensor
    low: Tensor
    high: Tensor

    @property
    def strengths(self) -> Tensor:
        """What is left of each element, [N, B]; s in the paper's Eq. 7-9."""
        return strengths_of(self)

    @classmethod
    def empty(cls, batch: int, width: int, *, like: Tensor) -> DequeState:
        """A deque without elements for `batch` rows of values `width` wide, of the type and on the device of `like`."""
        heights = like.new_zeros(0, batch, dtype=height_dtype(like))
        return cls(like.new_zeros(0, batch, width), heights, heights, *heights.new_zeros(2, batch))


# --- The step


class Controls(NamedTuple):
    """Strengths in the type of heights, [T, B] each, or [B] for one step."""

    push_top: Tensor
    push_bottom: Tensor
    pop_top: Tensor
    pop_bottom: Tensor


class Levels(NamedTuple):
    """What a step makes of the column: see the module's docstring."""

    h: Tensor
    g: Tensor
    high: Tensor
    low: Tensor


def pop_then_push_both(low: Tensor, high: Tensor, controls: Controls) -> Levels:
    """The levels h and g that the pops leave, and the ends H_t and G_t after the pushes."""
    h = torch.maximum(low, high - controls.pop_top)
    g = torch.minimum(h, low + controls.pop_bottom)
    return Levels(h, g, h + controls.push_top, g - controls.push_bottom)


def deque_read_weights(
    bottoms: Tensor, tops: Tensor, low: Tensor, high: Tensor, depth: Depth = 1.0
) -> tuple[Tensor, Tensor]:
    """How much of each element is within the unit at the top, and within that at the bottom."""
    top = (tops - torch.maximum(bottoms, high - depth)).relu()
    return top, (torch.minimum(tops, low + depth) - bottoms).relu()


def advance_deque(column: Positions, controls: Controls, depth: Depth = 1.0) -> tuple[tuple[Tensor, Tensor], Positions]:
    """One step of the heights alone: how much of each element is read at the top and at the bottom, and the heights."""
    h, g, H, G = pop_then_push_both(column.low, column.high, controls)
    bottoms = torch.cat([torch.maximum(column.bottoms, g), torch.stack([h, G])])
    tops = torch.cat([torch.minimum(column.tops, h), torch.stack([H, g])])
    return deque_read_weights(bottoms, tops, G, H, depth), Positions(bottoms, tops, G, H)


def deque_step(
    state: DequeState,
    value_top: Tensor,
    value_bottom: Tensor,
    push_top: Tensor,
    push_bottom: Tensor,
    pop_top: Tensor,
    pop_bottom: Tensor,
    *,
    depth: Depth = 1.0,
) -> tuple[Tensor, Tensor, DequeState]:
    """One step of a neural deque, for streaming: `neural_deque` of T = 1, without the time axis.

    Args:
        state: The deque before the step.
        value_top: [B, M], what to push at the top.
        value_bottom: [B, M], what to push at the bottom.
        push_top: [B], how much of the one.
        push_bottom: [B], how much of the other.
        pop_top: [B], how much to drain from the top first.
        pop_bottom: [B], how much to drain from the bottom then.
        depth: How deep the reads are; see `neural_deque`.

    Returns:
        The reads at the top and at the bottom, [B, M] each, and the deque after the step.

    Raises:
        ValueError: A shape is wrong.
    """
    values = {"value_top": value_top, "value_bottom": value_bottom}
    strengths = Controls(push_top, push_bottom, pop_top, pop_bottom)
    controls, depth = checked_step(state, values, strengths._asdict(), depth)
    alpha, column = advance_deque(Positions(*state[1:]), Controls(*controls), depth)
    V = torch.cat([state.values, torch.stack([value_top, value_bottom])])
    return weighted_sum(alpha[0], V), weighted_sum(alpha[1], V), DequeState(V, *column)


# --- All steps at once


def neural_deque(
    values_top: Tensor,
    values_bottom: Tensor,
    push_top: Tensor,
    push_bottom: Tensor,
    pop_top: Tensor,
    pop_bottom: Tensor,
    state: DequeState | None = None,
    *,
    depth: Depth = 1.0,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, DequeState]:
    """Run a neural deque over T steps at once (paper Eq. 6-9, in the form of the module's docstring).

    Eq. 7 and 8 are misprinted: the sum over what lies above leaves out the topmost element, and the other sum has an
    index that is not its own. Here both are put right.

    Each step pops at the top, pops at the bottom, pushes at both ends, then reads at both.

    Args:
        values_top: [T, B, M], what each step pushes at the top.
        values_bottom: [T, B, M], what it pushes at the bottom.
        push_top: [T, B], push strengths at the top; in the paper from 0 to 1. A push of 2 makes an element two units
            high.
        push_bottom: [T, B], push strengths at the bottom.
        pop_top: [T, B], pop strengths at the top; a pop of more than there is empties the deque.
        pop_bottom: [T, B], pop strengths at the bottom, of what the pop at the top has left.
        state: The deque before the first step; empty if None.
        depth: How deep both reads are: one unit in the paper. A number, or a tensor that broadcasts to [T, B].
        batch_first: Whether values are [B, T, M], strengths [B, T] and reads [B, T, M]; a state is the same either way.

    Returns:
        The reads at the top and at the bottom, [T, B, M] each, and the deque after the last step.

    Raises:
        ValueError: A shape is wrong.
    """
    strengths = Controls(push_top, push_bottom, pop_top, pop_bottom)
    return _run(values_top, values_bottom, strengths, state, depth, batch_first=batch_first)


def neural_deque_torch(
    values_top: Tensor,
    values_bottom: Tensor,
    push_top: Tensor,
    push_bottom: Tensor,
    pop_top: Tensor,
    pop_bottom: Tensor,
    state: DequeState | None = None,
    *,
    depth: Depth = 1.0,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, DequeState]:
    """`neural_deque` in plain torch, on any device and differentiable any number of times.

    Given all controls nothing here is sequential: how much is in the deque is a cumulative maximum, the ends are sums,
    the cuts cumulative minima and maxima, and the reads batched matrix products. Memory is O((N + T) T B).
    """
    strengths = Controls(push_top, push_bottom, pop_top, pop_bottom)
    return _run(values_top, values_bottom, strengths, state, depth, batch_first=batch_first, compiled=False)


def _run(
    values_top: Tensor, values_bottom: Tensor, strengths: Controls, state: DequeState | None, depth: Depth, **how: bool
) -> tuple[Tensor, Tensor, DequeState]:
    values = {"values_top": values_top, "values_bottom": values_bottom}
    (top, bottom), final = run("deque", DequeState.empty, _all_steps, values, strengths._asdict(), state, depth, **how)
    return top, bottom, final


def _all_steps(
    values: list[Tensor], strengths: list[Tensor], state: DequeState, depth: Depth
) -> tuple[tuple[Tensor, Tensor], DequeState]:
    steps = values[0].shape[0]
    if steps == 0:
        return (values[0], values[1]), state
    controls = Controls(*(each.to(state.high.dtype) for each in strengths))
    levels, emptied = _levels(controls, state)

    def both(top: Tensor, bottom: Tensor) -> Tensor:
        """Of every step, what is about the top push and what about the bottom push: [2T, B, ...]."""
        return torch.stack([top, bottom], 1).flatten(0, 1)

    V = torch.cat([state.values, both(*values)])  # [N + 2T, B, M]
    bottoms = torch.cat([state.bottoms, both(levels.h, levels.low)])  # before anything is popped
    tops = torch.cat([state.tops, both(levels.high, levels.g)])
    initial = state.tops.shape[0]
    step = torch.arange(steps, device=V.device)[:, None]
    pushed = torch.arange(-initial, 2 * steps, device=V.device)[None, :].div(2, rounding_mode="floor")  # by which step
    older = (pushed < step)[..., None]  # [T, N + 2T, 1]
    lowest = torch.cummin(torch.where(older, levels.h[:, None], torch.inf), dim=0).values
    highest = torch.cummax(torch.where(older, levels.g[:, None], -torch.inf), dim=0).values
    bottoms, tops = torch.maximum(bottoms, highest), torch.minimum(tops, lowest)  # [T, N + 2T, B]
    # An element is gone when the deque has been emptied since it was pushed. Rounding may leave a trace of it.
    times = torch.cat([emptied.new_zeros(initial, emptied.shape[1]), both(emptied, emptied)])
    gone = emptied[:, None] > times
    each_depth = depth[:, None] if isinstance(depth, Tensor) else depth
    alpha = deque_read_weights(bottoms, tops, levels.low[:, None], levels.high[:, None], each_depth)
    unread = gone | (pushed > step)[..., None]
    top, bottom = (weighted_sum(each.masked_fill(unread, 0), V) for each in alpha)
    final = DequeState(V, bottoms[-1], torch.where(gone[-1], bottoms[-1], tops[-1]), levels.low[-1], levels.high[-1])
    return (top, bottom), final


def _levels(controls: Controls, state: DequeState) -> tuple[Levels, Tensor]:
    """The levels of every step, [T, B] each, and how often the deque has been emptied so far, [T, B]."""
    d_top, d_bottom, u_top, u_bottom = controls
    # How much is in the deque is as high as a stack: W_t = max(0, W_{t-1} - u_top - u_bottom) + d_top + d_bottom
    pushed, start = d_top + d_bottom, state.high - state.low
    gain = torch.cumsum(pushed - u_top - u_bottom, dim=0)
    W = gain + torch.maximum(start, torch.cummax(pushed - gain, dim=0).values)
    W = torch.cat([start[None], W[:-1]])  # before each step
    # so the ends are sums of what has been pushed and of what there was to pop
    popped = torch.minimum(u_top, W)
    high = state.high + torch.cumsum(d_top - popped, dim=0)
    low = state.low - torch.cumsum(d_bottom - torch.minimum(u_bottom, W - popped), dim=0)
    before = torch.cat([state.low[None], low[:-1]]), torch.cat([state.high[None], high[:-1]])
    levels = pop_then_push_both(*before, controls)
    return levels, (levels.h <= levels.g).cumsum(0)


class NeuralDeque(Memory):
    """A neural deque to drop into a model of one's own; see `Memory` for its arguments.

    Example:
        >>> deque = NeuralDeque(width=64)
        >>> top, bottom, state = deque(values_top, values_bottom, push_top, push_bottom, pop_top, pop_bottom)
    """

    def forward(
        self,
        values_top: Tensor,
        values_bottom: Tensor,
        push_top: Tensor,
        push_bottom: Tensor,
        pop_top: Tensor,
        pop_bottom: Tensor,
        state: DequeState | None = None,
        *,
        depth: Depth = 1.0,
    ) -> tuple[Tensor, Tensor, DequeState]:
        """All steps at once; see `neural_deque`."""
        strengths = Controls(push_top, push_bottom, pop_top, pop_bottom)
        self._check(values_top, strengths._asdict())
        self._check(values_bottom, {})
        more = {"depth": depth, "batch_first": self.batch_first}
        return neural_deque(values_top, values_bottom, *strengths, state, **more)  # type: ignore[arg-type]

    def step(
        self,
        state: DequeState,
        value_top: Tensor,
        value_bottom: Tensor,
        push_top: Tensor,
        push_bottom: Tensor,
        pop_top: Tensor,
        pop_bottom: Tensor,
        *,
        depth: Depth = 1.0,
    ) -> tuple[Tensor, Tensor, DequeState]:
        """One step; see `deque_step`."""
        strengths = Controls(push_top, push_bottom, pop_top, pop_bottom)
        self._check(value_top, strengths._asdict())
        self._check(value_bottom, {})
        return deque_step(state, value_top, value_bottom, *strengths, depth=depth)

    def initial_state(self, batch: int, *, like: Tensor) -> DequeState:
        """An empty deque for `batch` rows."""
        return DequeState.empty(batch, self.width, like=like)
