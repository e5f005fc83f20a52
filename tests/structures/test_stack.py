"""The neural stack against the paper's equations, and what any stack must keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from controls import BATCH, CONTROLS, WIDTH, Controls, values_of
from hypothesis import given
from hypothesis import strategies as st
from reference import paper_stack, paper_stack_with_strengths
from torch import Tensor

from stackrev.structures.stack import NeuralStack, StackState, neural_stack, neural_stack_torch, stack_step

Stack = Callable[..., tuple[Tensor, StackState]]


@pytest.fixture(scope="module", params=[neural_stack, neural_stack_torch], ids=lambda function: function.__name__)
def stack(request: pytest.FixtureRequest) -> Stack:
    """What runs by default, compiled where it can be, and the plain torch version."""
    function: Stack = request.param
    return function


def test_figure_1a(stack: Stack) -> None:
    v = torch.eye(3, dtype=torch.float64)[:, None]  # so that a read is the weights of v_1, v_2, v_3
    push = torch.tensor([[0.8], [0.5], [0.9]], dtype=torch.float64)
    pop = torch.tensor([[0.0], [0.1], [0.9]], dtype=torch.float64)
    reads, state = stack(v, push, pop)
    expected = torch.tensor([[0.8, 0, 0], [0.5, 0.5, 0], [0.1, 0, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(reads[:, 0], expected, rtol=0, atol=1e-12)
    # s_3 = (0.3, 0, 0.9): the pop of 0.9 takes v_2's 0.5 and 0.4 of the 0.7 that were left of v_1
    strengths = torch.tensor([0.3, 0.0, 0.9], dtype=torch.float64)
    torch.testing.assert_close(state.strengths[:, 0], strengths, rtol=0, atol=1e-12)
    torch.testing.assert_close(paper_stack(v, push, pop), reads, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7, 63, 130])
@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_agrees_with_the_paper(stack: Stack, controls: Controls, steps: int, generator: torch.Generator) -> None:
    push, pop = controls(steps, generator)
    values = values_of(steps, generator)
    upstream = values_of(steps, generator)
    found: list[tuple[Tensor, ...]] = []
    for function in (paper_stack, lambda *each: stack(*each)[0]):
        leaves = [each.clone().requires_grad_() for each in (values, push, pop)]
        reads = function(*leaves)
        gradients = torch.autograd.grad((reads * upstream).sum(), leaves, materialize_grads=True)
        found.append((reads.detach(), *gradients))
    (reads, g_values, g_push, g_pop), (our_reads, our_values, our_push, our_pop) = found
    torch.testing.assert_close(our_reads, reads, rtol=0, atol=1e-12)
    torch.testing.assert_close(our_values, g_values, rtol=0, atol=1e-10)
    # a control at 0 or 1 is itself a tie, where derivatives are a matter of convention
    for ours, gradient, control in ((our_push, g_push, push), (our_pop, g_pop, pop)):
        free = (control > 0) & (control < 1)
        torch.testing.assert_close(ours[free], gradient[free], rtol=0, atol=1e-10)


@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_strengths_are_the_papers(stack: Stack, controls: Controls, generator: torch.Generator) -> None:
    push, pop = controls(9, generator)
    values = values_of(9, generator)
    _, strengths = paper_stack_with_strengths(values, push, pop)
    for t in range(9):
        _, state = stack(values[: t + 1], push[: t + 1], pop[: t + 1])
        torch.testing.assert_close(state.strengths, strengths[t], rtol=0, atol=1e-12)
        torch.testing.assert_close(state.height, strengths[t].sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 4, 8, 9])
@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_a_sequence_can_be_split_anywhere(
    stack: Stack, controls: Controls, cut: int, generator: torch.Generator
) -> None:
    push, pop = controls(9, generator)
    values = values_of(9, generator)
    reads, state = stack(values, push, pop)
    first, between = stack(values[:cut], push[:cut], pop[:cut])
    second, final = stack(values[cut:], push[cut:], pop[cut:], between)
    torch.testing.assert_close(torch.cat([first, second]), reads, rtol=0, atol=1e-12)
    assert len(final.values) == 9
    for ours, whole in zip((*final, final.strengths), (*state, state.strengths), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_steps_in_a_chain_are_the_whole(stack: Stack, controls: Controls, generator: torch.Generator) -> None:
    push, pop = controls(9, generator)
    values = values_of(9, generator)
    reads, final = stack(values, push, pop)
    state = StackState.empty(BATCH, WIDTH, like=values)
    for t in range(9):
        before = [each.clone() for each in state]
        read, after = stack_step(state, values[t], push[t], pop[t])
        torch.testing.assert_close(read, reads[t], rtol=0, atol=1e-12)
        assert all(torch.equal(each, old) for each, old in zip(state, before, strict=True))  # a state is a value
        state = after
    for ours, whole in zip(state, final, strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)


def test_gradients_flow_through_a_split(stack: Stack, generator: torch.Generator) -> None:
    push, pop = CONTROLS["random"](7, generator)
    values = values_of(7, generator)
    upstream = values_of(7, generator)

    def gradients(cut: int) -> tuple[Tensor, ...]:
        v, d, u = leaves = [each.clone().requires_grad_() for each in (values, push, pop)]
        first, state = stack(v[:cut], d[:cut], u[:cut])
        second, state = stack(v[cut:], d[cut:], u[cut:], state)
        loss = (torch.cat([first, second]) * upstream).sum() + state.strengths[2].sum() + 2 * state.height.sum()
        return torch.autograd.grad(loss, leaves)

    for split, whole in zip(gradients(4), gradients(0), strict=True):
        torch.testing.assert_close(split, whole, rtol=0, atol=1e-12)


def test_numeric_gradients(stack: Stack, generator: torch.Generator) -> None:
    values = values_of(6, generator)
    push, pop = CONTROLS["random"](6, generator)
    _, start = stack(values_of(3, generator), *CONTROLS["growing"](3, generator))
    leaves = [each.clone().requires_grad_() for each in (values, push, pop, start.values, start.height)]

    def everything(values: Tensor, push: Tensor, pop: Tensor, below: Tensor, height: Tensor) -> tuple[Tensor, ...]:
        lift = height - start.height  # the whole column, lifted
        state = StackState(below, start.bottoms + lift, start.tops + lift, height)
        reads, final = stack(values, push, pop, state)
        return reads, final.strengths.sum(1), final.height

    assert torch.autograd.gradcheck(everything, leaves)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_step_gives_the_gradients_of_the_whole(stack: Stack, steps: int, generator: torch.Generator) -> None:
    push, pop = CONTROLS["random"](steps, generator)
    values = values_of(steps, generator)
    upstream = values_of(steps, generator)

    def chain(values: Tensor, push: Tensor, pop: Tensor) -> Tensor:
        state, reads = StackState.empty(BATCH, WIDTH, like=values), []
        for v, d, u in zip(values, push, pop, strict=True):
            read, state = stack_step(state, v, d, u)
            reads.append(read)
        return torch.stack(reads)

    found = []
    for function in (chain, lambda *each: stack(*each)[0]):
        leaves = [each.clone().requires_grad_() for each in (values, push, pop)]
        found.append(torch.autograd.grad((function(*leaves) * upstream).sum(), leaves, materialize_grads=True))
    for ours, whole in zip(*found, strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-10)


def test_max_0_has_no_derivative_at_a_tie(stack: Stack) -> None:
    def gradients(step: bool) -> tuple[Tensor, Tensor]:
        push, pop = (torch.zeros(1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
        value = torch.ones(1, 1, 1, dtype=torch.float64)
        empty = StackState.empty(1, 1, like=value)
        read, state = stack_step(empty, value[0], push[0], pop[0]) if step else stack(value, push, pop)
        loss = read.sum() + state.strengths.sum() + state.bottoms.sum()
        return torch.autograd.grad(loss, (push, pop))

    for step in (False, True):
        assert [each.item() for each in gradients(step)] == [0.0, 0.0]


strength = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
sequence = st.lists(st.tuples(strength, strength), min_size=1, max_size=12)


def run(stack: Stack, controls: list[tuple[float, float]]) -> tuple[Tensor, Tensor, Tensor, StackState]:
    """Push, pop, the weights [T, T] of every element in every read, and the final state."""
    push, pop = torch.tensor(controls, dtype=torch.float64).unbind(1)
    values = torch.eye(len(controls), dtype=torch.float64)[:, None]
    reads, state = stack(values, push[:, None], pop[:, None])
    return push, pop, reads[:, 0], state


@given(controls=sequence)
def test_a_read_weighs_what_there_is_up_to_one(stack: Stack, controls: list[tuple[float, float]]) -> None:
    push, pop, weights, state = run(stack, controls)
    height = torch.zeros((), dtype=torch.float64)
    for d, u, weight in zip(push, pop, weights, strict=True):
        height = (height - u).clamp(min=0) + d
        assert bool((weight >= 0).all())
        torch.testing.assert_close(weight.sum(), height.clamp(max=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(state.height[0], height, rtol=0, atol=1e-12)


@given(controls=sequence)
def test_a_read_knows_no_future_and_no_element_outgrows_its_push(
    stack: Stack, controls: list[tuple[float, float]]
) -> None:
    push, _, weights, state = run(stack, controls)
    assert bool((weights.triu(1) == 0).all())
    assert bool((weights <= push + 1e-12).all())
    assert bool((state.strengths[:, 0] <= push + 1e-12).all())
    torch.testing.assert_close(state.strengths.sum(), state.height[0], rtol=0, atol=1e-12)


@given(sequence)
def test_strengths_only_shrink(controls: list[tuple[float, float]]) -> None:
    state = StackState.empty(1, 1, like=torch.zeros(1, dtype=torch.float64))
    for d, u in controls:
        push, pop = torch.tensor([[d], [u]], dtype=torch.float64)
        _, after = stack_step(state, torch.zeros(1, 1, dtype=torch.float64), push, pop)
        assert bool((after.strengths[:-1] <= state.strengths).all())
        state = after


@given(st.lists(st.sampled_from(["push", "pop", "both", "neither"]), min_size=1, max_size=20))
def test_whole_pushes_and_pops_make_an_ordinary_stack(actions: list[str]) -> None:
    push = torch.tensor([[each in ("push", "both")] for each in actions], dtype=torch.float64)
    pop = torch.tensor([[each in ("pop", "both")] for each in actions], dtype=torch.float64)
    values = torch.arange(1, len(actions) + 1, dtype=torch.float64)[:, None, None]
    reads, _ = neural_stack(values, push, pop)
    ordinary: list[int] = []
    for place, action in enumerate(actions):
        if action in ("pop", "both") and ordinary:
            ordinary.pop()
        if action in ("push", "both"):
            ordinary.append(place + 1)
        assert reads[place].item() == (ordinary[-1] if ordinary else 0)


def test_rows_are_independent(stack: Stack, generator: torch.Generator) -> None:
    push, pop = CONTROLS["often emptied"](9, generator)
    values = values_of(9, generator)
    reads, state = stack(values, push, pop)
    for row in range(BATCH):
        one = slice(row, row + 1)
        alone, final = stack(values[:, one], push[:, one], pop[:, one])
        torch.testing.assert_close(alone, reads[:, one], rtol=0, atol=1e-12)
        torch.testing.assert_close(final.strengths, state.strengths[:, one], rtol=0, atol=1e-12)


def test_float32_values_stand_on_float64_heights(stack: Stack, generator: torch.Generator) -> None:
    push, pop = CONTROLS["random"](63, generator)
    values = values_of(63, generator)
    reads, state = stack(values.float(), push.float(), pop.float())
    assert (reads.dtype, state.values.dtype) == (torch.float32, torch.float32)
    assert {state.bottoms.dtype, state.tops.dtype, state.height.dtype} == {torch.float64}
    torch.testing.assert_close(reads, paper_stack(values, push, pop).float(), rtol=0, atol=1e-5)
    read, after = stack_step(state, values[0].float(), push[0].float(), pop[0].float())
    assert (read.dtype, after.height.dtype) == (torch.float32, torch.float64)


def test_a_tall_column_keeps_its_fractions() -> None:
    tall = StackState(
        torch.zeros(1, 1, 1),
        torch.zeros(1, 1, dtype=torch.float64),
        torch.full((1, 1), 1e6, dtype=torch.float64),
        torch.full((1,), 1e6, dtype=torch.float64),
    )
    read, _ = stack_step(tall, torch.ones(1, 1), torch.tensor([0.3]), torch.tensor([0.7]))
    torch.testing.assert_close(read, torch.tensor([[0.3]]), rtol=0, atol=1e-6)


def test_no_steps_and_no_rows(stack: Stack) -> None:
    nothing = torch.zeros(0, 2)
    reads, state = stack(torch.zeros(0, 2, 3), nothing, nothing)
    assert reads.shape == (0, 2, 3)
    assert state.values.shape == (0, 2, 3)
    assert torch.equal(state.height, torch.zeros(2, dtype=torch.float64))
    reads, state = stack(torch.zeros(4, 0, 3), torch.zeros(4, 0), torch.zeros(4, 0))
    assert reads.shape == (4, 0, 3)
    assert state.bottoms.shape == (4, 0)


def test_module(generator: torch.Generator) -> None:
    stack = NeuralStack(WIDTH)
    assert not list(stack.parameters())
    assert repr(stack) == f"NeuralStack(width={WIDTH})"
    push, pop = CONTROLS["random"](5, generator)
    values = values_of(5, generator)
    reads, final = stack(values, push, pop)
    assert torch.equal(reads, neural_stack(values, push, pop)[0])
    first, state = stack(values[:4], push[:4], pop[:4], stack.initial_state(BATCH, like=values))
    last, state = stack.step(state, values[4], push[4], pop[4])
    torch.testing.assert_close(torch.cat([first, last[None]]), reads, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.strengths, final.strengths, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="values are 2 wide, this stack 3"):
        stack(values[..., :2], push, pop)


@pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)
def test_depths_and_strengths_above_one_are_the_papers(
    stack: Stack, controls: Controls, generator: torch.Generator
) -> None:
    push, pop = (3 * each for each in controls(9, generator))
    values = values_of(9, generator)
    depths = 2.5 * torch.rand(9, BATCH, dtype=torch.float64, generator=generator) + 0.01
    for depth in (1.0, 0.3, 2.0, depths):
        expected = paper_stack(values, push, pop, depth)
        torch.testing.assert_close(stack(values, push, pop, depth=depth)[0], expected, rtol=0, atol=1e-12)
        state = StackState.empty(BATCH, WIDTH, like=values)
        for t in range(9):
            at = depth[t] if isinstance(depth, Tensor) else depth
            read, state = stack_step(state, values[t], push[t], pop[t], depth=at)
            torch.testing.assert_close(read, expected[t], rtol=0, atol=1e-12)


def test_a_value_that_is_not_a_number_shows_where_it_is_read() -> None:
    values, push, pop = torch.randn(9, 2, 3), torch.ones(9, 2), torch.zeros(9, 2)
    values[2, 0, 1] = torch.nan
    pop[4, 0], push[4, 0] = 1.0, 0.0  # what is below is read again
    reads, _ = neural_stack_torch(values, push, pop)
    assert reads.isnan().nonzero().tolist() == [[2, 0, 1], [4, 0, 1]]


def test_unbatched_sequences_are_refused_with_advice(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"not \[T, B, M\]: .* a batch of one, values\[:, None\], push\[:, None\]"):
        stack(torch.zeros(5, 3), torch.zeros(5), torch.zeros(5))
    with pytest.raises(ValueError, match=r"not \[B, T, M\]: .* a batch of one, values\[None\], push\[None\]"):
        stack(torch.zeros(5, 3), torch.zeros(5), torch.zeros(5), batch_first=True)
    with pytest.raises(ValueError, match=r"values has the shape \[5\], not \[T, B, M\]$"):
        stack(torch.zeros(5), torch.zeros(5), torch.zeros(5))


def test_the_batch_may_come_first(stack: Stack, generator: torch.Generator) -> None:
    push, pop = CONTROLS["random"](5, generator)
    values = values_of(5, generator)
    depth = torch.rand(5, BATCH, generator=generator) + 0.1
    for each in (1.0, depth):
        expected, state = stack(values, push, pop, depth=each)
        turned = [tensor.transpose(0, 1) for tensor in (values, push, pop)]
        each = each.T if isinstance(each, Tensor) else each
        reads, other = stack(*turned, depth=each, batch_first=True)
        assert torch.equal(reads.transpose(0, 1), expected)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(other, state, strict=True))


def test_a_module_may_check_strengths() -> None:
    values, strengths = torch.zeros(2, 1, 3), torch.tensor([[0.5], [1.5]])
    NeuralStack(WIDTH)(values, strengths, strengths)
    with pytest.raises(ValueError, match=r"push has strengths from 0.5 to 1.5, and not only from 0 to 1"):
        NeuralStack(WIDTH, check=True)(values, strengths, strengths)
    with pytest.raises(ValueError, match="pop has strengths from nan to nan"):
        NeuralStack(WIDTH, check=True)(values, strengths / 2, strengths * torch.nan)
