"""Processes of one thread each that train seeds side by side, and tell how far they are."""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

from stackrev.errors import StudyError
from stackrev.experiments.runs import OnStage, Stage, run_seed
from stackrev.experiments.setting import ExperimentSetting

LOOK_SECONDS = 0.1
"""How long the processes are listened to before something else is looked after."""
TELL_SECONDS = 0.1
"""How often a process tells how far it is."""


class Processes:
    """Processes that train seeds of a setting; to be used in a `with`, at whose end none of them is left.

    Args:
        setting: What is run.
        workers: How many.
        weights: Where trained models are kept, if they are.
        on_stage: Called with what the processes tell.
    """

    def __init__(
        self, setting: ExperimentSetting, workers: int, weights: Path | None, on_stage: OnStage | None
    ) -> None:
        self._setting, self._workers, self._weights = setting, workers, weights
        self._on_stage = on_stage or (lambda stage: None)
        context = _Context()
        self._made = context.made
        self._told: multiprocessing.queues.Queue[Stage] = context.Queue()
        self._executor = ProcessPoolExecutor(workers, context, _begin, (self._told,))
        self._futures: dict[Future[dict[str, Any]], int] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._futures:  # their results are not wanted any more
            for process in self._made:
                process.terminate()
        for process in self._made:
            process.join()

    @property
    def running(self) -> tuple[int, ...]:
        """The seeds that are being run."""
        return tuple(self._futures.values())

    @property
    def idle(self) -> bool:
        """Whether a process has nothing to do."""
        return len(self._futures) < self._workers

    def start(self, seed: int) -> None:
        """Run a seed."""
        weights = self._weights and self._weights / f"seed-{seed:04}"
        self._on_stage(Stage(seed, "starting", 0, 1))
        with _ctrl_c_later():
            self._futures[self._executor.submit(_train, self._setting, seed, weights)] = seed

    def next(self) -> dict[str, Any] | None:
        """A result that has come; None if none does for a moment.

        Raises:
            StudyError: A process was killed.
        """
        done, _ = wait(self._futures, LOOK_SECONDS, FIRST_COMPLETED)
        while True:
            try:
                stage = self._told.get_nowait()
            except queue.Empty:
                break
            if stage.seed in self.running:
                self._on_stage(stage)
        if not done:
            return None
        future = done.pop()
        try:
            result = future.result()
        except BrokenProcessPool:
            raise StudyError(
                "a process that was training has been killed", hint="if memory was short, use fewer --workers"
            ) from None
        del self._futures[future]
        return result


class _Context(SpawnContext):
    """Starts processes, and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[SpawnProcess] = []

    def Process(  # type: ignore[override]
        self, *arguments: Any, **more: Any
    ) -> SpawnProcess:  # multiprocessing's own name
        """A new process."""
        process = SpawnProcess(*arguments, **more)
        self.made.append(process)
        return process


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Put off Ctrl-C until a process has been started, which itself never hears of it.

    Otherwise it may come to a process that is only half there, or to one that has not yet been told to leave it to its
    parent.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    come = False

    def remember(number: int, frame: object) -> None:
        nonlocal come
        come = True

    handler = signal.signal(signal.SIGINT, remember)  # another thread may get it though this one has it blocked
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, handler)
    if come:
        raise KeyboardInterrupt


_told: multiprocessing.queues.Queue[Stage] | None = None
"""In a process: where it tells how far it is."""


def _begin(told: multiprocessing.queues.Queue[Stage]) -> None:
    """What a process does first: it takes one thread, and ends when its parent does."""
    import torch

    global _told
    _told = told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked before
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _train(setting: ExperimentSetting, seed: int, weights: Path | None) -> dict[str, Any]:
    return run_seed(setting.seeded(seed), setting.asked, weights=weights, on_stage=_teller())


def _teller() -> Callable[[Stage], None]:
    last = 0.0

    def tell(stage: Stage) -> None:
        nonlocal last
        if _told is not None and time.monotonic() - last >= TELL_SECONDS:
            last = time.monotonic()
            _told.put(stage)

    return tell
