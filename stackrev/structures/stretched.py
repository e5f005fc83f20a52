"""Gates that reach 0 and 1, and candidates that reach -1 and 1, in plain torch; cell.h has the same in C++.

A sigmoid comes near 0 and 1 but does not reach them, so that a gate is never quite shut or open. Stretched by e > 0 and
cut, as in Louizos et al. 2018 (Section 2.2, the hard concrete distribution), it is exactly 0 or 1 from some
pre-activation on. With an e of 0, everything here is the sigmoid and the hyperbolic tangent, to the last bit.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Stretches(NamedTuple):
    """The e of the gates that work the memory, and that of the LSTM's own."""

    memory: float
    cell: float


def gate(squashed: Tensor, e: float) -> Tensor:
    """`clamp((1 + 2e) s - e, 0, 1)` of a sigmoid s."""
    return ((1 + 2 * e) * squashed - e).clamp(0, 1) if e > 0 else squashed


def candidate(squashed: Tensor, e: float) -> Tensor:
    """`clamp((1 + 2e) s, -1, 1)` of a hyperbolic tangent s."""
    return ((1 + 2 * e) * squashed).clamp(-1, 1) if e > 0 else squashed


def gate_slope(factor: Tensor, value: Tensor, e: float) -> Tensor:
    """A factor times the derivative of a gate by its pre-activation, given the gate's value; 0 where it is 0 or 1."""
    if not e > 0:
        return factor * value * (1 - value)
    return factor * ((value + e) * (1 + e - value) / (1 + 2 * e)).masked_fill((value <= 0) | (value >= 1), 0)


def candidate_slope(factor: Tensor, value: Tensor, e: float) -> Tensor:
    """The same of a candidate, whose derivative is 0 where it is -1 or 1."""
    if not e > 0:
        return factor * (1 - value * value)
    return factor * (1 + 2 * e - value * value / (1 + 2 * e)).masked_fill(value.abs() >= 1, 0)
