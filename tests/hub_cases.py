"""Pulls that go wrong, and what they must say: each with a fault of the small Hub's or a change to what it has."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

from hub_faults import Fault
from hub_runs import REPO

WEIGHTS = r"^(storage )?GET .*(lfs|model\.safetensors)"


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@dataclass
class Case:
    """A pull that fails, or doesn't.

    Attributes:
        message: What the error's line says; None where the pull succeeds all the same.
        fault: What goes wrong on the way.
        change: What is wrong with the repo itself.
        mends: Whether the pull succeeds once the fault is over.
        extra: Environment variables.
        code: The exit code where it fails: 2 for a name that there is not.
    """

    message: str | None
    fault: Fault | None = None
    change: object = None
    mends: bool = False
    extra: dict = field(default_factory=dict)
    code: int = 1


def status(code, where, header=None, **options):
    return Fault("status", where, code, {"X-Error-Code": header} if header else {}, **options)


SLOW = ("hang", "stall", "trickle", "drip", "loop", "waiting")
INFO = r"/api/models/user/repo"
HEAD = r"^HEAD .*config\.json"


def headers(where, **changed):
    """As usual, but with these headers; OUTSIDE stands for a folder that nothing may be written to."""
    return Fault("headers", where, headers={name.replace("_", "-"): value for name, value in changed.items()})


def elsewhere(where, location, **options):
    return Fault("status", where, 302, {"Location": location}, **options)


def files(server):
    repo = server.repos[REPO]
    return repo.commits[repo.refs["main"]]


def put(server, name, data):
    files(server)[name] = replace(
        next(iter(files(server).values())), data=data, lfs=name.endswith((".safetensors", ".bin"))
    )


def pickled(server, name):
    put(server, name, pickle.dumps([Bomb(server.bomb), "x" * 40_000]))


def only_pickle(server):
    del files(server)["model.safetensors"]
    pickled(server, "pytorch_model.bin")


def signed_pickle(server):
    pickled(server, "model.safetensors")
    config = json.loads(files(server)["config.json"].data)
    config["sha256"]["model.safetensors"] = files(server)["model.safetensors"].sha256
    put(server, "config.json", json.dumps(config).encode())


def not_finite(server):
    data = files(server)["model.safetensors"].data
    put(server, "model.safetensors", data[:-4] + b"\x00\x00\xc0\x7f")
    config = json.loads(files(server)["config.json"].data)
    config["sha256"]["model.safetensors"] = files(server)["model.safetensors"].sha256
    put(server, "config.json", json.dumps(config).encode())


def tricks(server):
    for name in ("../../evil", "/etc/evil", "sub/../../evil", "model.safetensors/../evil", ".git/hooks/evil"):
        put(server, name, b"evil")


def sizes(**claimed):
    return lambda server: server.sizes.update({name.replace("_", "."): size for name, size in claimed.items()})


CASES = {
    "no fault": Case(None),
    "401": Case("refused access", status(401, INFO)),
    "401 private": Case("there is no model 'user/repo' here or on the Hub", status(401, INFO, "RepoNotFound"), code=2),
    "404 repo": Case("there is no model 'user/repo' here or on the Hub", status(404, INFO, "RepoNotFound"), code=2),
    "404 revision": Case("has no revision 'main'", status(404, INFO, "RevisionNotFound"), code=2),
    "404 file": Case("lacks a file", status(404, HEAD, "EntryNotFound")),
    "403 gated": Case("is gated", status(403, HEAD, "GatedRepo")),
    "403": Case("refused access", status(403, INFO)),
    "429": Case("too many requests", Fault("status", INFO, 429, {"Retry-After": "3600"}), mends=True),
    "429 file": Case("too many requests", Fault("status", HEAD, 429, {"RateLimit": '"api";r=0;t=600'})),
    "500": Case("HTTP status 500", status(500, INFO)),
    "503 weights": Case("HTTP status 503", status(503, WEIGHTS), mends=True),
    "500 once": Case(None, status(500, INFO, times=1)),
    "cut": Case("breaking off", Fault("cut", WEIGHTS), mends=True),
    "cut once": Case(None, Fault("cut", WEIGHTS, times=1)),
    "cut config": Case("breaking off", Fault("cut", r"^GET .*config\.json")),
    "wrong checksum": Case("checksum", Fault("flip", WEIGHTS), mends=True),
    "wrong checksum of the config": Case("checksum", Fault("flip", r"^GET .*config\.json"), mends=True),
    "hang": Case("does not answer", Fault("hang", INFO)),
    "hang everywhere": Case("does not answer", Fault("hang", "")),
    "hang at a head": Case("does not answer", Fault("hang", HEAD)),
    "hang at the weights": Case("does not answer", Fault("hang", WEIGHTS), mends=True),
    "stall": Case("breaking off", Fault("stall", WEIGHTS), mends=True),
    "trickle": Case("too slowly", Fault("trickle", WEIGHTS)),
    "garbage": Case("the Hub failed", Fault("garbage", INFO)),
    "absurd size": Case("more than a checkpoint can need", change=sizes(model_safetensors=10**12)),
    "no config": Case("has no config.json", change=lambda server: files(server).pop("config.json")),
    "another architecture": Case(
        "not a stackrev checkpoint", change=lambda server: put(server, "config.json", b'{"model_type": "gpt2"}')
    ),
    "a pickle alone": Case("has no model.safetensors", change=only_pickle),
    "a pickle for weights": Case("is a pickle", change=lambda server: pickled(server, "model.safetensors")),
    "a signed pickle for weights": Case("not a safetensors file", change=signed_pickle),
    "a pickle beside": Case(None, change=lambda server: pickled(server, "pytorch_model.bin")),
    "not finite": Case("not finite", change=not_finite),
    "names with tricks": Case(None, change=tricks),
    "private, no token": Case(
        "there is no model",
        change=lambda server: setattr(server.repos[REPO], "private", True),
        extra={"HF_TOKEN": None},
        code=2,
    ),
    "private": Case(None, change=lambda server: setattr(server.repos[REPO], "private", True)),
}

ETAG = "names no valid checksum"
OTHER = "/api/models/user/repo/revision/main?blobs=true"
CARD = r"^HEAD .*README\.md"
FILE = r"^GET .*README\.md"
LFS = r"^HEAD .*safetensors"

# What a Hub says about a file decides nothing about where it is written.
CASES |= {
    "etag absolute": Case(ETAG, headers(CARD, ETag='"OUTSIDE/evil"')),
    "etag absolute config": Case(ETAG, headers(HEAD, ETag="OUTSIDE/evil")),
    "etag upwards": Case(ETAG, headers(CARD, ETag='"../../../../evil"')),
    "etag upwards linked": Case(ETAG, headers(LFS, **{"X_Linked_Etag": '"../../../../evil"'})),
    "etag empty": Case(ETAG, headers(CARD, ETag='""')),
    "etag missing": Case(ETAG, headers(CARD, ETag=None)),
    "etag dot": Case(ETAG, headers(CARD, ETag='"."')),
    "etag short": Case(ETAG, headers(CARD, ETag='"' + "a" * 39 + '"')),
    "etag long": Case(ETAG, headers(CARD, ETag='"' + "a" * 63 + '/"')),
    "etag with a line end": Case(ETAG, headers(CARD, ETag='"' + "a" * 40 + '\\n"')),
    "etag quoted inside": Case(ETAG, headers(CARD, ETag='""' + "a" * 40 + '""')),
    "etag latin": Case(ETAG, headers(CARD, ETag='"' + "\xe9" * 40 + '"')),
    "etag device": Case(ETAG, headers(CARD, ETag='"NUL"')),
    "etag twice": Case(ETAG, headers(CARD, ETag=['"' + "a" * 40 + '"', '"OUTSIDE/evil"'])),
    "etag of other contents": Case("checksum", headers(CARD, ETag='"' + "a" * 40 + '"')),
    "etag weak and other": Case("checksum", headers(CARD, ETag='W/"' + "a" * 64 + '"')),
    "commit upwards": Case("another commit", headers(CARD, **{"X_Repo_Commit": "../../../../evil"})),
    "commit absolute": Case("another commit", headers(HEAD, **{"X_Repo_Commit": "OUTSIDE/evil"})),
    "attachment": Case(
        None, headers(r"README\.md|config", **{"Content_Disposition": 'attachment; filename="../../evil"'})
    ),
    "location": Case(None, headers(FILE, Location="file:///etc/evil")),
}
# Redirects.
CASES |= {
    "loop": Case("again and again", elsewhere(INFO, OTHER)),
    "loop at a file": Case("again and again", elsewhere(FILE, f"/{REPO}/resolve/main/README.md")),
    "slow loop": Case("the Hub failed", elsewhere(INFO, OTHER, seconds=2.5)),
    "to a file": Case("makes no sense", elsewhere(INFO, "file:///etc/passwd")),
    "to ftp": Case("makes no sense", elsewhere(FILE, "ftp://127.0.0.1/evil")),
    "to no host": Case("makes no sense", elsewhere(INFO, "https://?evil")),
    "to no port": Case("makes no sense", elsewhere(INFO, "http://127.0.0.1:99999/evil")),
    "to a bad address": Case("makes no sense", elsewhere(INFO, "http://[evil/")),
    "to a user": Case("makes no sense", elsewhere(INFO, "http://user:evil@127.0.0.1/")),
    "to latin": Case("makes no sense", elsewhere(INFO, "http://\xe9vil/")),
    "to a closed port": Case("the Hub failed", elsewhere(INFO, "http://127.0.0.1:1/evil")),
    "head to a stranger": Case("HTTP status 302", elsewhere(HEAD, "http://127.0.0.1:1/evil")),
}
# Time.
CASES |= {
    "drip": Case("too slowly", Fault("drip", INFO)),
    "drip at a head": Case("too slowly", Fault("drip", HEAD)),
    "drip at the weights": Case("too slowly", Fault("drip", WEIGHTS), mends=True),
    "drip everywhere": Case("too slowly", Fault("drip", "")),
    "trickled json": Case("too slowly", Fault("trickle", INFO)),
    "waiting": Case("too slowly", Fault("waiting", INFO)),
    "retry after a second, for ever": Case("HTTP status 503", Fault("status", INFO, 503, {"Retry-After": "1"})),
    "retry after nonsense": Case("HTTP status 503", Fault("status", INFO, 503, {"Retry-After": "-9" * 99})),
    "retry when told to, at a file": Case("too many requests", Fault("status", FILE, 429, {"Retry-After": "0"})),
}
# Size.
CASES |= {
    "bomb of gzip": Case("too large", Fault("bomb", INFO, headers={"Content-Encoding": "gzip"})),
    "bomb of deflate": Case("too large", Fault("bomb", INFO, headers={"Content-Encoding": "deflate"})),
    "bomb of brotli": Case("compressed", Fault("bomb", INFO, headers={"Content-Encoding": "br"})),
    "bomb in a bomb": Case("compressed", Fault("bomb", INFO, headers={"Content-Encoding": "gzip, gzip"})),
    "bomb as a file": Case("the Hub failed", Fault("bomb", FILE, headers={"Content-Encoding": "gzip"})),
    "bomb beside an error": Case("HTTP status 418", Fault("status", INFO, 418, data=b"x" * 10**7)),
    "flood": Case("too large", Fault("flood", INFO)),
    "flood as a file": Case("size", Fault("flood", FILE)),
    "flood in a header": Case("not HTTP", Fault("flood", INFO, what="header")),
    "flood of headers": Case("not HTTP", Fault("flood", INFO, what="headers")),
    "nested": Case("not JSON", Fault("body", INFO, data=b"[" * 4_000_000)),
    "many lists": Case("makes no sense", Fault("body", INFO, data=b"[" + b"[]," * 1_300_000 + b"0]")),
    "a size too small": Case("size", change=sizes(README_md=3)),
    "a size too large": Case("size", change=sizes(README_md=10**5)),
    "a length that lies": Case("size", headers(FILE, **{"Content_Length": "5"})),
    "a length that is none": Case("the Hub failed", headers(FILE, **{"Content_Length": "-5"})),
    "two lengths": Case("the Hub failed", headers(FILE, **{"Content_Length": ["5", "6"]})),
}
# Nonsense, and words of the Hub's, which nobody should see.
CASES |= {
    "not HTTP": Case("not HTTP", Fault("noise", INFO, data=b"\x00\xff evil\r\n\r\n")),
    "another protocol": Case("not HTTP", Fault("noise", HEAD, data=b"SSH-2.0-evil\r\n")),
    "nothing": Case("the Hub failed", Fault("noise", INFO)),
    "status 999": Case("HTTP status 999", Fault("status", INFO, 999)),
    "a list": Case("makes no sense", Fault("body", INFO, data=b"[1]")),
    "a null": Case("makes no sense", Fault("body", INFO, data=b"null")),
    "a commit that is a path": Case("makes no sense", Fault("body", INFO, data=b'{"sha": "../evil", "siblings": []}')),
    "words": Case(
        "refused access",
        Fault("status", INFO, 403, {"X-Error-Message": "\x1b[31mevil"}, data=b'{"error": "\x1b[2Jevil"}'),
    ),
    "long words": Case("HTTP status 418", Fault("status", INFO, 418, {"X-Error-Code": "evil" * 1000})),
    "warnings": Case(None, headers("", **{"X_HF_Warning": "evil; evil"})),
}
