"""Random strings over an alphabet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.kernels.defaults import torch_defaults
from stackrev.tasks.vocabulary import ASCII


@torch_defaults()
def sample_strings(
    lengths: LengthRange, samples: int, generator: torch.Generator, *, alphabet: Sequence[int] = ASCII.ids
) -> list[Tensor]:
    """Draw strings: a length, uniform over the range, then symbols, uniform over the alphabet.

    Args:
        lengths: The range of lengths.
        samples: How many strings.
        generator: Where the draws come from.
        alphabet: The symbol ids to draw from.
    """
    counts = torch.randint(lengths.minimum, lengths.maximum + 1, (samples,), generator=generator).tolist()
    symbols = torch.tensor(alphabet)
    flat = symbols[torch.randint(len(symbols), (sum(counts),), generator=generator)]
    return list(torch.split(flat, counts))
