"""The one place that chooses between plain torch and compiled kernels. Importing it does not import torch.

Compiled kernels are used where they can be: on the CPU, in float32 or float64, if they have been compiled. `using`
forces a choice, for tests, benchmarks and comparisons::

    with stackrev.kernels.using("torch"):
        reads, state = neural_stack(values, push, pop)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from stackrev.errors import NativeError
from stackrev.kernels.cpu import library

if TYPE_CHECKING:
    from torch import Tensor

Implementation = Literal["torch", "compiled"]


class _Forced(threading.local):
    implementation: Implementation | None = None


_forced = _Forced()  # a thread-local, since torch.compile cannot trace a context variable


@contextmanager
def using(implementation: Implementation) -> Iterator[None]:
    """Force an implementation for what this thread calls inside the `with` block.

    What was called inside is differentiated by the same implementation, wherever its backward pass runs. A function
    that `torch.compile` has compiled keeps the choice that held when it was compiled.

    Args:
        implementation: `"torch"` for plain torch. `"compiled"` for the compiled kernels: a call that they cannot take
            is then an error, where it would otherwise go to plain torch.

    Raises:
        NativeError: There are no compiled kernels here.
        ValueError: There is no such implementation.
    """
    if implementation not in ("torch", "compiled"):
        raise ValueError(f'no such implementation: {implementation!r}; there are "torch" and "compiled"')
    if implementation == "compiled" and not library.available():
        raise NativeError(library.NATIVE.missing)
    before = _forced.implementation
    _forced.implementation = implementation
    try:
        yield
    finally:
        _forced.implementation = before


def forced() -> Implementation | None:
    """What `using` has forced in this thread, if anything."""
    return _forced.implementation


def available() -> bool:
    """Whether compiled kernels are used where they can be."""
    return _forced.implementation != "torch" and library.available()


def describe() -> str:
    """One line for people: which kernels are used, or why none are and how to get them."""
    if _forced.implementation == "torch":
        return "plain torch: forced by using('torch')"
    return library.describe()


def kernels_for(
    values: Sequence[Tensor],
    *,
    heights: Sequence[Tensor] = (),
    indices: Sequence[Tensor] = (),
    watched: bool = True,
) -> ModuleType | None:
    """The kernels that can take these tensors; None where plain torch has to.

    Args:
        values: Those that have to be of one type; there is nothing to compute if the first is empty.
        heights: A stack's heights, which are float64 in the kernels.
        indices: Lengths, ids and targets.
        watched: Whether a compiler, a tracer or a transform can see what the kernels do with them.

    Returns:
        A module of kernels for the device that the tensors are on.

    Raises:
        NativeError: `using("compiled")` is in force, and the kernels cannot take them.
    """
    if _forced.implementation == "torch" or values[0].numel() == 0:
        return None
    from stackrev.kernels.cpu import ops  # here, since it imports torch

    reason = ops.refusal(values, heights, indices)
    if not reason and not watched and not ops.unwatched((*values, *heights, *indices)):
        reason = "a compiler, a tracer, a transform or a subclass of tensors is active"
    if not reason:
        return ops
    if _forced.implementation == "compiled":
        raise NativeError(f"the compiled kernels cannot take these tensors: {reason}")
    return None
