"""A penalty on cells, by which an LSTM comes to forget what it does not need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stackrev.models.base import Reverser
from stackrev.tasks.batches import Batch


def hidden_and_penalty(
    model: Reverser[Any], batch: Batch, cell_l2: float, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """The decoder's hidden states, and what is added to the loss for how large the cells have become.

    The penalty is `cell_l2` times the mean square of the cells after the encoder's last step, plus the same after the
    decoder's. (Merity et al. 2017 penalise the outputs of all steps. An output is bounded, but a cell that adds
    something up at every step grows without bound, and its last value is its largest.)

    Args:
        model: The model, whose configuration says `penalises_cells` unless `cell_l2` is 0.
        batch: The strings.
        cell_l2: The penalty's weight.
        generator: What noise is drawn from.

    Returns:
        Hidden states [M + 1, B, H], and the penalty; None if `cell_l2` is 0.
    """
    if not cell_l2:
        return model.hidden(batch, generator=generator), None
    hidden, cells = model.hidden_and_cells(batch, generator=generator)
    return hidden, cell_l2 * torch.stack([each.square().mean() for each in cells]).sum()
