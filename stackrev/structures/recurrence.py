"""The stack-LSTM recurrence (paper section 3.4, Figure 1c) as one pure function, with a hand-written backward.

Glossary, for a batch of B rows, T steps, K layers of H units and a stack of width M that starts N elements high:

    x, inputs       [T, B, 4H]    what the symbols contribute to the first layer: W_x x_t + b, one row gather a step
    h, c            [K, B, H]     hidden and cell state of each layer
    r, read         [B, M]        what the stack showed after the previous step
    z               [B, 4H]       a layer's pre-activations: input, forget, cell and output gate, in torch's order
    a               [B, 2 + M]    the controls' pre-activations: push, pop and value
    d, u, v                       push and pop strength and the pushed value
    L, E, H                       bottoms, tops and height of the stack, as in `stack.py`

One step::

    z   = x_t + [r_{t-1}; h_{t-1}] W_1      first layer; above, with h' the layer below's, b + [h'; h_{t-1}] W_k
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)
    c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
    a   = b_a + h_t W_a                     h_t of the top layer
    d   = gate(a_0 + noise_0),   u = gate(a_1 + noise_1),   v = tanh(a_2..)
    r_t, stack = stack_step(stack, v, d, u)
    gate(a) = clamp((1 + 2e) sigmoid(a) - e, 0, 1)

The read feeds back, so this is sequential. What does not depend on it stays outside: the symbols' contribution is
gathered before, outputs and logits are matrix products after, and in plain torch every weight gradient is one matrix
product over all steps after the backward loop. (In the compiled kernels it is one whenever enough rows
have come together.)

Derivatives at ties: of a gate at 0 or 1, zero; of `max(L_i, H - 1)`, to H - 1 unless L_i is greater; of the running
`min(E, L_t)`, to E unless L_t is smaller.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackrev.kernels.cpu import ops
from stackrev.structures.stack import StackState


class StackLSTMWeights(NamedTuple):
    """The weights inside the recurrence.

    Attributes:
        recurrent: One matrix a layer: [M + H, 4H] for the first, whose rows are [r; h], and [2H, 4H] for those above,
            whose rows are [h of the layer below; h].
        biases: One [4H] for every layer above the first, whose own bias is in `inputs`.
        control: [H, 2 + M], the columns push, pop, value.
        control_bias: [2 + M].
    """

    recurrent: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    control: Tensor
    control_bias: Tensor


class StackLSTMState(NamedTuple):
    """The recurrence between two steps: an immutable value.

    Attributes:
        hidden: [K, B, H].
        cell: [K, B, H].
        read: [B, M].
        stack: The stack; its elements are those of all earlier steps.
    """

    hidden: Tensor
    cell: Tensor
    read: Tensor
    stack: StackState


class StackLSTMOutput(NamedTuple):
    """What the recurrence gives out.

    Attributes:
        hidden: [T, B, H], the top layer after each step; zero where a row has ended.
        push: [T, B], d; zero where a row has ended. Not differentiable: a gradient reaches it through `hidden` alone.
        pop: [T, B], u; likewise.
        state: The state after each row's last step.
    """

    hidden: Tensor
    push: Tensor
    pop: Tensor
    state: StackLSTMState


def stack_lstm(
    inputs: Tensor,
    lengths: Tensor,
    state: StackLSTMState,
    weights: StackLSTMWeights,
    *,
    stretch: float,
    noise: Tensor | None = None,
    ids: Tensor | None = None,
) -> StackLSTMOutput:
    """Run the stack-LSTM over a batch of sequences of different lengths.

    Args:
        inputs: [T, B, 4H], what the symbols contribute to the first layer's pre-activations, its bias included.
        lengths: [B] int64 on the CPU, how many steps each row takes, longest first.
        state: The state before the first step.
        weights: The weights inside the recurrence.
        stretch: e of the stretched gate; 0 is the paper's sigmoid.
        noise: [T, B, 2], added to the push and pop gates' pre-activations; none if None.
        ids: [T, B] int64, if steps share their inputs: `inputs` is then a table [V, 4H], of which step t of row b
            takes row ids[t, b].

    Returns:
        The top layer's hidden states, the gates and the final state.
    """
    check_shapes(inputs, lengths, state, weights, noise, ids)
    if ids is not None and not ops.fits_a_table(inputs, ids):
        inputs, ids = _looked_up(inputs, ids, lengths), None
    flat = _flatten(state, weights)
    values, numbers = (inputs, *flat[:4], *flat[7:], noise), (lengths, ids)
    if ops.usable(_there(values), state.stack[1:], _there(numbers)):
        hidden, push, pop, *final = ops.recurrence(inputs, ids, lengths, noise, stretch, flat)
        return StackLSTMOutput(hidden, push, pop, _state(final))
    return stack_lstm_torch(inputs, lengths, state, weights, stretch=stretch, noise=noise, ids=ids)


def _looked_up(table: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """The inputs [T, B, 4H] themselves; where no step is taken, whatever its id, those of id 0."""
    taken = torch.arange(ids.shape[0], device=lengths.device)[:, None] < lengths
    return torch.nn.functional.embedding(ids.where(taken.to(ids.device), 0), table)


def _there(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


def stack_lstm_torch(
    inputs: Tensor,
    lengths: Tensor,
    state: StackLSTMState,
    weights: StackLSTMWeights,
    *,
    stretch: float,
    noise: Tensor | None = None,
    ids: Tensor | None = None,
) -> StackLSTMOutput:
    """`stack_lstm` in plain torch, on any device: what runs where the compiled kernels are not."""
    check_shapes(inputs, lengths, state, weights, noise, ids)
    check_lengths(lengths, (inputs if ids is None else ids).shape[0])
    if ids is not None:
        inputs = _looked_up(inputs, ids, lengths)
    flat = _StackLSTM.apply(inputs, lengths, stretch, noise, *_flatten(state, weights))  # type: ignore[no-untyped-call]
    hidden, push, pop, *final = flat
    return StackLSTMOutput(hidden, push, pop, _state(final))


def check_shapes(
    inputs: Tensor,
    lengths: Tensor,
    state: StackLSTMState,
    weights: StackLSTMWeights,
    noise: Tensor | None,
    ids: Tensor | None = None,
) -> None:
    """Refuse arguments whose shapes do not belong together.

    Raises:
        ValueError: A shape is wrong.
    """
    if ids is not None and (ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool):
        raise ValueError(f"ids are {ids.dtype} in {ids.dim()} dimensions, not integers in 2")
    steps, batch = (inputs if ids is None else ids).shape[:2]
    layers, _, size = state.hidden.shape
    width = state.read.shape[1]
    expected = {
        "inputs": (inputs, (*((steps, batch) if ids is None else inputs.shape[:1]), 4 * size)),
        "hidden": (state.hidden, (layers, batch, size)),
        "cell": (state.cell, (layers, batch, size)),
        "read": (state.read, (batch, width)),
        "stack values": (state.stack.values, (state.stack.bottoms.shape[0], batch, width)),
        "stack tops": (state.stack.tops, (state.stack.bottoms.shape[0], batch)),
        "stack bottoms": (state.stack.bottoms, (state.stack.bottoms.shape[0], batch)),
        "stack height": (state.stack.height, (batch,)),
        "control": (weights.control, (size, 2 + width)),
        "control bias": (weights.control_bias, (2 + width,)),
        "lengths": (lengths, (batch,)),
    }
    if noise is not None:
        expected["noise"] = (noise, (steps, batch, 2))
    for layer, matrix in enumerate(weights.recurrent):
        expected[f"recurrent {layer}"] = (matrix, ((width if layer == 0 else size) + size, 4 * size))
    for layer, bias in enumerate(weights.biases, start=1):
        expected[f"bias {layer}"] = (bias, (4 * size,))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has the shape {list(tensor.shape)}, not {list(shape)}")
    if len(weights.recurrent) != layers or len(weights.biases) != layers - 1:
        raise ValueError(f"{layers} layers need {layers} recurrent matrices and {layers - 1} biases")


def check_lengths(lengths: Tensor, steps: int) -> None:
    """Refuse lengths that are out of range or not sorted.

    Raises:
        ValueError: They are.
    """
    counts = lengths.tolist()
    if counts != sorted(counts, reverse=True) or (counts and not 0 <= counts[-1] <= counts[0] <= steps):
        raise ValueError("lengths must fall from at most T to at least 0")


def _flatten(state: StackLSTMState, weights: StackLSTMWeights) -> tuple[Tensor, ...]:
    return (
        *(state.hidden, state.cell, state.read, *state.stack),
        *(weights.control, weights.control_bias, *weights.recurrent, *weights.biases),
    )


def _state(flat: list[Tensor] | tuple[Tensor, ...]) -> StackLSTMState:
    hidden, cell, read, values, bottoms, tops, height = flat
    return StackLSTMState(hidden, cell, read, StackState(values, bottoms, tops, height))


def _active(lengths: Tensor, steps: int) -> list[int]:
    """How many rows are still running at each step: since rows are sorted, they are the first so many."""
    return (lengths[None, :] > torch.arange(steps)[:, None]).sum(1).tolist()


def _by_layer(buffer: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of each layer's steps, so that the loop need not index: [layer][step] of [K, T, B, ...]."""
    return [layer.unbind() for layer in buffer.unbind()]


def _first(rows: Tensor, count: int) -> Tensor:
    """The rows that are still running."""
    return rows if count == rows.shape[0] else rows[:count]


def _replace(rows: Tensor, first: Tensor) -> Tensor:
    """Rows of which the first have moved on, and the others keep their state."""
    return first if first.shape == rows.shape else torch.cat([first, rows[first.shape[0] :]])


class _StackLSTM(torch.autograd.Function):
    """The recurrence and its derivative. Inside, batch comes first in the stack, so that a read is one `bmm`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        lengths: Tensor,
        e: float,
        noise: Tensor | None,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        layers = flat[0].shape[0]
        initial = _state(flat[:7])
        control, control_bias = flat[7:9]
        recurrent, biases = flat[9 : 9 + layers], flat[9 + layers :]
        (steps, batch, _), size, width = x.shape, initial.hidden.shape[2], initial.read.shape[1]
        below = initial.stack.bottoms.shape[0]  # elements on the stack before the first step
        total = below + steps
        active = _active(lengths, steps)
        saving = any(ctx.needs_input_grad)

        # what the loop updates; a row that has ended keeps its state
        h = list(initial.hidden.clone())
        c = list(initial.cell.clone())
        r = initial.read.clone()
        height = initial.stack.height.clone()
        heights = []
        bottoms, tops = height.new_empty(batch, total), height.new_empty(batch, total)
        bottoms[:, :below], tops[:, :below] = initial.stack.bottoms.T, initial.stack.tops.T
        values = x.new_zeros(batch, total, width)
        values[:, :below] = initial.stack.values.transpose(0, 1)
        # what the loop leaves behind
        hidden = x.new_zeros(layers, steps, batch, size)
        squashed = x.new_zeros(steps, batch, 2)  # sigmoid of the gates' pre-activations
        gates = x.new_zeros(steps, batch, 2)
        if saving:
            cells = x.new_zeros(layers, steps, batch, size)
            activated = x.new_zeros(layers, steps, batch, 4 * size)
            reads = x.new_zeros(steps, batch, width)
            alphas = x.new_zeros(batch, steps, total)
            drained = torch.zeros(steps, batch, total, dtype=torch.bool, device=x.device)

        xs, squashed_at, gates_at = x.unbind(), squashed.unbind(), gates.unbind()
        hidden_at = _by_layer(hidden)
        if saving:
            activated_at, cells_at, reads_at = _by_layer(activated), _by_layer(cells), reads.unbind()
        for t, n in enumerate(active):
            s = below + t  # this step's place on the stack
            below_h = _first(r, n)  # what feeds a layer from below, [n, M] or [n, H]
            for k in range(layers):
                bias = biases[k - 1] if k else _first(xs[t], n)
                z = torch.addmm(bias, torch.cat([below_h, _first(h[k], n)], 1), recurrent[k])
                z_i, z_f, z_g, z_o = z.chunk(4, 1)
                i, f, g, o = z_i.sigmoid_(), z_f.sigmoid_(), z_g.tanh_(), z_o.sigmoid_()  # in place: z is now activated
                c_t = torch.addcmul(f * _first(c[k], n), i, g)
                below_h = o * c_t.tanh()
                c[k], h[k] = _replace(c[k], c_t), _replace(h[k], below_h)
                _first(hidden_at[k][t], n).copy_(below_h)
                if saving:
                    _first(activated_at[k][t], n).copy_(z)
                    _first(cells_at[k][t], n).copy_(c_t)

            a = torch.addmm(control_bias, below_h, control)
            squash = a[:, :2].sigmoid() if noise is None else (a[:, :2] + noise[t, :n]).sigmoid_()
            du = ((1 + 2 * e) * squash - e).clamp_(0, 1)
            _first(squashed_at[t], n).copy_(squash)
            _first(gates_at[t], n).copy_(du)
            values[:n, s] = a[:, 2:].tanh()
            d, u = du.to(height.dtype).unbind(1)

            L = (_first(height, n) - u).clamp_(min=0)
            older = tops[:n, :s]
            if saving:
                torch.lt(L[:, None], older, out=drained[t, :n, :s])
            torch.minimum(older, L[:, None], out=older)
            H = L + d
            height = _replace(height, H)
            bottoms[:, s] = tops[:, s] = height  # rows that have ended push nothing
            bottoms[:n, s] = L
            heights.append(height)
            floor = torch.maximum(bottoms[:n, : s + 1], H[:, None] - 1)
            alpha = (tops[:n, : s + 1] - floor).clamp_(min=0).to(x.dtype)
            r_t = torch.bmm(alpha[:, None], values[:n, : s + 1])[:, 0]
            r = _replace(r, r_t)
            if saving:
                alphas[:n, t, : s + 1] = alpha
                _first(reads_at[t], n).copy_(r_t)

        if saving:
            all_heights = torch.stack(heights) if heights else height.new_empty(0, batch)
            ctx.save_for_backward(
                *(x, *flat, hidden, cells, activated, squashed, gates, reads),
                *(alphas, drained, bottoms, all_heights, values),
            )
            ctx.active, ctx.e, ctx.layers = active, e, layers
        push, pop = gates.unbind(2)
        ctx.mark_non_differentiable(push, pop)
        ctx.set_materialize_grads(False)
        final = (torch.stack(h), torch.stack(c), r, values.transpose(0, 1), bottoms.T, tops.T, height)
        return (hidden[-1], push, pop, *final)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        *flat, hidden, cells, activated, squashed, gates, reads, alphas, drained, bottoms, heights, values = rest
        layers, e = ctx.layers, ctx.e
        initial = _state(flat[:7])
        control, recurrent = flat[7], flat[9 : 9 + layers]
        (steps, batch, _), width = x.shape, initial.read.shape[1]
        below = initial.stack.bottoms.shape[0]
        g_hidden, _, _, g_h_end, g_c_end, g_r_end, g_values, g_bottoms, g_tops, g_height = grads

        def carried(gradient: Tensor | None, like: Tensor) -> Tensor:
            return torch.zeros_like(like) if gradient is None else gradient.clone()

        # gradients of the state after step t, while t falls
        gh = list(carried(g_h_end, initial.hidden))
        gc = list(carried(g_c_end, initial.cell))
        gr = carried(g_r_end, initial.read)
        gH = carried(g_height, initial.stack.height)
        gL = torch.zeros_like(bottoms) if g_bottoms is None else g_bottoms.T.clone()
        gE = torch.zeros_like(bottoms) if g_tops is None else g_tops.T.clone()
        # what each step's gradients are multiplied by, for all steps at once
        i, f, g, o = activated.chunk(4, -1)
        squash = cells.tanh()
        last = torch.cat([initial.cell[:, None], cells[:, :-1]], 1)[:, :steps]
        through = o * (1 - squash * squash)  # dh / dc
        slopes = torch.cat([g * i * (1 - i), last * f * (1 - f), i * (1 - g * g), squash * o * (1 - o)], -1)
        open_gates = (gates > 0) & (gates < 1)
        v = values[:, below:].transpose(0, 1)
        control_slopes = torch.cat([(1 + 2 * e) * squashed * (1 - squashed) * open_gates, 1 - v * v], -1)
        # gradients of each step's pre-activations and read
        gz = torch.zeros_like(activated)
        ga = x.new_zeros(steps, batch, 2 + width)
        gR = x.new_zeros(batch, steps, width)

        ga_at, control_slopes_at = ga.unbind(), control_slopes.unbind()
        gz_at, slopes_at, through_at, f_at = map(_by_layer, (gz, slopes, through, f))
        for t in reversed(range(steps)):
            n, s = ctx.active[t], below + t
            L, H = bottoms[:n, : s + 1], _first(heights[t], n)
            gE_t, gr_t = gE[:n, : s + 1], _first(gr, n)
            # the read
            gR[:n, t] = gr_t
            g_alpha = torch.bmm(values[:n, : s + 1], gr_t[:, :, None])[..., 0]
            g_alpha = g_alpha.masked_fill_(alphas[:n, t, : s + 1] <= 0, 0).to(gH.dtype)
            g_bottom = g_alpha * (L > H[:, None] - 1)  # of elements whose floor is their own bottom
            gE_t += g_alpha
            gL[:n, : s + 1] -= g_bottom
            # the push, the pop
            gd = _first(gH, n) - (g_alpha - g_bottom).sum(1) + gE_t[:, s]
            cut, older = drained[t, :n, :s], gE_t[:, :s]
            gl = gd + gL[:n, s] + (older * cut).sum(1)
            older.masked_fill_(cut, 0)
            gH_t = gl * (L[:, s] > 0)
            gH = _replace(gH, gH_t)
            gv = torch.bmm(alphas[:n, None, t:, s], gR[:n, t:])[:, 0]
            if g_values is not None:
                gv += g_values[s, :n]
            # the controls
            ga_t = torch.cat([torch.stack([gd, -gH_t], 1).to(x.dtype), gv], 1) * _first(control_slopes_at[t], n)
            _first(ga_at[t], n).copy_(ga_t)
            # the cells, from the top down
            above = torch.addmm(_first(gh[-1], n), ga_t, control.T)
            if g_hidden is not None:
                above += g_hidden[t, :n]
            for k in reversed(range(layers)):
                into_c = torch.addcmul(_first(gc[k], n), above, _first(through_at[k][t], n))
                gz_t = torch.cat([into_c, into_c, into_c, above], 1) * _first(slopes_at[k][t], n)
                _first(gz_at[k][t], n).copy_(gz_t)
                gc[k] = _replace(gc[k], into_c * _first(f_at[k][t], n))
                into = gz_t @ recurrent[k].T
                split = into.shape[1] - gh[k].shape[1]
                gh[k] = _replace(gh[k], into[:, split:])
                if k:
                    above = into[:, :split] + _first(gh[k - 1], n)
                else:
                    gr = _replace(gr, into[:, :split])

        def before(states: Tensor, first: Tensor) -> Tensor:
            """Each step's predecessor, [T, B, ...]."""
            return torch.cat([first[None], states[:-1]])[:steps]

        g_recurrent = []
        for k in range(layers):
            feed = before(reads, initial.read) if k == 0 else hidden[k - 1]
            source = torch.cat([feed, before(hidden[k], initial.hidden[k])], 2)
            g_recurrent.append(source.flatten(0, 1).T @ gz[k].flatten(0, 1))
        g_biases = [gz[k].sum((0, 1)) for k in range(1, layers)]
        g_control = hidden[-1].flatten(0, 1).T @ ga.flatten(0, 1)
        g_initial_values = torch.bmm(alphas[:, :, :below].transpose(1, 2), gR).transpose(0, 1)
        if g_values is not None:
            g_initial_values = g_initial_values + g_values[:below]
        g_stack = (g_initial_values, gL[:, :below].T, gE[:, :below].T, gH)
        return (
            *(gz[0], None, None, ga[..., :2] if ctx.needs_input_grad[3] else None),
            *(torch.stack(gh), torch.stack(gc), gr, *g_stack),
            *(g_control, ga.sum((0, 1)), *g_recurrent, *g_biases),
        )
