"""The differentiable neural queue of Grefenstette et al. 2015: its equations, its step and its state.

Picture the queue as a line along which liquid is poured for ever: pushing pours at its end, popping drains from its
beginning, reading averages over the first unit that is left. Nothing ever moves, so two numbers say what is left of
everything. With B rows in a batch, T steps, N elements in the queue before them and values of width M:

    v, values   [T, B, M]     what is pushed
    d, push     [T, B]        how much of it
    u, pop      [T, B]        how much is drained before
    r, reads    [T, B, M]     what is read after
    S, high     [B]           how much has been poured so far: where the line ends
    F, low      [B]           how much has been drained so far: where what is left begins

One step::

    F_t = min(S_{t-1}, F_{t-1} + u_t)
    S_t = S_{t-1} + d_t
    r_t = sum_i max(0, min(S_i, F_t + 1) - max(S_{i-1}, F_t)) * v_i

Positions are kept in float64, as the heights of a stack are. Where `max` and `min` meet a tie, the derivative is
torch's own: it is divided between tied arguments, and that of `max(0, x)` at 0 is 0. So derivatives are comparable
between implementations only away from ties.
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


class QueueState(NamedTuple):
    """A queue between two steps, N elements long: an immutable value.

    What is left of element i lies from `bottoms[i]` to `tops[i]`; its strength, s[i] in the paper, is what lies between
    them. Elements that are left are contiguous, from `low` to `high`.

    Attributes:
        values: [N, B, M], V in the paper.
        bottoms: [N, B], positions; at or past `tops` for an element that has been popped.
        tops: [N, B], positions.
        low: [B], F: how much has been drained so far.
        high: [B], S: how much has been poured so far.
    """

    values: Tensor
    bottoms: Tensor
    tops: Tensor
    low: Tensor
    high: Tensor

    @property
    def strengths(self) -> Tensor:
        """What is left of each element, [N, B]; s in the paper's Eq. 4."""
        return strengths_of(self)

    @classmethod
    def empty(cls, batch: int, width: int, *, like: Tensor) -> QueueState:
        """A queue without elements for `batch` rows of values `width` wide, of the type and on the device of `like`."""
        positions = like.new_zeros(0, batch, dtype=height_dtype(like))
        return cls(like.new_zeros(0, batch, width), positions, positions, *positions.new_zeros(2, batch))


# --- The step


def drain_then_pour(low: Tensor, high: Tensor, push: Tensor, pop: Tensor) -> tuple[Tensor, Tensor]:
    """How much has been drained, F_t = min(S_{t-1}, F_{t-1} + u_t), and poured, S_t = S_{t-1} + d_t."""
    return torch.minimum(high, low + pop), high + push


def queue_read_weights(bottoms: Tensor, tops: Tensor, low: Tensor, depth: Depth = 1.0) -> Tensor:
    """How much of each element is within the first unit: alpha_t[i] = max(0, min(S_i, F_t + depth) - bottom_i).

    Args:
        bottoms: Where what is left of each element starts, max(S_{i-1}, F_t).
        tops: Where it ends, S_i.
        low: F_t.
        depth: How deep the read is.
    """
    return (torch.minimum(tops, low + depth) - bottoms).relu()


def advance_queue(line: Positions, push: Tensor, pop: Tensor, depth: Depth = 1.0) -> tuple[tuple[Tensor], Positions]:
    """One step of the positions alone: how much of each element is read, [N + 1, B], and the positions after it."""
    F, S = drain_then_pour(line.low, line.high, push, pop)
    bottoms = torch.cat([torch.maximum(line.bottoms, F), line.high[None]])
    tops = torch.cat([line.tops, S[None]])
    return (queue_read_weights(bottoms, tops, F, depth),), Positions(bottoms, tops, F, S)


def queue_step(
    state: QueueState, value: Tensor, push: Tensor, pop: Tensor, *, depth: Depth = 1.0
) -> tuple[Tensor, QueueState]:
    """One step of a neural queue, for streaming: `neural_queue` of T = 1, without the time axis.

    Args:
        state: The queue before the step.
        value: [B, M], what to push.
        push: [B], how much of it.
        pop: [B], how much to drain first.
        depth: How deep the read is; see `neural_queue`.

    Returns:
        The read [B, M], and the queue after the step.

    Raises:
        ValueError: A shape is wrong.
    """
    (push, pop), depth = checked_step(state, {"value": value}, {"push": push, "pop": pop}, depth)
    (alpha,), line = advance_queue(Positions(*state[1:]), push, pop, depth)
    V = torch.cat([state.values, value[None]])
    return weighted_sum(alpha, V), QueueState(V, *line)


# --- All steps at once


def neural_queue(
    values: Tensor,
    push: Tensor,
    pop: Tensor,
    state: QueueState | None = None,
    *,
    depth: Depth = 1.0,
    batch_first: bool = False,
) -> tuple[Tensor, QueueState]:
    """Run a neural queue over T steps at once (paper Eq. 4-5, in the form of the module's docstring).

    Each step pops at the beginning, pushes at the end, then reads at the beginning::

        F_t = min(S_{t-1}, F_{t-1} + u_t)
        S_t = S_{t-1} + d_t
        r_t = sum_i max(0, min(S_i, F_t + depth) - max(S_{i-1}, F_t)) * v_i

    Args:
        values: [T, B, M], what each step pushes.
        push: [T, B], push strengths d; in the paper from 0 to 1. A push of 2 makes an element two units long.
        pop: [T, B], pop strengths u, likewise; a pop of more than there is empties the queue.
        state: The queue before the first step; empty if None.
        depth: How deep a read is: one unit in the paper. A number, or a tensor that broadcasts to [T, B].
        batch_first: Whether values are [B, T, M], strengths [B, T] and reads [B, T, M]; a state is the same either way.

    Returns:
        The reads [T, B, M], and the queue after the last step.

    Raises:
        ValueError: A shape is wrong.
    """
    return _run(values, push, pop, state, depth, batch_first=batch_first)


def neural_queue_torch(
    values: Tensor,
    push: Tensor,
    pop: Tensor,
    state: QueueState | None = None,
    *,
    depth: Depth = 1.0,
    batch_first: bool = False,
) -> tuple[Tensor, QueueState]:
    """`neural_queue` in plain torch, on any device and differentiable any number of times.

    Given all controls nothing here is sequential: S is a sum, F a cumulative minimum, and the reads are one batched
    matrix product. Memory is O((N + T) T B).
    """
    return _run(values, push, pop, state, depth, batch_first=batch_first, compiled=False)


def _run(
    values: Tensor, push: Tensor, pop: Tensor, state: QueueState | None, depth: Depth, **how: bool
) -> tuple[Tensor, QueueState]:
    strengths = {"push": push, "pop": pop}
    (reads,), final = run("queue", QueueState.empty, _all_steps, {"values": values}, strengths, state, depth, **how)
    return reads, final


def _all_steps(
    whole: list[Tensor], strengths: list[Tensor], state: QueueState, depth: Depth
) -> tuple[tuple[Tensor], QueueState]:
    (values,), (d, u) = whole, (each.to(state.high.dtype) for each in strengths)
    if values.shape[0] == 0:
        return (values,), state

    ends = state.high + torch.cumsum(d, dim=0)  # S_t, [T, B]
    starts = torch.cat([state.high[None], ends[:-1]])  # S_{t-1}
    # F_t = min(S_{t-1}, F_{t-1} + u_t), unrolled with U the running sum of u: U_t + min(F_0, min_k S_{k-1} - U_k)
    popped = torch.cumsum(u, dim=0)
    F = popped + torch.minimum(state.low, torch.cummin(starts - popped, dim=0).values)
    before = torch.cat([state.low[None], F[:-1]])
    F, _ = drain_then_pour(before, starts, d, u)  # now exactly S_{t-1} where the queue is emptied

    V = torch.cat([state.values, values])  # [N + T, B, M]
    tops = torch.cat([state.tops, ends])
    uncut = torch.cat([state.bottoms, starts])  # where each element starts before anything is popped from it
    step = torch.arange(state.tops.shape[0], tops.shape[0], device=values.device)[:, None]
    element = torch.arange(tops.shape[0], device=values.device)[None, :]
    each_depth = depth[:, None] if isinstance(depth, Tensor) else depth
    alpha = queue_read_weights(torch.maximum(uncut, F[:, None]), tops, F[:, None], each_depth)
    reads = weighted_sum(alpha.masked_fill((element > step)[..., None], 0), V)
    return (reads,), QueueState(V, torch.maximum(uncut, F[-1]), tops, F[-1], ends[-1])


class NeuralQueue(Memory):
    """A neural queue to drop into a model of one's own; see `Memory` for its arguments.

    Example:
        >>> queue = NeuralQueue(width=64)
        >>> reads, state = queue(values, push, pop)         # [T, B, 64], [T, B], [T, B]
        >>> read, state = queue.step(state, value, d, u)    # [B, 64], [B], [B]
    """

    def forward(
        self, values: Tensor, push: Tensor, pop: Tensor, state: QueueState | None = None, *, depth: Depth = 1.0
    ) -> tuple[Tensor, QueueState]:
        """All steps at once; see `neural_queue`."""
        self._check(values, {"push": push, "pop": pop})
        return neural_queue(values, push, pop, state, depth=depth, batch_first=self.batch_first)

    def step(
        self, state: QueueState, value: Tensor, push: Tensor, pop: Tensor, *, depth: Depth = 1.0
    ) -> tuple[Tensor, QueueState]:
        """One step; see `queue_step`."""
        self._check(value, {"push": push, "pop": pop})
        return queue_step(state, value, push, pop, depth=depth)

    def initial_state(self, batch: int, *, like: Tensor) -> QueueState:
        """An empty queue for `batch` rows."""
        return QueueState.empty(batch, self.width, like=like)
