"""A network that answers requests, and what is shown of its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.cli.common import DEFAULT_MODEL, UsageError, set_threads
from stackrev.cli.memory import size
from stackrev.cli.output import GREEN, RED, Output, Painted, Styled
from stackrev.cli.progress import Bar
from stackrev.cli.requests import Request, name, require_room
from stackrev.errors import StackrevError

if TYPE_CHECKING:
    from stackrev.evaluation.traces import Trace
    from stackrev.page import Contents

TRACE_SYMBOLS = 2_000
"""The longest text that is traced."""
LONG = 1_000_000
"""From so many characters on a text is announced, with what it takes."""
PROBE = 4_096
"""How many characters of it are timed for that."""


class Answering:
    """A network, and what is shown of what it writes.

    Args:
        model: The name it was asked for by.
        folder: Where it lies.
        output: Where answers go.
        bar: What moves while it works.
        check: Whether answers are compared with the true reversal.
        trace: Whether what the network does with its stack is shown.
        page: Where a page that runs the network on the text is written, if anywhere.
        threads: How many threads torch may use.
    """

    def __init__(
        self,
        model: str,
        folder: Path,
        output: Output,
        bar: Bar,
        *,
        check: bool,
        trace: bool,
        page: Path | None,
        threads: int | None,
    ) -> None:
        from stackrev.evaluation.decoding import TorchDecoder
        from stackrev.models import open_decoder, require_task
        from stackrev.tasks import REVERSAL

        require_task(folder, REVERSAL, name=model)
        self._decoder = open_decoder(folder)
        if threads is not None and isinstance(self._decoder, TorchDecoder):
            set_threads(threads)
        self._output, self._bar = output, bar
        self._check, self._page = check, page
        self._tracer = _tracer(model, folder) if trace else None
        self._contents = None if page is None else _contents(model, folder)
        self.count = self.wrong = 0

    def answer(self, batch: list[Request]) -> None:
        """Reverse texts, and print what is written as soon as all of them are done."""
        for request in batch:
            self._bar.expect(2 * len(request.bound.ids))
            if len(request.bound.ids) >= LONG:
                self._announce(request)
        try:
            written = self._decoder.write([each.bound.ids for each in batch], on_progress=self._bar)
            for request, ids in zip(batch, written, strict=True):
                self.count += 1
                error = first_error(ids, request.bound.ids) if self._check else None
                self._write_page(request)
                if self._tracer is not None:
                    self._show_trace(self._tracer(request))
                if not (self._output.json and self._tracer):
                    self._show(request, ids, error)
                if error is not None:
                    self.wrong += 1
                    self._output.error(describe(request, ids, error))
        finally:
            self._output.flush()

    def _announce(self, request: Request) -> None:
        """Say what a long text takes before it is taken."""
        length = len(request.bound.ids)
        needed = length * (self._decoder.bytes_per_symbol + 16)
        require_room(request, needed)
        start = time.perf_counter()
        for _ in self._decoder.write([request.bound.ids[:PROBE]]):
            pass
        seconds = (time.perf_counter() - start) / PROBE * length
        takes = f"{seconds:,.0f} s and {size(needed)} of memory"
        self._output.note(f"{name(request)} has {length:,} characters, which take about {takes}")

    def _show(self, request: Request, ids: list[int], error: int | None) -> None:
        from stackrev.tasks import vocabulary

        ended = ids[-1:] == [vocabulary.END]
        shown = ids[:-1] if ended and not request.marked else ids
        if self._output.json:
            result: dict[str, Any] = {"text": request.text, "reversed": request.bound.show(shown)}
            if self._check:
                result |= {"correct": error is None, "first_error": error}
            self._output.record(result)
        elif error is None or not self._output.out.colour:
            self._output.line(request.bound.show(shown))
        else:
            self._output.line(*_coloured(request, shown, error))

    def _write_page(self, request: Request) -> None:
        if self._page is None or self._contents is None:
            return
        from stackrev import page
        from stackrev.storage import files

        files.write(self._page, page.compose(self._contents, request.text).encode())
        self._output.note(f"wrote {self._page}")

    def _show_trace(self, found: Trace) -> None:
        from stackrev.cli import trace

        if self._output.json:
            for step in trace.steps(found):
                self._output.record(step)
            return
        for line in self._trace_lines(found):
            self._output.line(Painted(line))

    def _trace_lines(self, found: Trace) -> Iterator[str]:
        from stackrev.cli import trace

        if not self._output.out.terminal:
            return trace.plain(found)
        return trace.picture(found, width=self._output.width, colour=self._output.out.colour)


def _coloured(request: Request, shown: list[int], error: int) -> Iterator[str | Styled]:
    """What is right before the first error in green, and wrong symbols in red, from the first on."""
    from stackrev.tasks import vocabulary

    wanted = vocabulary.target_ids(request.bound.ids)
    glyphs = request.bound.clusters(shown)
    yield Styled("".join(glyphs[: error - 1]), GREEN)
    for place in range(error - 1, len(shown)):
        right = place < len(wanted) and shown[place] == wanted[place]
        yield glyphs[place] if right else Styled(glyphs[place], RED)


def _contents(model: str, folder: Path) -> Contents:
    """What the page of a model holds."""
    from stackrev import page

    return page.read(folder, model)


def _tracer(model: str, folder: Path) -> Callable[[Request], Trace]:
    """What traces a request."""
    from stackrev.evaluation.capabilities import CanTrace
    from stackrev.models import load

    network = load(folder, name=model).model
    if not isinstance(network, CanTrace):
        raise UsageError(f"{model} has no stack to trace", hint=f"name a {DEFAULT_MODEL}")

    def run(request: Request) -> Trace:
        from stackrev.evaluation.traces import trace

        if len(request.bound.ids) > TRACE_SYMBOLS:
            message = f"a text of {len(request.bound.ids):,} characters is too long to trace"
            raise StackrevError(message, hint=f"give one of at most {TRACE_SYMBOLS:,}")
        return trace(network, request.text)

    return run


def first_error(written: list[int], string: list[int]) -> int | None:
    """The place, from 1, of the first symbol that is not as it should be, a missing or early end marker included."""
    from stackrev.tasks import vocabulary

    wanted = vocabulary.target_ids(string)
    if written == wanted:
        return None
    pairs = enumerate(zip(written, wanted, strict=False), start=1)
    return next((place for place, (is_, should) in pairs if is_ != should), min(len(written), len(wanted)) + 1)


def describe(request: Request, ids: list[int], error: int) -> str:
    """What went wrong, in a line."""
    from stackrev.cli.visible import visible
    from stackrev.tasks import vocabulary

    def symbol(written: list[int]) -> str:
        if error > len(written):
            return "nothing"
        symbol = written[error - 1]
        # A symbol that can't be seen goes by the name of its mark, in a pipe too.
        return "the end" if symbol == vocabulary.END else f"'{visible(request.bound.show([symbol]))}'"

    where = f"line {request.line}: " if request.line else ""
    total = len(request.bound.ids)
    place = f"character {error:,} of {total:,}" if error <= total else f"the end, after {total:,} characters"
    wanted = vocabulary.target_ids(request.bound.ids)
    return f"{where}the network errs at {place}: it writes {symbol(ids)} and should write {symbol(wanted)}"
