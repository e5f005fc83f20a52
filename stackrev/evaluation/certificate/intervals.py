"""Interval arithmetic that contains what a network computes in float32, rounding included.

A `Box` holds a lower and an upper bound for every coordinate. Each function here takes boxes that contain the numbers
the network computes with and returns a box that contains every number it can compute from them, whatever the order of
its sums and whether or not it fuses multiplications with additions. docs/proof.md derives the bounds.

The bounds themselves are computed in float64. A sum of K products in float64 errs by at most (K + 2) 2^-53 times the
sum of the absolute products; `Rounding.gamma` exceeds the float32 bound by the factor 1 + 2^-20, which is thousands of
times more than that, and `_SLACK` stands for the errors of float64's exponential and hyperbolic tangent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stackrev.evaluation.certificate.constants import SIGMOID_ERROR, TANH_ERROR

Array = npt.NDArray[np.float64]

FLOAT32 = 2.0**-24
"""The unit roundoff of float32: rounding changes a number by at most this share of it."""

_OVER = 1 + 2.0**-20
_SLACK = 1e-12
_TINY = 2.0**-69
LARGEST = 2.0**50
"""No weight and no end of a box may be larger: then no sum of float32 overflows, and underflow is small."""


@dataclass(frozen=True, slots=True)
class Box:
    """A product of intervals.

    Attributes:
        lower: The least value of each coordinate.
        upper: The greatest, of the same shape.
    """

    lower: Array
    upper: Array

    def __getitem__(self, index: Any) -> Box:
        """The box of some coordinates, as NumPy indexes them."""
        return Box(self.lower[index], self.upper[index])

    @property
    def magnitude(self) -> Array:
        """The greatest absolute value of each coordinate."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def widened(self, by: Array | float) -> Box:
        """The box with both ends moved outwards."""
        return Box(self.lower - by, self.upper + by)

    def contains(self, other: Box) -> bool:
        """Whether another box lies within this one."""
        return bool((self.lower <= other.lower).all() and (other.upper <= self.upper).all())

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(np.minimum(self.lower, other.lower), np.maximum(self.upper, other.upper))

    def over(self, *axes: int) -> Box:
        """The hull over whole axes."""
        return Box(self.lower.min(axes), self.upper.max(axes))


def point(values: Array) -> Box:
    """The box that holds these values alone."""
    return Box(values, values)


def concatenate(*boxes: Box) -> Box:
    """Boxes side by side along their last axis; leading axes are broadcast."""
    shape = np.broadcast_shapes(*(box.lower.shape[:-1] for box in boxes))
    alike = [Box(*(np.broadcast_to(end, (*shape, end.shape[-1])) for end in (box.lower, box.upper))) for box in boxes]
    return join(alike, np.concatenate, axis=-1)


def join(boxes: Sequence[Box], function: Callable[..., Array], *, axis: int = 0) -> Box:
    """One box of several, by NumPy's `concatenate` or `stack`."""
    return Box(
        function([box.lower for box in boxes], axis=axis),
        function([box.upper for box in boxes], axis=axis),
    )


@dataclass(frozen=True)
class Rounding:
    """How far the network's arithmetic may be from exact.

    Attributes:
        unit: The unit roundoff u: an operation's result is (1 + d) times the exact one with |d| <= u.
        sigmoid: The greatest absolute error of the sigmoid, in units of `unit`.
        tanh: The greatest absolute error of the hyperbolic tangent, in units of `unit`.
        operands: The unit roundoff of what matrix products round their operands to before they multiply, as TF32
            (2^-11) and bfloat16 (2^-8) hardware does; 0 if they are taken as they are. The sums are still rounded
            with `unit`.
    """

    unit: float = FLOAT32
    sigmoid: float = SIGMOID_ERROR
    tanh: float = TANH_ERROR
    operands: float = 0.0

    def products(self, terms: int) -> float:
        """The bound on the error of a sum of so many products, as a share of the sum of their absolute values."""
        return (1 + self.gamma(terms)) * (1 + self.operands) ** 2 * _OVER - 1

    def gamma(self, operations: int) -> float:
        """The bound k u / (1 - k u) on the relative error of k roundings in a row (Higham 2002, Lemma 3.1).

        It is infinite where k u reaches 1/2: so many roundings may leave no digit.
        """
        error = operations * self.unit
        if error >= 0.5:
            return math.inf
        return error / (1 - error) * _OVER


def linear(box: Box, weights: Array, bias: Array, rounding: Rounding, *, extra: int = 0) -> Box:
    """What `bias + x @ weights` may be, computed in any order, for x in a box.

    Args:
        box: [..., K].
        weights: [K, N].
        bias: [N] or [..., N].
        rounding: How sums are rounded.
        extra: Further roundings that the terms have gone through before, at most.
    """
    center, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
    absolute = np.abs(weights)
    middle, spread = center @ weights + bias, radius @ absolute
    terms = weights.shape[0] + 3 + extra
    error = rounding.products(terms) * (box.magnitude @ absolute) + rounding.gamma(terms) * np.abs(bias)
    spread = spread + error + terms * _TINY
    return Box(middle - spread, middle + spread)


def product(a: Box, b: Box) -> Box:
    """The exact range of products."""
    ends = (a.lower * b.lower, a.lower * b.upper, a.upper * b.lower, a.upper * b.upper)
    return Box(
        np.minimum(np.minimum(ends[0], ends[1]), np.minimum(ends[2], ends[3])),
        np.maximum(np.maximum(ends[0], ends[1]), np.maximum(ends[2], ends[3])),
    )


def rounded(box: Box, magnitude: Array, operations: int, rounding: Rounding) -> Box:
    """A box widened by some roundings of terms whose absolute values add up to at most `magnitude`."""
    return box.widened(rounding.gamma(operations) * magnitude + operations * _TINY)


def sigmoid(box: Box, rounding: Rounding) -> Box:
    """What the network's sigmoid may give; the function rises, so ends go to ends."""
    error = rounding.sigmoid * rounding.unit + _SLACK
    with np.errstate(over="ignore"):  # exp gives infinity where the sigmoid is 0
        return Box(1 / (1 + np.exp(-box.lower)) - error, 1 / (1 + np.exp(-box.upper)) + error)


def tanh(box: Box, rounding: Rounding) -> Box:
    """What the network's hyperbolic tangent may give; the function rises, so ends go to ends."""
    error = rounding.tanh * rounding.unit + _SLACK
    return Box(np.tanh(box.lower) - error, np.tanh(box.upper) + error)


def saturation(stretch: float, rounding: Rounding) -> tuple[float, float]:
    """Where a gate `clamp((1 + 2e) sigmoid(x) - e, 0, 1)` is exactly 0 and exactly 1, as the network computes it.

    Returns:
        Two numbers a < b: every x <= a gives 0 and every x >= b gives 1, to the last bit. They are minus and plus
        infinity where no x is sure to.
    """
    error, sigma = rounding.gamma(4), rounding.sigmoid * rounding.unit + _SLACK
    one = (1 + stretch) * (1 + error) / ((1 + 2 * stretch) * (1 - error)) + sigma
    zero = stretch * (1 - error) / ((1 + 2 * stretch) * (1 + error)) - sigma
    high = math.log(one / (1 - one)) + _SLACK if one < 1 else math.inf
    low = math.log(zero / (1 - zero)) - _SLACK if zero > 0 else -math.inf
    return low, high
