"""Memory for large results that is used again after they are gone; see memory.h."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from stackrev.kernels.cpu.library import NATIVE

SMALLEST = 4 << 20
"""Bytes from which on it pays. What is smaller the C library keeps itself."""

if NATIVE.library is not None:
    # And it does so, if it is glibc, once something of this size has been freed: it keeps 64 MiB then, not 128 KiB, and
    # training does not get the same few megabytes from the system for every batch. Nothing is written here, so no
    # memory is taken.
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8, device="cpu")

_FROM_MEMORY = ctypes.pythonapi.PyMemoryView_FromMemory
_FROM_MEMORY.restype = ctypes.py_object
_FROM_MEMORY.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_WRITABLE = 0x200  # PyBUF_WRITE

# With the GIL held: a process that forks has it, so that no other thread is in the middle of one of these.
_TAKE: Callable[[int], int | None] | None = None
_GIVE_BACK: Callable[[int], None] | None = None
if NATIVE.library is not None:
    _TAKE = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)(("stackrev_take", NATIVE.library))
    _GIVE_BACK = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("stackrev_give_back", NATIVE.library))


def new_empty(like: Tensor, *shape: int) -> Tensor:
    """`like.new_empty(shape)`, on the CPU: a tensor of anything.

    Whoever holds a view of it holds its memory. Where that is used again, the storage cannot be resized.
    """
    count = 1
    for size in shape:
        count *= size
    size = count * like.element_size()
    start = _TAKE(size) if _TAKE is not None and SMALLEST <= size <= sys.maxsize else None
    if start is None or _GIVE_BACK is None:
        return like.new_empty(shape)
    memory = _FROM_MEMORY(start, size, _WRITABLE)
    weakref.finalize(memory, _GIVE_BACK, start).atexit = False  # something may be using it when the program ends
    flat = torch.frombuffer(memory, dtype=like.dtype)
    return like.new_empty(0).set_(flat.untyped_storage(), 0, shape)  # type: ignore[call-overload, no-any-return]


def contiguous(tensor: Tensor) -> Tensor:
    """`tensor.contiguous()`, on the CPU, with the numbers as they are: a view may stand for what they are negated."""
    tensor = tensor.resolve_neg()
    return tensor if tensor.is_contiguous() else new_empty(tensor, *tensor.shape).copy_(tensor)
