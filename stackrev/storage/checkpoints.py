"""Checkpoints: a folder that describes itself; no crash can spoil it, and it is read as if it came from a stranger.

`format` tells what the files of a checkpoint's folder hold, and `reading` reads them. This module keeps the folder
whole, and offers both.

**Writing.** A writer holds the folder's lock (see `locks`). The one commit point is the replacement of config.json. New
weights and history are first staged beside the old ones, on disk; then config.json, which carries their checksums,
replaces the old one in a single rename; then the staged files take their places. A reader takes, of the staged files
and the one in place, the file that has the checksum in config.json. So whenever the writer dies there is one complete
checkpoint, the old one or the new one, and never a mixture; the next writer renames what is still staged. README.md
is derived from these and carries no checksum: after a crash it may be one save behind.

A folder is written to only if what it holds under a checkpoint's names is a whole checkpoint of ours: the
config.json or README.md of somebody else is never replaced.

Imports no torch, but where weights are written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import CheckpointError
from stackrev.kinds.config import Config
from stackrev.storage import certificates, files, locks
from stackrev.storage.card import model_card
from stackrev.storage.format import (
    ALL_FILES,
    CARD,
    CERTIFICATE,
    CONFIG,
    FILES,
    HISTORY,
    LIMITS,
    WEIGHTS,
    Description,
    as_unicode,
    dump_description,
    dump_history,
    dump_weights,
    results,
    sha,
)
from stackrev.storage.locks import Lock
from stackrev.storage.reading import (
    Verification,
    attempts,
    describe,
    foreign,
    load_config,
    matching,
    read,
    read_file,
    read_history,
    read_weights,
    verify,
)

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
    for description in attempts(source):
        contents = {
            name: matching(source, name, checksum, LIMITS[name]) for name, checksum in description.checksums.items()
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
            history = matching(folder, HISTORY, description.checksums[HISTORY], LIMITS[HISTORY])
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
                if sha(read_file(staged, LIMITS[name])) == checksum:
                    files.place(staged, folder / name)
                    break
    for name in ALL_FILES:
        files.sweep(folder / name)
