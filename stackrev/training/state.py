"""The file that a run resumes from, read as strictly as if a stranger had written it.

`training.safetensors` holds a run's tensors (weights, the optimizer's state, generators) and one text, `state`, a JSON
object with the fields of `State`. Every value of it is checked before any of the tensors is read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stackrev.config import to_dict
from stackrev.errors import CheckpointError, ConfigError
from stackrev.evaluation.scoring import Scores
from stackrev.kinds.config import Config, read_config
from stackrev.storage import tensors
from stackrev.storage.format import as_unicode, parse_json, short

STATE = "training.safetensors"

MAX_THREADS = 1024
_MOST_COPIES = 5  # of the weights in a state: as they are, as they were last right, what optimizers keep, and room
_WEIGHTS = ("model.", "right.")  # as they are, and as they were when they were last right, if they have been
_SMALL_TENSORS = 2**20  # bytes for generators and counters


@dataclasses.dataclass(frozen=True)
class State:
    """What a run is besides its tensors.

    Attributes:
        config: What it trains and how.
        progress: How far it has come, the fields of `trainer.Progress`.
        command: The command that made it, where that is known.
        threads: How many threads torch had when it was started.
    """

    config: Config
    progress: Mapping[str, Any]
    command: str | None
    threads: int


def summary(scores: Scores) -> dict[str, Any]:
    """Scores as a line of the history has them."""
    return {"coarse": scores.coarse, "fine": scores.fine, "samples": scores.samples}


def is_right(line: Mapping[str, Any]) -> bool:
    """Whether every string was right that a check scored, by its line of the history."""
    return bool(line["validation"]["coarse"] == line["test"]["coarse"] == 1)


def named(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by their names without it."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def write(folder: Path, values: Mapping[str, Tensor], state: State) -> None:
    """Replace the file that a run resumes from, in one rename; the folder's lock is held.

    Raises:
        CheckpointError: It cannot be written.
    """
    raw = {
        "config": to_dict(state.config),
        "progress": state.progress,
        "command": None if state.command is None else as_unicode(state.command),
        "threads": state.threads,
    }
    tensors.save(folder / STATE, values, {"state": json.dumps(raw)})


def read(folder: Path) -> tuple[dict[str, Tensor], State]:
    """What `write` wrote.

    Raises:
        CheckpointError: The file is missing or damaged, or is not the state of a run.
    """
    path = folder / STATE
    with tensors.opened(path) as stored:
        state = _checked(path, stored)
        return stored.read(), state


def is_state(folder: Path) -> bool:
    """Whether a folder holds the state of a run of ours, as far as can be told without its tensors."""
    try:
        with tensors.opened(folder / STATE) as stored:
            _checked(folder / STATE, stored)
    except CheckpointError:
        return False
    return True


def _checked(path: Path, stored: tensors.Stored) -> State:
    """The state, if it is well-formed and the tensors beside it are of the sizes that its configuration calls for."""
    try:
        state = _parse(stored.texts)
        expected = state.config.model.shapes()
        for part in _WEIGHTS:
            found = {name: each for name, each in stored.entries.items() if name.startswith(part)}
            for name, shape in expected.items() if found or part == "model." else ():
                entry = found.get(part + name)
                if entry is None:
                    raise CheckpointError(f"{part}{name} is missing")
                _require((entry.dtype, entry.shape) == ("F32", shape), f"the weights {name}")
        weights = 4 * sum(map(math.prod, expected.values()))
        size = sum(each.size for each in stored.entries.values())
        _require(size <= _MOST_COPIES * weights + _SMALL_TENSORS, "the sizes of its tensors")
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(
            f"{path} is not the state of a run: {short(error.message, quote=False)}", hint="start the run again"
        ) from error
    return state


def _parse(texts: Mapping[str, str]) -> State:
    raw = parse_json("state", texts.get("state", "").encode())
    fields = tuple(each.name for each in dataclasses.fields(State))
    _require(isinstance(raw, dict) and set(raw) == set(fields), f"state has other keys than {', '.join(fields)}")
    command, threads = raw["command"], raw["threads"]
    _require(command is None or isinstance(command, str), "command")
    _require(type(threads) is int and 1 <= threads <= MAX_THREADS, "threads")
    config = read_config(raw["config"])
    progress = raw["progress"]
    _require(isinstance(progress, dict) and set(progress) == set(_PROGRESS), "progress")
    for name, check in _PROGRESS.items():
        _require(check(progress[name]), f"progress.{name}")
    batches = [0, *(line["batch"] for line in progress["history"]), progress["batch"]]
    _require(batches == sorted(batches), "progress.history is not in order")
    _require((progress["solved_batch"] or 0) <= progress["batch"], "progress.solved_batch")
    return State(config, progress, command, threads)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise CheckpointError(what)


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value <= 10**12


def _amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]


def _number(value: object) -> bool:
    return type(value) in (int, float) and -math.inf < value < math.inf  # type: ignore[operator]


def _share(value: object) -> bool:
    return _amount(value) and value <= 1  # type: ignore[operator]


def _or_none(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _record(**checks: Callable[[object], bool]) -> Callable[[object], bool]:
    """An object with these keys and no others, each with a value that passes."""
    return lambda value: (
        isinstance(value, dict)
        and value.keys() == checks.keys()
        and all(check(value[name]) for name, check in checks.items())
    )


_scores = _record(coarse=_share, fine=_share, samples=_count)
_closing = _record(
    scale=_amount, gates=_number, logits=_number, cells=_amount, closed=lambda value: type(value) is bool
)
_check = {
    "batch": _count,
    "loss": _amount,
    "learning_rate": _amount,
    "validation": _scores,
    "test": _scores,
    "seconds": _amount,
}
_plain, _settling = _record(**_check), _record(**_check, closing=_closing)


def _line(value: object) -> bool:
    return _plain(value) or _settling(value)


_PROGRESS: dict[str, Callable[[object], bool]] = {
    "batch": _count,
    "seconds": _amount,
    "loss_sum": _amount,
    "loss_count": _count,
    "longest": _or_none(_count),
    "solved_batch": _or_none(_count),
    "history": lambda value: isinstance(value, list) and all(map(_line, value)),
}
