"""Greedy decoding: what a model really writes, symbol by symbol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stackrev import vocabulary
from stackrev.data import make_batch
from stackrev.models import Reverser


def greedy(model: Reverser[Any], strings: Sequence[Tensor], *, limit: int | None = None) -> list[list[int]]:
    """Reverse strings by feeding the model its own most probable symbols until it writes the end marker.

    Args:
        model: The model, in evaluation mode unless training noise is wanted.
        strings: At least one string of symbol ids.
        limit: The most symbols to write for a string; twice its length and 16 more if None, since a model that has
            not learned to stop would go on for ever.

    Returns:
        What was written for each string, in the order given, with the end marker if it was written.
    """
    order = sorted(range(len(strings)), key=lambda place: -len(strings[place]))  # as `make_batch` sorts
    batch = make_batch(strings)
    device = next(model.parameters()).device
    limits = [2 * len(each) + 16 if limit is None else limit for each in strings]
    written: list[list[int]] = [[] for _ in strings]
    with torch.inference_mode():
        state = model.encode(batch.source.to(device), batch.steps)
        symbols = torch.full((len(strings),), vocabulary.SEPARATOR, device=device)
        open_rows = {place for place in order if limits[place] > 0}
        while open_rows:
            logits, state = model.step(symbols, state)
            symbols = logits.argmax(-1)
            for place, symbol in zip(order, symbols.tolist(), strict=True):
                if place in open_rows:
                    written[place].append(symbol)
                    if symbol == vocabulary.END or len(written[place]) >= limits[place]:
                        open_rows.discard(place)
    return written
