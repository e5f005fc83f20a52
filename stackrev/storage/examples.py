"""Data files: JSON Lines with an example a line, `{"input": "$...|", "target": "...&"}`.

Where symbols are words, spaces stand between them, and between them and the markers.

Files may be larger than memory: they are written and read in pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError, DataNotFoundError, VocabularyError
from stackrev.storage import files
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.tasks.base import Task

LONGEST_LINE = 1 << 27
"""The most bytes that a line may have."""
_LARGEST = 1 << 40
_FORM = 'each line must be {"input": "$...|", "target": "...&"}'


def lines(strings: Iterable[Tensor], task: Task = REVERSAL) -> Iterator[bytes]:
    """Sources of a task, with what is to be written for them, as the lines of a data file."""
    for string in strings:
        ids = string.tolist()
        example = {
            "input": task.vocabulary.decode(vocabulary.source_ids(ids)),
            "target": task.written.decode([*task.answer(ids), vocabulary.END]),
        }
        yield json.dumps(example).encode() + b"\n"


def save(path: Path, strings: Iterable[Tensor], task: Task = REVERSAL) -> None:
    """Write a data file as a whole: a failure leaves what was there before.

    Raises:
        DataError: The file cannot be written.
    """
    with files.raising(DataError):
        files.write(path, lines(strings, task))


def read(
    path: Path,
    *,
    symbols: int,
    strings: int,
    lengths: LengthRange | None = None,
    most: int | None = None,
    task: Task = REVERSAL,
) -> Iterator[list[Tensor]]:
    """The strings of a data file, in pieces.

    Args:
        path: A regular file.
        symbols: The most symbols in a piece, unless it is of one string.
        strings: The most strings in a piece.
        lengths: Which lengths are wanted; all if None. Lines of other lengths are checked, too.
        most: How many strings are wanted, from the first; all if None.
        task: Whose examples they are.

    Raises:
        DataError: The file cannot be read or holds no examples, or a line is not an example; the message has the
            line's number.
    """
    piece: list[Tensor] = []
    total = count = seen = 0
    for string in _strings(path, task):
        seen += 1
        if lengths is not None and not lengths.minimum <= len(string) <= lengths.maximum:
            continue
        if most is not None and count == most:
            break
        if piece and (total + len(string) > symbols or len(piece) == strings):
            yield piece
            piece, total = [], 0
        piece.append(string)
        total += len(string)
        count += 1
    if not seen:
        raise DataError(f"{path} holds no examples", hint="stackrev generate-data makes a data file")
    if piece:
        yield piece


def _strings(path: Path, task: Task) -> Iterator[Tensor]:
    with files.raising(DataError, missing=DataNotFoundError), files.opened(path, _LARGEST) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > LONGEST_LINE:
                raise DataError(f"{where}: it has more than {LONGEST_LINE:,} bytes", hint=_FORM)
            if line.strip():
                yield _string(line, where, task)


def _string(line: bytes, where: str, task: Task) -> Tensor:
    try:
        example = json.loads(line)
        source, target = example["input"], example["target"]
        if not (isinstance(source, str) and isinstance(target, str)):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(f"{where}: not an example", hint=_FORM) from None
    read, written = task.vocabulary, task.written
    tokens = read.split(source)
    if len(tokens) < 2 or tokens[0] != "$" or tokens[-1] != "|":
        raise DataError(f"{where}: the input does not run from $ to |", hint=_FORM)
    try:
        ids = read.encode_tokens(tokens[1:-1])
        wanted = [*written.tokens(task.answer(ids)), "&"]
    except (VocabularyError, DataError) as error:
        raise DataError(f"{where}: {error.message}", hint=error.hint) from None
    if written.split(target) != wanted:
        raise DataError(f"{where}: the target is not {task.summary}", hint=_FORM)
    return torch.tensor(ids, dtype=torch.int64)
