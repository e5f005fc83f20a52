"""Files: the one place that touches disks.

**Reading.** Only regular files are opened, and never more is read than the caller allows: a device, a named pipe or a
file that grows cannot hang the program or fill its memory.

**Writing.** A file appears under its name as a whole or not at all, and it is on disk, with the folder that names it,
before `write` returns. The bytes go into a *staged* file beside the target first, which one rename then puts in its
place. Staged files have names that nobody can guess and are always newly made, so nothing that lies in the folder, a
symbolic link or a named pipe say, is ever written through; and what is replaced must itself be a regular file.

**Locking.** A folder has one lock, `.stackrev.lock`, a file that one holder at a time has locked. The system lets go of
it when the holder dies, however it dies, so that a lock that is left behind locks nobody out.

Every failure is a `FileError`; `raising` turns it into the error that a room's own callers expect.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from stackrev.errors import FileError, LockedError, MissingFileError, StackrevError

LOCK = ".stackrev.lock"
"""The name of a folder's lock."""

_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # opening a named pipe must not wait for whoever is at its other end
_BINARY = getattr(os, "O_BINARY", 0)
_LONGEST_NAME = 200  # in bytes, with room for what a staged name adds
_LONGEST_LOCK = 32  # a process id and a line feed
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def raising(kind: type[StackrevError]) -> Iterator[None]:
    """Turn a `FileError` from inside into an error of another kind, with the same message and hint."""
    try:
        yield
    except FileError as error:
        raise kind(error.message, hint=error.hint) from error


# Reading.


@contextlib.contextmanager
def opened(path: Path, limit: int) -> Iterator[BinaryIO]:
    """A file open for reading, known to be a regular one of at most `limit` bytes.

    Raises:
        MissingFileError: There is none.
        FileError: It cannot be read, is not a regular file, or is larger.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE))  # noqa: SIM115 - see below
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {_reason(error)}") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path} is not a regular file")
        if status.st_size > limit:
            raise FileError(f"{path} has {status.st_size:,} bytes, which is more than it can need")
        yield file


def read_bytes(path: Path, limit: int) -> bytes:
    """What a file holds.

    Args:
        path: A regular file.
        limit: The most bytes that it may have.

    Raises:
        MissingFileError: There is none.
        FileError: It cannot be read, is not a regular file, or is larger.
    """
    with opened(path, limit) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise FileError(f"{path} cannot be read: {_reason(error)}") from error
    if len(data) > limit:  # it has grown meanwhile, or is one whose size the system does not tell
        raise FileError(f"{path} is larger than {limit:,} bytes")
    return data


def read_lines(path: Path, limit: int) -> Iterator[bytes]:
    """The lines of a file, with their line ends, one at a time.

    Args:
        path: A regular file.
        limit: The most bytes that it may have.

    Raises:
        MissingFileError: There is none.
        FileError: It cannot be read, is not a regular file, or is larger.
    """
    with opened(path, limit) as file:
        left = limit
        while True:
            try:
                line = file.readline(left + 1)
            except OSError as error:
                raise FileError(f"{path} cannot be read: {_reason(error)}") from error
            if not line:
                return
            left -= len(line)
            if left < 0:
                raise FileError(f"{path} is larger than {limit:,} bytes")
            yield line


# Writing.


def write(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file as a whole: a failure at any moment leaves what was there before, or the new contents.

    Args:
        path: A regular file, which is replaced, or a name that is free, in a folder that is there.
        data: The contents, or their parts in order. If an iterator of parts raises, nothing has been written.

    Raises:
        FileError: The file cannot be written, or `path` is something else than a regular file.
    """
    place(stage(path, data), path)


def stage(path: Path, data: bytes | Iterable[bytes]) -> Path:
    """Write what a file will hold into a new file beside it, and on disk; `place` then puts it there.

    Args:
        path: As for `write`.
        data: As for `write`.

    Returns:
        The staged file.

    Raises:
        FileError: As for `write`.
    """
    staged = path.with_name(f".{_stem(path)}.{secrets.token_hex(8)}.new")
    with _writing(path):
        existing = _status(path)
        if existing is not None and not stat.S_ISREG(existing.st_mode):
            raise FileError(f"{path} is not a regular file, and nothing else is written to", hint="choose another name")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOT_FOLLOWED | _BINARY
        file = os.fdopen(os.open(staged, flags, 0o666), "wb")
    try:
        with file:
            for part in (data,) if isinstance(data, bytes) else data:
                with _writing(path):
                    file.write(part)
            with _writing(path):
                file.flush()
                os.fsync(file.fileno())
                if existing is not None:
                    staged.chmod(stat.S_IMODE(existing.st_mode))
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    return staged


def place(staged: Path, path: Path) -> None:
    """Give a staged file its name, in one rename that is on disk before this returns.

    Raises:
        FileError: It cannot be renamed; the staged file is removed then.
    """
    with _writing(path):
        try:
            staged.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                staged.unlink()
            raise
        _sync_folder(path.parent)


def append(path: Path, lines: bytes) -> None:
    """Add whole lines to the end of a file of lines; they are on disk before this returns.

    Whoever calls this holds a lock, so that a line without its line feed is what a killed writer has left: it is cut
    off first.

    Args:
        path: A regular file, made where it is missing.
        lines: One or more lines, each with its line feed.

    Raises:
        FileError: The file cannot be written, or is not a regular one.
    """
    with _writing(path):
        new = _status(path) is None
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _NOT_FOLLOWED | _AT_ONCE | _BINARY
        try:
            file = FileIO(os.open(path, flags, 0o666), "r+")
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise _not_regular(path) from error
            raise
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _not_regular(path)
            os.ftruncate(file.fileno(), _end_of_lines(file))
            view = memoryview(lines)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        if new:
            _sync_folder(path.parent)


def _end_of_lines(file: FileIO) -> int:
    """Where the last whole line of a file ends."""
    place = file.seek(0, os.SEEK_END)
    while place > 0:
        start = max(0, place - 2**16)
        file.seek(start)
        if (found := file.read(place - start).rfind(b"\n")) >= 0:
            return start + found + 1
        place = start
    return 0


def _not_regular(path: Path) -> FileError:
    return FileError(f"{path} is not a regular file, and nothing else is written to", hint="choose another name")


def staged_files(path: Path) -> list[Path]:
    """The staged files of a path: those whose writer is at work, and those whose writer has died.

    Anybody may have put a file there that is named like one, so what they hold must be checked.
    """
    # An earlier version of this package staged files under the one name without digits.
    name = re.compile(rf"\.{re.escape(_stem(path))}(\.[0-9a-f]{{16}})?\.new")
    with contextlib.suppress(OSError):
        return sorted(each for each in path.parent.iterdir() if name.fullmatch(each.name) and _is_regular(each))
    return []


def sweep(path: Path) -> None:
    """Remove the staged files of a path that dead writers have left; whoever calls this holds the folder's lock."""
    for each in staged_files(path):
        with contextlib.suppress(OSError):
            each.unlink()


def remove(path: Path) -> None:
    """Remove a file, if there is one, on disk before this returns.

    Raises:
        FileError: It cannot be removed.
    """
    with _writing(path), contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing; on disk before this returns.

    Raises:
        FileError: It cannot be made.
    """
    with _writing(folder):
        missing = []
        above = folder
        while not above.exists() and above != above.parent:
            missing.append(above)
            above = above.parent
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            _sync_folder(each.parent)


# Locking.


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
        with _writing(self.path):
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _NOT_FOLLOWED | _AT_ONCE | _BINARY, 0o666)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    raise self._foreign() from error
                raise
            try:
                status = os.fstat(descriptor)
                # Written to below: a second name of somebody's file must not be.
                if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_size > _LONGEST_LOCK:
                    raise self._foreign()
                if not re.fullmatch(rb"([0-9]+\n)?", os.read(descriptor, _LONGEST_LOCK)):
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
        status = _status(self.path)
        return status is not None and os.path.samestat(os.fstat(descriptor), status)

    def _holder(self) -> int | None:
        with contextlib.suppress(FileError, ValueError):
            text = read_bytes(self.path, _LONGEST_LOCK).decode("ascii").strip()
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


# What these share.


def _stem(path: Path) -> str:
    """What a staged name has of a file's own: all of it, where the system's limit leaves room."""
    return path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else "stackrev"


def _status(path: Path) -> os.stat_result | None:
    """What stands under a name itself, links not followed."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _is_regular(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def _sync_folder(folder: Path) -> None:
    # Not every system can open a folder; where it cannot, its renames are as durable as they get.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path} cannot be written: {_reason(error)}", hint="choose another folder, or make room"
        ) from error


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
