"""Checkpoints to and from the Hugging Face Hub, in its standard cache and with its standard token.

A model on the Hub is `user/repo`, or `user/repo@revision` with a branch, a tag or a commit. `resolve` looks nearby
first: a packaged name, a folder, the cache. A revision that is cached needs no network and is not looked up again;
`pull` is what asks the Hub for news.

What comes back is a stranger's. Only the four files of a checkpoint are downloaded, their sizes and checksums are asked
for before that, config.json is read before the weights are fetched, and a download that is not what its checksums say,
or not a whole and valid checkpoint, is removed from the cache and refused. Nothing that is downloaded is executed.

Three rooms do the work: `hub_api` knows what to ask and what answers mean, `hub_cache` where files go, `network` how
long, how much and how often.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import CheckpointError, HubError, ModelNotFoundError
from stackrev.storage import certificates, checkpoints, files, hub_cache, hub_settings, names
from stackrev.storage.names import Reference

if TYPE_CHECKING:
    from stackrev.storage.network import Client

OnProgress = Callable[[str, int, int], object]
"""Called with what is being done ("download" or "upload"), how much of it is done and how much there is, in bytes."""

Evaluate = Callable[[Path], Mapping[str, Any]]
"""Measures the checkpoint in a folder; gives scores as `checkpoints.Checkpoint` has them."""


@dataclass(frozen=True)
class Push:
    """What `push` has sent, or would send.

    Attributes:
        repo: `user/repo`.
        files: The size of each file in bytes.
        scores: What was measured.
        card: The model card.
        commit: The commit, and None where nothing was sent.
        url: Its address.
    """

    repo: str
    files: Mapping[str, int]
    scores: Mapping[str, Any]
    card: str
    commit: str | None
    url: str | None


def resolve(
    name: str,
    *,
    offline: bool = False,
    cache_dir: Path | None = None,
    token: str | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """The folder of a model: a packaged one, a folder, one in the Hub's cache, or one that is now fetched.

    Args:
        name: A packaged name, a folder, or `[hf:]user/repo[@revision]`; see `names.find`.
        offline: Never use the network; so it is, too, where HF_HUB_OFFLINE is set.
        cache_dir: The cache; the Hub's standard one if None.
        token: The standard one if None.
        on_progress: See `OnProgress`.

    Raises:
        ModelNotFoundError: There is no such model here or on the Hub.
        CheckpointError: What the Hub has is not one of ours, or is damaged.
        HubError: It is not in the cache, and the Hub refused, failed or could not be reached.
    """
    found = names.find(name)
    if isinstance(found, Path):
        return found
    folder = _cached(found, cache_dir)
    if folder is not None:
        return folder
    return pull(name, offline=offline, cache_dir=cache_dir, token=token, on_progress=on_progress)


def pull(
    name: str,
    *,
    offline: bool = False,
    cache_dir: Path | None = None,
    token: str | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Fetch a model from the Hub into the cache, or make sure that the cache has the Hub's latest.

    Args:
        name: `[hf:]user/repo[@revision]`; see `names.find`.
        offline: See `resolve`.
        cache_dir: See `resolve`.
        token: See `resolve`.
        on_progress: See `OnProgress`.

    Returns:
        The folder, in the cache, of a checkpoint that has been checked.

    Raises:
        ModelNotFoundError: The Hub has no such model, or it is private.
        CheckpointError: What the Hub has is not one of ours, or is damaged.
        HubError: The Hub refused, failed or could not be reached.
    """
    reference = names.parse(name)
    if reference is None:
        raise ModelNotFoundError(f"{name!r} is not the name of a model on the Hub", hint="write user/repo[@revision]")
    if offline or hub_settings.is_offline():
        folder = _cached(reference, cache_dir)
        if folder is None:
            raise HubError(f"{reference} is not in the cache, and the network is off", hint="pull it without --offline")
        _read(folder)
        return folder
    meter = _Meter("download", on_progress)
    with _client(token, meter) as client:
        return _fetch(client, reference, hub_cache.repo(_cache(cache_dir), reference.repo), meter)


def push(
    name: str | Path,
    repo: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    message: str | None = None,
    token: str | None = None,
    evaluate: Evaluate | None = None,
    on_progress: OnProgress | None = None,
) -> Push:
    """Send a checkpoint to the Hub, with a card that tells what the caller measures on the files that are sent.

    Args:
        name: A packaged name or a folder.
        repo: `user/repo`; made if need be.
        private: Whether a new repo is private.
        dry_run: Measure, and send nothing.
        message: The commit's.
        token: The standard one if None.
        evaluate: Measures the copy that is sent. Nothing that was measured elsewhere is told: without this, no scores.
        on_progress: See `OnProgress`.

    Raises:
        CheckpointError: The checkpoint is damaged, or there is none.
        HubError: `repo` cannot be the name of one, or the Hub refused, failed or could not be reached.
    """
    reference = names.parse(repo)
    if reference is None or "@" in repo:
        raise HubError(f"{repo!r} is not the name of a repo", hint="write user/repo")
    source = names.resolve(str(name))
    if not dry_run and hub_settings.is_offline():
        raise HubError(f"{repo} cannot be pushed to: the network is off", hint="unset HF_HUB_OFFLINE")
    with tempfile.TemporaryDirectory(prefix="stackrev-") as scratch:
        folder = Path(scratch) / "checkpoint"
        checkpoints.copy(source, folder)
        scores = dict(evaluate(folder)) if evaluate is not None else {}
        checkpoints.save_scores(folder, scores, name=reference.repo)
        _read(folder)
        there = [each for each in checkpoints.ALL_FILES if (folder / each).is_file()]
        contents = {each: files.read_bytes(folder / each, checkpoints.LIMITS[each]) for each in there}
    sizes = {each: len(data) for each, data in contents.items()}
    card = contents[checkpoints.CARD].decode("utf-8")
    if dry_run:
        return Push(reference.repo, sizes, scores, card, None, None)
    commit, url = _send(reference, contents, private, message or "Upload a stackrev checkpoint", token, on_progress)
    return Push(reference.repo, sizes, scores, card, commit, url)


def cached_models(cache_dir: Path | None = None) -> dict[str, Path]:
    """The checkpoints in the Hub's cache: `user/repo[@revision]` and their folders, by name."""
    models = {}
    for repo, revision in hub_cache.refs(_cache(cache_dir)):
        reference = names.parse(f"{repo}@{revision}")
        with contextlib.suppress(CheckpointError):
            folder = reference and _cached(reference, cache_dir)
            if folder:
                checkpoints.describe(folder)
                models[str(reference)] = folder
    return models


def _cache(cache_dir: Path | None) -> Path:
    return hub_settings.cache() if cache_dir is None else Path(cache_dir)


def _cached(reference: Reference, cache_dir: Path | None) -> Path | None:
    return hub_cache.repo(_cache(cache_dir), reference.repo).find(reference.revision)


def _read(folder: Path) -> None:
    """Make sure that a folder holds a whole checkpoint.

    Raises:
        CheckpointError: It does not.
    """
    checkpoints.read_weights(folder)
    checkpoints.read_history(folder)
    certificates.read_certificate(folder)


class _Meter:
    """Counts bytes and tells of them."""

    def __init__(self, what: str, on_progress: OnProgress | None) -> None:
        self.total = 0
        self._what = what
        self._done = 0
        self._on_progress = on_progress

    def __call__(self, count: int) -> None:
        """So many more bytes have moved."""
        self._done = min(self._done + count, self.total)
        if self._on_progress is not None:
            self._on_progress(self._what, self._done, self.total)


def _client(token: str | None, meter: _Meter, *, sending: bool = False) -> Client:
    from stackrev.storage.network import Client

    return Client(hub_settings.endpoint(), partial(hub_settings.find_token, token), count=meter, sending=sending)


def _fetch(client: Client, reference: Reference, kept: hub_cache.Repo, meter: _Meter) -> Path:
    """Bring a checkpoint into the cache, as far as it is not there."""
    from stackrev.storage import hub_api

    listing = hub_api.look_up(client, reference)
    commit, folder = listing.commit, kept.snapshot(listing.commit)
    missing = {name: size for name, size in listing.sizes.items() if not kept.has(commit, name)}
    meter.total = sum(missing.values())
    checksums = {name: hub_api.look_at(client, reference, commit, name) for name in missing}
    fetched: set[str] = set()

    def store(name: str) -> None:
        parts = partial(client.download, hub_api.file_path(reference, commit, name), missing[name])
        if kept.store(commit, name, checksums[name], missing[name], parts):
            fetched.add(name)

    try:
        if checkpoints.CONFIG in missing:
            store(checkpoints.CONFIG)
        checkpoints.describe(folder)
        for name in missing:
            if name != checkpoints.CONFIG:
                store(name)
        _read(folder)
    except CheckpointError:
        kept.forget(commit, missing, fetched)
        raise
    kept.remember(reference.revision, commit)
    meter(meter.total)
    return folder


def _send(
    reference: Reference,
    contents: Mapping[str, bytes],
    private: bool,
    message: str,
    token: str | None,
    on_progress: OnProgress | None,
) -> tuple[str, str]:
    """Send files; the commit and its address."""
    from stackrev.storage import hub_api

    meter = _Meter("upload", on_progress)
    meter.total = sum(map(len, contents.values()))
    meter(0)
    with _client(token, meter, sending=True) as client:
        hub_api.create(client, reference, private=private)
        hub_api.check_card(client, reference, contents[checkpoints.CARD].decode("utf-8"))
        commit = hub_api.commit_files(client, reference, contents, message)
        url = f"{client.endpoint}/{reference.repo}/commit/{commit}"
    meter(meter.total)
    return commit, url
