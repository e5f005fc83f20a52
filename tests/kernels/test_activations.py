"""The kernels' own sigmoid and tanh: right, and the very ones that the cell uses."""

from array import array

import pytest
import torch

from stackrev.errors import NativeError
from stackrev.kernels import available, using
from stackrev.kernels.cpu import library
from stackrev.kernels.cpu.activations import activation
from stackrev.structures.recurrence import MemoryLSTMState, MemoryLSTMWeights, memory_lstm
from stackrev.structures.stack import StackState

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
FUNCTIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


def every_so_many(step: int) -> torch.Tensor:
    """Floats of all sizes: the numbers whose bits are 0, `step`, 2 `step`, ..."""
    return torch.arange(-(2**31), 2**31, step).to(torch.int32).view(torch.float32)


def result(function: str, numbers: torch.Tensor, **options) -> torch.Tensor:
    return torch.frombuffer(activation(function, numbers.numpy(), **options), dtype=torch.float32)


@pytest.mark.parametrize("instructions", library.SETS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_they_are_sigmoid_and_tanh(function, instructions):
    numbers = every_so_many(4_001)
    try:
        ours = result(function, numbers, instructions=instructions)
    except NativeError:
        pytest.skip(f"no {instructions}")
    exact = FUNCTIONS[function](numbers.double())
    real = ~numbers.isnan()
    assert ours[~real].isnan().all()
    assert ((ours.double() - exact).abs()[real] <= 4e-7).all()


@pytest.mark.parametrize("size", [0, 1, 2, 7, 15, 16, 17, 4095, 4096, 4097, 10_000])
def test_any_number_of_numbers(size):
    numbers = torch.randn(size, generator=torch.Generator().manual_seed(size)) * 3
    one_by_one = [activation("tanh", array("f", [x]))[0] for x in numbers[:40].tolist()]
    ours = list(activation("tanh", numbers.numpy()))
    assert ours[:40] == one_by_one
    assert ours == pytest.approx(torch.tanh(numbers).tolist(), abs=1e-6)


@pytest.fixture
def flushing():
    """Products too small to be normal are zero in the kernels, so they have to be here."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    yield
    torch.set_flush_denormal(False)


@torch.no_grad()
@pytest.mark.usefixtures("flushing")
@pytest.mark.parametrize("hidden", [1, 5, 16, 37])
def test_they_are_the_cell_s_bit_for_bit(hidden):
    """A cell without weights: i, o = sigmoid(x), g = tanh(x) of its input x, c = i g, h = o tanh(c), v = tanh(b)."""
    numbers = every_so_many(2**32 // (4 * hidden * 400) + 1)[: 4 * hidden * 400].view(-1, 1, 4 * hidden)
    numbers = numbers[~numbers.isnan().any(-1).any(-1)]
    steps = len(numbers)
    bias = torch.randn(3) * 2
    empty = StackState.empty(steps, 1, like=numbers)
    state = MemoryLSTMState(*(torch.zeros(1, steps, hidden) for _ in "hc"), torch.zeros(steps, 1), empty)
    weights = MemoryLSTMWeights((torch.zeros(1 + hidden, 4 * hidden),), (), torch.zeros(hidden, 3), bias)
    x = numbers.transpose(0, 1).contiguous()
    with using("compiled"):
        out = memory_lstm(x, torch.ones(steps, dtype=torch.int64), state, weights, stretch=0.0)
    i, _, g, o = x[0].split(hidden, 1)
    i, g, o = (
        result(function, part.flatten(), flush=True).view(steps, hidden)
        for function, part in (("sigmoid", i), ("tanh", g), ("sigmoid", o))
    )
    assert torch.equal(out.state.cell[0], i * g)
    squashed = result("tanh", out.state.cell[0].flatten(), flush=True).view(steps, hidden)
    assert torch.equal(out.hidden[0], o * squashed)
    push, pop = result("sigmoid", bias[:2], flush=True)
    assert out.push.unique().tolist() == [push]
    assert out.pop.unique().tolist() == [pop]
    assert out.state.memory.values.unique().tolist() == result("tanh", bias[2:], flush=True).tolist()


def test_numbers_too_small_to_be_normal():
    tiny = torch.tensor([2.0**-140])
    assert result("tanh", tiny).item() == tiny.item()
    assert result("tanh", tiny, flush=True).item() == 0
    assert result("sigmoid", tiny).item() == result("sigmoid", tiny, flush=True).item() == 0.5


def test_wrong_arguments():
    with pytest.raises(ValueError, match="no such function"):
        activation("relu", array("f", [1.0]))
    for wrong in (array("d", [1.0]), array("i", [1]), b"123"):
        with pytest.raises(ValueError, match="not float32"):
            activation("tanh", wrong)
    with pytest.raises(NativeError):
        activation("tanh", array("f", [1.0]), instructions="sse9")
