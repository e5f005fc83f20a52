"""Stretched gates and candidates, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stackrev.structures.stretched import candidate, candidate_slope, gate, gate_slope

Z = torch.linspace(-6, 6, 241, dtype=torch.float64)
PAIRS = [(torch.sigmoid, gate, gate_slope), (torch.tanh, candidate, candidate_slope)]

Squash = Callable[[Tensor], Tensor]
Stretch = Callable[[Tensor, float], Tensor]
Slope = Callable[[Tensor, Tensor, float], Tensor]


@pytest.mark.parametrize("e", [0.0, 1e-9, 0.05, 0.5, 10.0])
@pytest.mark.parametrize(("squash", "stretch", "slope"), PAIRS)
def test_slopes_are_those_of_autograd(squash: Squash, stretch: Stretch, slope: Slope, e: float) -> None:
    z = Z.clone().requires_grad_()
    value = stretch(squash(z), e)
    factor = torch.linspace(-2, 3, len(Z), dtype=torch.float64)
    (expected,) = torch.autograd.grad(value, z, factor)
    torch.testing.assert_close(slope(factor, value.detach(), e), expected, rtol=1e-12, atol=1e-12)


def test_where_they_are_cut() -> None:
    ends = torch.tensor([-20.0, -3.1, 3.1, 20.0])
    assert gate(ends.sigmoid(), 0.05).tolist() == [0, 0, 1, 1]
    assert candidate((ends / 2).tanh(), 0.05).tolist() == [-1, -1, 1, 1]
    inside = gate(torch.tensor([-2.9, 2.9]).sigmoid(), 0.05)
    assert bool(((inside > 0) & (inside < 1)).all())
    torch.testing.assert_close(candidate(Z.tanh(), 0.3), 2 * gate((2 * Z).sigmoid(), 0.3) - 1, rtol=0, atol=1e-15)


@pytest.mark.parametrize("e", [0.0, -1.0])
def test_without_a_stretch_every_bit_is_that_of_the_usual_cell(e: float) -> None:
    factor, g = torch.randn(1000, generator=torch.Generator().manual_seed(0)).tanh().split(500)
    i = g.sigmoid()
    assert gate(i, e) is i
    assert candidate(g, e) is g
    assert torch.equal(gate_slope(factor, i, e), factor * i * (1 - i))
    assert torch.equal(candidate_slope(factor, g, e), factor * (1 - g * g))


@pytest.mark.parametrize("e", [0.0, 0.1])
def test_what_is_not_a_number_stays_in_sight(e: float) -> None:
    nan = torch.tensor([torch.nan])
    for one in (gate, candidate):
        assert one(nan, e).isnan().all()
    for two in (gate_slope, candidate_slope):
        assert two(torch.ones(1), nan, e).isnan().all()
