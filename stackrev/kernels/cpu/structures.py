"""The compiled stack, queue and deque as torch operators. What they compute is in structures/ and structure.h.

Letters: N elements before the first step, T steps that add E elements each (2 to a deque, else 1), B rows, width M.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackrev.kernels.cpu.calls import MemoryArrays, MemoryCall, MemoryGradientArrays, MemoryGradientCall
from stackrev.kernels.cpu.memory import contiguous, new_empty
from stackrev.kernels.cpu.operators import Operator, call, pointer, unwatched


class Arguments(NamedTuple):
    """Controls and the structure before the first step.

    Attributes:
        values: [N + E T, B, M], those there before the first step, then those that are added.
        push: [T, B], float64; of a deque [T, 2, B].
        pop: The same.
        depth: [T, B], float64, how much a read covers; 1 if None.
        bottoms0: [N, B].
        tops0: [N, B].
        low0: [B]; None for a stack.
        high0: [B].
    """

    values: Tensor
    push: Tensor
    pop: Tensor
    depth: Tensor | None
    bottoms0: Tensor
    tops0: Tensor
    low0: Tensor | None
    high0: Tensor


class Results(NamedTuple):
    """What comes out.

    Attributes:
        reads: [T, B, M]; of a deque those at the top.
        reads_bottom: [T, B, M], of a deque; otherwise empty.
        bottoms: [N + E T, B].
        tops: [N + E T, B].
        low: [B]; of a stack empty.
        high: [B].
        levels: What the derivative needs.
        links: The same.
    """

    reads: Tensor
    reads_bottom: Tensor
    bottoms: Tensor
    tops: Tensor
    low: Tensor
    high: Tensor
    levels: Tensor
    links: Tensor


class GradientArguments(NamedTuple):
    """What the derivative needs of arguments and results, and the gradients of the results."""

    values: Tensor
    push: Tensor
    depth: Tensor | None
    bottoms0: Tensor
    tops0: Tensor
    low0: Tensor | None
    high0: Tensor
    bottoms: Tensor
    levels: Tensor
    links: Tensor
    g_reads: Tensor | None
    g_reads_bottom: Tensor | None
    g_end_bottoms: Tensor | None
    g_end_tops: Tensor | None
    g_end_low: Tensor | None
    g_end_high: Tensor | None


class Gradients(NamedTuple):
    """Of the arguments, in their order; empty where there is no such argument."""

    g_values: Tensor
    g_push: Tensor
    g_pop: Tensor
    g_depth: Tensor
    g_bottoms0: Tensor
    g_tops0: Tensor
    g_low0: Tensor
    g_high0: Tensor


class Layout(NamedTuple):
    """How large what a structure keeps is, in numbers a row; see the headers.

    Attributes:
        ends: E.
        levels: A step's levels.
        links: From N and T to the links.
    """

    ends: int
    levels: int
    links: Callable[[int, int], int]


LAYOUTS = {
    "stack": Layout(1, 0, lambda initial, steps: initial + steps),
    "queue": Layout(1, 2, lambda initial, steps: 0),
    "deque": Layout(2, 2, lambda initial, steps: 2 * steps),
}
"""Of each structure, by its name."""


def kept(layout: Layout, initial: int, steps: int, heights: Tensor) -> tuple[Tensor, Tensor]:
    """Unfilled levels and links for B rows, given heights [B]."""
    batch = heights.shape[0]
    links = heights.new_empty(layout.links(initial, steps), batch, dtype=torch.int32)
    return heights.new_empty(layout.levels * steps, batch), links


def arrays(
    values: Tensor, initial: Sequence[Tensor | None], results: Sequence[Tensor | None], saved: Sequence[Tensor]
) -> MemoryArrays:
    """Where a structure is in memory.

    Args:
        values: [N + E T, B, M].
        initial: Bottoms, tops, low (None for a stack) and high before the first step.
        results: The same after the last, of which the derivative needs a stack's bottoms alone.
        saved: Levels and links.
    """
    return MemoryArrays(*map(pointer, (values, *initial, *results, *saved)))


def _results(layout: Layout, given: Arguments, empty: Callable[..., Tensor] = Tensor.new_empty) -> Results:
    """Unfilled memory."""
    elements, batch, width = given.values.shape
    initial, steps = given.bottoms0.shape[0], given.push.shape[0]
    at_the_bottom = steps if layout.ends == 2 else 0
    return Results(
        empty(given.values, steps, batch, width),
        empty(given.values, at_the_bottom, batch, width),
        *(empty(given.push, elements, batch), empty(given.push, elements, batch)),
        *(empty(given.push, 0 if given.low0 is None else batch), empty(given.push, batch)),
        *kept(layout, initial, steps, given.high0),
    )


def _gradients(given: GradientArguments, empty: Callable[..., Tensor] = Tensor.new_empty) -> Gradients:
    """Unfilled memory."""
    shaped = given.push, given.push, given.depth, given.bottoms0, given.tops0, given.low0, given.high0
    return Gradients(
        empty(given.values, *given.values.shape),
        *(empty(given.push, *((0,) if each is None else each.shape)) for each in shaped),
    )


def _call(memory: MemoryArrays, push: Tensor, pop: Tensor | None, depth: Tensor | None, like: Tensor) -> MemoryCall:
    """The call without its reads; `like` are the values, of which those at the start are what steps do not add."""
    (elements, batch, width), ends = like.shape, push.numel() // max(1, push.shape[0] * like.shape[1])
    sizes = push.shape[0], batch, width, elements - ends * push.shape[0], torch.get_num_threads()
    return MemoryCall(*sizes, *map(pointer, (push, pop, depth)), memory)


def _whole(tensors: Sequence[Tensor | None]) -> list[Any]:
    return [None if each is None else contiguous(each) for each in tensors]


def _forward(name: str, layout: Layout, *arguments: Any) -> Results:
    given = Arguments(*_whole(arguments))
    results = _results(layout, given, new_empty)
    low = None if given.low0 is None else results.low
    ends = results.bottoms, results.tops, low, results.high
    memory = arrays(given.values, given[4:], ends, (results.levels, results.links))
    whole = _call(memory, given.push, given.pop, given.depth, given.values)
    whole.reads = results.reads.data_ptr(), results.reads_bottom.data_ptr()
    call(name, given.values.dtype, whole)
    return results


def _backward(name: str, *arguments: Any) -> Gradients:
    given = GradientArguments(*_whole(arguments[:10]), *arguments[10:])
    g_reads = [None if each is None else _rows_contiguous(each) for each in (given.g_reads, given.g_reads_bottom)]
    steps, rows = zip(*((0, 0) if each is None else each.stride()[:2] for each in g_reads), strict=True)
    others = _whole(given[12:])
    wanted = _gradients(given, new_empty)
    memory = arrays(given.values, given[3:7], (given.bottoms, None, None, None), (given.levels, given.links))
    forward = _call(memory, given.push, None, given.depth, given.values)
    low0 = None if given.low0 is None else wanted.g_low0
    g_initial = wanted.g_bottoms0, wanted.g_tops0, low0, wanted.g_high0
    gradients = MemoryGradientArrays(None, *map(pointer, (*others, wanted.g_values, *g_initial)))
    g_depth = None if given.depth is None else pointer(wanted.g_depth)
    g_strengths = pointer(wanted.g_push), pointer(wanted.g_pop), g_depth
    whole = MemoryGradientCall(forward, tuple(map(pointer, g_reads)), steps, rows, gradients, *g_strengths)
    if g_reads == [None, None]:
        wanted.g_depth.zero_()
    call(f"{name}_backward", given.values.dtype, whole)
    return wanted


def _rows_contiguous(gradient: Tensor) -> Tensor:
    """The same numbers [T, B, M], each row contiguous.

    The gradient of a sum is one number that stands for all: it becomes one row that stands for all.
    """
    gradient = gradient.resolve_neg()
    if gradient.shape[-1] == 1 or gradient.stride(-1) == 1:
        return gradient
    if not any(gradient.stride()):
        row = gradient[(slice(0, 1),) * (gradient.dim() - 1)]
        return row.contiguous().expand_as(gradient)
    return contiguous(gradient)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    given, results = Arguments(*inputs), Results(*output)
    initial = given.bottoms0, given.tops0, given.low0, given.high0
    saved = results.bottoms, results.levels, results.links
    ctx.save_for_backward(given.values, given.push, given.depth, *initial, *saved)
    ctx.mark_non_differentiable(results.levels, results.links)
    ctx.set_materialize_grads(False)


def _arguments_gradients(
    ctx: Any, backward: Callable[..., tuple[Tensor, ...]], *grads: Tensor | None
) -> tuple[Tensor | None, ...]:
    given = GradientArguments(*ctx.saved_tensors, *grads[:6])
    found = Gradients(*backward(*given))
    return (
        *(found.g_values, found.g_push, found.g_pop, None if given.depth is None else found.g_depth),
        *(found.g_bottoms0, found.g_tops0, None if given.low0 is None else found.g_low0, found.g_high0),
    )


_WITH_WIDTH = "values", "reads", "reads_bottom"  # fields, and gradients of fields, whose last dimension is M, not B


def _operator(name: str, layout: Layout) -> Operator:
    """Torch's `stackrev::neural_NAME`, of the library's functions NAME and NAME_backward."""
    return Operator(
        f"neural_{name}",
        arguments=Arguments,
        results=Results,
        gradient_arguments=GradientArguments,
        gradient_results=Gradients,
        forward=lambda *given: _forward(name, layout, *given),
        fake=lambda *given: _results(layout, Arguments(*given)),
        save=_save,
        backward=lambda *given: _backward(name, *given),
        fake_backward=lambda *given: _gradients(GradientArguments(*given)),
        gradients=_arguments_gradients,
        rows=lambda field: -2 if field.removeprefix("g_") in _WITH_WIDTH else -1,
    )


OPERATORS = {name: _operator(name, layout) for name, layout in LAYOUTS.items()}


def joined(older: Tensor, *values: Tensor) -> Tensor:
    """The values of N elements, then of those that T steps add at each of E ends, [N + E T, B, M].

    They are the structure's own, whatever becomes of the caller's; or the caller's, if autograd watches over these.

    Args:
        older: [N, B, M].
        values: E times [T, B, M].
    """
    differentiated = torch.is_grad_enabled() and any(each.requires_grad for each in (older, *values))
    if len(values) == 1 and older.shape[0] == 0 and differentiated:
        return values[0]
    if not unwatched((older, *values)):
        return torch.cat([older, torch.stack(values, 1).flatten(0, 1)])
    if not differentiated:
        return _join(older, *values)
    together: Tensor = _Joined.apply(older, *values)  # type: ignore[no-untyped-call]
    return together


def _join(older: Tensor, *values: Tensor) -> Tensor:
    count, ends = older.shape[0], len(values)
    together = new_empty(older, count + ends * values[0].shape[0], *values[0].shape[1:])
    together[:count] = older
    for end, each in enumerate(values):
        together[count + end :: ends] = each
    return together


class _Joined(torch.autograd.Function):
    """`joined` in memory that is used again, where torch would take fresh memory; gradients are views."""

    @staticmethod
    def forward(ctx: Any, older: Tensor, *values: Tensor) -> Tensor:
        ctx.count, ctx.ends = older.shape[0], len(values)
        return _join(older, *values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (g,) = grads
        return g[: ctx.count], *(g[ctx.count + end :: ctx.ends] for end in range(ctx.ends))


def neural_memory(
    name: str, values: Tensor, push: Tensor, pop: Tensor, state: Sequence[Tensor], depth: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """A structure of structures/ over T steps, on arguments that belong together; `Arguments` has their shapes.

    Args:
        name: "stack", "queue" or "deque".
        values: See `Arguments`, as for the following.
        push: Likewise.
        pop: Likewise.
        state: Bottoms, tops, low (a stack has none) and high.
        depth: Likewise.

    Returns:
        What each end reads, [T, B, M], and the final state, in the order of the initial one.
    """
    bottoms, tops, *low, high = state
    low0 = low[0] if low else None
    found = Results(*OPERATORS[name](values, push, pop, depth, bottoms, tops, low0, high))
    reads = [found.reads, found.reads_bottom][: LAYOUTS[name].ends]
    return reads, [found.bottoms, found.tops, *([found.low] if low else []), found.high]
