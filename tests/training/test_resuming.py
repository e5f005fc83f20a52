"""A run can stop anywhere and go on as if it had not."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_runs import Stop, assert_same, stop_after, timeless, tiny, weights
from torch import Tensor

from stackrev.errors import TrainingError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.training.events import BatchEvent, CheckEvent, Event
from stackrev.training.trainer import Trainer, train


def snapshot(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as it would come back from a file."""
    tensors, description = trainer.state()
    return {name: each.clone() for name, each in tensors.items()}, json.loads(json.dumps(description))


@functools.cache
def uninterrupted(config: Config) -> Trainer:
    return train(config)


def test_a_run_whose_weights_grow_goes_on_bit_for_bit() -> None:
    def started() -> Trainer:
        trainer = Trainer(tiny(settle_batches=5, settle_growth=0.1, settle_rate=0.5, symbol_noise=0.3))
        trainer.progress.solved_batch = 1
        return trainer

    whole, stopped, resumed = started(), started(), started()
    whole.run()
    with pytest.raises(Stop):
        stopped.run(stop_after(3, BatchEvent))
    resumed.restore(*snapshot(stopped))
    resumed.run()
    assert whole.progress.batch == 6
    assert_same(weights(resumed), weights(whole))


@pytest.mark.parametrize("where", [(2, BatchEvent), (3, BatchEvent), (3, CheckEvent), (4, BatchEvent), (7, BatchEvent)])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "schedule": "cosine"},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "sgd"},
        {"optimizer": "rmsprop", "momentum": 0.9, "warmup_batches": 5},
        {"optimizer": "adamw", "weight_decay": 0.1, "curriculum_start": 1, "curriculum_loss": 100.0},
        {"optimizer": "adam", "symbol_noise": 0.3, "curriculum_start": 3, "curriculum_loss": 100.0, "least_share": 0.6},
    ],
    ids=lambda each: "-".join(map(str, each.values())),
)
def test_a_run_goes_on_bit_for_bit(changes: dict[str, Any], where: tuple[int, type[Event]]) -> None:
    config = tiny(**changes)
    whole = uninterrupted(config)
    stopped = Trainer(config)
    with pytest.raises(Stop):
        stopped.run(stop_after(*where))
    tensors, description = snapshot(stopped)
    resumed = Trainer(config)
    resumed.restore(tensors, description)
    events: list[Event] = []
    resumed.run(events.append)
    assert_same(weights(resumed), weights(whole))
    assert timeless(resumed.progress.history) == timeless(whole.progress.history)
    checks = [each.batch for each in events if isinstance(each, CheckEvent)]
    assert checks == [each for each in (3, 6, 7) if each > where[0] or where == (each, BatchEvent)]
    assert [each.batch for each in events if isinstance(each, BatchEvent)] == list(range(where[0] + 1, 8))
    assert resumed.progress.seconds > description["progress"]["seconds"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_trainer_goes_on_after_an_interruption(kind: str) -> None:
    whole, trainer = train(tiny(kind, optimizer="adam")), Trainer(tiny(kind, optimizer="adam"))
    for where in ((2, BatchEvent), (3, BatchEvent), (3, CheckEvent), (6, BatchEvent)):
        with pytest.raises(Stop):
            trainer.run(stop_after(*where))
    trainer.run()
    assert_same(weights(trainer), weights(whole))
    assert timeless(trainer.progress.history) == timeless(whole.progress.history)


def test_a_state_is_a_value() -> None:
    config = tiny(optimizer="adam")
    trainer = Trainer(config)
    with pytest.raises(Stop):
        trainer.run(stop_after(4, BatchEvent))
    state = trainer.state()
    before = copy.deepcopy(state)
    trainer.run()
    for _ in range(2):  # neither the run it was taken of nor one it was put into changes it
        assert_same(state[0], before[0])
        assert state[1] == before[1]
        resumed = Trainer(config)
        resumed.restore(*state)
        resumed.run()
        assert_same(weights(resumed), weights(trainer))


def test_a_state_is_tensors_and_json() -> None:
    tensors, description = train(tiny(optimizer="adam")).state()
    assert all(isinstance(each, Tensor) for each in tensors.values())
    assert json.loads(json.dumps(description)) == description
    assert description["config"]["training"]["optimizer"] == "adam"
    assert description["progress"]["batch"] == 7


def without(name: str) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    return lambda tensors, _: [tensors.pop(name)].clear()


@pytest.mark.parametrize(
    "spoil",
    [
        without("model.logits.weight"),
        without("generator.batches"),
        lambda tensors, _: tensors.update({"model.logits.weight": torch.zeros(2, 2)}),
        lambda tensors, _: tensors.update({"generator.noise": torch.zeros(3, dtype=torch.uint8)}),
        lambda tensors, _: tensors.update({"optimizer.exp_avg.nothing": torch.zeros(3)}),
        lambda tensors, _: tensors.update({"right.logits.weight": torch.zeros(3)}),
        lambda tensors, _: tensors.update(
            {name.replace("model.", "right."): torch.zeros(3) for name in tensors if name.startswith("model.")}
        ),
        lambda _, description: description.pop("progress"),
        lambda _, description: description["progress"].update({"bach": 3}),
    ],
)
def test_a_state_that_does_not_fit(spoil: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    config = tiny(optimizer="adam")
    tensors, description = snapshot(uninterrupted(config))
    spoil(tensors, description)
    with pytest.raises(TrainingError, match="does not fit the configuration") as caught:
        Trainer(config).restore(tensors, description)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["model.logits.weight", "generator.batches", "optimizer.exp_avg.logits.weight"])
def test_what_a_state_lacks_is_named(name: str) -> None:
    config = tiny(optimizer="adam")
    tensors, description = snapshot(uninterrupted(config))
    del tensors[name]
    with pytest.raises(TrainingError, match=rf"does not fit the configuration: {name} is missing$"):
        Trainer(config).restore(tensors, description)


def test_a_state_of_another_model() -> None:
    with pytest.raises(TrainingError, match="does not fit"):
        Trainer(tiny("lstm")).restore(*train(tiny("stack-lstm")).state())
