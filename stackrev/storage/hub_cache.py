"""The Hub's cache on this computer, in the layout that every tool of the Hub shares.

    models--user--repo/refs/main                 the commit that a branch or a tag stands for
    models--user--repo/snapshots/COMMIT/FILE     a link to ../../blobs/CHECKSUM
    models--user--repo/blobs/CHECKSUM            the contents

A checksum is the Hub's: SHA-256 of a large file, Git's SHA-1 of a small one. It is the only part of a path that a Hub
decides, and only as 40 or 64 hexadecimal digits. Nothing is written but below the folder of the repo, and a link of a
snapshot that leads anywhere else than into `blobs/` is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stackrev.errors import CheckpointError, FileError, HubError, StackrevError
from stackrev.storage import checkpoints, files

COMMIT = re.compile(r"[0-9a-f]{40}")
CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REQUIRED = (checkpoints.CONFIG, checkpoints.WEIGHTS, checkpoints.HISTORY)
"""What a checkpoint cannot be without; the card may be missing."""

_MOST_FILES = 10_000
_PIECE = 2**20


@dataclass(frozen=True)
class Repo:
    """The cached part of a repo.

    Attributes:
        folder: `models--user--repo` in the cache.
    """

    folder: Path

    def commit(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit stands for, as far as the cache knows."""
        if COMMIT.fullmatch(revision):
            return revision
        with contextlib.suppress(FileError, ValueError):
            commit = files.read_bytes(self.folder / "refs" / revision, 1024).decode("ascii").strip()
            return commit if COMMIT.fullmatch(commit) else None
        return None

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files."""
        return self.folder / "snapshots" / commit

    def find(self, revision: str) -> Path | None:
        """The folder of a checkpoint, if all of it is there.

        Raises:
            CheckpointError: A file of it lies outside the cache.
        """
        commit = self.commit(revision)
        if commit is None or not all((self.snapshot(commit) / name).is_file() for name in REQUIRED):
            return None
        for name in checkpoints.ALL_FILES:
            _blob_of(self.snapshot(commit) / name)
        return self.snapshot(commit)

    def has(self, commit: str, name: str, checksum: str | None = None) -> bool:
        """Whether a file is there as the Hub's checksum says, which its link names where it is not given."""
        link = self.snapshot(commit) / name
        try:
            blob = _blob_of(link)
        except CheckpointError:
            return False
        expected = checksum or (blob.name if blob else None)
        if expected is None or (blob is not None and blob.name != expected):
            return False
        return _digest_of(link, expected, checkpoints.LIMITS[name]) == expected

    def store(self, commit: str, name: str, checksum: str, size: int, parts: Callable[[], Iterable[bytes]]) -> bool:
        """Put a file into the cache, from `parts` unless its contents are there already.

        Returns:
            Whether it came from `parts`.

        Raises:
            CheckpointError: The parts are not what the checksum says; nothing has been written then.
            HubError: The cache cannot be written.
            StackrevError: What `parts` raises.
        """
        if not (COMMIT.fullmatch(commit) and CHECKSUM.fullmatch(checksum) and name in checkpoints.ALL_FILES):
            raise HubError("the Hub names no commit and checksum that can be", hint="nothing was fetched")
        blob, link = self.folder / "blobs" / checksum, self.snapshot(commit) / name
        with writing(self.folder):
            files.make_folder(blob.parent)
            files.make_folder(link.parent)
            fetched = _digest_of(blob, checksum, size) != checksum
            if fetched:
                if blob.is_symlink():
                    files.remove(blob)
                files.write(blob, _checked(parts(), name, checksum, size))
            _link(link, blob)
        return fetched

    def remember(self, revision: str, commit: str) -> None:
        """Record which commit a branch or a tag stands for.

        Raises:
            HubError: The cache cannot be written.
        """
        if revision == commit:
            return
        path = self.folder / "refs" / revision
        with writing(path):
            files.make_folder(path.parent)
            files.write(path, commit.encode())

    def forget(self, commit: str, names: Iterable[str], fetched: Container[str]) -> None:
        """Remove files of a commit, as far as that is possible.

        Args:
            commit: The commit.
            names: The files.
            fetched: Those whose contents go with them, as no other commit had them before.
        """
        for name in names:
            link, blob = self.snapshot(commit) / name, None
            with contextlib.suppress(CheckpointError):
                blob = _blob_of(link) if name in fetched else None
            for path in (link, blob):
                with contextlib.suppress(FileError):
                    if path is not None:
                        files.remove(path)


def repo(cache: Path, name: str) -> Repo:
    """The cached part of the repo `user/repo`."""
    return Repo(Path(cache) / ("models--" + name.replace("/", "--")))


def refs(cache: Path) -> Iterator[tuple[str, str]]:
    """What the cache has: `user/repo` and a branch, a tag or the like, sorted."""
    with contextlib.suppress(OSError):
        for folder in sorted(Path(cache).glob("models--*--*")):
            found = sorted(path for path, _ in zip((folder / "refs").rglob("*"), range(_MOST_FILES), strict=False))
            for path in found:
                if path.is_file():
                    name = folder.name.removeprefix("models--").replace("--", "/")
                    yield name, path.relative_to(folder / "refs").as_posix()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong with files of the cache into one error that says what to do about it."""
    try:
        yield
    except FileError as error:
        raise HubError(error.message, hint="choose another cache with --cache-dir or HF_HOME, or make room") from error
    except StackrevError:
        raise
    except OSError as error:
        raise HubError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="choose another cache with --cache-dir or HF_HOME, or make room",
        ) from error


def _blob_of(link: Path) -> Path | None:
    """What a file of a snapshot links to; None if it is no link but the file itself, as on systems without links.

    Raises:
        CheckpointError: It lies outside the `blobs/` of its repo.
    """
    try:
        target = Path(os.path.normpath(link.parent.absolute() / link.readlink()))
    except OSError:
        return None
    beside = target.parent == link.parent.absolute().parent.parent / "blobs"
    if not (beside and CHECKSUM.fullmatch(target.name)):
        raise CheckpointError(f"{link} links to a file outside the cache", hint="remove it, and pull the model again")
    return target


def _digest_of(path: Path, checksum: str, limit: int) -> str | None:
    """The checksum of a file, of the kind that is expected; None if there is none that can be read."""
    with contextlib.suppress(FileError, OSError), files.opened(path, limit) as file:
        size = os.fstat(file.fileno()).st_size
        digest = _hasher(checksum, size)
        while part := file.read(_PIECE):
            digest.update(part)
        return str(digest.hexdigest())
    return None


def _hasher(checksum: str, size: int) -> hashlib._Hash:
    if len(checksum) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _checked(parts: Iterable[bytes], name: str, checksum: str, size: int) -> Iterator[bytes]:
    digest = _hasher(checksum, size)
    for part in parts:
        digest.update(part)
        yield part
    if digest.hexdigest() != checksum:
        raise CheckpointError(
            f"{name} is not what the Hub's checksum says", hint="the download was damaged: pull it again"
        )


def _link(link: Path, blob: Path) -> None:
    """Let a file of a snapshot lead to its contents, in one rename; a copy where the system has no links."""
    staged = link.with_name(f".{link.name}.{secrets.token_hex(8)}.new")
    try:
        staged.symlink_to(Path("..", "..", "blobs", blob.name))
    except OSError:
        shutil.copyfile(blob, staged)
    try:
        staged.replace(link)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
