"""The compiled operators under `torch.func.vmap` and with batched gradients: the same as one call after the other."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from stackrev.kernels import available, using
from stackrev.structures.deque import DequeState, neural_deque
from stackrev.structures.queue import QueueState, neural_queue
from stackrev.structures.recurrence import MemoryLSTMState, MemoryLSTMWeights, memory_lstm
from stackrev.structures.stack import StackState, neural_stack

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
FUNCTIONS: dict[str, Callable[..., tuple]] = {"stack": neural_stack, "queue": neural_queue, "deque": neural_deque}
STATES = {"stack": StackState, "queue": QueueState, "deque": DequeState}
ENDS = {"stack": 1, "queue": 1, "deque": 2}
COUNT, T, B, M = 3, 5, 4, 2


@pytest.fixture(autouse=True)
def _compiled_and_without_a_warning() -> Iterator[None]:
    with using("compiled"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(name: str) -> list[Tensor]:
    """Values and strengths of all ends, each [X, T, B, ...]."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(COUNT, T, B, M, generator=generator).double() for _ in range(ENDS[name])]
    strengths = torch.rand(2 * ENDS[name], COUNT, T, B, generator=generator, dtype=torch.float64).unbind()
    return [each.requires_grad_() for each in (*values, *strengths)]


def flat(name: str, depth: Tensor | float, *call: Tensor) -> tuple[Tensor, ...]:
    """The reads and what follows from the final state, of a structure that two steps have filled before."""
    start = FUNCTIONS[name](*(each[:2] for each in call))[-1]
    *reads, state = FUNCTIONS[name](*(each[2:] for each in call), start, depth=depth)
    return *reads, state.strengths, *state[3:]


def assert_same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], wanted: list[Tensor]) -> None:
    """Of results and of the gradients of their squares."""
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
    found = [torch.autograd.grad(sum(each.square().sum() for each in some), wanted) for some in (ours, theirs)]
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [1.0, 0.6, "each"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_structures(name: str, depth: float | str) -> None:
    call = drawn(name)
    given = torch.rand(T - 2, B, dtype=torch.float64) + 0.1 if isinstance(depth, str) else depth
    function = functools.partial(flat, name, given)
    one_by_one = [function(*each) for each in zip(*call, strict=True)]
    expected = tuple(torch.stack(each) for each in zip(*one_by_one, strict=True))
    assert_same(torch.func.vmap(function)(*call), expected, call)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_over_any_dimension_and_some_arguments(name: str) -> None:
    """The calls differ in their values alone, which come last; the pops are everybody's."""
    call = drawn(name)
    shared = [each[0].detach() for each in call[ENDS[name] :]]
    values = [each.detach().movedim(0, -1).requires_grad_() for each in call[: ENDS[name]]]
    dims = (-1,) * len(values) + (None,) * len(shared)
    function = functools.partial(flat, name, 1.0)
    ours = torch.func.vmap(function, in_dims=dims)(*values, *shared)
    one_by_one = [function(*(each[..., n] for each in values), *shared) for n in range(COUNT)]
    assert_same(ours, tuple(torch.stack(each) for each in zip(*one_by_one, strict=True)), values)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_within_another(name: str) -> None:
    call = drawn(name)
    pairs = [torch.stack([each, each.flip(0)]) for each in call]
    function = functools.partial(flat, name, 1.0)
    ours = torch.func.vmap(torch.func.vmap(function, randomness="same"))(*pairs)
    halves = [torch.func.vmap(function)(*(each[n] for each in pairs)) for n in range(2)]
    assert_same(ours, tuple(torch.stack(each) for each in zip(*halves, strict=True)), call)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_batched_gradients(name: str) -> None:
    call = [each[0].detach().requires_grad_() for each in drawn(name)]
    reads = FUNCTIONS[name](*call)[0]
    weights = torch.randn(COUNT, *reads.shape, dtype=torch.float64)
    ours = torch.autograd.grad(reads, call, weights, is_grads_batched=True, retain_graph=True, allow_unused=True)
    theirs = [torch.autograd.grad(reads, call, each, retain_graph=True, allow_unused=True) for each in weights]
    for mine, *others in zip(ours, *theirs, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, torch.stack(others), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_recurrence(name: str) -> None:
    """Over weights as well: these are called one after the other."""
    generator, ends, H = torch.Generator().manual_seed(0), ENDS[name], 3
    read = ends * M

    def normal(*shape: int) -> Tensor:
        return torch.randn(COUNT, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    call = [normal(T, B, 4 * H), normal(read + H, 4 * H), normal(H, 2 * ends + read), normal(2 * ends + read)]
    nothing = torch.zeros(1, B, H, dtype=torch.float64)
    memory = STATES[name].empty(B, M, like=nothing)
    state = MemoryLSTMState(nothing, nothing, nothing.new_zeros(B, read), memory)
    lengths = torch.tensor([T, T - 1, 2, 1])

    def run(inputs: Tensor, recurrent: Tensor, control: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        weights = MemoryLSTMWeights((recurrent,), (), control, bias)
        out = memory_lstm(inputs, lengths, state, weights, stretch=0.05)
        return out.hidden, out.state.read

    one_by_one = [run(*each) for each in zip(*call, strict=True)]
    assert_same(torch.func.vmap(run)(*call), tuple(torch.stack(each) for each in zip(*one_by_one, strict=True)), call)
