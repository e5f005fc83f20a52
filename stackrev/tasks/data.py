"""Which strings a model learns from and is tested on, as settings. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from stackrev.config import LengthRange, Settings, setting
from stackrev.errors import ConfigError
from stackrev.tasks import REVERSAL, TASKS
from stackrev.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Which strings a model learns from and is tested on.

    Training draws from `lengths` for ever; the held-out sets are `held_out_samples` strings each, fixed by
    `held_out_seed`, and are never drawn in training.
    """

    task: str = setting(
        REVERSAL.name, "What is to be learned.", choices=tuple(TASKS), aliases={"reverse": REVERSAL.name}
    )
    lengths: LengthRange = setting(LengthRange(minimum=8, maximum=64), "Lengths to train on and to validate with.")
    test_lengths: LengthRange = setting(LengthRange(minimum=65, maximum=128), "Lengths to test with.")
    held_out_samples: int = setting(1000, "Strings in the validation and in the test set.", low=1, high=1_000_000)
    held_out_seed: int = setting(0, "The seed that these are drawn with.", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lengths.maximum < 1:
            raise ConfigError("lengths must reach at least 1")


def task_of(config: DataConfig) -> Task:
    """The task that a configuration is about."""
    return TASKS[config.task]
