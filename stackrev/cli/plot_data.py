"""What `stackrev plot` draws from files: histories of runs and trials of searches, checked before they are drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import DataError, DataNotFoundError
from stackrev.figures.search import TrialPoint
from stackrev.storage import files

if TYPE_CHECKING:
    from stackrev.figures.learning import History

_LARGEST = 1 << 30
_BAD = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
_MOST_DIGITS = 15  # a number of more is none that a run gives


def read_seeds(path: Path) -> list[History]:
    """The histories of many seeds: of a folder that has a seeds.jsonl, or of such a file.

    Raises:
        DataError: The file cannot be read, or is no list of seeds.
    """
    file = path / "seeds.jsonl" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise DataNotFoundError(f"{path} holds no experiment", hint="stackrev experiment run starts one")
    try:
        lines = [json.loads(line) for line in _read(file).decode().splitlines()]
        histories = [checks(line["history"], str(file)) for line in lines]
    except _BAD as error:
        raise DataError(f"{file} is not a list of seeds", hint="stackrev experiment run makes one") from error
    if not histories:
        raise DataError(f"{file} has no seeds yet")
    return histories


def setting_name(path: Path) -> str:
    """What the setting of a folder of seeds is called; the folder's name if it does not say."""
    setting = (path if path.is_dir() else path.parent) / "setting.json"
    try:
        return str(json.loads(_read(setting))["name"])
    except (DataError, *_BAD):
        return path.name


def read_trials(file: Path) -> list[TrialPoint]:
    """The trials that `stackrev search --json` has printed, of those that have come to an end.

    Raises:
        DataError: The file cannot be read, or is no search's result.
    """
    try:
        points = [
            TrialPoint(int(trial["number"]), _number(trial["value"]), trial["state"] == "pruned", _settings(trial))
            for trial in json.loads(_read(file))["all"]
            if trial["state"] in ("complete", "pruned") and trial["value"] is not None
        ]
    except _BAD as error:
        raise DataError(f"{file} is not a search's result", hint="stackrev search --json prints one") from error
    if not points:
        raise DataError(f"{file} has no trials")
    return points


def checks(history: Sequence[Any], name: str) -> History:
    """The lines of a history that are checks.

    Raises:
        DataError: There are none, or one has something else than numbers.
    """
    found = [
        line for line in history if isinstance(line, dict) and {"batch", "validation", "test", "loss"} <= set(line)
    ]
    if not found:
        raise DataError(f"{name} has no checks in its history")
    try:
        return [_check(line) for line in found]
    except _BAD as error:
        raise DataError(f"{name} has a check whose scores are not numbers") from error


def _check(line: Mapping[str, Any]) -> dict[str, Any]:
    batch = line["batch"]
    if type(batch) is not int or not 0 < batch < 10**_MOST_DIGITS:
        raise ValueError(batch)
    # a loss that JSON cannot hold, since a run went astray, is left out of the line
    loss = math.nan if line["loss"] is None else float(line["loss"])
    scores = {name: {each: _number(line[name][each]) for each in ("coarse", "fine")} for name in ("validation", "test")}
    return {"batch": batch, "loss": loss, **scores}


def _settings(trial: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(trial["settings"])
    for value in settings.values():
        if isinstance(value, int | float) and not isinstance(value, bool):
            _number(value)
        elif not isinstance(value, str | bool | None):
            raise TypeError(value)
    return settings


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 10**_MOST_DIGITS:
        raise ValueError(value)
    return value


def _read(path: Path) -> bytes:
    with files.raising(DataError, missing=DataNotFoundError):
        return files.read_bytes(path, _LARGEST)
