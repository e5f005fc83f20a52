"""The compiled neural stack against the one in plain torch and the paper's equations."""

import itertools
import threading

import pytest
import torch
from reference import paper_stack
from torch import Tensor

from stackrev.kernels import available
from stackrev.structures.stack import StackState, neural_stack, neural_stack_torch

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def random_call(T, B, M, N=0, *, dtype=torch.float64, seed=0) -> list[Tensor]:
    """Values, push, pop and the initial state, all of which want a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    state = StackState.empty(B, M, like=rand(1))
    if N:
        state = neural_stack_torch(randn(N, B, M), rand(N, B), rand(N, B) * 0.8, state)[1]
    return [t.detach().clone().requires_grad_() for t in (randn(T, B, M), rand(T, B), rand(T, B), *state)]


def run(function, call) -> tuple[list[Tensor], StackState]:
    values, push, pop, *state = call
    reads, final = function(values, push, pop, StackState(*state))
    return [reads, *final, final.strengths], final


def results(function, call) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and the gradients of a random weighting of all of them that have a place."""
    outputs, final = run(function, call)
    alive = (final.strengths > 1e-9).detach()
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for index, tensor in enumerate(outputs):
        weight = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        loss = loss + ((weight * alive if index in (2, 3) else weight) * tensor).sum()
    return [t.detach() for t in outputs], list(
        torch.autograd.grad(loss, call, allow_unused=True, materialize_grads=True)
    )


def assert_close(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = b.abs().max().clamp(min=1) if b.numel() else 1
        assert ((a - b).abs() / scale <= tolerance).all(), f"{index}: {((a - b).abs() / scale).max()}"


SHAPES = [*itertools.product([1, 2, 7, 63, 130], [1, 3], [1, 5, 64]), *itertools.product([7, 130], [50], [5, 64])]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("N", [0, 1, 9])
@pytest.mark.parametrize(
    ("T", "B", "M"),
    SHAPES,
)
def test_like_torch(T, B, M, N, dtype):
    call = random_call(T, B, M, N, dtype=dtype)
    ours, theirs = results(neural_stack, call), results(neural_stack_torch, call)
    assert_close(ours[0], theirs[0], TOLERANCE[dtype])
    assert_close(ours[1], theirs[1], TOLERANCE[dtype])


@pytest.mark.parametrize("T", [1, 2, 7, 20])
def test_like_the_paper(T):
    values, push, pop = random_call(T, 1, 3)[:3]
    weight = torch.randn(T, 1, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours, theirs = neural_stack(values, push, pop)[0], paper_stack(values, push, pop)
    gradients = [
        torch.autograd.grad((weight * reads).sum(), (values, push, pop), allow_unused=True, materialize_grads=True)
        for reads in (ours, theirs)
    ]
    assert_close([ours.detach()], [theirs.detach()], 1e-12)
    assert_close(list(gradients[0]), list(gradients[1]), 1e-12)


@pytest.mark.parametrize(
    ("push", "pop"), [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.5, 0.5), (1.0, 0.5), (0.25, 1.0)]
)
def test_extreme_strengths_give_the_same_reads(push, pop):
    values = random_call(9, 2, 3)[0]
    controls = torch.full((9, 2), push, dtype=torch.float64), torch.full((9, 2), pop, dtype=torch.float64)
    ours, theirs = neural_stack(values, *controls), neural_stack_torch(values, *controls)
    weight = torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradients = [list(torch.autograd.grad((weight * reads).sum(), values)) for reads, _ in (ours, theirs)]
    assert_close([ours[0], ours[1].strengths], [theirs[0], theirs[1].strengths], 1e-12)
    assert_close(*gradients, 1e-12)


def test_pieces_give_what_the_whole_gives():
    values, push, pop = random_call(40, 3, 4)[:3]
    whole, final = neural_stack(values, push, pop)
    state, reads = None, []
    for piece in (slice(0, 1), slice(1, 17), slice(17, 40)):
        read, state = neural_stack(values[piece], push[piece], pop[piece], state)
        reads.append(read)
    assert_close([torch.cat(reads), *state], [whole, *final], 1e-12)


def test_a_long_string_comes_back_in_reverse():
    T = 20_000
    values = torch.randn(2 * T, 1, 2, generator=torch.Generator().manual_seed(0))
    push = torch.cat([torch.ones(T, 1), torch.zeros(T, 1)])
    reads, state = neural_stack(values, push, 1 - push)
    assert torch.equal(reads[T:-1], values[: T - 1].flip(0))
    assert state.height.item() == 0


def test_the_controls_may_be_of_another_type():
    values, push, pop = random_call(5, 2, 3)[:3]
    reads, state = neural_stack(values.float(), push, pop)
    assert (reads.dtype, state.height.dtype) == (torch.float32, torch.float64)


def test_wrong_shapes_are_refused():
    values, push, pop = random_call(5, 2, 3)[:3]
    with pytest.raises(ValueError, match="push has the shape"):
        neural_stack(values, push[:4], pop)


def test_gradcheck():
    values, push, pop, *state = random_call(5, 2, 2, 2)

    torch.autograd.gradcheck(
        lambda *call: neural_stack(*call[:3], StackState(*call[3:], state[1], state[2], state[3]))[0],
        (values, push, pop, state[0]),
    )


@pytest.mark.parametrize("M", [1, 5, 64])
@pytest.mark.parametrize(
    "layout",
    [
        lambda weight: torch.ones(()).expand_as(weight),
        lambda weight: weight.transpose(0, 1).contiguous().transpose(0, 1),
        lambda weight: weight.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        lambda weight: torch.cat([weight, weight], dim=2)[..., : weight.shape[2]],
        lambda weight: weight[:1].expand_as(weight),
        lambda weight: weight[..., :1].expand_as(weight),
    ],
)
def test_gradients_in_any_layout(layout, M):
    call = random_call(7, 3, M)[:3]
    weight = layout(torch.randn(7, 3, M, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    weight = weight.to(torch.float64)
    ours, theirs = (
        torch.autograd.grad(function(*call)[0], call, weight) for function in (neural_stack, neural_stack_torch)
    )
    assert_close(list(ours), list(theirs), TOLERANCE[torch.float64])


@pytest.mark.parametrize("M", [1, 5])
def test_gradients_that_are_views_of_what_they_are_negated(M):
    call = random_call(7, 3, M)[:3]
    weight = torch.randn(7, 3, M, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    negated = torch.view_as_complex(weight).conj().imag
    assert negated.is_neg()
    ours, theirs = (
        torch.autograd.grad(function(*call)[0], call, negated) for function in (neural_stack, neural_stack_torch)
    )
    assert_close(list(ours), list(theirs), TOLERANCE[torch.float64])
    ours, theirs = (
        [function(negated, call[1].abs(), call[2])[0].detach()] for function in (neural_stack, neural_stack_torch)
    )
    assert_close(ours, theirs, TOLERANCE[torch.float64])


def test_a_second_derivative_is_refused():
    values, push, pop = random_call(7, 3, 5)[:3]
    reads, _ = neural_stack(values, push, pop)
    (gradient,) = torch.autograd.grad(reads.sum(), [push], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (reads.sum() + gradient.square().sum()).backward()


@pytest.mark.parametrize("function", [neural_stack, neural_stack_torch])
@pytest.mark.parametrize("name", StackState._fields)
def test_a_state_of_other_shapes_is_refused(name, function):
    values, push, pop, *state = random_call(4, 3, 5, 2)
    wrong = StackState(*state)._replace(**{name: getattr(StackState(*state), name)[..., :-1]})
    with pytest.raises(ValueError, match=r"the state's \w+ has the shape"):
        function(values, push, pop, wrong)
    with pytest.raises(ValueError, match="the state's values has the shape"):
        function(values, push, pop, StackState.empty(1, 5, like=values))


def test_a_state_keeps_its_values():
    """Where a stream is fed through one buffer."""
    pieces = [[t.detach() for t in random_call(3, 2, 4, seed=seed)[:3]] for seed in range(3)]
    final = []
    for function in (neural_stack, neural_stack_torch):
        buffer, state, reads = torch.empty(3, 2, 4, dtype=torch.float64), None, []
        for values, push, pop in pieces:
            read, state = function(buffer.copy_(values), push, pop * 0.5, state)
            reads.append(read)
        final.append(reads)
    assert_close(*final, TOLERANCE[torch.float64])


@pytest.mark.parametrize("place", [1, 2])
def test_what_is_not_a_number_stays_in_sight(place):
    call = [t.detach().clone() for t in random_call(9, 2, 3)[:3]]
    call[place][4, 0] = torch.nan
    (ours, state), (theirs, expected) = neural_stack(*call), neural_stack_torch(*call)
    assert torch.equal(ours[:4].isnan(), theirs[:4].isnan())
    assert ours[4, 0].isnan().any()
    assert not ours[:, 1].isnan().any()
    assert torch.equal(state.height.isnan(), expected.height.isnan())


@pytest.mark.parametrize("initial", [0, 2])
def test_and_in_the_gradients_of_what_is_left(initial):
    """Of every control and of every part of the state, at the first place and at the last."""
    for place, at in itertools.product((1, 2, 4, 5, 6) if initial else (1, 2), (0, -1)):
        found = []
        for function in (neural_stack, neural_stack_torch):
            call = random_call(5, 2, 3, initial)
            with torch.no_grad():
                call[place].view(-1)[at] = torch.nan
            values, push, pop, *state = call
            reads, final = function(values, push, pop, StackState(*state))
            grads = torch.autograd.grad(final.tops.sum() + reads.sum(), call, materialize_grads=True, allow_unused=True)
            found.append([tensor.isnan() for tensor in (final.tops, *grads[1:3])])
        for ours, theirs in zip(*found, strict=True):
            assert torch.equal(ours, theirs), (place, at)


def test_every_way_to_a_second_derivative_is_refused():
    values, push, pop = (t.detach() for t in random_call(5, 2, 3)[:3])

    def loss(push):
        return neural_stack(values, push, pop)[0].square().sum()

    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.functional.hessian(loss, push)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:There is a performance drop")  # in torch
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_transforms_that_differentiate(transform):
    values, push, pop = (t.detach() for t in random_call(5, 2, 3)[:3])

    def loss_of(function):
        return lambda push: function(values, push, pop)[0].square().sum()

    ours, theirs = transform(loss_of(neural_stack))(push), transform(loss_of(neural_stack_torch))(push)
    assert theirs.abs().max() > 0.1
    assert_close([ours], [theirs], TOLERANCE[torch.float64])


def test_others_run_meanwhile():
    """A call lets go of the interpreter."""
    values, push, pop = torch.rand(20_000, 8, 64), torch.rand(20_000, 8), torch.rand(20_000, 8)
    counted, running = 0, threading.Event()

    def call():
        running.set()
        for _ in range(5):
            neural_stack(values, push, pop)

    thread = threading.Thread(target=call)
    thread.start()
    running.wait()
    while thread.is_alive():
        counted += 1
    assert counted > 1000
