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


class StackCall(ctypes.Structure):
    """The neural stack over T steps given all its controls."""

    _fields_ = (
        *_counts("steps batch width initial threads"),
        *_pointers("values push pop tops0 height0"),
        *_pointers("reads bottoms tops height below"),
    )


class StackGradientCall(ctypes.Structure):
    """Its derivative."""

    _fields_ = (
        ("forward", StackCall),
        *_counts("g_step g_row"),
        *_pointers("g_reads g_end_bottoms g_end_tops g_height"),
        *_pointers("g_values g_push g_pop g_bottoms g_tops0 g_height0"),
    )


class RecurrenceCall(ctypes.Structure):
    """The stack-LSTM over a batch of sequences."""

    _fields_ = (
        *_counts("steps batch hidden width layers initial threads saving symbols"),
        ("stretch", ctypes.c_double),
        *_pointers("lengths ids"),
        *_pointers("inputs noise hidden0 cell0 read0 tops0 height0 recurrent biases control control_bias"),
        *_pointers("top_hidden push pop end_hidden end_cell end_read values bottoms tops height"),
        *_pointers("below squashed activated cells sources"),
    )


class RecurrenceGradientCall(ctypes.Structure):
    """Its derivative."""

    _fields_ = (
        ("forward", RecurrenceCall),
        *_pointers("g_top_hidden g_end_hidden g_end_cell g_end_read"),
        *_pointers("g_end_values g_end_bottoms g_end_tops g_end_height"),
        *_pointers("g_inputs g_noise g_hidden0 g_cell0 g_read0 g_values g_bottoms g_tops0 g_height0"),
        *_pointers("g_control g_control_bias g_recurrent g_biases"),
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
        *_counts("hidden width layers symbols outputs"),
        ("stretch", ctypes.c_double),
        *(("encoder", CellArrays), ("decoder", CellArrays)),
        *_pointers("hidden0 cell0 output output_bias logits logits_bias"),
    )


CALLS: tuple[type[ctypes.Structure], ...] = (
    StackCall, StackGradientCall, RecurrenceCall, RecurrenceGradientCall, ReadOutCall, CellArrays, StreamCall,
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
