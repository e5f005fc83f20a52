"""Which strings a model learns from and is tested on, as settings. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from stackrev.config import READER, LengthRange, Settings, from_dict, setting, settings
from stackrev.errors import ConfigError
from stackrev.tasks import REVERSAL, TASKS
from stackrev.tasks.base import Task
from stackrev.tasks.pairs import Pairs
from stackrev.tasks.vocabulary import Vocabulary

Tokens = Literal["chars", "words"]
MOST_SYMBOLS = 20_000
"""The most different characters or words that a file of pairs may have."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Which strings a model learns from and is tested on.

    Training draws from `lengths` for ever; the held-out sets are `held_out_samples` strings each, fixed by
    `held_out_seed`, and are never drawn in training.

    `training` has the settings of training that are otherwise than the model's own where nothing else is said.
    """

    training: ClassVar[Mapping[str, Any]] = {}

    task: str = setting(
        REVERSAL.name, "What is to be learned.", choices=(*TASKS, Pairs.name), aliases={"reverse": REVERSAL.name}
    )
    lengths: LengthRange = setting(LengthRange(minimum=8, maximum=64), "Lengths to train on and to validate with.")
    test_lengths: LengthRange = setting(LengthRange(minimum=65, maximum=128), "Lengths to test with.")
    held_out_samples: int = setting(1000, "Strings in the validation and in the test set.", low=1, high=1_000_000)
    held_out_seed: int = setting(0, "The seed that these are drawn with.", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lengths.maximum < 1:
            raise ConfigError("lengths must reach at least 1")
        if (self.task == Pairs.name) != isinstance(self, PairsConfig):
            raise ConfigError(f"the task {self.task} has other settings", hint="task pairs is for pairs alone")


def _read_symbols(raw: object, where: str) -> tuple[str, ...]:
    if not (isinstance(raw, list | tuple) and all(isinstance(each, str) and each for each in raw)):
        raise ConfigError(f"{where} must be a list of texts")
    if len(set(raw)) < len(raw) or len(raw) > MOST_SYMBOLS:
        raise ConfigError(f"{where} must be at most {MOST_SYMBOLS:,} different texts")
    return tuple(raw)


def _read_checksums(raw: object, where: str) -> dict[str, str]:
    if not (isinstance(raw, Mapping) and all(isinstance(each, str) for item in raw.items() for each in item)):
        raise ConfigError(f"{where} must be an object of texts")
    return dict(raw)


@dataclass(frozen=True, kw_only=True)
class PairsConfig(DataConfig):
    """Pairs of an input and a target from a file of the user's own.

    `symbols`, `expansion`, `checksums` and the lengths follow from the files; see `storage/pairs`. Of the file's pairs
    a tenth, and `held_out_samples` at most, become the validation set and as many the test set, unless these have
    files of their own. There are only so many pairs: those of some length may be too few to begin with, so training
    draws from all of them from the start.

    Attributes:
        symbols: The characters or words of the file, in the order of their ids.
        expansion: How many symbols are written at most for each that is read; see `Pairs.most_written`.
        checksums: The SHA-256 of each file, by the name of its setting.
    """

    training: ClassVar[Mapping[str, Any]] = {"curriculum_start": None}

    task: str = setting("pairs", "What is to be learned.", choices=("pairs",))
    data: str | None = setting(None, 'For --task pairs: a file of pairs, {"input": ..., "target": ...} a line.')
    validation: str | None = setting(None, "For --task pairs: another such file to validate with.")
    test: str | None = setting(None, "For --task pairs: another such file to test with.")
    tokens: Tokens = setting("chars", "For --task pairs: what the symbols of a text are.")
    symbols: tuple[str, ...] = field(default=(), metadata={READER: _read_symbols})
    expansion: int = setting(2, "Symbols that are written at most for each that is read.", low=2, option=False)
    checksums: Mapping[str, str] = field(default_factory=dict, metadata={READER: _read_checksums})


def data_class(task: object) -> type[DataConfig]:
    """The class of the data settings of a task, by the task's name."""
    return PairsConfig if task == Pairs.name else DataConfig


def read_data(raw: object, where: str) -> DataConfig:
    """Read data settings strictly; see `config.from_dict`."""
    return from_dict(data_class(raw.get("task") if isinstance(raw, Mapping) else None), raw, where=where)


def with_task(config: DataConfig, task: str) -> DataConfig:
    """The same data settings for another task, as far as it has them."""
    cls = data_class(task)
    if cls is type(config):
        return dataclasses.replace(config, task=task)
    shared: dict[str, Any] = {name: getattr(config, name) for name in settings(DataConfig) if name != "task"}
    return cls(task=task, **shared)


def task_of(config: DataConfig) -> Task:
    """The task that a configuration is about; of pairs, without what a file holds (see `storage.pairs.open_task`)."""
    if isinstance(config, PairsConfig):
        return Pairs(Vocabulary.of(config.symbols, words=config.tokens == "words"), expansion=config.expansion)
    return TASKS[config.task]
