"""The proof: what it covers does happen, and it is refused where a network errs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade import handmade_reverser

from stackrev.evaluation.certificate.boxes import decoder_rows, find_encoder_box
from stackrev.evaluation.certificate.conditions import check
from stackrev.evaluation.certificate.intervals import Box, Rounding
from stackrev.evaluation.certificate.network import Network, State, read_stack_lstm
from stackrev.evaluation.certificate.proof import coarsest, prove
from stackrev.evaluation.scoring import score
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary

ROUNDING = Rounding()


def network_of(model: StackLSTMReverser) -> Network:
    return read_stack_lstm(model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()})


@pytest.fixture(scope="module")
def handmade() -> StackLSTMReverser:
    return handmade_reverser()


@pytest.fixture(scope="module")
def network(handmade) -> Network:
    return network_of(handmade)


@pytest.fixture(scope="module")
def proof(network):
    return prove(network)


def test_a_network_that_reverses_is_proved(proof):
    assert proof.proved
    conditions = proof.conditions
    assert conditions.encoder_push > 40
    assert conditions.decoder_pop > 40
    assert conditions.logits == pytest.approx(1, abs=1e-3)


def states_along(model: StackLSTMReverser, string: torch.Tensor) -> tuple[list, list]:
    """The states (h, c) after every step of the encoder and of the decoder."""
    encoder, decoder = [], []
    state = model.initial_state(1)
    with torch.no_grad():
        for symbol in (vocabulary.START, *string.tolist()):
            ids = torch.tensor([[symbol]])
            state = model.run(model.encoder, ids, torch.ones(1, dtype=torch.int64), state).state
            encoder.append(state)
        for symbol in (vocabulary.SEPARATOR, *reversed(string.tolist())):
            ids = torch.tensor([[symbol]])
            state = model.run(model.decoder, ids, torch.ones(1, dtype=torch.int64), state).state
            decoder.append(state)
    return encoder, decoder


def test_the_boxes_hold_every_state_that_occurs(handmade, proof, generator):
    string = torch.randint(3, 131, (60,), generator=generator)
    for states, box in zip(states_along(handmade, string), (proof.boxes.encoder, proof.boxes.decoder), strict=True):
        for state in states:
            for values, bounds in ((state.hidden[:, 0], box.hidden), (state.cell[:, 0], box.cell)):
                assert (bounds.lower <= values.numpy()).all()
                assert (values.numpy() <= bounds.upper).all()


@pytest.mark.parametrize(("layers", "shared"), [(1, False), (2, False), (3, True)])
def test_a_step_on_boxes_holds_steps_from_their_states(layers, shared, generator):
    """For any weights: sampled states of a box, run through the model in float32, end up in the image of the box."""
    config = StackLSTMConfig(hidden_size=6, stack_width=5, layers=layers, shared_controls=shared)
    model = StackLSTMReverser(config, generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    network = network_of(model)
    rng = np.random.default_rng(layers)
    shape = (layers, 6)
    low, wide = rng.uniform(-1, 0.5, (2, *shape)), rng.uniform(0, 0.5, (2, *shape))
    box = State(Box(low[0], low[0] + wide[0]), Box(2 * low[1], 2 * (low[1] + wide[1])))
    encoded = network.encoded(box, ROUNDING)
    values = network.pushed(network.started(ROUNDING), encoded, ROUNDING)
    ((_, decoded),) = decoder_rows(network, values, box, ROUNDING, chunk=10**9)
    count = len(network.wanted)
    for _ in range(20):
        share = rng.random((2, *shape)).round(1)
        h, c = (torch.tensor(b.lower + s * (b.upper - b.lower)).float() for b, s in zip(box, share, strict=True))
        symbol, value = int(rng.integers(len(network.alphabet))), int(rng.integers(count))
        with torch.no_grad():
            read = (h[-1] @ model.controls.weight[:, 2:] + model.controls.bias[2:]).tanh()
            state = model.initial_state(1)._replace(hidden=h[:, None], cell=c[:, None], read=read[None])
            after = model.run(
                model.encoder, torch.tensor([[3 + symbol]]), torch.ones(1, dtype=torch.int64), state
            ).state
            assert_within(encoded, symbol, after)
            reads = torch.tensor(values.lower[value] + rng.random(5) * (values.upper - values.lower)[value]).float()
            state = state._replace(read=reads[None])
            after = model.run(
                model.decoder, torch.tensor([[3 + symbol]]), torch.ones(1, dtype=torch.int64), state
            ).state
            assert_within(decoded, (1 + symbol) * count + value, after)


def assert_within(states: State, row: int, state) -> None:
    for bounds, values in ((states.hidden, state.hidden[:, 0]), (states.cell, state.cell[:, 0])):
        assert (bounds.lower[row] <= values.numpy()).all()
        assert (values.numpy() <= bounds.upper[row]).all()


def test_what_is_proved_is_never_contradicted_by_samples(handmade, proof, generator):
    strings = [torch.randint(3, 131, (length,), generator=generator) for length in (0, 1, 2, 30, 200)]
    scores = score(handmade, strings, margins=True)
    assert scores.perfect
    found, proved = scores.margins, proof.conditions
    for name in ("encoder_push", "encoder_pop", "decoder_push", "decoder_pop", "logits"):
        assert getattr(found, name) >= getattr(proved, name)


def test_a_coarser_arithmetic_needs_wider_boxes_and_covers_the_finer(network, proof):
    coarse = coarsest(network, proof)
    assert coarse.proved
    assert coarse.rounding.unit >= 64 * proof.rounding.unit
    assert check(network, coarse.boxes.encoder, coarse.boxes.decoder, ROUNDING).hold
    assert not prove(network, replace(ROUNDING, unit=2 * coarse.rounding.unit)).proved


def altered(model: StackLSTMReverser, how: str) -> StackLSTMReverser:
    with torch.no_grad():
        match how:
            case "two logit rows swapped":
                model.logits.weight[[40, 41]] = model.logits.weight[[41, 40]]
            case "the push gate's bias":
                model.controls.bias[0] -= 1000
            case "a symbol read as another":
                model.encoder.symbols[50] = model.encoder.symbols[51]
            case "an end marker that is too likely":
                model.logits.bias[vocabulary.END] += 2
            case "gates that leak":
                model.controls.weight[:, :2] *= 0.04
            case "a first state that matters":
                model.initial_cell.fill_(1.0)
                model.encoder.bias[0][8:16] = 100.0
    return model


@pytest.mark.parametrize(
    "how",
    [
        "two logit rows swapped",
        "the push gate's bias",
        "a symbol read as another",
        "an end marker that is too likely",
        "gates that leak",
        "a first state that matters",
    ],
)
def test_a_network_that_errs_is_not_proved(how):
    model = altered(handmade_reverser(), how)
    strings = [torch.tensor(each) for each in ([], [40], [50], [40, 41], [60] * 40)]
    assert not score(model, strings).perfect, "the alteration does no harm, so nothing is tested"
    assert not prove(network_of(model)).proved


def test_a_rare_context_in_which_it_errs_is_not_proved():
    """It counts `a`s in a row, and spoils what is pushed from the fourth on."""
    model = counting_reverser()
    a, b = 3 + ord("a"), 3 + ord("b")
    rare = torch.tensor([b, a, a, a, a, b])
    ordinary = [torch.tensor(each) for each in ([a, a, a], [b, a, b, a, a, a, b], [a], [b] * 20)]
    assert score(model, ordinary).perfect
    assert not score(model, [rare]).perfect
    assert not prove(network_of(model)).proved


@torch.no_grad()
def counting_reverser() -> StackLSTMReverser:
    """The handmade model with two more units: one counts `a`s in a row, one says whether there were three or more."""
    old, size = handmade_reverser(), 10
    model = StackLSTMReverser(replace(old.config, hidden_size=size), torch.Generator()).eval()
    for parameter in model.parameters():
        parameter.zero_()
    gates = torch.tensor([gate * size + unit for gate in range(4) for unit in range(8)])
    for cell, before in ((model.encoder, old.encoder), (model.decoder, old.decoder)):
        cell.symbols[:, gates] = before.symbols
        cell.recurrent[0][torch.arange(15)[:, None], gates] = before.recurrent[0]
        cell.bias[0][gates] = before.bias[0]
    model.output.weight[:8, :8] = old.output.weight
    model.logits.weight[:, :8] = old.logits.weight
    model.logits.bias[:] = old.logits.bias
    model.controls.weight[:8] = old.controls.weight
    opened, forget, new, out = (gate * size for gate in range(4))
    cell = model.encoder
    # The count, unit 8: c <- c + 1 after an `a` and 0 after anything else, h = tanh(c).
    cell.bias[0][[opened + 8, new + 8, out + 8]] = 20.0
    cell.bias[0][forget + 8] = -20.0
    cell.symbols[:, opened + 8] = -40.0
    cell.symbols[3 + ord("a"), opened + 8] = 0.0
    cell.symbols[3 + ord("a"), forget + 8] = 40.0
    # The alarm, unit 9: 0.76 where the step before had counted to three (tanh(3) = 0.995), and -0.76 elsewhere.
    cell.bias[0][[opened + 9, out + 9]] = 20.0
    cell.bias[0][forget + 9] = -20.0
    cell.recurrent[0][7 + 8, new + 9] = 1e4
    cell.bias[0][new + 9] = -1e4 * 0.98
    # It turns the first bit of what is pushed to -1.
    model.controls.weight[9, 2] = -30.0
    model.controls.bias[2] = -30.0 * math.tanh(1.0)
    return model


def test_boxes_of_another_network_are_not_taken(network, proof):
    for factor, shift in itertools.product((0.5, 1.0), (0.1, -0.1)):
        boxes = [
            State(*(Box(box.lower * factor + shift, box.upper * factor + shift) for box in state))
            for state in (proof.boxes.encoder, proof.boxes.decoder)
        ]
        assert not check(network, *boxes, ROUNDING).hold


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_boxes_that_are_no_numbers_are_not_taken(network, proof, bad):
    for end in ("lower", "upper"):
        ends = {name: getattr(proof.boxes.decoder.cell, name).copy() for name in ("lower", "upper")}
        ends[end][0, 0] = bad
        decoder = State(proof.boxes.decoder.hidden, Box(**ends))
        with np.errstate(invalid="ignore"):
            assert not check(network, proof.boxes.encoder, decoder, ROUNDING).hold


def test_a_network_whose_states_grow_without_end_has_no_box(generator):
    model = StackLSTMReverser(StackLSTMConfig(hidden_size=8, stack_width=4), generator)
    with torch.no_grad():
        model.encoder.bias[0][8:16] = 200.0  # the forget gate is 1 to the last bit
    assert find_encoder_box(network_of(model), ROUNDING) is None
    assert prove(network_of(model)).missing == "encoder"
