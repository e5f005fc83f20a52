"""Locks: one holder at a time, who cannot forget to let go.

A folder has one lock, `.stackrev.lock`, a file that one holder at a time has locked. The system lets go of it when the
holder dies, however it dies, so that a lock that is left behind locks nobody out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from stackrev.errors import FileError, LockedError
from stackrev.storage.files import AT_ONCE, BINARY, NOT_FOLLOWED, read_bytes, status_of, writing

LOCK = ".stackrev.lock"
"""The name of a folder's lock."""

_LONGEST = 32  # in bytes: a process id and a line feed
_POLL_SECONDS = 0.05


class Lock:
    """A file that one holder at a time has locked, in whatever process or thread; `with` acquires and releases it.

    The file is made where it is missing and removed on release. It holds the holder's process id.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, seconds: float | None = 0.0) -> None:
        """Take the lock.

        Args:
            seconds: How long to wait for another holder; for ever if None.

        Raises:
            LockedError: Another holder still has it.
            FileError: The file cannot be made or locked, or is not one that this class has made.
        """
        if self.held:
            raise LockedError(f"{self.path} is locked already", pid=os.getpid())
        end = None if seconds is None else time.monotonic() + seconds
        while not self._attempt():
            if end is not None and time.monotonic() >= end:
                pid = self._holder()
                who = "another process" if pid is None else f"another process ({pid})"
                raise LockedError(f"{who} holds {self.path}", hint="wait until it has ended", pid=pid)
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        # Removed before it is unlocked: whoever waits for this file then sees that it is gone, and makes a new one.
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(descriptor)

    def __enter__(self) -> Lock:
        if not self.held:
            self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _attempt(self) -> bool:
        """Lock the file that has the name now; False if another holder has it, or if it has just been removed."""
        with writing(self.path):
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | NOT_FOLLOWED | AT_ONCE | BINARY, 0o666)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    raise self._foreign() from error
                raise
            try:
                status = os.fstat(descriptor)
                # Written to below: a second name of somebody's file must not be.
                if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_size > _LONGEST:
                    raise self._foreign()
                if not re.fullmatch(rb"([0-9]+\n)?", os.read(descriptor, _LONGEST)):
                    raise self._foreign()
                if not _lock_at_once(descriptor) or not self._is(descriptor):
                    os.close(descriptor)
                    return False
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            except BaseException:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
                raise
        self._descriptor = descriptor
        return True

    def _is(self, descriptor: int) -> bool:
        status = status_of(self.path)
        return status is not None and os.path.samestat(os.fstat(descriptor), status)

    def _holder(self) -> int | None:
        with contextlib.suppress(FileError, ValueError):
            text = read_bytes(self.path, _LONGEST).decode("ascii").strip()
            return int(text) if text.isdecimal() else None
        return None

    def _foreign(self) -> FileError:
        return FileError(f"{self.path} is not a lock of stackrev's", hint="move it away, or choose another folder")


@contextlib.contextmanager
def lock(folder: Path, *, seconds: float | None = 0.0) -> Iterator[Lock]:
    """Hold a folder's lock, without which nothing in a run's or a checkpoint's folder is written.

    Args:
        folder: A folder that is there.
        seconds: How long to wait for another holder; for ever if None.

    Raises:
        LockedError: Another process, or another thread of this one, still has it.
        FileError: The folder cannot be written to.
    """
    held = Lock(folder / LOCK)
    try:
        held.acquire(seconds)
    except LockedError as error:
        who = "another process" if error.pid is None else f"another process ({error.pid})"
        raise LockedError(f"{who} writes to {folder}", hint="wait until it has ended", pid=error.pid) from error
    with held:
        yield held


def _lock_at_once(descriptor: int) -> bool:
    """Lock an open file, unless another holder has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(descriptor, 2**30, os.SEEK_SET)  # past the process id, which others may read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
