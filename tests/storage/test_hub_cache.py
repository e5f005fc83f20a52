"""The Hub's cache: one layout for all tools, and nothing outside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hub_runs import HURRIED, REPO, make, run, run_python
from hub_server import File, Hub

from stackrev.errors import CheckpointError, HubError
from stackrev.storage import checkpoints, hub, hub_cache, names

COMMIT = "c" * 40
DATA = b"some contents"
SHA = hashlib.sha256(DATA).hexdigest()
GIT = File(DATA, lfs=False).sha1


def cached(tmp_path):
    return hub_cache.repo(tmp_path / "hub", REPO)


def stores(repo, checksum=SHA, data=DATA, commit=COMMIT, name="README.md"):
    return repo.store(commit, name, checksum, len(data), lambda: [data[:3], data[3:]])


@pytest.mark.parametrize("checksum", [SHA, GIT])
def test_a_file_is_where_every_tool_looks_for_it(tmp_path, checksum):
    repo = cached(tmp_path)
    assert stores(repo, checksum)
    repo.remember("main", COMMIT)
    link = tmp_path / "hub" / "models--user--repo" / "snapshots" / COMMIT / "README.md"
    assert link.readlink() == Path("../../blobs") / checksum
    assert link.read_bytes() == DATA
    assert repo.commit("main") == COMMIT
    assert repo.has(COMMIT, "README.md")
    assert list(hub_cache.refs(tmp_path / "hub")) == [(REPO, "main")]


def test_contents_are_fetched_once_and_again_when_they_have_gone_bad(tmp_path):
    repo = cached(tmp_path)
    assert stores(repo)
    assert not stores(repo, commit="d" * 40)
    (repo.folder / "blobs" / SHA).write_bytes(b"something else")
    assert not repo.has(COMMIT, "README.md")
    assert stores(repo)
    assert repo.has(COMMIT, "README.md")


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", b"Some contents"])
def test_what_the_checksum_does_not_say_is_not_written(tmp_path, data):
    repo = cached(tmp_path)
    with pytest.raises(CheckpointError, match="checksum"):
        stores(repo, data=data)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "checksum", ["", ".", "..", "/etc/x", "../" * 14 + "xx", "a" * 39, "a" * 41, "A" * 40, "a" * 40 + "\n", "é" * 40]
)
def test_a_path_is_no_checksum(tmp_path, checksum):
    with pytest.raises(HubError):
        stores(cached(tmp_path), checksum)
    with pytest.raises(HubError):
        stores(cached(tmp_path), commit=checksum)
    with pytest.raises(HubError):
        stores(cached(tmp_path), name=checksum)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "target", ["/outside/file", "../../../outside", "../../blobs/../x", "../../blobs/x", "README.md"]
)
def test_a_link_that_leads_outside_is_an_error_until_it_is_pulled_again(tmp_path, target, monkeypatch):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        monkeypatch.setattr("stackrev.storage.hub_settings.endpoint", lambda: server.url)
        folder = hub.pull(REPO, cache_dir=tmp_path / "hub", token="x")
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to(target)
        with pytest.raises(CheckpointError, match="outside the cache"):
            hub.resolve(REPO, cache_dir=tmp_path / "hub")
        assert hub.cached_models(tmp_path / "hub") == {}
        assert hub.pull(REPO, cache_dir=tmp_path / "hub", token="x") == folder
        checkpoints.verify(hub.resolve(REPO, cache_dir=tmp_path / "hub"))


def test_a_link_in_the_place_of_contents_is_not_written_through(tmp_path):
    repo, victim = cached(tmp_path), tmp_path / "victim"
    victim.write_bytes(b"mine")
    (repo.folder / "blobs").mkdir(parents=True)
    (repo.folder / "blobs" / SHA).symlink_to(victim)
    assert stores(repo)
    assert victim.read_bytes() == b"mine"
    assert (repo.folder / "blobs" / SHA).read_bytes() == DATA


def test_a_failed_pull_takes_nothing_from_another_commit(tmp_path, monkeypatch):
    """The second commit has the weights of the first and a configuration that is none."""
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        monkeypatch.setattr("stackrev.storage.hub_settings.endpoint", lambda: server.url)
        first = hub.pull(REPO, cache_dir=tmp_path / "hub", token="x")
        server.add(REPO, tmp_path / "mine", {"config.json": b"{}"})
        with pytest.raises(CheckpointError, match="not a stackrev checkpoint"):
            hub.pull(REPO, cache_dir=tmp_path / "hub", token="x")
    assert hub.resolve(REPO, cache_dir=tmp_path / "hub") == first
    checkpoints.verify(first)


OTHERS = """
import sys, warnings
from huggingface_hub import scan_cache_dir, snapshot_download
theirs = snapshot_download("user/repo", cache_dir=sys.argv[1], local_files_only=len(sys.argv) > 2)
found = scan_cache_dir(sys.argv[1])
assert not found.warnings, found.warnings
assert [repo.repo_id for repo in found.repos] == ["user/repo"]
print(theirs)
"""


@pytest.mark.slow
def test_the_cache_is_shared_with_other_tools(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        home = tmp_path / "ours"
        folder = run(server, home, "models", "pull", REPO).out.strip()
        theirs = run_python(server, home, "-c", OTHERS, home / "hub", "offline")
        assert (theirs.code, theirs.out.strip()) == (0, folder), theirs.err
        home = tmp_path / "theirs"
        theirs = run_python(server, home, "-c", OTHERS, home / "hub", HF_HUB_DISABLE_XET="1")
        assert theirs.code == 0, theirs.err
        server.requests.clear()
        assert str(hub.resolve(REPO, cache_dir=home / "hub")) == theirs.out.strip()
        assert run(server, home, "models", "info", REPO).code == 0
        assert not server.requests
        checkpoints.verify(hub.resolve(REPO, cache_dir=home / "hub"))


# Four threads pull, to one cache and to several, while another uses huggingface_hub for itself.
THREADS = """
import sys, threading
from pathlib import Path
import huggingface_hub
from huggingface_hub import HfApi
from stackrev.storage import hub
client = huggingface_hub.get_session()
before = dict(vars(client)), huggingface_hub.constants.HF_HUB_DISABLE_XET
errors, over = [], threading.Event()

def attempt(work, *arguments):
    try:
        work(*arguments)
    except BaseException as error:
        errors.append(f"{type(error).__name__}: {error}")

def pull(number, turn):
    barrier.wait()
    hub.pull("user/repo", cache_dir=Path(sys.argv[1], f"{turn}-{number % 3}"))

def others():
    while not over.is_set():
        assert HfApi().model_info("user/repo").id == "user/repo"
        assert huggingface_hub.get_session() is client
        assert (vars(client).keys(), huggingface_hub.constants.HF_HUB_DISABLE_XET) == (before[0].keys(), before[1])

other = threading.Thread(target=attempt, args=(others,))
other.start()
for turn in range(5):
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=attempt, args=(pull, number, turn)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
over.set()
other.join()
sys.exit("\\n".join(errors) or 0)
"""


def test_threads_pull_at_once_and_huggingface_hub_stays_as_it_is(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        done = run_python(server, tmp_path / "home", "-c", THREADS, tmp_path / "caches")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert len(list((tmp_path / "caches").iterdir())) == 15
    for cache in (tmp_path / "caches").iterdir():
        checkpoints.verify(hub.cached_models(cache)[REPO])


FORKS = (
    HURRIED
    + """
import sys
from concurrent.futures import ThreadPoolExecutor
from stackrev.storage import hub
from stackrev.errors import StackrevError
def pull(name):
    try:
        return hub.pull(name)
    except StackrevError as error:
        return error.message
print(*ThreadPoolExecutor(4).map(pull, ["user/repo", "user/other"] * 4), sep="\\n")
"""
)


def test_one_call_that_fails_takes_nothing_from_another(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        done = run_python(server, tmp_path / "home", "-c", FORKS)
    lines = done.out.splitlines()
    assert len(set(lines[::2])) == 1
    assert Path(lines[0]).is_dir()
    assert set(lines[1::2]) == {"there is no model 'user/other' here or on the Hub"}, done.err


def test_names_of_branches_that_are_folders(tmp_path):
    repo = cached(tmp_path)
    repo.remember("refs/pr/1", COMMIT)
    assert repo.commit("refs/pr/1") == COMMIT
    assert list(hub_cache.refs(tmp_path / "hub")) == [(REPO, "refs/pr/1")]
    with pytest.raises(HubError, match="cannot be written"):
        repo.remember("refs/pr/1/x", COMMIT)
    assert names.parse("user/repo@../../x") is None


@pytest.mark.parametrize(
    "contents", [b"", b"main", b"../../x", b"\xff" * 40, b"c" * 5000, b"C" * 40, b"c" * 40 + b"/x"]
)
def test_a_reference_that_has_gone_bad_is_none(tmp_path, contents):
    repo = cached(tmp_path)
    (repo.folder / "refs").mkdir(parents=True)
    (repo.folder / "refs" / "main").write_bytes(contents)
    assert repo.commit("main") is None
    assert hub.cached_models(tmp_path / "hub") == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_in_the_cache_keeps_nobody_waiting(tmp_path):
    repo = cached(tmp_path)
    for name in ("refs/main", f"blobs/{SHA}"):
        (repo.folder / name).parent.mkdir(parents=True)
        os.mkfifo(repo.folder / name)
    assert repo.find("main") is None
    assert hub.cached_models(tmp_path / "hub") == {}
    with pytest.raises(HubError, match="not a regular file"):
        stores(repo)
