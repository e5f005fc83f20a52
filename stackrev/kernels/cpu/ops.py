"""What the CPU's compiled kernels offer to torch, for dispatch.py. Importing it lends them torch's threads."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

from stackrev.kernels.cpu.library import NATIVE
from stackrev.kernels.cpu.operators import refusal, unwatched
from stackrev.kernels.cpu.readout import read_out_loss, read_out_right
from stackrev.kernels.cpu.recurrence import fits_a_table, recurrence
from stackrev.kernels.cpu.structures import joined, neural_memory

__all__ = [
    "fits_a_table",
    "joined",
    "neural_memory",
    "read_out_loss",
    "read_out_right",
    "recurrence",
    "refusal",
    "unwatched",
]


def borrow_threads(library: ctypes.CDLL) -> bool:
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
    borrow_threads(NATIVE.library)
