"""Greedy decoding: what a model really writes, symbol by symbol.

A model whose kind can run in the compiled kernels needs no torch where these are; everything else goes through the
model in torch. Both are a `Decoder`, and write the same; `models.open_decoder` opens the quicker one.

Imports torch only where a model in torch runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from stackrev.tasks import REVERSAL, vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.evaluation.capabilities import Transducer
    from stackrev.kernels.cpu.stream import Stream
    from stackrev.tasks.base import Task

PIECE = 32_768
"""How many symbols are read or written between two reports of progress."""
BATCH_SYMBOLS = 65_536
"""How many symbols, padding included, a model in torch reverses at once."""


class Decoder(Protocol):
    """What reverses strings."""

    @property
    def bytes_per_symbol(self) -> int:
        """About how much memory each symbol of a long string takes while the string is reversed."""
        ...

    def write(
        self, strings: Sequence[Sequence[int]], *, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[list[int]]:
        """Reverse strings greedily.

        Args:
            strings: Symbol ids, without markers.
            on_progress: Called as symbols are read and written, with how many more.

        Yields:
            What is written for each string, in the order given, with the end marker if it is written. A model that
            does not stop is stopped; see `Task.most_written`.
        """
        ...


class NativeDecoder:
    """A model in the compiled kernels, without torch: strings one after the other, of any length.

    Args:
        stream: The model, opened by its kind's `open_stream`.
        width: How many numbers it keeps of each symbol; see `ModelConfig.input_width`.
        task: What the model has learned.
    """

    def __init__(self, stream: Stream, width: int, task: Task = REVERSAL) -> None:
        self._stream, self._width, self._task = stream, width, task

    @property
    def bytes_per_symbol(self) -> int:
        """See `Decoder.bytes_per_symbol`: the pushed vector stays until it is popped."""
        return 4 * self._width + 50

    def write(
        self, strings: Sequence[Sequence[int]], *, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[list[int]]:
        """See `Decoder.write`."""
        stream = self._stream.fresh()  # of this call's own, whoever else is writing
        tell = on_progress or (lambda count: None)
        for string in strings:
            stream.reset()
            stream.encode([vocabulary.START])
            for start in range(0, len(string), PIECE):
                piece = string[start : start + PIECE]
                stream.encode(piece)
                tell(len(piece))
            limit, written = self._task.most_written(len(string)), [vocabulary.SEPARATOR]
            while written[-1] != vocabulary.END and len(written) <= limit:
                more = stream.decode_greedy(written[-1], vocabulary.END, min(PIECE, limit - len(written) + 1))
                written.extend(more)
                tell(len(more))
            yield written[1:]


class TorchDecoder:
    """Any model in torch: strings in batches.

    Args:
        model: In evaluation mode.
        task: What it has learned.
    """

    def __init__(self, model: Transducer, task: Task = REVERSAL) -> None:
        self._model, self._task = model, task

    @property
    def bytes_per_symbol(self) -> int:
        """See `Decoder.bytes_per_symbol`: what a step reads, and what it keeps, of every step at once."""
        shape = self._model.config
        return 4 * (6 * shape.hidden_size + 4 * shape.input_width) + 100

    def write(
        self, strings: Sequence[Sequence[int]], *, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[list[int]]:
        """See `Decoder.write`."""
        import torch

        for batch in _batches(strings):
            tensors = [torch.tensor(each, dtype=torch.int64, device="cpu") for each in batch]
            yield from greedy(self._model, tensors, task=self._task, on_progress=on_progress)


def greedy(
    model: Transducer,
    strings: Sequence[Tensor],
    *,
    limit: int | None = None,
    task: Task = REVERSAL,
    on_progress: Callable[[int], object] | None = None,
) -> list[list[int]]:
    """Transduce strings by feeding the model its own most probable symbols until it writes the end marker.

    Args:
        model: The model, in evaluation mode unless training noise is wanted.
        strings: At least one string of symbol ids.
        limit: The most symbols to write for a string; `Task.most_written` if None, since a model that has not learned
            to stop would go on for ever.
        task: What the model has learned.
        on_progress: Called when all strings are read and as symbols are written, with how many more.

    Returns:
        What was written for each string, in the order given, with the end marker if it was written.
    """
    import torch

    from stackrev.kernels.defaults import torch_defaults
    from stackrev.tasks.batches import make_batch

    order = sorted(range(len(strings)), key=lambda place: -len(strings[place]))  # as `make_batch` sorts
    batch = make_batch(strings)
    device = next(model.parameters()).device
    limits = [task.most_written(len(each)) if limit is None else limit for each in strings]
    written: list[list[int]] = [[] for _ in strings]
    with torch_defaults(), torch.inference_mode():
        state = model.encode(batch.source.to(device), batch.steps)
        tell = on_progress or (lambda count: None)
        tell(sum(map(len, strings)))
        symbols = torch.full((len(strings),), vocabulary.SEPARATOR, device=device)
        open_rows = {place for place in order if limits[place] > 0}
        while open_rows:
            logits, state = model.step(symbols, state)
            symbols = logits.argmax(-1)
            tell(len(open_rows))
            for place, symbol in zip(order, symbols.tolist(), strict=True):
                if place in open_rows:
                    written[place].append(symbol)
                    if symbol == vocabulary.END or len(written[place]) >= limits[place]:
                        open_rows.discard(place)
    return written


def _batches(strings: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """The strings in groups that fit a batch, in their order."""
    group: list[Sequence[int]] = []
    longest = 0
    for string in strings:
        longest = max(longest, len(string) + 1)
        if group and (len(group) + 1) * longest > BATCH_SYMBOLS:
            yield group
            group, longest = [], len(string) + 1
        group.append(string)
    if group:
        yield group
