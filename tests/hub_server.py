"""A small Hugging Face Hub on loopback, for the stock client: its HTTP API on one port, its file storage on another.

Implemented is what creating a repo, uploading a folder and downloading a snapshot need: repos/create, validate-yaml,
preupload, the LFS batch and its upload and verification, commit, model info, tree, and resolve with HEAD, GET and
ranges. Faults are injected by the test: `hub.fault = Fault("cut", "model.safetensors")`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from hub_faults import Fault, interrupt, send_body, send_head

TOKEN = "hf_right"


@dataclass
class File:
    data: bytes
    lfs: bool

    @property
    def sha1(self) -> str:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
        data = pointer % (self.sha256.encode(), len(self.data)) if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.sha1


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, File], branch: str = "main") -> str:
        contents = sorted((path, each.etag) for path, each in files.items())
        sha = hashlib.sha1(json.dumps([contents, self.refs.get(branch), len(self.commits)]).encode()).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


class Hub:
    """Both servers; a context manager that runs them.

    Attributes:
        url: The endpoint.
        repos: What is there, by `user/repo`.
        requests: The request lines so far, as `GET /path`; those to the storage start with `storage `.
        authorized: Those that came with a token.
        elsewhere: Where uploads are said to be verified, if not here.
        fault: What goes wrong.
        sizes: Sizes that the Hub claims, by path, where they are not the true ones.
        cards: The cards that have been validated.
        began: When the first request came since this was last set to None.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.agents: set[str] = set()
        self.authorized: list[str] = []
        self.elsewhere: str | None = None
        self.fault: Fault | None = None
        self.sizes: dict[str, int] = {}
        self.cards: list[str] = []
        self.began: float | None = None
        self.stop = threading.Event()
        self.servers = [self._serve(handler) for handler in (Api, Storage)]
        self.url, self.storage = (f"http://127.0.0.1:{each.server_address[1]}" for each in self.servers)

    def _serve(self, handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": self}))
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # a client that goes away is what these tests are about
        return server

    def __enter__(self) -> Hub:
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, repo: str, folder=None, files: dict[str, bytes] | None = None, **options) -> str:
        """Put files into a repo, as somebody else would; the commit."""
        contents = {each.name: each.read_bytes() for each in folder.iterdir()} if folder else {}
        contents |= files or {}
        self.repos.setdefault(repo, Repo(**options))
        return self.repos[repo].commit({path: File(data, _is_lfs(path)) for path, data in contents.items()})


def _is_lfs(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".pt"))


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    prefix = ""

    def log_message(self, *_) -> None:
        pass

    def handle_one(self) -> None:
        self.url = urlsplit(self.path)
        line = f"{self.prefix}{self.command} {unquote(self.url.path)}"
        self.hub.requests.append(line)
        self.hub.began = self.hub.began or time.monotonic()
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        if "Authorization" in self.headers:
            self.hub.authorized.append(line)
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self.read_chunks()
        else:
            self.body = self.rfile.read(length)
        self.wrong = None
        fault = self.hub.fault
        if fault is not None and fault.times > 0 and re.search(fault.where, line):
            fault.times -= 1
            if interrupt(self, fault):
                return
            self.wrong = fault
        self.respond()

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        fault = self.wrong
        if fault is not None and fault.kind in ("garbage", "body"):
            data = fault.data or b"<html>"
        if fault is not None and fault.kind == "headers":
            headers = {**headers, **fault.headers}
        self.send_response(status)
        for name, value in headers.items():
            for each in value if isinstance(value, list) else [value]:
                if each is not None:
                    self.send_header(name, each)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        send_head(self, fault)
        if self.command != "HEAD":
            send_body(self, data, fault)

    def json(self, value, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send_file(self, data: bytes, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            self.answer(200, data, headers)
            return
        start, end = int(match[1]), int(match[2] or len(data) - 1)
        part = data[start : end + 1]
        self.answer(206, part, {**headers, "Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"})


class Storage(Handler):
    prefix = "storage "

    def respond(self) -> None:
        oid = self.url.path.rpartition("/")[2]
        if "Authorization" in self.headers:  # storage belongs to somebody else, who must not see the token
            self.json({"error": "leaked token"}, 400)
        elif self.command == "PUT":
            self.hub.stored[oid] = self.body
            self.answer(200 if hashlib.sha256(self.body).hexdigest() == oid else 400, b"", {"ETag": oid})
        elif oid in self.hub.stored:
            self.send_file(self.hub.stored[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})
        else:
            self.answer(404, b"", {})


class Api(Handler):
    def respond(self) -> None:
        path = unquote(self.url.path)
        self.allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command == "POST" and not self.allowed and path != "/api/validate-yaml":
            self.json({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            self.create(json.loads(self.body))
        elif path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(self.body)["content"])
            self.json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git)?(?:/(.*))?", path):
            repo = self.hub.repos.get(match[1])
            if repo is None or (repo.private and not self.allowed):
                self.missing("RepoNotFound", 404 if self.allowed else 401)
            elif repo.gated and "/resolve/" in path:
                self.missing("GatedRepo", 403)
            else:
                self.in_repo(match[1], repo, match[2] or "")
        else:
            self.json({"error": "no such endpoint"}, 404)

    def missing(self, code: str, status: int = 404) -> None:
        self.json({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def create(self, asked) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repos:
            self.json({"error": "You already created this model repo", "url": url}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repos[name] = Repo(private=private)
        self.hub.repos[name].commit({".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        self.json({"url": url, "name": name, "id": name})

    def in_repo(self, name: str, repo: Repo, rest: str) -> None:
        first, _, rest = rest.partition("/")
        match first:
            case "info":
                self.batch(json.loads(self.body))
            case "verify":
                asked = json.loads(self.body)
                stored = self.hub.stored.get(asked["oid"])
                self.json({}, 200 if stored is not None and len(stored) == asked["size"] else 404)
            case "preupload":
                files = [
                    {
                        "path": each["path"],
                        "uploadMode": "lfs" if _is_lfs(each["path"]) else "regular",
                        "shouldIgnore": False,
                    }
                    for each in json.loads(self.body)["files"]
                ]
                self.json({"files": files})
            case "commit":
                self.commit(name, repo, rest)
            case "" | "revision":
                self.info(name, repo, rest or "main")
            case "tree":
                self.tree(repo, rest)
            case "resolve":
                revision, _, path = rest.partition("/")
                self.resolve(repo, revision, path)
            case _:
                self.json({"error": "no such endpoint"}, 404)

    def batch(self, asked) -> None:
        repo = self.url.path[1:].partition(".git/")[0]
        objects = []
        for each in asked["objects"]:
            upload = {"href": f"{self.hub.storage}/lfs/{each['oid']}"}
            verify = {"href": f"{self.hub.elsewhere or self.hub.url}/api/models/{repo}/verify"}
            known = each["oid"] in self.hub.stored
            objects.append(each if known else {**each, "actions": {"upload": upload, "verify": verify}})
        self.json({"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/vnd.git-lfs+json"})

    def commit(self, name: str, repo: Repo, revision: str) -> None:
        files = dict(repo.commits[repo.find(revision)])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif operation["key"] == "lfsFile":
                files[value["path"]] = File(self.hub.stored[value["oid"]], True)
        sha = repo.commit(files, revision)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        self.json({"success": True, "commitUrl": url, "commitOid": sha, "commitMessage": "", "hookOutput": ""})

    def describe(self, path: str, file: File) -> dict:
        size = self.hub.sizes.get(path, len(file.data))
        raw = {"size": size, "lfs": {"oid": file.sha256, "sha256": file.sha256, "size": size, "pointerSize": 130}}
        return raw if file.lfs else {"size": size}

    def info(self, name: str, repo: Repo, revision: str) -> None:
        sha = repo.find(revision)
        if sha is None:
            self.missing("RevisionNotFound")
            return
        siblings = [
            {"rfilename": path, "blobId": each.sha1, **self.describe(path, each)}
            for path, each in repo.commits[sha].items()
        ]
        raw = {"_id": "1", "id": name, "modelId": name, "sha": sha, "private": repo.private, "gated": repo.gated}
        self.json({**raw, "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})

    def tree(self, repo: Repo, revision: str) -> None:
        sha = repo.find(revision)
        if sha is None:
            self.missing("RevisionNotFound")
            return
        self.json(
            [
                {"type": "file", "path": path, "oid": each.sha1, **self.describe(path, each)}
                for path, each in repo.commits[sha].items()
            ]
        )

    def resolve(self, repo: Repo, revision: str, path: str) -> None:
        sha = repo.find(revision)
        if sha is None:
            self.missing("RevisionNotFound")
            return
        file = repo.commits[sha].get(path)
        if file is None:
            self.missing("EntryNotFound")
            return
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.lfs:
            if self.command == "HEAD":
                self.answer(200, b"", {**headers, "Content-Length": str(len(file.data))})
            else:
                self.send_file(file.data, headers)
            return
        self.hub.stored.setdefault(file.sha256, file.data)
        location = f"{self.hub.storage}/lfs/{file.sha256}"
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data)), "Location": location}
        self.answer(302, b"", {**headers, **linked})
