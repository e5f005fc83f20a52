"""The penalty on cells: what it is, when it counts, and what it does."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from shapes import shape_of
from tiny_runs import DATA, assert_same, tiny, weights
from torch import Tensor

from stackrev import kernels
from stackrev.config import LengthRange
from stackrev.errors import ConfigError
from stackrev.kernels.cpu import library
from stackrev.kinds.config import Config
from stackrev.models import build
from stackrev.tasks.batches import Batch, sample_batch
from stackrev.training.penalties import hidden_and_penalty
from stackrev.training.trainer import Trainer

KINDS = ("stack-lstm", "queue-lstm", "deque-lstm")


def draw(rows: int = 5, seed: int = 3) -> Batch:
    lengths = LengthRange(minimum=2, maximum=9)
    return sample_batch(lengths, rows, torch.Generator().manual_seed(seed), mixed_lengths=True, excluded=frozenset())


def learn(kind: str, *, solved: int | None, **changes: Any) -> dict[str, Tensor]:
    """The weights after one batch of a run that was solved before it, or was not."""
    trainer = Trainer(tiny(kind, batches=1, **changes))
    trainer.progress.solved_batch = solved
    trainer.run()
    return weights(trainer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_last_cells_are_those_of_each_row_alone(kind: str, layers: int) -> None:
    model = build(shape_of(kind, hidden_size=6, stack_width=5, layers=layers), torch.Generator().manual_seed(0)).eval()
    batch = draw()
    order = torch.tensor([3, 0, 4, 1, 2])
    sorted_by_target = batch._replace(order=order)
    for each, rows in ((batch, torch.arange(5)), (sorted_by_target, order)):
        hidden, (encoder, decoder) = model.hidden_and_cells(each)
        torch.testing.assert_close(hidden, model.hidden(each), rtol=0, atol=0)
        for i, row in enumerate(rows.tolist()):
            read, written = int(each.steps[row]), int(each.target_steps[i])
            state = model.encode(each.source[:read, row : row + 1], each.steps[row : row + 1])
            torch.testing.assert_close(encoder[:, row], state.cell[:, 0])
            for symbol in each.fed[:written, i]:
                _, state = model.step(symbol[None], state)
            torch.testing.assert_close(decoder[:, i], state.cell[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_is_the_mean_square_of_either_lstms_cells(kind: str) -> None:
    model = build(shape_of(kind, hidden_size=6, stack_width=5), torch.Generator().manual_seed(0)).eval()
    batch, generator = draw(), torch.Generator()
    _, cells = model.hidden_and_cells(batch)
    _, penalty = hidden_and_penalty(model, batch, 0.5, generator)
    squares = [sum(x**2 for x in each.flatten().tolist()) / each.numel() for each in cells]
    assert isinstance(penalty, Tensor)
    assert float(penalty.detach()) == pytest.approx(0.5 * sum(squares), rel=1e-5)
    assert hidden_and_penalty(model, batch, 0.0, generator)[1] is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_counts_from_when_the_run_is_solved(kind: str) -> None:
    assert_same(learn(kind, solved=None, cell_l2=0.5), learn(kind, solved=None))
    plain, penalised = learn(kind, solved=0), learn(kind, solved=0, cell_l2=0.5)
    assert any(not torch.equal(each, penalised[name]) for name, each in plain.items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_counts_beside_the_bounds_of_a_proof(optimizer: str) -> None:
    setting = {"settle": "certified", "optimizer": optimizer}
    plain = learn("stack-lstm", solved=0, **setting)
    penalised = learn("stack-lstm", solved=0, cell_l2=0.5, **setting)
    assert any(not torch.equal(each, penalised[name]) for name, each in plain.items())


@pytest.mark.parametrize("kind", KINDS)
def test_its_gradient_with_and_without_kernels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> dict[str, Tensor]:
        model = build(shape_of(kind, hidden_size=6, stack_width=5), torch.Generator().manual_seed(0))
        _, penalty = hidden_and_penalty(model, draw(), 1.0, torch.Generator().manual_seed(1))
        assert isinstance(penalty, Tensor)
        penalty.backward()  # type: ignore[no-untyped-call]
        return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}

    if not kernels.available():
        pytest.skip(kernels.describe())
    fast = gradients()
    monkeypatch.setattr(library, "NATIVE", library.find("0"))
    assert not kernels.available()
    assert fast["initial_cell"].abs().max() > 0
    for name, each in gradients().items():
        torch.testing.assert_close(fast[name], each, msg=name, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_come_to_stay_small(kind: str) -> None:
    def size(cell_l2: float) -> float:
        config = tiny(kind, batches=60, cell_l2=cell_l2, learning_rate=0.5, clip_norm=1.0)
        trainer = Trainer(config)
        trainer.progress.solved_batch = 0
        with torch.no_grad():  # cells that keep what they have and add to it
            for name, each in trainer.model.named_parameters():
                if name in ("encoder.bias.0", "decoder.bias.0"):
                    each[6:12] += 4.0
        trainer.run()
        trainer.model.eval()
        _, cells = trainer.model.hidden_and_cells(draw(50))
        return math.sqrt(sum(float(each.detach().square().mean()) for each in cells))

    assert size(1.0) < 0.5 * size(0.0)


@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_models_without_a_memory_have_none(kind: str) -> None:
    plain = tiny(kind)
    for penalty in (1e-9, 0.1, 100.0):
        training = dataclasses.replace(plain.training, cell_l2=penalty)
        message = f"cell_l2 is {penalty:g}, and there is no such penalty for the model {kind}"
        with pytest.raises(ConfigError, match=re.escape(message)) as caught:
            Config(data=DATA, model=plain.model, training=training)
        assert caught.value.hint


def test_queue_and_deque_have_it_by_default_where_words_near_by_decide() -> None:
    for kind in ("queue-lstm", "deque-lstm"):
        for task in ("gender", "bigram-flip"):
            training = Config.default(kind, task).training
            batches = 2500 if (kind, task) == ("deque-lstm", "gender") else 1000
            assert (training.settle_batches, training.settle_rate, training.cell_l2) == (batches, 0.02, 0.003)
        for task in ("copy", "svo-sov"):
            assert Config.default(kind, task).training.cell_l2 == 0.0
    assert Config.default("stack-lstm").training.cell_l2 == 0.0
