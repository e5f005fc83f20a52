"""What a command says: its result on stdout, as text or as JSON, and everything else on stderr.

Every command has one `Output` and prints through it alone. Names, paths, messages and texts come from strangers as
often as not: what goes to a terminal is made visible here, and nowhere else; what goes to a file or a pipe is left as
it is. Both streams carry UTF-8 whatever the locale says, and the bytes of a file name that is not UTF-8 come out as
they were.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from stackrev.cli.progress import Advance, Bar, busy
from stackrev.errors import StackrevError
from stackrev.tasks.visible import visible

GREEN, RED, RESET = "\x1b[32m", "\x1b[1;31m", "\x1b[0m"


class Styled(NamedTuple):
    """A piece of a line in a style of our own, for a terminal that has colours.

    Attributes:
        text: What is shown, made visible like any other.
        style: The escape sequence that begins the style.
    """

    text: str
    style: str


class Painted(str):
    """What is fit for a terminal already, escape sequences of our own included."""

    __slots__ = ()


class Stream:
    """stdout or stderr: text in, UTF-8 out.

    Args:
        name: `stdout` or `stderr`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def file(self) -> TextIO | None:
        """What stands in `sys` now; None if it was closed before the program began."""
        file: TextIO | None = getattr(sys, self._name)
        return None if file is None or file.closed else file

    @property
    def terminal(self) -> bool:
        """Whether someone looks at it."""
        return self.file is not None and self.file.isatty()

    @property
    def colour(self) -> bool:
        """Whether it shows colours."""
        return self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def shown(self, part: str | Styled) -> str:
        """A piece of a line as this stream shows it."""
        if isinstance(part, Styled):
            text = self.shown(part.text)
            return f"{part.style}{text}{RESET}" if text and self.colour else text
        return visible(part) if self.terminal and not isinstance(part, Painted) else part

    def write(self, text: str) -> None:
        """Write a text that is fit for the stream.

        Raises:
            OSError: It cannot be written, or the stream is closed.
        """
        if self.file is None:
            raise StackrevError(f"{self._name} is closed", hint="to throw away what a command says, write > /dev/null")
        if (buffer := getattr(self.file, "buffer", None)) is None:
            self.file.write(text)
        else:
            buffer.write(_encode(text))

    def flush(self) -> None:
        """Let what has been written go."""
        if self.file is not None:
            self.file.flush()

    def discard(self) -> None:
        """Nobody can read it any more: point it at nothing, so that no later flush fails."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            own = self.file.fileno()  # type: ignore[union-attr]
            nothing = os.open(os.devnull, os.O_WRONLY)
            if nothing != own:
                os.dup2(nothing, own)
                os.close(nothing)

    def flush_or_discard(self) -> None:
        """Let what has been written go, or lose it where the stream takes nothing."""
        try:
            self.flush()
        except (OSError, ValueError):
            self.discard()


class Output:
    """What one command says.

    Args:
        json: Whether its result is JSON.
        quiet: Whether it keeps notes, hints and progress to itself.
        result: Whether it has a result for stdout.

    Raises:
        StackrevError: There is a result, and stdout is closed: said before the work is done rather than after it.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, result: bool = True) -> None:
        self.json, self.quiet = json, quiet
        self.out, self.err = Stream("stdout"), Stream("stderr")
        self._bar: Bar | None = None
        if result and self.out.file is None:
            self.out.write("")

    @property
    def width(self) -> int:
        """How many columns the terminal has."""
        import shutil

        return shutil.get_terminal_size().columns

    def line(self, *parts: str | Styled) -> None:
        """A line of the result."""
        terminal = self.out.terminal
        if terminal and self._bar is not None:
            self._bar.hide()
        self.out.write("".join(map(self.out.shown, parts)) + "\n")
        if terminal:
            self.out.flush()

    def lines(self, lines: Sequence[str]) -> None:
        """Many lines of the result."""
        if self.out.terminal:
            for line in lines:
                self.line(line)
        elif lines:
            self.out.write("\n".join(lines) + "\n")

    def text(self, block: str) -> None:
        """Lines of the result, as one text."""
        for line in block.split("\n"):
            self.line(line)

    def write(self, text: str) -> None:
        """Whole lines of the result, from what writes into a file."""
        self.text(text.removesuffix("\n"))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of the result, in columns: the first to the left, the others to the right.

        Columns for which a terminal has no room follow in tables of their own, each with the first column again.

        Args:
            rows: The head first.
        """
        shown = [[self.out.shown(cell) for cell in row] for row in rows]
        widths = [max(map(cells, column)) for column in zip(*shown, strict=True)]
        for number, places in enumerate(_folded(widths, self.width) if self.out.terminal else [range(1, len(widths))]):
            if number:
                self.line()
            for row in shown:
                padded = [pad(row[0], widths[0]), *(pad(row[place], widths[place], right=True) for place in places)]
                self.line(Painted("  ".join(padded).rstrip()))

    def result(self, value: object, show: Callable[[], object]) -> None:
        """The result: as JSON if that was asked for, or else as the text that `show` prints."""
        if self.json:
            self.line(Painted(to_json(value, indent=2)))
        else:
            show()

    def record(self, value: object) -> None:
        """One of many results, as JSON on a line of its own."""
        self.line(Painted(to_json(value, terminal=self.out.terminal)))

    def error(self, message: str) -> None:
        """What went wrong, in a line on stderr."""
        self.say(f"error: {in_a_line(message)}")

    def note(self, message: str) -> None:
        """Something worth knowing, in a line on stderr."""
        if not self.quiet:
            self.say(f"note: {in_a_line(message)}")

    def hint(self, message: str) -> None:
        """What to do next, in a line on stderr."""
        if not self.quiet:
            self.say(f"hint: {in_a_line(message)}")

    def say(self, line: str) -> None:
        """A line on stderr, after all of the result so far; lost where stderr takes nothing."""
        self.flush()
        if self._bar is not None:
            self._bar.hide()
        with contextlib.suppress(OSError, ValueError, StackrevError):
            self.err.write(self.err.shown(line) + "\n")
            self.err.flush()

    def progress(self, description: str, *, total: int | None, wait: bool = False) -> Bar:
        """A bar on stderr while it is a terminal; it makes way for every line.

        Args:
            description: What is counted.
            total: How much there is in all; None if nobody knows.
            wait: Whether to show it only once it has taken a while.
        """
        show = self.err.terminal and not self.quiet
        self._bar = Bar(self.err.shown(description), total=total, show=show, wait=wait)
        return self._bar

    def busy(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """A word on stderr, while it is a terminal, about what takes a moment."""
        return busy(self.err.shown(doing), show=self.err.terminal and not self.quiet)

    def flush(self) -> None:
        """Let the result so far go.

        Raises:
            OSError: It cannot be written.
        """
        self.out.flush()


def _folded(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The columns after the first in groups that fit, each of at least one."""
    group: list[int] = []
    used = widths[0]
    for place, width in enumerate(widths[1:], start=1):
        if group and used + 2 + width > room:
            yield group
            group, used = [], widths[0]
        group.append(place)
        used += 2 + width
    if group:
        yield group


def to_json(value: object, *, indent: int | None = None, terminal: bool = False) -> str:
    """A value as JSON that every reader takes.

    A number that JSON does not have (NaN and the infinities) is null, and half a surrogate pair is an escape.

    Args:
        value: Of dictionaries, sequences, strings, numbers, booleans and None.
        indent: By how much to indent; the text is then in ASCII, and has many lines.
        terminal: Whether to escape what a terminal would act on or not show.
    """
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=indent is not None, allow_nan=False)
    if indent is not None:
        return text
    return visible(text, _escape) if terminal else _SURROGATE.sub(lambda found: _escape(found[0]), text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _escape(characters: str) -> str:
    return json.dumps(characters)[1:-1] if characters != "\x7f" else "\\u007f"


_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return _NO_BYTE.sub("\ufffd", text).encode("utf-8", "surrogateescape")


_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


def in_a_line(message: str) -> str:
    """A message without line breaks."""
    return _BREAK.sub(" ", message.strip())


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """A text filled up to so many columns; `right` puts it at the right end."""
    filling = " " * (width - cells(text))
    return filling + text if right else text + filling


def counted(items: Any, advance: Advance) -> Iterator[Any]:
    """The items, each counted as it is asked for the next."""
    for item in items:
        yield item
        advance(1)
