"""Push and pop strengths of every character, and values, for the tests of stack, queue and deque."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Controls = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]

BATCH, WIDTH = 4, 3
SIZES = [(1, 1.0), (2, 1.0), (7, 1.0), (63, 1.0), (130, 1.0), (63, 3.0)]
"""Steps, and by what strengths are multiplied: above 1, a pop takes several units and a push makes a tall element."""


def uniform(steps: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(steps, BATCH, dtype=torch.float64, generator=generator)


def sometimes(fixed: float, x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(torch.rand(x.shape, generator=generator) < 0.4, fixed, x)


def mostly_ends(steps: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (steps, BATCH), generator=generator).double()


CONTROLS: dict[str, Controls] = {
    "random": lambda steps, g: (uniform(steps, g), uniform(steps, g)),
    "growing": lambda steps, g: (uniform(steps, g, 0.5), uniform(steps, g, 0.0, 0.5)),
    "always empty: u > height": lambda steps, g: (uniform(steps, g, 0.0, 0.2), uniform(steps, g, 0.3)),
    "often emptied": lambda steps, g: (uniform(steps, g, 0.0, 0.6), uniform(steps, g)),
    "full pops": lambda steps, g: (uniform(steps, g), sometimes(1.0, uniform(steps, g), g)),
    "no pops": lambda steps, g: (uniform(steps, g), torch.zeros(steps, BATCH, dtype=torch.float64)),
    "full pushes": lambda steps, g: (sometimes(1.0, uniform(steps, g), g), uniform(steps, g)),
    "d = 0 at times": lambda steps, g: (sometimes(0.0, uniform(steps, g), g), uniform(steps, g)),
    "d = 0": lambda steps, g: (torch.zeros(steps, BATCH, dtype=torch.float64), uniform(steps, g)),
    "saturated": lambda steps, g: (mostly_ends(steps, g), mostly_ends(steps, g)),
    "nearly saturated": lambda steps, g: (
        (mostly_ends(steps, g) - 1e-3 * uniform(steps, g)).abs(),
        (mostly_ends(steps, g) - 1e-3 * uniform(steps, g)).abs(),
    ),
}


def values_of(steps: int, generator: torch.Generator) -> Tensor:
    return torch.randn(steps, BATCH, WIDTH, dtype=torch.float64, generator=generator)
