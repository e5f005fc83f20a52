"""What the stack, the queue and the deque have in common: reads as weighted sums, and arguments that are checked.

Letters: T steps, B rows, N elements on a structure, values of width M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

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


def check_state(state: Elements, shape: Sequence[int], rows: Named) -> None:
    """Refuse a state that is not one of values of a shape.

    Args:
        state: The state.
        shape: B and M.
        rows: Its other fields, one number a row.

    Raises:
        ValueError: A shape is wrong.
    """
    (batch, width), elements = shape, state.bottoms.shape[:1]
    parts: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "values": (state.values, (*elements, batch, width)),
        "bottoms": (state.bottoms, (*elements, batch)),
        "tops": (state.tops, (*elements, batch)),
        **{name: (tensor, (batch,)) for name, tensor in rows.items()},
    }
    for name, (tensor, shape) in parts.items():
        if tensor.shape != shape:
            raise ValueError(f"the state's {name} has the shape {list(tensor.shape)}, not {list(shape)}")


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


def kernel_depth(depth: Depth, like: Tensor) -> Tensor | None:
    """A checked depth as the compiled kernels take it: float64 in the shape of `like`, or None for one unit."""
    if isinstance(depth, Tensor):
        return depth
    return None if depth == 1 else like.new_full(like.shape, depth, dtype=torch.float64)


def check_strengths(strengths: Named) -> None:
    """Refuse strengths outside [0, 1].

    Raises:
        ValueError: There are such, or NaN.
    """
    for name, tensor in strengths.items():
        if not bool(((tensor >= 0) & (tensor <= 1)).all()):
            least, most = tensor.min().item(), tensor.max().item()
            raise ValueError(f"{name} has strengths from {least:g} to {most:g}, and not only from 0 to 1")


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
