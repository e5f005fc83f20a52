"""All models behind one interface."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from handmade import handmade_reverser
from shapes import shape_of
from torch import Tensor

from stackrev.config import Initialisation, LengthRange
from stackrev.kinds import KINDS
from stackrev.kinds.base import ModelConfig
from stackrev.models import build, memory_lstm
from stackrev.models.base import Reverser, pack_targets
from stackrev.models.deque_lstm import DequeLSTMReverser
from stackrev.models.lstm import LSTMReverser
from stackrev.models.queue_lstm import QueueLSTMReverser
from stackrev.models.rnn import RNNReverser
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.readout import pack
from stackrev.tasks import vocabulary
from stackrev.tasks.batches import Batch, make_batch
from stackrev.tasks.strings import sample_strings

SMALL: dict[str, Any] = {"hidden_size": 6, "stack_width": 5, "string_noise": 0.0, "shared_controls": True}


def small(kind: str, **changes: Any) -> ModelConfig:
    return shape_of(kind, **{**SMALL, **changes})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_batch(samples: int = 5) -> Batch:
    return make_batch(sample_strings(LengthRange(minimum=0, maximum=6), samples, seeded(1)))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=[1, 2, 3], ids="{} layers".format)
def layers(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def test_a_kind_is_a_class() -> None:
    classes = {
        "rnn": RNNReverser,
        "lstm": LSTMReverser,
        "stack-lstm": StackLSTMReverser,
        "queue-lstm": QueueLSTMReverser,
        "deque-lstm": DequeLSTMReverser,
    }
    assert {name: type(build(small(name), seeded(0))) for name in classes} == classes


def test_logits_are_those_of_the_steps_that_strings_have(kind: str, layers: int) -> None:
    batch = some_batch()
    model = build(small(kind, layers=layers), seeded(0))
    logits = model(batch)
    assert logits.shape == (int(batch.steps.sum()), vocabulary.SIZE)
    assert logits.shape[:1] == pack_targets(batch).shape
    assert bool(logits.isfinite().all())


def test_rows_do_not_see_each_other(kind: str) -> None:
    strings = sample_strings(LengthRange(minimum=0, maximum=6), 5, seeded(1))
    model = build(small(kind), seeded(0)).eval()
    together = rows_of(model, make_batch(strings))
    for row, string in zip(together, sorted(strings, key=len, reverse=True), strict=True):
        (alone,) = rows_of(model, make_batch([string]))
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-5)


def rows_of(model: Reverser[Any], batch: Batch) -> list[Tensor]:
    """The logits of each row, [its steps, V]."""
    inside = torch.arange(len(batch.source))[:, None] < batch.steps
    table = torch.zeros(*inside.shape, vocabulary.SIZE)
    with torch.no_grad():
        table[inside] = model(batch)
    return [table[:steps, row] for row, steps in enumerate(batch.steps.tolist())]


def test_padding_is_never_read(kind: str) -> None:
    batch = some_batch()
    outside = torch.arange(len(batch.source))[:, None] >= batch.steps
    other = Batch(*(each.masked_fill(outside, 77) for each in batch[:3]), batch.steps, batch.target_steps)
    model = build(small(kind), seeded(0)).eval()
    torch.testing.assert_close(model(other), model(batch))


def test_packing() -> None:
    table = torch.arange(6).reshape(3, 2)
    assert pack(table, torch.tensor([3, 1])).tolist() == [0, 1, 2, 4]
    assert pack(table, torch.tensor([3, 3])).tolist() == [0, 1, 2, 3, 4, 5]
    batch = make_batch([torch.tensor([5]), torch.tensor([8, 9])])
    assert pack_targets(batch).tolist() == [9, 5, 8, vocabulary.END, vocabulary.END]


@pytest.mark.parametrize("shared", [True, False])
def test_decoding_step_by_step_is_teacher_forcing(kind: str, layers: int, shared: bool) -> None:
    config = small(kind, layers=layers, shared_controls=shared)
    model = build(config, seeded(0)).eval()
    batch = some_batch()
    forced = rows_of(model, batch)
    with torch.no_grad():
        state = model.encode(batch.source, batch.steps)
        for t, symbols in enumerate(batch.fed):
            logits, state = model.step(symbols, state)
            for row, steps in enumerate(batch.steps.tolist()):
                if t < steps:
                    torch.testing.assert_close(logits[row], forced[row][t], rtol=0, atol=1e-5)


def test_every_parameter_is_saved_and_learns(kind: str, layers: int) -> None:
    model = build(small(kind, layers=layers, gate_noise=0.0, string_noise=0.0), seeded(0))
    parameters = dict(model.named_parameters())
    assert parameters.keys() == model.state_dict().keys()
    model(some_batch()).square().sum().backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name
        assert bool(parameter.grad.isfinite().all()), name


def test_initial_states_are_trained(kind: str, layers: int) -> None:
    model = build(small(kind, layers=layers), seeded(0)).eval()
    names = [name for name in model.config.shapes() if name.startswith("initial")]
    assert [name for name in model.state_dict() if name.startswith("initial")] == names
    batch = some_batch()
    before = model(batch)
    for name in names:
        initial = model.get_parameter(name)
        assert initial.shape == (layers, 1, SMALL["hidden_size"])
        with torch.no_grad():
            initial.add_(0.5)
        assert not torch.allclose(model(batch), before)
        with torch.no_grad():
            initial.sub_(0.5)
    torch.testing.assert_close(model(batch), before)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("initialisation", get_args(Initialisation))
def test_initial_values_come_from_the_generator_alone(
    kind: str, layers: int, initialisation: Initialisation, shared: bool
) -> None:
    config = small(kind, layers=layers, initialisation=initialisation, shared_controls=shared)
    before = torch.get_rng_state()
    first, again, other = (build(config, seeded(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(bool(each.isfinite().all()) for each in first.values())
    drawn = {name for name in first if first[name].ndim == 2}
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_without_a_generator_the_global_one_draws(kind: str) -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return build(small(kind)).logits.weight

    with torch.random.fork_rng():
        assert torch.equal(draw(1), draw(1))
        assert not torch.equal(draw(1), draw(2))


def test_tuned_gates_start_where_they_are_told() -> None:
    model = build(small("stack-lstm", initialisation="tuned", push_bias=0.75, pop_bias=-0.25), seeded(0))
    assert isinstance(model, StackLSTMReverser)
    assert model.controls.bias[:2].tolist() == [0.75, -0.25]
    assert not model.controls.bias[2:].any()


def test_a_deques_gates_start_where_they_are_told_at_both_ends() -> None:
    biases = {"push_bias": 0.75, "pop_bias": -0.25, "bottom_push_bias": -4.5, "bottom_pop_bias": -3.5}
    model = build(small("deque-lstm", initialisation="tuned", **biases), seeded(0))
    assert isinstance(model, DequeLSTMReverser)
    assert model.controls.bias.tolist() == [*biases.values(), *[0.0] * 2 * SMALL["stack_width"]]
    assert model.controls.weight.shape == (SMALL["hidden_size"], 4 + 2 * SMALL["stack_width"])


def test_a_decoders_gates_start_where_it_is_told_and_otherwise_as_the_encoders() -> None:
    biases = {"push_bias": 1.5, "pop_bias": -4.0, "bottom_push_bias": -3.0, "bottom_pop_bias": -3.5}
    own = {"decoder_pop_bias": 3.0, "decoder_bottom_push_bias": 0.5}
    apart = small("deque-lstm", initialisation="tuned", shared_controls=False, **biases, **own)
    model = build(apart, seeded(0))
    assert isinstance(model, DequeLSTMReverser)
    assert model.controls.bias[:4].tolist() == [1.5, -4.0, -3.0, -3.5]
    assert model.decoder_controls.bias[:4].tolist() == [1.5, 3.0, 0.5, -3.5]
    shared = build(small("deque-lstm", initialisation="tuned", shared_controls=True, **biases, **own), seeded(0))
    assert isinstance(shared, DequeLSTMReverser)
    assert shared.controls.bias[:4].tolist() == [1.5, -4.0, -3.0, -3.5]


def test_a_saved_model_is_the_same_model(kind: str) -> None:
    batch = some_batch()
    model, other = (build(small(kind, layers=2), seeded(seed)).eval() for seed in (1, 2))
    assert not torch.equal(model(batch), other(batch))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(batch), other(batch))


def test_recurrent_weights_carry_the_state(kind: str, layers: int) -> None:
    model = build(small(kind, layers=layers), seeded(0))
    weights = model.recurrent_weights()
    assert len(weights) == 2 * layers
    own = {id(each) for each in model.parameters()}
    assert all(id(each) in own and each.ndim == 2 for each in weights)


def test_an_elman_network_without_recurrent_weights_forgets() -> None:
    model = build(small("rnn"), seeded(0)).eval()
    batch = make_batch([torch.tensor([9, 10, 11])])
    other = batch._replace(fed=batch.fed.index_fill(0, torch.tensor([0]), 50))
    assert not torch.allclose(model(batch)[1:], model(other)[1:])
    with torch.no_grad():
        for each in model.recurrent_weights():
            each.zero_()
    torch.testing.assert_close(model(batch)[1:], model(other)[1:])


@pytest.mark.parametrize("kind", ["stack-lstm", "deque-lstm"])
def test_noise_is_for_training_alone(kind: str) -> None:
    batch = some_batch()
    model = build(small(kind), seeded(0))
    quiet = model.eval()(batch, generator=seeded(3))
    assert torch.equal(quiet, model(batch, generator=seeded(4)))
    noisy = model.train()(batch, generator=seeded(3))
    assert not torch.allclose(noisy, quiet)
    assert torch.equal(noisy, model(batch, generator=seeded(3)))
    assert not torch.allclose(noisy, model(batch, generator=seeded(4)))
    silent = build(small(kind, gate_noise=0.0, string_noise=0.0), seeded(0))
    assert torch.equal(silent.train()(batch, generator=seeded(3)), quiet)


def test_noise_comes_from_the_generator_alone(kind: str) -> None:
    generator, batch = seeded(3), some_batch()
    model = build(small(kind), seeded(0)).train()
    before, own = torch.get_rng_state(), generator.get_state()
    model(batch, generator=generator).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), own) == (not hasattr(model.config, "gate_noise"))


def test_noise_is_new_for_each_step_row_and_gate() -> None:
    model = build(small("stack-lstm", gate_stretch=0.0), seeded(0)).train()
    assert isinstance(model, StackLSTMReverser)
    ids = torch.full((4, 3), 9)
    out = model.run(model.encoder, ids, torch.full((3,), 4), model.initial_state(3), seeded(0))
    gates = torch.stack([out.push, out.pop])
    assert len(gates.unique()) == gates.numel()


def test_controls_are_shared_or_not() -> None:
    shared, apart = (build(small("stack-lstm", shared_controls=each), seeded(0)) for each in (True, False))
    assert isinstance(shared, StackLSTMReverser)
    assert isinstance(apart, StackLSTMReverser)
    assert shared.controls_of(shared.encoder) is shared.controls_of(shared.decoder)
    assert apart.controls_of(apart.encoder) is not apart.controls_of(apart.decoder)
    extra = set(apart.state_dict()) - set(shared.state_dict())
    assert extra == {"decoder_controls.weight", "decoder_controls.bias"}


def test_the_stack_starts_empty_and_holds_what_was_read() -> None:
    model = build(small("stack-lstm"), seeded(0)).eval()
    assert isinstance(model, StackLSTMReverser)
    start = model.initial_state(3)
    assert start.memory.values.shape == (0, 3, SMALL["stack_width"])
    assert not start.read.any()
    assert not start.memory.height.any()
    batch = make_batch([torch.tensor([9, 10, 11])])
    assert model.encode(batch.source, batch.steps).memory.values.shape == (4, 1, SMALL["stack_width"])


def test_weights_set_by_hand_reverse() -> None:
    model = handmade_reverser()
    batch = make_batch(sample_strings(LengthRange(minimum=0, maximum=150), 20, seeded(0)))
    assert torch.equal(model(batch).argmax(-1), pack_targets(batch))
    # one whole element for `$` and each symbol, and after writing none but that of `$`
    state = model.encode(batch.source, batch.steps)
    torch.testing.assert_close(state.memory.height, batch.steps.double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["queue-lstm", "deque-lstm"])
@torch.no_grad()
def test_a_step_drops_what_has_been_popped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(small(kind, shared_controls=False), seeded(0)).eval()
    for controls, biases in (
        (model.controls, [9.0, -9.0, 9.0, -9.0]),
        (model.decoder_controls, [-9.0, 9.0, -9.0, 9.0]),
    ):
        ends = model.config.input_width // model.config.stack_width
        controls.bias[: 2 * ends] = torch.tensor(biases[: 2 * ends])
    batch, left = some_batch(), {}
    for every in (10**9, 1):
        monkeypatch.setattr(memory_lstm, "_DROP_EVERY", every)
        state, found = model.encode(batch.source, batch.steps), []
        for symbols in batch.fed:
            logits, state = model.step(symbols, state)
            found.append(logits)
        left[every] = torch.stack(found), state.memory.bottoms.shape[0]
    torch.testing.assert_close(left[1][0], left[10**9][0], rtol=0, atol=1e-6)
    assert left[1][1] == 0
    assert left[10**9][1] > 0
