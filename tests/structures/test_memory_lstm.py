"""The recurrence on a queue and on a deque against the paper's equations, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from reference import literal_memory_lstm
from torch import Tensor

from stackrev.structures import stepwise
from stackrev.structures.deque import DequeState, neural_deque
from stackrev.structures.queue import QueueState, neural_queue
from stackrev.structures.recurrence import (
    MemoryLSTMOutput,
    MemoryLSTMState,
    MemoryLSTMWeights,
    memory_lstm,
    memory_lstm_torch,
)

SIZE, WIDTH, BATCH, STEPS, OLDER = 5, 3, 4, 7, 2
LENGTHS = torch.tensor([7, 5, 5, 0])

Recurrence = Callable[..., MemoryLSTMOutput]


class Given(NamedTuple):
    """Arguments, float64: `before` is what was done to the memory earlier, and `leaves` all that is derived by."""

    inputs: Tensor
    noise: Tensor
    state: MemoryLSTMState
    weights: MemoryLSTMWeights
    before: list[Tensor]
    leaves: list[Tensor]


def given(ends: int, layers: int = 1) -> Given:
    generator = torch.Generator().manual_seed(layers)

    def leaf(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, dtype=torch.float64, generator=generator)).requires_grad_()

    before = [torch.rand(OLDER, BATCH, dtype=torch.float64, generator=generator) * (1 - 0.5 * pop) for pop in (0, 1)]
    before = [each for each in before for _ in range(ends)]
    before = [leaf(OLDER, BATCH, WIDTH) for _ in range(ends)] + [each.requires_grad_() for each in before]
    memory = (neural_queue if ends == 1 else neural_deque)(*before)[-1]
    parts = leaf(layers, BATCH, SIZE), leaf(layers, BATCH, SIZE), leaf(BATCH, ends * WIDTH)
    weights = MemoryLSTMWeights(
        tuple(leaf((SIZE if layer else ends * WIDTH) + SIZE, 4 * SIZE, scale=0.7) for layer in range(layers)),
        tuple(leaf(4 * SIZE) for _ in range(layers - 1)),
        leaf(SIZE, ends * (2 + WIDTH), scale=1.5),
        leaf(ends * (2 + WIDTH)),
    )
    inputs, noise = leaf(STEPS, BATCH, 4 * SIZE), leaf(STEPS, BATCH, 2 * ends)
    leaves = [inputs, noise, *parts, *before, *weights.recurrent, *weights.biases, *weights[2:]]
    return Given(inputs, noise, MemoryLSTMState(*parts, memory), weights, before, leaves)


@pytest.fixture(params=[memory_lstm, memory_lstm_torch], ids=lambda function: function.__name__)
def implementation(request: pytest.FixtureRequest) -> Recurrence:
    """What runs by default, compiled where it can be, and the plain torch version."""
    function: Recurrence = request.param
    return function


@pytest.mark.parametrize("cell_stretch", [0.0, 0.3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("ends", [1, 2])
def test_agrees_with_the_paper(implementation: Recurrence, ends: int, layers: int, cell_stretch: float) -> None:
    call = given(ends, layers)
    stretches = {"stretch": 0.1, "cell_stretch": cell_stretch}
    out = implementation(call.inputs, LENGTHS, call.state, call.weights, **stretches, noise=call.noise)
    ours = [out.hidden, *out.state[:3]]
    theirs = literal_memory_lstm(
        call.inputs, LENGTHS, call.before, call.state[:3], call.weights, **stretches, noise=call.noise
    )
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(each.shape, dtype=torch.float64, generator=generator) for each in theirs]
    gradients = []
    for found in (ours, theirs):
        loss = sum((each * weight).sum() for each, weight in zip(found, upstream, strict=True))
        gradients.append(torch.autograd.grad(loss, call.leaves, materialize_grads=True, retain_graph=True))
    for one, other in zip((*ours, *gradients[0]), (*theirs, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ends", [1, 2])
def test_the_final_state_is_what_the_gates_have_made(implementation: Recurrence, ends: int) -> None:
    call = given(ends)
    out = implementation(call.inputs, LENGTHS, call.state, call.weights, stretch=0.1, noise=call.noise)
    values = out.state.memory.values[ends * OLDER :].view(STEPS, ends, BATCH, WIDTH).unbind(1)
    controls = [*out.push.view(STEPS, BATCH, ends).unbind(2), *out.pop.view(STEPS, BATCH, ends).unbind(2)]
    final = (neural_queue if ends == 1 else neural_deque)(*values, *controls, call.state.memory)[-1]
    assert type(out.state.memory) is type(final)
    for name in ("strengths", "low", "high"):
        torch.testing.assert_close(getattr(out.state.memory, name), getattr(final, name), rtol=0, atol=1e-12)
    for t in range(STEPS):
        ended = t >= LENGTHS
        assert not out.hidden[t, ended].any()
        assert not controls[0][t, ended].any()
        assert not out.state.memory.strengths[ends * (OLDER + t) :, ended].any()


@pytest.mark.parametrize("ends", [1, 2])
def test_streaming_gives_the_whole(implementation: Recurrence, ends: int) -> None:
    call = given(ends, 2)
    whole = implementation(call.inputs, LENGTHS, call.state, call.weights, stretch=0.1, noise=call.noise)
    state = call.state
    for t in range(STEPS):
        one = slice(t, t + 1)
        steps = (LENGTHS > t).long()
        out = implementation(call.inputs[one], steps, state, call.weights, stretch=0.1, noise=call.noise[one])
        for name in ("hidden", "push", "pop"):
            torch.testing.assert_close(getattr(out, name)[0], getattr(whole, name)[t], rtol=0, atol=1e-12)
        state = out.state
    for ours, theirs in zip((*state[:3], *state.memory), (*whole.state[:3], *whole.state.memory), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ends", [1, 2])
def test_a_long_memory_is_read_where_it_has_a_share(ends: int, monkeypatch: pytest.MonkeyPatch) -> None:
    call = given(ends)
    arguments = call.inputs, LENGTHS, call.state, call.weights
    whole = memory_lstm_torch(*arguments, stretch=0.1, noise=call.noise)
    monkeypatch.setattr(stepwise, "_LONG", 0)
    with torch.inference_mode():
        out = memory_lstm_torch(*arguments, stretch=0.1, noise=call.noise)
    for ours, theirs in zip((out.hidden, *out.state.memory), (whole.hidden, *whole.state.memory), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ends", [1, 2])
def test_padding_is_never_read(implementation: Recurrence, ends: int) -> None:
    call = given(ends)
    ended = (LENGTHS[None] <= torch.arange(STEPS)[:, None])[..., None]
    inputs, noise = (each.detach().masked_fill(ended, torch.nan) for each in (call.inputs, call.noise))
    out = implementation(inputs, LENGTHS, call.state, call.weights, stretch=0.1, noise=noise)
    gradients = torch.autograd.grad(out.hidden.sum() + out.state.read.sum(), call.weights.recurrent[0])
    assert all(bool(each.isfinite().all()) for each in (out.hidden, *out.state[:3], *out.state.memory, *gradients))


def test_no_steps_and_no_rows(implementation: Recurrence) -> None:
    call = given(2)
    nothing = torch.zeros(BATCH, dtype=torch.int64)
    out = implementation(call.inputs[:0], nothing, call.state, call.weights, stretch=0.1)
    assert out.hidden.shape == (0, BATCH, SIZE)
    assert out.push.shape == (0, BATCH, 2)
    empty = MemoryLSTMState(*(each[..., :0, :] for each in call.state[:3]), DequeState.empty(0, WIDTH, like=out.hidden))
    out = implementation(call.inputs[:, :0], nothing[:0], empty, call.weights, stretch=0.1)
    assert out.hidden.shape == (STEPS, 0, SIZE)
    assert out.state.memory.values.shape == (2 * STEPS, 0, WIDTH)


def test_float32_values_stand_on_float64_positions(implementation: Recurrence) -> None:
    call = given(1)
    empty = QueueState.empty(BATCH, WIDTH, like=torch.zeros(1))
    state = MemoryLSTMState(*(each.float() for each in call.state[:3]), empty)
    weights = MemoryLSTMWeights(
        *(tuple(one.float() for one in some) for some in call.weights[:2]), *(each.float() for each in call.weights[2:])
    )
    out = implementation(call.inputs.float(), LENGTHS, state, weights, stretch=0.1)
    assert out.hidden.dtype == out.push.dtype == out.state.memory.values.dtype == torch.float32
    assert {each.dtype for each in out.state.memory[1:]} == {torch.float64}


def test_arguments_that_do_not_belong_together(implementation: Recurrence) -> None:
    call = given(2)
    with pytest.raises(ValueError, match=r"noise has the shape \[7, 4, 2\], not \[7, 4, 4\]"):
        implementation(call.inputs, LENGTHS, call.state, call.weights, stretch=0.1, noise=call.noise[..., :2])
    low = call.state.memory._replace(low=torch.zeros(1))
    with pytest.raises(ValueError, match=r"deque low has the shape \[1\], not \[4\]"):
        implementation(call.inputs, LENGTHS, call.state._replace(memory=low), call.weights, stretch=0.1)
    with pytest.raises(ValueError, match="control has the shape"):
        implementation(call.inputs, LENGTHS, given(1).state, call.weights, stretch=0.1)
