"""An experiment: one setting trained with many seeds, to see how often and how well it learns.

Every run takes one thread: its result depends neither on how many run side by side nor on the other runs. A seed is
written down when it is done, so an experiment that was stopped, by whatever means, goes on with the seeds it lacks when
it is started again; and any number of workers may be at work on one, on any machines that reach its folder or its
database. Any seed can be trained again later, and compared bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stackrev.errors import StudyNotFoundError
from stackrev.experiments.measurements import MEASUREMENTS
from stackrev.experiments.processes import Processes
from stackrev.experiments.runs import OnStage
from stackrev.experiments.seeds import Folder, Seeds, Shared, read_seeds
from stackrev.experiments.setting import ExperimentSetting, read_setting
from stackrev.experiments.studies import OnWait, Study

WAIT_SECONDS = 0.5
"""How often a worker without work looks what the others do."""
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
            with Processes(kept.setting, workers, weights, on_stage) as processes:
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
        raise StudyNotFoundError(f"{folder} has no seed {missing[0]}", hint=f"it has {len(stored)} seeds")
    with Processes(setting, min(workers, len(seeds)), None, on_stage) as processes:
        left = list(seeds)
        while left or processes.running:
            while left and processes.idle:
                processes.start(left.pop(0))
            if (after := processes.next()) is not None:
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
    place: Seeds, seeds: Sequence[int], processes: Processes, on_result: OnResult | None, on_wait: OnWait | None
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
