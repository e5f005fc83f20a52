"""Many strings side by side through the model of a stream, without torch: what each is answered with.

Rows share every load of weights, so that a string takes a third of the time that it takes alone. What is written for
a string does not depend on the others.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence

from stackrev.kernels.cpu.calls import CHUNK_ROWS, AnswerCall

ROWS = CHUNK_ROWS
"""How many strings go best together: what they carry fits the cache."""


def answer(
    run: Callable[[AnswerCall], object],
    strings: Sequence[Sequence[int]],
    *,
    start: int,
    separator: int,
    stop: int,
    limits: Sequence[int],
) -> list[list[int]]:
    """Feed the encoder `start` and a string, then the decoder the separator and its own most probable symbols.

    Args:
        run: The native call.
        strings: Symbol ids; it is quickest if all are `bytes`.
        start: What the encoder is fed first.
        separator: What the decoder is fed first.
        stop: The symbol after which an answer ends.
        limits: The most symbols of each answer.

    Returns:
        What was written for each string, `stop` included if it was written.

    Raises:
        NativeError: The kernels ran out of memory.
        ValueError: A symbol is not one of the model's, or a limit is negative.
    """
    if len(limits) != len(strings) or min(limits, default=0) < 0:
        raise ValueError("each string needs a limit of at least 0")
    symbols, lengths, room = _joined(strings), array("q", map(len, strings)), array("q", limits)
    counts, written = array("q", bytes(8 * len(strings))), array("i", bytes(4 * sum(limits)))
    pointers = (each.buffer_info()[0] for each in (lengths, room, symbols, counts, written))
    run(AnswerCall(len(strings), start, separator, stop, *pointers))
    answers, place = [], 0
    for count, limit in zip(counts, limits, strict=True):
        answers.append(written[place : place + count].tolist())
        place += limit
    return answers


def _joined(strings: Sequence[Sequence[int]]) -> array[int]:
    """The symbols of all strings, one after the other."""
    symbols = array("i")
    if all(isinstance(each, bytes) for each in strings):
        narrow = b"".join(strings)  # type: ignore[arg-type]
        wide = bytearray(symbols.itemsize * len(narrow))
        wide[_LOWEST :: symbols.itemsize] = narrow
        symbols.frombytes(wide)
        return symbols
    try:
        for string in strings:
            symbols.extend(string)
    except OverflowError:
        raise ValueError("the model does not have such a symbol") from None
    return symbols


_LOWEST = 0 if sys.byteorder == "little" else array("i").itemsize - 1  # where a small number's one byte is
