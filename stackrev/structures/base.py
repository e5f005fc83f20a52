"""What the stack, the queue and the deque have in common: reads as weighted sums, and arguments that are checked.

Letters: T steps, B rows, N elements on a structure, values of width M.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from stackrev.kernels import dispatch

S = TypeVar("S")
Named = Mapping[str, Tensor]
Depth = float | Tensor


class Elements(Protocol):
    """What every state has: N elements, [N, B, M] values, and where each starts and ends, [N, B]."""

    @property
    def values(self) -> Tensor: ...  # noqa: D102
    @property
    def bottoms(self) -> Tensor: ...  # noqa: D102
    @property
    def tops(self) -> Tensor: ...  # noqa: D102


class Positions(NamedTuple):
    """A queue's or a deque's state without its values: where each element starts and ends, and where all does.

    Attributes:
        bottoms: [N, B].
        tops: [N, B].
        low: [B].
        high: [B].
    """

    bottoms: Tensor
    tops: Tensor
    low: Tensor
    high: Tensor


def height_dtype(values: Tensor) -> torch.dtype:
    """The type heights are kept in beside `values`: float64, but float32 on MPS, which has no float64."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def strengths_of(state: Elements) -> Tensor:
    """What is left of each element, [N, B]; s in the paper's equations."""
    return (state.tops - state.bottoms).relu()


def weighted_sum(alpha: Tensor, values: Tensor) -> Tensor:
    """Reads, from the share that every element has in them: sum_i alpha_i v_i.

    A value that is infinite or NaN shows in the reads that have a share of such a value and in no others. A plain
    product would carry it into every read, since 0 * NaN is NaN, even into those before it was pushed.

    Args:
        alpha: [T, N, B], or [N, B] for one step.
        values: [N, B, M].

    Returns:
        [T, B, M], or [B, M].
    """
    finite = values.isfinite()
    reads = torch.einsum("...nb,nbm->...bm", alpha.to(values.dtype), values.where(finite, 0))
    others = values.detach().masked_fill(finite, 0).sum(0)  # [B, M], 0 where all is finite
    touched = ((alpha > 0) & ~finite.all(-1)).any(-2)  # [T, B]
    return torch.where(touched[..., None] & (others != 0), reads + others, reads)


# --- Arguments


def time_first(tensors: Sequence[Tensor], batch_first: bool) -> list[Tensor]:
    """Tensors [T, B, ...] from tensors [B, T, ...] if the batch comes first in them."""
    return [each.transpose(0, 1) for each in tensors] if batch_first else list(tensors)


def check_sequence(values: Named, strengths: Named, *, batch_first: bool = False) -> None:
    """Refuse a sequence whose values are not [T, B, M], or whose strengths are not [T, B].

    Raises:
        ValueError: A shape is wrong.
    """
    shape = "[B, T, M]" if batch_first else "[T, B, M]"
    _check(values, strengths, shape, unbatched="[None]" if batch_first else "[:, None]")


def check_step(values: Named, strengths: Named) -> None:
    """Refuse a step whose values are not [B, M], or whose strengths are not [B].

    Raises:
        ValueError: A shape is wrong.
    """
    _check(values, strengths, "[B, M]", unbatched="[None]")


def checked_step(state: Any, values: Named, strengths: Named, depth: Depth) -> tuple[list[Tensor], Depth]:
    """The strengths of a step in the type of heights, and its depth, once all shapes have been checked.

    Raises:
        ValueError: A shape is wrong.
    """
    check_step(values, strengths)
    check_state(state, next(iter(values.values())).shape)
    high, controls = state[-1], list(strengths.values())
    return [each.to(high.dtype) for each in controls], checked_depth(depth, controls[0].shape, high)


def _check(values: Named, strengths: Named, shape: str, *, unbatched: str) -> None:
    dimensions = shape.count(",") + 1
    first = next(iter(values))
    expected = values[first].shape
    if len(expected) == dimensions - 1:
        everything = ", ".join(f"{name}{unbatched}" for name in (*values, *strengths))
        raise ValueError(
            f"{first} has the shape {list(expected)}, not {shape}: a sequence without a batch is a batch of one,"
            f" {everything}"
        )
    if len(expected) != dimensions:
        raise ValueError(f"{first} has the shape {list(expected)}, not {shape}")
    for name, tensor in values.items():
        if tensor.shape != expected:
            raise ValueError(f"{first} and {name} have the shapes {list(expected)} and {list(tensor.shape)}")
    wrong = {name: list(each.shape) for name, each in strengths.items() if each.shape != expected[:-1]}
    if wrong:
        names, shapes = " and ".join(wrong), ", ".join(map(str, wrong.values()))
        has = "has the shape" if len(wrong) == 1 else "have the shapes"
        raise ValueError(f"{names} {has} {shapes}, not {list(expected[:-1])}")


def check_state(state: Any, shape: Sequence[int]) -> None:
    """Refuse a state that is not one of values of a shape.

    Args:
        state: The state: values, bottoms, tops, and fields of one number a row.
        shape: B and M.

    Raises:
        ValueError: A shape is wrong.
    """
    (batch, width), elements = shape, state.bottoms.shape[:1]
    shapes = (*elements, batch, width), (*elements, batch), (*elements, batch)
    for place, name in enumerate(state._fields):
        expected = shapes[place] if place < len(shapes) else (batch,)
        if state[place].shape != expected:
            raise ValueError(f"the state's {name} has the shape {list(state[place].shape)}, not {list(expected)}")


def checked_depth(depth: Depth, shape: Sequence[int], heights: Tensor, *, batch_first: bool = False) -> Depth:
    """How deep reads are, as a number, or as a tensor of `shape` in the type of heights.

    Args:
        depth: A number, or a tensor that broadcasts to [T, B] (to [B, T] if the batch comes first).
        shape: [T, B], or [B] for a step.
        heights: A tensor of heights.
        batch_first: Whether the batch comes first in `depth`.

    Raises:
        ValueError: It is not such a tensor, or a number that is not positive.
    """
    if not isinstance(depth, Tensor):
        if not depth > 0:
            raise ValueError(f"the depth of a read is {depth}, and not more than 0")
        return depth
    wanted = tuple(reversed(shape)) if batch_first else tuple(shape)
    try:
        depth = depth.to(heights.dtype).expand(wanted)
    except RuntimeError:
        raise ValueError(f"depth has the shape {list(depth.shape)}, which does not go with {list(wanted)}") from None
    return depth.T if batch_first else depth


def check_strengths(strengths: Named) -> None:
    """Refuse strengths outside [0, 1].

    Raises:
        ValueError: There are such, or NaN.
    """
    for name, tensor in strengths.items():
        if not bool(((tensor >= 0) & (tensor <= 1)).all()):
            least, most = tensor.min().item(), tensor.max().item()
            raise ValueError(f"{name} has strengths from {least:g} to {most:g}, and not only from 0 to 1")


# --- All steps at once


Plain = Callable[[list[Tensor], list[Tensor], Any, Depth], tuple[Sequence[Tensor], Any]]
"""From values, strengths, state and depth, time first and checked, to what each end reads and to the final state."""


def run(
    name: str,
    empty: Callable[..., S],
    plain: Plain,
    values: Named,
    strengths: Named,
    state: S | None,
    depth: Depth,
    *,
    batch_first: bool,
    compiled: bool = True,
) -> tuple[list[Tensor], S]:
    """Run a structure over T steps: check its arguments, and choose between plain torch and compiled kernels.

    Args:
        name: What the kernels call it.
        empty: Makes a state without elements.
        plain: Does it in plain torch.
        values: What each end pushes, by the names of the arguments.
        strengths: How much each end pushes, then how much each end pops.
        state: The state before the first step; empty if None.
        depth: How deep a read is.
        batch_first: Whether the batch comes first in all of these, and in the reads.
        compiled: Whether compiled kernels may be used.

    Returns:
        What each end reads, and the state after the last step.

    Raises:
        ValueError: A shape is wrong.
    """
    check_sequence(values, strengths, batch_first=batch_first)
    whole, controls = (time_first([*some.values()], batch_first) for some in (values, strengths))
    batch, width = whole[0].shape[1:]
    before: Any = empty(batch, width, like=whole[0]) if state is None else state
    check_state(before, (batch, width))
    depth = checked_depth(depth, controls[0].shape, before[-1], batch_first=batch_first)
    heights = [*before[1:], *([depth] if isinstance(depth, Tensor) else [])]
    kernels = dispatch.kernels_for((*whole, before.values), heights=heights, indices=controls) if compiled else None
    if kernels is None:
        reads, final = plain(whole, controls, before, depth)
    else:
        V, ends = kernels.joined(before.values, *whole), len(whole)
        push, pop = (_together(some) for some in (controls[:ends], controls[ends:]))
        reads, positions = kernels.neural_memory(name, V, push, pop, before[1:], _each_depth(depth, controls[0]))
        final = type(before)(V, *positions)
    return time_first(reads, batch_first), final


def _together(strengths: list[Tensor]) -> Tensor:
    """The strengths of one end [T, B], or those of several [T, E, B], in float64."""
    return strengths[0].double() if len(strengths) == 1 else torch.stack(strengths, 1).double()


def _each_depth(depth: Depth, like: Tensor) -> Tensor | None:
    """A checked depth as the compiled kernels take it: float64 in the shape of `like`, or None for one unit."""
    if isinstance(depth, Tensor):
        return depth
    return None if depth == 1 else like.new_full(like.shape, depth, dtype=torch.float64)


class Memory(nn.Module):
    """What the modules have in common. They have no parameters: the controls are those of the model around them.

    Args:
        width: M, the width of the values.
        batch_first: Whether sequences are [B, T, ...], not [T, B, ...]; states are the same either way.
        check: Whether to refuse strengths outside [0, 1]. Without it, a pop of 2 removes two units, and a push of 2
            makes an element two units high.
    """

    def __init__(self, width: int, *, batch_first: bool = False, check: bool = False) -> None:
        super().__init__()
        self.width, self.batch_first, self.check = width, batch_first, check

    def _check(self, values: Tensor, strengths: Named) -> None:
        if values.shape[-1] != self.width:
            raise ValueError(f"values are {values.shape[-1]} wide, this {self._noun()} {self.width}")
        if self.check:
            check_strengths(strengths)

    def _noun(self) -> str:
        return type(self).__name__.removeprefix("Neural").lower()

    def extra_repr(self) -> str:
        """What `print` shows of the module."""
        more = "".join(f", {name}=True" for name in ("batch_first", "check") if getattr(self, name))
        return f"width={self.width}{more}"
