"""How fast many lines are reversed: on one core, on two, and against what the processor could do at most.

Part of benchmark.py. Seconds are the least of some runs, since what else the machine does only adds to them; the
processor's seconds stand beside them. A row-step is one symbol read or written by one string. What it takes at least is
its multiplications, H x 4H of the cell, M x 4H of the read and H x M of the value, at the rate of a large matrix
product that is measured in between, on the same core.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from measuring import report

from stackrev.evaluation.decoding import CALL_ROWS
from stackrev.kernels.cpu.stream_batch import ROWS
from stackrev.kinds import KINDS
from stackrev.storage import checkpoints, names
from stackrev.tasks import REVERSAL, vocabulary

LINES, LENGTH = 60_000, 64


def lines(repeats: int, command: list[str]) -> None:
    """The kernel alone on one core, and the whole command on one core and on two."""
    torch.set_num_threads(1)
    kernel(repeats)
    source = random.Random(0)
    texts = ["".join(map(chr, source.choices(range(33, 127), k=LENGTH))) for _ in range(LINES)]
    given, wanted = "\n".join(texts) + "\n", "".join(f"{text[::-1]}\n" for text in texts)
    some = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(min(repeats, 5)):
        for count, seconds in taken.items():
            seconds.append(run([*command, "reverse", "--threads", str(count)], given, wanted, set(some[:count])))
    what = f"reverse, {LINES:,} lines of {LENGTH}, characters a second"
    for count, bound in ((1, ""), (2, "at least 900,000")):
        wall, cpu = min(taken[count])
        details = f"{wall:.2f} s, of the processor {cpu:.2f} s; {len(some)} cores are there"
        report(f"{what}, {count} core{'s'[: count - 1]}", LINES * LENGTH / wall, "", bound, details)
    report("2 cores against 1", min(taken[1])[0] / min(taken[2])[0], "x", "at least 1.8")


def run(command: list[str], given: str, wanted: str, processors: set[int]) -> tuple[float, float]:
    """Seconds from the start of a process that is kept to some processors to its end, and the processors' seconds.

    Ends the program if an answer is not what is wanted.
    """

    def keep() -> None:
        if processors:
            os.sched_setaffinity(0, processors)

    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=True, preexec_fn=keep, env=environment
    )
    seconds = time.perf_counter() - start
    if done.stdout != wanted:
        sys.exit("stackrev reverse writes something else")
    after = os.times()
    return seconds, sum(after[2:4]) - sum(before[2:4])


def kernel(repeats: int) -> None:
    """Time of a row-step against that of its multiplications at the processor's own peak, in the processor's time."""
    config, weights = checkpoints.read_weights(names.resolve("stack-lstm"))
    shape = config.model
    open_stream = KINDS[shape.kind].open_stream
    assert open_stream is not None
    stream = open_stream(shape, {name: each.data for name, each in weights.items()})
    strings = [bytes(random.Random(row).choices(range(3, vocabulary.SIZE), k=LENGTH)) for row in range(CALL_ROWS)]
    markers = {"start": vocabulary.START, "separator": vocabulary.SEPARATOR, "stop": vocabulary.END}
    limits = [REVERSAL.most_written(LENGTH)] * CALL_ROWS
    if stream.answer(strings, **markers, limits=limits) != [vocabulary.target_ids(each) for each in strings]:
        sys.exit("results disagree: the kernel does not reverse")
    a, b = torch.randn(768, 768), torch.randn(768, 768)
    best = {"peak": float("inf"), "ours": float("inf")}
    works: dict[str, Callable[[], object]] = {
        "peak": lambda: a @ b,
        "ours": lambda: stream.answer(strings, **markers, limits=limits),
    }
    for _ in range(10 * repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - start)
    peak = a.shape[0] ** 3 / best["peak"]
    hidden, width = shape.hidden_size, shape.input_width
    products = 4 * hidden * (hidden + width) + hidden * width
    limit = products / peak
    row_step = best["ours"] / (CALL_ROWS * 2 * (LENGTH + 1))  # read: `$` and the string; written: the string and `&`
    details = (
        f"{row_step * 1e6:.2f} us; limit {limit * 1e6:.2f} us at {peak / 1e9:.0f} GMAC/s; {limit / row_step:.0%} of it"
    )
    report(f"a row-step, {ROWS} rows side by side, against its limit", row_step / limit, "x", "at most 1.7", details)
