"""Operators under `torch.func.vmap`: a structure takes all calls at once, as more rows; others are called in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Sequence[Tensor]]
Rule = Callable[..., tuple[tuple[Tensor, ...], tuple[int | None, ...]]]


def with_more_rows(function: Function, given: Sequence[int], returned: Sequence[int]) -> Rule:
    """A rule for a function whose rows need nothing of each other: X calls of B rows are one call of X B rows.

    Args:
        function: What is called; tensors alone, and None.
        given: Where the rows of each argument are, counted from the last dimension, as -1.
        returned: Where those of each result are; an empty result may have none.
    """

    def rule(info: Any, in_dims: Sequence[int | None], *call: Tensor | None) -> Any:
        count = info.batch_size
        whole = [
            None if tensor is None else _folded(tensor, place, rows, count)
            for tensor, place, rows in zip(call, in_dims, given, strict=True)
        ]
        results = function(*whole)
        taken = next(each.shape[rows] for each, rows in zip(whole, given, strict=True) if each is not None)
        outputs: list[Tensor] = []
        places: list[int | None] = []
        for result, rows in zip(results, returned, strict=True):
            if result.dim() < -rows or result.shape[rows] != taken:
                outputs.append(result)
                places.append(None)
            else:
                place, shape = result.dim() + rows, result.shape
                outputs.append(result.reshape(*shape[:place], count, taken // max(1, count), *shape[place + 1 :]))
                places.append(place)
        return tuple(outputs), tuple(places)

    return rule


def _folded(tensor: Tensor, place: int | None, rows: int, count: int) -> Tensor:
    """The same numbers, the dimension at `place` in one with the rows; so many copies if there is none."""
    if place is None:
        tensor = tensor.unsqueeze(rows - 1)
        shape = list(tensor.shape)
        shape[rows - 1] = count
        tensor = tensor.expand(shape)
    else:
        tensor = tensor.movedim(place, rows - 1)
    return tensor.flatten(rows - 1, rows)


def in_turn(function: Function) -> Rule:
    """A rule for any function: one call after the other, and the results stacked."""

    def rule(info: Any, in_dims: Sequence[Any], *call: Any) -> Any:
        if not info.batch_size:
            raise ValueError("vmap over nothing: this operator is called once for each, and there are none")
        found = [function(*_selected(call, in_dims, number)) for number in range(info.batch_size)]
        results = tuple(torch.stack(each) for each in zip(*found, strict=True))
        return results, (0,) * len(results)

    return rule


def _selected(call: Sequence[Any], in_dims: Sequence[Any], number: int) -> list[Any]:
    """The arguments of one call."""
    selected: list[Any] = []
    for each, place in zip(call, in_dims, strict=True):
        if isinstance(each, list | tuple):
            selected.append(_selected(each, place, number))
        else:
            selected.append(each if place is None else each.select(place, number))
    return selected
