"""The configuration of a whole run: data, model and training; and how older files are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from stackrev.config import READER, Setting, Settings, from_dict, settings
from stackrev.errors import ConfigError
from stackrev.kinds import KINDS, kind_of
from stackrev.kinds.base import BaselineConfig, ModelConfig
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.tasks.data import DataConfig, read_data, task_of, with_task
from stackrev.training_config import TrainingConfig

VERSION = 2
"""Version 1 of a stored configuration had every kind's settings in each model, and one name for two widths."""


def read_model(raw: object, where: str) -> ModelConfig:
    """Read a model's configuration, of the kind that it names, strictly; see `config.from_dict`.

    Raises:
        ConfigError: There is no such kind, or a setting is not one of its own.
    """
    kind = raw.get("kind", StackLSTMConfig.kind) if isinstance(raw, Mapping) else StackLSTMConfig.kind
    if not (isinstance(kind, str) and kind in KINDS):
        raise ConfigError(f"{where}.kind is {kind!r}", hint=f"it must be one of {', '.join(KINDS)}")
    return from_dict(KINDS[kind].configuration, raw, where=where)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that determines a run: the same Config on the same machine gives the same weights."""

    data: DataConfig = field(default_factory=DataConfig, metadata={READER: read_data})
    model: ModelConfig = field(default_factory=StackLSTMConfig, metadata={READER: read_model})
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        size = task_of(self.data).size
        if self.model.vocabulary_size != size:
            raise ConfigError(
                f"vocabulary_size is {self.model.vocabulary_size:,}",
                hint=f"the task {self.data.task} has {size:,} symbols and markers",
            )
        if self.training.cell_l2 and not self.model.penalises_cells:
            raise ConfigError(
                f"cell_l2 is {self.training.cell_l2:g}, and there is no such penalty for the model {self.model.kind}",
                hint="give --cell-l2 0 (cell_l2=0), or choose a model with a stack, a queue or a deque",
            )

    @classmethod
    def fitted(cls, *, data: DataConfig, model: ModelConfig, training: TrainingConfig) -> Config:
        """A configuration whose model has as many ids as the task needs.

        Args:
            data: What is learned.
            model: The model, for any number of ids.
            training: How it is trained.
        """
        return cls(data=data, model=replace(model, vocabulary_size=task_of(data).size), training=training)

    @classmethod
    def default(cls, kind: str, task: str | None = None) -> Config:
        """The tuned setting of each kind of model, for its own task or for another.

        Raises:
            ConfigError: There is no such kind, or no such task.
        """
        found = kind_of(kind)
        data = with_task(DataConfig(task=found.task), task or found.task)
        tuned = {**data.training, **found.tasks.get(data.task, {})}
        return cls.fitted(data=data, model=_with(found.model, tuned), training=_with(found.training, tuned))

    def for_task(self, task: str) -> Config:
        """The same run for another task: what is at the old one's default is then at the new one's."""
        if task == self.data.task:
            return self
        old, new = (Config.default(self.model.kind, each) for each in (self.data.task, task))
        model = _moved(self.model, old.model, new.model)
        training = _moved(self.training, old.training, new.training)
        return Config.fitted(data=with_task(self.data, task), model=model, training=training)


_Section = TypeVar("_Section", bound=Settings)


def _with(given: _Section, changes: Mapping[str, Any]) -> _Section:
    """The given settings with those of the changes that are among them."""
    return replace(given, **{name: changes[name] for name in changes.keys() & settings(type(given)).keys()})


def _moved(given: _Section, old: _Section, new: _Section) -> _Section:
    """The given settings, but as `new` has them where they are as `old` has them."""
    names = [name for name in settings(type(given)) if getattr(given, name) == getattr(old, name)]
    return replace(given, **{name: getattr(new, name) for name in names})


SECTIONS = tuple(each.name for each in fields(Config))
"""The parts of a configuration; no two of them have a setting of the same name."""


def settings_of(config: Config) -> dict[str, tuple[str, Setting]]:
    """Every setting that a run of this kind of model has, by name, with the section it is in."""
    return {
        name: (section, each) for section in SECTIONS for name, each in settings(type(getattr(config, section))).items()
    }


def from_version_1(raw: object) -> object:
    """A stored configuration of version 1 in the words of this version.

    There, every model had the settings of the stack-LSTM, and `stack_width` was the width of a baseline's embedding.

    Raises:
        ConfigError: A setting that is left out here has a value that it never took.
    """
    if not (isinstance(raw, Mapping) and isinstance(raw.get("model"), Mapping)):
        return raw
    model: dict[str, Any] = dict(raw["model"])
    name = model.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None or not issubclass(kind.configuration, BaselineConfig):
        return raw
    foreign = settings(StackLSTMConfig).keys() - settings(kind.configuration).keys()
    dropped = {key: model.pop(key) for key in foreign & model.keys()}
    read = from_dict(StackLSTMConfig, dropped, where="config.model")
    if "stack_width" in dropped:
        model["embedding_width"] = read.stack_width
    return {**raw, "model": model}


def read_config(raw: object, *, version: int | None = None) -> Config:
    """Read a stored configuration of any version.

    Args:
        raw: What `json.load` gave.
        version: Its version; None where the file does not tell. Whatever wrote version 2 wrote `vocabulary_size`.

    Raises:
        ConfigError: As of `config.from_dict`; or the model has another vocabulary than the task.
    """
    if version is None:
        model = raw.get("model") if isinstance(raw, Mapping) else None
        version = 1 if isinstance(model, Mapping) and "vocabulary_size" not in model else VERSION
    return from_dict(Config, from_version_1(raw) if version == 1 else raw)
