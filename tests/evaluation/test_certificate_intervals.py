"""Boxes hold whatever float32 computes from numbers in them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stackrev.evaluation.certificate.intervals import (
    Box,
    Rounding,
    concatenate,
    linear,
    point,
    product,
    rounded,
    saturation,
    sigmoid,
    tanh,
)

ROUNDING = Rounding()


def boxes(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Box:
    ends = np.sort(rng.normal(0, scale, (2, *shape)).astype(np.float32), axis=0).astype(np.float64)
    return Box(ends[0], ends[1])


def inside(rng: np.random.Generator, box: Box, count: int) -> np.ndarray:
    """Float32 numbers of a box, [count, ...], its corners among them."""
    share = rng.random((count, *box.lower.shape))
    share[: count // 2] = share[: count // 2].round()
    drawn = box.lower + share * (box.upper - box.lower)
    return np.clip(drawn.astype(np.float32), box.lower.astype(np.float32), box.upper.astype(np.float32))


def holds(box: Box, values: np.ndarray) -> bool:
    exact = values.astype(np.float64)
    return bool((box.lower <= exact).all() and (exact <= box.upper).all())


@pytest.mark.parametrize("terms", [1, 2, 7, 64, 301])
def test_a_sum_in_any_order_is_held(terms):
    rng = np.random.default_rng(terms)
    box = boxes(rng, 3, terms, scale=10.0)
    weights = rng.normal(0, 1, (terms, 5)).astype(np.float32)
    bias = rng.normal(0, 100, 5).astype(np.float32)
    bound = linear(box, weights.astype(np.float64), bias.astype(np.float64), ROUNDING)
    for values in inside(rng, box, 40):
        order = rng.permutation(terms)
        forward = bias + np.zeros((3, 5), dtype=np.float32)
        for k in order:
            forward = forward + values[:, [k]] * weights[k]
        assert forward.dtype == np.float32
        assert holds(bound, forward)
        assert holds(bound, (torch.from_numpy(values) @ torch.from_numpy(weights) + torch.from_numpy(bias)).numpy())


def test_the_worst_sum_comes_near_the_bound():
    """Bounds that are far too wide would hold as well: this one is reached but for the rounding it allows."""
    rng = np.random.default_rng(0)
    box, weights = boxes(rng, 16), rng.normal(0, 1, (16, 4))
    bound = linear(box, weights, np.zeros(4), ROUNDING)
    for column in range(4):
        worst = np.where(weights[:, column] > 0, box.upper, box.lower) @ weights[:, column]
        assert bound.upper[column] == pytest.approx(worst, rel=1e-5)
        assert bound.upper[column] > worst


def test_operands_that_are_rounded_first_are_held():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(0, 1, (40, 32)).astype(np.float32), rng.normal(0, 1, (32, 6)).astype(np.float32)
    coarse = (torch.from_numpy(values).bfloat16().float() @ torch.from_numpy(weights).bfloat16().float()).numpy()
    exact = point(values.astype(np.float64)), weights.astype(np.float64), np.zeros(6)
    assert holds(linear(*exact, Rounding(operands=2.0**-8)), coarse)
    assert not holds(linear(*exact, ROUNDING), coarse)


def test_products_of_every_sign():
    rng = np.random.default_rng(2)
    a, b = boxes(rng, 500), boxes(rng, 500)
    bound = product(a, b)
    for x, y in zip(inside(rng, a, 50), inside(rng, b, 50), strict=True):
        exact = x.astype(np.float64) * y.astype(np.float64)
        assert ((bound.lower <= exact) & (exact <= bound.upper)).all()
        assert holds(rounded(bound, bound.magnitude, 1, ROUNDING), x * y)


@pytest.mark.parametrize(("bound", "computed"), [(sigmoid, torch.sigmoid), (tanh, torch.tanh)])
def test_activations_are_held(bound, computed):
    rng = np.random.default_rng(3)
    for scale in (1e-30, 0.1, 3.0, 30.0, 1e4):
        box = boxes(rng, 2000, scale=scale)
        result = bound(box, ROUNDING)
        for values in inside(rng, box, 10):
            assert holds(result, computed(torch.from_numpy(values)).numpy())


@pytest.mark.parametrize("stretch", [0.01, 0.05, 0.5, 10.0])
def test_gates_are_exact_where_they_are_said_to_be(stretch):
    low, high = saturation(stretch, ROUNDING)
    expected = math.log((1 + stretch) / stretch)
    assert low == pytest.approx(-expected, abs=1e-4)
    assert high == pytest.approx(expected, abs=1e-4)
    around = np.linspace(0, 1e-3, 10_001)
    shut, opened = (torch.from_numpy(x.astype(np.float32)) for x in (low - around, high + around))

    def gate(x: torch.Tensor) -> torch.Tensor:
        return ((1 + 2 * stretch) * x.sigmoid() - stretch).clamp(0, 1)

    assert (gate(shut[shut <= low]) == 0).all()
    assert (gate(opened[opened >= high]) == 1).all()


def test_gates_that_are_not_stretched_are_never_sure_to_be_exact():
    assert saturation(0.0, ROUNDING) == (-math.inf, pytest.approx(math.inf))
    assert saturation(0.05, Rounding(unit=2.0**-2)) == (-math.inf, math.inf)


def test_boxes_side_by_side():
    a, b = point(np.ones((3, 2))), point(np.zeros(4))
    assert concatenate(a, b).lower.shape == (3, 6)


def test_nan_is_within_no_box():
    box = point(np.zeros(3))
    assert box.contains(box)
    assert not box.contains(point(np.array([0, np.nan, 0])))
    assert not point(np.array([0, np.nan, 0])).contains(box)
