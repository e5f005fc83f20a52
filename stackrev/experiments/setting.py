"""The setting of an experiment: what is trained with every seed, and what is measured of each run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stackrev.config import LengthRange, to_dict
from stackrev.errors import ConfigError, FileError, MissingFileError, StudyError, StudyNotFoundError
from stackrev.experiments.measurements import MEASUREMENTS
from stackrev.kinds.config import Config, read_config
from stackrev.storage import files
from stackrev.tasks.data import task_of

SETTING = "setting.json"
LARGEST = 2**20
"""How many bytes a `setting.json` may have."""


@dataclass(frozen=True)
class ExperimentSetting:
    """What an experiment runs.

    Attributes:
        name: What it is called.
        config: What is trained; its seed counts for nothing.
        asked: What is measured, by the names of `MEASUREMENTS`.
        environment: What, besides the setting, may decide the last bits; where it was first run.
    """

    name: str
    config: Config
    asked: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        task, length = task_of(self.config.data), self.asked.get("runs_of_each")
        for name in ("exact", "unseen"):
            if self.asked.get(name) and not task.knows:
                raise ConfigError(
                    f"nobody knows the answers of {task.name} to other strings", hint=f"leave out --{name}"
                )
        unseen = self.asked.get("unseen")
        ranges = [*(self.asked.get("exact") or ()), *([unseen["lengths"]] if unseen else ())]
        for lengths in map(LengthRange.parse, ranges):
            if not task.has_source(lengths):
                refused = task.no_source(lengths)
                raise ConfigError(refused.message, hint=refused.hint)
        if length and not (task.uniform and length % task.length_step == 0):
            raise ConfigError(
                f"{task.name} has no string of {length:,} times one symbol", hint="leave out --runs-of-each"
            )

    def seeded(self, seed: int) -> Config:
        """The configuration of a seed."""
        return replace(self.config, training=replace(self.config.training, seed=seed))

    def same(self, other: ExperimentSetting) -> bool:
        """Whether another setting gives the same results, whatever it is called."""
        measured = [{name: what for name, what in each.asked.items() if what} for each in (self, other)]
        return self.seeded(0) == other.seeded(0) and measured[0] == measured[1]

    def to_dict(self) -> dict[str, Any]:
        """The setting as plain JSON values."""
        config = to_dict(self.config)
        del config["training"]["seed"]
        return {"name": self.name, "config": config, "exact": {}, **self.asked}

    @classmethod
    def from_dict(cls, raw: Any, *, name: str = "") -> ExperimentSetting:
        """Read a setting strictly.

        Args:
            raw: What `json.load` gave.
            name: What it is called if it does not say.

        Raises:
            ConfigError: It is not one.
        """
        if not isinstance(raw, dict) or "config" not in raw:
            raise ConfigError("the setting has no configuration")
        name, environment = raw.get("name", name), raw.get("environment", {})
        if not isinstance(name, str) or not isinstance(environment, dict):
            raise ConfigError("the setting's name is not a text, or its environment not an object")
        if unknown := raw.keys() - MEASUREMENTS.keys() - {"name", "config", "environment"}:
            raise ConfigError(f"the setting has the unknown key {min(unknown)!r}", hint="a later version may know it")
        asked = {key: each.check(raw[key]) for key, each in MEASUREMENTS.items() if key in raw}
        return cls(name, read_config(raw["config"]), asked, environment)


def read_json(path: Path, limit: int) -> Any:
    """What a file of JSON holds, NaN and the like refused.

    Raises:
        MissingFileError: There is none.
        StudyError: It is not JSON.
    """
    try:
        return parse_json(files.read_bytes(path, limit))
    except MissingFileError:
        raise
    except FileError as error:
        raise StudyError(error.message, hint=error.hint) from error
    except ValueError as error:
        raise StudyError(f"{path} is not JSON", hint="move it away") from error


def parse_json(data: bytes) -> Any:
    """A JSON value.

    Raises:
        ValueError: It is none, is nested too deeply, or has numbers that are not finite.
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not a number")

    try:
        return json.loads(data, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_setting(folder: Path) -> ExperimentSetting:
    """The setting of an experiment's folder.

    Raises:
        StudyError: There is none, or it cannot be read.
    """
    try:
        return ExperimentSetting.from_dict(read_json(folder / SETTING, LARGEST), name=folder.name)
    except MissingFileError:
        raise StudyNotFoundError(f"{folder} holds no experiment", hint="stackrev experiment run starts one") from None
    except ConfigError as error:
        raise StudyError(f"{folder / SETTING}: {error.message}", hint=error.hint) from error
