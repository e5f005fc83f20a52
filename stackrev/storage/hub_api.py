"""What is asked of a Hub, and what its answers mean.

An answer is a stranger's: what is used of it has been checked for its type and its form, and none of its words are
shown. The calls are those of https://huggingface.co/docs/hub/api and of Git's LFS batch protocol.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from stackrev.errors import CheckpointError, HubError, ModelNotFoundError, StackrevError
from stackrev.storage import checkpoints, names
from stackrev.storage.hub_cache import CHECKSUM, COMMIT, REQUIRED
from stackrev.storage.names import Reference
from stackrev.storage.network import Answer, Client, failure

_LFS = "application/vnd.git-lfs+json"
_LOGIN = "if it is private, log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class Listing:
    """What a Hub has of a checkpoint.

    Attributes:
        commit: 40 hexadecimal digits.
        sizes: The bytes of each file, by name, none of them more than a checkpoint can need.
    """

    commit: str
    sizes: Mapping[str, int]


def look_up(client: Client, reference: Reference) -> Listing:
    """Which commit a name stands for, and whether it can be a checkpoint.

    Raises:
        ModelNotFoundError: There is no such model.
        CheckpointError: It is no checkpoint of ours.
        HubError: The Hub refused, failed or made no sense.
    """
    path = f"/api/models/{reference.repo}/revision/{quote(reference.revision, safe='')}?blobs=true"
    answer = client.ask("GET", path)
    if answer.status != 200:
        raise refusal(answer, reference)
    raw = answer.json()
    commit = raw.get("sha") if isinstance(raw, dict) else None
    siblings = raw.get("siblings") if isinstance(raw, dict) else None
    if not (isinstance(commit, str) and COMMIT.fullmatch(commit) and isinstance(siblings, list)):
        raise failure(f"its answer about {reference} makes no sense")
    if COMMIT.fullmatch(reference.revision) and commit != reference.revision:
        raise failure(f"it answers about another commit than {reference}")
    found: dict[str, Any] = {}
    for each in siblings:
        if isinstance(each, dict) and each.get("rfilename") in checkpoints.ALL_FILES:
            found[each["rfilename"]] = each.get("size")
    for name in REQUIRED:
        if name not in found:
            raise CheckpointError(
                f"{reference} has no {name}", hint="it is not a stackrev checkpoint; pickled weights are never read"
            )
    for name, size in found.items():
        if type(size) is not int or size < 0:
            raise failure(f"it does not say how large {name} is")
        if size > checkpoints.LIMITS[name]:
            raise CheckpointError(
                f"{reference} has a {name} of {short_number(size)} bytes, which is more than a checkpoint can need",
                hint="it was not downloaded",
            )
    return Listing(commit, {name: found[name] for name in checkpoints.ALL_FILES if name in found})


def look_at(client: Client, reference: Reference, commit: str, name: str) -> str:
    """The checksum of a file: what the Hub's ETag says, which becomes the name of a file in the cache.

    Raises:
        HubError: The Hub refused or failed, or the ETag is no checksum.
    """
    answer = client.ask("HEAD", file_path(reference, commit, name))
    if answer.status >= 400 or not (answer.status == 200 or "x-linked-etag" in answer.headers):
        raise refusal(answer, reference)
    etag = answer.headers.get("x-linked-etag") or answer.headers.get("etag", "")
    checksum = re.sub(r'(?:W/)?"(.*)"', r"\1", etag)
    if not CHECKSUM.fullmatch(checksum):
        raise HubError(f"the Hub names no valid checksum of {name}", hint="nothing was fetched; try again later")
    if answer.headers.get("x-repo-commit", commit) != commit:
        raise HubError(f"the Hub has {name} of another commit than was asked for", hint="nothing was fetched")
    return checksum


def file_path(reference: Reference, commit: str, name: str) -> str:
    """Where a file is on the Hub."""
    return f"/{reference.repo}/resolve/{commit}/{name}"


def create(client: Client, reference: Reference, *, private: bool) -> None:
    """Make a repo, unless there is one.

    Raises:
        HubError: It cannot be made.
    """
    organization, _, name = reference.repo.partition("/")
    asked = {"name": name, "organization": organization} | ({"visibility": "private"} if private else {})
    answer = _post(client, "/api/repos/create", asked)
    if answer.status in (200, 201, 409):
        return
    # Not everybody who may write to a repo may make one.
    if answer.status in (401, 402, 403) and client.ask("GET", f"/api/models/{reference.repo}").status == 200:
        return
    raise refusal(answer, reference)


def commit_files(client: Client, reference: Reference, contents: Mapping[str, bytes], message: str) -> str:
    """Send files, all in one commit on the main branch; those that the Hub wants so by way of its storage.

    Returns:
        The commit.

    Raises:
        HubError: The Hub refused, failed or made no sense.
    """
    large = _large(client, reference, contents)
    objects: dict[str, dict[str, Any]] = {
        name: {"oid": _sha(contents[name]), "size": len(contents[name])} for name in large
    }
    _store(client, reference, {objects[name]["oid"]: contents[name] for name in large})
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": message, "description": ""}}]
    for name, data in contents.items():
        if name in large:
            lines.append({"key": "lfsFile", "value": {"path": name, "algo": "sha256", **objects[name]}})
        else:
            content = base64.b64encode(data).decode()
            lines.append({"key": "file", "value": {"path": name, "content": content, "encoding": "base64"}})
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = f"/api/models/{reference.repo}/commit/{reference.revision}"
    answer = client.ask("POST", path, content=body, kind="application/x-ndjson")
    oid = _object(answer, reference).get("commitOid")
    if not (isinstance(oid, str) and COMMIT.fullmatch(oid)):
        raise failure("it names no commit that has been made")
    return oid


def check_card(client: Client, reference: Reference, card: str) -> None:
    """Make sure that the Hub can read the head of a card, before anything is sent.

    Raises:
        HubError: It cannot, or it failed.
    """
    answer = _post(client, "/api/validate-yaml", {"content": card, "repoType": "model"})
    if answer.status == 400:
        raise HubError(f"the Hub does not take the card for {reference}", hint="look at it with --dry-run")
    if answer.status != 200:
        raise refusal(answer, reference)


def refusal(answer: Answer, reference: Reference) -> StackrevError:
    """What an answer that is none means."""
    code, status = answer.headers.get("x-error-code"), answer.status
    if code == "GatedRepo":
        return HubError(
            f"{reference.repo} is gated", hint="accept its terms on its page, then log in with `hf auth login`"
        )
    if code == "RepoNotFound":
        known = ", ".join(names.packaged_names()) or "(none packaged)"
        return ModelNotFoundError(
            f"there is no model {reference.repo!r} here or on the Hub", hint=f"the names are {known}; {_LOGIN}"
        )
    if code == "RevisionNotFound":
        return ModelNotFoundError(
            f"{reference.repo} has no revision {reference.revision!r}", hint="name a branch, a tag or a commit"
        )
    if code == "EntryNotFound":
        return HubError(f"{reference} lacks a file that it lists", hint="try again later")
    if status in (401, 403):
        return HubError(f"the Hub refused access to {reference.repo} (HTTP status {status})", hint=_LOGIN)
    return HubError(f"the Hub refused {reference} (HTTP status {status})", hint="try again later")


def short_number(number: int) -> str:
    """A number of somebody else's."""
    return f"{number:,}" if number < 10**18 else "more than 10**18"


def _large(client: Client, reference: Reference, contents: Mapping[str, bytes]) -> set[str]:
    """The files that the Hub wants in its storage."""
    asked = [
        {"path": name, "sample": base64.b64encode(data[:512]).decode(), "size": len(data)}
        for name, data in contents.items()
    ]
    answer = _post(client, f"/api/models/{reference.repo}/preupload/{reference.revision}", {"files": asked})
    found = _object(answer, reference).get("files")
    modes = {
        each.get("path"): each
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, dict) and isinstance(each.get("path"), str)
    }
    for name in contents:
        if modes.get(name, {}).get("uploadMode") not in ("regular", "lfs"):
            raise failure(f"it does not say how {name} is to be sent")
        if modes[name].get("shouldIgnore"):
            raise HubError(f"{reference} ignores {name}", hint="change the .gitignore of the repo")
    return {name for name, data in contents.items() if data and modes[name]["uploadMode"] == "lfs"}


def _store(client: Client, reference: Reference, contents: Mapping[str, bytes]) -> None:
    """Send files to the Hub's storage, by their SHA-256, unless they are there."""
    if not contents:
        return
    asked = {
        "operation": "upload",
        "transfers": ["basic"],
        "objects": [{"oid": oid, "size": len(data)} for oid, data in contents.items()],
        "hash_algo": "sha256",
        "ref": {"name": reference.revision},
    }
    found = _object(_post(client, f"/{reference.repo}.git/info/lfs/objects/batch", asked, _LFS), reference).get(
        "objects"
    )
    if not isinstance(found, list):
        raise failure("it does not say where files are to be sent")
    answers = {each.get("oid"): each for each in found if isinstance(each, dict) and isinstance(each.get("oid"), str)}
    for oid, data in contents.items():
        if oid not in answers or "error" in answers[oid]:
            raise failure("it does not take a file")
        actions = answers[oid].get("actions")
        if actions is None:
            continue  # it is there
        upload, verify = _href(actions, "upload"), _href(actions, "verify")
        if upload is None:
            raise failure("it does not say where a file is to be sent")
        if client.upload(upload, data).status not in (200, 201, 204):
            raise failure("its storage does not take a file")
        if verify is not None:
            answer = _post(client, verify, {"oid": oid, "size": len(data)})
            if answer.status not in (200, 204):
                raise failure("it does not find a file that was sent to its storage")


def _href(actions: object, name: str) -> str | None:
    action = actions.get(name) if isinstance(actions, dict) else None
    href = action.get("href") if isinstance(action, dict) else None
    return href if isinstance(href, str) and "://" in href else None


def _post(client: Client, path: str, value: object, kind: str = "application/json") -> Answer:
    return client.ask("POST", path, content=json.dumps(value).encode(), kind=kind)


def _object(answer: Answer, reference: Reference) -> dict[str, Any]:
    if answer.status not in (200, 201):
        raise refusal(answer, reference)
    raw = answer.json()
    if not isinstance(raw, dict):
        raise failure("its answer makes no sense")
    return raw


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
