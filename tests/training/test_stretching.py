"""Cells whose gates are stretched, from the start or once a run is solved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shapes import shape_of
from tiny_runs import DATA, PLAIN, Stop, assert_same, stop_after, timeless, weights
from torch import Tensor

from stackrev import kernels
from stackrev.errors import CheckpointError, ConfigError, TrainingError
from stackrev.evaluation.decoding import TorchDecoder
from stackrev.kinds.config import Config
from stackrev.kinds.queue_lstm import QueueLSTMConfig
from stackrev.models import load
from stackrev.models.certification import certify
from stackrev.models.loading import open_decoder
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.page.compose import read as read_page
from stackrev.storage import checkpoints
from stackrev.structures.recurrence import memory_lstm, memory_lstm_torch
from stackrev.tasks import REVERSAL
from stackrev.training.events import BatchEvent, CheckEvent, Event
from stackrev.training.trainer import Trainer, train

KINDS = ("stack-lstm", "queue-lstm", "deque-lstm")


def tiny(kind: str = "queue-lstm", stretch: float = 0.25, **changes: Any) -> Config:
    model = shape_of(kind, hidden_size=6, stack_width=5, cell_stretch=stretch)
    return Config(data=DATA, model=model, training=dataclasses.replace(PLAIN, **{"batches": 12, **changes}))


def stretch_of(trainer: Trainer) -> float:
    model = trainer.model
    assert isinstance(model, MemoryLSTMReverser)
    assert model.cell_stretch is not None
    return float(model.cell_stretch)


def stretches(trainer: Trainer) -> list[float]:
    """How far the cells are stretched after each batch of the run."""
    found = []
    trainer.run(lambda event: found.append(stretch_of(trainer)) if isinstance(event, BatchEvent) else None)
    return found


def test_cells_are_stretched_from_the_start() -> None:
    assert stretches(Trainer(tiny())) == [0.25] * 12


def test_cells_are_stretched_once_the_run_is_solved() -> None:
    trainer = Trainer(tiny(stretch_batches=4))
    assert stretch_of(trainer) == 0
    assert stretches(trainer) == [0.0] * 12
    trainer = Trainer(tiny(stretch_batches=4))
    with pytest.raises(Stop):
        trainer.run(stop_after(3, CheckEvent))
    trainer.progress.solved_batch = 3
    assert stretches(trainer) == [0.0625, 0.125, 0.1875, *[0.25] * 6]
    trainer = Trainer(tiny(stretch_batches=1))
    with pytest.raises(Stop):
        trainer.run(stop_after(3, CheckEvent))
    trainer.progress.solved_batch = 3
    assert stretches(trainer) == [0.25] * 9


def test_a_run_without_stretched_cells_is_as_it_was() -> None:
    plain = train(tiny(stretch=0.0))
    assert "cell_stretch" not in plain.model.state_dict()
    assert_same(weights(train(tiny(stretch=0.0, stretch_batches=3))), weights(plain))
    late = weights(train(tiny(stretch_batches=3)))  # it is never solved
    assert not late.pop("cell_stretch")
    assert_same(late, weights(plain))


@pytest.mark.parametrize("implementation", ["torch", "compiled"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_stretch_is_learned_with(kind: str, implementation: kernels.Implementation) -> None:
    if implementation == "compiled" and not kernels.available():
        pytest.skip("the kernels were not compiled")
    with kernels.using(implementation):
        plain, stretched = (weights(train(tiny(kind, stretch=each))) for each in (0.0, 0.25))
    del stretched["cell_stretch"]
    assert all(not torch.equal(each, stretched[name]) for name, each in plain.items() if "recurrent" in name)


@pytest.mark.parametrize("stop", [(3, CheckEvent), (4, BatchEvent), (8, BatchEvent)])
def test_a_run_resumes_about_a_stretch_bit_for_bit(stop: tuple[int, type[Event]]) -> None:
    def solved() -> Trainer:
        trainer = Trainer(tiny(stretch_batches=6, optimizer="adam"))
        trainer.progress.solved_batch = 1
        return trainer

    whole, first = solved(), solved()
    whole.run()
    with pytest.raises(Stop):
        first.run(stop_after(*stop))
    second = Trainer(first.config)
    second.restore(*first.state())
    second.run()
    assert_same(weights(second), weights(whole))
    assert timeless(second.progress.history) == timeless(whole.progress.history)


def test_a_run_that_starts_over_stretches_late_again() -> None:
    trainer = Trainer(tiny(stretch_batches=2, restart_batches=3))
    with pytest.raises(Stop):
        trainer.run(stop_after(4, BatchEvent))
    assert stretch_of(trainer) == 0
    again = Trainer(tiny(restart_batches=3))
    again.run()
    assert stretch_of(again) == 0.25


def test_weights_that_were_right_keep_their_stretch() -> None:
    trainer = Trainer(tiny(stretch_batches=6))
    trainer.progress.solved_batch = 0
    with pytest.raises(Stop):
        trainer.run(stop_after(3, BatchEvent))
    trainer._right = weights(trainer)
    trainer.run()
    assert trainer.spoiled
    assert float(trainer.outcome()["cell_stretch"]) == 0.125
    assert stretch_of(trainer) == 0.25


def saved(folder: Path, kind: str, stretch: float) -> MemoryLSTMReverser:
    trainer = Trainer(tiny(kind, stretch_batches=1))
    model = trainer.model
    assert isinstance(model, MemoryLSTMReverser)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
        assert model.cell_stretch is not None
        model.cell_stretch.fill_(stretch)
    checkpoints.save(folder, model.state_dict(), trainer.config)
    return model.eval()


def hidden(model: MemoryLSTMReverser, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.run(model.encoder, ids[:, None], torch.tensor([len(ids)]), model.initial_state(1)).hidden


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_keeps_how_far_the_cells_are_stretched(tmp_path: Path, kind: str) -> None:
    model, ids = saved(tmp_path, kind, 0.125), torch.arange(2, 30)
    loaded = load(tmp_path).model
    assert isinstance(loaded, MemoryLSTMReverser)
    assert torch.equal(hidden(loaded, ids), hidden(model, ids))
    assert model.cell_stretch is not None
    model.cell_stretch.fill_(0.0)
    assert not torch.equal(hidden(loaded, ids), hidden(model, ids))
    if kernels.available():
        with kernels.using("torch"):
            wanted = hidden(loaded, ids)
        stream = loaded.stream()
        stream.encode(ids.tolist())
        torch.testing.assert_close(torch.tensor(stream.look().hidden), wanted[-1, 0], rtol=0, atol=1e-5)
        ours = list(open_decoder(tmp_path).write([ids.tolist()]))
        with kernels.using("torch"):
            assert ours == list(TorchDecoder(loaded, REVERSAL).write([ids.tolist()]))


def test_a_checkpoint_that_lacks_the_stretch_is_refused(tmp_path: Path) -> None:
    model = saved(tmp_path / "whole", "queue-lstm", 0.125)
    lacking = {name: each for name, each in model.state_dict().items() if name != "cell_stretch"}
    with pytest.raises(CheckpointError):
        checkpoints.save(tmp_path / "lacking", lacking, tiny(stretch_batches=1))


@pytest.mark.parametrize("value", [-0.1, 0.26, 3e38])
@pytest.mark.parametrize("read", [load, open_decoder, checkpoints.verify])
def test_a_checkpoint_whose_stretch_is_out_of_range_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], value: float
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(QueueLSTMConfig, "buffers", lambda self: {})
        saved(tmp_path, "queue-lstm", value)
    with pytest.raises(CheckpointError, match=r"cell_stretch is not between 0 and 0\.25"):
        read(tmp_path)


@pytest.mark.parametrize("value", [-0.1, 0.26, math.nan])
def test_a_stretch_that_is_out_of_range_is_neither_saved_nor_resumed(tmp_path: Path, value: float) -> None:
    with pytest.raises(CheckpointError, match=r"cell_stretch is not between|not finite"):
        saved(tmp_path / "model", "queue-lstm", value)
    assert not (tmp_path / "model").exists()
    tensors, description = Trainer(tiny()).state()
    for name in ("model.cell_stretch", "right.cell_stretch"):
        wrong = {**tensors, **({f"right.{key}": each for key, each in Trainer(tiny()).model.state_dict().items()})}
        wrong[name] = torch.full((1,), value)
        trainer = Trainer(tiny())
        before = {key: each.clone() for key, each in trainer.model.state_dict().items()}
        with pytest.raises(TrainingError, match="does not fit the configuration: cell_stretch is not between"):
            trainer.restore(wrong, description)
        assert all(each.equal(before[key]) for key, each in trainer.model.state_dict().items())


def test_a_stretch_that_float32_rounds_up_is_in_range(tmp_path: Path) -> None:
    model = Trainer(tiny(stretch=0.1)).model
    checkpoints.save(tmp_path, model.state_dict(), tiny(stretch=0.1))
    loaded = load(tmp_path).model
    assert isinstance(loaded, MemoryLSTMReverser)
    assert float(loaded.cell_stretch or 0) > 0.1


def test_the_stretch_is_not_counted_as_a_weight(tmp_path: Path) -> None:
    model = saved(tmp_path, "queue-lstm", 0.125)
    learned = sum(each.numel() for each in model.parameters())
    assert checkpoints.verify(tmp_path).parameters == model.config.weights == learned


@pytest.mark.parametrize("value", [-0.1, math.nan])
@pytest.mark.parametrize("which", ["stretch", "cell_stretch"])
@pytest.mark.parametrize("function", [memory_lstm, memory_lstm_torch])
def test_a_negative_stretch_is_refused(function: Callable[..., object], which: str, value: float) -> None:
    model = Trainer(tiny(stretch=0.0)).model
    assert isinstance(model, MemoryLSTMReverser)
    inputs, state = model.encoder.contributions(), model.initial_state(1)
    with pytest.raises(ValueError, match="a stretch is at least 0"):
        function(
            inputs[:1, None],
            torch.ones(1, dtype=torch.int64),
            state,
            model._weights_of(model.encoder),
            **{"stretch": 0.05, which: value},
        )


def test_no_proof_is_about_stretched_cells(tmp_path: Path) -> None:
    saved(tmp_path, "stack-lstm", 0.25)
    assert certify(tmp_path).proof is None


def test_no_page_runs_stretched_cells(tmp_path: Path) -> None:
    saved(tmp_path, "stack-lstm", 0.25)
    with pytest.raises(ConfigError, match="mine has LSTMs whose own gates are stretched"):
        read_page(tmp_path, "mine")
