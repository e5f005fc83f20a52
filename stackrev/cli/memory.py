"""How much memory there is, so that what cannot fit is refused before it grows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path


def available() -> int | None:
    """How many bytes a process can still take without being stopped; None if the system does not say."""
    found = [each for each in (_of_the_machine(), _of_the_group()) if each is not None]
    return min(found, default=None)


def size(count: int) -> str:
    """A number of bytes for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def keep() -> None:
    """Let this process keep the memory that it gives back, where the C library is glibc, which can be told so.

    NumPy's results of a megabyte go back to the system one by one otherwise, and each new one is a page fault for every
    page: up to two fifths of the time that a proof takes.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            adjust = ctypes.CDLL(None).mallopt
            adjust(_MMAP_THRESHOLD, 32 << 20)
            adjust(_TRIM_THRESHOLD, 256 << 20)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h has them


def _of_the_machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_the_group() -> int | None:
    """What a container of this process has left: control groups of version 2, or of version 1."""
    for folder, most, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            taken = int(Path(folder, used).read_text(encoding="ascii")) - _cached(Path(folder, "memory.stat"))
            return max(0, int(Path(folder, most).read_text(encoding="ascii")) - taken)
    return None


def _cached(file: Path) -> int:
    """What of a group's memory holds files, and is given back when it is needed."""
    counts = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
    return int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))
