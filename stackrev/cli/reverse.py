"""`stackrev reverse`: a network reverses a text, or every line of stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import typer

from stackrev import vocabulary
from stackrev.cli.common import (
    DEFAULT_MODEL,
    ModelOption,
    ThreadsOption,
    UsageError,
    complain,
    examples,
    load_model,
    set_threads,
)
from stackrev.errors import DataError, VocabularyError

if TYPE_CHECKING:
    from stackrev.models import Reverser

CHUNK_BYTES = 65_536
BATCH_SYMBOLS = 65_536
"""How many symbols, padding included, are reversed at once."""

app = typer.Typer()


class Request(NamedTuple):
    """A text to reverse.

    Attributes:
        ids: Its symbols, without markers.
        marked: Whether it came between `$` and `|`, so that the end marker is shown.
    """

    ids: list[int]
    marked: bool


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "stackrev reverse '$A string to reverse|'",
        "stackrev reverse -- --json",
        "stackrev reverse --model runs/lstm-seed0 < lines.txt",
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
    threads: ThreadsOption = None,
) -> None:
    """Let a network reverse a text.

    What stands between $ and | is reversed and ended with &, as the network reads and writes it; any other text comes
    back plain. In single quotes the shell leaves $ alone. Write -- before a text that is also an option. Lines of stdin
    are answered one by one, as they come.
    """
    words = text or []
    if len(words) > 1:
        raise UsageError("there is more than one text", hint="put it in single quotes: stackrev reverse 'two words'")
    set_threads(threads)
    if words and words != ["-"]:
        batches = iter([[_parse_argument(words[0])]])
    elif sys.stdin is None or (sys.stdin.isatty() and not words):
        raise UsageError("there is nothing to reverse", hint="try: stackrev reverse '$A string to reverse|'")
    else:
        batches = _parse_lines(sys.stdin.buffer)
    # Read before the model is loaded, so that a text that cannot be reversed need not wait for torch.
    first = next(batches, None)
    if first is None:
        return
    network = load_model(model).model
    for batch in chain([first], batches):
        for answer in _answers(network, batch):
            sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def parse(text: str) -> Request:
    """The request that a text makes.

    Raises:
        VocabularyError: It is not ASCII.
    """
    marked = len(text) >= 2 and text[0] == "$" and text[-1] == "|"
    try:
        return Request(vocabulary.encode(text[1:-1] if marked else text), marked)
    except VocabularyError as error:
        raise VocabularyError(error.message, hint="only ASCII text can be reversed") from None


def _parse_argument(text: str) -> Request:
    if text.endswith("|") and not text.startswith("$"):
        complain(
            "note", "reversed without the | at its end; if it began with $, use single quotes: the shell replaced $..."
        )
        text = text[:-1]
    return parse(text)


def _parse_lines(file: BinaryIO) -> Iterator[list[Request]]:
    """Batches of requests, as soon as their lines are there.

    Raises:
        DataError: A line cannot be reversed; what comes before it is yielded first.
    """
    number = offset = 0
    for lines in _lines(file):
        batch: list[Request] = []
        longest = 0
        for line in lines:
            number += 1
            try:
                request = parse(line.removesuffix(b"\r").decode())
            except (VocabularyError, UnicodeDecodeError) as error:
                if batch:
                    yield batch
                raise _bad_line(number, offset, error) from None
            longest = max(longest, len(request.ids) + 1)
            if batch and (len(batch) + 1) * longest > BATCH_SYMBOLS:
                yield batch
                batch, longest = [], len(request.ids) + 1
            batch.append(request)
            offset += len(line) + 1
        yield batch


def _lines(file: BinaryIO) -> Iterator[list[bytes]]:
    """The lines that have come in, without their ends, each time some have."""
    rest = b""
    while chunk := file.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _bad_line(number: int, offset: int, error: VocabularyError | UnicodeDecodeError) -> DataError:
    if isinstance(error, VocabularyError):
        return DataError(f"line {number}: {error.message}", hint=error.hint)
    return DataError(
        f"line {number} is not UTF-8: byte {offset + error.start} of the input is 0x{error.object[error.start]:02x}",
        hint="convert the input to UTF-8",
    )


def _answers(network: Reverser[Any], batch: Sequence[Request]) -> Iterator[str]:
    """What the network writes for each request, with its end marker if the request had markers."""
    import torch

    from stackrev.decoding import greedy

    written = greedy(network, [torch.tensor(each.ids, dtype=torch.int64) for each in batch])
    for request, ids in zip(batch, written, strict=True):
        ended = ids[-1:] == [vocabulary.END]
        yield vocabulary.decode(ids[:-1] if ended and not request.marked else ids)
