"""Medians, agreement and memory, for the benchmark."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor


def seconds(repeats: int, *competitors: Callable[[], object]) -> list[float]:
    """Median seconds that each takes, after one run that does not count."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in competitors]
    for competitor in competitors:
        competitor()
    for _ in range(repeats):
        for competitor, taken in zip(competitors, times, strict=True):
            start = clock()
            competitor()
            taken.append(clock() - start)
    return [statistics.median(taken) for taken in times]


def agree(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    """End the program if results differ."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        error = float((a - b).abs().max() / b.abs().max())
        if not error <= tolerance:
            sys.exit(f"results disagree: number {index} by {error:.1e}")


def report(what: str, measured: float, unit: str, bound: str, details: str = "") -> None:
    """Print one measurement beside what it should be."""
    print(f"{what:<58} {measured:>10,.2f} {unit:<9} ({bound})  {details}", flush=True)


def peak_memory() -> float:
    """This process's, in MiB. On Linux, what getrusage tells may be that of the process which started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
