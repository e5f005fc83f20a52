"""The compiled LSTM with a stack, queue or deque as torch operators; recurrence.h says what it computes.

Letters: T steps, B rows, K layers of H units, V symbols; N elements at the start, E more a step (2 in a deque, else 1),
values of width M, and what is read of width R = E M.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackrev.kernels.cpu.calls import CHUNK_ROWS, MemoryGradientArrays, RecurrenceCall, RecurrenceGradientCall
from stackrev.kernels.cpu.memory import contiguous
from stackrev.kernels.cpu.operators import Operator, call, pointer, pointers
from stackrev.kernels.cpu.structures import LAYOUTS, Layout, arrays, kept


class Arguments(NamedTuple):
    """What goes in.

    Attributes:
        inputs: [T, B, 4H], or [V, 4H] if there are ids.
        ids: [T, B], or None.
        lengths: [B].
        noise: [T, B, 2E], or None.
        stretch: e of the stretched gates of the memory.
        cell_stretch: e of the LSTM's own gates.
        saving: Whether the derivative will be wanted.
        hidden0: [K, B, H], and so on for the state before the first step, in the order of `MemoryLSTMState`.
        cell0: [K, B, H].
        read0: [B, R].
        values0: [N, B, M].
        bottoms0: [N, B].
        tops0: [N, B].
        low0: [B]; None for a stack.
        high0: [B].
        control: [H, 2E + R].
        control_bias: [2E + R].
        recurrent: K matrices.
        biases: K - 1 vectors.
    """

    inputs: Tensor
    ids: Tensor | None
    lengths: Tensor
    noise: Tensor | None
    stretch: float
    cell_stretch: float
    saving: bool
    hidden0: Tensor
    cell0: Tensor
    read0: Tensor
    values0: Tensor
    bottoms0: Tensor
    tops0: Tensor
    low0: Tensor | None
    high0: Tensor
    control: Tensor
    control_bias: Tensor
    recurrent: Sequence[Tensor]
    biases: Sequence[Tensor]


class Results(NamedTuple):
    """The hidden states, push, pop, the final state, and what the derivative needs; shapes are in `_results`.

    A stack's `low` is empty.
    """

    top_hidden: Tensor
    push: Tensor
    pop: Tensor
    end_hidden: Tensor
    end_cell: Tensor
    end_read: Tensor
    values: Tensor
    bottoms: Tensor
    tops: Tensor
    low: Tensor
    high: Tensor
    levels: Tensor
    links: Tensor
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
    cell_stretch: float
    hidden0: Tensor
    cell0: Tensor
    read0: Tensor
    bottoms0: Tensor
    tops0: Tensor
    low0: Tensor | None
    high0: Tensor
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
    g_end_low: Tensor | None
    g_end_high: Tensor | None


class Gradients(NamedTuple):
    """Of the arguments, by kernel's groups; of the values [N + E T, B, M] the first N count. A stack's low has none."""

    g_inputs: Tensor
    g_noise: Tensor
    g_hidden0: Tensor
    g_cell0: Tensor
    g_read0: Tensor
    g_control: Tensor
    g_control_bias: Tensor
    g_values: Tensor
    g_bottoms0: Tensor
    g_tops0: Tensor
    g_low0: Tensor
    g_high0: Tensor
    g_first_recurrent: Tensor
    g_later_recurrent: Tensor
    g_biases: Tensor


def _results(layout: Layout, given: Arguments) -> Results:
    """Unfilled memory; what is saved is empty if the derivative will not be wanted."""
    steps, batch = (given.inputs if given.ids is None else given.ids).shape[:2]
    four_hidden = given.inputs.shape[-1]
    layers, _, hidden = given.hidden0.shape
    initial, _, width = given.values0.shape
    ends, read = layout.ends, given.read0.shape[1]
    elements = initial + ends * steps
    saved = steps if given.saving else 0
    numbers, heights = given.inputs.new_empty, given.bottoms0.new_empty
    strengths = (steps, batch) if ends == 1 else (steps, batch, ends)
    return Results(
        numbers(steps, batch, hidden),
        *(numbers(strengths), numbers(strengths)),
        *(numbers(layers, batch, hidden), numbers(layers, batch, hidden), numbers(batch, read)),
        *(numbers(elements, batch, width), heights(elements, batch), heights(elements, batch)),
        *(heights(0 if given.low0 is None else batch), heights(batch)),
        *kept(layout, initial, steps, given.high0),
        numbers(saved, batch, 2 * ends),
        *(numbers(layers, saved, batch, four_hidden), numbers(layers, saved, batch, hidden)),
        *(numbers(saved, batch, read + hidden), numbers(layers - 1, saved, batch, 2 * hidden)),
    )


def _gradients(layout: Layout, given: GradientArguments) -> Gradients:
    """Unfilled memory; the later layers' matrices are one tensor, and so are their biases."""
    steps, batch = (given.inputs if given.ids is None else given.ids).shape[:2]
    four_hidden = given.inputs.shape[-1]
    layers, _, hidden = given.hidden0.shape
    results = Results(*given.results)
    numbers, heights = given.inputs.new_empty, given.high0.new_empty
    return Gradients(
        *(numbers(given.inputs.shape), numbers(steps, batch, 2 * layout.ends)),
        *(numbers(given.hidden0.shape), numbers(given.cell0.shape), numbers(given.read0.shape)),
        *(numbers(given.control.shape), numbers(given.control.shape[1]), numbers(results.values.shape)),
        *(heights(given.bottoms0.shape), heights(given.tops0.shape)),
        *(heights(0 if given.low0 is None else batch), heights(batch)),
        *(numbers(given.recurrent[0].shape), numbers(layers - 1, 2 * hidden, four_hidden)),
        numbers(layers - 1, four_hidden),
    )


def _call(
    given: Arguments | GradientArguments, noise: Tensor | None, results: Results, *, saving: bool
) -> tuple[RecurrenceCall, list[Any]]:
    """The call's structure, and what must stay alive until it returns."""
    floats = given.inputs, noise, given.hidden0, given.cell0, given.read0
    initial = given.bottoms0, given.tops0, given.low0, given.high0
    whole, before = ([None if each is None else contiguous(each) for each in some] for some in (floats, initial))
    controls = contiguous(given.control), contiguous(given.control_bias)
    lengths = given.lengths.to(torch.int64).contiguous()
    ids = None if given.ids is None else given.ids.to(torch.int64).contiguous()
    matrices, biases = [*map(contiguous, given.recurrent)], [*map(contiguous, given.biases)]
    lists = pointers(matrices), pointers(biases), pointers([results.first_sources, *results.later_sources.unbind()])
    weights, later_biases, sources = (ctypes.addressof(array) for array in lists)
    steps, batch = (given.inputs if ids is None else ids).shape[:2]
    layers, _, hidden = given.hidden0.shape
    low = None if given.low0 is None else results.low
    ends = results.bottoms, results.tops, low, results.high
    memory = arrays(results.values, before, ends, (results.levels, results.links))
    arguments = RecurrenceCall(
        *(steps, batch, hidden, results.values.shape[2], layers, given.tops0.shape[0]),
        *(torch.get_num_threads(), saving, given.inputs.shape[0], given.stretch, given.cell_stretch),
        *(pointer(lengths), pointer(ids)),
        *(*map(pointer, whole), weights, later_biases, *map(pointer, controls)),
        *(*map(pointer, results[:6]), memory, *map(pointer, results[13:16]), sources),
    )
    return arguments, [whole, before, controls, lengths, ids, matrices, biases, lists]


def _forward(name: str, layout: Layout, *arguments: Any) -> Results:
    given = Arguments(*arguments)
    results = _results(layout, given)
    results.values[: given.values0.shape[0]] = given.values0
    whole, _kept = _call(given, given.noise, results, saving=given.saving)
    call(f"{name}_recurrence", given.inputs.dtype, whole)
    return results


def _backward(name: str, layout: Layout, *arguments: Any) -> Gradients:
    given = GradientArguments(*arguments)
    results = Results(*given.results)
    if results.squashed.shape[0] != results.top_hidden.shape[0]:
        raise RuntimeError("the recurrence was run without saving what its derivative needs")
    wanted = _gradients(layout, given)
    forward, _kept = _call(given, None, results, saving=True)
    known = [None if tensor is None else contiguous(tensor) for tensor in given[17:]]
    low0 = None if given.low0 is None else wanted.g_low0
    memory = *known[4:], wanted.g_values, wanted.g_bottoms0, wanted.g_tops0, low0, wanted.g_high0
    matrices = pointers([wanted.g_first_recurrent, *wanted.g_later_recurrent.unbind()])
    biases = pointers(wanted.g_biases.unbind())
    whole = RecurrenceGradientCall(
        forward,
        *(*map(pointer, known[:4]), *map(pointer, wanted[:7]), MemoryGradientArrays(*map(pointer, memory))),
        *(ctypes.addressof(matrices), ctypes.addressof(biases)),
    )
    call(f"{name}_recurrence_backward", given.inputs.dtype, whole)
    return wanted


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    given = Arguments(*inputs)
    ctx.stretch, ctx.cell_stretch = given.stretch, given.cell_stretch
    ctx.layers, ctx.noisy = len(given.recurrent), given.noise is not None
    ctx.save_for_backward(
        *(given.inputs, given.ids, given.lengths, given.hidden0, given.cell0, given.read0),
        *(given.bottoms0, given.tops0, given.low0, given.high0),
        *(given.control, given.control_bias, *given.recurrent, *given.biases, *output),
    )
    results = Results(*output)
    ctx.mark_non_differentiable(results.push, results.pop, *results[11:])
    ctx.set_materialize_grads(False)


def _arguments_gradients(
    ctx: Any, backward: Callable[..., tuple[Tensor, ...]], *grads: Tensor | None
) -> tuple[Any, ...]:
    inputs, ids, lengths, *rest = ctx.saved_tensors
    layers = ctx.layers
    state, lists = rest[:9], rest[9:]
    recurrent, biases, results = lists[:layers], lists[layers : 2 * layers - 1], lists[2 * layers - 1 :]
    call = inputs, ids, lengths, ctx.stretch, ctx.cell_stretch, *state, recurrent, biases, results
    found = Gradients(*backward(*call, grads[0], *grads[3:11]))
    initial = found.g_tops0.shape[0]
    return (
        *(found.g_inputs, None, None, found.g_noise if ctx.noisy else None, None, None, None),
        *(found.g_hidden0, found.g_cell0, found.g_read0, found.g_values[:initial], found.g_bottoms0, found.g_tops0),
        *(None if state[5] is None else found.g_low0, found.g_high0, found.g_control, found.g_control_bias),
        *([found.g_first_recurrent, *found.g_later_recurrent.unbind()], list(found.g_biases.unbind())),
    )


def _operator(name: str, layout: Layout) -> Operator:
    """Torch's `stackrev::NAME_recurrence`, of the library's functions of this name and with _backward."""
    return Operator(
        f"{name}_recurrence",
        arguments=Arguments,
        results=Results,
        gradient_arguments=GradientArguments,
        gradient_results=Gradients,
        forward=lambda *given: _forward(name, layout, *given),
        fake=lambda *given: _results(layout, Arguments(*given)),
        save=_save,
        backward=lambda *given: _backward(name, layout, *given),
        fake_backward=lambda *given: _gradients(layout, GradientArguments(*given)),
        gradients=_arguments_gradients,
    )


OPERATORS = {name: _operator(name, layout) for name, layout in LAYOUTS.items()}


def fits_a_table(inputs: Tensor, ids: Tensor) -> bool:
    """Whether the gradient of the table, which every chunk of rows sums, is no larger than that of its steps."""
    steps, batch = ids.shape
    return inputs.shape[0] <= steps * min(batch, CHUNK_ROWS)


def recurrence(
    name: str,
    inputs: Tensor,
    ids: Tensor | None,
    lengths: Tensor,
    noise: Tensor | None,
    stretch: float,
    cell_stretch: float,
    state: Sequence[Tensor],
    control: Tensor,
    control_bias: Tensor,
    recurrent: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The recurrence of structures/recurrence.py on a structure, with arguments that belong together.

    Args:
        name: "stack", "queue" or "deque".
        inputs: See `Arguments`, as for all others.
        ids: Likewise.
        lengths: Likewise.
        noise: Likewise.
        stretch: Likewise.
        cell_stretch: Likewise.
        state: `hidden0` to `high0`: seven tensors for a stack, which has no `low0`, and eight for the others.
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
    *most, high = state
    whole = *most, *([None] if len(most) < 7 else []), high
    floats = [each for each in (inputs, noise, *state, control, control_bias, *recurrent, *biases) if each is not None]
    # what stands for several tensors under a transform does not say whether it requires a gradient
    wanted = torch._C._are_functorch_transforms_active() or any(each.requires_grad for each in floats)
    saving = torch.is_grad_enabled() and wanted
    lists = list(recurrent), list(biases)
    given = inputs, ids, lengths, noise, stretch, cell_stretch, saving
    found = OPERATORS[name](*given, *whole, control, control_bias, *lists)
    return found[:11] if len(most) == 7 else (*found[:9], found[10])
