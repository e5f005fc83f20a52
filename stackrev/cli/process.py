"""`stackrev` as a process of its own: its streams, its locale and its signals, before and after the command."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any


def prepare() -> None:
    """Make sure of what every command relies on."""
    _use_utf_8()
    _occupy_closed_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(
                encoding="utf-8", errors="surrogateescape" if stream is sys.stdout else "backslashreplace"
            )
    sys.excepthook = _show_traceback
    sys.meta_path.insert(0, _Torch(refused=not _has_working_folder()))
    atexit.register(gc.freeze)  # no last search for cycles in all that torch has made
    atexit.register(_end_streams)


def finish() -> None:
    """What is left is Python's own end, which nothing should interrupt: the result is out."""
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_streams() -> None:
    """Lose what a stream doesn't take, on which Python would end with an exit code of its own, 120."""
    from stackrev.cli.output import Stream

    for name in ("stdout", "stderr"):
        Stream(name).flush_or_discard()


def _use_utf_8() -> None:
    """Start once more in Python's UTF-8 mode if the locale has another encoding.

    Arguments, file names, streams and files are then UTF-8 throughout; a running Python can't be told so.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or os.name != "posix" or not sys.executable:
        return
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [os.fsencode(sys.executable), b"-X", b"utf8", *map(_as_given, sys.orig_argv[1:])])


def _as_given(word: str) -> bytes:
    """The bytes of an argument, undone as Python decoded them: by the C library, whose tables may not be Python's."""
    import ctypes

    encode = ctypes.pythonapi.Py_EncodeLocale
    encode.restype, encode.argtypes = ctypes.c_char_p, (ctypes.c_wchar_p, ctypes.c_void_p)
    found: bytes | None = encode(word, None)
    return os.fsencode(word) if found is None else found


def _occupy_closed_descriptors() -> None:
    """Put something on the descriptors 0, 1 and 2 where they are closed.

    Otherwise the next file that is opened gets one of them, and a library that writes to stderr writes into that file.
    What is put there can't be read from (0) or written to (1, 2), so that nothing is taken for a stream.
    """
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                nothing = os.open(os.devnull, flags)
                if nothing != descriptor:
                    os.dup2(nothing, descriptor)
                    os.close(nothing)


def _has_working_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


class _Torch:
    """Sees to it that torch, which takes a second or more to import, is neither imported in silence nor in vain.

    Args:
        refused: Whether the working folder is gone, where torch's MKL would end the process in its own way.
    """

    def __init__(self, *, refused: bool) -> None:
        self._refused = refused

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Find torch alone; see `importlib.abc.MetaPathFinder`."""
        if name != "torch":
            return None
        if self._refused:
            from stackrev.errors import StackrevError

            raise StackrevError("the working folder has been deleted", hint="go to another one, such as: cd ~")
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def announced(module: ModuleType) -> None:
            from stackrev.cli.output import Output

            with _uninterrupted(), Output(quiet="--quiet" in sys.argv, result=False).busy("loading torch"):
                load(module)

        spec.loader.exec_module = announced  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets an interruption wait, and raises it at the end.

    The import of torch catches some exceptions, goes on without what failed, and aborts the process on others.
    """
    default = signal.default_int_handler
    if signal.getsignal(signal.SIGINT) is not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, default)
        if interrupted:
            raise KeyboardInterrupt


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback on stderr: of a bug, or asked for; what a stranger wrote into it is made visible like all else."""
    import traceback

    from stackrev.cli.output import Output

    output = Output(result=False)
    output.out.flush_or_discard()
    for block in traceback.format_exception(kind, error, trace):
        for line in block.rstrip("\n").split("\n"):
            output.say(line)
