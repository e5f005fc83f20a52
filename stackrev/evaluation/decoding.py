"""Greedy decoding: what a model really writes, symbol by symbol.

A model whose kind can run in the compiled kernels needs no torch where these are; everything else goes through the
model in torch. Both are a `Decoder`, and write the same; `models.open_decoder` opens the quicker one.

Imports torch only where a model in torch runs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Protocol, TypeAlias

from stackrev.evaluation.threads import cores
from stackrev.tasks import REVERSAL, vocabulary

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from torch import Tensor

    from stackrev.evaluation.capabilities import Transducer
    from stackrev.kernels.cpu.stream import Stream
    from stackrev.tasks.base import Task

_Strings: TypeAlias = Sequence[Sequence[int]]
_Answers: TypeAlias = list[list[int]]

PIECE = 32_768
"""How many symbols are read or written between two reports of progress."""
SHORT = 4_096
"""The longest string that the compiled kernels answer beside others, so that what they take together stays small."""
CALL_ROWS = 192
"""How many strings the compiled kernels answer in a call, some tens of milliseconds for usual ones."""
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
    """A model in the compiled kernels, without torch: short strings side by side on all cores, long ones alone.

    Args:
        stream: The model, opened by its kind's `open_stream`.
        width: How many numbers it keeps of each symbol; see `ModelConfig.input_width`.
        task: What the model has learned.
        threads: How many threads may work at once; one for each core if None.
    """

    def __init__(self, stream: Stream, width: int, task: Task = REVERSAL, *, threads: int | None = None) -> None:
        self._stream, self._width, self._task = stream, width, task
        self._threads = _Threads(threads or cores())

    @property
    def bytes_per_symbol(self) -> int:
        """See `Decoder.bytes_per_symbol`: the pushed vector stays until it is popped, unless it can be found again."""
        return 4 * self._width + 50

    def write(
        self, strings: Sequence[Sequence[int]], *, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[list[int]]:
        """See `Decoder.write`. Threads begin at once, before the first answer is asked for."""
        short = [place for place, string in enumerate(strings) if len(string) <= SHORT]
        groups = list(_groups(strings, short))
        begun = None
        if self._threads.count > 1 and len(groups) > 1:
            begun = self._threads.begin(self._answer, ([strings[place] for place in group] for group in groups))
        written = self._collect(strings, groups, begun, on_progress or (lambda count: None))
        if begun is not None:
            weakref.finalize(written, begun.end)  # also where no answer is ever asked for
        return written

    def _collect(
        self,
        strings: Sequence[Sequence[int]],
        groups: Sequence[Sequence[int]],
        begun: _Write | None,
        tell: Callable[[int], object],
    ) -> Iterator[list[int]]:
        """The answers in the order of the strings, each as soon as it and all before it are there."""
        group_of = {place: number for number, group in enumerate(groups) for place in group}
        answers: dict[int, list[int]] = {}
        try:
            for place, string in enumerate(strings):
                if place in group_of and place not in answers:
                    number = group_of[place]
                    group = groups[number]
                    found = begun.answers[number].result() if begun else self._answer([strings[each] for each in group])
                    answers.update(zip(group, found, strict=True))
                    tell(sum(len(strings[each]) + len(answers[each]) for each in group))
                yield answers.pop(place) if place in answers else self._write_long(string, tell)
        finally:
            if begun is not None:
                begun.end()

    def _answer(self, strings: _Strings) -> _Answers:
        limits = [self._task.most_written(len(each)) for each in strings]
        start, separator, stop = vocabulary.START, vocabulary.SEPARATOR, vocabulary.END
        return self._stream.answer(strings, start=start, separator=separator, stop=stop, limits=limits)

    def _write_long(self, string: Sequence[int], tell: Callable[[int], object]) -> list[int]:
        """The same in pieces, so that progress is seen and Ctrl-C is heard."""
        stream = self._stream.fresh()  # of this call's own, whoever else is writing
        stream.encode([vocabulary.START])
        for start in range(0, len(string), PIECE):
            piece = string[start : start + PIECE]
            stream.encode(piece)
            tell(len(piece))
        limit, last = self._task.most_written(len(string)), vocabulary.SEPARATOR
        written: list[int] = []
        while last != vocabulary.END and len(written) < limit:
            more = stream.decode_greedy(last, vocabulary.END, min(PIECE, limit - len(written)))
            written.extend(more)
            last = more[-1]
            tell(len(more))
        return written


class _Threads:
    """Threads that all writes of a decoder share, and that end with the last of them, so that a fork meets none.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = RLock()  # `end` may be called in the middle of `begin`, by the garbage collector
        self._writes = 0
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, work: Callable[[_Strings], _Answers], parts: Iterable[_Strings]) -> _Write:
        """Begin a write: work on its parts, in turn."""
        from concurrent.futures import ThreadPoolExecutor  # which takes a while to import

        with self._lock:
            self._writes += 1
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count)
            return _Write(self, [self._pool.submit(work, part) for part in parts])

    def end(self) -> None:
        """A write has ended."""
        with self._lock:
            self._writes -= 1
            pool = self._pool if self._writes == 0 else None
            self._pool = None if pool else self._pool
        if pool is not None:
            pool.shutdown()


class _Write:
    """The parts of a write that threads are at work on.

    Args:
        threads: They.
        answers: Of each part.
    """

    def __init__(self, threads: _Threads, answers: list[Future[_Answers]]) -> None:
        self._threads, self.answers = threads, answers
        self._ended = False

    def end(self) -> None:
        """Nobody waits for it any more: what has not been begun is dropped."""
        if not self._ended:
            self._ended = True
            for each in self.answers:
                each.cancel()
            self._threads.end()


def _groups(strings: Sequence[Sequence[int]], places: Sequence[int]) -> Iterator[list[int]]:
    """The places of strings that go side by side: of about the same length, which then end at about the same time."""
    by_length = sorted(places, key=lambda place: -len(strings[place]))
    yield from (by_length[start : start + CALL_ROWS] for start in range(0, len(by_length), CALL_ROWS))


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
            tensors = [torch.tensor(list(each), dtype=torch.int64, device="cpu") for each in batch]
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
