"""A network that answers requests, and what is shown of its answers."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import typer

from stackrev.cli import requests
from stackrev.cli.common import DEFAULT_MODEL, UsageError, find_device, find_model, set_threads
from stackrev.cli.memory import size
from stackrev.cli.output import GREEN, RED, Output, Painted, Styled
from stackrev.cli.progress import Bar
from stackrev.cli.requests import Meaning, Request, name, require_room
from stackrev.errors import DataError, StackrevError
from stackrev.tasks.vocabulary import END

if TYPE_CHECKING:
    from stackrev.evaluation.traces import Trace
    from stackrev.page import Contents
    from stackrev.tasks.base import Task

TRACE_SYMBOLS = 2_000
"""The longest text that is traced."""
AHEAD = 2
"""How many batches of lines are read on while others are answered."""
LONG = 1_000_000
"""From so many characters on a text is announced, with what it takes."""
PROBE = 4_096
"""How many characters of it are timed for that."""


class Asked(NamedTuple):
    """What a command line asks of a network, as `reverse` and `apply` read it.

    Attributes:
        words: The texts.
        context: Typer's, which knows what stands after `--`.
        model: The network, by its name.
        lines: How lines are meant.
        check: Whether answers are compared with what is to be written.
        trace: Whether what the network does with its stack is shown.
        trace_html: Where a page that runs it on the text is written, if anywhere.
        cache_dir: The Hub's cache.
        offline: Whether the network is not to be used.
        device: Where the model runs; the compiled kernels are on the CPU alone.
        threads: How many threads may work at once.
        json: Whether answers are JSON.
    """

    words: list[str]
    context: typer.Context
    model: str
    lines: str | None
    check: bool
    trace: bool
    trace_html: Path | None
    cache_dir: Path | None
    offline: bool
    device: str
    threads: int | None
    json: bool

    @property
    def meaning(self) -> Meaning | None:
        """How lines are meant, if that was said."""
        return cast("Meaning | None", self.lines)

    @property
    def stream(self) -> bool:
        """Whether texts are lines of stdin. After -- even a lone - is a text."""
        dash = self.words == ["-"] and "--" not in (self.context.obj or {}).get("words", ())
        return not self.words or dash


def respond(asked: Asked, task: Task | None, *, command: str, doing: str, key: str, example: str) -> None:
    """Answer the texts of a command line.

    Args:
        asked: What is asked.
        task: What is to be done with texts; None for what the model has learned.
        command: What the command is called, for messages.
        doing: What it does, for the progress bar.
        key: What JSON calls an answer.
        example: A command line that works, for a hint.

    Raises:
        UsageError: There is no text, or more than one.
        typer.Exit: An answer is wrong, and answers are to be checked.
    """
    if len(asked.words) > 1:
        raise UsageError("there is more than one text", hint=f"put it in single quotes: stackrev {command} 'two words'")
    if asked.trace_html is not None and asked.stream:
        raise UsageError("--trace-html shows one text", hint="give it as an argument")
    output = Output(json=asked.json)
    if asked.stream and (sys.stdin is None or (sys.stdin.isatty() and not asked.words)):
        raise UsageError(f"there is nothing to {command}", hint=f"try: {example}")
    with output.progress(doing, total=0, wait=True) as bar:
        folder = None
        if task is None:
            folder = find_model(asked.model, offline=asked.offline, cache_dir=asked.cache_dir)
            task = _learned(folder)
        if asked.check and not task.knows:
            hint = "leave out --check; stackrev evaluate --data compares with a file"
            raise UsageError(f"nobody knows the right answers of {asked.model} to any text", hint=hint)
        if asked.stream:
            batches = requests.parse_lines(sys.stdin.buffer, asked.meaning or "plain", bar, task)
        else:
            batches = iter([[requests.parse_argument(asked.words[0], asked.meaning or "auto", output.note, task)]])
        # Read before the model is loaded, so that a text that cannot be taken need not wait for it.
        first = next(batches, None)
        if first is None:
            return
        folder = folder or find_model(asked.model, offline=asked.offline, cache_dir=asked.cache_dir)
        answering = Answering(asked, folder, task, output, bar, key=key)
        for batch in _read(chain([first], batches), answering):
            answering.begin(batch)
            # What waits for more input would keep answers back.
            answering.finish(leave=AHEAD if asked.stream and requests.at_hand(sys.stdin.buffer) else 0)
        answering.finish()
    if answering.wrong:
        if asked.stream:
            output.note(f"{answering.wrong:,} of {answering.count:,} lines are wrong")
        raise typer.Exit(1)


def _read(batches: Iterator[list[Request]], answering: Answering) -> Iterator[list[Request]]:
    """The batches; before an error among them is told, what came before it is answered."""
    try:
        yield from batches
    except StackrevError:
        answering.finish()
        raise


def _learned(folder: Path) -> Task:
    """What a model has learned."""
    from stackrev.storage import checkpoints
    from stackrev.tasks.data import task_of

    return task_of(checkpoints.describe(folder).config.data)


class Answering:
    """A network, and what is shown of what it writes.

    Args:
        asked: What is asked of it.
        folder: Where it lies.
        task: What it has learned.
        output: Where answers go.
        bar: What moves while it works.
        key: What JSON calls an answer.
    """

    def __init__(self, asked: Asked, folder: Path, task: Task, output: Output, bar: Bar, *, key: str) -> None:
        from stackrev.evaluation.decoding import TorchDecoder
        from stackrev.models import open_decoder, require_task

        require_task(folder, task, name=asked.model)
        self._decoder = open_decoder(folder, device=find_device(asked.device, folder), threads=asked.threads)
        if asked.threads is not None and isinstance(self._decoder, TorchDecoder):
            set_threads(asked.threads)
        self._task, self._output, self._bar = task, output, bar
        self._key, self._check, self._page = key, asked.check, asked.trace_html
        self._tracer = _tracer(asked.model, folder, task) if asked.trace else None
        self._contents = None if self._page is None else _contents(asked.model, folder)
        self._plain = not (output.json or output.out.terminal or asked.check or self._page or self._tracer)
        self._begun: deque[tuple[list[Request], Iterator[list[int]]]] = deque()
        self.count = self.wrong = 0

    def begin(self, batch: list[Request]) -> None:
        """Begin to transduce texts, which goes on while others are read."""
        self._bar.expect(2 * sum(len(request.bound.ids) for request in batch))
        for request in batch:
            if len(request.bound.ids) >= LONG:
                self.finish()
                self._announce(request)
        self._begun.append((batch, self._decoder.write([each.bound.ids for each in batch], on_progress=self._bar)))

    def finish(self, *, leave: int = 0) -> None:
        """Print what is written for all that has been begun, except for the last so many batches."""
        while len(self._begun) > leave:
            self._print(*self._begun.popleft())

    def _print(self, batch: list[Request], written: Iterator[list[int]]) -> None:
        if self._plain:
            return self._print_plain(batch, written)
        try:
            for request, ids in zip(batch, written, strict=True):
                self.count += 1
                wanted = self._wanted(request) if self._check else []
                error = first_error(ids, wanted) if self._check else None
                self._write_page(request)
                if self._tracer is not None:
                    self._show_trace(self._tracer(request))
                if not (self._output.json and self._tracer):
                    self._show(request, ids, wanted, error)
                if error is not None:
                    self.wrong += 1
                    self._output.error(describe(request, ids, wanted, error, unit=self._task.unit))
        finally:
            self._output.flush()

    def _print_plain(self, batch: list[Request], written: Iterator[list[int]]) -> None:
        """The same where there is nothing to print but the answers."""
        lines: list[str] = []
        try:
            for request, ids in zip(batch, written, strict=True):
                lines.append(request.bound.show(_shown(request, ids)))
        finally:
            self.count += len(lines)
            self._output.lines(lines)
            self._output.flush()

    def _wanted(self, request: Request) -> list[int]:
        """What is to be written, the end marker included."""
        try:
            return [*self._task.answer(request.bound.ids), END]
        except DataError as error:
            where = f"line {request.line}: " if request.line else ""
            raise DataError(f"{where}{error.message}", hint=error.hint) from None

    def _announce(self, request: Request) -> None:
        """Say what a long text takes before it is taken."""
        length = len(request.bound.ids)
        needed = length * (self._decoder.bytes_per_symbol + 16)
        require_room(request, needed)
        start = time.perf_counter()
        for _ in self._decoder.write([request.bound.ids[:PROBE]]):
            pass
        seconds = (time.perf_counter() - start) / PROBE * length
        takes = f"{seconds:,.0f} s and at most {size(needed)} of memory"
        self._output.note(f"{name(request)} has {length:,} {self._task.unit}s, which take about {takes}")

    def _show(self, request: Request, ids: list[int], wanted: list[int], error: int | None) -> None:
        shown = _shown(request, ids)
        if self._output.json:
            result: dict[str, Any] = {"text": request.text, self._key: request.bound.show(shown)}
            if self._check:
                result |= {"correct": error is None, "first_error": error}
            self._output.record(result)
        elif error is None or not self._output.out.colour:
            self._output.line(request.bound.show(shown))
        else:
            gap = self._task.written.join(("", ""))
            self._output.line(*_coloured(request.bound.clusters(shown), shown, wanted, error, gap=gap))

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


def _shown(request: Request, ids: list[int]) -> list[int]:
    """What is shown of what is written: the end marker only where the text has markers too."""
    return ids[:-1] if not request.marked and ids[-1:] == [END] else ids


def _coloured(
    glyphs: list[str], shown: list[int], wanted: list[int], error: int, *, gap: str
) -> Iterator[str | Styled]:
    """What is right before the first error in green, and wrong symbols in red, from the first on."""
    yield Styled(gap.join(glyphs[: error - 1]), GREEN)
    for place in range(error - 1, len(shown)):
        if place:
            yield gap
        right = place < len(wanted) and shown[place] == wanted[place]
        yield glyphs[place] if right else Styled(glyphs[place], RED)


def _contents(model: str, folder: Path) -> Contents:
    """What the page of a model holds."""
    from stackrev import page

    return page.read(folder, model)


def _tracer(model: str, folder: Path, task: Task) -> Callable[[Request], Trace]:
    """What traces a request."""
    from stackrev.evaluation.capabilities import CanTrace
    from stackrev.models import load

    network = load(folder, name=model).model
    if not isinstance(network, CanTrace):
        raise UsageError(f"{model} has no stack to trace", hint=f"name a {DEFAULT_MODEL}")

    def run(request: Request) -> Trace:
        from stackrev.evaluation.traces import trace

        if len(request.bound.ids) > TRACE_SYMBOLS:
            message = f"a text of {len(request.bound.ids):,} {task.unit}s is too long to trace"
            raise StackrevError(message, hint=f"give one of at most {TRACE_SYMBOLS:,}")
        return trace(network, request.text, task)

    return run


def first_error(written: list[int], wanted: list[int]) -> int | None:
    """The place, from 1, of the first symbol that is not as it should be, a missing or early end marker included."""
    if written == wanted:
        return None
    pairs = enumerate(zip(written, wanted, strict=False), start=1)
    return next((place for place, (is_, should) in pairs if is_ != should), min(len(written), len(wanted)) + 1)


def describe(request: Request, ids: list[int], wanted: list[int], error: int, *, unit: str) -> str:
    """What went wrong, in a line."""
    from stackrev.tasks.visible import visible

    def symbol(written: list[int]) -> str:
        if error > len(written):
            return "nothing"
        symbol = written[error - 1]
        # A symbol that can't be seen goes by the name of its mark, in a pipe too.
        return "the end" if symbol == END else f"'{visible(request.bound.show([symbol]))}'"

    where = f"line {request.line}: " if request.line else ""
    total = len(wanted) - 1
    place = f"{unit} {error:,} of {total:,}" if error <= total else f"the end, after {total:,} {unit}s"
    return f"{where}the network errs at {place}: it writes {symbol(ids)} and should write {symbol(wanted)}"
