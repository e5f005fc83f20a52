"""What the fast code is held against: the paper's equations and the recurrence, as literally as torch can write them.

Slow and obviously right: one tensor operation for each operation of the formulas, differentiated by autograd. Nothing
outside the tests and the benchmarks may import this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stackrev.structures.recurrence import MemoryLSTMOutput, MemoryLSTMState, MemoryLSTMWeights
from stackrev.structures.stack import StackState

Depth = float | Tensor


def paper_stack(values: Tensor, push: Tensor, pop: Tensor, depth: Depth = 1.0) -> Tensor:
    """The reads [T, B, M] of Grefenstette et al. 2015, Eq. 1-3, for values [T, B, M], push and pop [T, B]."""
    return paper_stack_with_strengths(values, push, pop, depth)[0]


def paper_stack_with_strengths(
    values: Tensor, push: Tensor, pop: Tensor, depth: Depth = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """The reads [T, B, M], and after each step t the strengths s_t of the t elements pushed so far, [t, B].

    Eq. 1: V_t    = [V_{t-1}; v_t]
    Eq. 2: s_t[i] = max(0, s_{t-1}[i] - max(0, u_t - sum_{j=i+1}^{t-1} s_{t-1}[j])) for i < t, and s_t[t] = d_t
    Eq. 3: r_t    = sum_i min(s_t[i], max(0, 1 - sum_{j=i+1}^{t} s_t[j])) V_t[i]

    The 1 is `depth`, a number or a tensor [T, B].
    """
    reads, history = [], []
    s = push[:0]
    for t in range(len(values)):
        V = values[: t + 1]
        s = torch.cat([max_0(s - max_0(pop[t] - sum_above(s))), push[t : t + 1]])
        reads.append(read(s, V, sum_above(s), depth_at(depth, t)))
        history.append(s)
    return torch.stack(reads) if reads else values, history


def paper_queue(values: Tensor, push: Tensor, pop: Tensor, depth: Depth = 1.0) -> tuple[Tensor, list[Tensor]]:
    """The reads [T, B, M] of a queue, and after each step t the strengths of the t elements pushed so far.

    Eq. 4: s_t[i] = max(0, s_{t-1}[i] - max(0, u_t - sum_{j=1}^{i-1} s_{t-1}[j])) for i < t, and s_t[t] = d_t
    Eq. 5: r_t    = sum_i min(s_t[i], max(0, 1 - sum_{j=1}^{i-1} s_t[j])) V_t[i]
    """
    reads, history = [], []
    s = push[:0]
    for t in range(len(values)):
        s = torch.cat([max_0(s - max_0(pop[t] - sum_below(s))), push[t : t + 1]])
        reads.append(read(s, values[: t + 1], sum_below(s), depth_at(depth, t)))
        history.append(s)
    return torch.stack(reads), history


def paper_deque(
    values_top: Tensor,
    values_bottom: Tensor,
    push_top: Tensor,
    push_bottom: Tensor,
    pop_top: Tensor,
    pop_bottom: Tensor,
    depth: Depth = 1.0,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The reads of a deque at its top and its bottom, and the strengths after each step, from the bottom to the top.

    Eq. 6: V_t         = [v_t^bot; V_{t-1}; v_t^top]
    Eq. 7: s_t^top[i]  = max(0, s_{t-1}[i] - max(0, u_t^top - sum_{j=i+1}^{2(t-1)} s_{t-1}[j]))
    Eq. 8: s_t^both[i] = max(0, s_t^top[i] - max(0, u_t^bot - sum_{j=1}^{i-1} s_t^top[j]))
    Eq. 9: s_t         = [d_t^bot; s_t^both; d_t^top]

    The paper ends the sum of Eq. 7 at 2(t-1) - 1, which leaves out the topmost element, and has an index of the other
    sum in that of Eq. 8. The reads are Eq. 3 at the top and Eq. 5 at the bottom.
    """
    tops, bottoms, history = [], [], []
    s, V = push_top[:0], values_top[:0]
    for t in range(len(values_top)):
        s = max_0(s - max_0(pop_top[t] - sum_above(s)))
        s = max_0(s - max_0(pop_bottom[t] - sum_below(s)))
        s = torch.cat([push_bottom[t : t + 1], s, push_top[t : t + 1]])
        V = torch.cat([values_bottom[t : t + 1], V, values_top[t : t + 1]])
        tops.append(read(s, V, sum_above(s), depth_at(depth, t)))
        bottoms.append(read(s, V, sum_below(s), depth_at(depth, t)))
        history.append(s)
    return torch.stack(tops), torch.stack(bottoms), history


def read(s: Tensor, values: Tensor, nearer: Tensor, depth: Tensor | float) -> Tensor:
    """sum_i min(s[i], max(0, depth - nearer[i])) V[i]; `nearer` is the sum of what is read before element i."""
    return (minimum(s, max_0(depth - nearer))[..., None] * values).sum(0)


def depth_at(depth: Depth, t: int) -> Tensor | float:
    """How deep the read of a step is."""
    return depth[t] if isinstance(depth, Tensor) else depth


def sum_above(s: Tensor) -> Tensor:
    """Of every i, the sum of s[j] over all j > i."""
    return torch.ones(len(s), len(s), dtype=s.dtype, device=s.device).triu(1) @ s


def sum_below(s: Tensor) -> Tensor:
    """Of every i, the sum of s[j] over all j < i."""
    return torch.ones(len(s), len(s), dtype=s.dtype, device=s.device).tril(-1) @ s


def max_0(x: Tensor) -> Tensor:
    """max(0, x); at a tie its derivative is that of the left argument (the paper's footnote 1), so 0."""
    return x.relu()


def minimum(left: Tensor, right: Tensor) -> Tensor:
    """min(left, right); at a tie its derivative is that of the left argument."""
    return torch.where(left <= right, left, right)


def literal_stack_lstm(
    inputs: Tensor,
    lengths: Tensor,
    state: MemoryLSTMState,
    weights: MemoryLSTMWeights,
    *,
    stretch: float,
    cell_stretch: float = 0.0,
    noise: Tensor | None = None,
) -> MemoryLSTMOutput:
    """`stackrev.structures.recurrence.stack_lstm`, one graph node an operation.

    The derivatives at ties are those that the module states. A row that has ended pushes an element of no strength at
    its height and changes in nothing else.
    """
    h, c, r = list(state.hidden), list(state.cell), state.read
    values, bottoms, tops, height = state.memory
    hidden, pushes, pops = [], [], []
    for t in range(len(inputs)):
        running = lengths > t  # [B]
        rows = running[:, None]
        below, new_h, new_c = r, [], []
        for layer, matrix in enumerate(weights.recurrent):
            start = inputs[t] if layer == 0 else weights.biases[layer - 1]
            z = start + torch.cat([below, h[layer]], 1) @ matrix
            below, cell = lstm_cell(z, c[layer], cell_stretch)
            new_h.append(below)
            new_c.append(cell)
        a = below @ weights.control + weights.control_bias
        before = a[:, :2] if noise is None else a[:, :2] + noise[t]
        d, u = gate(before, stretch).to(height.dtype).unbind(1)
        v = a[:, 2:].tanh()

        L = max_0(height - u)
        H = L + d
        new_values = torch.cat([values, v[None]])
        new_bottoms = torch.cat([bottoms, L[None]])
        new_tops = torch.cat([torch.where(L < tops, L, tops), H[None]])
        floor = torch.where(new_bottoms > H - 1, new_bottoms, H - 1)
        alpha = max_0(new_tops - floor).to(v.dtype)
        new_r = (alpha[..., None] * new_values).sum(0)

        h = [torch.where(rows, new, old) for new, old in zip(new_h, h, strict=True)]
        c = [torch.where(rows, new, old) for new, old in zip(new_c, c, strict=True)]
        r = torch.where(rows, new_r, r)
        values = torch.cat([values, torch.where(rows, v, 0 * v)[None]])
        bottoms = torch.where(running, new_bottoms, torch.cat([bottoms, height[None]]))
        tops = torch.where(running, new_tops, torch.cat([tops, height[None]]))
        height = torch.where(running, H, height)
        hidden.append(torch.where(rows, below, 0 * below))
        pushes.append(torch.where(running, d, 0 * d).to(v.dtype).detach())
        pops.append(torch.where(running, u, 0 * u).to(v.dtype).detach())
    final = MemoryLSTMState(torch.stack(h), torch.stack(c), r, StackState(values, bottoms, tops, height))
    return MemoryLSTMOutput(torch.stack(hidden), torch.stack(pushes), torch.stack(pops), final)


def lstm_cell(z: Tensor, c: Tensor, stretch: float) -> tuple[Tensor, Tensor]:
    """Hidden and cell state [B, H] after a step, from the pre-activations [B, 4H] and the cell state before."""
    i, f, g, o = z.chunk(4, 1)
    c = gate(f, stretch) * c + gate(i, stretch) * candidate(g, stretch)
    return gate(o, stretch) * c.tanh(), c


def candidate(a: Tensor, stretch: float) -> Tensor:
    """clamp((1 + 2e) tanh(a), -1, 1), with derivative 0 where it is -1 or 1."""
    stretched = (1 + 2 * stretch) * a.tanh()
    return torch.where(stretched <= -1, 0 * a - 1, torch.where(stretched >= 1, 0 * a + 1, stretched))


def gate(a: Tensor, stretch: float) -> Tensor:
    """clamp((1 + 2e) sigmoid(a) - e, 0, 1), with derivative 0 where it is 0 or 1."""
    stretched = (1 + 2 * stretch) * a.sigmoid() - stretch
    return torch.where(stretched <= 0, 0 * a, torch.where(stretched >= 1, 0 * a + 1, stretched))


def literal_memory_lstm(
    inputs: Tensor,
    lengths: Tensor,
    before: Sequence[Tensor],
    state: Sequence[Tensor],
    weights: MemoryLSTMWeights,
    *,
    stretch: float,
    cell_stretch: float = 0.0,
    noise: Tensor,
) -> list[Tensor]:
    """`stackrev.structures.recurrence.memory_lstm` on a queue or a deque, row by row, by the paper's equations.

    Args:
        inputs: [T, B, 4H].
        lengths: [B].
        before: What has been done to the memory before, as arguments of `paper_queue` or `paper_deque`.
        state: Hidden and cell state [K, B, H], and the read.
        weights: The weights.
        stretch: e of the stretched gates of the memory.
        cell_stretch: e of the LSTM's own gates.
        noise: [T, B, 2] for a queue, [T, B, 4] for a deque.

    Returns:
        Hidden states [T, B, H], zero where a row has ended, and the final hidden state, cell state and read.
    """
    ends = noise.shape[2] // 2
    rows = []
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        h, c, r = list(state[0][:, one]), list(state[1][:, one]), state[2][one]
        call = [each[:, one] for each in before]
        hidden = []
        for t in range(length):
            below = r
            for layer, matrix in enumerate(weights.recurrent):
                start = inputs[t, one] if layer == 0 else weights.biases[layer - 1]
                z = start + torch.cat([below, h[layer]], 1) @ matrix
                below, c[layer] = lstm_cell(z, c[layer], cell_stretch)
                h[layer] = below
            a = below @ weights.control + weights.control_bias
            gates = gate(a[:, : 2 * ends] + noise[t, one], stretch).unbind(1)
            controls = [*a[:, 2 * ends :].tanh().chunk(ends, 1), *gates[::2], *gates[1::2]]  # values, pushes, pops
            call = [torch.cat([earlier, each[None]]) for earlier, each in zip(call, controls, strict=True)]
            reads = (paper_queue if ends == 1 else paper_deque)(*call)[:ends]
            r = torch.cat([each[-1] for each in reads], 1)
            hidden.append(below)
        hidden += [torch.zeros_like(h[-1])] * (len(inputs) - length)
        rows.append([torch.stack(hidden), torch.stack(h), torch.stack(c), r[None]])
    hidden, h, c, r = (torch.cat(each, 1) for each in zip(*rows, strict=True))
    return [hidden, h, c, r[0]]
