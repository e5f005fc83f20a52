"""The hand-written backward of the recurrence against autograd on a literal version of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from reference import literal_stack_lstm
from torch import Tensor

from stackrev.structures.recurrence import (
    MemoryLSTMOutput,
    MemoryLSTMState,
    MemoryLSTMWeights,
    memory_lstm,
    memory_lstm_torch,
)
from stackrev.structures.stack import StackState, neural_stack, stack_step

SIZE, WIDTH, BATCH = 5, 4, 6

Recurrence = Callable[..., MemoryLSTMOutput]


@pytest.fixture(params=[memory_lstm, memory_lstm_torch], ids=lambda function: function.__name__)
def implementation(request: pytest.FixtureRequest) -> Recurrence:
    """What runs by default, compiled where it can be, and the plain torch version."""
    function: Recurrence = request.param
    return function


@dataclasses.dataclass(frozen=True)
class Case:
    """One setting of the recurrence."""

    layers: int = 1
    steps: int = 7
    below: int = 0  # elements on the stack before the first step
    ragged: bool = True
    stretch: float = 0.0
    noise: float = 0.0
    cell_stretch: float = 0.0
    bias: tuple[float, float] = (0.0, 0.0)  # of the push and pop gates

    def lengths(self) -> Tensor:
        if not self.ragged:
            return torch.full((BATCH,), self.steps)
        some = [self.steps, self.steps, (2 * self.steps + 2) // 3, self.steps // 2, 1, 0]
        return torch.tensor(sorted(some, reverse=True))


class Arguments(NamedTuple):
    """Leaves of the recurrence, float64 and requiring gradients."""

    inputs: Tensor
    state: MemoryLSTMState
    weights: MemoryLSTMWeights
    noise: Tensor | None

    def leaves(self) -> dict[str, Tensor]:
        named = {"inputs": self.inputs} | {
            f"state.{name}": getattr(self.state, name) for name in ("hidden", "cell", "read")
        }
        named |= {f"stack.{name}": each for name, each in self.state.memory._asdict().items()}
        named |= {f"recurrent.{layer}": each for layer, each in enumerate(self.weights.recurrent)}
        named |= {f"bias.{layer}": each for layer, each in enumerate(self.weights.biases, 1)}
        named |= {"control": self.weights.control, "control_bias": self.weights.control_bias}
        return named if self.noise is None else named | {"noise": self.noise}


def arguments(case: Case) -> Arguments:
    """The same arguments for the same case, every leaf new."""
    generator = torch.Generator().manual_seed(case.layers + 10 * case.steps)

    def leaf(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, dtype=torch.float64, generator=generator)).requires_grad_()

    control_bias = torch.randn(2 + WIDTH, dtype=torch.float64, generator=generator)
    control_bias[:2] += torch.tensor(case.bias)
    weights = MemoryLSTMWeights(
        tuple(leaf((SIZE if layer else WIDTH) + SIZE, 4 * SIZE, scale=0.7) for layer in range(case.layers)),
        tuple(leaf(4 * SIZE) for _ in range(case.layers - 1)),
        leaf(SIZE, 2 + WIDTH, scale=1.5),
        control_bias.requires_grad_(),
    )
    uniform = torch.rand(2, case.below, BATCH, dtype=torch.float64, generator=generator)
    _, stack = neural_stack(leaf(case.below, BATCH, WIDTH).detach(), uniform[0], uniform[1] * 0.7)
    stack = StackState(*(each.clone().requires_grad_() for each in stack))
    state = MemoryLSTMState(leaf(case.layers, BATCH, SIZE), leaf(case.layers, BATCH, SIZE), leaf(BATCH, WIDTH), stack)
    noise = leaf(case.steps, BATCH, 2, scale=case.noise) if case.noise else None
    return Arguments(leaf(case.steps, BATCH, 4 * SIZE), state, weights, noise)


def results(out: MemoryLSTMOutput) -> dict[str, Tensor]:
    """All that comes out, stacks by what they mean."""
    stack = out.state.memory
    return {
        **{"hidden": out.hidden, "push": out.push, "pop": out.pop},
        **{"final hidden": out.state.hidden, "final cell": out.state.cell, "final read": out.state.read},
        **{"values": stack.values, "strengths": stack.strengths, "height": stack.height},
    }


def outcome(function: Recurrence, case: Case, losses: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """The results, and the gradient of every leaf of a loss over the results in `losses` (all if None)."""
    given = arguments(case)
    stretches = {"stretch": case.stretch, "cell_stretch": case.cell_stretch}
    out = function(given.inputs, case.lengths(), given.state, given.weights, **stretches, noise=given.noise)
    found = results(out)
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for name, each in found.items():
        weight = torch.randn(each.shape, dtype=torch.float64, generator=generator)
        if each.requires_grad and (losses is None or name in losses):
            loss = loss + (each * weight).sum()
    leaves = given.leaves()
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    named = {f"gradient of {name}": each for name, each in zip(leaves, gradients, strict=True)}
    return {name: each.detach() for name, each in (found | named).items()}


@functools.cache
def literal_outcome(case: Case, losses: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """`outcome` of the literal version, which is slow."""
    return outcome(literal_stack_lstm, case, losses)


def assert_same(ours: dict[str, Tensor], literal: dict[str, Tensor]) -> None:
    assert ours.keys() == literal.keys()
    for name, each in literal.items():
        torch.testing.assert_close(ours[name], each, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


VARIANTS = {
    "plain": Case(ragged=False),
    "ragged": Case(),
    "stretched, on a stack": Case(below=5, stretch=0.3),
    "noisy, on a stack": Case(below=5, noise=1.0),
    "gates at 0 and 1 and between": Case(below=4, stretch=0.3, noise=4.0),
    "sigmoids at 0 and 1": Case(below=1, noise=800.0),
    "stretched cells": Case(below=2, cell_stretch=0.3),
    "cells and gates stretched": Case(below=5, stretch=0.3, noise=1.0, cell_stretch=0.05),
    "always pushing, never popping": Case(stretch=0.3, bias=(50.0, -50.0)),
    "always popping": Case(below=5, stretch=0.3, bias=(0.0, 50.0)),
    "never pushing": Case(below=5, stretch=0.3, bias=(-50.0, 0.0)),
}


@pytest.mark.parametrize("steps", [1, 2, 7, 63])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_agrees_with_the_literal_version(implementation: Recurrence, variant: Case, layers: int, steps: int) -> None:
    case = dataclasses.replace(variant, layers=layers, steps=steps)
    assert_same(outcome(implementation, case), literal_outcome(case))


@pytest.mark.parametrize(
    "losses",
    [("hidden",), ("final hidden",), ("final cell",), ("final read",), ("values",), ("strengths",), ("height",)],
    ids="".join,
)
def test_each_result_has_gradients_of_its_own(implementation: Recurrence, losses: tuple[str, ...]) -> None:
    case = Case(layers=2, below=3, stretch=0.3, noise=1.0)
    assert_same(outcome(implementation, case, losses), literal_outcome(case, losses))


def test_saturated_cases_are_saturated() -> None:
    out = outcome(memory_lstm, VARIANTS["gates at 0 and 1 and between"])
    gates = torch.stack([out["push"], out["pop"]])[:, :, 0]
    assert bool((gates == 0).any())
    assert bool((gates == 1).any())
    assert bool(((gates > 0) & (gates < 1)).any())


@pytest.mark.parametrize("layers", [1, 3])
def test_numeric_gradients(implementation: Recurrence, layers: int) -> None:
    case = Case(layers=layers, steps=4, noise=1.0)
    given = arguments(case)
    leaves = [each for name, each in given.leaves().items() if not name.startswith("stack.")]

    def function(*_: Tensor) -> tuple[Tensor, ...]:
        out = implementation(given.inputs, case.lengths(), given.state, given.weights, stretch=0.0, noise=given.noise)
        return out.hidden, out.state.cell, out.state.read, out.state.memory.strengths

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("layers", [1, 2])
def test_streaming_gives_the_whole(implementation: Recurrence, layers: int) -> None:
    case = Case(layers=layers, steps=9, below=2, stretch=0.3, noise=1.0)
    given, lengths = arguments(case), case.lengths()
    assert given.noise is not None
    whole = implementation(given.inputs, lengths, given.state, given.weights, stretch=0.3, noise=given.noise)
    state = given.state
    for t in range(case.steps):
        one = slice(t, t + 1)
        out = implementation(
            given.inputs[one], (lengths > t).long(), state, given.weights, stretch=0.3, noise=given.noise[one]
        )
        for name, each in results(out).items():
            if name in ("hidden", "push", "pop"):
                torch.testing.assert_close(each[0], results(whole)[name][t], rtol=0, atol=1e-10)
        state = out.state
    assert_same(results(out._replace(hidden=whole.hidden, push=whole.push, pop=whole.pop)), results(whole))


@pytest.mark.parametrize("cut", [0, 3, 7])
def test_gradients_flow_through_a_split(implementation: Recurrence, cut: int) -> None:
    case = Case(layers=2, stretch=0.3, noise=1.0, cell_stretch=0.1)

    def split(
        inputs: Tensor,
        lengths: Tensor,
        state: MemoryLSTMState,
        weights: MemoryLSTMWeights,
        *,
        noise: Tensor,
        **stretches: float,
    ) -> MemoryLSTMOutput:
        early = implementation(inputs[:cut], lengths.clamp(max=cut), state, weights, noise=noise[:cut], **stretches)
        late = implementation(
            inputs[cut:], (lengths - cut).clamp(min=0), early.state, weights, noise=noise[cut:], **stretches
        )
        joined = (torch.cat(pair) for pair in zip(early[:3], late[:3], strict=True))
        return MemoryLSTMOutput(*joined, late.state)

    assert_same(outcome(split, case), outcome(implementation, case))


def test_the_stack_is_the_neural_stack(implementation: Recurrence) -> None:
    case = Case(ragged=False, stretch=0.3, noise=1.0)
    given = arguments(case)
    out = implementation(given.inputs, case.lengths(), given.state, given.weights, stretch=0.3, noise=given.noise)
    reads, state = neural_stack(out.state.memory.values, out.push, out.pop)
    torch.testing.assert_close(out.state.read, reads[-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(out.state.memory.strengths, state.strengths, rtol=0, atol=1e-12)


def test_a_row_that_has_ended_stands_still(implementation: Recurrence) -> None:
    case = Case(layers=2, below=2)
    given = arguments(case)
    out = implementation(given.inputs, case.lengths(), given.state, given.weights, stretch=0.0)
    for t, running in enumerate(case.lengths()[None] > torch.arange(case.steps)[:, None]):
        for each in (out.hidden, out.push, out.pop):
            assert bool((each[t, ~running] == 0).all())
    last = -1  # takes no step at all
    for name in ("hidden", "cell"):
        assert torch.equal(getattr(out.state, name)[:, last], getattr(given.state, name)[:, last])
    assert torch.equal(out.state.read[last], given.state.read[last])
    assert torch.equal(out.state.memory.height[last], given.state.memory.height[last])
    strengths = out.state.memory.strengths[:, last]
    assert torch.equal(strengths[: case.below], given.state.memory.strengths[:, last])
    assert not strengths[case.below :].any()
    # and what stands on its stack still does nothing when it goes on
    on = torch.tensor([0.5], dtype=torch.float64)
    value = torch.zeros(1, WIDTH, dtype=torch.float64)
    padded = StackState(*(each[..., last:, :] if each.ndim == 3 else each[..., last:] for each in out.state.memory))
    plain = StackState(*(each[..., last:, :] if each.ndim == 3 else each[..., last:] for each in given.state.memory))
    torch.testing.assert_close(stack_step(padded, value, on, on)[0], stack_step(plain, value, on, on)[0])


def test_padding_is_never_read(implementation: Recurrence) -> None:
    case = Case(noise=1.0)
    given = arguments(case)
    ended = case.lengths()[None] <= torch.arange(case.steps)[:, None]
    inputs = given.inputs.detach().masked_fill(ended[..., None], torch.nan)
    noise = given.noise.detach().masked_fill(ended[..., None], torch.nan)
    out = implementation(inputs, case.lengths(), given.state, given.weights, stretch=0.0, noise=noise)
    whole = implementation(given.inputs, case.lengths(), given.state, given.weights, stretch=0.0, noise=given.noise)
    assert_same(results(out), results(whole))


def test_arguments_are_left_as_they_were(implementation: Recurrence) -> None:
    case = Case(layers=2, below=2, noise=1.0)
    given = arguments(case)
    before = {name: each.detach().clone() for name, each in given.leaves().items()}
    out = implementation(given.inputs, case.lengths(), given.state, given.weights, stretch=0.0, noise=given.noise)
    out.hidden.sum().backward()
    assert all(torch.equal(each, before[name]) for name, each in given.leaves().items())


def test_a_gradient_can_be_taken_twice(implementation: Recurrence) -> None:
    given = arguments(Case())
    out = implementation(given.inputs, Case().lengths(), given.state, given.weights, stretch=0.0)
    first, second = (
        torch.autograd.grad(out.hidden.sum() + out.state.read.sum(), given.inputs, retain_graph=True)[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_float32(implementation: Recurrence) -> None:
    case = Case(layers=2, steps=63, stretch=0.3)
    given = arguments(case)
    wide = literal_stack_lstm(given.inputs, case.lengths(), given.state, given.weights, stretch=0.3)
    state = MemoryLSTMState(
        given.state.hidden.float(),
        given.state.cell.float(),
        given.state.read.float(),
        StackState.empty(BATCH, WIDTH, like=torch.zeros(1)),
    )
    recurrent, biases, *control = given.weights
    weights = MemoryLSTMWeights(
        tuple(each.float() for each in recurrent),
        tuple(each.float() for each in biases),
        *(each.float() for each in control),
    )
    out = implementation(given.inputs.float(), case.lengths(), state, weights, stretch=0.3)
    assert {out.hidden.dtype, out.push.dtype, out.state.read.dtype, out.state.memory.values.dtype} == {torch.float32}
    assert {out.state.memory.height.dtype, out.state.memory.tops.dtype} == {torch.float64}
    torch.testing.assert_close(out.hidden.double(), wide.hidden, rtol=0, atol=1e-3)
    out.hidden.sum().backward()
    assert given.inputs.grad is not None
    assert bool(given.inputs.grad.isfinite().all())


def test_without_gradients_nothing_changes(implementation: Recurrence) -> None:
    case = Case(layers=2, below=2, stretch=0.3, noise=1.0)
    given = arguments(case)
    out = implementation(given.inputs, case.lengths(), given.state, given.weights, stretch=0.3, noise=given.noise)
    with torch.inference_mode():
        bare = implementation(given.inputs, case.lengths(), given.state, given.weights, stretch=0.3, noise=given.noise)
    assert_same(results(bare), results(out))
    assert not bare.hidden.requires_grad


def test_gates_are_not_differentiable(implementation: Recurrence) -> None:
    given = arguments(Case())
    out = implementation(given.inputs, Case().lengths(), given.state, given.weights, stretch=0.0)
    assert out.hidden.requires_grad
    assert not out.push.requires_grad
    assert not out.pop.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"inputs": a["inputs"][..., 1:]}, "inputs has the shape"),
        (lambda a: a | {"noise": torch.zeros(7, BATCH, 1, dtype=torch.float64)}, "noise has the shape"),
        (lambda a: a | {"state": a["state"]._replace(cell=a["state"].cell[:, 1:])}, "cell has the shape"),
        (lambda a: a | {"state": a["state"]._replace(read=a["state"].read[:, 1:])}, "has the shape"),
        (lambda a: a | {"weights": a["weights"]._replace(control=a["weights"].control.T)}, "control has the shape"),
        (lambda a: a | {"weights": a["weights"]._replace(control_bias=torch.zeros(2))}, "control bias has the shape"),
        (lambda a: a | {"weights": a["weights"]._replace(biases=())}, "2 layers need"),
        (lambda a: a | {"weights": a["weights"]._replace(recurrent=a["weights"].recurrent[:1])}, "2 layers need"),
        (lambda a: a | {"lengths": a["lengths"][1:]}, "lengths has the shape"),
        (lambda a: a | {"lengths": a["lengths"].flip(0)}, "lengths must fall"),
        (lambda a: a | {"lengths": a["lengths"] + 1}, "lengths must fall"),
        (lambda a: a | {"lengths": a["lengths"] - 1}, "lengths must fall"),
    ],
)
def test_arguments_that_do_not_belong_together(
    implementation: Recurrence, change: Callable[[dict[str, object]], dict[str, object]], message: str
) -> None:
    case = Case(layers=2)
    given = arguments(case)
    good = {"inputs": given.inputs, "lengths": case.lengths(), "state": given.state, "weights": given.weights}
    with pytest.raises(ValueError, match=message):
        implementation(**change(good), stretch=0.0)
