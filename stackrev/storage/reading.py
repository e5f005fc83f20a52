"""Reading a checkpoint's folder, as if it came from a stranger, while another process may be writing to it.

Only regular files are opened, of a size that the configuration allows, and no others than those that `format` names.
A reader needs no lock: of a file and those staged to take its place, it takes the one that has the checksum in
config.json; see `checkpoints` for how they are written. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackrev.errors import CheckpointError, FileError, MissingFileError
from stackrev.kinds.config import Config
from stackrev.storage import files
from stackrev.storage.card import MARK
from stackrev.storage.format import (
    AGAIN,
    ALL_FILES,
    CARD,
    CONFIG,
    HISTORY,
    LIMITS,
    MAX_HEADER,
    WEIGHTS,
    Description,
    RawTensor,
    parse_description,
    parse_history,
    parse_weights,
    sha,
    short,
    size_of,
)

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
_MOST_STAGED = 8  # how many staged files a reader looks at: a writer that dies leaves one, and the next clears it away


@dataclass(frozen=True)
class Verification:
    """What `verify` has checked.

    Attributes:
        folder: The checkpoint.
        checksums: The SHA-256 of each file, as recorded and as found.
        parameters: How many weights there are, without buffers.
    """

    folder: Path
    checksums: Mapping[str, str]
    parameters: int


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
    return parse_description(path, read_file(path, LIMITS[CONFIG]))


def read(folder: Path) -> tuple[Description, dict[str, RawTensor]]:
    """What config.json says and the weights that belong to it, without torch; another may be writing meanwhile.

    Returns:
        The description, and the tensors by their names in the model's `state_dict`, in the order of its `shapes`.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours.
    """
    folder = Path(folder)
    for description in attempts(folder):
        config = description.config.model
        size = size_of(folder / CONFIG, config)
        data = matching(folder, WEIGHTS, description.checksums[WEIGHTS], 8 + MAX_HEADER + size)
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
    for description in attempts(folder):
        data = matching(folder, HISTORY, description.checksums[HISTORY], LIMITS[HISTORY])
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
    description, _ = read(folder)
    return Verification(folder, description.checksums, description.config.model.weights)


def foreign(folder: Path) -> str | None:
    """A file that has a checkpoint's name but does not belong to a whole checkpoint of ours; None if all do."""
    folder = Path(folder)
    taken = [name for name in ALL_FILES if os.path.lexists(folder / name)]
    try:
        description = describe(folder)
    except CheckpointError:
        return CONFIG if CONFIG in taken else taken[0] if taken else None
    for name, checksum in description.checksums.items():
        with contextlib.suppress(CheckpointError):
            if matching(folder, name, checksum, LIMITS[name]) is not None:
                continue
        if name in taken:
            return name
    with contextlib.suppress(CheckpointError):
        if CARD in taken and MARK.encode() not in read_file(folder / CARD, LIMITS[CARD]).splitlines():
            return CARD
    return None


def attempts(folder: Path) -> Iterator[Description]:
    """What config.json says, read again as long as it changes: another process may be writing it."""
    previous = None
    for _ in range(10):
        description = describe(folder)
        if description == previous:
            return
        previous = description
        yield description


def matching(folder: Path, name: str, checksum: str, limit: int) -> bytes | None:
    """The contents of a file, or of a staged one that is about to take its place, whichever has the checksum."""
    path = folder / name
    # The staged files come first: a writer may rename one to `path` between the two looks.
    for each in (*files.staged_files(path)[:_MOST_STAGED], path):
        try:
            data = read_file(each, limit)
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


def read_file(path: Path, limit: int) -> bytes:
    """The contents of a regular file of at most so many bytes.

    Raises:
        CheckpointError: It is not there, is something else, or is larger.
    """
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
