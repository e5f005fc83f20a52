"""Checkpoints to and from the Hugging Face Hub, in its standard cache and with its standard token.

`names` tells what a model on the Hub is called. `resolve` looks nearby first: a packaged name, a folder, the cache. A
revision that is cached needs no network and is not looked up again; `pull` is what asks the Hub for news.

What comes back is a stranger's. Only the four files of a checkpoint are downloaded, their sizes are checked before
that, config.json is read before the weights are fetched, and a download that is not what its checksums say, or not a
whole and valid checkpoint, is removed from the cache and refused. Nothing that is downloaded is executed.

huggingface_hub retries for up to minutes, with timeouts that differ from call to call. Here one policy holds for every
request (`_Guard`): a silent server is given seconds, what can be repeated is repeated a little, and then there is one
error. The guard sits on the client that huggingface_hub shares within the process, while a call from here runs.

Imports huggingface_hub only where it is needed, and torch only to measure a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import CheckpointError, HubError, ModelNotFoundError, StackrevError
from stackrev.storage import checkpoints, names
from stackrev.storage.names import Reference, parse

if TYPE_CHECKING:
    from stackrev.config import Config
    from stackrev.models.reversers import Reverser
    from stackrev.storage.checkpoints import Checkpoint

OnProgress = Callable[[str, int, int], object]
"""Called with what is being done ("download", "evaluate" or "upload"), how much of it is done and how much there is."""

Evaluate = Callable[[Path], Mapping[str, Any]]
"""Measures the checkpoint in a folder; gives scores as `checkpoints.Checkpoint` has them."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REQUIRED = (checkpoints.CONFIG, checkpoints.WEIGHTS, checkpoints.HISTORY)

_CONNECT_SECONDS = 7.0
_READ_SECONDS = 7.0
_COMMIT_SECONDS = 15.0
"""How long the Hub may take to answer what cannot be repeated."""
_ATTEMPTS = 3
_RESUMPTIONS = 4
_PATIENCE_SECONDS = 10.0
"""When it is too late to try again."""
_SLOW_SECONDS = 15.0
_BYTES_PER_SECOND = 1024
"""A download that is slower for so long counts as hung."""
_RESUMED_BYTES_PER_SECOND = 64 * 1024
"""How fast one that breaks off must have been to be resumed after `_PATIENCE_SECONDS`."""
_LARGEST_ANSWER = 2**28
_TRANSIENT = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Push:
    """What `push` has sent, or would send.

    Attributes:
        repo: `user/repo`.
        files: The size of each file in bytes.
        scores: What push measured.
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


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    cache_dir: Path | None = None,
    token: str | None = None,
) -> Checkpoint:
    """Load a model by its name.

    Args:
        name: A packaged name, a folder, or `[hf:]user/repo[@revision]`; see `names.find`.
        revision: Of a model on the Hub.
        offline: See `resolve`.
        cache_dir: See `resolve`.
        token: See `resolve`.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
        HubError: See `resolve`.
    """
    full = str(name) if revision is None else f"{name}@{revision}"
    folder = resolve(full, offline=offline, cache_dir=cache_dir, token=token)
    return checkpoints.load(folder, name=full)


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
        name: `user/repo[@revision]`.
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
    reference = _require(name)
    if offline or _offline():
        folder = _cached(reference, cache_dir)
        if folder is None:
            raise HubError(f"{reference} is not in the cache, and the network is off", hint="pull it without --offline")
        _read(folder)
        return folder
    done = total = 0

    def count(size: int) -> None:
        nonlocal done
        done = min(done + size, total)
        if on_progress is not None:
            on_progress("download", done, total)

    with _talking(reference, count) as hub:
        total = sum(_sizes(hub, reference, token).values())

        def fetch(*files: str) -> Path:
            folder = hub.snapshot_download(
                reference.repo,
                revision=reference.revision,
                cache_dir=cache_dir,
                token=token,
                allow_patterns=list(files),
                max_workers=4,
                **_signature(),
            )
            return Path(folder)

        folder = fetch(checkpoints.CONFIG)
        before = all((folder / each).is_file() for each in _REQUIRED)
        try:
            _admit(folder, checkpoints.describe)
            _admit(fetch(*checkpoints.FILES), _read)
        except CheckpointError:
            if not before:
                raise
            # It was in the cache, and may have gone bad there.
            _admit(fetch(*checkpoints.FILES), _read)
    count(total)
    return folder


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
    """Send a checkpoint to the Hub, with a card that tells what this function measured on the file itself.

    Args:
        name: A packaged name or a folder.
        repo: `user/repo`; made if need be.
        private: Whether a new repo is private.
        dry_run: Measure, and send nothing.
        message: The commit's.
        token: The standard one if None.
        evaluate: Measures the copy that is sent; by default, on the checkpoint's own held-out strings.
        on_progress: See `OnProgress`.

    Raises:
        CheckpointError: The checkpoint is damaged, or there is none.
        HubError: The name of the repo is none, or the Hub refused, failed or could not be reached.
    """
    reference = parse(repo)
    if reference is None or "@" in repo:
        raise HubError(f"{repo!r} is not the name of a repo", hint="write user/repo")
    source = names.resolve(str(name))
    if not dry_run and _offline():
        raise HubError(f"{repo} cannot be pushed to: the network is off", hint="unset HF_HUB_OFFLINE")
    with tempfile.TemporaryDirectory(prefix="stackrev-") as scratch:
        folder = Path(scratch) / "checkpoint"
        checkpoints.copy(source, folder)
        scores = dict(evaluate(folder) if evaluate is not None else _measure(folder, on_progress))
        checkpoints.save_scores(folder, scores, name=repo)
        _read(folder)
        files = {each: (folder / each).stat().st_size for each in checkpoints.FILES}
        card = (folder / checkpoints.CARD).read_text(encoding="utf-8")
        if dry_run:
            return Push(repo, files, scores, card, None, None)
        total = sum(files.values())
        if on_progress is not None:
            on_progress("upload", 0, total)
        with _talking(reference, lambda _: None) as hub:
            api = hub.HfApi(token=token, **_signature())
            api.create_repo(repo, private=private or None, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                allow_patterns=list(checkpoints.FILES),
                commit_message=message or "Upload a stackrev checkpoint",
            )
        if on_progress is not None:
            on_progress("upload", total, total)
    return Push(repo, files, scores, card, commit.oid, commit.commit_url)


def push_model(model: Reverser[Any], config: Config, repo: str, **options: Any) -> str:
    """Send a model that is in memory to the Hub.

    Args:
        model: The model.
        config: The run that made it.
        repo: `user/repo`; made if need be.
        **options: Those of `push`.

    Returns:
        The address of the commit, and an empty string after a dry run.

    Raises:
        CheckpointError: The model cannot be saved.
        HubError: See `push`.
    """
    with tempfile.TemporaryDirectory(prefix="stackrev-") as scratch:
        checkpoints.save(Path(scratch), model, config)
        return push(Path(scratch), repo, **options).url or ""


def cached_models(cache_dir: Path | None = None) -> dict[str, Path]:
    """The checkpoints in the Hub's cache: `user/repo[@revision]` and their folders, by name."""
    models = {}
    with contextlib.suppress(OSError):
        for storage in sorted(_cache(cache_dir).glob("models--*--*")):
            repo = storage.name.removeprefix("models--").replace("--", "/")
            for ref in sorted(each for each in (storage / "refs").rglob("*") if each.is_file()):
                reference = parse(f"{repo}@{ref.relative_to(storage / 'refs').as_posix()}")
                folder = reference and _cached(reference, cache_dir)
                with contextlib.suppress(CheckpointError):
                    if folder:
                        checkpoints.describe(folder)
                        models[str(reference)] = folder
    return models


def _require(name: str) -> Reference:
    reference = parse(name)
    if reference is None:
        raise ModelNotFoundError(f"{name!r} is not the name of a model on the Hub", hint="write user/repo[@revision]")
    return reference


def _offline() -> bool:
    return any(
        os.environ.get(each, "").upper() in ("1", "ON", "YES", "TRUE")
        for each in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _signature() -> dict[str, str]:
    """Who is asking."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return {"library_name": "stackrev", "library_version": metadata.version("stackrev")}
    return {"library_name": "stackrev"}


def _measure(folder: Path, on_progress: OnProgress | None) -> dict[str, Any]:
    """The scores of a checkpoint on its held-out strings."""
    from stackrev.evaluation.scoring import score
    from stackrev.tasks.batches import held_out

    checkpoint = checkpoints.load(folder)
    data = checkpoint.config.data
    total, done = 2 * data.held_out_samples, 0

    def count(advance: int) -> None:
        nonlocal done
        done += advance
        if on_progress is not None:
            on_progress("evaluate", done, total)

    scores = {}
    for lengths, strings in zip((data.lengths, data.test_lengths), held_out(data), strict=True):
        result = score(checkpoint.model, strings, on_progress=count)
        scores[str(lengths)] = {
            "coarse": result.coarse,
            "fine": result.fine,
            "samples": result.samples,
            "seed": data.held_out_seed,
        }
    return scores


# The cache.


def _cache(cache_dir: Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached(reference: Reference, cache_dir: Path | None) -> Path | None:
    """The folder of a checkpoint in the cache, if all of it is there (huggingface_hub documents the layout)."""
    storage = _cache(cache_dir) / ("models--" + reference.repo.replace("/", "--"))
    commit = reference.revision
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (storage / "refs" / commit).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    folder = storage / "snapshots" / commit
    if _COMMIT.fullmatch(commit) and all((folder / each).is_file() for each in _REQUIRED):
        return folder
    return None


def _read(folder: Path) -> None:
    """Make sure that a folder holds a whole checkpoint.

    Raises:
        CheckpointError: It does not.
    """
    checkpoints.read_weights(folder)
    checkpoints.read_history(folder)


def _admit(folder: Path, read: Callable[[Path], object]) -> None:
    """Check a checkpoint in the cache, and remove its files from there if they are wrong.

    Raises:
        CheckpointError: They are.
    """
    try:
        _check_contents(folder)
        read(folder)
    except CheckpointError:
        for name in checkpoints.FILES:
            blob = _blob(folder / name)
            with contextlib.suppress(OSError):
                (folder / name).unlink()
            if blob is not None:
                with contextlib.suppress(OSError):
                    blob.unlink()
        raise


def _check_contents(folder: Path) -> None:
    """Compare files with the names of the blobs that they link to, which are the Hub's checksums.

    Raises:
        CheckpointError: One differs.
    """
    for name in checkpoints.FILES:
        blob = _blob(folder / name)
        if blob is None or not blob.is_file() or blob.stat().st_size > checkpoints.LIMITS[name]:
            continue  # reading says what is wrong
        data = blob.read_bytes()
        if len(blob.name) == 40:
            digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        else:
            digest = hashlib.sha256(data).hexdigest()
        if digest != blob.name:
            raise CheckpointError(
                f"{name} is not what the Hub's checksum says", hint="the download was damaged: pull it again"
            )


def _blob(link: Path) -> Path | None:
    """What a file in the cache links to, if it lies beside it and is named by its checksum."""
    blob = link.resolve()
    beside = blob.parent == link.parent.parent.parent.resolve() / "blobs"
    return blob if beside and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name) else None


def _sizes(hub: Any, reference: Reference, token: str | None) -> dict[str, int]:
    """The sizes of a checkpoint's files on the Hub, after a look at whether they can be one."""
    info = hub.HfApi(token=token, **_signature()).model_info(
        reference.repo, revision=reference.revision, files_metadata=True
    )
    if not (isinstance(info.sha, str) and _COMMIT.fullmatch(info.sha)):
        raise HubError(f"the Hub's answer about {reference} makes no sense", hint="try again later")
    found = {each.rfilename: each.size for each in info.siblings or ()}
    for name in _REQUIRED:
        if name not in found:
            raise CheckpointError(
                f"{reference} has no {name}", hint="it is not a stackrev checkpoint; pickled weights are never read"
            )
    sizes = {name: found[name] or 0 for name in checkpoints.FILES if name in found}
    for name, size in sizes.items():
        if size > checkpoints.LIMITS[name]:
            raise CheckpointError(
                f"{reference} has a {name} of {size:,} bytes, which is more than a checkpoint can need",
                hint="it was not downloaded",
            )
    return sizes


# The network.


@contextlib.contextmanager
def _talking(reference: Reference, count: Callable[[int], object]) -> Iterator[Any]:
    """huggingface_hub, quiet and guarded; whatever it raises becomes one line. `count` is told of bytes received."""
    hub = importlib.import_module("huggingface_hub")
    for part in ("constants", "errors", "utils", "utils.logging"):  # loaded lazily, and configured when they are
        importlib.import_module(f"huggingface_hub.{part}")
    try:
        with _quiet(hub), _guarded(hub, count):
            yield hub
    except StackrevError:
        raise
    except Exception as error:  # a malformed answer can make the library trip over anything
        raise _explained(error, reference, hub) from error


@contextlib.contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """No progress bars, logs or warnings of huggingface_hub's own, and no transfers that bypass its HTTP client."""
    utils, constants = hub.utils, hub.constants
    logger = logging.getLogger("huggingface_hub")
    level, xet = logger.level, constants.HF_HUB_DISABLE_XET
    bars = not utils.are_progress_bars_disabled() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None
    logger.setLevel(logging.CRITICAL)
    constants.HF_HUB_DISABLE_XET = True
    if bars:
        utils.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        constants.HF_HUB_DISABLE_XET = xet
        if bars:
            utils.enable_progress_bars()


@contextlib.contextmanager
def _guarded(hub: Any, count: Callable[[int], object]) -> Iterator[None]:
    client = hub.get_session()
    client.send = _Guard(client, count)
    try:
        yield
    finally:
        del client.send


class _Guard:
    """One policy for all requests: what stands in for the `send` of the client.

    Its errors are not of a kind that huggingface_hub retries, so they end the whole call.
    """

    def __init__(self, client: Any, count: Callable[[int], object]) -> None:
        self._send = client.send
        self._http = importlib.import_module(type(client).__module__.partition(".")[0])  # httpx, or its successor
        self._count = count
        self._error: HubError | None = None
        self._downloads: dict[str, tuple[int, float]] = {}
        self._received: Counter[str] = Counter()

    def __call__(self, request: Any, **options: Any) -> Any:
        """Send a request; answers that a repetition may mend are repeated.

        Raises:
            HubError: The Hub did not answer, or failed.
        """
        if self._error is not None:
            raise self._error
        repeatable = request.method in ("GET", "HEAD")
        read = _READ_SECONDS if repeatable else _COMMIT_SECONDS
        timeout = {"connect": _CONNECT_SECONDS, "read": read, "write": read, "pool": read}
        request.extensions = {**request.extensions, "timeout": timeout}
        url = str(request.url)
        if streamed := request.method == "GET" and options.get("stream", False):
            self._resume(url)
        start = time.monotonic()
        for attempt in range(1, _ATTEMPTS + 1):
            wait = float(attempt)
            try:
                response = self._send(request, **options)
            except self._http.TimeoutException:
                reason = "it does not answer"
            except self._http.TransportError as error:
                reason = _line(error)
            else:
                if response.status_code not in _TRANSIENT:
                    return self._watched(response, url) if streamed else response
                response.close()
                busy = response.status_code == 429
                reason = "too many requests" if busy else f"HTTP status {response.status_code}"
                asked = response.headers.get("Retry-After", "")
                wait = float(asked) if asked.isdigit() and len(asked) < 9 else wait
            if not repeatable or attempt == _ATTEMPTS or time.monotonic() - start + wait > _PATIENCE_SECONDS:
                break
            time.sleep(wait)
        raise self._fail(reason)

    def _resume(self, url: str) -> None:
        """huggingface_hub resumes downloads that break off: let it, a few times and while that gets somewhere."""
        now = time.monotonic()
        tries, since = self._downloads.get(url, (0, now))
        self._downloads[url] = (tries + 1, since)
        hopeless = now - since > _PATIENCE_SECONDS and self._received[url] < (now - since) * _RESUMED_BYTES_PER_SECOND
        if tries >= _RESUMPTIONS or hopeless:
            raise self._fail("the connection keeps breaking off")

    def _fail(self, reason: str) -> HubError:
        self._error = HubError(f"the Hub failed: {reason}", hint="try again later; what is in the cache still works")
        return self._error

    def _watched(self, response: Any, url: str) -> Any:
        """Give up on a response that is too long or comes too slowly."""
        length = response.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _LARGEST_ANSWER:
            response.close()
            raise self._fail("its answer is too large")
        guard, stream = self, response.stream

        class Watched(self._http.SyncByteStream):  # type: ignore[name-defined,misc]
            def __iter__(self) -> Iterator[bytes]:
                start, received, total = time.monotonic(), 0, 0
                try:
                    for chunk in stream:
                        received, total = received + len(chunk), total + len(chunk)
                        guard._received[url] += len(chunk)
                        guard._count(len(chunk))
                        if total > _LARGEST_ANSWER:
                            raise guard._fail("its answer is too large")
                        if time.monotonic() - start > _SLOW_SECONDS:
                            if received < _SLOW_SECONDS * _BYTES_PER_SECOND:
                                raise guard._fail("it sends too slowly")
                            start, received = time.monotonic(), 0
                        yield chunk
                except guard._http.TransportError as error:
                    # the one kind after which every version of huggingface_hub resumes
                    raise guard._http.ReadTimeout(str(error)) from error

            def close(self) -> None:
                stream.close()

        response.stream = Watched()
        return response


def _explained(error: BaseException, reference: Reference, hub: Any) -> StackrevError:
    """What an error of huggingface_hub means here."""
    errors = hub.errors
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, StackrevError):
            return each
    known = ", ".join(names.packaged_names()) or "(none packaged)"
    login = "if it is private, log in with `hf auth login` or set HF_TOKEN"
    for each in chain:
        status = getattr(getattr(each, "response", None), "status_code", None)
        match each:
            case errors.GatedRepoError():
                return HubError(
                    f"{reference.repo} is gated", hint="accept its terms on its page, then log in with `hf auth login`"
                )
            case errors.RepositoryNotFoundError():
                return ModelNotFoundError(
                    f"there is no model {reference.repo!r} here or on the Hub", hint=f"the names are {known}; {login}"
                )
            case errors.RevisionNotFoundError():
                return ModelNotFoundError(
                    f"{reference.repo} has no revision {reference.revision!r}", hint="name a branch, a tag or a commit"
                )
            case errors.EntryNotFoundError() if not isinstance(each, errors.LocalEntryNotFoundError):
                return HubError(f"{reference} lacks a file that it lists", hint="try again later")
            case errors.OfflineModeIsEnabled():
                return HubError(f"{reference} needs the network, and it is off", hint="unset HF_HUB_OFFLINE")
        if status in (401, 403):
            return HubError(f"the Hub refused access to {reference.repo} (HTTP status {status})", hint=login)
        if status is not None:
            return HubError(f"the Hub refused {reference} (HTTP status {status})", hint="try again later")
    return HubError(f"the Hub failed for {reference}: {_line(error)}", hint="try again later")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # type: ignore[assignment]


def _line(error: BaseException, limit: int = 160) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
