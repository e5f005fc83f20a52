"""The differentiable neural stack of Grefenstette et al. 2015: its equations, its step and its state.

Whatever works a stack on tensors takes its step from here; that of the compiled kernels is in kernels/cpu/stack.h, and
`columns.py` has one on plain numbers, which draws what is on a stack and needs no torch.

Picture the stack as a column of liquid: pushing pours on top, popping drains from the top, reading averages over the
top unit of height. With B rows in a batch, T steps, N elements on the stack before them and values of width M:

    v, values   [T, B, M]     what is pushed
    d, push     [T, B]        how much of it, in [0, 1]
    u, pop      [T, B]        how much is drained before, in [0, 1]
    r, reads    [T, B, M]     what is read after
    L, bottoms  [N + T, B]    where each element starts: the height after the pop of its step
    E, tops     [N + T, B]    where what is left of it ends; an element with E <= L is gone
    H, height   [B]           how high the column stands

Heights are kept in float64 (float32 where the device has no other): at a height of 10^6, float32 has lost the
fractions that the gates deal in.

`max` and `min` meet ties at saturated gates. The paper (footnote 1) gives a tie's derivative to the left argument. So
does `max(0, x)` here: it is `relu`, whose derivative at 0 is 0, and an element of exactly zero strength passes none on.
The running minimum and maximum give a tie to one of the tied arguments or divide it between them. So derivatives are
comparable between implementations only away from ties.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stackrev.structures.base import (
    Depth,
    Memory,
    checked_step,
    height_dtype,
    run,
    strengths_of,
    weighted_sum,
)


class StackState(NamedTuple):
    """A stack between two steps, N elements high: an immutable value.

    Element i occupies the heights from `bottoms[i]` to `tops[i]`; its strength, s[i] in the paper, is what lies
    between them. Elements that are alive are contiguous, and the last of them ends at `height`.

    Attributes:
        values: [N, B, M], V in the paper.
        bottoms: [N, B], heights.
        tops: [N, B], heights; at or below `bottoms` for an element that has been popped.
        height: [B], the height of the column.
    """

    values: Tensor
    bottoms: Tensor
    tops: Tensor
    height: Tensor

    @property
    def strengths(self) -> Tensor:
        """What is left of each element, [N, B]; s in the paper's Eq. 1-2."""
        return strengths_of(self)

    @classmethod
    def empty(cls, batch: int, width: int, *, like: Tensor) -> StackState:
        """A stack without elements for `batch` rows of values `width` wide, of the type and on the device of `like`."""
        heights = like.new_zeros(0, batch, dtype=height_dtype(like))
        return cls(like.new_zeros(0, batch, width), heights, heights, heights.new_zeros(batch))


# --- The step


def pop_then_push(height: Tensor, push: Tensor, pop: Tensor) -> tuple[Tensor, Tensor]:
    """The level after the pop, L_t = max(0, H_{t-1} - u_t), and the height after the push, H_t = L_t + d_t."""
    L = (height - pop).relu()
    return L, L + push


def read_weights(bottoms: Tensor, tops: Tensor, height: Tensor, depth: Depth = 1.0) -> Tensor:
    """How much of each element is within the topmost unit: alpha_t[i] = max(0, E_t[i] - max(L_i, H_t - depth))."""
    return (tops - torch.maximum(bottoms, height - depth)).relu()


def read_weights_backward(
    g_alpha: Tensor, alpha: Tensor, bottoms: Tensor, height: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient of `read_weights` to those of tops, bottoms and, one for each element, of the height."""
    g_tops = g_alpha.masked_fill(alpha <= 0, 0)
    own = g_tops * (bottoms > height - 1)  # of elements whose floor is their own bottom
    return g_tops, -own, own - g_tops


def pop_then_push_backward(level: Tensor, g_height: Tensor, *g_levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradients of H_t and L_t (a sum of several) to those of push, pop and H_{t-1}."""
    g_level = g_height
    for part in g_levels:
        g_level = g_level + part
    g_before = g_level * (level > 0)
    return g_height, -g_before, g_before


def stack_step(
    state: StackState, value: Tensor, push: Tensor, pop: Tensor, *, depth: Depth = 1.0
) -> tuple[Tensor, StackState]:
    """One step of a neural stack, for streaming: `neural_stack` of T = 1, without the time axis.

    Args:
        state: The stack before the step.
        value: [B, M], what to push.
        push: [B], how much of it.
        pop: [B], how much to drain first.
        depth: How deep the read is; see `neural_stack`.

    Returns:
        The read [B, M], and the stack after the step.

    Raises:
        ValueError: A shape is wrong.
    """
    (push, pop), depth = checked_step(state, {"value": value}, {"push": push, "pop": pop}, depth)
    L, H = pop_then_push(state.height, push, pop)
    bottoms = torch.cat([state.bottoms, L[None]])
    tops = torch.cat([torch.minimum(state.tops, L), H[None]])
    V = torch.cat([state.values, value[None]])
    read = weighted_sum(read_weights(bottoms, tops, H, depth), V)
    return read, StackState(V, bottoms, tops, H)


# --- All steps at once


def neural_stack(
    values: Tensor,
    push: Tensor,
    pop: Tensor,
    state: StackState | None = None,
    *,
    depth: Depth = 1.0,
    batch_first: bool = False,
) -> tuple[Tensor, StackState]:
    """Run a neural stack over T steps at once (paper Eq. 1-3, in the form of the module's docstring).

    Each step pops, pushes, then reads::

        L_t    = max(0, H_{t-1} - u_t)
        H_t    = L_t + d_t
        E_t[i] = min(H_i, min_{i<k<=t} L_k)
        r_t    = sum_i max(0, E_t[i] - max(L_i, H_t - depth)) * v_i

    On the CPU, in float32 or float64, the compiled kernels take time and memory O((N + T) B), and have no second
    derivative; `neural_stack_torch` is for everything else (see `stackrev.kernels.using`).

    Args:
        values: [T, B, M], what each step pushes.
        push: [T, B], push strengths d; in the paper from 0 to 1. A push of 2 makes an element two units high.
        pop: [T, B], pop strengths u, likewise; a pop beyond the bottom empties the stack.
        state: The stack before the first step; empty if None.
        depth: How deep a read is: one unit in the paper. A number, or a tensor that broadcasts to [T, B].
        batch_first: Whether values are [B, T, M], strengths [B, T] and reads [B, T, M]; a state is the same either way.

    Returns:
        The reads [T, B, M], and the stack after the last step.

    Raises:
        ValueError: A shape is wrong.
    """
    return _run(values, push, pop, state, depth, batch_first=batch_first)


def neural_stack_torch(
    values: Tensor,
    push: Tensor,
    pop: Tensor,
    state: StackState | None = None,
    *,
    depth: Depth = 1.0,
    batch_first: bool = False,
) -> tuple[Tensor, StackState]:
    """`neural_stack` in plain torch, on any device and differentiable any number of times.

    Given all controls nothing here is sequential: H is a cumulative maximum, E a cumulative minimum, and the reads are
    one batched matrix product. Memory is O((N + T) T B).
    """
    return _run(values, push, pop, state, depth, batch_first=batch_first, compiled=False)


def _run(
    values: Tensor, push: Tensor, pop: Tensor, state: StackState | None, depth: Depth, **how: bool
) -> tuple[Tensor, StackState]:
    strengths = {"push": push, "pop": pop}
    (reads,), final = run("stack", StackState.empty, _all_steps, {"values": values}, strengths, state, depth, **how)
    return reads, final


def _all_steps(
    whole: list[Tensor], strengths: list[Tensor], state: StackState, depth: Depth
) -> tuple[tuple[Tensor], StackState]:
    (values,), (d, u) = whole, (each.to(state.height.dtype) for each in strengths)
    if values.shape[0] == 0:
        return (values,), state

    # H_t = max(d_t, H_{t-1} - u_t + d_t), unrolled with S the running sum of d - u: S_t + max(H_0, max_k d_k - S_k)
    gain = torch.cumsum(d - u, dim=0)
    H = gain + torch.maximum(state.height, torch.cummax(d - gain, dim=0).values)  # [T, B]
    before = torch.cat([state.height[None], H[:-1]])
    L, H = pop_then_push(before, d, u)

    V = torch.cat([state.values, values])  # [N + T, B, M]
    bottoms = torch.cat([state.bottoms, L])
    uncut = torch.cat([state.tops, H])  # each element's top before anything is popped from it
    step = torch.arange(state.tops.shape[0], bottoms.shape[0], device=values.device)[:, None]
    element = torch.arange(bottoms.shape[0], device=values.device)[None, :]
    cuts = torch.where(
        (element < step)[..., None], L[:, None], torch.inf
    )  # [T, N + T, B], the level each step drains to
    E = torch.minimum(uncut, torch.cummin(cuts, dim=0).values)
    each_depth = depth[:, None] if isinstance(depth, Tensor) else depth
    alpha = read_weights(bottoms, E, H[:, None], each_depth).masked_fill((element > step)[..., None], 0)
    return (weighted_sum(alpha, V),), StackState(V, bottoms, E[-1], H[-1])


class NeuralStack(Memory):
    """A neural stack to drop into a model of one's own; see `Memory` for its arguments.

    Example:
        >>> stack = NeuralStack(width=64)
        >>> reads, state = stack(values, push, pop)         # [T, B, 64], [T, B], [T, B]
        >>> read, state = stack.step(state, value, d, u)    # [B, 64], [B], [B]
    """

    def forward(
        self, values: Tensor, push: Tensor, pop: Tensor, state: StackState | None = None, *, depth: Depth = 1.0
    ) -> tuple[Tensor, StackState]:
        """All steps at once; see `neural_stack`."""
        self._check(values, {"push": push, "pop": pop})
        return neural_stack(values, push, pop, state, depth=depth, batch_first=self.batch_first)

    def step(
        self, state: StackState, value: Tensor, push: Tensor, pop: Tensor, *, depth: Depth = 1.0
    ) -> tuple[Tensor, StackState]:
        """One step; see `stack_step`."""
        self._check(value, {"push": push, "pop": pop})
        return stack_step(state, value, push, pop, depth=depth)

    def initial_state(self, batch: int, *, like: Tensor) -> StackState:
        """An empty stack for `batch` rows."""
        return StackState.empty(batch, self.width, like=like)
