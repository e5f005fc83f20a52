"""Noise on what symbols add to the gates, which makes them saturate (noise on weights: Jim et al. 1996)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from stackrev.models.base import Reverser


@contextmanager
def noise_on_symbols(
    model: Reverser[Any], deviation: float, grown: float, generator: torch.Generator
) -> Iterator[None]:
    """Within it the weights of symbols are noisy; after it they are as before, to the last bit.

    Args:
        model: The model.
        deviation: The noise's standard deviation. Nothing is drawn if it is 0.
        grown: By what it is multiplied where the weights are of the recurrent cells, which may have grown so much.
        generator: Where it comes from.
    """
    if not deviation:
        yield
        return
    cells = {id(each) for each in model.cell_weights()}
    weights = model.symbol_weights()
    quiet = [each.detach().clone() for each in weights]
    try:
        for each in weights:
            drawn = torch.randn(each.shape, generator=generator).to(each.device)
            each.detach().add_((deviation * grown if id(each) in cells else deviation) * drawn)
        yield
    finally:
        for each, before in zip(weights, quiet, strict=True):
            each.detach().copy_(before)
