"""The paper's own table: its five tasks by its structures, with what it reports beside what is measured here.

`reproduce.py` runs the cells (`run_cells`) and `report.py` puts them into the README (`rows`). Each cell is an
experiment with the default settings of that model and task, kept in `docs/results/paper/`: of twenty seeds where the
structure can do the task, of five where it cannot, and of one of the slow LSTM without a memory.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackrev.experiments import experiment, presets, seeds, tables
from stackrev.experiments.setting import ExperimentSetting
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.training import schedules

TASKS = ("copy", "reversal", "bigram-flip", "svo-sov", "gender")
MODELS = ("lstm", "stack-lstm", "queue-lstm", "deque-lstm")
_PUBLISHED = {
    "copy": (".01 / .50", ".00 / .22", "1 / 1", "1 / 1"),
    "reversal": (".04 / .13", "1 / 1", ".00 / .07", "1 / 1"),
    "bigram-flip": (".02 / .52", ".00 / .48", ".55 / .98", ".53 / .98"),
    "svo-sov": (".98 / .99", "1 / 1", "1 / 1", "1 / 1"),
    "gender": (".99 / .99", ".93 / .97", "1 / 1", "1 / 1"),
}
PUBLISHED = {(kind, task): each for task, row in _PUBLISHED.items() for kind, each in zip(MODELS, row, strict=True)}
"""Coarse and fine accuracy on strings of 65-128, by model and task (Table 3 of Grefenstette et al. 2015)."""


@dataclass(frozen=True)
class Cell:
    """A model and a task that are measured.

    Attributes:
        kind: The kind of model.
        task: What it learns.
        seeds: How many seeds.
        changes: Settings that are not the default, by name.
    """

    kind: str
    task: str
    seeds: int = 20
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """What the experiment is called."""
        return f"{self.kind} on {self.task}"

    def folder(self, out: Path) -> Path:
        """Where it is kept in a results folder."""
        return out / "paper" / f"{self.kind}-{self.task}"


_FEW_SEEDS = 5
_UNSEEN = {"lengths": "65-128", "samples": 1000}
CELLS = (
    *(Cell("queue-lstm", task) for task in ("copy", "bigram-flip", "svo-sov", "gender")),
    *(Cell("deque-lstm", task) for task in TASKS),
    *(Cell("stack-lstm", task, _FEW_SEEDS) for task in ("copy", "bigram-flip", "svo-sov", "gender")),
    Cell("queue-lstm", "reversal", _FEW_SEEDS),
    *(Cell("lstm", task, 1, (("batches", 8000),)) for task in ("copy", "svo-sov", "gender")),
    Cell("lstm", "bigram-flip", 1),
)
"""What is measured. The stack-LSTM on reversal is the default setting of the other tables, and the LSTM and the RNN
there are the packaged ones."""


def run_cells(out: Path, exact: Mapping[int, int], count: int, *, changes: Mapping[str, Any], workers: int) -> None:
    """Train every cell with so many seeds, or go on with it.

    Args:
        out: The results folder.
        exact: How many strings of which lengths a solved run is tried on.
        count: How many seeds at most.
        changes: What all configurations have different.
        workers: How many processes.
    """
    for cell in CELLS:
        config = _config(cell, **changes)
        asked = {"exact": {str(length): strings for length, strings in exact.items()}, "unseen": _UNSEEN}
        experiment.run(
            cell.folder(out),
            ExperimentSetting(cell.name, config, asked),
            range(min(count, cell.seeds)),
            workers=workers,
            on_result=lambda result, name=cell.name: print(
                f"{name}: {tables.describe(result)}", file=sys.stderr, flush=True
            ),
        )


def read_cells(out: Path) -> dict[Cell, Sequence[Mapping[str, Any]]]:
    """The results of the cells that a results folder holds."""
    found = {cell: list(seeds.read_seeds(cell.folder(out)).values()) for cell in CELLS}
    return {cell: results for cell, results in found.items() if results}


def restarted(cells: Mapping[Cell, Sequence[Mapping[str, Any]]]) -> tuple[int, int]:
    """How many runs started over, and of how many that were to do so if less than half was right."""
    starts = []
    for cell, results in cells.items():
        training = _config(cell).training
        if training.restart_batches is not None:  # a run does not start over after its last batch
            lines = ([line for line in each["history"] if line["batch"] < training.batches] for each in results)
            starts += [schedules.last_start(training, each) for each in lines]
    return sum(map(bool, starts)), len(starts)


def _config(cell: Cell, **changes: Any) -> Config:
    return presets.configure(cell.kind, {**dict(cell.changes), **changes, "task": cell.task})


def rows(
    cells: Mapping[Cell, Sequence[Mapping[str, Any]]],
    reversal: Sequence[Mapping[str, Any]],
    packaged: Sequence[Mapping[str, Any]],
) -> list[tuple[str, ...]]:
    """The table's rows, its head first.

    Args:
        cells: Their results.
        reversal: The results of the stack-LSTM on reversal.
        packaged: The scores of the packaged models that reverse, as in `scores.json`.
    """
    measured = dict(cells)
    if reversal:
        measured[Cell("stack-lstm", "reversal")] = reversal
    for each in packaged:
        if each["model"] in ("lstm", "rnn"):
            run = {"solved_batch": each["solved_batch"], "test": each["scores"]["65-128"]}
            measured[Cell(each["model"], "reversal", 1)] = [{**run, "solved_seconds": each["solved_seconds"]}]
    table: list[tuple[str, ...]] = [
        (
            *("task", "model", "coarse / fine, published", "coarse / fine here, median of all runs", "runs that learn"),
            *(
                "right on all unseen strings",
                "batches, median",
                "seconds, median",
                "exact at 10,000",
                "exact at 1,000,000",
            ),
        )
    ]
    order = list(KINDS)
    for cell, results in sorted(
        measured.items(), key=lambda item: (TASKS.index(item[0].task), order.index(item[0].kind))
    ):
        table.append(_row(cell, results))
    return table


def _row(cell: Cell, results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    solved = [each for each in results if each["solved_batch"] is not None]
    batches, seconds = (
        statistics.median(each[name] for each in solved) if solved else None
        for name in ("solved_batch", "solved_seconds")
    )
    exact = (
        [each["exact"] == each["samples"] for run in solved if (each := run.get("exact", {}).get(length))]
        for length in ("10000", "1000000")
    )
    return (
        cell.task,
        KINDS[cell.kind].label,
        PUBLISHED.get((cell.kind, cell.task), "-"),
        " / ".join(_median(results, name) for name in ("coarse", "fine")),
        f"{len(solved)} of {len(results)}",
        _share(list(map(_right_on_unseen, solved)), len(results)),
        "-" if batches is None else f"{batches:,.0f}",
        "-" if seconds is None else f"{seconds:.1f}",
        *(_share(each, len(results)) for each in exact),
    )


def _right_on_unseen(result: Mapping[str, Any]) -> bool | None:
    """Whether a run answers every string that it was not chosen by, as measured or as proved; None if nobody knows."""
    if (result.get("proof") or {}).get("proved"):
        return True
    unseen = result.get("unseen")
    return unseen and unseen["exact"] == unseen["samples"]


def _share(right: Sequence[bool | None], runs: int) -> str:
    """How many runs are right, of all; a dash if that is not known of any."""
    known = [each for each in right if each is not None]
    return f"{sum(known)} of {runs}" if known else "-"


def _median(results: Sequence[Mapping[str, Any]], name: str) -> str:
    """The lower median of a score on the test set, at the runs' ends; cut rather than rounded: only all is 1.000."""
    values = sorted(each["test"][name] if each["test"] else 0.0 for each in results)
    return f"{math.floor(values[(len(values) - 1) // 2] * 1000 + 1e-9) / 1000:.3f}"
