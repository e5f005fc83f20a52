"""Strings to learn from and to be tested on: batches and held-out sets.

Every draw takes the generator it draws from. A string is a tensor of symbol ids without markers; a `Batch` holds
strings of different lengths side by side, longest first, so that the rows still running at any step are the first so
many and no model spends work on padding.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.kernels.defaults import torch_defaults
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.tasks.base import Task
from stackrev.tasks.data import DataConfig, task_of
from stackrev.tasks.strings import draw_lengths

_T = TypeVar("_T")
_ID = array("I").itemsize
MOST_SYMBOLS = 2**28
"""The most symbols that are drawn at once: 2 GiB of ids."""
_DRAWS = 100  # how often strings that are held out are drawn again, and then their lengths too


class Batch(NamedTuple):
    """B strings and what is to be written for them; what is past a row's end is END and never read.

    Sources are N symbols at most, and their rows are in order of their lengths, longest first. Targets are M symbols
    at most, and so are their rows. Where that is another order, `order` says which source each target belongs to.

    Attributes:
        source: [N + 1, B] int64, what the encoder reads: `$` and the string.
        fed: [M + 1, B] int64, what the decoder reads under teacher forcing: `|` and the target's symbols.
        target: [M + 1, B] int64, what the decoder should write: the target's symbols and `&`.
        steps: [B] int64, how many steps the encoder takes: the string's length + 1. Always on the CPU.
        target_steps: [B] int64, how many the decoder takes: the target's length + 1. Always on the CPU.
        order: [B] int64, the row of `source` that each row of `target` belongs to; None if it is the same.
    """

    source: Tensor
    fed: Tensor
    target: Tensor
    steps: Tensor
    target_steps: Tensor
    order: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its ids on another device."""
        return self._replace(
            source=self.source.to(device),
            fed=self.fed.to(device),
            target=self.target.to(device),
            order=None if self.order is None else self.order.to(device),
        )

    def of_sources(self, values: Sequence[_T]) -> list[_T]:
        """Values of the rows of `target`, in the order of the rows of `source`."""
        if self.order is None:
            return list(values)
        found = dict(zip(self.order.tolist(), values, strict=True))
        return [found[row] for row in range(len(values))]


@torch_defaults()
def make_batch(strings: Sequence[Tensor], task: Task = REVERSAL) -> Batch:
    """Put strings into one batch, longest first; strings of equal length keep their order.

    Args:
        strings: At least one, each int64 of its own length.
        task: What is to be written for them.
    """
    ordered = sorted(strings, key=len, reverse=True)
    return _padded(torch.nn.utils.rnn.pad_sequence(ordered), torch.tensor([len(each) for each in ordered]), task)


def _padded(strings: Tensor, lengths: Tensor, task: Task) -> Batch:
    """A batch of strings [N, B] and their lengths [B], longest first, whatever stands past their ends."""
    targets, target_lengths = task.answers(strings, lengths)
    order = None
    if bool((target_lengths.diff() > 0).any()):
        target_lengths, order = target_lengths.sort(descending=True, stable=True)
        targets = targets[:, order]
    batch = strings.shape[1]
    start, separator, end = (
        torch.full((1, batch), marker) for marker in (vocabulary.START, vocabulary.SEPARATOR, vocabulary.END)
    )
    source = torch.cat([start, _ended(strings, lengths)])
    targets = _ended(targets, target_lengths)
    fed, target = torch.cat([separator, targets]), torch.cat([targets, end])
    return Batch(source, fed, target, lengths + 1, target_lengths + 1, order)


def _ended(strings: Tensor, lengths: Tensor) -> Tensor:
    """Strings [N, B] with END in every place past their ends."""
    place = torch.arange(strings.shape[0])[:, None]
    return strings.where(place < lengths, torch.tensor(vocabulary.END))


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
    return _bytes(string.tolist())


def _bytes(ids: Sequence[int]) -> bytes:
    """Ids as bytes, four for each: any vocabulary fits."""
    return array("I", ids).tobytes()


@torch_defaults()
def held_out(config: DataConfig, task: Task | None = None) -> HeldOut:
    """The validation and test sets of a configuration; the same for the same seed, whatever the run.

    Args:
        config: The configuration.
        task: Its task, where that has been opened (see `storage.pairs.open_task`).

    Raises:
        DataError: They have more symbols than can be held in memory.
    """
    task = task or task_of(config)
    if (own := task.held_out()) is not None:
        return HeldOut(*own)
    longest = max(config.lengths.maximum, config.test_lengths.maximum)
    if longest * config.held_out_samples > MOST_SYMBOLS:
        raise DataError(
            f"{config.held_out_samples:,} held-out strings of up to {longest:,} symbols are too many",
            hint="hold out fewer, or shorter ones",
        )
    generator = torch.Generator().manual_seed(config.held_out_seed)
    validation = task.draw(config.lengths, config.held_out_samples, generator)
    return HeldOut(validation, task.draw(config.test_lengths, config.held_out_samples, generator))


@torch_defaults()
def sample_batch(
    lengths: LengthRange,
    batch_size: int,
    generator: torch.Generator,
    *,
    mixed_lengths: bool = True,
    excluded: frozenset[bytes] = frozenset(),
    task: Task = REVERSAL,
) -> Batch:
    """Draw a training batch.

    Args:
        lengths: The range of lengths.
        batch_size: How many strings.
        generator: Where the draws come from.
        mixed_lengths: Whether each string has a length of its own, or all share one.
        excluded: `HeldOut.keys`; a string that is one of these is drawn again.
        task: Whose strings, and what is to be written for them.

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
        counts = draw_lengths(lengths, shape, generator, step=task.length_step)
        counts = counts.expand(batch_size).sort(descending=True).values
        rows: list[bytes]
        if task.uniform:
            ids = task.vocabulary.ids
            strings = torch.randint(ids.start, ids.stop, (int(counts[0]), batch_size), generator=generator)
            if not excluded:
                return _padded(strings, counts, task)
            flat, longest = _bytes(strings.T.flatten().tolist()), _ID * strings.shape[0]
            rows = [flat[row * longest : row * longest + _ID * count] for row, count in enumerate(counts.tolist())]
            if excluded.isdisjoint(rows):
                return _padded(strings, counts, task)
        else:
            rows = []
        again = lengths if mixed_lengths else LengthRange(minimum=int(counts[0]), maximum=int(counts[0]))
        for _ in range(_DRAWS):
            rows = [row for row in rows if row not in excluded]
            rows += [_key(each) for each in task.draw(again, batch_size - len(rows), generator)]
            if excluded.isdisjoint(rows):
                return make_batch([torch.tensor(array("I", row).tolist()).long() for row in rows], task)
    raise DataError(
        f"nearly every string of length {lengths} is held out", hint="train on longer strings, or hold out fewer"
    )
