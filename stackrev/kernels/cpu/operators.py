"""How a compiled kernel becomes a torch operator: under autograd, `torch.no_grad`, `torch.compile` and `gradcheck`.

An `Operator` is declared once: its arguments and results are named tuples, from which torch's schema follows, and
beside them stand the forward pass, what it saves, the backward pass, and for both of these what they return when there
are only shapes (torch's fake implementation). To `torch.compile`, tracers and transforms it is opaque. Where none of
these is active the same functions run as an autograd function: the way through torch's dispatcher costs as much as a
few dozen steps of a recurrence.

Derivatives of derivatives are refused. Numbers too small to be normal count as zero.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_type_hints

import torch
from torch import Tensor

from stackrev.kernels.cpu import batching, calls, library

_SUFFIXES = {torch.float32: "float", torch.float64: "double"}


def refusal(values: Sequence[Tensor], heights: Sequence[Tensor], indices: Sequence[Tensor]) -> str:
    """Why the kernels cannot take these tensors; empty if they can.

    Args:
        values: What has to be of one type, float32 or float64.
        heights: What has to be float64.
        indices: Whatever else has to be on the CPU.
    """
    kind = values[0].dtype
    if library.NATIVE.library is None:
        return library.NATIVE.missing
    if _differentiated_by_transforms():
        return "torch.func differentiates past an operator's own derivative"
    if any(tensor.device.type != "cpu" for tensor in (*values, *heights, *indices)):
        return "not all tensors are on the CPU"
    if kind not in _SUFFIXES or any(tensor.dtype != kind for tensor in values):
        return "the values are not all float32 or all float64"
    if any(tensor.dtype != torch.float64 for tensor in heights):
        return "the heights are not float64"
    return ""


def _differentiated_by_transforms() -> bool:
    """Whether `torch.func` differentiates, which goes past the operators' own derivatives; `vmap` alone does not."""
    if not torch._C._are_functorch_transforms_active():
        return False
    functorch: Any = torch._C._functorch
    return any(level.key() != functorch.TransformType.Vmap for level in functorch.get_interpreter_stack())


def unwatched(tensors: Iterable[Tensor | None]) -> bool:
    """Whether torch's dispatcher may be bypassed: no compiler, tracer, transform or subclass of tensors is active."""
    kinds = Tensor, torch.nn.Parameter
    watched = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
    )
    return not watched and all(tensor is None or type(tensor) in kinds for tensor in tensors)


def _batched(grads: Iterable[Tensor | None]) -> bool:
    """Whether gradients stand for several, as in a Jacobian with `vectorize`: their numbers cannot be reached."""
    batched: Any = torch._C._functorch
    return torch._C._are_functorch_transforms_active() or any(
        grad is not None and batched.is_legacy_batchedtensor(grad) for grad in grads
    )


# --- Calls of the library


def call(function: str, kind: torch.dtype, arguments: ctypes.Structure) -> None:
    """Call one of the library's functions.

    Raises:
        ValueError: Lengths do not fall.
        IndexError: There is no such symbol.
        MemoryError: The kernels ran out of memory.
    """
    status = getattr(library.NATIVE.library, f"stackrev_{function}_{_SUFFIXES[kind]}")(ctypes.byref(arguments))
    if status == calls.WRONG_LENGTHS:
        raise ValueError("lengths must fall from at most T to at least 0")
    if status == calls.UNKNOWN_SYMBOL:
        raise IndexError("there is no such symbol")
    if status == calls.NO_MEMORY:
        raise MemoryError("the compiled kernels ran out of memory")


def pointer(tensor: Tensor | None) -> int | None:
    """Where its numbers are; null for None."""
    return None if tensor is None else tensor.data_ptr()


def pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Where the numbers of each are, as an array for C."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


# --- Operators


_Fields = type[tuple[Any, ...]]  # a class of named tuples


_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    Sequence[Tensor]: "Tensor[]",
    float: "float",
    bool: "bool",
}


def schema(arguments: _Fields, results: _Fields) -> str:
    """Torch's schema of a function from one named tuple to another, whose fields are tensors."""
    taken = ", ".join(f"{_TYPES[kind]} {name}" for name, kind in get_type_hints(arguments).items())
    return f"({taken}) -> ({', '.join('Tensor' for _ in get_type_hints(results))})"


class Operator:
    """A differentiable operator of the CPU.

    Args:
        name: Torch calls it `stackrev::name`, and its derivative `stackrev::name_backward`.
        arguments: What it takes, a named tuple of tensors, lists of tensors and numbers.
        results: What it returns, a named tuple of tensors.
        gradient_arguments: What its derivative takes.
        gradient_results: What its derivative returns.
        forward: From arguments to results.
        fake: The same with results of the right shapes and types, unfilled.
        save: Given torch's context, arguments and results, keeps what the derivative needs.
        backward: From the derivative's arguments to its results.
        fake_backward: The same with results of the right shapes and types, unfilled.
        gradients: Given torch's context, either of the two, and the gradients of the results, returns the gradients of
            all arguments, in their order.
        rows: Where the rows of a field's tensor are, counted from the last dimension, if rows need nothing of each
            other and no field is anything else: `torch.func.vmap` is then a call with more rows.
    """

    def __init__(
        self,
        name: str,
        *,
        arguments: _Fields,
        results: _Fields,
        gradient_arguments: _Fields,
        gradient_results: _Fields,
        forward: Callable[..., tuple[Any, ...]],
        fake: Callable[..., tuple[Any, ...]],
        save: Callable[..., None],
        backward: Callable[..., tuple[Any, ...]],
        fake_backward: Callable[..., tuple[Any, ...]],
        gradients: Callable[..., tuple[Any, ...]],
        rows: Callable[[str], int] | None = None,
    ) -> None:
        self.forward, self.backward, self.save, self.gradients = forward, backward, save, gradients
        self.opaque = _custom(name, arguments, results, forward, fake, rows)
        self.opaque_backward = _custom(
            f"{name}_backward", gradient_arguments, gradient_results, backward, fake_backward, rows
        )
        self.opaque.register_autograd(
            lambda ctx, *grads: gradients(ctx, self.opaque_backward, *grads),
            setup_context=lambda ctx, inputs, output: save(ctx, inputs, output),
        )

    def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
        """The results, by the shortest way that autograd, compilers and transforms allow."""
        groups = tuple(len(each) if isinstance(each, tuple | list) else None for each in arguments)
        flat = _flat(arguments)
        tensors = [each for each in flat if isinstance(each, Tensor)]
        if not unwatched(tensors):
            results: tuple[Tensor, ...] = self.opaque(*arguments)
        elif torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            results = _Direct.apply(self, groups, *flat)  # type: ignore[no-untyped-call]
        else:
            results = self.forward(*arguments)
        return results


def _custom(
    name: str,
    arguments: _Fields,
    results: _Fields,
    function: Callable[..., tuple[Any, ...]],
    fake: Callable[..., tuple[Any, ...]],
    rows: Callable[[str], int] | None,
) -> Any:
    made = torch.library.custom_op(
        f"stackrev::{name}",
        lambda *call: tuple(function(*call)),
        mutates_args=(),
        device_types="cpu",
        schema=schema(arguments, results),
    )
    made.register_fake(lambda *call: tuple(fake(*call)))
    if rows is None:
        made.register_vmap(batching.in_turn(made))
    else:
        places = [[rows(field) for field in get_type_hints(fields)] for fields in (arguments, results)]
        made.register_vmap(batching.with_more_rows(made, *places))
    return made


def _flat(arguments: Sequence[Any]) -> list[Any]:
    """All arguments one after the other, those in lists too."""
    flat: list[Any] = []
    for each in arguments:
        flat += each if isinstance(each, tuple | list) else [each]
    return flat


def _grouped(groups: tuple[int | None, ...], flat: Sequence[Any]) -> list[Any]:
    """The arguments of which `flat` is what `_flat` has made, lists of so many being lists again."""
    arguments: list[Any] = []
    place = 0
    for count in groups:
        arguments.append(flat[place] if count is None else list(flat[place : place + count]))
        place += 1 if count is None else count
    return arguments


class _Direct(torch.autograd.Function):
    """An operator that bypasses the dispatcher. Autograd looks for tensors among arguments alone, not in lists."""

    @staticmethod
    def forward(operator: Operator, groups: tuple[int | None, ...], *flat: Any) -> tuple[Tensor, ...]:
        return tuple(operator.forward(*_grouped(groups, flat)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.operator, groups, *flat = inputs
        ctx.operator.save(ctx, tuple(_grouped(groups, flat)), output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        def once(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            backward = ctx.operator.opaque_backward if _batched(grads) else ctx.operator.backward
            return (None, None, *_flat(ctx.operator.gradients(ctx, backward, *grads)))

        return differentiable_once(once)(ctx, *grads)


_Backward = Callable[..., tuple[Tensor | None, ...]]


def differentiable_once(backward: _Backward) -> _Backward:
    """A `backward` whose results raise an error if they are differentiated themselves.

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
    """The first of its arguments, made to depend on all the others by a function that has no derivative."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if tensor is None else tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise RuntimeError("stackrev's compiled kernels have no second derivative")
