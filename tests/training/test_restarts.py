"""Runs that start over with new weights where hardly anything is right."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tiny_runs import PLAIN, Stop, assert_same, stop_after, timeless, tiny, weights

from stackrev.models import build
from stackrev.training import trainer as training
from stackrev.training.events import BatchEvent, CheckEvent, Event
from stackrev.training.schedules import last_start, learning_rate, rate_of, same_with_more, sharpening
from stackrev.training.trainer import Trainer, train
from stackrev.training_config import TrainingConfig


def history(*coarse: tuple[int, float, float]) -> list[dict[str, Any]]:
    """Checks after so many batches, with so much of the validation and of the test strings right."""
    return [{"batch": batch, "validation": {"coarse": one}, "test": {"coarse": other}} for batch, one, other in coarse]


def restarting(**changes: Any) -> TrainingConfig:
    return dataclasses.replace(PLAIN, restart_batches=6, **changes)


@pytest.mark.parametrize(
    ("checks", "start"),
    [
        ([], 0),
        ([(3, 0.0, 0.0)], 0),
        ([(3, 0.0, 0.0), (6, 0.0, 0.0)], 6),
        ([(3, 0.0, 0.0), (8, 0.0, 0.0), (13, 0.0, 0.0)], 8),
        ([(3, 0.0, 0.0), (8, 0.0, 0.0), (14, 0.0, 0.0)], 14),
        ([(6, 0.49, 1.0)], 6),
        ([(6, 1.0, 0.49)], 6),
        ([(6, 0.5, 0.5), (12, 0.0, 0.0)], 0),
        ([(3, 0.5, 0.5), (6, 0.0, 0.0)], 0),
        ([(6, 0.0, 0.0), (9, 0.6, 0.6), (12, 0.0, 0.0)], 6),
    ],
)
def test_a_run_starts_over_where_less_than_half_is_right(checks: list[tuple[int, float, float]], start: int) -> None:
    assert last_start(restarting(), history(*checks)) == start
    assert last_start(PLAIN, history(*checks)) == 0


def test_the_schedule_starts_over_too() -> None:
    few = restarting(schedule="linear", learning_rate=1.0, batches=16, warmup_batches=2)
    rates = [rate_of(few, batch, 6) for batch in range(6, 16)]
    assert rates == [rate_of(dataclasses.replace(few, batches=10), batch) for batch in range(10)]
    checks = history((6, 0.0, 0.0))
    assert [learning_rate(few, checks, None, batch) for batch in range(6, 16)] == rates
    assert learning_rate(few, [], None, 7) == rate_of(few, 7)
    assert [learning_rate(few, checks, None, batch) for batch in range(6)] == [rate_of(few, each) for each in range(6)]


def test_a_run_that_starts_over_has_the_rates_of_its_schedule() -> None:
    config = tiny(restart_batches=4, batches=16, schedule="linear", learning_rate=1.0, warmup_batches=2)
    found = [line["learning_rate"] for line in train(config).progress.history]
    starts = {3: 0, 6: 0, 9: 6, 12: 6, 15: 12, 16: 12}
    expected = [rate_of(config.training, batch - 1, start) for batch, start in starts.items()]
    assert found == expected


def test_what_was_right_before_is_forgotten() -> None:
    early = restarting(sharpen_from=0.2)
    checks = history((3, 0.3, 0.3), (6, 0.0, 0.0))
    assert sharpening(early, checks[:1])
    assert not sharpening(early, checks)
    assert sharpening(early, [*checks, *history((9, 0.2, 0.2))])


def test_new_weights_are_the_next_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def recorded(*args: Any) -> Any:
        drawn.append(build(*args))
        return drawn[-1]

    monkeypatch.setattr(training, "build", recorded)
    config = tiny(restart_batches=4, batches=12, curriculum_start=3, curriculum_loss=100.0, optimizer="adam")
    trainer = Trainer(config)
    events: list[Event] = []
    with pytest.raises(Stop):
        trainer.run(lambda event: (events.append(event), stop_after(6, CheckEvent)(event)))
    assert len(drawn) == 1
    assert trainer.progress.longest == 5
    assert [event.restarts for event in events if isinstance(event, CheckEvent)] == [False, True]
    with pytest.raises(Stop):
        trainer.run(stop_after(7, BatchEvent))
    assert len(drawn) == 2
    assert trainer.progress.longest == 4
    again = Trainer(config)
    again._start_over()
    assert_same(drawn[1].state_dict(), drawn[3].state_dict())
    assert_same(weights(again), drawn[3].state_dict())
    assert not torch.equal(drawn[0].logits.weight, again.model.logits.weight)
    before = weights(again)
    again._start_over()
    assert not torch.equal(before["logits.weight"], again.model.logits.weight)


def test_an_optimizer_starts_over_too() -> None:
    trainer = Trainer(tiny(restart_batches=4, batches=12, optimizer="adam"))
    fresh = {name: each.clone() for name, each in trainer.optimizer.state().items()}
    with pytest.raises(Stop):
        trainer.run(stop_after(6, CheckEvent))
    trainer._start_over()
    assert_same(trainer.optimizer.state(), fresh)


@pytest.mark.parametrize("stop", [(6, CheckEvent), (6, BatchEvent), (5, BatchEvent), (7, BatchEvent)])
def test_a_run_resumes_about_a_restart_bit_for_bit(stop: tuple[int, type[Event]]) -> None:
    config = tiny(restart_batches=4, batches=14, optimizer="adam", curriculum_start=3, schedule="linear")
    whole, first = train(config), Trainer(config)
    with pytest.raises(Stop):
        first.run(stop_after(*stop))
    second = Trainer(config)
    second.restore(*first.state())
    second.run()
    assert_same(weights(second), weights(whole))
    assert timeless(second.progress.history) == timeless(whole.progress.history)
    assert last_start(config.training, whole.progress.history) == 12


def test_a_run_that_ends_keeps_its_weights() -> None:
    config = tiny(restart_batches=6, batches=6)
    events: list[Event] = []
    ended, plain = Trainer(config), train(tiny(batches=6))
    ended.run(events.append)
    assert_same(weights(ended), weights(plain))
    assert isinstance(events[-1], CheckEvent)
    assert not events[-1].restarts


@pytest.mark.parametrize(("batches", "alike"), [(6, True), (7, False)])
def test_a_run_that_ends_where_it_would_start_over_does_so_with_more_batches(batches: int, alike: bool) -> None:
    """A check after the last batch that a run with more batches would not have had changes when it starts over."""
    first, longer = train(tiny(restart_batches=batches, batches=batches)), tiny(restart_batches=batches, batches=14)
    resumed, whole = Trainer(longer), train(longer)
    resumed.restore(*first.state())
    with pytest.raises(Stop):
        resumed.run(stop_after(batches + 1, BatchEvent))
    assert not torch.equal(resumed._generators["weights"].get_state(), first._generators["weights"].get_state())
    resumed.run()
    same = all(torch.equal(each, weights(whole)[name]) for name, each in weights(resumed).items())
    assert same is alike
    assert not same_with_more(first.config.training, first.progress.history, None, batches)


@pytest.mark.parametrize(
    ("changes", "checks", "solved", "batch", "same"),
    [
        ({"restart_batches": None}, [(3, 0.0, 0.0), (7, 0.0, 0.0)], None, 7, True),
        ({}, [(3, 0.0, 0.0), (7, 0.0, 0.0)], None, 7, False),
        ({}, [(3, 0.0, 0.0), (7, 0.6, 0.6)], None, 7, False),
        ({}, [(3, 0.5, 0.5), (7, 0.0, 0.0)], None, 7, True),
        ({}, [(3, 0.0, 0.0)], None, 5, True),
        ({"schedule": "linear"}, [(3, 0.5, 0.5)], None, 5, False),
        ({"sharpen_from": 0.7}, [(3, 0.5, 0.5), (7, 0.8, 0.8)], None, 7, False),
        ({"sharpen_from": 0.7}, [(3, 0.8, 0.8), (7, 0.8, 0.8)], None, 7, True),
        ({}, [(3, 0.5, 0.5), (7, 1.0, 1.0)], 7, 7, False),
        ({"batches": 6}, [(3, 0.0, 0.0), (6, 0.0, 0.0)], None, 6, False),
        ({"batches": 6}, [(3, 0.5, 0.5), (6, 0.0, 0.0)], None, 6, True),
        ({"batches": 6, "sharpen_from": 0.7}, [(3, 0.5, 0.5), (6, 0.5, 0.5)], None, 6, False),
        ({"batches": 9}, [(3, 0.5, 0.5), (7, 0.5, 0.5), (9, 0.5, 0.5)], None, 9, False),
        ({"batches": 9}, [(3, 0.5, 0.5), (7, 0.5, 0.5)], None, 8, False),
        ({"batches": 6}, [(3, 0.5, 0.5), (6, 1.0, 1.0)], 6, 6, True),
        ({}, [(3, 0.5, 0.5), (6, 1.0, 1.0), (7, 1.0, 1.0)], 6, 7, False),
        ({"batches": 9}, [(3, 0.5, 0.5), (6, 1.0, 1.0), (9, 1.0, 1.0)], 6, 9, False),
        ({"batches": 9}, [(3, 0.5, 0.5), (6, 1.0, 1.0)], 6, 8, True),
        ({"batches": 9}, [(3, 0.5, 0.5), (6, 1.0, 1.0), (8, 1.0, 1.0)], 6, 8, True),
        ({}, [], None, 2, True),
        ({}, [], 3, 4, True),
    ],
)
def test_with_more_batches_a_run_goes_on_as_if_it_had_had_them(
    changes: dict[str, Any], checks: list[tuple[int, float, float]], solved: int | None, batch: int, same: bool
) -> None:
    training = dataclasses.replace(restarting(), **changes)
    assert same_with_more(training, history(*checks), solved, batch) is same
