"""Checkpoints: a folder that describes itself; no crash can spoil it, and it is read as if it came from a stranger.

`format` tells what the files of a checkpoint's folder hold. This module keeps the folder whole.

**Writing.** A writer holds the folder's lock (see `locks`). The one commit point is the replacement of config.json. New
weights and history are first staged beside the old ones, on disk; then config.json, which carries their checksums,
replaces the old one in a single rename; then the staged files take their places. A reader takes, of the staged files
and the one in place, the file that has the checksum in config.json. So whenever the writer dies there is one complete
checkpoint, the old one or the new one, and never a mixture; the next writer puts the names right. README.md is derived
from these and carries no checksum: after a crash it may be one save behind.

A folder is written to only if what it holds under a checkpoint's names is one of ours, whole: nobody's config.json and
nobody's README.md is replaced.

**Reading.** Only regular files are opened, of a size that the configuration allows, and no others than those that
`format` names. A reader needs no lock.

Imports no torch, but where weights are written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import CheckpointError, FileError, MissingFileError
from stackrev.kinds.config import Config
from stackrev.storage import certificates, files, locks
from stackrev.storage.card import MARK, model_card
from stackrev.storage.format import (
    AGAIN,
    ALL_FILES,
    CARD,
    CERTIFICATE,
    CONFIG,
    FILES,
    HISTORY,
    LIMITS,
    MAX_HEADER,
    WEIGHTS,
    Description,
    RawTensor,
    as_unicode,
    dump_description,
    dump_history,
    dump_weights,
    parse_description,
    parse_history,
    parse_weights,
    results,
    sha,
    short,
    size_of,
)
from stackrev.storage.locks import Lock

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ALL_FILES",
    "CARD",
    "CERTIFICATE",
    "CONFIG",
    "FILES",
    "HISTORY",
    "LIMITS",
    "WEIGHTS",
    "Description",
    "Verification",
    "copy",
    "describe",
    "foreign",
    "load_config",
    "read",
    "read_history",
    "read_weights",
    "results",
    "save",
    "save_scores",
    "verify",
]

WAIT_SECONDS = 10.0
"""How long a save waits for another one into the same folder."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
_MOST_STAGED = 8  # how many staged files a reader looks at: a writer that dies leaves one, and the next clears it away


@dataclass(frozen=True)
class Verification:
    """What `verify` has checked.

    Attributes:
        folder: The checkpoint.
        checksums: The SHA-256 of each file, as recorded and as found.
        parameters: How many weights there are, all finite.
    """

    folder: Path
    checksums: Mapping[str, str]
    parameters: int


# Reading.


def load_config(folder: Path) -> tuple[Config, Mapping[str, Any]]:
    """The configuration and the scores of a checkpoint, without its weights and without torch.

    Raises:
        CheckpointError: config.json is missing, damaged or not one of ours.
    """
    description = describe(folder)
    return description.config, description.scores


def describe(folder: Path) -> Description:
    """All that config.json says.

    Raises:
        CheckpointError: It is missing, damaged or not one of ours.
    """
    path = Path(folder) / CONFIG
    return parse_description(path, _read_file(path, LIMITS[CONFIG]))


def read(folder: Path) -> tuple[Description, dict[str, RawTensor]]:
    """What config.json says and the weights that belong to it, without torch; another may be writing meanwhile.

    Returns:
        The description, and the tensors by their names in the model's `state_dict`, in the order of its `shapes`.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours.
    """
    folder = Path(folder)
    for description in _attempts(folder):
        config = description.config.model
        size = size_of(folder / CONFIG, config)
        data = _matching(folder, WEIGHTS, description.checksums[WEIGHTS], 8 + MAX_HEADER + size)
        if data is not None:
            return description, parse_weights(folder / WEIGHTS, data, config)
    raise CheckpointError(_mismatch(folder / WEIGHTS, size), hint=AGAIN)


def read_weights(folder: Path) -> tuple[Config, dict[str, RawTensor]]:
    """The configuration and the weights alone; see `read`."""
    description, weights = read(folder)
    return description.config, weights


def read_history(folder: Path) -> list[dict[str, Any]]:
    """What happened in training, oldest first.

    Raises:
        CheckpointError: The checkpoint is incomplete or damaged.
    """
    folder = Path(folder)
    for description in _attempts(folder):
        data = _matching(folder, HISTORY, description.checksums[HISTORY], LIMITS[HISTORY])
        if data is not None:
            return parse_history(folder / HISTORY, data)
    raise CheckpointError(f"{folder / HISTORY} does not have the checksum in {CONFIG}", hint=AGAIN)


def verify(folder: Path) -> Verification:
    """Check everything about a checkpoint: checksums of all files, a strict load, finite weights.

    Raises:
        CheckpointError: Something is wrong.
    """
    folder = Path(folder)
    read_history(folder)
    description, weights = read(folder)
    return Verification(folder, description.checksums, sum(len(each.data) // 4 for each in weights.values()))


def foreign(folder: Path) -> str | None:
    """A file under one of a checkpoint's names that is not of a whole checkpoint of ours; None if there is none."""
    folder = Path(folder)
    taken = [name for name in ALL_FILES if os.path.lexists(folder / name)]
    try:
        description = describe(folder)
    except CheckpointError:
        return CONFIG if CONFIG in taken else taken[0] if taken else None
    for name, checksum in description.checksums.items():
        with contextlib.suppress(CheckpointError):
            if _matching(folder, name, checksum, LIMITS[name]) is not None:
                continue
        if name in taken:
            return name
    with contextlib.suppress(CheckpointError):
        if CARD in taken and MARK.encode() not in _read_file(folder / CARD, LIMITS[CARD]).splitlines():
            return CARD
    return None


def _attempts(folder: Path) -> Iterator[Description]:
    """What config.json says, again each time it has changed since: its writer may be at work."""
    previous = None
    for _ in range(10):
        description = describe(folder)
        if description == previous:
            return
        previous = description
        yield description


def _matching(folder: Path, name: str, checksum: str, limit: int) -> bytes | None:
    """The contents of a file, or of a staged one that is about to take its place, whichever has the checksum."""
    path = folder / name
    # In this order: a writer may rename the staged file in between.
    for each in (*files.staged_files(path)[:_MOST_STAGED], path):
        try:
            data = _read_file(each, limit)
        except CheckpointError:
            if each == path:
                raise
            continue
        if sha(data) == checksum:
            return data
    return None


def _mismatch(path: Path, expected: int) -> str:
    """Why a weights file has the wrong checksum."""
    with files.raising(CheckpointError), files.opened(path, 2**63) as file:
        start = file.read(8)
        size = os.fstat(file.fileno()).st_size
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"):
        return f"{path} is a pickle, which is never read"
    if size < expected + 8:
        return f"{path} is truncated: it has {size:,} bytes, and its weights alone take {expected:,}"
    return f"{path} does not have the checksum in {CONFIG}"


def _read_file(path: Path, limit: int) -> bytes:
    try:
        return files.read_bytes(path, limit)
    except MissingFileError:
        raise _missing(path) from None
    except FileError as error:
        raise CheckpointError(error.message, hint=error.hint) from error


def _missing(path: Path) -> CheckpointError:
    folder = path.parent
    if not folder.is_dir():
        return CheckpointError(f"there is no folder {folder}")
    pickles: list[str] = []
    with contextlib.suppress(OSError):
        pickles = sorted(each.name for each in folder.iterdir() if each.suffix in _PICKLES)
    if path.name in (WEIGHTS, CONFIG) and pickles:
        return CheckpointError(
            f"{folder} has no {path.name} but {short(pickles[0])}",
            hint="pickled weights are never read: only safetensors",
        )
    return CheckpointError(f"{folder} has no {path.name}", hint="a checkpoint is a folder made by stackrev train")


# Writing.


def save(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Config,
    *,
    scores: Mapping[str, Any] | None = None,
    history: Iterable[Mapping[str, Any]] = (),
    command: str | None = None,
    lock: Lock | None = None,
) -> None:
    """Write a checkpoint, so that a crash at any moment leaves the folder's earlier one or this one.

    Args:
        folder: Where; made if need be. Files of other names in it are left alone.
        weights: A model's `state_dict`, on any device, in float32.
        config: The run that made the model; its `model` must be the model's own.
        scores: As in `Description`.
        history: What happened in training, oldest first, as JSON objects.
        command: The command that made it.
        lock: The folder's, where the caller holds it and has made sure that the folder is its own.

    Raises:
        CheckpointError: The weights are not those that the configuration calls for, not finite or not float32; or the
            folder holds something else than a checkpoint of ours, is being written to, or cannot be written to.
    """
    folder = Path(folder)
    staged = {WEIGHTS: dump_weights(weights, config.model), HISTORY: dump_history(history)}
    checksums = {name: sha(data) for name, data in staged.items()}
    description = Description(config, dict(scores or {}), None if command is None else as_unicode(command), checksums)
    with _locked(folder, lock):
        if lock is None:
            _require_own(folder)
        _commit(folder, staged, description)


def save_scores(folder: Path, scores: Mapping[str, Any], *, name: str | None = None, lock: Lock | None = None) -> None:
    """Record measured results in a checkpoint and on its card, and leave the rest as it is.

    Args:
        folder: A checkpoint folder.
        scores: As in `Description`; they replace what was recorded for the same lengths.
        name: What the card calls the model; the folder's name if None.
        lock: The folder's, where the caller holds it.

    Raises:
        CheckpointError: The checkpoint cannot be read, is being written to, or cannot be written to.
    """
    folder = Path(folder)
    describe(folder)
    with _locked(folder, lock):
        old = describe(folder)
        _commit(folder, {}, replace(old, scores={**old.scores, **scores}), name)


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint without its scores, every other file byte for byte but for the card, which is made anew.

    Args:
        source: A checkpoint folder.
        target: Another; made if need be.

    Raises:
        CheckpointError: The checkpoint is damaged, or the copy cannot be written.
    """
    source, target = Path(source), Path(target)
    for description in _attempts(source):
        contents = {
            name: _matching(source, name, checksum, LIMITS[name]) for name, checksum in description.checksums.items()
        }
        found = {name: data for name, data in contents.items() if data is not None}
        if len(found) == len(contents):
            certificate = certificates.about(source, description.checksums[WEIGHTS])
            with _locked(target, None):
                _require_own(target)
                if certificate is not None:
                    certificates.write_certificate(target, certificate)
                _commit(target, found, replace(description, scores={}))
            return
    verify(source)


@contextlib.contextmanager
def _locked(folder: Path, lock: Lock | None) -> Iterator[None]:
    """Hold a folder's lock, unless the caller does; the folder is made where it is missing."""
    with files.raising(CheckpointError):
        files.make_folder(folder)
        with locks.lock(folder, seconds=WAIT_SECONDS) if lock is None else contextlib.nullcontext():
            yield


def _require_own(folder: Path) -> None:
    """Make sure that nothing in a folder is replaced that is not ours."""
    if (name := foreign(folder)) is not None:
        raise CheckpointError(
            f"{folder} has a {name} that is not of a checkpoint of stackrev's",
            hint="choose another folder, or move it away; nothing was overwritten",
        )


def _commit(folder: Path, new: Mapping[str, bytes], description: Description, name: str | None = None) -> None:
    """Write a checkpoint into a folder whose lock is held; see the top of this module."""
    contents = dump_description(description)
    for each in ALL_FILES:
        files.check(folder / each)
    _settle(folder)
    staged = {each: files.stage(folder / each, data) for each, data in new.items()}
    files.sync_folder(folder)
    files.write(folder / CONFIG, contents)
    for each, file in staged.items():
        files.place(file, folder / each)
    certified = certificates.about(folder, description.checksums[WEIGHTS]) is not None
    history = new.get(HISTORY)
    if history is None:
        with contextlib.suppress(CheckpointError):
            history = _matching(folder, HISTORY, description.checksums[HISTORY], LIMITS[HISTORY])
    card = model_card(name or folder.resolve().name, description, history or b"", certified=certified)
    files.write(folder / CARD, card.encode())


def _settle(folder: Path) -> None:
    """Finish what a writer that died after its commit point left undone, and clear away what it left before it."""
    checksums: Mapping[str, str] = {}
    with contextlib.suppress(CheckpointError):
        checksums = describe(folder).checksums
    for name, checksum in checksums.items():
        for staged in files.staged_files(folder / name):
            with contextlib.suppress(CheckpointError):
                if sha(_read_file(staged, LIMITS[name])) == checksum:
                    files.place(staged, folder / name)
                    break
    for name in ALL_FILES:
        files.sweep(folder / name)
