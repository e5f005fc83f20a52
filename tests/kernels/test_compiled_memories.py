"""The compiled queue and deque, alone and in the recurrence, against those in plain torch."""

import itertools

import pytest
import torch
from torch import Tensor

from stackrev.kernels import available, using
from stackrev.structures.deque import DequeState, neural_deque, neural_deque_torch
from stackrev.structures.queue import QueueState, neural_queue, neural_queue_torch
from stackrev.structures.recurrence import MemoryLSTMState, MemoryLSTMWeights, memory_lstm, memory_lstm_torch
from stackrev.structures.stack import StackState, neural_stack, neural_stack_torch

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
ENDS = {"stack": 1, "queue": 1, "deque": 2}
STATES = {"stack": StackState, "queue": QueueState, "deque": DequeState}
COMPILED = {"stack": neural_stack, "queue": neural_queue, "deque": neural_deque}
PLAIN = {"stack": neural_stack_torch, "queue": neural_queue_torch, "deque": neural_deque_torch}


class Random:
    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        drawn = torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale
        return drawn.to(self.dtype).requires_grad_()

    def uniform(self, *shape: int, high: float = 1.0) -> Tensor:
        return (torch.rand(*shape, generator=self.generator, dtype=torch.float64) * high).requires_grad_()

    def controls(self, name: str, T: int, B: int, M: int, most: float = 1.0) -> list[Tensor]:
        """Values, pushes and pops of all ends."""
        ends = ENDS[name]
        values = [self.normal(T, B, M) for _ in range(ends)]
        return [*values, *(self.uniform(T, B, high=most) for _ in range(2 * ends))]

    def state(self, name: str, N: int, B: int, M: int) -> list[Tensor]:
        """A structure after N steps that have added more than they have removed."""
        controls = self.controls(name, N, B, M)
        pops = [each * 0.7 for each in controls[-ENDS[name] :]]
        final = PLAIN[name](*controls[: -ENDS[name]], *pops)[-1]
        return [each.detach().clone().requires_grad_() for each in final]


def assert_close(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = b.abs().max().clamp(min=1) if b.numel() else 1
        assert ((a - b).abs() / scale <= tolerance).all(), f"{index}: {((a - b).abs() / scale).max()}"


def with_gradients(outputs: list[Tensor], alive: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of a random weighting of them; what has been popped has no place worth comparing."""
    outputs = [each * alive if each.shape == alive.shape else each for each in outputs]
    random, loss = Random(1), torch.zeros((), dtype=torch.float64)
    for each in outputs:
        weight = random.normal(*each.shape).detach()
        if each.requires_grad:
            loss = loss + (weight * each).sum()
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return [*(each.detach() for each in outputs), *gradients]


def alone(name: str, function, controls: list[Tensor], state: list[Tensor], depth) -> list[Tensor]:
    *reads, final = function(*controls, STATES[name](*state), depth=depth)
    inputs = [*controls, *state, *([depth] if isinstance(depth, Tensor) else [])]
    return with_gradients([*reads, *final], (final.strengths > 1e-9).detach(), inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("N", [0, 3])
@pytest.mark.parametrize(("T", "B", "M"), [(1, 1, 1), (2, 3, 5), (7, 1, 64), (63, 3, 5), (130, 2, 3), (20, 50, 5)])
@pytest.mark.parametrize("name", ["queue", "deque"])
def test_like_torch(name, T, B, M, N, dtype):
    random = Random(0, dtype)
    controls, state = random.controls(name, T, B, M), random.state(name, N, B, M)
    ours, theirs = (alone(name, each[name], controls, state, 1.0) for each in (COMPILED, PLAIN))
    assert_close(ours, theirs, TOLERANCE[dtype])


@pytest.mark.parametrize("depth", [0.3, 2.5, "each"])
@pytest.mark.parametrize("name", ENDS)
def test_depths_and_strengths_above_one(name, depth):
    random = Random(2)
    controls, state = random.controls(name, 30, 3, 5, most=2.5), random.state(name, 4, 3, 5)
    if depth == "each":
        depth = (random.uniform(30, 3, high=2) + 0.1).detach().requires_grad_()
    with using("compiled"):
        ours = alone(name, COMPILED[name], controls, state, depth)
    assert_close(ours, alone(name, PLAIN[name], controls, state, depth), 1e-10)


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("layout", [lambda g: g, lambda g: g[:1].expand_as(g), lambda g: g.mT.contiguous().mT])
def test_one_end_of_a_deque_may_be_read_alone(end, layout):
    random = Random(6)
    controls = random.controls("deque", 9, 3, 5)
    weight = layout(random.normal(9, 3, 5).detach())
    ours, theirs = (torch.autograd.grad(each["deque"](*controls)[end], controls, weight) for each in (COMPILED, PLAIN))
    assert_close(ours, theirs, 1e-10)


@pytest.mark.parametrize("name", ["queue", "deque"])
@pytest.mark.parametrize("strengths", list(itertools.product([0.0, 1.0], repeat=2)))
def test_whole_strengths_give_the_same_reads(name, strengths):
    controls = Random(3).controls(name, 12, 2, 3)
    for each, strength in zip(controls[ENDS[name] :: ENDS[name]], strengths, strict=False):
        each.data.fill_(strength)
    ours, theirs = (each[name](*controls) for each in (COMPILED, PLAIN))
    assert_close([*ours[:-1], ours[-1].strengths], [*theirs[:-1], theirs[-1].strengths], 1e-12)


@pytest.mark.parametrize("name", ["queue", "deque"])
def test_what_is_not_a_number_stays_in_sight(name):
    for place in range(ENDS[name], 3 * ENDS[name]):
        controls = [each.detach() for each in Random(4).controls(name, 9, 2, 3)]
        controls[place][4, 0] = torch.nan
        ours, theirs = (each[name](*controls) for each in (COMPILED, PLAIN))
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            assert torch.equal(a.isnan(), b.isnan())
            assert a[4:, 0].isnan().all()
        assert torch.equal(ours[-1].low.isnan(), theirs[-1].low.isnan())
        assert torch.equal(ours[-1].high.isnan(), theirs[-1].high.isnan())


@pytest.mark.parametrize("name", ["queue", "deque"])
def test_a_long_string_comes_back_in_order(name):
    T = 5000
    values = torch.randn(2 * T, 1, 2, generator=torch.Generator().manual_seed(0))
    push = torch.cat([torch.ones(T, 1), torch.zeros(T, 1)])
    none = torch.zeros(2 * T, 1)
    if name == "queue":
        reads, state = neural_queue(values, push, 1 - push)
    else:
        _, reads, state = neural_deque(values, values, push, none, none, 1 - push)
    assert torch.equal(reads[T:-1], values[1:T])
    assert state.high == state.low


def test_empty_pushes_cost_a_queue_nothing():
    """Half a unit is left while nothing is pushed: a read that passed all that is empty would take a minute."""
    T = 30_000
    values = torch.ones(T, 8, 2, dtype=torch.float64)
    push = torch.zeros(T, 8).index_fill_(0, torch.tensor([0]), 0.5)
    reads, _ = neural_queue(values.requires_grad_(), push, torch.zeros(T, 8))
    reads.sum().backward()
    assert (reads == 0.5).all()
    assert (values.grad[0] == T / 2).all()


def recurrence_call(
    name, T, B, M, H, K, *, N=0, dtype=torch.float64, scale=1.0, stretch=0.0, cell_stretch=0.0, table=0, mixed=True
):
    """Arguments of `memory_lstm`, and those among them that want a gradient.

    With a stretch, the places of what the memory has at the start are left out: a gate that is shut makes ties, at
    which places may have any of several derivatives.
    """
    random, ends = Random(5, dtype), ENDS[name]
    read = ends * M
    first = [random.normal(K, B, H, scale=0.5), random.normal(K, B, H, scale=0.5), random.normal(B, read, scale=0.5)]
    memory = random.state(name, N, B, M)
    recurrent = [random.normal((read if k == 0 else H) + H, 4 * H, scale=(read + H) ** -0.5) for k in range(K)]
    biases = [random.normal(4 * H, scale=0.1) for _ in range(1, K)]
    control, bias = random.normal(H, 2 * ends + read, scale=scale * H**-0.5), random.normal(2 * ends + read, scale=0.1)
    bias.data[: 2 * ends] += torch.tensor([0.7, -0.7] * ends, dtype=dtype) * scale
    inputs = random.normal(table, 4 * H) if table else random.normal(T, B, 4 * H)
    ids = torch.randint(table, (T, B), generator=random.generator) if table else None
    noise = random.normal(T, B, 2 * ends)
    lengths = torch.randint(0, T + 1, (B,), generator=random.generator) if mixed else torch.full((B,), T)
    lengths[0] = T
    call = {
        "inputs": inputs,
        "lengths": lengths.sort(descending=True).values,
        "state": MemoryLSTMState(*first, STATES[name](*memory)),
        "weights": MemoryLSTMWeights(tuple(recurrent), tuple(biases), control, bias),
        "stretch": stretch,
        "cell_stretch": cell_stretch,
        "noise": noise,
        "ids": ids,
    }
    memory = memory[:1] if stretch > 0 else memory
    return call, [inputs, noise, *first, *memory, *recurrent, *biases, control, bias]


def assert_same(name, *sizes, dtype=torch.float64, **more):
    call, wanted = recurrence_call(name, *sizes, dtype=dtype, **more)
    found = []
    for function in (memory_lstm, memory_lstm_torch):
        out = function(**call)
        outputs = [out.hidden, out.push, out.pop, *out.state[:3], *out.state.memory]
        found.append(with_gradients(outputs, (out.state.memory.strengths > 1e-9).detach(), wanted))
    assert_close(*found, TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["queue", "deque"])
@pytest.mark.parametrize(
    ("T", "B", "M", "H", "K"),
    [(1, 1, 1, 1, 1), (7, 3, 5, 6, 2), (20, 5, 16, 33, 3), (63, 4, 5, 8, 1), (9, 50, 64, 8, 1)],
)
def test_recurrence(name, T, B, M, H, K):
    for N in (0, 3):
        assert_same(name, T, B, M, H, K, N=N)


@pytest.mark.parametrize("name", ["queue", "deque"])
def test_recurrence_in_float32(name):
    assert_same(name, 30, 9, 16, 32, 2, N=2, dtype=torch.float32)
    assert_same(name, 12, 50, 64, 64, 1, dtype=torch.float32, table=131, mixed=False)


@pytest.mark.parametrize("name", ["queue", "deque"])
@pytest.mark.parametrize(("scale", "cell_stretch"), [(5.0, 0.0), (40.0, 0.0), (5.0, 0.05), (5.0, 0.3)])
def test_recurrence_with_saturated_gates(name, scale, cell_stretch):
    assert_same(name, 40, 6, 5, 8, 1, N=2, scale=scale, stretch=0.05, cell_stretch=cell_stretch, table=9)


@pytest.mark.parametrize("name", ["queue", "deque"])
@pytest.mark.parametrize("cell_stretch", [0.1, 0.3])
def test_recurrence_with_stretched_cells(name, cell_stretch):
    assert_same(name, 20, 5, 9, 13, 2, N=2, cell_stretch=cell_stretch)


@pytest.mark.parametrize("name", ["queue", "deque"])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_a_number_stays_in_sight_of_the_recurrence(name, place):
    call, _ = recurrence_call(name, 7, 3, 5, 6, 1, mixed=False)
    call["weights"].control_bias.data[place] = torch.nan
    out = memory_lstm(**call)
    assert out.hidden[2:].isnan().all()
    assert out.state.memory.high.isnan().all()


@pytest.mark.parametrize("name", ["queue", "deque"])
def test_threads_give_the_same(name):
    call, wanted = recurrence_call(name, 9, 40, 5, 8, 1, N=2)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = memory_lstm(**call)
            outputs = [out.hidden, *out.state[:3], *out.state.memory]
            found.append(with_gradients(outputs, (out.state.memory.strengths > 1e-9).detach(), wanted))
    finally:
        torch.set_num_threads(before)
    assert_close(*found, 1e-12)
