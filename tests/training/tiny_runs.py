"""Runs of moments, and what is compared of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from shapes import shape_of
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.kinds.config import Config
from stackrev.tasks.data import DataConfig
from stackrev.training.events import Event
from stackrev.training.trainer import Trainer
from stackrev.training_config import TrainingConfig

DATA = DataConfig(
    lengths=LengthRange(minimum=2, maximum=5), test_lengths=LengthRange(minimum=6, maximum=8), held_out_samples=6
)
PLAIN = TrainingConfig(
    seed=0,
    batches=7,
    batch_size=4,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="constant",
    warmup_batches=0,
    clip_norm=math.inf,
    curriculum_start=None,
    recurrent_l1=0.0,
    settle_temperature=1.0,
    check_every=3,
    settle_batches=None,
    device="cpu",
)


def tiny(kind: str = "stack-lstm", **changes: Any) -> Config:
    """A run of moments; `changes` are of its training."""
    model = shape_of(kind, hidden_size=6, stack_width=5, gate_stretch=0.05, gate_noise=1.0, string_noise=0.0)
    return Config(data=DATA, model=model, training=dataclasses.replace(PLAIN, **changes))


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in trainer.model.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, each in first.items():
        assert torch.equal(each, second[name]), name


def timeless(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in history]


class Stop(Exception):
    """What a listener raises."""


def stop_after(batch: int, kind: type[Event]) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if isinstance(event, kind) and event.batch == batch:
            raise Stop

    return listen
