"""Who may use a stream, and what becomes of its native memory: right answers or an error, whatever is done with it."""

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from array import array
from pathlib import Path

import pytest
from test_stream import model_of, string_of

from stackrev.errors import NativeError
from stackrev.kernels import available
from stackrev.kernels.cpu.stream import Stream
from stackrev.tasks import vocabulary

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
STRING = string_of(40).tolist()
MODEL = model_of(layers=2)


def answer(stream) -> list[int]:
    stream.reset()
    stream.encode(STRING)
    return rest(stream)


def rest(stream) -> list[int]:
    return stream.decode_greedy(vocabulary.SEPARATOR, -1, 20).tolist()


def in_a_thread(function):
    """What it returns or raises there."""
    found = []

    def work():
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def test_threads_that_share_a_stream_are_answered_right_or_not_at_all():
    stream = MODEL.stream()
    expected = answer(MODEL.stream())
    found, refused = [], []
    together = threading.Barrier(4)

    def work():
        together.wait()
        for _ in range(40):
            try:
                found.append(answer(stream))
            except NativeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) + len(refused) == 160
    assert all(each == expected for each in found)
    assert answer(stream) == expected


def test_a_string_belongs_to_the_thread_that_began_it():
    stream = MODEL.stream()
    stream.encode(STRING)
    for call in (stream.look, stream.nearest, lambda: stream.encode([5]), lambda: rest(stream)):
        error = in_a_thread(call)
        assert isinstance(error, NativeError)
        assert "another thread" in str(error)
        assert "fresh()" in error.hint
    assert rest(stream) == answer(MODEL.stream())
    assert in_a_thread(lambda: answer(stream)) == answer(MODEL.stream())  # reset makes it the other's
    with pytest.raises(NativeError, match="another thread"):
        stream.look()


def test_a_stream_of_no_string_yet_may_go_anywhere():
    stream = MODEL.stream()
    assert in_a_thread(lambda: (stream.encode(STRING), rest(stream))[1]) == answer(MODEL.stream())


def test_a_call_within_a_call_is_refused():
    """As in a signal handler, which runs between two pieces of a long call."""
    stream, refused = MODEL.stream(), []

    def meanwhile(*_):
        for call in (stream.reset, stream.look, lambda: copy.copy(stream)):
            with pytest.raises(NativeError, match="at work in another call"):
                call()
            refused.append(call)
        assert answer(stream.fresh()) == answer(MODEL.stream())

    before = signal.signal(signal.SIGALRM, meanwhile)
    try:
        with stream._native.turn():
            signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(refused) == 3


def test_symbols_that_are_drawn_from_the_stream_itself():
    stream = MODEL.stream()

    def symbols():
        for symbol in STRING:
            stream.look()
            yield symbol

    stream.encode(symbols())
    assert rest(stream) == answer(MODEL.stream())


def test_what_was_cut_short_does_not_go_on(monkeypatch):
    monkeypatch.setattr("stackrev.kernels.cpu.stream._PIECE", 10)
    stream = MODEL.stream()
    library = stream._native._library

    class Interrupted:
        """The library, with a Ctrl-C between the first and the second piece."""

        calls = 0

        def __getattr__(self, name):
            if name == "stackrev_stream_feed":
                self.calls += 1
                if self.calls == 2:
                    raise KeyboardInterrupt
            return getattr(library, name)

    stream._native._library = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        stream.encode(STRING)
    stream._native._library = library
    for call in (lambda: rest(stream), stream.look, lambda: copy.copy(stream)):
        with pytest.raises(NativeError, match="cut short") as caught:
            call()
        assert "reset()" in caught.value.hint
    assert answer(stream) == answer(MODEL.stream())


@pytest.mark.parametrize(
    "wrong", [[*STRING, -1], [*STRING, vocabulary.SIZE], [*STRING, 2**40], [2**31 - 1], [-(2**31)]]
)
def test_a_wrong_symbol_changes_nothing(wrong, monkeypatch):
    monkeypatch.setattr("stackrev.kernels.cpu.stream._PIECE", 7)
    stream = MODEL.stream()
    stream.encode(STRING)
    for call in (stream.encode, stream.feed_decoder, lambda each: stream.score(vocabulary.SEPARATOR, each)):
        with pytest.raises(ValueError, match="does not have such a symbol"):
            call(wrong)
    for first in (2**32 + vocabulary.SEPARATOR, -1):
        with pytest.raises(ValueError, match="does not have such a symbol"):
            stream.decode_greedy(first, -1, 20)
    with pytest.raises(ValueError, match="the limit is -1"):
        stream.decode_greedy(vocabulary.SEPARATOR, -1, -1)
    assert rest(stream) == answer(MODEL.stream())


def test_bytes_are_symbols_too():
    ids = [id % 128 for id in STRING]
    ours, theirs = MODEL.stream(), MODEL.stream()
    ours.encode(bytes(ids))
    theirs.encode(ids)
    assert ours.look() == theirs.look()


def test_a_stop_that_is_no_symbol_ends_nothing():
    for stop in (-1, vocabulary.SIZE, 2**32 + 5, -(2**40)):
        stream = MODEL.stream()
        stream.encode(STRING)
        assert stream.decode_greedy(vocabulary.SEPARATOR, stop, 20).tolist() == answer(MODEL.stream())


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_goes_on_for_itself(how):
    stream = MODEL.stream()
    stream.encode(STRING[:20])
    other = how(stream)
    assert other.look() == stream.look()
    other.encode(STRING[20:])
    written = rest(other)
    stream.encode(STRING[20:])
    assert rest(stream) == written == answer(MODEL.stream())
    del other
    gc.collect()
    assert answer(stream) == written
    other = how(stream)
    del stream
    gc.collect()
    assert answer(other) == written


def test_a_copy_of_a_tall_stack():
    stream = MODEL.stream()
    for _ in range(3):
        stream.encode(string_of(2_000).tolist())
        other = copy.copy(stream)
        assert other.look() == stream.look()
        assert rest(other) == rest(copy.copy(stream))


def test_a_copy_is_no_one_s_yet():
    stream = MODEL.stream()
    stream.encode(STRING)
    other = copy.copy(stream)
    assert in_a_thread(lambda: rest(other)) == rest(stream)


def test_a_fresh_one_starts_at_the_beginning():
    stream = MODEL.stream()
    stream.encode(STRING)
    other = stream.fresh()
    other.encode(STRING)
    assert rest(other) == rest(stream) == answer(MODEL.stream())


class Named(Stream):
    """A stream with something of its own."""

    name: list[str]

    def __init__(self, *arguments, **sizes):
        self.name = ["mine"]
        super().__init__(*arguments, **sizes)


def test_subclasses_are_copied_whole():
    weights = {name: tensor.numpy() for name, tensor in MODEL.state_dict().items()}
    stream = Named(weights, hidden=24, width=12, layers=2, stretch=MODEL.config.gate_stretch)
    shallow, deep, fresh = copy.copy(stream), copy.deepcopy(stream), stream.fresh()
    assert {type(each) for each in (shallow, deep, fresh)} == {Named}
    assert shallow.name is stream.name
    assert deep.name == stream.name
    assert deep.name is not stream.name
    assert answer(shallow) == answer(deep) == answer(fresh) == answer(MODEL.stream())


def test_a_subclass_that_fails_or_forgets_leaves_nothing_behind():
    class Failing(Stream):
        def __init__(self):
            raise RuntimeError

    class Forgetful(Stream):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError):
        Failing()
    assert not hasattr(Forgetful(), "_native")
    with pytest.raises(ValueError, match="lack"):
        Stream({}, hidden=1, width=1, layers=1, stretch=0.0)
    gc.collect()  # and no warning, which would fail the test


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused_in_one_line(protocol):
    with pytest.raises(TypeError, match=r"^a Stream cannot be pickled[^\n]*$"):
        pickle.dumps(MODEL.stream(), protocol)


def test_what_shares_the_handle_does_not_free_it_twice():
    stream = MODEL.stream()
    other = object.__new__(Stream)
    other.__dict__.update(stream.__dict__)
    seen = weakref.ref(stream)
    del stream
    gc.collect()
    assert seen() is None
    assert answer(other) == answer(MODEL.stream())


def test_symbols_may_change_while_they_are_fed():
    symbols, stop = array("i", STRING * 50), threading.Event()

    def change():
        while not stop.is_set():
            symbols.extend(STRING * 50)
            del symbols[len(STRING) :]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            MODEL.stream().encode(symbols)
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork():
    stream = MODEL.stream()
    stream.encode(STRING)
    child = os.fork()
    if child == 0:
        os._exit(rest(stream) != answer(stream.fresh()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rest(stream) == answer(MODEL.stream())


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "del stream, left", "import atexit; atexit.register(lambda: stream.look())", "1 / 0"]
)
def test_the_end_of_the_interpreter(end):
    code = f"""
import copy, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_stream import model_of
stream = model_of().stream()
stream.encode([5, 6, 7])
cycle = [copy.copy(stream)]
cycle.append(cycle)
def half():
    stream = model_of().stream()
    while True:
        yield stream.decode_greedy(1, -1, 5)
left = half()
next(left)
threading.Thread(target=lambda: cycle[0].fresh().encode([5] * 100_000), daemon=True).start()
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == {"sys.exit(3)": 3, "1 / 0": 1}.get(end, 0), done.stderr
    assert not done.stderr or end == "1 / 0"
