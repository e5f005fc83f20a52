"""A whole LSTM with a stack, queue or deque on one string of any length, without torch: symbols in, symbols out.

The state stays in the kernel. The memory grows while the encoder reads and shrinks while the decoder writes: what is
popped is gone. A million symbols take a few hundred megabytes, and each further one some twenty bytes if the encoder
reads in each step what it pushes in this step, as one does that has learned to reverse: what lies deeper in the stack
is then forgotten and found again when the decoder comes to it. For other networks it takes 4 M bytes and a few more.

Sizes: V symbols, H hidden units, K layers, O outputs, values of width M at E ends (2 of a deque, else 1), R = E M.
"""

from __future__ import annotations

import copy
import ctypes
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, SupportsIndex

from stackrev.errors import NativeError
from stackrev.kernels.cpu.calls import UNKNOWN_SYMBOL
from stackrev.kernels.cpu.library import NATIVE
from stackrev.kernels.cpu.stream_arrays import ENDS, stream_call
from stackrev.kernels.cpu.stream_batch import answer

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PIECE = 1 << 15  # symbols a call, so that Ctrl-C is heard


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
        push: d, in [0, 1]; of a deque, at the top.
        pop: u, in [0, 1]; likewise.
        height: How much there is in the memory.
        elements: How many elements there are in it.
        hidden: H numbers, the top layer.
        read: R numbers.
        bottom_push: d at a deque's bottom; None if there is no other end.
        bottom_pop: u, likewise.
    """

    push: float
    pop: float
    height: float
    elements: int
    hidden: array[float]
    read: array[float]
    bottom_push: float | None = None
    bottom_pop: float | None = None


class Stream:
    """A model, and how far it has got with a string.

    A string belongs to the thread that began it: the one that called `reset`, or the first to call anything else.
    Refused are calls from another thread, calls while another one runs, and calls after one that an error or Ctrl-C has
    cut short. `reset` begins a new string, whoever had the one before. `copy.copy` and `copy.deepcopy` give a second
    stream at the same place in the same string, `fresh` one at the beginning; none of them copies the weights.

    Args:
        weights: float32 arrays by the names of the configuration's `shapes`, as anything with the buffer protocol,
            contiguous. For `encoder` and `decoder`: `.symbols` [V, 4H], `.recurrent.k` [R + H or 2H, 4H], `.bias.k`
            [4H]; `controls.weight` [H, 2E + R], `controls.bias` [2E + R], and the same of `decoder_controls` if the
            decoder has its own; `initial_hidden`, `initial_cell` [K, H]; `output.weight` [O, H], `output.bias` [O],
            `logits.weight` [V, O], `logits.bias` [V]. They are copied.
        structure: What the memory is: one of `stream_arrays.ENDS`.
        hidden: H.
        width: M.
        layers: K.
        stretch: e of the stretched gates of the memory.
        cell_stretch: e of the LSTMs' own gates.

    Raises:
        NativeError: The kernels are not there, or ran out of memory. Every method raises it where a call is refused.
        ValueError: An array is missing or not of its size.
    """

    def __init__(
        self,
        weights: Mapping[str, Buffer],
        *,
        hidden: int,
        width: int,
        layers: int,
        stretch: float,
        cell_stretch: float = 0.0,
        structure: str = "stack",
    ) -> None:
        if NATIVE.library is None:
            raise NativeError(NATIVE.missing)
        if min(hidden, width, layers) < 1:
            raise ValueError("hidden, width and layers must be at least 1")
        library = _declare(NATIVE.library)
        self._hidden, self._width, self._ends = hidden, width, ENDS[structure]
        call, _kept = stream_call(weights, structure, hidden, width, layers, stretch, cell_stretch)
        self._native = _Native(library, library.stackrev_stream(ctypes.byref(call)))

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _native=copy.copy(self._native))
        return other

    def fresh(self) -> Self:
        """A stream of the same model at the beginning of a string, whatever this one is doing."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _native=self._native.fresh())
        return other

    def reset(self) -> None:
        """Start a new string: the trained initial state, and an empty stack."""
        with self._native.turn(begins=True) as native:
            native.call("reset")

    def encode(self, symbols: Sequence[int]) -> None:
        """Feed the encoder.

        Raises:
            ValueError: A symbol is not one of the model's; none has been fed.
        """
        self._feed(0, symbols)

    def feed_decoder(self, symbols: Sequence[int]) -> None:
        """Feed the decoder, and do not ask what it would write.

        Raises:
            ValueError: A symbol is not one of the model's; none has been fed.
        """
        self._feed(1, symbols)

    def decode_greedy(self, first: int, stop: int, limit: int) -> array[int]:
        """Feed the decoder its own most probable symbols.

        Args:
            first: What it is fed first.
            stop: The symbol after which it ends; one that the model does not have, such as -1, ends nothing.
            limit: The most symbols to write.

        Returns:
            What it has written, `stop` included if it was written.

        Raises:
            ValueError: `first` is not one of the model's symbols, or the limit is negative.
        """
        if limit < 0:
            raise ValueError(f"the limit is {limit}, less than 0")
        fed, written = _symbols([first]), array("i")
        stop = stop if 0 <= stop <= _MOST else -1
        piece, count, margin = array("i", bytes(4 * min(limit, _PIECE))), ctypes.c_int64(), ctypes.c_float()
        with self._native.turn(fed) as native:
            while len(written) < limit and (not written or written[-1] != stop):
                most = min(_PIECE, limit - len(written))
                last = written[-1] if written else fed[0]
                native.call("write", last, stop, most, _address(piece), ctypes.byref(count), ctypes.byref(margin))
                written.extend(piece[: count.value])
        return written

    def score(self, first: int, targets: Sequence[int]) -> Score:
        """Feed the decoder what it should write, until it would write something else.

        Args:
            first: What it is fed first.
            targets: What it should write.

        Raises:
            ValueError: `first` or a target is not one of the model's symbols.
        """
        fed = _symbols([first, *_symbols(targets)])
        wanted = fed[1:]
        done, least = 0, float("inf")
        right, margin = ctypes.c_int64(), ctypes.c_float()
        with self._native.turn(fed) as native:
            while done < len(wanted):
                piece = wanted[done : done + _PIECE]
                native.call(
                    *("score", fed[done], _address(piece), len(piece)), ctypes.byref(right), ctypes.byref(margin)
                )
                done, least = done + right.value, min(least, margin.value)
                if right.value < len(piece):
                    break
        return Score(done, least)

    def answer(self, strings: Sequence[Sequence[int]], **how: Any) -> list[list[int]]:
        """Answer whole strings side by side, whatever this stream is doing; see `stream_batch.answer`."""
        return answer(lambda call: self._native.call("answer", ctypes.byref(call)), strings, **how)

    def look(self) -> Look:
        """What there is to see after the last step."""
        numbers = array("d", bytes(8 * (2 * self._ends + 3)))
        hidden, read = array("f", bytes(4 * self._hidden)), array("f", bytes(4 * self._ends * self._width))
        with self._native.turn() as native:
            native.call("look", *map(_address, (numbers, hidden, read)))
        push, pop, *bottom, low, high, elements = numbers
        return Look(push, pop, high - low, int(elements), hidden, read, *bottom)

    def nearest(self) -> tuple[float, float, float, float]:
        """How near to 0 the encoder's pushes and pops and the decoder's have come in this string, before the sigmoid.

        The last step does not count, since nothing depends on its gates yet. Infinite for a phase of no other steps.
        """
        four = array("d", bytes(32))
        with self._native.turn() as native:
            native.call("nearest", _address(four))
        encoder_push, encoder_pop, decoder_push, decoder_pop = four
        return encoder_push, encoder_pop, decoder_push, decoder_pop

    def _feed(self, decoding: int, symbols: Sequence[int]) -> None:
        fed = _symbols(symbols)
        with self._native.turn(fed) as native:
            for start in range(0, len(fed), _PIECE):
                piece = fed[start : start + _PIECE]
                native.call("feed", decoding, _address(piece), len(piece))


class _Thread(threading.local):
    """Stands for a thread; unlike its number, it is never used again for another."""

    def __init__(self) -> None:
        self.token = object()


_THREAD = _Thread()


class _Native:
    """The one owner of a stream in native memory, which it frees, and who may call it.

    Args:
        library: The compiled library.
        address: What `stackrev_stream` has returned.
    """

    def __init__(self, library: ctypes.CDLL, address: int | None) -> None:
        self._address = address
        if not address:
            raise NativeError("the compiled kernels ran out of memory")
        self._library = library
        self._free = library.stackrev_stream_free
        self._lock = threading.Lock()
        self._owner: object | None = None
        self._cut_short = False

    def __del__(self) -> None:
        if self._address:
            self._free(self._address)
            self._address = None

    def __copy__(self) -> _Native:
        with self._lock_taken():
            self._check_whole()
            return _Native(self._library, self._library.stackrev_stream_copy(self._address))

    def __deepcopy__(self, memo: dict[int, object]) -> _Native:
        return self.__copy__()  # the weights, which copies share, never change

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Stream cannot be pickled, since its state is in native memory; open one where it is needed")

    def fresh(self) -> _Native:
        """Another one, at the beginning; it reads nothing that changes, so it need not wait for its turn."""
        return _Native(self._library, self._library.stackrev_stream_fresh(self._address))

    @contextmanager
    def turn(self, symbols: array[int] | None = None, *, begins: bool = False) -> Iterator[_Native]:
        """Calls that belong together, alone; an exception among them leaves a string that cannot go on.

        Args:
            symbols: What will be fed.
            begins: Whether a new string begins, which makes it the caller's.
        """
        with self._lock_taken():
            if not begins:
                if self._owner not in (None, _THREAD.token):
                    raise NativeError("another thread has begun a string on this stream", hint=_ONE_EACH)
                self._check_whole()
            if symbols is not None:
                self.call("check", _address(symbols), len(symbols))
            self._owner = _THREAD.token
            self._cut_short = True
            yield self
            self._cut_short = False

    def call(self, function: str, *arguments: Any) -> None:
        """One of the library's functions."""
        status = getattr(self._library, f"stackrev_stream_{function}")(self._address, *arguments)
        if status == UNKNOWN_SYMBOL:
            raise ValueError("the model does not have such a symbol")
        if status:
            raise NativeError("the compiled kernels ran out of memory")

    @contextmanager
    def _lock_taken(self) -> Iterator[None]:
        # never by waiting: who holds it may be this very thread, further out, or a thread that a fork has left behind
        if not self._lock.acquire(blocking=False):
            raise NativeError("the stream is at work in another call", hint=_ONE_EACH)
        try:
            yield
        finally:
            self._lock.release()

    def _check_whole(self) -> None:
        if self._cut_short:
            raise NativeError("the last call on this stream was cut short", hint="call reset() to begin a new string")


_ONE_EACH = "give each thread a stream of its own: stream.fresh(), or copy.copy(stream)"
_MOST = (1 << 31) - 1


def _symbols(symbols: Sequence[int]) -> array[int]:
    """A copy, as 32-bit integers."""
    try:
        return array("i", list(symbols) if isinstance(symbols, bytes | bytearray) else symbols)
    except OverflowError:
        raise ValueError("the model does not have such a symbol") from None


def _address(numbers: array[int] | array[float]) -> ctypes.c_void_p:
    return ctypes.c_void_p(numbers.buffer_info()[0])


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes what the stream's functions take, so that an address is not cut to 32 bits."""
    pointer, count, symbol = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    arguments: dict[str, list[Any]] = {
        "copy": [pointer],
        "fresh": [pointer],
        "free": [pointer],
        "reset": [pointer],
        "check": [pointer, pointer, count],
        "feed": [pointer, ctypes.c_int, pointer, count],
        "write": [pointer, symbol, symbol, count, pointer, pointer, pointer],
        "score": [pointer, symbol, pointer, count, pointer, pointer],
        "look": [pointer, pointer, pointer, pointer],
        "nearest": [pointer, pointer],
        "answer": [pointer, pointer],
    }
    for name, types in arguments.items():
        getattr(library, f"stackrev_stream_{name}").argtypes = types
    library.stackrev_stream.restype = pointer
    library.stackrev_stream_copy.restype = library.stackrev_stream_fresh.restype = pointer
    for name in ("free", "look", "nearest"):
        getattr(library, f"stackrev_stream_{name}").restype = None
    return library
