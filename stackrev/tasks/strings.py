"""Random strings over an alphabet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.kernels.defaults import torch_defaults
from stackrev.tasks.vocabulary import ASCII


@torch_defaults()
def sample_strings(
    lengths: LengthRange,
    samples: int,
    generator: torch.Generator,
    *,
    alphabet: Sequence[int] = ASCII.ids,
    step: int = 1,
) -> list[Tensor]:
    """Draw strings: a length, uniform over those in the range, then symbols, uniform over the alphabet.

    Args:
        lengths: The range of lengths.
        samples: How many strings.
        generator: Where the draws come from.
        alphabet: The symbol ids to draw from.
        step: What every length is a multiple of.

    Raises:
        DataError: There is no such length in the range.
    """
    counts = draw_lengths(lengths, (samples,), generator, step=step).tolist()
    symbols = torch.tensor(alphabet)
    flat = symbols[torch.randint(len(symbols), (sum(counts),), generator=generator)]
    return list(torch.split(flat, counts))


def draw_lengths(lengths: LengthRange, shape: tuple[int, ...], generator: torch.Generator, *, step: int = 1) -> Tensor:
    """Draw lengths, uniform over the multiples of `step` in a range.

    Raises:
        DataError: No multiple of it is in the range.
    """
    low, high = -(-lengths.minimum // step), lengths.maximum // step
    if low > high:
        raise DataError(f"no length in {lengths} is a multiple of {step}", hint="ask for other lengths")
    return step * torch.randint(low, high + 1, shape, generator=generator)
