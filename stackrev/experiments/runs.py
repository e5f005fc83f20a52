"""One seed of a setting: trained, measured, and written down as one JSON object."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stackrev.errors import StackrevError, StudyError
from stackrev.experiments.measurements import MEASUREMENTS
from stackrev.experiments.measurements.base import has_numbers
from stackrev.kinds.config import Config

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.models.base import Reverser
    from stackrev.training.trainer import Trainer


class Stage(NamedTuple):
    """How far a seed has come.

    Attributes:
        seed: Which.
        words: What is being done.
        done: How much of it is.
        total: How much there is to do; 0 if nobody knows.
    """

    seed: int
    words: str
    done: int
    total: int


OnStage = Callable[[Stage], object]


def run_seed(
    config: Config, asked: Mapping[str, Any], *, weights: Path | None = None, on_stage: OnStage | None = None
) -> dict[str, Any]:
    """Train one seed and measure what came of it.

    Args:
        config: The configuration, its seed included.
        asked: What is measured, by the names of `MEASUREMENTS`, if the run is solved.
        weights: Where to keep the trained model as a checkpoint, if it is to be kept.
        on_stage: Called as it goes.

    Returns:
        The seed's line of `seeds.jsonl`.
    """
    from stackrev.training.events import Event
    from stackrev.training.trainer import Trainer

    seed, batches = config.training.seed, config.training.batches
    tell = on_stage or (lambda stage: None)
    trainer = Trainer(config)
    progress = trainer.progress
    error = None

    def watch(event: Event) -> None:
        solved = "" if progress.solved_batch is None else f", solved at {progress.solved_batch}"
        words = f"batch {event.batch} of at most {batches}, loss {event.loss:.3f}{solved}"
        tell(Stage(seed, words, event.batch, batches))

    try:
        trainer.run(watch)
    except StackrevError as caught:
        error = caught.message
    solved = next((line for line in progress.history if line["batch"] == progress.solved_batch), None)
    last = _come_to_outcome(trainer)
    result: dict[str, Any] = {
        "seed": seed,
        "solved_batch": progress.solved_batch,
        "solved_seconds": solved and round(solved["seconds"], 2),
        "batches": progress.batch,
        "seconds": round(progress.seconds, 2),
        "validation": last and last["validation"],
        "test": last and last["test"],
        "exact": {},
        "longest_exact": None,
        "weights": digest(trainer.model),
    }
    if error is not None:
        result["error"] = error
    for name, what in asked.items():
        result[name] = _measure(trainer, name, what, tell) if solved else MEASUREMENTS[name].nothing
    lengths = [int(length) for length, each in result["exact"].items() if each["exact"] == each["samples"]]
    result["longest_exact"] = max(lengths, default=None)
    result["history"] = [short(line) for line in progress.history]
    if weights is not None:
        from stackrev.storage import checkpoints

        checkpoints.save(weights, trainer.model.state_dict(), config, history=progress.history, scores={})
    return result


def _come_to_outcome(trainer: Trainer) -> Mapping[str, Any] | None:
    """Give the model the weights that its run comes to; the last line of the history, with their scores."""
    from stackrev.training.state import summary

    last = trainer.progress.history[-1] if trainer.progress.history else None
    if last is None or not trainer.spoiled:
        return last
    trainer.model.load_state_dict(trainer.outcome())
    return {**last, **dict(zip(("validation", "test"), map(summary, trainer.scores()), strict=True))}


def _measure(trainer: Trainer, name: str, asked: Any, tell: OnStage) -> Any:
    seed, total = trainer.config.training.seed, MEASUREMENTS[name].symbols(asked)
    done = 0

    def on_progress(symbols: int) -> None:
        nonlocal done
        done += symbols
        far = f": {done:,} of {total:,} symbols" if total else ""
        tell(Stage(seed, f"measuring {name.replace('_', ' ')}{far}", done, total))

    on_progress(0)
    return MEASUREMENTS[name].measure(trainer.model, trainer.task, asked, on_progress)


def digest(model: Reverser[Any]) -> str:
    """The SHA-256 of a model's weights, in the order of their names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    tensor = tensor.detach().cpu().contiguous()
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def short(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a history, as short as a figure needs it."""
    return {
        **line,
        "loss": float(f"{line['loss']:.5g}"),
        "learning_rate": float(f"{line['learning_rate']:.5g}"),
        "validation": {**line["validation"], "fine": round(line["validation"]["fine"], 5)},
        "test": {**line["test"], "fine": round(line["test"]["fine"], 5)},
        "seconds": round(line["seconds"], 2),
    }


_SCORES = (dict, type(None))
_RESULT: Mapping[str, tuple[type, ...]] = {
    "seed": (int,),
    "solved_batch": (int, type(None)),
    "solved_seconds": (int, float, type(None)),
    "batches": (int,),
    "seconds": (int, float),
    "validation": _SCORES,
    "test": _SCORES,
    "exact": (dict,),
    "weights": (str,),
    "history": (list,),
}


def read_result(raw: Any) -> dict[str, Any]:
    """A seed's line as it is stored, strictly; keys that this version does not know are kept.

    Raises:
        StudyError: It is not one.
    """
    if not isinstance(raw, dict):
        raise StudyError("it is not an object")
    for name, types in _RESULT.items():
        if type(raw.get(name, ...)) not in types:
            raise StudyError(f"its {name!r} is missing or of another type")
    scored = [raw[name] for name in ("validation", "test") if raw[name] is not None]
    lines = [line for line in raw["history"] if has_numbers(line, "batch", "loss", "seconds")]
    good = (
        raw["seed"] >= 0
        and isinstance(raw.get("error", ""), str)
        and (raw["solved_batch"] is None) == (raw["solved_seconds"] is None)
        and all(has_numbers(each, "coarse", "fine") for each in scored)
        and all(each.valid(raw[name]) for name, each in MEASUREMENTS.items() if name in raw)
        and len(lines) == len(raw["history"])
        and all(has_numbers(line.get(name), "coarse", "fine") for line in lines for name in ("validation", "test"))
    )
    if not good:
        raise StudyError("its parts do not fit together")
    return raw


def environment() -> dict[str, Any]:
    """What, besides the setting, may decide the last bits of a result or how long it takes."""
    import torch

    from stackrev import kernels

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "kernels": kernels.describe(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }


def processor() -> str:
    """The processor's own name for itself; torch picks some of its instructions, and so the last bits, by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
