"""The compiled kernels as torch operators: under autograd, `torch.no_grad`, `torch.compile` and `gradcheck`.

What they compute is in `stack.py`, `recurrence.py` and `readout.py`, which call this when `usable` says so. The first
two are operators, opaque to torch: a forward that returns what its derivative needs beside its results, and a backward
that is an operator too. Outside `torch.compile` the same functions run as autograd functions, without the way through
torch's dispatcher, which costs as much as a few dozen steps. Derivatives of derivatives are not there; numbers too
small to be normal count as zero.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stackrev.kernels.cpu import memory
from stackrev.kernels.cpu.library import NATIVE


def _borrow_threads(library: ctypes.CDLL) -> bool:
    """Let the kernels run on torch's own OpenMP threads, if it has such; these hold their cores while they wait."""
    suffix = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    path = Path(torch.__file__).with_name("lib") / f"libtorch_cpu.{suffix}"
    try:
        # looked up among what torch has loaded: no second runtime comes in
        lender = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD).GOMP_parallel
    except (OSError, AttributeError):
        return False
    library.stackrev_borrow_threads(lender)
    if hasattr(os, "register_at_fork"):  # the runtime's threads do not survive a fork, and it would wait for them
        os.register_at_fork(after_in_child=lambda: library.stackrev_borrow_threads(None))
    return True


if NATIVE.library is not None:
    _borrow_threads(NATIVE.library)


_Backward = Callable[..., tuple[Tensor | None, ...]]


def _differentiable_once(backward: _Backward) -> _Backward:
    """A function's `backward` whose results, if someone means to differentiate them, raise an error when they do.

    Torch's `once_differentiable` lets them pass for constants of what the function was given.
    """

    def once(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with torch.no_grad():
            results = backward(ctx, *grads)
        if not again:
            return results
        refused: tuple[Tensor | None, ...] = _Refused.apply(len(results), *results, *ctx.saved_tensors, *grads)  # type: ignore[no-untyped-call]
        return refused

    return once


class _Refused(torch.autograd.Function):
    """The first of its arguments, as if they had come of all the others by something that has no derivative."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if tensor is None else tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise RuntimeError("stackrev's compiled kernels have no second derivative")


_KINDS = {torch.float32: "float", torch.float64: "double"}
_NO_MEMORY, _WRONG_LENGTHS, _UNKNOWN_SYMBOL = 1, 2, 3


def usable(values: Sequence[Tensor], heights: Sequence[Tensor], numbers: Sequence[Tensor] = ()) -> bool:
    """Whether the kernels can take these tensors: all on the CPU, values not empty and of one type, heights float64."""
    kind = values[0].dtype
    return (
        NATIVE.library is not None
        and not _transformed()
        and kind in _KINDS
        and values[0].numel() > 0
        and all(tensor.dtype == kind and tensor.device.type == "cpu" for tensor in values)
        and all(tensor.dtype == torch.float64 and tensor.device.type == "cpu" for tensor in heights)
        and all(tensor.device.type == "cpu" for tensor in numbers)
    )


_CHUNK_ROWS = 48  # `kChunkRows` in recurrence.h


def fits_a_table(inputs: Tensor, ids: Tensor) -> bool:
    """Whether the gradient of the table, which every chunk of rows sums, is no larger than that of its steps."""
    steps, batch = ids.shape
    return inputs.shape[0] <= steps * min(batch, _CHUNK_ROWS)


def _transformed() -> bool:
    """Whether `torch.func` differentiates, which goes past the operators' own derivatives; `vmap` alone does not."""
    if not torch._C._are_functorch_transforms_active():
        return False
    functorch: Any = torch._C._functorch
    return any(each.key() != functorch.TransformType.Vmap for each in functorch.get_interpreter_stack())


def _call(function: str, kind: torch.dtype, call: ctypes.Structure) -> None:
    status = getattr(NATIVE.library, f"stackrev_{function}_{_KINDS[kind]}")(ctypes.byref(call))
    if status == _WRONG_LENGTHS:
        raise ValueError("lengths must fall from at most T to at least 0")
    if status == _UNKNOWN_SYMBOL:
        raise IndexError("there is no such symbol")
    if status == _NO_MEMORY:
        raise MemoryError("the compiled kernels ran out of memory")


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


# --- The stack-LSTM


class _RecurrenceCall(ctypes.Structure):
    """`RecurrenceCall` in recurrence.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "batch", "hidden", "width", "layers", "initial")),
        *((name, ctypes.c_int64) for name in ("threads", "saving", "symbols")),
        ("stretch", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("lengths", "ids")),
        *((name, ctypes.c_void_p) for name in ("inputs", "noise", "hidden0", "cell0", "read0", "tops0", "height0")),
        *((name, ctypes.c_void_p) for name in ("recurrent", "biases", "control", "control_bias")),
        *((name, ctypes.c_void_p) for name in ("top_hidden", "push", "pop", "end_hidden", "end_cell", "end_read")),
        *((name, ctypes.c_void_p) for name in ("values", "bottoms", "tops", "height")),
        *((name, ctypes.c_void_p) for name in ("below", "squashed", "activated", "cells", "sources")),
    )


class _RecurrenceGradientCall(ctypes.Structure):
    """`RecurrenceGradientCall` in recurrence.h."""

    _fields_ = (
        ("forward", _RecurrenceCall),
        *((name, ctypes.c_void_p) for name in ("g_top_hidden", "g_end_hidden", "g_end_cell", "g_end_read")),
        *((name, ctypes.c_void_p) for name in ("g_end_values", "g_end_bottoms", "g_end_tops", "g_end_height")),
        *((name, ctypes.c_void_p) for name in ("g_inputs", "g_noise", "g_hidden0", "g_cell0", "g_read0", "g_values")),
        *((name, ctypes.c_void_p) for name in ("g_bottoms", "g_tops0", "g_height0", "g_control", "g_control_bias")),
        *((name, ctypes.c_void_p) for name in ("g_recurrent", "g_biases")),
    )


def _recurrence_outputs(
    inputs: Tensor, ids: Tensor | None, hidden0: Tensor, read0: Tensor, bottoms0: Tensor, saving: bool
) -> tuple[Tensor, ...]:
    """Unfilled memory for what the operator returns, in its order."""
    steps, batch = (inputs if ids is None else ids).shape[:2]
    four_hidden = inputs.shape[-1]
    layers, _, hidden = hidden0.shape
    width, initial = read0.shape[1], bottoms0.shape[0]
    kept = steps if saving else 0
    heights = bottoms0.new_empty
    return (
        inputs.new_empty(steps, batch, hidden),
        *(inputs.new_empty(steps, batch), inputs.new_empty(steps, batch)),
        *(inputs.new_empty(layers, batch, hidden), inputs.new_empty(layers, batch, hidden)),
        *(inputs.new_empty(batch, width), inputs.new_empty(initial + steps, batch, width)),
        *(heights(initial + steps, batch), heights(initial + steps, batch), heights(batch)),
        inputs.new_empty(initial + steps, batch, dtype=torch.int32),
        inputs.new_empty(kept, batch, 2),
        inputs.new_empty(layers, kept, batch, four_hidden),
        inputs.new_empty(layers, kept, batch, hidden),
        inputs.new_empty(kept, batch, width + hidden),
        inputs.new_empty(layers - 1, kept, batch, 2 * hidden),
    )


def _recurrence(
    inputs: Tensor,
    ids: Tensor | None,
    lengths: Tensor,
    noise: Tensor | None,
    stretch: float,
    saving: bool,
    hidden0: Tensor,
    cell0: Tensor,
    read0: Tensor,
    values0: Tensor,
    bottoms0: Tensor,
    tops0: Tensor,
    height0: Tensor,
    control: Tensor,
    control_bias: Tensor,
    recurrent: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
]:  # fmt: skip
    """The hidden states, push, pop, the final state, and what the derivative needs; see `_recurrence_outputs`."""
    outputs = _recurrence_outputs(inputs, ids, hidden0, read0, bottoms0, saving)
    initial = bottoms0.shape[0]
    outputs[6][:initial], outputs[7][:initial] = values0, bottoms0
    arguments = inputs, ids, lengths, noise, stretch, hidden0, cell0, read0, tops0, height0, control, control_bias
    call, _kept = _recurrence_call(*arguments, recurrent, biases, outputs, saving)
    _call("recurrence", inputs.dtype, call)
    return outputs  # type: ignore[return-value]


def _recurrence_call(
    inputs: Tensor,
    ids: Tensor | None,
    lengths: Tensor,
    noise: Tensor | None,
    stretch: float,
    hidden0: Tensor,
    cell0: Tensor,
    read0: Tensor,
    tops0: Tensor,
    height0: Tensor,
    control: Tensor,
    control_bias: Tensor,
    recurrent: Sequence[Tensor],
    biases: Sequence[Tensor],
    outputs: Sequence[Tensor],
    saving: bool,
) -> tuple[_RecurrenceCall, list[Any]]:
    """The call's structure, and what must stay alive until it returns."""
    tensors = inputs, noise, hidden0, cell0, read0, tops0, height0, control, control_bias
    whole = [None if tensor is None else memory.contiguous(tensor) for tensor in tensors]
    lengths = lengths.to(torch.int64).contiguous()
    ids = None if ids is None else ids.to(torch.int64).contiguous()
    recurrent, biases = [*map(memory.contiguous, recurrent)], [*map(memory.contiguous, biases)]
    lists = _pointers(recurrent), _pointers(biases), _pointers([outputs[14], *outputs[15].unbind()])
    weights, later_biases, sources = (ctypes.addressof(array) for array in lists)
    steps, batch = (inputs if ids is None else ids).shape[:2]
    call = _RecurrenceCall(
        *(steps, batch, hidden0.shape[2], read0.shape[1], hidden0.shape[0], tops0.shape[0]),
        *(torch.get_num_threads(), saving, inputs.shape[0], stretch, lengths.data_ptr(), _pointer(ids)),
        *(*map(_pointer, whole[:7]), weights, later_biases, *map(_pointer, whole[7:])),
        *(*map(_pointer, outputs[:14]), sources),
    )
    return call, [whole, lengths, ids, recurrent, biases, lists]


_RECURRENCE = torch.library.custom_op("stackrev::recurrence", _recurrence, mutates_args=(), device_types="cpu")


@_RECURRENCE.register_fake
def _recurrence_fake(inputs: Tensor, ids: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    _, _, _, saving, hidden0, _, read0, _, bottoms0, *_ = rest
    return _recurrence_outputs(inputs, ids, hidden0, read0, bottoms0, saving)


def _recurrence_backward(
    inputs: Tensor,
    ids: Tensor | None,
    lengths: Tensor,
    stretch: float,
    hidden0: Tensor,
    cell0: Tensor,
    read0: Tensor,
    tops0: Tensor,
    height0: Tensor,
    control: Tensor,
    control_bias: Tensor,
    recurrent: Sequence[Tensor],
    biases: Sequence[Tensor],
    outputs: Sequence[Tensor],
    g_top_hidden: Tensor | None,
    g_end_hidden: Tensor | None,
    g_end_cell: Tensor | None,
    g_end_read: Tensor | None,
    g_end_values: Tensor | None,
    g_end_bottoms: Tensor | None,
    g_end_tops: Tensor | None,
    g_end_height: Tensor | None,
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
]:  # fmt: skip
    """Gradients of all that the forward operator takes; see `_recurrence_gradients`."""
    wanted = _recurrence_gradients(inputs, ids, hidden0, cell0, read0, tops0, height0, control, recurrent, outputs)
    arguments = inputs, ids, lengths, None, stretch, hidden0, cell0, read0, tops0, height0, control, control_bias
    forward, _kept = _recurrence_call(*arguments, recurrent, biases, outputs, True)
    given = [g_top_hidden, g_end_hidden, g_end_cell, g_end_read, g_end_values, g_end_bottoms, g_end_tops, g_end_height]
    given = [None if tensor is None else memory.contiguous(tensor) for tensor in given]
    lists = _pointers([wanted[11], *wanted[12].unbind()]), _pointers(wanted[13].unbind())
    fixed = *map(_pointer, given), *map(_pointer, wanted[:11])
    call = _RecurrenceGradientCall(forward, *fixed, *(ctypes.addressof(array) for array in lists))
    _call("recurrence_backward", inputs.dtype, call)
    return wanted


def _recurrence_gradients(
    inputs: Tensor,
    ids: Tensor | None,
    hidden0: Tensor,
    cell0: Tensor,
    read0: Tensor,
    tops0: Tensor,
    height0: Tensor,
    control: Tensor,
    recurrent: Sequence[Tensor],
    outputs: Sequence[Tensor],
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
]:  # fmt: skip
    """Unfilled memory for the gradients, in the arguments' order; the later layers' matrices are one, as are biases."""
    steps, batch = (inputs if ids is None else ids).shape[:2]
    four_hidden = inputs.shape[-1]
    layers, _, hidden = hidden0.shape
    return (
        inputs.new_empty(inputs.shape),
        inputs.new_empty(steps, batch, 2),
        inputs.new_empty(hidden0.shape),
        inputs.new_empty(cell0.shape),
        inputs.new_empty(read0.shape),
        inputs.new_empty(outputs[6].shape),
        height0.new_empty(outputs[7].shape),
        height0.new_empty(tops0.shape),
        height0.new_empty(height0.shape),
        inputs.new_empty(control.shape),
        inputs.new_empty(control.shape[1]),
        inputs.new_empty(recurrent[0].shape),
        inputs.new_empty(layers - 1, 2 * hidden, four_hidden),
        inputs.new_empty(layers - 1, four_hidden),
    )


_RECURRENCE_BACKWARD = torch.library.custom_op(
    "stackrev::recurrence_backward", _recurrence_backward, mutates_args=(), device_types="cpu"
)


@_RECURRENCE_BACKWARD.register_fake
def _recurrence_backward_fake(
    inputs: Tensor, ids: Tensor | None, lengths: Tensor, stretch: float, hidden0: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    cell0, read0, tops0, height0, control, _, recurrent, _, outputs, *_ = rest
    return _recurrence_gradients(inputs, ids, hidden0, cell0, read0, tops0, height0, control, recurrent, outputs)


def _recurrence_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, ids, lengths, _, stretch, _, hidden0, cell0, read0, _, _, tops0, height0, control, control_bias, *lists = inputs
    recurrent, biases = lists
    ctx.stretch, ctx.layers = stretch, len(recurrent)
    fixed = x, ids, lengths, hidden0, cell0, read0, tops0, height0, control, control_bias
    ctx.save_for_backward(*fixed, *recurrent, *biases, *output)
    ctx.mark_non_differentiable(output[1], output[2], *output[10:])
    ctx.set_materialize_grads(False)


def _recurrence_gradient(backward: Callable[..., tuple[Tensor, ...]], ctx: Any, *grads: Tensor | None) -> list[Any]:
    """The gradients of all of the operator's arguments, in their order."""
    x, ids, lengths, hidden0, cell0, read0, tops0, height0, control, control_bias, *rest = ctx.saved_tensors
    layers = ctx.layers
    recurrent, biases, outputs = rest[:layers], rest[layers : 2 * layers - 1], rest[2 * layers - 1 :]
    gradients = backward(
        *(x, ids, lengths, ctx.stretch, hidden0, cell0, read0, tops0, height0, control, control_bias),
        *(recurrent, biases, outputs, grads[0], *grads[3:10]),
    )
    g_inputs, g_noise, g_hidden0, g_cell0, g_read0, g_values, g_bottoms, *g_others, g_first, g_rest, g_biases = (
        gradients
    )
    initial = tops0.shape[0]
    return [
        *(g_inputs, None, None, g_noise if ctx.needs_input_grad[3] else None, None, None),
        *(g_hidden0, g_cell0, g_read0, g_values[:initial], g_bottoms[:initial], *g_others),
        *([g_first, *g_rest.unbind()], list(g_biases.unbind())),
    ]


_RECURRENCE.register_autograd(
    lambda ctx, *grads: tuple(_recurrence_gradient(_RECURRENCE_BACKWARD, ctx, *grads)),
    setup_context=_recurrence_setup,
)


class _Recurrence(torch.autograd.Function):
    """The operator with its two lists of weights, K and K - 1 of them, one after the other."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, ...]:
        return _recurrence(*_with_lists(flat))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _recurrence_setup(ctx, _with_lists(inputs), output)

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        *fixed, g_recurrent, g_biases = _recurrence_gradient(_recurrence_backward, ctx, *grads)
        return *fixed, *g_recurrent, *g_biases


def _with_lists(flat: tuple[Any, ...]) -> tuple[Any, ...]:
    layers = flat[6].shape[0]
    return *flat[:15], list(flat[15 : 15 + layers]), list(flat[15 + layers :])


def _plain(tensors: Iterable[Tensor | None]) -> bool:
    """Whether no compiler, tracer, transform or subclass of tensors is to see what is done with them."""
    kinds = Tensor, torch.nn.Parameter
    watched = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
    )
    return not watched and all(tensor is None or type(tensor) in kinds for tensor in tensors)


def recurrence(
    inputs: Tensor,
    ids: Tensor | None,
    lengths: Tensor,
    noise: Tensor | None,
    stretch: float,
    flat: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The recurrence of `recurrence.py`, on arguments that belong together.

    Args:
        inputs: [T, B, 4H], or [V, 4H] if there are ids.
        ids: [T, B], or None.
        lengths: [B].
        noise: [T, B, 2], or None.
        stretch: e of the stretched gate.
        flat: The state (hidden, cell, read, and the stack's values, bottoms, tops and height), then the weights
            (control, its bias, K recurrent matrices, K - 1 biases).

    Returns:
        The hidden states, push, pop, and the final state in the same order.

    Raises:
        ValueError: The lengths are not sorted.
        IndexError: An id is not one of the V.
    """
    saving = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (inputs, noise, *flat))
    arguments = inputs, ids, lengths, noise, stretch, saving, *flat
    outputs: tuple[Tensor, ...]
    if _plain((inputs, noise, *flat)):
        run = _Recurrence.apply if saving else lambda *call: _recurrence(*_with_lists(call))
        outputs = run(*arguments)
    else:
        outputs = _RECURRENCE(*_with_lists(arguments))
    return outputs[:10]


# --- The neural stack alone


class _StackCall(ctypes.Structure):
    """`StackCall` in columns.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "batch", "width", "initial", "threads")),
        *((name, ctypes.c_void_p) for name in ("values", "push", "pop", "tops0", "height0")),
        *((name, ctypes.c_void_p) for name in ("reads", "bottoms", "tops", "height", "below")),
    )


class _StackGradientCall(ctypes.Structure):
    """`StackGradientCall` in columns.h."""

    _fields_ = (
        ("forward", _StackCall),
        *((name, ctypes.c_int64) for name in ("g_step", "g_row")),
        *((name, ctypes.c_void_p) for name in ("g_reads", "g_end_bottoms", "g_end_tops", "g_height")),
        *((name, ctypes.c_void_p) for name in ("g_values", "g_push", "g_pop", "g_bottoms", "g_tops0", "g_height0")),
    )


def _stack_outputs(
    values: Tensor, push: Tensor, new_empty: Callable[..., Tensor] = Tensor.new_empty
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Unfilled memory for what the operator returns, in its order."""
    (elements, batch, width), steps = values.shape, push.shape[0]
    return (
        new_empty(values, steps, batch, width),
        *(new_empty(push, elements, batch), new_empty(push, elements, batch), new_empty(push, batch)),
        values.new_empty(elements, batch, dtype=torch.int32),
    )


def _stack_call(
    values: Tensor, push: Tensor, pop: Tensor, tops0: Tensor, height0: Tensor, outputs: Sequence[Tensor | None]
) -> _StackCall:
    steps, batch = push.shape
    sizes = steps, batch, values.shape[2], tops0.shape[0], torch.get_num_threads()
    return _StackCall(*sizes, *map(_pointer, (values, push, pop, tops0, height0, *outputs)))


def _neural_stack(
    values: Tensor, push: Tensor, pop: Tensor, bottoms0: Tensor, tops0: Tensor, height0: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The reads, the final bottoms, tops and height, and the chain."""
    values, push, pop, tops0, height0 = map(memory.contiguous, (values, push, pop, tops0, height0))
    outputs = _stack_outputs(values, push, memory.new_empty)
    outputs[1][: bottoms0.shape[0]] = bottoms0
    _call("stack", values.dtype, _stack_call(values, push, pop, tops0, height0, outputs))
    return outputs


_NEURAL_STACK = torch.library.custom_op("stackrev::neural_stack", _neural_stack, mutates_args=(), device_types="cpu")


@_NEURAL_STACK.register_fake
def _neural_stack_fake(values: Tensor, push: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    return _stack_outputs(values, push)


def _neural_stack_backward(
    values: Tensor,
    push: Tensor,
    pop: Tensor,
    tops0: Tensor,
    height0: Tensor,
    bottoms: Tensor,
    below: Tensor,
    g_reads: Tensor | None,
    g_end_bottoms: Tensor | None,
    g_end_tops: Tensor | None,
    g_height: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the values, push, pop, and the initial bottoms (of N + T, the first N count), tops and height."""
    values, push, pop, tops0, height0 = map(memory.contiguous, (values, push, pop, tops0, height0))
    g_reads = None if g_reads is None else _rows_contiguous(g_reads)
    strides = (0, 0) if g_reads is None else g_reads.stride()[:2]
    given = [None if g is None else memory.contiguous(g) for g in (g_end_bottoms, g_end_tops, g_height)]
    wanted = _stack_gradients(values, push, pop, tops0, height0, bottoms, memory.new_empty)
    # the results, of which the derivative needs the bottoms and the chain
    forward = _stack_call(values, push, pop, tops0, height0, (None, bottoms, None, None, below))
    call = _StackGradientCall(forward, *strides, *map(_pointer, (g_reads, *given, *wanted)))
    _call("stack_backward", values.dtype, call)
    return wanted


def _rows_contiguous(gradient: Tensor) -> Tensor:
    """The same numbers [T, B, M], every row in one piece.

    The gradient of a sum is one number that stands for all: it becomes one row that stands for all.
    """
    gradient = gradient.resolve_neg()
    if gradient.shape[2] == 1 or gradient.stride(2) == 1:
        return gradient
    if not any(gradient.stride()):
        return gradient[:1, :1].contiguous().expand_as(gradient)
    return memory.contiguous(gradient)


def _stack_gradients(
    values: Tensor,
    push: Tensor,
    pop: Tensor,
    tops0: Tensor,
    height0: Tensor,
    bottoms: Tensor,
    new_empty: Callable[..., Tensor] = Tensor.new_empty,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Unfilled memory for the gradients, in the arguments' order."""
    shapes = push.shape, pop.shape, bottoms.shape, tops0.shape, height0.shape
    g_push, g_pop, g_bottoms, g_tops0, g_height0 = (new_empty(push, *shape) for shape in shapes)
    return new_empty(values, *values.shape), g_push, g_pop, g_bottoms, g_tops0, g_height0


_NEURAL_STACK_BACKWARD = torch.library.custom_op(
    "stackrev::neural_stack_backward", _neural_stack_backward, mutates_args=(), device_types="cpu"
)


@_NEURAL_STACK_BACKWARD.register_fake
def _neural_stack_backward_fake(
    values: Tensor, push: Tensor, pop: Tensor, tops0: Tensor, height0: Tensor, bottoms: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return _stack_gradients(values, push, pop, tops0, height0, bottoms)


def _neural_stack_setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    values, push, pop, _, tops0, height0 = inputs
    ctx.save_for_backward(values, push, pop, tops0, height0, output[1], output[4])
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(False)


def _neural_stack_gradient(
    backward: Callable[..., tuple[Tensor, ...]], ctx: Any, *grads: Tensor | None
) -> tuple[Tensor, ...]:
    saved = ctx.saved_tensors
    g_values, g_push, g_pop, g_bottoms, g_tops0, g_height0 = backward(*saved, *grads[:4])
    return g_values, g_push, g_pop, g_bottoms[: g_tops0.shape[0]], g_tops0, g_height0


_NEURAL_STACK.register_autograd(
    lambda ctx, *grads: _neural_stack_gradient(_NEURAL_STACK_BACKWARD, ctx, *grads), setup_context=_neural_stack_setup
)


class _NeuralStack(torch.autograd.Function):
    """The operator, off the dispatcher."""

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        return _neural_stack(*inputs)

    setup_context = staticmethod(_neural_stack_setup)

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, ...]:
        return _neural_stack_gradient(_neural_stack_backward, ctx, *grads)


def neural_stack(
    values: Tensor, push: Tensor, pop: Tensor, bottoms0: Tensor, tops0: Tensor, height0: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The stack of `stack.py`, on arguments that belong together.

    Args:
        values: [N + T, B, M], those on the stack before the first step, then those that are pushed.
        push: [T, B], in float64.
        pop: [T, B], in float64.
        bottoms0: [N, B].
        tops0: [N, B].
        height0: [B].

    Returns:
        The reads [T, B, M], and the final bottoms [N + T, B], tops [N + T, B] and height [B].
    """
    arguments = values, push, pop, bottoms0, tops0, height0
    run = _NeuralStack.apply if _plain(arguments) else _NEURAL_STACK
    reads, bottoms, tops, height, _ = run(*arguments)  # type: ignore[no-untyped-call]
    return reads, bottoms, tops, height


# --- What follows the recurrence


class _ReadOutCall(ctypes.Structure):
    """`ReadOutCall` in readout.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "batch", "hidden", "symbols", "threads")),
        ("temperature", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("lengths", "targets", "states")),
        *((name, ctypes.c_void_p) for name in ("output", "output_bias", "logits", "logits_bias")),
        *((name, ctypes.c_void_p) for name in ("right", "losses")),
        *((name, ctypes.c_void_p) for name in ("g_states", "g_output", "g_output_bias", "g_logits", "g_logits_bias")),
    )


def _read_out(
    inputs: Sequence[Tensor], targets: Tensor, lengths: Tensor, temperature: float, results: Sequence[int | None]
) -> None:
    """Call the kernel on the states and the four weights; it fills the results, pointers in `_ReadOutCall`'s order."""
    whole = [*map(memory.contiguous, inputs)]
    lengths, targets = lengths.to(torch.int64).contiguous(), targets.to(torch.int64).contiguous()
    steps, batch, hidden = whole[0].shape
    sizes = steps, batch, hidden, whole[3].shape[0], torch.get_num_threads()
    pointers = *map(_pointer, (lengths, targets, *whole)), *results
    _call("read_out", whole[0].dtype, _ReadOutCall(*sizes, temperature, *pointers))


class _ReadOutLoss(torch.autograd.Function):
    """The gradients are there as soon as the loss is, so that the logits never have to be."""

    @staticmethod
    def forward(
        ctx: Any, targets: Tensor, lengths: Tensor, temperature: float, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses = (ctypes.c_double * 2)()
        gradients = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs]
        _read_out(inputs, targets, lengths, temperature, (None, ctypes.addressof(losses), *map(_pointer, gradients)))
        ctx.save_for_backward(*gradients, *inputs)
        loss, at_one = (inputs[0].new_tensor(number) for number in losses)
        ctx.mark_non_differentiable(at_one)
        return loss, at_one

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, g_loss: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors[: len(ctx.saved_tensors) // 2]
        return None, None, None, *(gradient * g_loss for gradient in gradients)


def read_out_usable(inputs: Sequence[Tensor], numbers: Sequence[Tensor]) -> bool:
    """Whether the kernel can take states and weights, targets and lengths, and nobody has to see what is done."""
    return usable(inputs, (), numbers) and _plain((*inputs, *numbers))


def read_out_loss(
    inputs: Sequence[Tensor], targets: Tensor, lengths: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The losses of `readout.py`, on arguments that belong together.

    Args:
        inputs: The states [T, B, H], the output layer's weight [H, H] and bias [H], the logits' [V, H] and [V].
        targets: [T, B].
        lengths: [B].
        temperature: What the logits are divided by.

    Returns:
        The mean loss at that temperature, and at 1, which has no derivative.
    """
    losses: tuple[Tensor, Tensor] = _ReadOutLoss.apply(targets, lengths, temperature, *inputs)  # type: ignore[no-untyped-call]
    return losses


def read_out_right(inputs: Sequence[Tensor], targets: Tensor, lengths: Tensor) -> Tensor:
    """Whether each step's greatest logit is its target's, [T, B]; arguments as of `read_out_loss`."""
    right = torch.empty(targets.shape, dtype=torch.int8, device="cpu")
    _read_out([tensor.detach() for tensor in inputs], targets, lengths, 1.0, (right.data_ptr(), *(None,) * 6))
    return right.bool()
