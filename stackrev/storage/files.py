"""Files: the one place that touches disks, with `locks`, which keeps two writers apart.

**Reading.** Only regular files are opened, and never more is read than the caller allows: a device, a named pipe or a
file that grows cannot hang the program or fill its memory.

**Writing.** A file appears under its name as a whole or not at all, and it is on disk, with the folder that names it,
before `write` returns. The bytes go into a *staged* file beside the target first, which one rename then puts in its
place. Staged files have names that nobody can guess and are always newly made, so nothing that lies in the folder, a
symbolic link or a named pipe say, is ever written through; and what is replaced must itself be a regular file.

Every failure is a `FileError`; `raising` turns it into the error that a room's own callers expect.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from stackrev.errors import FileError, MissingFileError, StackrevError

NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0)
AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # opening a named pipe must not wait for whoever is at its other end
BINARY = getattr(os, "O_BINARY", 0)
_LONGEST_NAME = 200  # in bytes, with room for what a staged name adds


@contextlib.contextmanager
def raising(kind: type[StackrevError], *, missing: type[StackrevError] | None = None) -> Iterator[None]:
    """Turn a `FileError` from inside into an error of another kind, with the same message and hint.

    Args:
        kind: Of what kind.
        missing: Of what kind if there is no such file; `kind` if None.
    """
    try:
        yield
    except FileError as error:
        found = missing if missing is not None and isinstance(error, MissingFileError) else kind
        raise found(error.message, hint=error.hint) from error


# Reading.


@contextlib.contextmanager
def opened(path: Path, limit: int) -> Iterator[BinaryIO]:
    """A file open for reading, known to be a regular one of at most `limit` bytes.

    Raises:
        MissingFileError: There is none.
        FileError: It cannot be opened or read from, is not a regular file, or is larger.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | AT_ONCE))  # noqa: SIM115 - see below
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {_reason(error)}") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path} is not a regular file")
        if status.st_size > limit:
            raise FileError(f"{path} has {status.st_size:,} bytes, which is more than it can need")
        try:
            yield file
        except OSError as error:
            raise FileError(f"{path} cannot be read: {_reason(error)}") from error


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
        data = file.read(limit + 1)
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
        while line := file.readline(left + 1):
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
    staged = stage(path, data)
    try:
        place(staged, path)
    except BaseException:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise


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
    existing = check(path)
    with writing(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOT_FOLLOWED | BINARY
        file = os.fdopen(os.open(staged, flags, 0o666), "wb")
    try:
        with file:
            for part in (data,) if isinstance(data, bytes) else data:
                with writing(path):
                    file.write(part)
            with writing(path):
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


def check(path: Path) -> os.stat_result | None:
    """Make sure that what is under a name may be replaced: a regular file, links not followed, or nothing.

    Returns:
        What the system says of it, and None if there is nothing.

    Raises:
        FileError: It is something else.
    """
    with writing(path):
        existing = status_of(path)
    if existing is not None and not stat.S_ISREG(existing.st_mode):
        raise FileError(f"{path} is not a regular file, and nothing else is written to", hint="choose another name")
    return existing


def place(staged: Path, path: Path) -> None:
    """Give a staged file its name, in one rename that is on disk before this returns.

    Raises:
        FileError: It cannot be renamed; the staged file is left as it is.
    """
    with writing(path):
        staged.replace(path)
        sync_folder(path.parent)


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
    with writing(path):
        new = status_of(path) is None
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | NOT_FOLLOWED | AT_ONCE | BINARY
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
            sync_folder(path.parent)


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
    with writing(path), contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing; on disk before this returns.

    Raises:
        FileError: It cannot be made.
    """
    with writing(folder):
        missing = []
        above = folder
        while not above.exists() and above != above.parent:
            missing.append(above)
            above = above.parent
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on disk, where the system can tell it to."""
    # Not every system can open a folder; where it cannot, its renames are as durable as they get.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# What these share.


def _stem(path: Path) -> str:
    """What a staged name has of a file's own: all of it, where the system's limit leaves room."""
    return path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else "stackrev"


def status_of(path: Path) -> os.stat_result | None:
    """What stands under a name itself, links not followed."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _is_regular(path: Path) -> bool:
    status = status_of(path)
    return status is not None and stat.S_ISREG(status.st_mode)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system has against writing a path into a `FileError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path} cannot be written: {_reason(error)}", hint="choose another folder, or make room"
        ) from error


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
