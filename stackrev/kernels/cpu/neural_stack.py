"""The compiled neural stack as a torch operator. What it computes is in structures/stack.py and stack.h.

Letters: N elements on the stack before the first step, T steps, B rows, values of width M.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackrev.kernels.cpu.calls import StackCall, StackGradientCall
from stackrev.kernels.cpu.memory import contiguous, new_empty
from stackrev.kernels.cpu.operators import Operator, call, pointer


class Arguments(NamedTuple):
    """Controls and the stack before the first step.

    Attributes:
        values: [N + T, B, M], those on the stack before the first step, then those that are pushed.
        push: [T, B], float64.
        pop: [T, B], float64.
        bottoms0: [N, B].
        tops0: [N, B].
        height0: [B].
    """

    values: Tensor
    push: Tensor
    pop: Tensor
    bottoms0: Tensor
    tops0: Tensor
    height0: Tensor


class Results(NamedTuple):
    """The reads [T, B, M], the final bottoms, tops [N + T, B] and height [B], and the chain [N + T, B]."""

    reads: Tensor
    bottoms: Tensor
    tops: Tensor
    height: Tensor
    below: Tensor


class GradientArguments(NamedTuple):
    """What the derivative needs of arguments and results, and the gradients of the results."""

    values: Tensor
    push: Tensor
    pop: Tensor
    tops0: Tensor
    height0: Tensor
    bottoms: Tensor
    below: Tensor
    g_reads: Tensor | None
    g_end_bottoms: Tensor | None
    g_end_tops: Tensor | None
    g_height: Tensor | None


class Gradients(NamedTuple):
    """Of the arguments, in their order; of the bottoms [N + T, B] the first N count."""

    g_values: Tensor
    g_push: Tensor
    g_pop: Tensor
    g_bottoms: Tensor
    g_tops0: Tensor
    g_height0: Tensor


def _results(values: Tensor, push: Tensor, empty: Callable[..., Tensor] = Tensor.new_empty) -> Results:
    """Unfilled memory."""
    (elements, batch, width), steps = values.shape, push.shape[0]
    return Results(
        empty(values, steps, batch, width),
        *(empty(push, elements, batch), empty(push, elements, batch), empty(push, batch)),
        values.new_empty(elements, batch, dtype=torch.int32),
    )


def _gradients(given: GradientArguments, empty: Callable[..., Tensor] = Tensor.new_empty) -> Gradients:
    """Unfilled memory."""
    shaped = given.push, given.pop, given.bottoms, given.tops0, given.height0
    return Gradients(empty(given.values, *given.values.shape), *(empty(given.push, *each.shape) for each in shaped))


def _call(
    values: Tensor, push: Tensor, pop: Tensor, tops0: Tensor, height0: Tensor, results: Sequence[Tensor | None]
) -> StackCall:
    steps, batch = push.shape
    sizes = steps, batch, values.shape[2], tops0.shape[0], torch.get_num_threads()
    return StackCall(*sizes, *map(pointer, (values, push, pop, tops0, height0, *results)))


def _forward(*arguments: Tensor) -> Results:
    values, push, pop, bottoms0, tops0, height0 = map(contiguous, arguments)
    results = _results(values, push, new_empty)
    results.bottoms[: bottoms0.shape[0]] = bottoms0
    call("stack", values.dtype, _call(values, push, pop, tops0, height0, results))
    return results


def _backward(*arguments: Any) -> Gradients:
    given = GradientArguments(*arguments)
    values, push, pop, tops0, height0 = map(contiguous, given[:5])
    g_reads = None if given.g_reads is None else _rows_contiguous(given.g_reads)
    strides = (0, 0) if g_reads is None else g_reads.stride()[:2]
    others = [None if each is None else contiguous(each) for each in given[8:]]
    wanted = _gradients(given, new_empty)
    # of the results, the derivative needs the bottoms and the chain
    forward = _call(values, push, pop, tops0, height0, (None, given.bottoms, None, None, given.below))
    pointers = map(pointer, (g_reads, *others, *wanted))
    call("stack_backward", values.dtype, StackGradientCall(forward, *strides, *pointers))
    return wanted


def _rows_contiguous(gradient: Tensor) -> Tensor:
    """The same numbers [T, B, M], each row contiguous.

    The gradient of a sum is one number that stands for all: it becomes one row that stands for all.
    """
    gradient = gradient.resolve_neg()
    if gradient.shape[2] == 1 or gradient.stride(2) == 1:
        return gradient
    if not any(gradient.stride()):
        return gradient[:1, :1].contiguous().expand_as(gradient)
    return contiguous(gradient)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    given, results = Arguments(*inputs), Results(*output)
    ctx.save_for_backward(
        *(given.values, given.push, given.pop, given.tops0, given.height0), *(results.bottoms, results.below)
    )
    ctx.mark_non_differentiable(results.below)
    ctx.set_materialize_grads(False)


def _arguments_gradients(
    ctx: Any, backward: Callable[..., tuple[Tensor, ...]], *grads: Tensor | None
) -> tuple[Tensor, ...]:
    found = Gradients(*backward(*ctx.saved_tensors, *grads[:4]))
    return found._replace(g_bottoms=found.g_bottoms[: found.g_tops0.shape[0]])


OPERATOR = Operator(
    "neural_stack",
    arguments=Arguments,
    results=Results,
    gradient_arguments=GradientArguments,
    gradient_results=Gradients,
    forward=_forward,
    fake=lambda values, push, *rest: _results(values, push),
    save=_save,
    backward=_backward,
    fake_backward=lambda *given: _gradients(GradientArguments(*given)),
    gradients=_arguments_gradients,
)


def neural_stack(
    values: Tensor, push: Tensor, pop: Tensor, bottoms0: Tensor, tops0: Tensor, height0: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The stack of structures/stack.py, on arguments that belong together; `Arguments` has their shapes.

    Returns:
        The reads [T, B, M], and the final bottoms [N + T, B], tops [N + T, B] and height [B].
    """
    reads, bottoms, tops, height, _ = OPERATOR(values, push, pop, bottoms0, tops0, height0)
    return reads, bottoms, tops, height
