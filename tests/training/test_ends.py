"""What ends a run: checks on held-out strings, settling, a loss that is not finite."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade import CONFIG as HANDMADE
from handmade import handmade_reverser
from tiny_runs import DATA, PLAIN, Stop, assert_same, stop_after, tiny, weights
from torch import Tensor

from stackrev.errors import TrainingError
from stackrev.evaluation.scoring import Scores
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.models import load
from stackrev.tasks import REVERSAL
from stackrev.training import trainer as training
from stackrev.training.events import BatchEvent, CheckEvent, Event
from stackrev.training.runs import Run
from stackrev.training.trainer import Trainer, train


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


@pytest.mark.parametrize("last", [Y, N])
def test_a_run_whose_weights_grow_ends_as_it_is(last: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = script(monkeypatch, [N, Y, Y, N, last])
    trainer = train(tiny(batches=30, settle_batches=7, settle_growth=0.01))
    assert (trainer.progress.solved_batch, trainer.progress.batch) == (6, 13)
    assert trainer.spoiled == (last == N)
    few, everything = [FEW, FEW], [FEW, FEW, ALL, ALL]  # all wherever it is right: these weights are the best so far
    assert sizes == [few, everything, everything, few, everything if last == Y else few]


def test_a_run_whose_weights_grow_comes_to_the_weights_that_were_right_last(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [N, Y, Y, N, N])
    trainer, at = Trainer(tiny(batches=30, settle_batches=7, settle_growth=0.01)), {}

    def watch(event: Event) -> None:
        if isinstance(event, CheckEvent):
            at[event.batch] = weights(trainer)

    trainer.run(watch)
    assert not torch.equal(at[6]["encoder.symbols"], at[9]["encoder.symbols"])
    assert_same(trainer.outcome(), at[9])
    longer = Trainer(tiny(batches=60, settle_batches=7, settle_growth=0.01))
    longer.restore(*trainer.state())
    assert longer.done


def test_the_last_batch_is_checked_whatever_went_before(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [N, Y] + [N] * 8)
    trainer = train(tiny(batches=20, settle_batches=4))
    assert [line["batch"] for line in trainer.progress.history] == [3, 6, 9, 10, 12, 15, 18, 20]


def right_at(batch: int, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Everything is right after so many batches, and with the weights of then: these are what is given back."""
    kept: list[dict[str, Tensor]] = []
    batches = [0]
    check = Trainer._check

    def scored(model: torch.nn.Module, strings: Sequence[Tensor], *, task: object) -> Scores:
        now = {name: each.clone() for name, each in model.state_dict().items()}
        if not kept and batches[0] == batch:
            kept.append(now)
        right = bool(kept) and all(torch.equal(each, kept[0][name]) for name, each in now.items())
        return Scores(tuple(len(each) + right for each in strings), tuple(map(len, strings)))

    def counted(self: Trainer) -> CheckEvent:
        batches[0] = self.progress.batch
        return check(self)

    monkeypatch.setattr(Trainer, "_check", counted)
    monkeypatch.setattr(training, "score", scored)
    return kept


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_settling_spoils_comes_to_what_was_right(interrupted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = right_at(6, monkeypatch)
    trainer = Trainer(tiny(batches=12, settle_batches=3, optimizer="adam"))
    if interrupted:
        with pytest.raises(Stop):
            trainer.run(stop_after(8, BatchEvent))
        assert_same(trainer.outcome(), weights(trainer))  # it may mend yet
        tensors, description = trainer.state()
        trainer = Trainer(trainer.config)
        trainer.restore(tensors, description)
    trainer.run()
    assert (trainer.progress.solved_batch, trainer.progress.batch, trainer.spoiled) == (6, 12, True)
    assert [line["test"]["coarse"] for line in trainer.progress.history] == [0, 1, 0, 0]
    assert_same(trainer.outcome(), kept[0])
    assert [each.perfect for each in trainer.scores()] == [False, False]  # the model itself goes on as it is


def test_a_state_without_a_check_is_not_spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    right_at(6, monkeypatch)
    trainer = Trainer(tiny(batches=12, settle_batches=3, optimizer="adam"))
    trainer.run()
    tensors, description = trainer.state()
    description["progress"]["history"] = []  # as no run writes it
    again = Trainer(trainer.config)
    again.restore(tensors, description)
    assert not again.spoiled
    assert_same(again.outcome(), weights(again))


def test_a_spoiled_run_goes_on_as_if_it_had_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    right_at(6, monkeypatch)
    whole, ended = (Trainer(tiny(batches=batches, settle_batches=3, optimizer="adam")) for batches in (18, 12))
    whole.run()
    ended.run()
    longer = Trainer(whole.config)
    longer.restore(*ended.state())
    longer.run()
    assert longer.progress.batch == 18
    assert_same(weights(longer), weights(whole))


def test_a_spoiled_run_is_saved_as_it_was_when_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = right_at(6, monkeypatch)
    run = Run.start(tmp_path / "run", tiny(batches=9, settle_batches=3, optimizer="adam"))
    assert run.train()
    assert run.trainer.spoiled
    assert_same(dict(load(tmp_path / "run").model.state_dict()), kept[0])
    again = Run.resume(tmp_path / "run")
    assert again.trainer.spoiled
    assert_same(again.trainer.outcome(), kept[0])


def test_a_run_that_is_right_in_the_end_keeps_its_last_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [N, Y, N, Y])
    plain = train(tiny(batches=12, settle_batches=None))
    script(monkeypatch, [N, N, N, N])
    assert_same(weights(plain), weights(train(tiny(batches=12, settle_batches=None))))


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


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_the_cells_grow_once_a_run_is_solved(kind: str) -> None:
    def learn(solved: int | None, **changes: Any) -> Trainer:
        trainer = Trainer(tiny(kind, batches=1, **changes))
        trainer.progress.solved_batch = solved
        trainer.run()
        return trainer

    plain, early, late = learn(0), learn(None, settle_growth=0.5), learn(0, settle_growth=0.5)
    assert_same(weights(early), weights(plain))
    for name, each in weights(late).items():
        cell = name.startswith(("encoder.", "decoder."))
        torch.testing.assert_close(each, weights(plain)[name] * (1.5 if cell else 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_on_symbols_grows_with_their_weights(kind: str) -> None:
    trainer = Trainer(tiny(kind, symbol_noise=0.1, settle_growth=1.0, settle_batches=3))
    name = next(name for name in weights(trainer) if name.endswith(("encoder.symbols", "embedding.weight")))
    trainer.progress.solved_batch = 1
    noise = []
    for batch in range(5):
        trainer.progress.batch, before = batch, weights(trainer)
        with trainer._noise_on_symbols():
            noise.append((weights(trainer)[name] - before[name]).std())
        assert_same(weights(trainer), before)
    grown = [0.1, 0.2, 0.4, 0.8, 0.0] if name == "encoder.symbols" else [0.1] * 4 + [0.0]  # embeddings do not grow
    assert [float(each) for each in noise] == pytest.approx(grown, rel=0.1)


@pytest.mark.parametrize(
    ("before", "settling", "expected"),
    [
        (0.1, 0.3, [0.1, 0.3, 0.3, 0.0]),
        (0.0, 0.3, [0.0, 0.3, 0.3, 0.0]),
        (0.1, 0.0, [0.1, 0.0, 0.0, 0.0]),
        (0.1, None, [0.1, 0.1, 0.1, 0.0]),
    ],
)
def test_the_noise_on_symbols_while_a_run_settles(before: float, settling: float | None, expected: list[float]) -> None:
    trainer = Trainer(tiny(symbol_noise=before, settle_noise=settling, settle_batches=2))
    noise = []
    for batch, solved in ((0, None), (1, 1), (2, 1), (3, 1)):
        trainer.progress.batch, trainer.progress.solved_batch = batch, solved
        quiet = weights(trainer)["encoder.symbols"]
        with trainer._noise_on_symbols():
            noise.append(float((weights(trainer)["encoder.symbols"] - quiet).std()))
    assert noise == pytest.approx(expected, rel=0.1)


def test_noise_on_symbols_does_not_outlast_an_error() -> None:
    trainer = Trainer(tiny(symbol_noise=0.1))
    before = weights(trainer)
    with pytest.raises(Stop), trainer._noise_on_symbols():
        raise Stop
    assert_same(weights(trainer), before)


def test_the_rate_can_fall_while_a_run_settles() -> None:
    trainer = Trainer(tiny(batches=8, settle_rate=0.25, settle_batches=3))
    assert [trainer.learning_rate(batch) for batch in range(8)] == [0.1] * 8
    trainer.progress.solved_batch = 2
    expected = [0.1, 0.1, 0.1, 0.075, 0.05, 0.025, 0.025, 0.025]
    assert [trainer.learning_rate(batch) for batch in range(8)] == pytest.approx(expected)
    for settle, share, last in ((0, 1.0, 0.1), (3, 1.0, 0.1), (None, 0.25, 0.1), (0, 0.25, 0.025)):
        trainer = Trainer(tiny(batches=8, settle_rate=share, settle_batches=settle))
        trainer.progress.solved_batch = 2
        assert [trainer.learning_rate(batch) for batch in (2, 3, 7)] == pytest.approx([0.1, last, last])


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


@pytest.mark.parametrize(("share", "sharper"), [(0.4, True), (0.6, False)])
def test_a_run_that_is_nearly_right_is_trained_with_cooler_logits_where_it_is_told(share: float, sharper: bool) -> None:
    def gradients(**changes: Any) -> dict[str, Tensor]:
        trainer = Trainer(tiny(batches=1, clip_norm=math.inf, settle_temperature=4.0, **changes))
        line = {"batch": 1, "validation": {"coarse": 0.9}, "test": {"coarse": 0.5}}
        trainer.progress.history.append(line)
        trainer._learn()
        return {name: each.grad.clone() for name, each in trainer.model.named_parameters()}  # type: ignore[union-attr]

    plain, found = gradients(), gradients(sharpen_from=share)
    assert all(torch.equal(each, found[name]) for name, each in plain.items()) is not sharper
