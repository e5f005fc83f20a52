"""`stackrev reverse`: a network reverses a text, or every line of stdin."""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import typer

from stackrev.cli.common import (
    DEFAULT_MODEL,
    CacheOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    ThreadsOption,
    UsageError,
    complain,
    examples,
    find_model,
    set_threads,
)
from stackrev.errors import DataError, StackrevError, VocabularyError

if TYPE_CHECKING:
    from stackrev.tasks.text import Bound

CHUNK_BYTES = 65_536
TRACE_SYMBOLS = 2_000
"""The longest text that is traced."""

app = typer.Typer()


class Request(NamedTuple):
    """A text to reverse.

    Attributes:
        text: Without markers.
        bound: Its symbols.
        marked: Whether it came between `$` and `|`, so that the end marker is shown.
        line: Its line on stdin, from 1; 0 for an argument.
    """

    text: str
    bound: Bound
    marked: bool
    line: int


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "stackrev reverse '$A string to reverse|'",
        "stackrev reverse 'Füße, 日本語, 👩‍👩‍👧!' --check",
        "stackrev reverse hello --trace",
        "stackrev reverse hello --trace-html trace.html",
        "stackrev reverse -- --json",
        "stackrev reverse --model stack-lstm < lines.txt",
    ),
)
def reverse(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]", help="What to reverse; lines of stdin if it is - or not given.", show_default=False
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the true reversal; exit code 1 if the network errs.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show what the network does with its stack, a line a step.")
    ] = False,
    trace_html: Annotated[
        Path | None, typer.Option("--trace-html", metavar="FILE", help="Write a page that steps through the run.")
    ] = None,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Let a network reverse a text.

    What stands between $ and | is reversed and ended with &, as the network reads and writes it; any other text comes
    back plain. In single quotes the shell leaves $ alone. Write -- before a text that is also an option. Lines of stdin
    are answered one by one, as they come.

    A text may have up to 128 different characters, in any script: what a reader sees as one character, an emoji or a
    letter with its accents, stays whole. ASCII alone is reversed code by code. --json prints one object a line: a text
    and its reversal, or, with --trace, a step.
    """
    words = text or []
    if len(words) > 1 and (option := next((word for word in words if word.startswith("-")), None)):
        raise UsageError(f"there is no option {option}", hint="see stackrev reverse --help; write -- before a text")
    if len(words) > 1:
        raise UsageError("there is more than one text", hint="put it in single quotes: stackrev reverse 'two words'")
    lines = not words or words == ["-"]
    if trace_html is not None and lines:
        raise UsageError("--trace-html shows one text", hint="give it as an argument")
    if not lines:
        batches = iter([[_parse_argument(words[0])]])
    elif sys.stdin is None or (sys.stdin.isatty() and not words):
        raise UsageError("there is nothing to reverse", hint="try: stackrev reverse '$A string to reverse|'")
    else:
        batches = _parse_lines(sys.stdin.buffer)
    # Read before the model is loaded, so that a text that cannot be reversed need not wait for it.
    first = next(batches, None)
    if first is None:
        return
    folder = find_model(model, offline=offline, cache_dir=cache_dir)
    answering = _Answering(model, folder, check=check, trace=trace, trace_html=trace_html, json=json, threads=threads)
    answering.answer(first)
    for batch in batches:
        answering.answer(batch)
    if answering.wrong:
        if lines:
            complain("note", f"{answering.wrong:,} of {answering.count:,} lines are wrong")
        raise typer.Exit(1)


class _Answering:
    """A model, and what is shown of what it writes."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        check: bool,
        trace: bool,
        trace_html: Path | None,
        json: bool,
        threads: int | None,
    ) -> None:
        from stackrev.evaluation.decoding import TorchDecoder, open_decoder

        self._decoder = open_decoder(folder)
        if threads is not None and isinstance(self._decoder, TorchDecoder):
            set_threads(threads)
        self._check, self._trace, self._json, self._page = check, trace, json, trace_html
        self._tracer = _tracer(name, folder) if trace or trace_html else None
        self._output = _Output()
        self.count = self.wrong = 0

    def answer(self, batch: list[Request]) -> None:
        """Reverse texts, and print what is written as soon as all of them are done."""
        try:
            written = self._decoder.write([each.bound.ids for each in batch])
            for request, ids in zip(batch, written, strict=True):
                self.count += 1
                error = _first_error(ids, request.bound.ids) if self._check else None
                if self._tracer is not None:
                    self._show_trace(request)
                if not (self._json and self._trace):
                    self._output.line(self._shown(request, ids, error))
                if error is not None:
                    self.wrong += 1
                    self._output.flush()
                    complain("error", _describe(request, ids, error))
        finally:
            self._output.flush()

    def _shown(self, request: Request, ids: list[int], error: int | None) -> str:
        from stackrev.tasks import vocabulary

        ended = ids[-1:] == [vocabulary.END]
        shown = ids[:-1] if ended and not request.marked else ids
        if self._json:
            result: dict[str, Any] = {"text": request.text, "reversed": request.bound.show(shown)}
            if self._check:
                result |= {"correct": error is None, "first_error": error}
            return json_.dumps(result, ensure_ascii=False)
        if not self._output.terminal:
            return request.bound.show(shown)
        return self._coloured(request, shown, error)

    def _coloured(self, request: Request, shown: list[int], error: int | None) -> str:
        """For a terminal: control characters made visible, and wrong symbols in red, from the first on."""
        from stackrev.tasks import vocabulary
        from stackrev.tasks.text import visible

        if error is None or not self._output.colour:
            return visible(request.bound.show(shown))
        wanted = vocabulary.target_ids(request.bound.ids)
        glyphs = [visible(each) for each in request.bound.clusters(shown)]
        parts = [GREEN, *glyphs[: error - 1], RESET]
        for place in range(error - 1, len(shown)):
            right = place < len(wanted) and shown[place] == wanted[place]
            parts.append(glyphs[place] if right else f"{RED}{glyphs[place]}{RESET}")
        return "".join(parts)

    def _show_trace(self, request: Request) -> None:
        from stackrev.cli import trace

        assert self._tracer is not None
        found = self._tracer(request)
        if self._page is not None:
            try:
                self._page.write_text(trace.page(found), encoding="utf-8")
            except OSError as error:
                raise DataError(f"cannot write {self._page}: {error.strerror}") from error
            complain("note", f"wrote {self._page}")
        if self._trace:
            for line in self._trace_lines(found):
                self._output.line(line)

    def _trace_lines(self, found: Any) -> Iterator[str]:
        from stackrev.cli import trace

        if self._json:
            return (json_.dumps(step, ensure_ascii=False) for step in trace.steps(found))
        if not self._output.terminal:
            return trace.plain(found)
        return trace.picture(found, width=self._output.width, colour=self._output.colour)


GREEN, RED, RESET = "\x1b[32m", "\x1b[1;31m", "\x1b[0m"


class _Output:
    """stdout, as UTF-8 whatever the locale, a flush at a time."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.colour = self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._lines: list[str] = []

    @property
    def width(self) -> int:
        """How many columns the terminal has."""
        import shutil

        return shutil.get_terminal_size().columns

    def line(self, text: str) -> None:
        self._lines.append(text)

    def flush(self) -> None:
        if not self._lines:
            return
        text = "\n".join(self._lines) + "\n"
        self._lines.clear()
        sys.stdout.flush()
        if (buffer := getattr(sys.stdout, "buffer", None)) is None:
            sys.stdout.write(text)
        else:
            buffer.write(text.encode())
        sys.stdout.flush()


def _tracer(name: str, folder: Path) -> Any:
    """What traces a request."""
    from stackrev.config import ModelConfig
    from stackrev.storage import checkpoints

    kind: ModelConfig = checkpoints.describe(folder).config.model
    if kind.kind != "stack-lstm":
        raise UsageError(f"{name} has no stack to trace", hint="name a stack-lstm")
    network = checkpoints.load(folder, name=name).model

    def run(request: Request) -> Any:
        from stackrev.evaluation.traces import trace
        from stackrev.models.reversers import StackLSTMReverser

        assert isinstance(network, StackLSTMReverser)
        if len(request.bound.ids) > TRACE_SYMBOLS:
            message = f"a text of {len(request.bound.ids):,} characters is too long to trace"
            raise StackrevError(message, hint=f"give one of at most {TRACE_SYMBOLS:,}")
        return trace(network, request.text)

    return run


def _first_error(written: list[int], string: list[int]) -> int | None:
    """The place, from 1, of the first symbol that is not as it should be, a missing or early end marker included."""
    from stackrev.tasks import vocabulary

    wanted = vocabulary.target_ids(string)
    if written == wanted:
        return None
    pairs = enumerate(zip(written, wanted, strict=False), start=1)
    return next((place for place, (is_, should) in pairs if is_ != should), min(len(written), len(wanted)) + 1)


def _describe(request: Request, ids: list[int], error: int) -> str:
    """What went wrong, in a line."""
    from stackrev.tasks import vocabulary
    from stackrev.tasks.text import visible

    def name(written: list[int]) -> str:
        if error > len(written):
            return "nothing"
        symbol = written[error - 1]
        return "the end" if symbol == vocabulary.END else f"'{visible(request.bound.show([symbol]))}'"

    where = f"line {request.line}: " if request.line else ""
    total = len(request.bound.ids)
    place = f"character {error:,} of {total:,}" if error <= total else f"the end, after {total:,} characters"
    wanted = vocabulary.target_ids(request.bound.ids)
    return f"{where}the network errs at {place}: it writes {name(ids)} and should write {name(wanted)}"


def parse(text: str, line: int = 0) -> Request:
    """The request that a text makes.

    Raises:
        VocabularyError: It has too many different characters.
    """
    from stackrev.tasks.text import bind

    marked = len(text) >= 2 and text[0] == "$" and text[-1] == "|"
    if marked:
        text = text[1:-1]
    return Request(text, bind(text), marked, line)


def _parse_argument(text: str) -> Request:
    raw = os.fsencode(text)
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text is not UTF-8: its byte {error.start} is 0x{raw[error.start]:02x}", hint=_TO_UTF8
        ) from None
    if text.endswith("|") and not text.startswith("$"):
        complain(
            "note", "reversed without the | at its end; if it began with $, use single quotes: the shell replaced $..."
        )
        text = text[:-1]
    return parse(text)


def _parse_lines(file: BinaryIO) -> Iterator[list[Request]]:
    """The requests of all lines that have come in, each time some have.

    Raises:
        DataError: A line cannot be reversed; what comes before it is yielded first.
    """
    number = offset = 0
    for lines in _lines(file):
        batch: list[Request] = []
        for line in lines:
            number += 1
            try:
                batch.append(parse(line.removesuffix(b"\r").decode(), number))
            except (VocabularyError, UnicodeDecodeError) as error:
                if batch:
                    yield batch
                raise _bad_line(number, offset, error) from None
            offset += len(line) + 1
        yield batch


def _lines(file: BinaryIO) -> Iterator[list[bytes]]:
    """The lines that have come in, without their ends, each time some have."""
    pieces: list[bytes] = []  # of a line whose end has not come yet
    while chunk := file.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        first, *more = chunk.split(b"\n")
        pieces.append(first)
        if more:
            yield [b"".join(pieces), *more[:-1]]
            pieces = [more[-1]]
    if rest := b"".join(pieces):
        yield [rest]


def _bad_line(number: int, offset: int, error: VocabularyError | UnicodeDecodeError) -> DataError:
    if isinstance(error, VocabularyError):
        return DataError(f"line {number}: {error.message}", hint=error.hint)
    return DataError(
        f"line {number} is not UTF-8: byte {offset + error.start} of the input is 0x{error.object[error.start]:02x}",
        hint=_TO_UTF8,
    )


_TO_UTF8 = "convert the input to UTF-8"
