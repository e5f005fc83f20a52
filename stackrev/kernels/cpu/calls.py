"""The structs and constants that Python and the compiled kernels share; calls.h has the same, and says what they hold.

A library exports its own layouts, and `disagreement` compares: one that was compiled from another calls.h is not used.
"""

from __future__ import annotations

import ctypes
from typing import Any

NO_MEMORY, WRONG_LENGTHS, UNKNOWN_SYMBOL = 1, 2, 3
CHUNK_ROWS = 48
"""Rows of a batch that a thread takes together."""

_CONSTANTS = {
    "kNoMemory": NO_MEMORY,
    "kWrongLengths": WRONG_LENGTHS,
    "kUnknownSymbol": UNKNOWN_SYMBOL,
    "kChunkRows": CHUNK_ROWS,
}
_KINDS = {ctypes.c_int64: "i", ctypes.c_double: "d", ctypes.c_void_p: "p"}


def _counts(names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_int64) for name in names.split()]


def _pointers(names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names.split()]


class MemoryArrays(ctypes.Structure):
    """Where a stack, queue or deque is in memory."""

    _fields_ = tuple(_pointers("values bottoms0 tops0 low0 high0 bottoms tops low high levels links"))


class MemoryGradientArrays(ctypes.Structure):
    """Its gradients: those of the results, then those that are wanted."""

    _fields_ = (
        *_pointers("g_end_values g_end_bottoms g_end_tops g_end_low g_end_high"),
        *_pointers("g_values g_bottoms0 g_tops0 g_low0 g_high0"),
    )


class MemoryCall(ctypes.Structure):
    """A stack, queue or deque over T steps given all its controls."""

    _fields_ = (
        *_counts("steps batch width initial threads"),
        *_pointers("push pop depth"),
        ("memory", MemoryArrays),
        ("reads", ctypes.c_void_p * 2),
    )


class MemoryGradientCall(ctypes.Structure):
    """Its derivative."""

    _fields_ = (
        ("forward", MemoryCall),
        ("g_reads", ctypes.c_void_p * 2),
        *((name, ctypes.c_int64 * 2) for name in ("g_step", "g_row")),
        ("gradients", MemoryGradientArrays),
        *_pointers("g_push g_pop g_depth"),
    )


class RecurrenceCall(ctypes.Structure):
    """The LSTM with a stack, queue or deque over a batch of sequences."""

    _fields_ = (
        *_counts("steps batch hidden width layers initial threads saving symbols"),
        ("stretch", ctypes.c_double),
        ("cell_stretch", ctypes.c_double),
        *_pointers("lengths ids"),
        *_pointers("inputs noise hidden0 cell0 read0 recurrent biases control control_bias"),
        *_pointers("top_hidden push pop end_hidden end_cell end_read"),
        ("memory", MemoryArrays),
        *_pointers("squashed activated cells sources"),
    )


class RecurrenceGradientCall(ctypes.Structure):
    """Its derivative."""

    _fields_ = (
        ("forward", RecurrenceCall),
        *_pointers("g_top_hidden g_end_hidden g_end_cell g_end_read"),
        *_pointers("g_inputs g_noise g_hidden0 g_cell0 g_read0 g_control g_control_bias"),
        ("gradients", MemoryGradientArrays),
        *_pointers("g_recurrent g_biases"),
    )


class ReadOutCall(ctypes.Structure):
    """What follows the recurrence."""

    _fields_ = (
        *_counts("steps batch hidden symbols threads"),
        ("temperature", ctypes.c_double),
        *_pointers("lengths targets states output output_bias logits logits_bias"),
        *_pointers("right losses g_states g_output g_output_bias g_logits g_logits_bias"),
    )


class CellArrays(ctypes.Structure):
    """The arrays of an encoder or decoder."""

    _fields_ = tuple(_pointers("symbols recurrent biases control control_bias"))


class StreamCall(ctypes.Structure):
    """A whole model, for a stream of symbols."""

    _fields_ = (
        *_counts("structure hidden width layers symbols outputs kept"),
        ("stretch", ctypes.c_double),
        ("cell_stretch", ctypes.c_double),
        *(("encoder", CellArrays), ("decoder", CellArrays)),
        *_pointers("hidden0 cell0 output output_bias logits logits_bias"),
    )


class AnswerCall(ctypes.Structure):
    """Strings that a stream's model reads and answers."""

    _fields_ = (*_counts("count start separator stop"), *_pointers("lengths limits symbols counts written"))


CALLS: tuple[type[ctypes.Structure], ...] = (
    MemoryArrays, MemoryGradientArrays, MemoryCall, MemoryGradientCall,
    RecurrenceCall, RecurrenceGradientCall, ReadOutCall, CellArrays, StreamCall, AnswerCall,
)  # fmt: skip


def _layout(call: type[ctypes.Structure]) -> str:
    """A line as `layout_of` in calls.h writes it."""
    names, places = [], ""
    for name, kind, *_ in call._fields_:
        place = getattr(call, name)
        names.append(name)
        places += f"{_KINDS.get(kind, 's')}{place.offset}+{place.size} "
    return f"{call.__name__}\t{ctypes.sizeof(call)}\t{', '.join(names)}\t{places}"


def disagreement(library: ctypes.CDLL) -> str:
    """The first struct or constant of which a library has another idea; empty if there is none."""
    library.stackrev_layouts.restype = ctypes.c_char_p
    theirs = library.stackrev_layouts().decode().splitlines()
    ours = [*map(_layout, CALLS), *(f"{name} {value}" for name, value in _CONSTANTS.items())]
    for our, their in zip(ours, theirs, strict=False):
        if our != their:
            return our.split()[0]
    return "" if len(ours) == len(theirs) else "the number of structs"
