"""Settling for a proof: what joins the loss, when it ends, and that it resumes bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from handmade import handmade_reverser
from shapes import shape_of
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import TrainingError
from stackrev.evaluation.certificate.proof import prove
from stackrev.evaluation.scoring import score
from stackrev.kinds.config import Config
from stackrev.models import build
from stackrev.models.certification import network_of
from stackrev.tasks.data import DataConfig
from stackrev.training import certified
from stackrev.training import trainer as training
from stackrev.training.certified import Closing, Settling, close
from stackrev.training.events import BatchEvent, CheckEvent, Event
from stackrev.training.trainer import Trainer, train
from stackrev.training_config import TrainingConfig

DATA = DataConfig(
    lengths=LengthRange(minimum=2, maximum=5), test_lengths=LengthRange(minimum=6, maximum=8), held_out_samples=6
)
CLOSED = Closing(1.0, 9.0, 9.0, 2.0, closed=True)


def tiny(kind: str = "stack-lstm", shape: dict[str, Any] | None = None, **changes: Any) -> Config:
    """A run of moments that settles for a proof."""
    given = {"batches": 12, "batch_size": 4, "check_every": 4, "curriculum_start": None, "settle": "certified"}
    model = shape_of(kind, **{"hidden_size": 6, "stack_width": 5, **(shape or {})})
    return Config(data=DATA, model=model, training=TrainingConfig(**{"device": "cpu", **given, **changes}))


def solved(config: Config) -> Trainer:
    """A run that takes itself for solved, whatever it has learned."""
    trainer = Trainer(config)
    trainer.progress.solved_batch = 0
    return trainer


def perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every check find everything right."""
    real = training.score

    def right(*args: Any, **named: Any) -> Any:
        found = real(*args, **named)
        return dataclasses.replace(found, correct=tuple(length + 1 for length in found.lengths))

    monkeypatch.setattr(training, "score", right)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(each, second[name]) for name, each in first.items())


def timeless(trainer: Trainer) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in trainer.progress.history]


def test_bounds_join_the_loss_once_a_run_is_solved() -> None:
    runs = {}
    for settle in ("plain", "certified"):
        for solved_batch in (None, 0):
            trainer = Trainer(tiny(settle=settle, batches=3))
            trainer.progress.solved_batch = solved_batch
            events: list[Event] = []
            trainer.run(events.append)
            runs[settle, solved_batch] = trainer.model.state_dict()
            closing = [event.closing for event in events]
            assert all(each is None for each in closing) == ((settle, solved_batch) != ("certified", 0))
    assert same(runs["plain", None], runs["certified", None])
    assert not same(runs["plain", 0], runs["certified", 0])


def test_bounds_do_not_drown_the_data_in_plain_gradient_descent() -> None:
    """A solved run that followed their gradient as it is would unlearn the task within some batches."""
    ends = {}
    for settle in ("plain", "certified"):
        changes = {"optimizer": "sgd", "learning_rate": 0.1, "clip_norm": math.inf, "recurrent_l1": 0.0, "batches": 1}
        trainer = solved(tiny(settle=settle, **changes))
        with torch.no_grad():
            trainer.model.logits.weight.mul_(20)  # so that both gradients are large
        trainer.run()
        ends[settle] = torch.cat([each.detach().flatten() for each in trainer.model.parameters()])
    moved = float((ends["certified"] - ends["plain"]).norm())
    assert 0.1 * 0.29 < moved < 0.1 * 0.301


@pytest.mark.parametrize("shape", [{}, {"layers": 2}, {"shared_controls": True}], ids=str)
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_run_resumes_bit_for_bit_while_it_settles(shape: dict[str, Any], stop: int) -> None:
    config = tiny(shape=shape)
    whole = solved(config)
    whole.run()

    class Stop(Exception):
        pass

    def at(event: Event) -> None:
        if isinstance(event, BatchEvent) and event.batch == stop:
            raise Stop

    first = solved(config)
    with pytest.raises(Stop):
        first.run(at)
    second = Trainer(config)
    second.restore(*first.state())
    second.run()
    assert same(second.state()[0], whole.state()[0])
    assert timeless(second) == timeless(whole)
    assert any("closing" in line for line in timeless(whole))


def test_a_run_that_closed_and_stopped_ends_where_it_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    perfect(monkeypatch)
    monkeypatch.setattr(Settling, "due", lambda self, batch, found: True)
    monkeypatch.setattr(training, "close", lambda model: CLOSED)
    first = solved(tiny(settle_batches=3))
    first._learn(), first._learn(), first._learn()
    second = Trainer(first.config)
    second.restore(*first.state())
    assert second.end == 3
    second.run()
    assert second.progress.batch == 3
    assert second.progress.history[-1]["closing"] == CLOSED.to_dict()


@pytest.mark.parametrize(("least", "closes", "end"), [(0, 1, 2), (5, 1, 6), (0, 7, 8), (None, 1, 12), (0, 99, 12)])
def test_a_run_ends_when_the_bounds_close(
    monkeypatch: pytest.MonkeyPatch, least: int | None, closes: int, end: int
) -> None:
    """Closing is tried after every second batch, and is found from batch `closes` on."""
    perfect(monkeypatch)
    trainer = solved(tiny(settle_batches=least))
    monkeypatch.setattr(Settling, "due", lambda self, batch, found: batch % 2 == 0)
    monkeypatch.setattr(training, "close", lambda model: CLOSED if trainer.progress.batch >= closes else None)
    trainer.run()
    assert trainer.done
    assert trainer.progress.batch == end


def test_bounds_that_close_with_nothing_to_spare_do_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    perfect(monkeypatch)
    monkeypatch.setattr(Settling, "due", lambda self, batch, found: True)
    for near in ({"gates": 1.0}, {"logits": 1.0}, {"cells": 100.0}, {"closed": False}):
        monkeypatch.setattr(training, "close", lambda model, near=near: dataclasses.replace(CLOSED, **near))
        trainer = solved(tiny(settle_batches=0))
        trainer.run()
        assert trainer.progress.batch == 12, near


def test_a_closed_run_that_errs_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settling, "due", lambda self, batch, found: batch == 2)
    monkeypatch.setattr(training, "close", lambda model: CLOSED)
    trainer = solved(tiny(settle_batches=0))  # which has learned nothing
    trainer.run()
    assert trainer.progress.batch == 12
    assert [line["batch"] for line in trainer.progress.history] == [2, 4, 8, 12]


@pytest.mark.parametrize(("settle", "end"), [("none", 4), ("plain", 7)])
def test_other_ways_to_settle(monkeypatch: pytest.MonkeyPatch, settle: str, end: int) -> None:
    perfect(monkeypatch)
    trainer = train(tiny(settle=settle, settle_batches=3))
    assert (trainer.progress.solved_batch, trainer.progress.batch) == (4, end)


@pytest.mark.parametrize(
    "config",
    [tiny("rnn"), tiny("lstm"), tiny(shape={"gate_stretch": 0.0}), tiny(shape={"cell_stretch": 0.1})],
    ids=["rnn", "lstm", "e", "cells"],
)
def test_what_has_no_bounds_is_told(config: Config) -> None:
    with pytest.raises(TrainingError, match="cannot settle for a proof") as caught:
        Trainer(config)
    assert caught.value.hint == "use --settle plain"
    Trainer(dataclasses.replace(config, training=dataclasses.replace(config.training, settle="plain")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settling.scale", None),
        ("settling.encoder", None),
        ("settling.scale", torch.tensor(2.0, dtype=torch.float64)),
        ("settling.scale", torch.tensor(math.nan, dtype=torch.float64)),
        ("settling.scale", torch.tensor(0.5)),
        ("settling.closed", torch.tensor(-2)),
        ("settling.decoder", torch.zeros(2, 1, 7)),
        ("settling.encoder", torch.full((2, 1, 6), math.inf)),
    ],
)
def test_a_damaged_state_is_refused(name: str, value: Tensor | None) -> None:
    trainer = solved(tiny(batches=2))
    trainer.run()
    tensors, description = trainer.state()
    if value is None:
        del tensors[name]
    else:
        assert not torch.equal(tensors[name], value)
        tensors[name] = value
    with pytest.raises(TrainingError, match="does not fit"):
        Trainer(trainer.config).restore(tensors, description)


def test_the_scale_grows_while_the_bounds_are_small_and_falls_where_they_are_not() -> None:
    settling = Settling(build(tiny().model, torch.Generator().manual_seed(0)))
    scales = [settling.scale]
    for loss in [0.5] * 80 + [2.0] * 3:
        settling._move_on(loss)
        scales.append(settling.scale)
    assert scales[1] == pytest.approx(1.1 * scales[0])
    assert max(scales) == scales[80] == 1.0
    assert scales[-1] == pytest.approx(0.97**3)
    assert max(b - a for a, b in itertools.pairwise(scales)) == pytest.approx(0.05)


def test_what_is_made_by_hand_closes_and_what_has_learned_nothing_does_not() -> None:
    found = close(handmade_reverser())
    assert found is not None
    assert found.closed
    assert found.gates > 10
    assert found.logits == pytest.approx(1.0, abs=0.1)
    unlearned = close(build(tiny().model, torch.Generator().manual_seed(0)))
    assert unlearned is None or unlearned.gates < 0


def test_a_swapped_symbol_does_not_close_with_a_gap() -> None:
    model = handmade_reverser()
    with torch.no_grad():
        rows = model.logits.weight[[40, 41]]
        model.logits.weight[[41, 40]] = rows
    found = close(model)
    assert found is not None
    assert found.logits < 0
    assert not dataclasses.replace(found, logits=5.0, cells=1.0).enough or found.gates >= certified._ENOUGH_GATES


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_a_run_by_default_ends_with_a_proof(seed: int) -> None:
    config = Config.default("stack-lstm")
    assert config.training.settle == "certified"
    events: list[Event] = []
    trainer = Trainer(dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed)))
    trainer.run(events.append)
    assert trainer.done
    last = events[-1]
    assert isinstance(last, CheckEvent)
    assert last.perfect
    assert last.closing is not None
    assert last.closing.enough
    assert trainer.progress.batch < config.training.batches
    model = trainer.model.eval()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    network = network_of(model.config, weights)
    assert network is not None
    proof = prove(network)
    assert proof.proved
    # the proof goes through every pair of symbols, so that it finds no less
    conditions = proof.conditions
    assert conditions is not None
    assert conditions.logits > last.closing.logits - 0.01
    gates = (conditions.encoder_push, conditions.encoder_pop, conditions.decoder_push, conditions.decoder_pop)
    assert min(gates) > last.closing.gates - 0.01
    same_symbol = [torch.full((2000,), 70, dtype=torch.int64), torch.full((2001,), 3, dtype=torch.int64)]
    assert score(model, same_symbol).perfect
