"""The trainer: what each setting does."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_runs import DATA, Stop, assert_same, stop_after, timeless, tiny, weights
from torch import Tensor

from stackrev import kernels
from stackrev.config import LengthRange
from stackrev.errors import TrainingError
from stackrev.kinds import KINDS
from stackrev.models.devices import resolve_device
from stackrev.tasks import TASKS
from stackrev.tasks.batches import Batch
from stackrev.tasks.data import DataConfig
from stackrev.training import trainer as training
from stackrev.training.events import BatchEvent, CheckEvent, Event
from stackrev.training.trainer import Trainer, train

# --- The course of a run


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_from_start_to_end(kind: str) -> None:
    events: list[Event] = []
    trainer = train(tiny(kind), events.append)
    assert [(type(each), each.batch) for each in events] == [
        *((BatchEvent, 1), (BatchEvent, 2), (BatchEvent, 3), (CheckEvent, 3)),
        *((BatchEvent, 4), (BatchEvent, 5), (BatchEvent, 6), (CheckEvent, 6)),
        *((BatchEvent, 7), (CheckEvent, 7)),
    ]
    assert trainer.done
    assert trainer.progress.batch == 7
    checks = [each for each in events if isinstance(each, CheckEvent)]
    assert trainer.progress.history == [each.to_dict() for each in checks]
    losses = [each.loss for each in events if isinstance(each, BatchEvent)]
    assert [each.loss for each in checks] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:6]) / 3, losses[6]])
    assert [each.learning_rate for each in checks] == [0.1] * 3
    seconds = [each.seconds for each in checks]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_a_line_of_the_history_is_json() -> None:
    (first, *_) = train(tiny()).progress.history
    assert json.loads(json.dumps(first)) == first
    assert list(first) == ["batch", "loss", "learning_rate", "validation", "test", "seconds"]
    assert list(first["validation"]) == list(first["test"]) == ["coarse", "fine", "samples"]
    assert first["validation"]["samples"] == 6


def test_a_run_that_is_done_does_nothing() -> None:
    trainer = train(tiny())
    before, events = weights(trainer), list[Event]()
    trainer.run(events.append)
    assert not events
    assert_same(weights(trainer), before)


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("rnn", "adam"), ("rnn", "adamw"), ("rnn", "rmsprop"), ("rnn", "sgd"), ("lstm", "adam"), ("stack-lstm", "adam")],
)
def test_training_lowers_the_loss(kind: str, optimizer: Any) -> None:
    losses: list[float] = []
    rate = {"sgd": 0.5}.get(optimizer, 3e-2)
    config = tiny(kind, optimizer=optimizer, learning_rate=rate, batches=20, check_every=1000)
    train(config, lambda event: losses.append(event.loss))
    assert sum(losses[-4:]) < sum(losses[:4]) - 1


# --- The optimizers are what they say: one step by hand from the gradient that the step leaves behind


def first_step(**changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The weights before and after the first batch, and its gradients."""
    trainer = Trainer(tiny(batches=1, **changes))
    before = weights(trainer)
    with pytest.raises(Stop):
        trainer.run(stop_after(1, BatchEvent))
    gradients = {name: each.grad.clone() for name, each in trainer.model.named_parameters() if each.grad is not None}
    assert gradients.keys() == before.keys()
    return before, weights(trainer), gradients


STEPS: list[tuple[dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = [
    ({"optimizer": "sgd"}, lambda p, g: p - 0.1 * g),
    ({"optimizer": "sgd", "weight_decay": 0.5}, lambda p, g: p - 0.1 * (g + 0.5 * p)),
    ({"optimizer": "adam"}, lambda p, g: p - 0.1 * g / (g.abs() + 1e-8)),
    ({"optimizer": "adamw", "weight_decay": 0.5}, lambda p, g: p * (1 - 0.1 * 0.5) - 0.1 * g / (g.abs() + 1e-8)),
    ({"optimizer": "rmsprop"}, lambda p, g: p - 0.1 * g / ((0.01 * g * g).sqrt() + 1e-8)),
]


@pytest.mark.parametrize(("changes", "step"), STEPS, ids=lambda each: "-".join(each) if isinstance(each, dict) else "")
def test_the_first_step_by_hand(changes: dict[str, Any], step: Callable[[Tensor, Tensor], Tensor]) -> None:
    before, after, gradients = first_step(**changes)
    for name, gradient in gradients.items():
        torch.testing.assert_close(after[name], step(before[name], gradient), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_momentum_carries_on(optimizer: Any) -> None:
    still, moving = (
        train(tiny(optimizer=optimizer, momentum=momentum, learning_rate=1e-3, batches=2)) for momentum in (0.0, 0.9)
    )
    assert not torch.equal(still.model.logits.weight, moving.model.logits.weight)
    if optimizer == "sgd":  # the second step: v = 0.9 g_1 + g_2
        trainer = Trainer(tiny(optimizer="sgd", momentum=0.9, batches=2))
        steps, gradients = [trainer.model.logits.weight.detach().clone()], []

        def listen(event: Event) -> None:
            if isinstance(event, BatchEvent):
                steps.append(trainer.model.logits.weight.detach().clone())
                assert trainer.model.logits.weight.grad is not None
                gradients.append(trainer.model.logits.weight.grad.clone())

        trainer.run(listen)
        torch.testing.assert_close(steps[2], steps[1] - 0.1 * (0.9 * gradients[0] + gradients[1]))


def test_clipping() -> None:
    events: list[Event] = []
    trainer = Trainer(tiny(clip_norm=0.01))
    with pytest.raises(Stop):
        trainer.run(lambda event: (events.append(event), stop_after(1, BatchEvent)(event)))
    norm = torch.stack([each.grad.norm() for each in trainer.model.parameters() if each.grad is not None]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01), rtol=1e-3, atol=0)
    (event,) = events
    assert isinstance(event, BatchEvent)
    _, _, gradients = first_step()
    unclipped = torch.stack([each.norm() for each in gradients.values()]).norm()
    assert event.gradient_norm == pytest.approx(float(unclipped), rel=1e-4)
    assert event.gradient_norm > 0.1


def test_the_loss_is_the_mean_over_symbols_in_nats() -> None:
    events: list[Event] = []
    config = tiny(learning_rate=1e-9, batches=1)
    trainer = Trainer(config)
    with torch.no_grad():
        trainer.model.logits.weight.zero_()
        trainer.model.logits.bias.zero_()
    trainer.run(events.append)
    assert isinstance(events[0], BatchEvent)
    assert events[0].loss == pytest.approx(math.log(131), rel=1e-5)


# --- Learning rates


def rates(**changes: Any) -> list[float]:
    config = tiny(**changes)
    return [Trainer(config).learning_rate(batch) for batch in range(config.training.batches)]


def test_schedules() -> None:
    few = {"learning_rate": 1.0, "batches": 4}
    assert rates(schedule="constant", **few) == [1.0] * 4
    assert rates(schedule="linear", **few) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(schedule="cosine", **few) == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])
    assert rates(schedule="step", learning_rate=1.0, batches=6) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step"])
def test_warmup(schedule: Any) -> None:
    found = rates(schedule=schedule, learning_rate=0.5, batches=10, warmup_batches=4)
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4:] == pytest.approx(rates(schedule=schedule, learning_rate=0.5, batches=6))
    assert rates(schedule=schedule, learning_rate=0.5, batches=2, warmup_batches=2) == pytest.approx([1 / 6, 2 / 6])


def test_the_optimizer_uses_the_rate_of_its_batch() -> None:
    trainer = Trainer(tiny(schedule="linear", warmup_batches=2))
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, BatchEvent):
            assert trainer.optimizer.rate == trainer.learning_rate(event.batch - 1)
        else:
            found.append(event.learning_rate)

    trainer.run(listen)
    assert found == [trainer.learning_rate(batch) for batch in (2, 5, 6)]


# --- Seeds


def test_a_seed_decides_everything() -> None:
    before = torch.get_rng_state()
    first, again, other = (train(tiny(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(weights(first), weights(again))
    assert timeless(first.progress.history) == timeless(again.progress.history)
    assert not torch.equal(first.model.logits.weight, other.model.logits.weight)


def test_noise_and_batches_have_generators_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(gate_noise: float) -> list[Batch]:
        batches = record_batches(monkeypatch)
        config = tiny()
        train(
            dataclasses.replace(
                config, model=dataclasses.replace(config.model, gate_noise=gate_noise, string_noise=gate_noise)
            )
        )
        return batches

    noisy, silent = drawn(1.0), drawn(0.0)
    assert len(noisy) == len(silent) == 7
    assert all(torch.equal(a.source, b.source) for a, b in zip(noisy, silent, strict=True))
    assert not all(torch.equal(a.source, noisy[0].source) for a in noisy)


def record_batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """A list that fills with the batches that are drawn."""
    batches: list[Batch] = []
    monkeypatch.undo()
    draw = training.sample_batch

    def recording(*arguments: Any, **options: Any) -> Batch:
        batches.append(draw(*arguments, **options))
        return batches[-1]

    monkeypatch.setattr(training, "sample_batch", recording)
    return batches


def test_batches_are_as_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = record_batches(monkeypatch)
    trainer = train(tiny(mixed_lengths=False, batches=20))
    lengths = [set(each.steps.tolist()) for each in batches]
    assert all(len(each) == 1 for each in lengths)
    assert set.union(*lengths) == {3, 4, 5, 6}
    assert all(each.source.shape[1] == 4 for each in batches)
    assert not trainer.progress.history[0]["validation"]["coarse"]


def test_held_out_strings_are_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = record_batches(monkeypatch)
    data = DataConfig(lengths=LengthRange(minimum=1, maximum=1), test_lengths=DATA.test_lengths, held_out_samples=60)
    train(dataclasses.replace(tiny(batches=10, batch_size=20), data=data))
    held = {string.item() for string in training.held_out(data).validation}
    drawn = {symbol for each in batches for symbol in each.source[1].tolist()}
    assert len(drawn) > 30
    assert held.isdisjoint(drawn)


# --- The curriculum


@pytest.mark.parametrize(
    ("threshold", "longest"), [(100.0, [1, 2, 3, 4, 5, 5, 5]), (1e-6, [1] * 7)], ids=["learning", "not learning"]
)
def test_a_curriculum(monkeypatch: pytest.MonkeyPatch, threshold: float, longest: list[int]) -> None:
    batches = record_batches(monkeypatch)
    trainer = train(tiny(curriculum_start=1, curriculum_loss=threshold, batch_size=60))
    assert [int(each.steps[0]) - 1 for each in batches] == longest
    shortest = [int(each.steps[-1]) - 1 for each in batches]
    assert shortest == [min(DATA.lengths.minimum, each) for each in longest]
    assert trainer.progress.longest == longest[-1]


def test_a_curriculum_that_starts_beyond_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = record_batches(monkeypatch)
    train(tiny(curriculum_start=99, curriculum_loss=100.0, batch_size=60))
    assert {int(each.steps[0]) - 1 for each in batches} == {DATA.lengths.maximum}


@pytest.mark.parametrize("task", ["bigram-flip", "svo-sov", "gender"])
@pytest.mark.parametrize(("start", "learning"), [(1, False), (5, False), (1, True)])
def test_a_curriculum_keeps_to_lengths_that_sources_have(
    task: str, start: int, learning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = record_batches(monkeypatch)
    loss = 100.0 if learning else 1e-6
    config = tiny(curriculum_start=start, curriculum_loss=loss, mixed_lengths=False, batches=9).for_task(task)
    lengths = LengthRange(minimum=8, maximum=9)
    train(dataclasses.replace(config, data=dataclasses.replace(config.data, lengths=lengths, test_lengths=lengths)))
    drawn = [int(each.steps[0]) - 1 for each in batches]
    shortest, step = TASKS[task].shortest, TASKS[task].length_step
    assert drawn[0] == max(start // step * step, shortest)
    assert (drawn[-1] >= 8) == learning


@pytest.mark.parametrize(("start", "least"), [(None, 4), (1, 1), (5, 4)])
def test_short_strings_can_be_left_out(start: int | None, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = record_batches(monkeypatch)
    train(tiny(curriculum_start=start, curriculum_loss=1e-6, least_share=0.7, batch_size=60))
    assert {int(each.steps[-1]) - 1 for each in batches} == {least}


def test_no_string_is_left_out_once_the_run_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = record_batches(monkeypatch)
    trainer = Trainer(tiny(curriculum_start=None, least_share=1.0, batch_size=60, batches=4))
    trainer.run(lambda event: setattr(trainer.progress, "solved_batch", 2) if event.batch == 2 else None)
    drawn = [{int(each) - 1 for each in batch.steps} for batch in batches]
    assert [len(each) for each in drawn[:2]] == [1, 1]
    assert min(map(len, drawn[2:4])) > 1


def test_lengths_that_a_task_does_not_have_are_not_all_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = record_batches(monkeypatch)
    config = tiny(least_share=1.0, mixed_lengths=False).for_task("bigram-flip")
    lengths = LengthRange(minimum=8, maximum=9)
    train(dataclasses.replace(config, data=dataclasses.replace(config.data, lengths=lengths, test_lengths=lengths)))
    assert {int(each.steps[0]) - 1 for each in batches} == {8}


# --- Noise on the weights of symbols


def test_nothing_is_drawn_for_noise_that_is_off() -> None:
    config = tiny(curriculum_start=1, curriculum_loss=1e-6)
    model = dataclasses.replace(config.model, gate_noise=0.0, string_noise=0.0)
    for noise in (0.0, 0.5):  # before the end of a curriculum it is off as well
        noisy = dataclasses.replace(config.training, symbol_noise=noise)
        trainer = Trainer(dataclasses.replace(config, model=model, training=noisy))
        before = trainer._generators["noise"].get_state()
        trainer.run()
        assert torch.equal(trainer._generators["noise"].get_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_symbols_are_noisy_for_a_batch_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(**changes: Any) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        trainer, seen = Trainer(tiny(kind, batches=2, **changes)), []
        hidden = trainer.model.hidden

        def watched(*arguments: Any, **options: Any) -> Tensor:
            if trainer.model.training:
                seen.append(weights(trainer))
            return hidden(*arguments, **options)

        monkeypatch.setattr(trainer.model, "hidden", watched)
        monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
        trainer.run()
        return seen, weights(trainer)

    (quiet, _), after = learn()
    assert_same(quiet, after)
    (first, second), after = learn(symbol_noise=0.5)
    assert_same(quiet, after)
    noisy = {name for name, each in first.items() if not torch.equal(each, quiet[name])}
    assert noisy == {name for name in quiet if name.endswith(("symbols", "embedding.weight"))}
    for name in noisy:
        assert not torch.equal(first[name], second[name])
        assert float((first[name] - quiet[name]).std()) == pytest.approx(0.5, rel=0.1)
    (twice, _), _ = learn(symbol_noise=0.5, curriculum_start=99)
    assert_same(first, twice)
    short, _ = learn(symbol_noise=0.5, curriculum_start=1, curriculum_loss=1e-6)
    for each in short:
        assert_same(each, quiet)


# --- Devices


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_the_cpu_for_what_has_compiled_kernels(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    for kind in KINDS.values():
        compiled = kind.open_stream is not None and kernels.available()
        assert resolve_device("auto", kind.name).type == ("cuda" if there and not compiled else "cpu")


def test_devices() -> None:
    assert resolve_device("cpu", "lstm") == torch.device("cpu")
    for name, available in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if available:
            assert resolve_device(name, "lstm").type == name
        else:
            with pytest.raises(TrainingError, match=f"no {name} device"):
                resolve_device(name, "lstm")
    with pytest.raises(TrainingError, match="no abacus device"):
        resolve_device("abacus", "lstm")
