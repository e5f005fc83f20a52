"""The neural queue against the paper's equations, and what any queue must keep."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from controls import BATCH, CONTROLS, SIZES, WIDTH, Controls, values_of
from hypothesis import given
from hypothesis import strategies as st
from reference import paper_queue
from torch import Tensor

from stackrev.structures.queue import NeuralQueue, QueueState, neural_queue, neural_queue_torch, queue_step

Queue = Callable[..., tuple[Tensor, QueueState]]


@pytest.fixture(scope="module", params=[neural_queue, neural_queue_torch], ids=lambda function: function.__name__)
def queue(request: pytest.FixtureRequest) -> Queue:
    """What runs by default, compiled where it can be, and the plain torch version."""
    function: Queue = request.param
    return function


def chain(values: Tensor, push: Tensor, pop: Tensor, depth: Tensor | float = 1.0) -> tuple[Tensor, QueueState]:
    """Step by step."""
    state, reads = QueueState.empty(values.shape[1], values.shape[2], like=values), []
    for t, (v, d, u) in enumerate(zip(values, push, pop, strict=True)):
        at = depth[t] if isinstance(depth, Tensor) else depth
        read, state = queue_step(state, v, d, u, depth=at)
        reads.append(read)
    return torch.stack(reads), state


def test_a_hand_worked_example(queue: Queue) -> None:
    v = torch.eye(3, dtype=torch.float64)[:, None]  # so that a read is the weights of v_1, v_2, v_3
    push = torch.tensor([[0.8], [0.5], [0.9]], dtype=torch.float64)
    pop = torch.tensor([[0.0], [0.1], [0.9]], dtype=torch.float64)
    reads, state = queue(v, push, pop)
    # the pop of 0.1 leaves 0.7 of v_1; that of 0.9 takes them and 0.2 of v_2, and leaves 0.3 of it
    expected = torch.tensor([[0.8, 0, 0], [0.7, 0.3, 0], [0, 0.3, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(reads[:, 0], expected, rtol=0, atol=1e-12)
    strengths = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    torch.testing.assert_close(state.strengths[:, 0], strengths, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("steps", "factor"), SIZES)
@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_agrees_with_the_paper(
    queue: Queue, controls: Controls, steps: int, factor: float, generator: torch.Generator
) -> None:
    push, pop = (factor * each for each in controls(steps, generator))
    values, upstream = values_of(steps, generator), values_of(steps, generator)
    found: list[tuple[Tensor, ...]] = []
    for function in (paper_queue, queue):
        leaves = [each.clone().requires_grad_() for each in (values, push, pop)]
        reads = function(*leaves)[0]
        gradients = torch.autograd.grad((reads * upstream).sum(), leaves, materialize_grads=True)
        found.append((reads.detach(), *gradients))
    (reads, g_values, g_push, g_pop), (our_reads, our_values, our_push, our_pop) = found
    torch.testing.assert_close(our_reads, reads, rtol=0, atol=1e-12)
    torch.testing.assert_close(our_values, g_values, rtol=0, atol=1e-10)
    if (push == 0).any() or (push == factor).any() or (pop == factor).any() or (pop == 0).all():
        return  # ties, where derivatives are a matter of convention, and what was pushed before decides all later reads
    torch.testing.assert_close(our_push, g_push, rtol=0, atol=1e-10)
    torch.testing.assert_close(our_pop, g_pop, rtol=0, atol=1e-10)


@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_depths_and_strengths_are_the_papers(queue: Queue, controls: Controls, generator: torch.Generator) -> None:
    push, pop = controls(9, generator)
    values = values_of(9, generator)
    depths = 2.5 * torch.rand(9, BATCH, dtype=torch.float64, generator=generator) + 0.01
    for depth in (0.3, 2.0, depths):
        reads, strengths = paper_queue(values, push, pop, depth)
        for ours, state in (queue(values, push, pop, depth=depth), chain(values, push, pop, depth)):
            torch.testing.assert_close(ours, reads, rtol=0, atol=1e-12)
            torch.testing.assert_close(state.strengths, strengths[-1], rtol=0, atol=1e-12)
    for t in range(9):
        state = queue(values[: t + 1], push[: t + 1], pop[: t + 1])[1]
        torch.testing.assert_close(state.strengths, strengths[t], rtol=0, atol=1e-12)
        torch.testing.assert_close(state.high - state.low, strengths[t].sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_a_sequence_can_be_split_anywhere(
    queue: Queue, controls: Controls, cut: int, generator: torch.Generator
) -> None:
    push, pop = controls(9, generator)
    values = values_of(9, generator)
    reads, state = queue(values, push, pop)
    first, between = queue(values[:cut], push[:cut], pop[:cut])
    second, final = queue(values[cut:], push[cut:], pop[cut:], between)
    torch.testing.assert_close(torch.cat([first, second]), reads, rtol=0, atol=1e-12)
    stepped, last = chain(values, push, pop)
    torch.testing.assert_close(stepped, reads, rtol=0, atol=1e-12)
    for ours in (final, last):
        for one, whole in zip((*ours, ours.strengths), (*state, state.strengths), strict=True):
            torch.testing.assert_close(one, whole, rtol=0, atol=1e-12)


def test_gradients_of_steps_and_pieces_are_those_of_the_whole(queue: Queue, generator: torch.Generator) -> None:
    push, pop = CONTROLS["random"](7, generator)
    values, upstream = values_of(7, generator), values_of(7, generator)

    def pieces(v: Tensor, d: Tensor, u: Tensor) -> tuple[Tensor, QueueState]:
        first, state = queue(v[:4], d[:4], u[:4])
        second, state = queue(v[4:], d[4:], u[4:], state)
        return torch.cat([first, second]), state

    found = []
    for function in (queue, pieces, chain):
        leaves = [each.clone().requires_grad_() for each in (values, push, pop)]
        reads, state = function(*leaves)
        loss = (reads * upstream).sum() + state.strengths[5].sum() + 2 * state.high.sum() + 3 * state.low.sum()
        found.append(torch.autograd.grad(loss, leaves))
    for other in found[1:]:
        for ours, whole in zip(other, found[0], strict=True):
            torch.testing.assert_close(ours, whole, rtol=0, atol=1e-10)


def test_numeric_gradients(queue: Queue, generator: torch.Generator) -> None:
    push, pop = CONTROLS["random"](6, generator)
    start = queue(values_of(3, generator), *CONTROLS["growing"](3, generator))[1]
    shift = torch.zeros(BATCH, dtype=torch.float64)
    given = values_of(6, generator), push, pop, start.values, shift
    leaves = [each.clone().requires_grad_() for each in given]

    def everything(values: Tensor, push: Tensor, pop: Tensor, older: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        state = QueueState(older, *(each + shift for each in start[1:]))  # the whole line, moved along
        reads, final = queue(values, push, pop, state)
        return reads, final.strengths.sum(1), final.low, final.high

    assert torch.autograd.gradcheck(everything, leaves)
    depth = torch.full((BATCH,), 0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda depth: neural_queue(*given[:3], depth=depth)[0], [depth])


@given(st.lists(st.sampled_from(["push", "pop", "both", "neither"]), min_size=1, max_size=20))
def test_whole_pushes_and_pops_make_an_ordinary_queue(actions: list[str]) -> None:
    push = torch.tensor([[each in ("push", "both")] for each in actions], dtype=torch.float64)
    pop = torch.tensor([[each in ("pop", "both")] for each in actions], dtype=torch.float64)
    values = torch.arange(1, len(actions) + 1, dtype=torch.float64)[:, None, None]
    reads, _ = neural_queue(values, push, pop)
    ordinary: list[int] = []
    for place, action in enumerate(actions):
        if action in ("pop", "both") and ordinary:
            ordinary.pop(0)
        if action in ("push", "both"):
            ordinary.append(place + 1)
        assert reads[place].item() == (ordinary[0] if ordinary else 0)


def test_what_is_not_a_number_stays_where_it_belongs() -> None:
    values, push, pop = torch.randn(9, 2, 3), torch.ones(9, 2), torch.zeros(9, 2)
    pop[4:] = 1.0  # from step 4 on, the reads are v_1, v_2, ...
    values[2, 0, 1], values[3, 1, 2] = torch.nan, torch.inf
    reads, _ = neural_queue_torch(values, push, pop)
    assert reads.isnan().nonzero().tolist() == [[5, 0, 1]]
    assert reads.isinf().nonzero().tolist() == [[6, 1, 2]]
    pop[4, 0] = torch.nan
    reads, state = neural_queue_torch(torch.randn(9, 2, 3), push, pop)
    assert not reads[:4].isnan().any()
    assert reads[4:, 0].isnan().all()
    assert not reads[:, 1].isnan().any()
    assert state.low.isnan().tolist() == [True, False]


@pytest.mark.slow
def test_transforms_and_compilers_take_it(generator: torch.Generator) -> None:
    push, pop = CONTROLS["random"](5, generator)
    values = values_of(5, generator)
    each = [tensor.transpose(0, 1)[:, :, None] for tensor in (values, push, pop)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reads = torch.func.vmap(lambda *row: neural_queue_torch(*row)[0])(*each)
        expected = neural_queue(values, push, pop)[0]
    torch.testing.assert_close(reads[:, :, 0].transpose(0, 1), expected, rtol=0, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler itself has to say
        compiled = torch.compile(neural_queue, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(values, push, pop)[0], expected, rtol=0, atol=1e-12)


def test_no_steps_and_no_rows(queue: Queue) -> None:
    nothing = torch.zeros(0, 2)
    reads, state = queue(torch.zeros(0, 2, 3), nothing, nothing)
    assert reads.shape == (0, 2, 3)
    assert state.values.shape == (0, 2, 3)
    reads, state = queue(torch.zeros(4, 0, 3), torch.zeros(4, 0), torch.zeros(4, 0))
    assert reads.shape == (4, 0, 3)
    assert state.bottoms.shape == (4, 0)


def test_a_state_keeps_its_values(queue: Queue) -> None:
    buffer, strength = torch.ones(3, 2, 4), torch.ones(3, 2)
    state = queue(buffer, strength, strength * 0)[1]
    buffer.zero_()  # as where a stream is fed through one buffer
    assert bool((state.values == 1).all())


def test_wrong_shapes_are_refused(queue: Queue) -> None:
    values, strength = torch.zeros(5, 2, 3), torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"push and pop have the shapes \[4, 2\], \[2\], not \[5, 2\]"):
        queue(values, strength[:4], strength[0])
    with pytest.raises(ValueError, match=r"a batch of one, values\[:, None\], push\[:, None\], pop\[:, None\]"):
        queue(values[:, 0], strength[:, 0], strength[:, 0])
    with pytest.raises(ValueError, match=r"the state's low has the shape \[1\], not \[2\]"):
        queue(values, strength, strength, QueueState.empty(2, 3, like=values)._replace(low=torch.zeros(1)))
    with pytest.raises(ValueError, match=r"depth has the shape \[3\], which does not go with \[5, 2\]"):
        queue(values, strength, strength, depth=torch.ones(3))
    with pytest.raises(ValueError, match="the depth of a read is 0, and not more than 0"):
        queue(values, strength, strength, depth=0)
    with pytest.raises(ValueError, match=r"value has the shape \[3\], not \[B, M\]: a sequence without a batch"):
        queue_step(QueueState.empty(2, 3, like=values), values[0, 0], strength[0, 0], strength[0, 0])


def test_module(generator: torch.Generator) -> None:
    queue = NeuralQueue(WIDTH, batch_first=True, check=True)
    assert repr(queue) == f"NeuralQueue(width={WIDTH}, batch_first=True, check=True)"
    push, pop = CONTROLS["random"](5, generator)
    values = values_of(5, generator)
    depth = torch.rand(5, BATCH, generator=generator) + 0.1
    expected, final = neural_queue(values, push, pop, depth=depth)
    turned = [each.transpose(0, 1) for each in (values, push, pop)]
    reads, _ = queue(*turned, depth=depth.T)
    torch.testing.assert_close(reads.transpose(0, 1), expected, rtol=0, atol=0)
    _, state = queue(*(each[:, :4] for each in turned), queue.initial_state(BATCH, like=values))
    last, state = queue.step(state, values[4], push[4], pop[4], depth=depth[4])
    torch.testing.assert_close(last, expected[4], rtol=0, atol=1e-12)
    torch.testing.assert_close(state.strengths, final.strengths, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="values are 2 wide, this queue 3"):
        queue(turned[0][..., :2], *turned[1:])
    with pytest.raises(ValueError, match=r"pop has strengths from 0 to 2, and not only from 0 to 1"):
        queue.step(state, values[4], push[4], torch.tensor([0.0, 2.0, 1.0, 0.5]))
    NeuralQueue(WIDTH)(values, push * 3, pop * 3)
