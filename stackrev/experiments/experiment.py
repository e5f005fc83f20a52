"""An experiment: one setting trained with many seeds, to see how often and how well it learns.

Every run takes one thread: its result depends neither on how many run side by side nor on the other runs. A seed is
written down when it is done, so an experiment that was stopped, by whatever means, goes on with the seeds it lacks when
it is started again; and any number of workers may be at work on one, on any machines that reach its folder or its
database. Any seed can be trained again later, and compared bit for bit.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stackrev.errors import StudyError
from stackrev.experiments.measurements import MEASUREMENTS
from stackrev.experiments.runs import OnStage, Stage, run_seed
from stackrev.experiments.seeds import Folder, Seeds, Shared, read_seeds
from stackrev.experiments.setting import ExperimentSetting, read_setting
from stackrev.experiments.studies import OnWait, Study

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

LOOK_SECONDS = 0.1
"""How often the processes that train are listened to."""
WAIT_SECONDS = 0.5
"""How often a worker without work looks what the others do."""
TELL_SECONDS = 0.1
"""How often a process tells how far it is."""

OnResult = Callable[[Mapping[str, Any]], object]


class Comparison(NamedTuple):
    """A stored seed, trained again.

    Attributes:
        seed: Which.
        before: Its result as stored.
        after: What it came to now.
        changed: What is not as stored; empty if all is, bit for bit.
    """

    seed: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    changed: tuple[str, ...]


def run(
    folder: Path,
    setting: ExperimentSetting,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    storage: str | None = None,
    study: str | None = None,
    keep_weights: bool = False,
    on_result: OnResult | None = None,
    on_stage: OnStage | None = None,
    on_wait: OnWait | None = None,
) -> dict[str, Any]:
    """Run what an experiment still lacks of its seeds, and write its summary.

    Args:
        folder: Where it is kept, and goes on from; made if need be.
        setting: What is run.
        seeds: Which seeds it is to have.
        workers: How many processes of one thread each train side by side.
        storage: A database's address, for workers that do not share the folder. The folder gets all results too.
        study: What the experiment is called in the database; the folder's name if None.
        keep_weights: Whether each trained model is kept as a checkpoint, in `weights/`.
        on_result: Called with each result as it comes.
        on_stage: Called as the runs go.
        on_wait: Called with the number of other workers' seeds, as long as they are waited for.

    Returns:
        The summary of all results in the folder.

    Raises:
        StudyError: The folder or the study holds another setting, or cannot be read or written.
    """
    kept = Folder(folder, setting)
    shared: Shared | None = None
    try:
        if storage is not None:
            shared = Shared(Study(study or folder.resolve().name, storage=storage), setting)
            shared.add(kept.results().values())
        weights = folder / "weights" if keep_weights else None
        try:
            with _Processes(kept.setting, workers, weights, on_stage) as processes:
                _run(shared or kept, seeds, processes, on_result, on_wait)
        finally:
            if shared is not None:
                kept.add(shared.results().values())
        return kept.finish()
    finally:
        if shared is not None:
            shared.close()
        kept.close()


def rerun(
    folder: Path, seeds: Sequence[int], *, workers: int = 1, on_stage: OnStage | None = None
) -> Iterator[Comparison]:
    """Train stored seeds again, from the stored setting, and compare; each as it is done.

    Raises:
        StudyError: The folder has no such seed, or cannot be read.
    """
    setting, stored = read_setting(folder), read_seeds(folder)
    if missing := [seed for seed in seeds if seed not in stored]:
        raise StudyError(f"{folder} has no seed {missing[0]}", hint=f"it has {len(stored)} seeds")
    with _Processes(setting, min(workers, len(seeds)), None, on_stage) as processes:
        for seed in seeds:
            processes.start(seed)
        for _ in seeds:
            while (after := processes.next()) is None:
                pass
            yield compare(stored[after["seed"]], after)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """What is not as stored of a seed, times left aside."""
    names = ["solved_batch", "batches", "validation", "test", *MEASUREMENTS, "weights"]
    changed = [name for name in names if name in before and after.get(name) != before[name]]
    changed += ["history"] if _timeless(after) != _timeless(before) else []
    return Comparison(after["seed"], before, after, tuple(changed))


def _timeless(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in result["history"]]


def _run(
    place: Seeds, seeds: Sequence[int], processes: _Processes, on_result: OnResult | None, on_wait: OnWait | None
) -> None:
    """Keep the processes at work until every seed is done, by whomever."""
    looked = 0.0
    done: Mapping[int, Any] = place.results()
    try:
        while lacking := [seed for seed in seeds if seed not in done]:
            if time.monotonic() - looked > WAIT_SECONDS or not processes.running:
                looked = time.monotonic()
                while processes.idle and (seed := place.take(lacking)) is not None:
                    processes.start(seed)
                done = place.results()
            if not processes.running:
                if on_wait is not None:
                    on_wait(len([seed for seed in seeds if seed not in done]))
                time.sleep(WAIT_SECONDS)
            elif (result := processes.next()) is not None:
                place.keep(result)
                done, looked = place.results(), 0.0
                if on_result is not None:
                    on_result(result)
    except BaseException:
        for seed in processes.running:
            place.put_back(seed)
        raise


class _Processes:
    """Processes of one thread each that train seeds, and tell how far they are.

    Args:
        setting: What is run.
        workers: How many.
        weights: Where trained models are kept, if they are.
        on_stage: Called with what the processes tell.
    """

    def __init__(
        self, setting: ExperimentSetting, workers: int, weights: Path | None, on_stage: OnStage | None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._setting, self._workers, self._weights = setting, workers, weights
        self._on_stage = on_stage or (lambda stage: None)
        self._told: multiprocessing.queues.Queue[Stage] = context.Queue()
        self._stop = context.Event()
        self._executor = ProcessPoolExecutor(workers, context, _begin, (self._told, self._stop))
        self._futures: dict[Future[dict[str, Any]], int] = {}

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    @property
    def running(self) -> tuple[int, ...]:
        """The seeds that are being run."""
        return tuple(self._futures.values())

    @property
    def idle(self) -> bool:
        """Whether a process has nothing to do."""
        return len(self._futures) < self._workers

    def start(self, seed: int) -> None:
        """Run a seed as soon as a process is free."""
        weights = self._weights and self._weights / f"seed-{seed:04}"
        self._on_stage(Stage(seed, "starting", 0, 1))
        with _no_ctrl_c():
            future = self._executor.submit(_train, self._setting, seed, weights)
        self._futures[future] = seed

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
        for future in done:
            try:
                result = future.result()
            except BrokenProcessPool:
                raise StudyError(
                    "a process that was training has been killed", hint="if memory was short, use fewer --workers"
                ) from None
            del self._futures[future]
            return result
        return None


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Processes started here leave Ctrl-C to their parent from their first moment on; the parent gets it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_telling: multiprocessing.queues.Queue[Stage] | None = None
_stopping: Event | None = None


def _begin(told: multiprocessing.queues.Queue[Stage], stop: Event) -> None:
    """What a process does first: it takes one thread, and ends when its parent does."""
    import torch

    global _telling, _stopping
    _telling, _stopping = told, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked before
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


class _StoppedError(Exception):
    """The results of this process are not wanted any more."""


def _train(setting: ExperimentSetting, seed: int, weights: Path | None) -> dict[str, Any]:
    with _teller() as on_stage:
        return run_seed(setting.seeded(seed), setting.asked, weights=weights, on_stage=on_stage)


@contextmanager
def _teller() -> Iterator[OnStage]:
    last = 0.0

    def tell(stage: Stage) -> None:
        nonlocal last
        if _stopping is not None and _stopping.is_set():
            raise _StoppedError
        if _telling is not None and time.monotonic() - last >= TELL_SECONDS:
            last = time.monotonic()
            _telling.put(stage)

    yield tell
