"""Named settings: what the experiments of this project change of a kind's default one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stackrev.config import LengthRange, settings, to_dict
from stackrev.errors import ConfigError, did_you_mean
from stackrev.kinds.config import Config, read_config
from stackrev.storage.pairs import complete
from stackrev.tasks import TASKS
from stackrev.tasks.data import DataConfig, PairsConfig
from stackrev.tasks.pairs import Pairs

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "plain settling": {"training.settle": "plain"},
    "width 32": {"model.hidden_size": 32, "model.stack_width": 32},
    "width 128": {"model.hidden_size": 128, "model.stack_width": 128},
    "batch 25": {"training.batch_size": 25},
    "batch 100": {"training.batch_size": 100},
    "rate halved": {"training.learning_rate": Config().training.learning_rate / 2},
    "rate doubled": {"training.learning_rate": Config().training.learning_rate * 2},
    "two layers": {"model.layers": 2},
    "three layers": {"model.layers": 3},
    "AdamW": {"training.optimizer": "adamw", "training.weight_decay": 0.01},
    "RMSprop": {"training.optimizer": "rmsprop", "training.learning_rate": 2e-3},
    "SGD": {"training.optimizer": "sgd", "training.learning_rate": 0.5, "training.momentum": 0.9},
    "published": {
        "model.initialisation": "torch",
        "model.gate_stretch": 0.0,
        "model.gate_noise": 0.0,
        "model.string_noise": 0.0,
        "model.push_bias": 0.0,
        "model.pop_bias": 0.0,
        "model.shared_controls": True,
        "training.learning_rate": 1e-3,
        "training.schedule": "constant",
        "training.warmup_batches": 0,
        "training.recurrent_l1": 0.0,
        "training.settle": "plain",
        "training.settle_temperature": 1.0,
        "training.curriculum_start": None,
        "training.mixed_lengths": False,
        "training.batches": 3000,
    },
}
"""Named settings of the stack-LSTM, as changes to its default one."""

TABLE = ("default", "width 32", "width 128", "batch 25", "batch 100", "rate halved", "rate doubled", "two layers")
"""The rows of the robustness table."""


def preset(name: str) -> dict[str, Any]:
    """The changes of a named setting.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no setting {name!r}", hint=did_you_mean(name, list(PRESETS)))
    return PRESETS[name]


def configure(kind: str, changes: Mapping[str, Any]) -> Config:
    """The default configuration of a kind of model with some of its values changed.

    Args:
        kind: The kind of model.
        changes: Values by their names, with the name of their section or without.

    Raises:
        ConfigError: A name is unknown or a value wrong.
    """
    aliases, task = settings(DataConfig)["task"].aliases, changes.get("task", changes.get("data.task"))
    task = aliases.get(task, task) if isinstance(task, str) else None
    default = Config.default(kind, task if task in (*TASKS, Pairs.name) else None)
    raw = to_dict(default)
    for key, value in changes.items():
        section, dot, name = key.partition(".")
        if not dot:
            section = next((each for each in raw if key in raw[each]), "")
            name = key
        if section not in raw:
            hint = did_you_mean(name, [each for section in raw.values() for each in section])
            raise ConfigError(f"there is no setting {key!r}", hint=hint)
        raw[section][name] = _lengths(value) if name.endswith("lengths") else value
    task = raw["data"]["task"]
    if isinstance(task, str):
        raw["data"]["task"] = task = aliases.get(task, task)
    if isinstance(task, str) and task in TASKS:
        raw["model"]["vocabulary_size"] = TASKS[task].size
    config = read_config(raw)
    if isinstance(config.data, PairsConfig):
        found = complete(config.data, given={name.removeprefix("data.") for name in changes})
        config = Config.fitted(data=found, model=config.model, training=config.training)
    return config


def _lengths(value: Any) -> Any:
    """A range of lengths, if it is written as one."""
    return to_dict(LengthRange.parse(value)) if isinstance(value, str) and "-" in value else value


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """The values of `training.learning_rate=0.004` and the like: JSON where they are, and otherwise strings.

    Raises:
        ConfigError: A text has no value.
    """
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} has no value", hint="write it as in learning_rate=0.004")
        try:
            changes[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            changes[key.strip()] = value
    return changes


def parse_seeds(text: str) -> list[int]:
    """The seeds of `0-99`, `3` or `0-9,20,30-39`, in order, each once.

    Raises:
        ConfigError: It is no list of seeds.
    """
    try:
        ranges = [LengthRange.parse(part) for part in text.split(",")]
    except ConfigError:
        raise ConfigError(f"{text!r} is not a list of seeds", hint="write 0-99, or 3,5,10-19") from None
    if sum(each.maximum - each.minimum + 1 for each in ranges) > MOST_SEEDS:
        raise ConfigError(f"{text} are more than {MOST_SEEDS:,} seeds", hint="ask for fewer")
    return sorted({seed for each in ranges for seed in range(each.minimum, each.maximum + 1)})


MOST_SEEDS = 1_000_000
"""How many seeds may be asked for at once."""
