"""The neural deque against the paper's equations, and what any deque must keep."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable

import pytest
import torch
from controls import BATCH, CONTROLS, SIZES, WIDTH, uniform, values_of
from hypothesis import given
from hypothesis import strategies as st
from reference import paper_deque, paper_queue, paper_stack
from torch import Tensor

from stackrev.structures.deque import DequeState, NeuralDeque, deque_step, neural_deque, neural_deque_torch

Deque = Callable[..., tuple[Tensor, Tensor, DequeState]]
Strengths = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module", params=[neural_deque, neural_deque_torch], ids=lambda function: function.__name__)
def deque(request: pytest.FixtureRequest) -> Deque:
    """What runs by default, compiled where it can be, and the plain torch version."""
    function: Deque = request.param
    return function


def both_ends(top: str, bottom: str) -> Callable[[int, torch.Generator], Strengths]:
    """Controls of these characters: push at the top, push at the bottom, pop at the top, pop at the bottom."""

    def draw(steps: int, generator: torch.Generator) -> Strengths:
        (push_top, pop_top), (push_bottom, pop_bottom) = (CONTROLS[each](steps, generator) for each in (top, bottom))
        return push_top, push_bottom, pop_top, pop_bottom

    return draw


def in_turn(steps: int, generator: torch.Generator) -> Strengths:
    """Filled at one end and emptied from the other, then the other way round, every five steps."""
    up = (torch.arange(steps) // 5 % 2 == 0)[:, None]
    push, pop = uniform(steps, generator), uniform(steps, generator)
    return push * up, push * ~up, 2.5 * pop * ~up, 2.5 * pop * up


CASES = {
    "random": both_ends("random", "random"),
    "growing": both_ends("growing", "growing"),
    "emptied from the bottom": both_ends("growing", "always empty: u > height"),
    "emptied from the top": both_ends("always empty: u > height", "growing"),
    "often emptied": both_ends("often emptied", "often emptied"),
    "full pops": both_ends("full pops", "full pops"),
    "d = 0 at the bottom": both_ends("random", "d = 0"),
    "d = 0 at times": both_ends("d = 0 at times", "d = 0 at times"),
    "saturated": both_ends("saturated", "saturated"),
    "nearly saturated": both_ends("nearly saturated", "nearly saturated"),
    "in turn": in_turn,
}
WITHOUT_TIES = {"random", "growing", "emptied from the bottom", "emptied from the top", "often emptied"}


def paper(*call: Tensor, depth: Tensor | float = 1.0) -> tuple[Tensor, Tensor, list[Tensor]]:
    return paper_deque(*call, depth)


def chain(*call: Tensor, depth: Tensor | float = 1.0) -> tuple[Tensor, Tensor, DequeState]:
    """Step by step."""
    state, tops, bottoms = DequeState.empty(*call[0].shape[1:], like=call[0]), [], []
    for t, each in enumerate(zip(*call, strict=True)):
        at = depth[t] if isinstance(depth, Tensor) else depth
        top, bottom, state = deque_step(state, *each, depth=at)
        tops.append(top)
        bottoms.append(bottom)
    return torch.stack(tops), torch.stack(bottoms), state


def call_of(case: str, steps: int, generator: torch.Generator, factor: float = 1.0) -> list[Tensor]:
    strengths = CASES[case](steps, generator)
    return [values_of(steps, generator), values_of(steps, generator), *(factor * each for each in strengths)]


def from_the_bottom(strengths: Tensor) -> Tensor:
    """Strengths [2T, B] in the order of the column, from those in the order of pushes."""
    return torch.cat([strengths[1::2].flip(0), strengths[::2]])


@pytest.mark.parametrize(
    ("case", "steps", "factor"),
    [(case, *size) for case in CASES for size in SIZES if size[0] < 100 or case in {*WITHOUT_TIES, "in turn"}],
)
def test_agrees_with_the_paper(deque: Deque, case: str, steps: int, factor: float, generator: torch.Generator) -> None:
    call = call_of(case, steps, generator, factor)
    upstream = values_of(steps, generator), values_of(steps, generator)
    found: list[list[Tensor]] = []
    for function in (paper, deque):
        leaves = [each.clone().requires_grad_() for each in call]
        reads = function(*leaves)[:2]
        loss = (reads[0] * upstream[0] + reads[1] * upstream[1]).sum()
        gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        found.append([*(each.detach() for each in reads), *gradients])
    count = len(found[0]) if case in WITHOUT_TIES else 4  # without the derivatives of strengths at ties
    for theirs, ours, bound in zip(found[0][:count], found[1], [1e-12] * 2 + [1e-10] * 6, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)


@pytest.mark.parametrize("case", CASES)
def test_depths_and_strengths_are_the_papers(deque: Deque, case: str, generator: torch.Generator) -> None:
    call = call_of(case, 9, generator)
    depths = 2.5 * torch.rand(9, BATCH, dtype=torch.float64, generator=generator) + 0.01
    for depth in (0.3, 2.0, depths):
        *reads, strengths = paper(*call, depth=depth)
        for function in (deque, chain):
            *ours, state = function(*call, depth=depth)
            torch.testing.assert_close(ours, reads, rtol=0, atol=1e-12)
            torch.testing.assert_close(from_the_bottom(state.strengths), strengths[-1], rtol=0, atol=1e-12)
    for t in range(9):
        state = deque(*(each[: t + 1] for each in call))[2]
        torch.testing.assert_close(from_the_bottom(state.strengths), strengths[t], rtol=0, atol=1e-12)
        torch.testing.assert_close(state.high - state.low, strengths[t].sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
@pytest.mark.parametrize("case", CASES)
def test_a_sequence_can_be_split_anywhere(deque: Deque, case: str, cut: int, generator: torch.Generator) -> None:
    call = call_of(case, 9, generator)
    top, bottom, state = deque(*call)
    first = deque(*(each[:cut] for each in call))
    second = deque(*(each[cut:] for each in call), first[2])
    stepped = chain(*call)
    for ours, whole in zip((torch.cat([first[n], second[n]]) for n in (0, 1)), (top, bottom), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)
    for ours, whole in zip(stepped[:2], (top, bottom), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)
    for other in (second[2], stepped[2]):
        for name in ("values", "low", "high", "strengths"):
            torch.testing.assert_close(getattr(other, name), getattr(state, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", sorted(WITHOUT_TIES))
def test_gradients_of_steps_and_pieces_are_those_of_the_whole(
    deque: Deque, case: str, generator: torch.Generator
) -> None:
    call = call_of(case, 7, generator)
    upstream = values_of(7, generator), values_of(7, generator)

    def pieces(*call: Tensor) -> tuple[Tensor, Tensor, DequeState]:
        *first, state = deque(*(each[:4] for each in call))
        *second, state = deque(*(each[4:] for each in call), state)
        return *(torch.cat(pair) for pair in zip(first, second, strict=True)), state  # type: ignore[return-value]

    found = []
    for function in (deque, pieces, chain):
        leaves = [each.clone().requires_grad_() for each in call]
        top, bottom, state = function(*leaves)
        loss = (top * upstream[0] + bottom * upstream[1]).sum()
        loss = loss + state.strengths[5].sum() + 2 * state.high.sum() + 3 * state.low.sum()
        found.append(torch.autograd.grad(loss, leaves))
    for other in found[1:]:
        for ours, whole in zip(other, found[0], strict=True):
            torch.testing.assert_close(ours, whole, rtol=0, atol=1e-10)


def test_numeric_gradients(deque: Deque, generator: torch.Generator) -> None:
    start = deque(*call_of("growing", 3, generator))[2]
    given = [*call_of("random", 5, generator), start.values, torch.zeros(BATCH, dtype=torch.float64)]
    leaves = [each.clone().requires_grad_() for each in given]

    def everything(*call: Tensor) -> tuple[Tensor, ...]:
        *call, older, shift = call
        state = DequeState(older, *(each + shift for each in start[1:]))  # the whole column, lifted
        top, bottom, final = deque(*call, state)
        return top, bottom, final.strengths.sum(1), final.low, final.high

    assert torch.autograd.gradcheck(everything, leaves, fast_mode=True)
    depth = torch.full((BATCH,), 0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda depth: neural_deque(*given[:6], depth=depth)[:2], [depth])


def test_one_end_alone_is_a_stack_and_both_are_a_queue(deque: Deque, generator: torch.Generator) -> None:
    push, pop = CONTROLS["often emptied"](20, generator)
    values, nothing = values_of(20, generator), torch.zeros(20, BATCH, dtype=torch.float64)
    top, _, _ = deque(values, values, push, nothing, pop, nothing)
    torch.testing.assert_close(top, paper_stack(values, push, pop), rtol=0, atol=1e-12)
    _, bottom, _ = deque(values, values, push, nothing, nothing, pop)
    torch.testing.assert_close(bottom, paper_queue(values, push, pop)[0], rtol=0, atol=1e-12)


ACTIONS = st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=20)


@given(ACTIONS)
def test_whole_pushes_and_pops_make_an_ordinary_deque(actions: list[tuple[bool, ...]]) -> None:
    strengths = torch.tensor(actions, dtype=torch.float64)[:, None].unbind(2)
    values = torch.arange(1, len(actions) + 1, dtype=torch.float64)[:, None, None]
    top, bottom, _ = neural_deque(values, -values, *strengths)
    ordinary: collections.deque[int] = collections.deque()
    for place, (push_top, push_bottom, pop_top, pop_bottom) in enumerate(actions):
        if pop_top and ordinary:
            ordinary.pop()
        if pop_bottom and ordinary:
            ordinary.popleft()
        if push_top:
            ordinary.append(place + 1)
        if push_bottom:
            ordinary.appendleft(-place - 1)
        assert top[place].item() == (ordinary[-1] if ordinary else 0)
        assert bottom[place].item() == (ordinary[0] if ordinary else 0)


def test_many_steps_overwrite_nothing(generator: torch.Generator) -> None:
    """The best known deque overwrites itself from step 129 on."""
    steps = 300
    whole, nothing = torch.ones(steps, 1), torch.zeros(steps, 1)
    first = (torch.arange(steps) < steps // 2)[:, None]
    values = torch.randn(steps, 1, 2, generator=generator)
    _, bottom, _ = neural_deque(values, values, whole * first, nothing, nothing, whole * ~first)
    torch.testing.assert_close(bottom[steps // 2 : -1], values[1 : steps // 2])


def test_what_is_not_a_number_stays_where_it_belongs() -> None:
    values, whole, nothing = torch.randn(9, 2, 3), torch.ones(9, 2), torch.zeros(9, 2)
    pop = nothing.clone()
    pop[4:] = 1.0  # from step 4 on, the reads at the bottom are v_1, v_2, ...
    values[2, 0, 1] = torch.nan
    top, bottom, _ = neural_deque_torch(values, values, whole, nothing, nothing, pop)
    assert top.isnan().nonzero().tolist() == [[2, 0, 1]]
    assert bottom.isnan().nonzero().tolist() == [[5, 0, 1]]
    pop[4, 0] = torch.nan
    values = torch.randn(9, 2, 3)
    top, bottom, state = neural_deque_torch(values, values, whole, nothing, nothing, pop)
    assert not top[:4].isnan().any()
    assert not bottom[:4].isnan().any()
    assert bottom[4:, 0].isnan().all()
    assert not bottom[:, 1].isnan().any()
    assert state.low.isnan().tolist() == [True, False]


@pytest.mark.slow
def test_transforms_and_compilers_take_it(generator: torch.Generator) -> None:
    call = call_of("random", 5, generator)
    rows = [each.transpose(0, 1)[:, :, None] for each in call]
    expected = neural_deque(*call)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reads = torch.func.vmap(lambda *row: neural_deque_torch(*row)[0])(*rows)
    torch.testing.assert_close(reads[:, :, 0].transpose(0, 1), expected, rtol=0, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler itself has to say
        compiled = torch.compile(neural_deque, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*call)[0], expected, rtol=0, atol=1e-12)


def test_no_steps_and_no_rows(deque: Deque) -> None:
    for steps, rows in ((0, 2), (4, 0)):
        strength = torch.zeros(steps, rows)
        top, bottom, state = deque(*[torch.zeros(steps, rows, 3)] * 2, *[strength] * 4)
        assert top.shape == bottom.shape == (steps, rows, 3)
        assert state.values.shape == (2 * steps, rows, 3)


def test_wrong_shapes_are_refused(deque: Deque) -> None:
    values, strength = torch.zeros(5, 2, 3), torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"values_top and values_bottom have the shapes \[5, 2, 3\] and \[5, 2, 4\]"):
        deque(values, torch.zeros(5, 2, 4), *[strength] * 4)
    with pytest.raises(ValueError, match=r"pop_top has the shape \[4, 2\], not \[5, 2\]"):
        deque(values, values, strength, strength, strength[:4], strength)
    with pytest.raises(ValueError, match=r"a batch of one, values_top\[:, None\], values_bottom\[:, None\], push_top"):
        deque(values[:, 0], values[:, 0], *[strength[:, 0]] * 4)
    with pytest.raises(ValueError, match=r"the state's values has the shape \[0, 2, 5\], not \[0, 2, 3\]"):
        deque(values, values, *[strength] * 4, DequeState.empty(2, 5, like=values))


def test_module(generator: torch.Generator) -> None:
    deque = NeuralDeque(WIDTH, batch_first=True, check=True)
    assert repr(deque) == f"NeuralDeque(width={WIDTH}, batch_first=True, check=True)"
    call = call_of("random", 5, generator)
    turned = [each.transpose(0, 1) for each in call]
    *expected, final = neural_deque(*call)
    top, bottom, _ = deque(*turned)
    torch.testing.assert_close([top.transpose(0, 1), bottom.transpose(0, 1)], expected, rtol=0, atol=0)
    *_, state = deque(*(each[:, :4] for each in turned), deque.initial_state(BATCH, like=call[0]))
    *last, state = deque.step(state, *(each[4] for each in call))
    torch.testing.assert_close(last, [each[4] for each in expected], rtol=0, atol=1e-12)
    torch.testing.assert_close(state.strengths, final.strengths, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="values are 2 wide, this deque 3"):
        deque(turned[0], turned[1][..., :2], *turned[2:])
    with pytest.raises(ValueError, match="pop_bottom has strengths from"):
        deque(*turned[:5], 5 * turned[5])
