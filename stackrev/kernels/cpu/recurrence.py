"""The compiled stack-LSTM as a torch operator. What it computes is in structures/recurrence.py and recurrence.h.

Letters: T steps, B rows, K layers of H units, stack width M, N elements on the stack at the start, V symbols.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackrev.kernels.cpu.calls import CHUNK_ROWS, RecurrenceCall, RecurrenceGradientCall
from stackrev.kernels.cpu.memory import contiguous
from stackrev.kernels.cpu.operators import Operator, call, pointer, pointers


class Arguments(NamedTuple):
    """What goes in.

    Attributes:
        inputs: [T, B, 4H], or [V, 4H] if there are ids.
        ids: [T, B], or None.
        lengths: [B].
        noise: [T, B, 2], or None.
        stretch: e of the stretched gate.
        saving: Whether the derivative will be wanted.
        hidden0: [K, B, H], and so on for the state before the first step, in the order of `MemoryLSTMState`.
        cell0: [K, B, H].
        read0: [B, M].
        values0: [N, B, M].
        bottoms0: [N, B].
        tops0: [N, B].
        height0: [B].
        control: [H, 2 + M].
        control_bias: [2 + M].
        recurrent: K matrices.
        biases: K - 1 vectors.
    """

    inputs: Tensor
    ids: Tensor | None
    lengths: Tensor
    noise: Tensor | None
    stretch: float
    saving: bool
    hidden0: Tensor
    cell0: Tensor
    read0: Tensor
    values0: Tensor
    bottoms0: Tensor
    tops0: Tensor
    height0: Tensor
    control: Tensor
    control_bias: Tensor
    recurrent: Sequence[Tensor]
    biases: Sequence[Tensor]


class Results(NamedTuple):
    """The hidden states, push, pop, the final state, and what the derivative needs; shapes are in `_results`."""

    top_hidden: Tensor
    push: Tensor
    pop: Tensor
    end_hidden: Tensor
    end_cell: Tensor
    end_read: Tensor
    values: Tensor
    bottoms: Tensor
    tops: Tensor
    height: Tensor
    below: Tensor
    squashed: Tensor
    activated: Tensor
    cells: Tensor
    first_sources: Tensor
    later_sources: Tensor


class GradientArguments(NamedTuple):
    """What the derivative needs of the arguments, the results, and the gradients of those that have one."""

    inputs: Tensor
    ids: Tensor | None
    lengths: Tensor
    stretch: float
    hidden0: Tensor
    cell0: Tensor
    read0: Tensor
    tops0: Tensor
    height0: Tensor
    control: Tensor
    control_bias: Tensor
    recurrent: Sequence[Tensor]
    biases: Sequence[Tensor]
    results: Sequence[Tensor]
    g_top_hidden: Tensor | None
    g_end_hidden: Tensor | None
    g_end_cell: Tensor | None
    g_end_read: Tensor | None
    g_end_values: Tensor | None
    g_end_bottoms: Tensor | None
    g_end_tops: Tensor | None
    g_end_height: Tensor | None


class Gradients(NamedTuple):
    """Of the arguments, in their order; of values and bottoms [N + T, ...] the first N count."""

    g_inputs: Tensor
    g_noise: Tensor
    g_hidden0: Tensor
    g_cell0: Tensor
    g_read0: Tensor
    g_values: Tensor
    g_bottoms: Tensor
    g_tops0: Tensor
    g_height0: Tensor
    g_control: Tensor
    g_control_bias: Tensor
    g_first_recurrent: Tensor
    g_later_recurrent: Tensor
    g_biases: Tensor


def _results(given: Arguments) -> Results:
    """Unfilled memory; what is saved is empty if the derivative will not be wanted."""
    steps, batch = (given.inputs if given.ids is None else given.ids).shape[:2]
    four_hidden = given.inputs.shape[-1]
    layers, _, hidden = given.hidden0.shape
    width, elements = given.read0.shape[1], given.bottoms0.shape[0] + steps
    kept = steps if given.saving else 0
    numbers, heights = given.inputs.new_empty, given.bottoms0.new_empty
    return Results(
        numbers(steps, batch, hidden),
        *(numbers(steps, batch), numbers(steps, batch)),
        *(numbers(layers, batch, hidden), numbers(layers, batch, hidden), numbers(batch, width)),
        *(numbers(elements, batch, width), heights(elements, batch), heights(elements, batch), heights(batch)),
        numbers(elements, batch, dtype=torch.int32),
        numbers(kept, batch, 2),
        *(numbers(layers, kept, batch, four_hidden), numbers(layers, kept, batch, hidden)),
        *(numbers(kept, batch, width + hidden), numbers(layers - 1, kept, batch, 2 * hidden)),
    )


def _gradients(given: GradientArguments) -> Gradients:
    """Unfilled memory; the later layers' matrices are one tensor, and so are their biases."""
    steps, batch = (given.inputs if given.ids is None else given.ids).shape[:2]
    four_hidden = given.inputs.shape[-1]
    layers, _, hidden = given.hidden0.shape
    results = Results(*given.results)
    numbers, heights = given.inputs.new_empty, given.height0.new_empty
    return Gradients(
        *(numbers(given.inputs.shape), numbers(steps, batch, 2)),
        *(numbers(given.hidden0.shape), numbers(given.cell0.shape), numbers(given.read0.shape)),
        *(numbers(results.values.shape), heights(results.bottoms.shape)),
        *(heights(given.tops0.shape), heights(given.height0.shape)),
        *(numbers(given.control.shape), numbers(given.control.shape[1])),
        *(numbers(given.recurrent[0].shape), numbers(layers - 1, 2 * hidden, four_hidden)),
        numbers(layers - 1, four_hidden),
    )


def _call(
    given: Arguments | GradientArguments, noise: Tensor | None, results: Results, *, saving: bool
) -> tuple[RecurrenceCall, list[Any]]:
    """The call's structure, and what must stay alive until it returns."""
    floats = given.inputs, noise, given.hidden0, given.cell0, given.read0, given.tops0, given.height0
    whole = [None if tensor is None else contiguous(tensor) for tensor in floats]
    controls = contiguous(given.control), contiguous(given.control_bias)
    lengths = given.lengths.to(torch.int64).contiguous()
    ids = None if given.ids is None else given.ids.to(torch.int64).contiguous()
    matrices, biases = [*map(contiguous, given.recurrent)], [*map(contiguous, given.biases)]
    lists = pointers(matrices), pointers(biases), pointers([results.first_sources, *results.later_sources.unbind()])
    weights, later_biases, sources = (ctypes.addressof(array) for array in lists)
    steps, batch = (given.inputs if ids is None else ids).shape[:2]
    layers, _, hidden = given.hidden0.shape
    arguments = RecurrenceCall(
        *(steps, batch, hidden, given.read0.shape[1], layers, given.tops0.shape[0]),
        *(torch.get_num_threads(), saving, given.inputs.shape[0], given.stretch, pointer(lengths), pointer(ids)),
        *(*map(pointer, whole), weights, later_biases, *map(pointer, controls)),
        *(*map(pointer, results[:14]), sources),
    )
    return arguments, [whole, controls, lengths, ids, matrices, biases, lists]


def _forward(*arguments: Any) -> Results:
    given = Arguments(*arguments)
    results = _results(given)
    initial = given.bottoms0.shape[0]
    results.values[:initial], results.bottoms[:initial] = given.values0, given.bottoms0
    whole, _kept = _call(given, given.noise, results, saving=given.saving)
    call("recurrence", given.inputs.dtype, whole)
    return results


def _backward(*arguments: Any) -> Gradients:
    given = GradientArguments(*arguments)
    wanted = _gradients(given)
    forward, _kept = _call(given, None, Results(*given.results), saving=True)
    gradients = [None if tensor is None else contiguous(tensor) for tensor in given[14:]]
    matrices = pointers([wanted.g_first_recurrent, *wanted.g_later_recurrent.unbind()])
    biases = pointers(wanted.g_biases.unbind())
    whole = RecurrenceGradientCall(
        forward,
        *(*map(pointer, gradients), *map(pointer, wanted[:11])),
        *(ctypes.addressof(matrices), ctypes.addressof(biases)),
    )
    call("recurrence_backward", given.inputs.dtype, whole)
    return wanted


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    given = Arguments(*inputs)
    ctx.stretch, ctx.layers, ctx.noisy = given.stretch, len(given.recurrent), given.noise is not None
    ctx.save_for_backward(
        *(given.inputs, given.ids, given.lengths, given.hidden0, given.cell0, given.read0, given.tops0, given.height0),
        *(given.control, given.control_bias, *given.recurrent, *given.biases, *output),
    )
    results = Results(*output)
    ctx.mark_non_differentiable(results.push, results.pop, *results[10:])
    ctx.set_materialize_grads(False)


def _arguments_gradients(
    ctx: Any, backward: Callable[..., tuple[Tensor, ...]], *grads: Tensor | None
) -> tuple[Any, ...]:
    inputs, ids, lengths, *rest = ctx.saved_tensors
    layers = ctx.layers
    state, lists = rest[:7], rest[7:]
    recurrent, biases, results = lists[:layers], lists[layers : 2 * layers - 1], lists[2 * layers - 1 :]
    call = inputs, ids, lengths, ctx.stretch, *state, recurrent, biases, results, grads[0], *grads[3:10]
    found = Gradients(*backward(*call))
    initial = found.g_tops0.shape[0]
    return (
        *(found.g_inputs, None, None, found.g_noise if ctx.noisy else None, None, None),
        *(found.g_hidden0, found.g_cell0, found.g_read0, found.g_values[:initial], found.g_bottoms[:initial]),
        *(found.g_tops0, found.g_height0, found.g_control, found.g_control_bias),
        *([found.g_first_recurrent, *found.g_later_recurrent.unbind()], list(found.g_biases.unbind())),
    )


OPERATOR = Operator(
    "recurrence",
    arguments=Arguments,
    results=Results,
    gradient_arguments=GradientArguments,
    gradient_results=Gradients,
    forward=_forward,
    fake=lambda *given: _results(Arguments(*given)),
    save=_save,
    backward=_backward,
    fake_backward=lambda *given: _gradients(GradientArguments(*given)),
    gradients=_arguments_gradients,
)


def fits_a_table(inputs: Tensor, ids: Tensor) -> bool:
    """Whether the gradient of the table, which every chunk of rows sums, is no larger than that of its steps."""
    steps, batch = ids.shape
    return inputs.shape[0] <= steps * min(batch, CHUNK_ROWS)


def recurrence(
    inputs: Tensor,
    ids: Tensor | None,
    lengths: Tensor,
    noise: Tensor | None,
    stretch: float,
    state: Sequence[Tensor],
    control: Tensor,
    control_bias: Tensor,
    recurrent: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The recurrence of structures/recurrence.py, on arguments that belong together; `Arguments` has their shapes.

    Args:
        inputs: See `Arguments`, as for all others.
        ids: Likewise.
        lengths: Likewise.
        noise: Likewise.
        stretch: Likewise.
        state: `hidden0` to `height0`, seven tensors.
        control: Likewise.
        control_bias: Likewise.
        recurrent: Likewise.
        biases: Likewise.

    Returns:
        The hidden states, push, pop, and the final state in the order of the initial one.

    Raises:
        ValueError: The lengths are not sorted.
        IndexError: An id is not one of the V.
    """
    floats = inputs, noise, *state, control, control_bias, *recurrent, *biases
    saving = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in floats)
    weights = control, control_bias, list(recurrent), list(biases)
    return OPERATOR(inputs, ids, lengths, noise, stretch, saving, *state, *weights)[:10]
