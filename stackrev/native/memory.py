"""Memory for large results that is used again after they are gone; see memory.h."""

from __future__ import annotations

import ctypes
import weakref

import torch
from torch import Tensor

from stackrev.native.library import NATIVE

SMALLEST = 4 << 20
"""Bytes from which on it pays. What is smaller the C library keeps itself."""

if NATIVE.library is not None:
    # And it does so, if it is glibc, once something of this size has been freed: it keeps 64 MiB then, not 128 KiB, and
    # training does not get the same few megabytes from the system for every batch. Nothing is written here, so no
    # memory is taken.
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)

_FROM_MEMORY = ctypes.pythonapi.PyMemoryView_FromMemory
_FROM_MEMORY.restype = ctypes.py_object
_FROM_MEMORY.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_WRITABLE = 0x200  # PyBUF_WRITE


def new_empty(like: Tensor, *shape: int) -> Tensor:
    """`like.new_empty(shape)`, on the CPU: a tensor of anything. Whoever holds a view of it holds its memory."""
    count = 1
    for size in shape:
        count *= size
    size = count * like.element_size()
    start = NATIVE.library.stackrev_take(size) if NATIVE.library is not None and size >= SMALLEST else None
    if NATIVE.library is None or start is None:
        return like.new_empty(shape)
    memory = _FROM_MEMORY(start, size, _WRITABLE)
    # at the end of the program something may still be using it
    weakref.finalize(memory, NATIVE.library.stackrev_give_back, start).atexit = False
    flat = torch.frombuffer(memory, dtype=like.dtype)
    return like.new_empty(0).set_(flat.untyped_storage(), 0, shape)  # type: ignore[call-overload, no-any-return]


def contiguous(tensor: Tensor) -> Tensor:
    """`tensor.contiguous()`, on the CPU."""
    return tensor if tensor.is_contiguous() else new_empty(tensor, *tensor.shape).copy_(tensor)
