"""What `stackrev reverse` and `stackrev apply` are asked for: an argument, or the lines of stdin as they come."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from stackrev.cli.memory import available, size
from stackrev.cli.progress import Bar
from stackrev.errors import DataError, VocabularyError
from stackrev.tasks import REVERSAL
from stackrev.tasks.base import Task

if TYPE_CHECKING:
    from stackrev.tasks.text import Reading

Meaning = Literal["plain", "marked", "auto"]
"""How a text is meant: as it stands, between `$` and `|`, or between them where it looks so."""

CHUNK_BYTES = 65_536
BYTES_OF_A_CHARACTER = 300
"""About how much memory a character of a line takes in all, with the packaged network."""

_TO_UTF8 = "convert the input to UTF-8"
_SINGLE_QUOTES = "use single quotes, in which the shell leaves $ alone: stackrev reverse '$A string|'"


class Request(NamedTuple):
    """A text to transduce.

    Attributes:
        text: Without markers.
        bound: Its symbols.
        marked: Whether it came between `$` and `|`, so that the end marker is shown.
        line: Its line on stdin, from 1; 0 for an argument.
    """

    text: str
    bound: Reading
    marked: bool
    line: int


def parse(
    text: str,
    meaning: Meaning,
    *,
    task: Task = REVERSAL,
    line: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> Request:
    """The request that a text makes.

    Raises:
        DataError: It is meant to have markers, and has none.
        VocabularyError: It has too many different characters, or what the task has no symbol for.
    """
    marked = meaning != "plain" and len(text) >= 2 and text[0] == "$" and text[-1] == "|"
    if meaning == "marked" and not marked:
        raise DataError("the text is not between $ and |", hint=_SINGLE_QUOTES if not line else "--lines plain or auto")
    if marked:
        text = text[1:-1]
    return Request(text, task.bind(text, on_progress=on_progress), marked, line)


def parse_argument(text: str, meaning: Meaning, tell: Callable[[str], object], task: Task = REVERSAL) -> Request:
    """The request that an argument makes.

    Args:
        text: What was typed; a byte that is not UTF-8 is a lone surrogate.
        meaning: How it is meant.
        tell: Called with a note where the text is not taken as it stands.
        task: What is to be done with it.

    Raises:
        DataError: It is not UTF-8, or is meant to have markers and has none.
        VocabularyError: It has too many different characters.
    """
    try:
        text.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text is not UTF-8: its byte {error.start} is 0x{error.object[error.start]:02x}", hint=_TO_UTF8
        ) from None
    except UnicodeEncodeError:
        pass  # half a surrogate pair, as Windows may have it: `bind` says so
    if meaning == "auto" and text.endswith("|") and not text.startswith("$"):
        tell("taken without the | at its end; if it began with $, use single quotes: the shell replaced $...")
        text = text[:-1]
    return parse(text, meaning, task=task)


def parse_lines(file: BinaryIO, meaning: Meaning, bar: Bar, task: Task = REVERSAL) -> Iterator[list[Request]]:
    """The requests of all lines that have come in, each time some have.

    Args:
        file: What the lines come from.
        meaning: How they are meant.
        bar: What moves while a long line is cut into characters.
        task: What is to be done with them.

    Raises:
        DataError: A line cannot be taken; what comes before it is yielded first.
    """
    number = offset = 0
    room = available()
    for lines in _lines(file, None if room is None else room // BYTES_OF_A_CHARACTER):
        batch: list[Request] = []
        bar.begin()
        for line in lines:
            number += 1
            try:
                text = line.removesuffix(b"\r").decode()
                if not text.isascii():
                    bar.expect(len(text))
                batch.append(parse(text, meaning, task=task, line=number, on_progress=bar))
            except (DataError, VocabularyError, UnicodeDecodeError) as error:
                if batch:
                    yield batch
                raise _bad_line(number, offset, error) from None
            offset += len(line) + 1
        yield batch


def at_hand(file: BinaryIO) -> bool:
    """Whether more of a file can be read without waiting for it; False where the system does not say."""
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError):  # on Windows, or of what is no file
        return False


def _lines(file: BinaryIO, most: int | None) -> Iterator[list[bytes]]:
    """The lines that have come in, without their ends, each time some have; none longer than `most` bytes."""
    pieces: list[bytes] = []  # of a line whose end has not come yet
    number, length = 1, 0
    while chunk := file.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        first, *more = chunk.split(b"\n")
        pieces.append(first)
        length += len(first)
        if most is not None and length > most:
            raise DataError(
                f"line {number} has no end after {length:,} bytes, and there is no memory for more",
                hint="give it in parts",
            )
        if more:
            yield [b"".join(pieces), *more[:-1]]
            pieces = [more[-1]]
            number, length = number + len(more), len(more[-1])
    if rest := b"".join(pieces):
        yield [rest]


def _bad_line(number: int, offset: int, error: DataError | VocabularyError | UnicodeDecodeError) -> DataError:
    if isinstance(error, DataError | VocabularyError):
        return DataError(f"line {number}: {error.message}", hint=error.hint)
    return DataError(
        f"line {number} is not UTF-8: byte {offset + error.start} of the input is 0x{error.object[error.start]:02x}",
        hint=_TO_UTF8,
    )


def require_room(request: Request, needed: int) -> None:
    """Refuse a text for which there is not enough memory, before any is taken.

    Raises:
        DataError: There is not.
    """
    room = available()
    if room is not None and needed > room:
        raise DataError(
            f"{name(request)} has {len(request.bound.ids):,} characters, which take about {size(needed)} of memory, "
            f"and {size(room)} are free",
            hint="give it in parts",
        )


def name(request: Request) -> str:
    """What a request is called in a message."""
    return f"line {request.line}" if request.line else "the text"
