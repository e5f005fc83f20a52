"""Memory for large results that is used again after they are gone.

Fresh memory comes from the operating system page by page, each zeroed and each with a trap into the system. From 32 MiB
on the C library gives it back at once, so that the neural stack would spend as much time on that as on arithmetic (a
factor of 2 from T = 4,096 on, at B = 50, M = 64). Idle blocks are marked as the system's to take back whenever it needs
them (MADV_FREE): they cost no memory, but address space. Where that is not to be had, torch's own memory is used.

No lock is held: a list's own methods are the only steps that matter, so that a process may fork at any time.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
import weakref

import torch
from torch import Tensor

from stackrev.kernels.cpu.library import NATIVE

SMALLEST = 4 << 20
"""Bytes from which on it pays. What is smaller the C library keeps itself."""

_KEPT = 2 << 30  # idle bytes at most
_PAGE = 2 << 20  # a large page, where there are any

_USED = sys.platform == "linux" and hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MADV_HUGEPAGE")
_idle: list[mmap.mmap] = []  # the one that has been idle longest first

if NATIVE.library is not None:
    # glibc keeps up to 64 MiB, and not 128 KiB, once something of this size has been freed. Training then does not get
    # the same few megabytes from the system for every batch (1.6 times as long). Nothing is written here, so no memory
    # is taken.
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8, device="cpu")


def new_empty(like: Tensor, *shape: int) -> Tensor:
    """`like.new_empty(shape)`, on the CPU: a tensor of anything.

    Whoever holds a view of it holds its memory. Where that is used again, the storage cannot be resized.
    """
    size = like.element_size()
    for count in shape:
        size *= count
    block = _take(size) if _USED and SMALLEST <= size <= sys.maxsize - _PAGE else None
    if block is None:
        return like.new_empty(shape)
    view = memoryview(block)[:size]  # lives as long as the tensor's storage
    weakref.finalize(view, _give_back, block).atexit = False  # something may be using it when the program ends
    flat = torch.frombuffer(view, dtype=like.dtype)
    return like.new_empty(0).set_(flat.untyped_storage(), 0, shape)  # type: ignore[call-overload, no-any-return]


def contiguous(tensor: Tensor) -> Tensor:
    """`tensor.contiguous()`, on the CPU, with the negative bit resolved: kernels read what is stored."""
    tensor = tensor.resolve_neg()
    return tensor if tensor.is_contiguous() else new_empty(tensor, *tensor.shape).copy_(tensor)


def _take(size: int) -> mmap.mmap | None:
    """A block of at least so many bytes: the smallest idle one if less than half of it is wasted, or a new one."""
    for block in sorted(_idle, key=len):
        if size <= len(block) < 2 * size:
            with contextlib.suppress(ValueError):  # another thread was quicker
                _idle.remove(block)
                return block
    with contextlib.suppress(OSError):
        return _fresh(size)
    _idle.clear()  # there is a bound on address space, and it has been met
    with contextlib.suppress(OSError):
        return _fresh(size)
    return None


def _fresh(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, -(-size // _PAGE) * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a hint, which may be refused
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _give_back(block: mmap.mmap) -> None:
    if len(block) > _KEPT:
        return
    with contextlib.suppress(OSError):
        block.madvise(mmap.MADV_FREE)
        _idle.append(block)
    with contextlib.suppress(IndexError):  # another thread was quicker
        while sum(map(len, _idle.copy())) > _KEPT:
            _idle.pop(0)
