"""A whole stack-LSTM on one string of any length, without torch: symbols in, symbols out.

The state stays in the kernel. The stack grows while the encoder reads and shrinks while the decoder writes: what is
popped is gone, so a million symbols take a few hundred megabytes.

Sizes: V symbols, H hidden units, K layers, stack width M, O outputs.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stackrev.errors import NativeError
from stackrev.kernels.cpu.library import NATIVE

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PIECE = 1 << 15  # symbols a call, so that Ctrl-C is heard
_UNKNOWN_SYMBOL = 3


class _CellArrays(ctypes.Structure):
    """`CellArrays` in session.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("symbols", "recurrent", "biases", "control", "control_bias"))


class _SessionCall(ctypes.Structure):
    """`SessionCall` in session.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("hidden", "width", "layers", "symbols", "outputs")),
        ("stretch", ctypes.c_double),
        ("encoder", _CellArrays),
        ("decoder", _CellArrays),
        *((name, ctypes.c_void_p) for name in ("hidden0", "cell0", "output", "output_bias", "logits", "logits_bias")),
    )


class Score(NamedTuple):
    """How far a model is right under teacher forcing.

    Attributes:
        right: How many targets it would have written before its first error.
        margin: By how much the right logit exceeded the second best, at the step where that was least.
    """

    right: int
    margin: float


class Look(NamedTuple):
    """What there is to see after a step.

    Attributes:
        push: d, in [0, 1].
        pop: u, in [0, 1].
        height: Of the stack.
        elements: How many are on the stack.
        hidden: H numbers, the top layer.
        read: M numbers.
    """

    push: float
    pop: float
    height: float
    elements: int
    hidden: array[float]
    read: array[float]


class Session:
    """A model, and how far it has got with a string. For one thread at a time.

    Args:
        weights: float32 arrays by the names that `StackLSTMReverser` gives them, as anything with the buffer protocol,
            contiguous. For `encoder` and `decoder`: `.symbols` [V, 4H], `.recurrent.k` [M + H or 2H, 4H], `.bias.k`
            [4H]; `controls.weight` [H, 2 + M], `controls.bias` [2 + M], and the same of `decoder_controls` if the
            decoder has its own; `initial_hidden`, `initial_cell` [K, H]; `output.weight` [O, H], `output.bias` [O],
            `logits.weight` [V, O], `logits.bias` [V]. They are copied.
        hidden: H.
        width: M.
        layers: K.
        stretch: e of the stretched gates.

    Raises:
        NativeError: The kernels are not there, or ran out of memory.
        ValueError: An array is missing or not of its size.
    """

    def __init__(self, weights: Mapping[str, Buffer], *, hidden: int, width: int, layers: int, stretch: float) -> None:
        self._handle: int | None = None
        if NATIVE.library is None:
            raise NativeError(NATIVE.missing)
        if min(hidden, width, layers) < 1:
            raise ValueError("hidden, width and layers must be at least 1")
        self._library = _declare(NATIVE.library)
        self._hidden, self._width = hidden, width
        arrays = _Arrays(weights)
        symbols, outputs = arrays.count("logits.bias"), arrays.count("output.bias")
        call = _SessionCall(hidden, width, layers, symbols, outputs, stretch)
        own = "decoder_controls.weight" in weights
        for phase, controls in (("encoder", "controls"), ("decoder", "decoder_controls" if own else "controls")):
            recurrent = [(width if k == 0 else hidden) + hidden for k in range(layers)]
            matrices = [arrays.take(f"{phase}.recurrent.{k}", rows * 4 * hidden) for k, rows in enumerate(recurrent)]
            biases = [arrays.take(f"{phase}.bias.{k}", 4 * hidden) for k in range(layers)]
            cell = _CellArrays(
                arrays.take(f"{phase}.symbols", symbols * 4 * hidden),
                *(arrays.list(matrices), arrays.list(biases)),
                *(arrays.take(f"{controls}.weight", hidden * (2 + width)), arrays.take(f"{controls}.bias", 2 + width)),
            )
            setattr(call, phase, cell)
        call.hidden0 = arrays.take("initial_hidden", layers * hidden)
        call.cell0 = arrays.take("initial_cell", layers * hidden)
        call.output, call.output_bias = (
            arrays.take("output.weight", outputs * hidden),
            arrays.take("output.bias", outputs),
        )
        call.logits, call.logits_bias = (
            arrays.take("logits.weight", symbols * outputs),
            arrays.take("logits.bias", symbols),
        )
        self._handle = self._library.stackrev_session(ctypes.byref(call))
        if not self._handle:
            raise NativeError("the compiled kernels ran out of memory")

    def __del__(self) -> None:
        if self._handle:
            self._library.stackrev_session_free(self._handle)

    def reset(self) -> None:
        """Start a new string: the trained initial state, and an empty stack."""
        self._check(self._library.stackrev_session_reset(self._handle))

    def encode(self, symbols: Sequence[int]) -> None:
        """Feed the encoder.

        Raises:
            ValueError: A symbol is not one of the model's.
        """
        self._feed(0, symbols)

    def feed_decoder(self, symbols: Sequence[int]) -> None:
        """Feed the decoder, and do not ask what it would write.

        Raises:
            ValueError: A symbol is not one of the model's.
        """
        self._feed(1, symbols)

    def decode_greedy(self, first: int, stop: int, limit: int) -> array[int]:
        """Feed the decoder its own most probable symbols.

        Args:
            first: What it is fed first.
            stop: The symbol after which it ends.
            limit: The most symbols to write.

        Returns:
            What it has written, `stop` included if it was written.

        Raises:
            ValueError: `first` is not one of the model's symbols.
        """
        written = array("i")
        piece, count, margin = array("i", bytes(4 * min(limit, _PIECE))), ctypes.c_int64(), ctypes.c_float()
        while len(written) < limit and (not written or written[-1] != stop):
            most = min(_PIECE, limit - len(written))
            fed = written[-1] if written else first
            arguments = fed, stop, most, _address(piece), ctypes.byref(count), ctypes.byref(margin)
            self._check(self._library.stackrev_session_write(self._handle, *arguments))
            written.extend(piece[: count.value])
        return written

    def score(self, first: int, targets: Sequence[int]) -> Score:
        """Feed the decoder what it should write, until it would write something else.

        Args:
            first: What it is fed first.
            targets: What it should write.

        Raises:
            ValueError: `first` is not one of the model's symbols.
        """
        wanted = _symbols(targets)
        done, least = 0, float("inf")
        right, margin = ctypes.c_int64(), ctypes.c_float()
        while done < len(wanted):
            piece = wanted[done : done + _PIECE]
            fed = wanted[done - 1] if done else first
            arguments = fed, _address(piece), len(piece), ctypes.byref(right), ctypes.byref(margin)
            self._check(self._library.stackrev_session_score(self._handle, *arguments))
            done, least = done + right.value, min(least, margin.value)
            if right.value < len(piece):
                break
        return Score(done, least)

    def look(self) -> Look:
        """What there is to see after the last step."""
        numbers, hidden, read = (
            array("d", bytes(32)),
            array("f", bytes(4 * self._hidden)),
            array("f", bytes(4 * self._width)),
        )
        self._library.stackrev_session_look(self._handle, *map(_address, (numbers, hidden, read)))
        push, pop, height, elements = numbers
        return Look(push, pop, height, int(elements), hidden, read)

    def nearest(self) -> tuple[float, float, float, float]:
        """How near to 0 the pre-activations of the encoder's push and pop and the decoder's have come in this string.

        The last step does not count, since nothing depends on its gates yet. Infinite for a phase of no other steps.
        """
        four = array("d", bytes(32))
        self._library.stackrev_session_nearest(self._handle, _address(four))
        encoder_push, encoder_pop, decoder_push, decoder_pop = four
        return encoder_push, encoder_pop, decoder_push, decoder_pop

    def _feed(self, decoding: int, symbols: Sequence[int]) -> None:
        fed = _symbols(symbols)
        for start in range(0, len(fed), _PIECE):
            piece = fed[start : start + _PIECE]
            self._check(self._library.stackrev_session_feed(self._handle, decoding, _address(piece), len(piece)))

    def _check(self, status: int) -> None:
        if status == _UNKNOWN_SYMBOL:
            raise ValueError("the model does not have such a symbol")
        if status:
            raise NativeError("the compiled kernels ran out of memory")


class _Arrays:
    """Checks the sizes of buffers, gives their addresses, and keeps them alive."""

    def __init__(self, weights: Mapping[str, Buffer]) -> None:
        self._views = {name: memoryview(buffer).cast("B") for name, buffer in weights.items()}
        self._kept: list[object] = []

    def count(self, name: str) -> int:
        """How many numbers an array has."""
        if name not in self._views:
            raise ValueError(f"the weights lack {name}")
        return self._views[name].nbytes // 4

    def take(self, name: str, count: int) -> int:
        if self.count(name) != count or self._views[name].nbytes != 4 * count:
            raise ValueError(f"{name} has {self._views[name].nbytes} bytes, not {count} float32 numbers")
        view = self._views[name]
        if view.readonly:
            # ctypes takes the address of writable memory only
            view = memoryview(bytearray(view))
        numbers = (ctypes.c_char * view.nbytes).from_buffer(view)
        self._kept.append(numbers)
        return ctypes.addressof(numbers)

    def list(self, addresses: Sequence[int]) -> int:
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        self._kept.append(pointers)
        return ctypes.addressof(pointers)


def _symbols(symbols: Sequence[int]) -> array[int]:
    return symbols if isinstance(symbols, array) and symbols.typecode == "i" else array("i", symbols)


def _address(numbers: array[int] | array[float]) -> ctypes.c_void_p:
    return ctypes.c_void_p(numbers.buffer_info()[0])


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes what the session's functions take, so that a handle is not cut to 32 bits."""
    pointer, long, symbol = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.stackrev_session.restype = pointer
    library.stackrev_session_free.argtypes = [pointer]
    library.stackrev_session_free.restype = None
    library.stackrev_session_reset.argtypes = [pointer]
    library.stackrev_session_feed.argtypes = [pointer, ctypes.c_int, pointer, long]
    library.stackrev_session_write.argtypes = [pointer, symbol, symbol, long, pointer, pointer, pointer]
    library.stackrev_session_score.argtypes = [pointer, symbol, pointer, long, pointer, pointer]
    library.stackrev_session_look.argtypes = [pointer, pointer, pointer, pointer]
    library.stackrev_session_look.restype = None
    library.stackrev_session_nearest.argtypes = [pointer, pointer]
    library.stackrev_session_nearest.restype = None
    return library
