"""The recurrence of an LSTM on a stack, a queue or a deque (paper section 3.4, Figure 1c), as one pure function.

Glossary, for a batch of B rows, T steps, K layers of H units and a memory of width M with E ends (a deque has 2) that
holds N elements before the first step:

    x, inputs       [T, B, 4H]       what the symbols contribute to the first layer: W_x x_t + b, one row gather a step
    h, c            [K, B, H]        hidden and cell state of each layer
    r, read         [B, E M]         what the memory showed after the previous step; of a deque, top and bottom
    z               [B, 4H]          a layer's pre-activations: input, forget, cell and output gate, in torch's order
    a               [B, 2E + E M]    the controls' pre-activations: push and pop of each end, then the value of each
    d, u, v                          push and pop strength and the pushed value

One step::

    z   = x_t + [r_{t-1}; h_{t-1}] W_1      first layer; above, with h' the layer below's, b + [h'; h_{t-1}] W_k
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)       but see below
    c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
    a   = b_a + h_t W_a                     h_t of the top layer
    d   = gate(a_0 + noise_0),   u = gate(a_1 + noise_1),   v = tanh(a_2..)
    r_t, stack = stack_step(stack, v, d, u)       or queue_step, or deque_step
    gate(a) = clamp((1 + 2e) sigmoid(a) - e, 0, 1)

With a cell stretch e above 0, i, f and o are gates of this kind too, and g = clamp((1 + 2e) tanh(z_g), -1, 1). A cell
can then keep and count exactly: where f is 1 and i is 0 it stays as it is, to the last bit.

The columns of a deque's `a` are push and pop at the top, push and pop at the bottom, the values at the top and at the
bottom; noise is in the order of the gates.

The read feeds back, so this is sequential. What does not depend on it stays outside: the symbols' contribution is
gathered before, outputs and logits are matrix products after. In plain torch the stack's recurrence has a derivative
written by hand (plain_recurrence.py), and every weight gradient is one matrix product over all steps after the backward
loop; those of queue and deque are differentiated by autograd (stepwise.py). (In the compiled kernels a weight gradient
is one product whenever enough rows have come together.)

Derivatives at ties, for the stack: of a gate at 0 or 1, zero; of `max(L_i, H - 1)`, to H - 1 unless L_i is greater; of
the running `min(E, L_t)`, to E unless L_t is smaller. For queue and deque they are torch's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from stackrev.kernels import dispatch
from stackrev.structures import plain_recurrence, stepwise
from stackrev.structures.stretched import Stretches
from stackrev.structures.table import MemoryState, structure_of

S = TypeVar("S", bound=MemoryState)


class MemoryLSTMWeights(NamedTuple):
    """The weights inside the recurrence.

    Attributes:
        recurrent: One matrix a layer: [E M + H, 4H] for the first, whose rows are [r; h], and [2H, 4H] for those above,
            whose rows are [h of the layer below; h].
        biases: One [4H] for every layer above the first, whose own bias is in `inputs`.
        control: [H, 2E + E M], the columns push and pop of each end, then the values.
        control_bias: [2E + E M].
    """

    recurrent: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    control: Tensor
    control_bias: Tensor


class MemoryLSTMState(NamedTuple, Generic[S]):
    """The recurrence between two steps: an immutable value.

    Attributes:
        hidden: [K, B, H].
        cell: [K, B, H].
        read: [B, E M].
        memory: The stack, queue or deque; its elements are those of all earlier steps.
    """

    hidden: Tensor
    cell: Tensor
    read: Tensor
    memory: S


class MemoryLSTMOutput(NamedTuple, Generic[S]):
    """What the recurrence gives out.

    Attributes:
        hidden: [T, B, H], the top layer after each step; zero where a row has ended.
        push: [T, B], d, or [T, B, 2] of a deque, top and bottom; zero where a row has ended. Not differentiable: a
            gradient reaches it through `hidden` alone.
        pop: u; likewise.
        state: The state after each row's last step.
    """

    hidden: Tensor
    push: Tensor
    pop: Tensor
    state: MemoryLSTMState[S]


def memory_lstm(
    inputs: Tensor,
    lengths: Tensor,
    state: MemoryLSTMState[S],
    weights: MemoryLSTMWeights,
    *,
    stretch: float,
    cell_stretch: float = 0.0,
    noise: Tensor | None = None,
    ids: Tensor | None = None,
) -> MemoryLSTMOutput[S]:
    """Run an LSTM over a batch of sequences of different lengths, on the kind of memory that its state has.

    Args:
        inputs: [T, B, 4H], what the symbols contribute to the first layer's pre-activations, its bias included.
        lengths: [B] int64 on the CPU, how many steps each row takes, longest first.
        state: The state before the first step.
        weights: The weights inside the recurrence.
        stretch: e of the stretched gates of the memory; 0 is the paper's sigmoid.
        cell_stretch: e of the LSTM's own gates; 0 is the usual LSTM.
        noise: [T, B, 2E], added to the gates' pre-activations; none if None.
        ids: [T, B] int64, if steps share their inputs: `inputs` is then a table [V, 4H], of which step t of row b
            takes row ids[t, b].

    Returns:
        The top layer's hidden states, the gates and the final state.

    Raises:
        ValueError: A shape is wrong, lengths do not fall, or a stretch is not at least 0.
    """
    check_shapes(inputs, lengths, state, weights, noise, ids)
    _check_stretches(stretch, cell_stretch)
    structure = structure_of(state.memory)
    kernels = dispatch.kernels_for(
        [each for each in (inputs, *state[:3], state.memory.values, *_weights(weights), noise) if each is not None],
        heights=state.memory[1:],
        indices=[lengths] if ids is None else [lengths, ids],
    )
    if kernels is None:
        stretches = {"stretch": stretch, "cell_stretch": cell_stretch}
        return memory_lstm_torch(inputs, lengths, state, weights, **stretches, noise=noise, ids=ids)
    if ids is not None and not kernels.fits_a_table(inputs, ids):
        inputs, ids = _looked_up(inputs, ids, lengths), None
    flat = *state[:3], *state.memory
    controls = weights.control, weights.control_bias, weights.recurrent, weights.biases
    hidden, push, pop, *final = kernels.recurrence(
        structure.name, inputs, ids, lengths, noise, stretch, cell_stretch, flat, *controls
    )
    return MemoryLSTMOutput(hidden, push, pop, _state(final, state))


def _check_stretches(stretch: float, cell_stretch: float) -> None:
    if not (stretch >= 0 and cell_stretch >= 0):
        raise ValueError("a stretch is at least 0")


def _looked_up(table: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """The inputs [T, B, 4H] themselves; where no step is taken, whatever its id, those of id 0."""
    taken = torch.arange(ids.shape[0], device=lengths.device)[:, None] < lengths
    return torch.nn.functional.embedding(ids.where(taken.to(ids.device), 0), table)


def memory_lstm_torch(
    inputs: Tensor,
    lengths: Tensor,
    state: MemoryLSTMState[S],
    weights: MemoryLSTMWeights,
    *,
    stretch: float,
    cell_stretch: float = 0.0,
    noise: Tensor | None = None,
    ids: Tensor | None = None,
) -> MemoryLSTMOutput[S]:
    """`memory_lstm` in plain torch, on any device: what runs where the compiled kernels are not."""
    check_shapes(inputs, lengths, state, weights, noise, ids)
    check_lengths(lengths, (inputs if ids is None else ids).shape[0])
    _check_stretches(stretch, cell_stretch)
    if ids is not None:
        inputs = _looked_up(inputs, ids, lengths)
    structure, stretches = structure_of(state.memory), Stretches(stretch, cell_stretch)
    if structure.advance is None:
        flat = *state[:3], *state.memory, *_weights(weights)
        hidden, push, pop, final = plain_recurrence.recurrence(inputs, lengths, stretches, noise, *flat)
        return MemoryLSTMOutput(hidden, push, pop, _state(final, state))
    found = stepwise.recurrence(
        structure, inputs, lengths, stretches, noise, state[:3], state.memory, stepwise.Weights(*weights)
    )
    push, pop = (each[..., 0] if structure.ends == 1 else each for each in (found.push, found.pop))
    return MemoryLSTMOutput(found.hidden, push, pop, _state((*found.final, *found.memory), state))


def check_shapes(
    inputs: Tensor,
    lengths: Tensor,
    state: MemoryLSTMState[S],
    weights: MemoryLSTMWeights,
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
    memory, structure = state.memory, structure_of(state.memory)
    ends, width, elements = structure.ends, state.read.shape[1], memory.bottoms.shape[0]
    fields = dict(zip(memory._fields[3:], memory[3:], strict=True))
    expected = {
        "inputs": (inputs, (*((steps, batch) if ids is None else inputs.shape[:1]), 4 * size)),
        "hidden": (state.hidden, (layers, batch, size)),
        "cell": (state.cell, (layers, batch, size)),
        "read": (state.read, (batch, width)),
        f"{structure.name} values": (memory.values, (elements, batch, width // ends)),
        f"{structure.name} tops": (memory.tops, (elements, batch)),
        f"{structure.name} bottoms": (memory.bottoms, (elements, batch)),
        **{f"{structure.name} {name}": (each, (batch,)) for name, each in fields.items()},
        "control": (weights.control, (size, 2 * ends + width)),
        "control bias": (weights.control_bias, (2 * ends + width,)),
        "lengths": (lengths, (batch,)),
    }
    if noise is not None:
        expected["noise"] = (noise, (steps, batch, 2 * ends))
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


def _weights(weights: MemoryLSTMWeights) -> tuple[Tensor, ...]:
    return weights.control, weights.control_bias, *weights.recurrent, *weights.biases


def _state(flat: Sequence[Tensor], like: MemoryLSTMState[S]) -> MemoryLSTMState[S]:
    """The state whose tensors these are, with a memory of the kind that `like` has."""
    hidden, cell, read, *memory = flat
    return MemoryLSTMState(hidden, cell, read, type(like.memory)(*memory))
