"""The stack-LSTM's recurrence in plain torch, with a hand-written backward; equations and letters are in recurrence.py.

One autograd function over all steps, in place of one node an operation: half the time. Weight gradients are one matrix
product over all steps after the backward loop. Inside, batch comes first in the stack, so that a read is one `bmm`.

Rows are sorted by length: those that still run are the first n, and the others keep their state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackrev.structures.stack import (
    StackState,
    pop_then_push,
    pop_then_push_backward,
    read_weights,
    read_weights_backward,
)
from stackrev.structures.stretched import Stretches, candidate, candidate_slope, gate, gate_slope


class State(NamedTuple):
    """The recurrence between two steps, as `MemoryLSTMState` with the stack's four tensors in place of the stack."""

    hidden: Tensor
    cell: Tensor
    read: Tensor
    values: Tensor
    bottoms: Tensor
    tops: Tensor
    height: Tensor


class _Weights(NamedTuple):
    control: Tensor
    control_bias: Tensor
    recurrent: Sequence[Tensor]
    biases: Sequence[Tensor]


def _parts(flat: Sequence[Tensor]) -> tuple[State, _Weights]:
    state = State(*flat[:7])
    layers = state.hidden.shape[0]
    return state, _Weights(flat[7], flat[8], flat[9 : 9 + layers], flat[9 + layers :])


def recurrence(
    x: Tensor, lengths: Tensor, stretches: Stretches, noise: Tensor | None, *flat: Tensor
) -> tuple[Tensor, Tensor, Tensor, State]:
    """Run the recurrence.

    Args:
        x: [T, B, 4H], the inputs.
        lengths: [B], falling.
        stretches: How far the gates are stretched.
        noise: [T, B, 2], or None.
        flat: The seven tensors of the state, then the control matrix and its bias, K recurrent matrices, K - 1 biases.

    Returns:
        Hidden states, push, pop, and the state after each row's last step.
    """
    hidden, push, pop, *state = _Recurrence.apply(x, lengths, stretches, noise, *flat)  # type: ignore[no-untyped-call]
    return hidden, push, pop, State(*state)


def _running(lengths: Tensor, steps: int) -> list[int]:
    """How many rows run at each step."""
    return (lengths[None, :] > torch.arange(steps)[:, None]).sum(1).tolist()


def _by_layer(buffer: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of each layer's steps, so that the loop need not index: [layer][step] of [K, T, B, ...]."""
    return [layer.unbind() for layer in buffer.unbind()]


def _first(rows: Tensor, count: int) -> Tensor:
    """The rows that still run."""
    return rows if count == rows.shape[0] else rows[:count]


def _replace(rows: Tensor, first: Tensor) -> Tensor:
    """Rows of which the first have moved on, and the others keep their state."""
    return first if first.shape == rows.shape else torch.cat([first, rows[first.shape[0] :]])


class _Forward:
    """The loop over steps: what it updates, and what it leaves behind for the results and for the derivative."""

    def __init__(
        self, x: Tensor, running: list[int], e: Stretches, noise: Tensor | None, flat: Sequence[Tensor], saving: bool
    ) -> None:
        self.x, self.running, self.e, self.noise, self.saving = x, running, e, noise, saving
        self.initial, self.weights = _parts(flat)
        (steps, batch, _), (layers, _, size) = x.shape, self.initial.hidden.shape
        width, self.below = self.initial.read.shape[1], self.initial.bottoms.shape[0]
        total = self.below + steps
        # what the loop updates
        self.h, self.c = list(self.initial.hidden.clone()), list(self.initial.cell.clone())
        self.r, self.height = self.initial.read.clone(), self.initial.height.clone()
        self.bottoms, self.tops = (self.height.new_empty(batch, total) for _ in range(2))
        self.bottoms[:, : self.below], self.tops[:, : self.below] = self.initial.bottoms.T, self.initial.tops.T
        self.values = x.new_zeros(batch, total, width)
        self.values[:, : self.below] = self.initial.values.transpose(0, 1)
        # what it leaves behind
        self.heights: list[Tensor] = []
        self.hidden = x.new_zeros(layers, steps, batch, size)
        self.squashed = x.new_zeros(steps, batch, 2)  # sigmoid of the gates' pre-activations
        self.gates = x.new_zeros(steps, batch, 2)
        self.x_at, self.squashed_at, self.gates_at = x.unbind(), self.squashed.unbind(), self.gates.unbind()
        self.hidden_at = _by_layer(self.hidden)
        if saving:
            self.cells = x.new_zeros(layers, steps, batch, size)
            self.activated = x.new_zeros(layers, steps, batch, 4 * size)
            self.reads = x.new_zeros(steps, batch, width)
            self.alphas = x.new_zeros(batch, steps, total)
            self.drained = torch.zeros(steps, batch, total, dtype=torch.bool, device=x.device)
            self.activated_at, self.cells_at = _by_layer(self.activated), _by_layer(self.cells)
            self.reads_at = self.reads.unbind()

    def run(self) -> None:
        for t, n in enumerate(self.running):
            d, u = self._controls(t, n, self._cells(t, n))
            self._stack(t, n, d, u)

    def _cells(self, t: int, n: int) -> Tensor:
        """The top layer's hidden state, [n, H]."""
        below_h = _first(self.r, n)  # what feeds a layer from below, [n, M] or [n, H]
        for k, matrix in enumerate(self.weights.recurrent):
            bias = self.weights.biases[k - 1] if k else _first(self.x_at[t], n)
            z = torch.addmm(bias, torch.cat([below_h, _first(self.h[k], n)], 1), matrix)
            z_i, z_f, z_g, z_o = z.chunk(4, 1)
            for each in (z_i, z_f, z_o):  # in place: z is then activated
                each.copy_(gate(each.sigmoid_(), self.e.cell))
            z_g.copy_(candidate(z_g.tanh_(), self.e.cell))
            i, f, g, o = z_i, z_f, z_g, z_o
            c_t = torch.addcmul(f * _first(self.c[k], n), i, g)
            below_h = o * c_t.tanh()
            self.c[k], self.h[k] = _replace(self.c[k], c_t), _replace(self.h[k], below_h)
            _first(self.hidden_at[k][t], n).copy_(below_h)
            if self.saving:
                _first(self.activated_at[k][t], n).copy_(z)
                _first(self.cells_at[k][t], n).copy_(c_t)
        return below_h

    def _controls(self, t: int, n: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """Push and pop strength, [n] each; the value goes where it is pushed."""
        a = torch.addmm(self.weights.control_bias, h, self.weights.control)
        squash = a[:, :2].sigmoid() if self.noise is None else (a[:, :2] + self.noise[t, :n]).sigmoid_()
        gates = gate(squash, self.e.memory)
        _first(self.squashed_at[t], n).copy_(squash)
        _first(self.gates_at[t], n).copy_(gates)
        self.values[:n, self.below + t] = a[:, 2:].tanh()
        d, u = gates.to(self.height.dtype).unbind(1)
        return d, u

    def _stack(self, t: int, n: int, d: Tensor, u: Tensor) -> None:
        s = self.below + t  # this step's place on the stack
        L, H = pop_then_push(_first(self.height, n), d, u)
        older = self.tops[:n, :s]
        if self.saving:
            torch.lt(L[:, None], older, out=self.drained[t, :n, :s])
        torch.minimum(older, L[:, None], out=older)
        self.height = _replace(self.height, H)
        self.bottoms[:, s] = self.tops[:, s] = self.height  # rows that have ended push nothing
        self.bottoms[:n, s] = L
        self.heights.append(self.height)
        alpha = read_weights(self.bottoms[:n, : s + 1], self.tops[:n, : s + 1], H[:, None]).to(self.x.dtype)
        r_t = torch.bmm(alpha[:, None], self.values[:n, : s + 1])[:, 0]
        self.r = _replace(self.r, r_t)
        if self.saving:
            self.alphas[:n, t, : s + 1] = alpha
            _first(self.reads_at[t], n).copy_(r_t)

    def saved(self) -> tuple[Tensor, ...]:
        """What the derivative needs beside the arguments."""
        heights = torch.stack(self.heights) if self.heights else self.height.new_empty(0, self.x.shape[1])
        return (
            *(self.hidden, self.cells, self.activated, self.squashed, self.gates, self.reads),
            *(self.alphas, self.drained, self.bottoms, heights, self.values),
        )

    def state(self) -> State:
        """The state after each row's last step."""
        stack = StackState(self.values.transpose(0, 1), self.bottoms.T, self.tops.T, self.height)
        return State(torch.stack(self.h), torch.stack(self.c), self.r, *stack)


class _Saved(NamedTuple):
    """See `_Forward.saved`."""

    hidden: Tensor
    cells: Tensor
    activated: Tensor
    squashed: Tensor
    gates: Tensor
    reads: Tensor
    alphas: Tensor
    drained: Tensor
    bottoms: Tensor
    heights: Tensor
    values: Tensor


class _Backward:
    """The loop from the last step to the first: gradients of the state after step t, while t falls."""

    def __init__(
        self, x: Tensor, flat: Sequence[Tensor], saved: _Saved, e: Stretches, grads: Sequence[Tensor | None]
    ) -> None:
        self.initial, self.weights = _parts(flat)
        self.saved = saved
        steps, batch, _ = x.shape
        width, self.below = self.initial.read.shape[1], self.initial.bottoms.shape[0]
        self.g_hidden, _, _, g_h_end, g_c_end, g_r_end, self.g_values, g_bottoms, g_tops, g_height = grads

        def carried(gradient: Tensor | None, like: Tensor) -> Tensor:
            return torch.zeros_like(like) if gradient is None else gradient.clone()

        self.gh, self.gc = list(carried(g_h_end, self.initial.hidden)), list(carried(g_c_end, self.initial.cell))
        self.gr, self.gH = carried(g_r_end, self.initial.read), carried(g_height, self.initial.height)
        self.gL, self.gE = (
            torch.zeros_like(saved.bottoms) if gradient is None else gradient.T.clone()
            for gradient in (g_bottoms, g_tops)
        )
        # what each step's gradients are multiplied by, for all steps at once
        i, f, g, o = saved.activated.chunk(4, -1)
        squash = saved.cells.tanh()
        last = torch.cat([self.initial.cell[:, None], saved.cells[:, :-1]], 1)[:, :steps]
        through = o * (1 - squash * squash)  # dh / dc
        into_i, into_f, into_o = (gate_slope(*pair, e.cell) for pair in ((g, i), (last, f), (squash, o)))
        slopes = torch.cat([into_i, into_f, candidate_slope(i, g, e.cell), into_o], -1)
        open_gates = (saved.gates > 0) & (saved.gates < 1)
        v = saved.values[:, self.below :].transpose(0, 1)
        gate_slopes = (1 + 2 * e.memory) * saved.squashed * (1 - saved.squashed) * open_gates
        self.control_slopes_at = torch.cat([gate_slopes, 1 - v * v], -1).unbind()
        self.slopes_at, self.through_at, self.f_at = map(_by_layer, (slopes, through, f))
        # gradients of each step's pre-activations and read
        self.gz = torch.zeros_like(saved.activated)
        self.ga = x.new_zeros(steps, batch, 2 + width)
        self.gR = x.new_zeros(batch, steps, width)
        self.gz_at, self.ga_at = _by_layer(self.gz), self.ga.unbind()

    def run(self, running: list[int]) -> None:
        for t, n in reversed(list(enumerate(running))):
            g_push, g_pop = self._stack(t, n)
            self._cells(t, n, self._controls(t, n, g_push, g_pop))

    def _stack(self, t: int, n: int) -> tuple[Tensor, Tensor]:
        """The gradients of push and pop, [n] each."""
        s, saved = self.below + t, self.saved
        gE_t, gr_t = self.gE[:n, : s + 1], _first(self.gr, n)
        self.gR[:n, t] = gr_t
        g_alpha = torch.bmm(saved.values[:n, : s + 1], gr_t[:, :, None])[..., 0].to(self.gH.dtype)
        bottoms, height = saved.bottoms[:n, : s + 1], _first(saved.heights[t], n)
        g_tops, g_bottoms, g_floor = read_weights_backward(
            g_alpha, saved.alphas[:n, t, : s + 1], bottoms, height[:, None]
        )
        gE_t += g_tops
        self.gL[:n, : s + 1] += g_bottoms
        g_height = _first(self.gH, n) + g_floor.sum(1) + gE_t[:, s]
        cut, older = saved.drained[t, :n, :s], gE_t[:, :s]
        g_cut = (older * cut).sum(1)
        older.masked_fill_(cut, 0)
        g_push, g_pop, g_before = pop_then_push_backward(bottoms[:, s], g_height, self.gL[:n, s], g_cut)
        self.gH = _replace(self.gH, g_before)
        return g_push, g_pop

    def _controls(self, t: int, n: int, g_push: Tensor, g_pop: Tensor) -> Tensor:
        """The gradient of the top layer's hidden state, [n, H]."""
        s = self.below + t
        gv = torch.bmm(self.saved.alphas[:n, None, t:, s], self.gR[:n, t:])[:, 0]
        if self.g_values is not None:
            gv += self.g_values[s, :n]
        gates = torch.stack([g_push, g_pop], 1).to(gv.dtype)
        ga_t = torch.cat([gates, gv], 1) * _first(self.control_slopes_at[t], n)
        _first(self.ga_at[t], n).copy_(ga_t)
        above = torch.addmm(_first(self.gh[-1], n), ga_t, self.weights.control.T)
        if self.g_hidden is not None:
            above += self.g_hidden[t, :n]
        return above

    def _cells(self, t: int, n: int, above: Tensor) -> None:
        """From the top layer down."""
        for k in reversed(range(len(self.gh))):
            into_c = torch.addcmul(_first(self.gc[k], n), above, _first(self.through_at[k][t], n))
            gz_t = torch.cat([into_c, into_c, into_c, above], 1) * _first(self.slopes_at[k][t], n)
            _first(self.gz_at[k][t], n).copy_(gz_t)
            self.gc[k] = _replace(self.gc[k], into_c * _first(self.f_at[k][t], n))
            into = gz_t @ self.weights.recurrent[k].T
            split = into.shape[1] - self.gh[k].shape[1]
            self.gh[k] = _replace(self.gh[k], into[:, split:])
            if k:
                above = into[:, :split] + _first(self.gh[k - 1], n)
            else:
                self.gr = _replace(self.gr, into[:, :split])

    def gradients(self) -> tuple[Tensor, ...]:
        """Of all of the flat arguments: one matrix product for each weight."""
        saved, steps = self.saved, len(self.ga)

        def before(states: Tensor, first: Tensor) -> Tensor:
            """Each step's predecessor, [T, B, ...]."""
            return torch.cat([first[None], states[:-1]])[:steps]

        g_recurrent = []
        for k, gz in enumerate(self.gz):
            feed = before(saved.reads, self.initial.read) if k == 0 else saved.hidden[k - 1]
            source = torch.cat([feed, before(saved.hidden[k], self.initial.hidden[k])], 2)
            g_recurrent.append(source.flatten(0, 1).T @ gz.flatten(0, 1))
        g_biases = [gz.sum((0, 1)) for gz in self.gz[1:]]
        g_control = saved.hidden[-1].flatten(0, 1).T @ self.ga.flatten(0, 1)
        g_values = torch.bmm(saved.alphas[:, :, : self.below].transpose(1, 2), self.gR).transpose(0, 1)
        if self.g_values is not None:
            g_values = g_values + self.g_values[: self.below]
        return (
            *(torch.stack(self.gh), torch.stack(self.gc), self.gr, g_values),
            *(self.gL[:, : self.below].T, self.gE[:, : self.below].T, self.gH),
            *(g_control, self.ga.sum((0, 1)), *g_recurrent, *g_biases),
        )


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, lengths: Tensor, e: Stretches, noise: Tensor | None, *flat: Tensor
    ) -> tuple[Tensor, ...]:
        running = _running(lengths, x.shape[0])
        saving = any(ctx.needs_input_grad)
        loop = _Forward(x, running, e, noise, flat, saving)
        loop.run()
        if saving:
            ctx.save_for_backward(x, *flat, *loop.saved())
            ctx.running, ctx.e = running, e
        push, pop = loop.gates.unbind(2)
        ctx.mark_non_differentiable(push, pop)
        ctx.set_materialize_grads(False)
        return (loop.hidden[-1], push, pop, *loop.state())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        count = len(rest) - len(_Saved._fields)
        loop = _Backward(x, rest[:count], _Saved(*rest[count:]), ctx.e, grads)
        loop.run(ctx.running)
        noisy = ctx.needs_input_grad[3]
        return loop.gz[0], None, None, loop.ga[..., :2] if noisy else None, *loop.gradients()
