"""How many threads work, and parts of a job on them. What comes of it does not depend on how many there are."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def cores() -> int:
    """How many threads work best: OMP_NUM_THREADS, which torch heeds too, or as many as the process has cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isascii() and asked.isdecimal() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    work: Callable[[_Part], _Result], parts: Iterable[_Part], *, threads: int, stop: Callable[[], object]
) -> Iterator[_Result]:
    """What `work` makes of each part, in their order.

    Worth it where the work lets other threads run, as the compiled kernels do. A few parts are worked on ahead of what
    is asked for, and no more.

    Args:
        work: Called with a part, on several threads at once.
        parts: What there is to do.
        threads: How many threads; 1 for none but the caller's.
        stop: Called where no more is wanted, on an error or on Ctrl-C, so that what is at work may end early.
    """
    if threads == 1:
        yield from map(work, parts)
        return
    from concurrent.futures import ThreadPoolExecutor  # which takes a while to import

    pool = ThreadPoolExecutor(threads)
    begun: deque[Future[_Result]] = deque()
    try:
        for part in parts:
            begun.append(pool.submit(work, part))
            if len(begun) > 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        stop()
        pool.shutdown(cancel_futures=True)
