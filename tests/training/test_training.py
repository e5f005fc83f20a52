"""Training: what each setting does, and that a run can stop anywhere and go on as if it had not."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from handmade import CONFIG as HANDMADE
from handmade import handmade_reverser
from shapes import shape_of
from torch import Tensor

from stackrev.config import LengthRange, TrainingConfig
from stackrev.errors import TrainingError
from stackrev.evaluation.scoring import Scores
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.tasks import REVERSAL
from stackrev.tasks.batches import Batch
from stackrev.tasks.data import DataConfig
from stackrev.training import trainer as training
from stackrev.training.trainer import BatchEvent, CheckEvent, Event, Trainer, resolve_device, train

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


# --- Stopping and going on


def snapshot(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as it would come back from a file."""
    tensors, description = trainer.state()
    return {name: each.clone() for name, each in tensors.items()}, json.loads(json.dumps(description))


@functools.cache
def uninterrupted(config: Config) -> Trainer:
    return train(config)


@pytest.mark.parametrize("where", [(2, BatchEvent), (3, BatchEvent), (3, CheckEvent), (4, BatchEvent), (7, BatchEvent)])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "schedule": "cosine"},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "sgd"},
        {"optimizer": "rmsprop", "momentum": 0.9, "warmup_batches": 5},
        {"optimizer": "adamw", "weight_decay": 0.1, "curriculum_start": 1, "curriculum_loss": 100.0},
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


def test_a_state_of_another_model() -> None:
    with pytest.raises(TrainingError, match="does not fit"):
        Trainer(tiny("lstm")).restore(*train(tiny("stack-lstm")).state())


# --- What ends a run


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(poison: float) -> None:
    trainer = Trainer(tiny())
    with pytest.raises(Stop):
        trainer.run(stop_after(2, BatchEvent))
    with torch.no_grad():
        trainer.model.logits.bias[5] = poison
    before = weights(trainer)
    with pytest.raises(TrainingError, match="no longer finite at batch 3") as caught:
        trainer.run()
    assert caught.value.hint
    assert trainer.progress.batch == 2
    for name, each in weights(trainer).items():
        assert torch.equal(each.nan_to_num(), before[name].nan_to_num()), name


Answer = tuple[bool, bool]  # whether validation and test are right
Y, N = (True, True), (False, False)
FEW, ALL = 2, 6


def script(
    monkeypatch: pytest.MonkeyPatch, few: Sequence[Answer], everything: dict[int, Answer] | None = None
) -> list[list[int]]:
    """Checks that come out as told: the first strings of either set, and the whole of it where that differs.

    What is given back fills with the sizes of the sets that each check scores.
    """
    sizes: list[list[int]] = []

    def scripted(_: object, strings: Sequence[Tensor], *, task: object) -> Scores:
        assert task is REVERSAL
        if not sizes or (len(strings) == FEW and len(sizes[-1]) != 1):
            sizes.append([])
        check, place = len(sizes) - 1, len(sizes[-1]) % 2
        sizes[-1].append(len(strings))
        answer = few[check] if len(strings) == FEW else (everything or {}).get(check, few[check])
        return Scores(tuple(len(each) + answer[place] for each in strings), tuple(map(len, strings)))

    monkeypatch.setattr(training, "score", scripted)
    monkeypatch.setattr(training, "CHECK_SAMPLES", FEW)
    return sizes


def test_a_check_scores_all_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    half = (True, False)
    sizes = script(monkeypatch, [N, half, Y, Y, Y, Y, Y], {2: half})
    trainer = train(tiny(batches=30, settle_batches=9))
    few, everything = [FEW, FEW], [FEW, FEW, ALL, ALL]
    # wrong, half wrong, right but for the rest, solved, settling twice, the end
    assert sizes == [few, few, everything, everything, few, few, everything]
    assert [line["validation"]["samples"] for line in trainer.progress.history] == [2, 2, 6, 6, 2, 2, 6]
    assert (trainer.progress.solved_batch, trainer.progress.batch) == (12, 21)


def test_the_last_check_scores_all(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = script(monkeypatch, [N, N])
    assert not train(tiny(batches=6)).progress.solved_batch
    assert sizes == [[FEW, FEW], [FEW, FEW, ALL, ALL]]


def test_a_run_ends_by_its_whole_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [Y] * 6, {2: (True, False)})
    trainer = train(tiny(batches=30, settle_batches=6))
    # what was to be the end, at 9, finds an error in the rest: the run goes on to the next check
    assert (trainer.progress.solved_batch, trainer.progress.batch) == (3, 12)


@pytest.mark.parametrize(
    ("checks", "settle", "solved", "end"),
    [
        ([N, Y, Y, Y, Y, Y, Y], 6, 6, 12),
        ([N, Y, Y, Y, Y], 0, 6, 6),
        ([N, Y, Y, Y, Y, Y, Y], 4, 6, 10),  # between two checks
        ([N, Y, Y, N, Y], 4, 6, 12),  # wrong at that moment
        ([Y, N, Y, Y, Y], 6, 3, 9),  # right again in time
        ([Y, Y, (True, False), N, Y, Y], 6, 3, 15),  # wrong at the check that would end it
        ([N, N, N, N, N, N, Y, Y], 6, 21, 21),  # no batches left
        ([Y] * 14, None, 3, 21),
    ],
)
def test_a_run_settles(
    monkeypatch: pytest.MonkeyPatch,
    checks: list[Answer],
    settle: int | None,
    solved: int,
    end: int,
) -> None:
    script(monkeypatch, checks)
    trainer = train(tiny(batches=21, settle_batches=settle))
    assert (trainer.progress.solved_batch, trainer.progress.batch) == (solved, end)


def test_the_last_batch_is_checked_whatever_went_before(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [N, Y] + [N] * 8)
    trainer = train(tiny(batches=20, settle_batches=4))
    assert [line["batch"] for line in trainer.progress.history] == [3, 6, 9, 10, 12, 15, 18, 20]


def test_a_perfect_model_ends_its_run() -> None:
    config = Config(
        data=DATA,
        model=HANDMADE,
        training=dataclasses.replace(PLAIN, batches=30, learning_rate=1e-9, settle_batches=6),
    )
    trainer = Trainer(config)
    trainer.model.load_state_dict(handmade_reverser().state_dict())
    events: list[Event] = []
    trainer.run(events.append)
    assert isinstance(events[3], CheckEvent)
    assert events[3].perfect
    assert events[3].validation.samples == events[3].test.samples == 6
    assert (trainer.progress.solved_batch, trainer.progress.batch) == (3, 9)


def test_recurrent_weights_are_penalised_once_a_run_is_solved() -> None:
    def learn(solved: int | None, penalty: float) -> Trainer:
        trainer = Trainer(tiny(batches=1, recurrent_l1=penalty))
        trainer.progress.solved_batch = solved
        trainer.run()
        return trainer

    plain, early, late = learn(0, 0.0), learn(None, 0.05), learn(0, 0.05)
    assert_same(weights(early), weights(plain))
    recurrent = {id(each) for each in late.model.recurrent_weights()}
    fall = 0.05
    for name, parameter in late.model.named_parameters():
        before = weights(plain)[name]
        shrunk = torch.where(before.abs() > fall, before - fall * before.sign(), 0.0)
        torch.testing.assert_close(parameter.detach(), shrunk if id(parameter) in recurrent else before)


def test_a_solved_run_is_trained_with_cooler_logits() -> None:
    def gradients(solved: int | None, temperature: float, logits: float) -> tuple[float, dict[str, Tensor]]:
        trainer = Trainer(tiny(batches=1, settle_temperature=temperature, clip_norm=math.inf))
        trainer.progress.solved_batch = solved
        with torch.no_grad():
            for each in trainer.model.logits.parameters():
                each.mul_(logits)
        events: list[Event] = []
        trainer.run(events.append)
        assert isinstance(events[0], BatchEvent)
        return events[0].loss, {name: each.grad.clone() for name, each in trainer.model.named_parameters()}  # type: ignore[union-attr]

    loss, plain = gradients(0, 1.0, 1.0)
    assert gradients(None, 4.0, 1.0)[0] == loss
    assert_same(gradients(None, 4.0, 1.0)[1], plain)
    settling, cooled = gradients(0, 4.0, 1.0)
    assert settling == pytest.approx(loss)  # what is reported is the loss of the logits as they are
    _, divided = gradients(0, 1.0, 0.25)
    for name, each in cooled.items():  # dividing the logits is dividing the last layer, whose own gradient is then less
        last = name.startswith("logits.")
        torch.testing.assert_close(each, divided[name] * (0.25 if last else 1.0))


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


# --- Devices


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name, available in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if available:
            assert resolve_device(name).type == name
        else:
            with pytest.raises(TrainingError, match=f"no {name} device"):
                resolve_device(name)
    with pytest.raises(TrainingError, match="no abacus device"):
        resolve_device("abacus")
