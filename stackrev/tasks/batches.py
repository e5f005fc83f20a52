"""Strings to learn from and to be tested on: batches and held-out sets.

Every draw takes the generator it draws from. A string is a tensor of symbol ids without markers; a `Batch` holds
strings of different lengths side by side, longest first, so that the rows still running at any step are the first so
many and no model spends work on padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.kernels.defaults import torch_defaults
from stackrev.tasks import vocabulary
from stackrev.tasks.data import DataConfig

_ASCII = range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE)
MOST_SYMBOLS = 2**28
"""The most symbols that are drawn at once: 2 GiB of ids."""
_DRAWS = 100  # how often strings that are held out are drawn again, and then their lengths too


class Batch(NamedTuple):
    """B strings, longest first, the longest of N symbols; what is past a row's end is END and never read.

    Attributes:
        source: [N + 1, B] int64, what the encoder reads: `$` and the string.
        fed: [N + 1, B] int64, what the decoder reads under teacher forcing: `|` and the reversed string.
        target: [N + 1, B] int64, what the decoder should write: the reversed string and `&`.
        steps: [B] int64, how many steps either takes: the string's length + 1. Always on the CPU.
    """

    source: Tensor
    fed: Tensor
    target: Tensor
    steps: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its ids on another device."""
        return Batch(self.source.to(device), self.fed.to(device), self.target.to(device), self.steps)


@torch_defaults()
def make_batch(strings: Sequence[Tensor]) -> Batch:
    """Put strings into one batch, longest first; strings of equal length keep their order.

    Args:
        strings: At least one, each int64 of its own length.
    """
    ordered = sorted(strings, key=len, reverse=True)
    return _padded(torch.nn.utils.rnn.pad_sequence(ordered), torch.tensor([len(each) for each in ordered]))


def _padded(strings: Tensor, lengths: Tensor) -> Batch:
    """A batch of strings [N, B] and their lengths [B], longest first, whatever stands past their ends."""
    longest, batch = strings.shape
    place = torch.arange(longest)[:, None]
    inside = place < lengths
    backwards = strings.gather(0, (lengths - 1 - place).clamp(min=0))
    end = torch.full((1, batch), vocabulary.END)
    source = torch.cat([torch.full((1, batch), vocabulary.START), strings.where(inside, end)])
    backwards = backwards.where(inside, end)
    fed = torch.cat([torch.full((1, batch), vocabulary.SEPARATOR), backwards])
    return Batch(source, fed, torch.cat([backwards, end]), lengths + 1)


class HeldOut(NamedTuple):
    """The fixed strings that training never draws.

    Attributes:
        validation: Strings of the training lengths.
        test: Longer strings.
    """

    validation: list[Tensor]
    test: list[Tensor]

    @property
    def keys(self) -> frozenset[bytes]:
        """What `sample_batch` must not draw."""
        return frozenset(map(_key, (*self.validation, *self.test)))


def _key(string: Tensor) -> bytes:
    return bytes(string.tolist())


@torch_defaults()
def sample_strings(
    lengths: LengthRange, samples: int, generator: torch.Generator, *, alphabet: Sequence[int] = _ASCII
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


@torch_defaults()
def held_out(config: DataConfig) -> HeldOut:
    """The validation and test sets of a configuration; the same for the same seed, whatever the run.

    Raises:
        DataError: They have more symbols than can be held in memory.
    """
    longest = max(config.lengths.maximum, config.test_lengths.maximum)
    if longest * config.held_out_samples > MOST_SYMBOLS:
        raise DataError(
            f"{config.held_out_samples:,} held-out strings of up to {longest:,} symbols are too many",
            hint="hold out fewer, or shorter ones",
        )
    generator = torch.Generator().manual_seed(config.held_out_seed)
    validation = sample_strings(config.lengths, config.held_out_samples, generator)
    return HeldOut(validation, sample_strings(config.test_lengths, config.held_out_samples, generator))


@torch_defaults()
def sample_batch(
    lengths: LengthRange,
    batch_size: int,
    generator: torch.Generator,
    *,
    mixed_lengths: bool = True,
    excluded: frozenset[bytes] = frozenset(),
) -> Batch:
    """Draw a training batch of ASCII strings.

    Args:
        lengths: The range of lengths.
        batch_size: How many strings.
        generator: Where the draws come from.
        mixed_lengths: Whether each string has a length of its own, or all share one.
        excluded: `HeldOut.keys`; a string that is one of these is drawn again.

    Raises:
        DataError: Draw after draw gives an excluded string, as when every string of the lengths is held out; or the
            batch would have more symbols than can be held in memory.
    """
    if lengths.maximum * batch_size > MOST_SYMBOLS:
        raise DataError(
            f"batches of {batch_size:,} strings of up to {lengths.maximum:,} symbols are too large",
            hint="train on fewer, or on shorter ones",
        )
    shape = (batch_size,) if mixed_lengths else (1,)
    for _ in range(_DRAWS):
        counts = torch.randint(lengths.minimum, lengths.maximum + 1, shape, generator=generator)
        counts = counts.expand(batch_size).sort(descending=True).values
        strings = torch.randint(_ASCII.start, _ASCII.stop, (int(counts[0]), batch_size), generator=generator)
        if not excluded:
            return _padded(strings, counts)
        flat, longest = bytes(strings.T.flatten().tolist()), strings.shape[0]
        rows = [flat[row * longest : row * longest + count] for row, count in enumerate(counts.tolist())]
        if excluded.isdisjoint(rows):
            return _padded(strings, counts)
        again = lengths if mixed_lengths else LengthRange(minimum=len(rows[0]), maximum=len(rows[0]))
        for _ in range(_DRAWS):
            rows = [row for row in rows if row not in excluded]
            rows += [_key(each) for each in sample_strings(again, batch_size - len(rows), generator)]
            if excluded.isdisjoint(rows):
                return make_batch([torch.tensor(list(row), dtype=torch.int64) for row in rows])
    raise DataError(
        f"nearly every string of length {lengths} is held out", hint="train on longer strings, or hold out fewer"
    )
