"""The compiled stack-LSTM against the one in plain torch: outputs, final state and every gradient."""

import itertools

import pytest
import torch
from torch import Tensor

from stackrev.kernels import available
from stackrev.structures.recurrence import (
    MemoryLSTMOutput,
    MemoryLSTMState,
    MemoryLSTMWeights,
    memory_lstm,
    memory_lstm_torch,
)
from stackrev.structures.stack import StackState, neural_stack

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def random_call(
    T, B, M, H=8, K=1, *, dtype=torch.float64, N=0, scale=1.0, mixed=True, noise=True, seed=0
):  # fmt: skip
    """Arguments of `memory_lstm`, of which all floats want a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    empty = StackState.empty(B, M, like=torch.empty(0, dtype=dtype))
    stack = empty
    if N:
        push, pop = (torch.rand(N, B, generator=generator, dtype=torch.float64) for _ in "du")
        stack = neural_stack(randn(N, B, M), push.to(dtype), (pop * 0.8).to(dtype), empty)[1]
    state = MemoryLSTMState(randn(K, B, H, scale=0.5), randn(K, B, H, scale=0.5), randn(B, M, scale=0.5), stack)
    recurrent = [randn((M if k == 0 else H) + H, 4 * H, scale=(M + H) ** -0.5) for k in range(K)]
    biases = [randn(4 * H, scale=0.1) for _ in range(1, K)]
    control = randn(H, 2 + M, scale=scale * H**-0.5)
    bias = randn(2 + M, scale=0.1)
    bias[:2] += torch.tensor([0.7, -0.7], dtype=dtype) * scale
    lengths = torch.randint(0, T + 1, (B,), generator=generator) if mixed else torch.full((B,), T)
    if mixed:
        lengths[0] = T
    lengths = lengths.sort(descending=True).values
    call = {
        "inputs": randn(T, B, 4 * H),
        "lengths": lengths,
        "state": state,
        "weights": MemoryLSTMWeights(tuple(recurrent), tuple(biases), control, bias),
        "stretch": 0.05,
        "noise": randn(T, B, 2) if noise else None,
    }
    for tensor in inputs_of(call):
        tensor.requires_grad_()
    return call


def inputs_of(call) -> list[Tensor]:
    state, weights = call["state"], call["weights"]
    floats = [call["inputs"], *state[:3], *state.memory, *weights.recurrent, *weights.biases, *weights[2:]]
    return [call["noise"], *floats] if call["noise"] is not None else floats


def outputs_of(output: MemoryLSTMOutput) -> list[Tensor]:
    state = output.state
    return [output.hidden, output.push, output.pop, *state[:3], state.memory.values, *state.memory[1:]]


def results(function, call) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and the gradients of a random weighting of all of them."""
    output = function(**call)
    outputs = outputs_of(output)
    generator = torch.Generator().manual_seed(1)
    alive = (output.state.memory.strengths > 1e-9).detach()  # what has been popped has no place worth comparing
    loss = torch.zeros((), dtype=torch.float64)
    for index, tensor in enumerate(outputs):
        if not tensor.requires_grad:
            continue
        weight = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if index in (7, 8):
            weight = weight * alive
        loss = loss + (weight * tensor).sum()
    gradients = torch.autograd.grad(loss, inputs_of(call), allow_unused=True, materialize_grads=True)
    return [*(tensor.detach() for tensor in outputs), alive.double()], list(gradients)


def assert_close(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = b.abs().max().clamp(min=1) if b.numel() else 1
        assert ((a - b).abs() / scale <= tolerance).all(), f"{index}: {((a - b).abs() / scale).max()}"


def assert_same(call, dtype) -> None:
    ours, theirs = results(memory_lstm, call), results(memory_lstm_torch, call)
    assert_close(ours[0], theirs[0], TOLERANCE[dtype])
    assert_close(ours[1], theirs[1], TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("T", "B", "M"),
    [
        *list(itertools.product([1, 2, 7, 63], [1, 3, 50], [1, 5])),
        (63, 3, 64),
        (7, 50, 64),
        (130, 3, 5),
        (130, 50, 5),
        (130, 1, 64),
    ],
)
def test_shapes(T, B, M):
    assert_same(random_call(T, B, M), torch.float64)


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("N", [0, 4])
@pytest.mark.parametrize("H", [1, 6, 16, 33])
def test_layers_and_initial_stacks(K, N, H):
    assert_same(random_call(20, 5, 5, H, K, N=N), torch.float64)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("T", "B", "M", "K"), [(1, 1, 1, 1), (7, 3, 64, 2), (40, 50, 64, 1), (130, 2, 5, 3)])
def test_float32(T, B, M, K, mixed):
    assert_same(random_call(T, B, M, 32, K, dtype=torch.float32, N=2, mixed=mixed), torch.float32)


def test_without_noise():
    assert_same(random_call(7, 3, 5, noise=False), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("e", [1e-6, 0.05, 0.5])
@pytest.mark.parametrize(("H", "K"), [(6, 1), (16, 2)])
def test_stretched_cells(H, K, e, dtype):
    call = random_call(40, 9, 5, H, K, dtype=dtype) | {"cell_stretch": e}
    with torch.no_grad():
        call["inputs"] *= 3
    assert_same(call, dtype)


def test_a_stretched_cell_keeps_what_it_has_to_the_last_bit():
    call = random_call(63, 3, 5, mixed=False, dtype=torch.float32)
    forgets_nothing = torch.tensor([-20.0, 20.0, 0.0, 0.0]).repeat_interleave(8)
    with torch.no_grad():
        call["inputs"] += forgets_nothing
        call["state"].cell[:] = 0.123456789
    for function in (memory_lstm, memory_lstm_torch):
        assert not function(**call).state.cell.equal(call["state"].cell)
        assert function(**call, cell_stretch=0.05).state.cell.equal(call["state"].cell)


@pytest.mark.parametrize("scale", [5.0, 40.0])
@pytest.mark.parametrize("K", [1, 2])
def test_saturated_gates(scale, K):
    assert_same(random_call(63, 9, 5, K=K, scale=scale), torch.float64)


def with_table(call, symbols: int, *, dtype=torch.int64):
    """The same call with inputs from a table, which takes the inputs' place as what wants a gradient."""
    generator = torch.Generator().manual_seed(3)
    steps, batch, wide = call["inputs"].shape
    table = torch.randn(symbols, wide, generator=generator, dtype=torch.float64).to(call["inputs"].dtype)
    ids = torch.randint(symbols, (steps, batch), generator=generator).to(dtype)
    return call | {"inputs": table.requires_grad_(), "ids": ids}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("T", "B", "symbols"), [(7, 3, 2), (20, 50, 131), (20, 120, 131), (7, 3, 1000), (1, 1, 5)])
@pytest.mark.parametrize("K", [1, 2])
def test_inputs_from_a_table(T, B, symbols, K, dtype):
    call = with_table(random_call(T, B, 5, H=6, K=K, dtype=dtype), symbols)
    ours, theirs = results(memory_lstm, call), results(memory_lstm_torch, call)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, TOLERANCE[dtype])


@pytest.mark.parametrize("function", [memory_lstm, memory_lstm_torch])
@pytest.mark.parametrize("symbols", [9, 1000])
def test_ids_of_steps_that_are_not_taken_may_be_anything(function, symbols):
    call = with_table(random_call(7, 3, 5), symbols)
    taken = torch.arange(7)[:, None] < call["lengths"]
    assert not taken.all()
    ours = results(function, call | {"ids": call["ids"].where(taken, -1)})
    for a, b in zip(ours, results(function, call), strict=True):
        assert_close(a, b, 0)


@pytest.mark.parametrize("function", [memory_lstm, memory_lstm_torch])
def test_ids_that_are_none(function):
    call = with_table(random_call(7, 3, 5), 9)
    for wrong in (call["ids"].double(), call["ids"][..., None], call["ids"] > 3):
        with pytest.raises(ValueError, match="ids are"):
            function(**call | {"ids": wrong})


@pytest.mark.parametrize("cell_stretch", [0.0, 0.1])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_a_number_stays_in_sight(place, cell_stretch):
    call = random_call(7, 3, 5, mixed=False) | {"cell_stretch": cell_stretch}
    with torch.no_grad():
        call["weights"].control_bias[place] = torch.nan
    for function in (memory_lstm, memory_lstm_torch):
        output = function(**call)
        assert output.hidden[2:].isnan().all()
        assert output.state.memory.height.isnan().all()


def test_ids_of_any_integers():
    call = random_call(7, 3, 5)
    ours, theirs = (results(memory_lstm, with_table(call, 9, dtype=dtype)) for dtype in (torch.int32, torch.int64))
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, 0)


def test_unknown_ids():
    call = with_table(random_call(7, 3, 5), 9)
    for wrong in (9, -1):
        ids = call["ids"].clone()
        ids[0, 0] = wrong
        with pytest.raises(IndexError):
            memory_lstm(**call | {"ids": ids})


def test_ids_that_have_changed_behind_torch_s_back():
    call = with_table(random_call(7, 3, 5), 9)
    output = memory_lstm(**call)
    call["ids"].numpy()[0, 0] = 2**40
    with pytest.raises(IndexError):
        torch.autograd.grad(output.hidden.sum(), call["inputs"])
