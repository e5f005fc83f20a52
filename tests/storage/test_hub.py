"""The Hub: the stock client, in processes of its own, against a small Hub on loopback, and all that can go wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Fault, Hub

import stackrev
from stackrev.config import Config, DataConfig, ModelConfig
from stackrev.errors import CheckpointError, HubError, ModelNotFoundError, StackrevError
from stackrev.models.reversers import LSTMReverser, StackLSTMReverser, build
from stackrev.storage import checkpoints, hub, names

ROOT = Path(stackrev.__file__).parent.parent
SMALL = Config(model=ModelConfig(hidden_size=24, stack_width=8), data=DataConfig(held_out_samples=4))
REPO = "user/repo"
WEIGHTS = r"^(storage )?GET .*(lfs|model\.safetensors)"
LIMIT_SECONDS = 30.0


def make(folder, config=SMALL):
    model = build(config.model, torch.Generator().manual_seed(0))
    checkpoints.save(folder, model, config, history=[{"batch": 1}])
    return model


def environment(server, home, **extra):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    clean |= {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    clean |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    return {key: value for key, value in (clean | extra).items() if value is not None}


@dataclass
class Answer:
    """What a process answered, and how long it took from its first request on."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self):
        return json.loads(self.out)


def run_python(server, home, *arguments, **extra):
    """A process of its own."""
    server.began = None
    variables = environment(server, home, **extra)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=variables, check=False
    )
    end = time.monotonic()
    return Answer(done.returncode, done.stdout, done.stderr, end - (server.began or end))


def run(server, home, *arguments, **extra):
    """A command of stackrev in a process of its own."""
    return run_python(server, home, "-m", "stackrev", *arguments, **extra)


def assert_refused(answer, *, message=""):
    """One line and perhaps a hint on stderr, nothing on stdout, exit code 1, in time."""
    lines = answer.err.splitlines()
    assert answer.code == 1, answer.err
    assert answer.out == ""
    assert lines, answer
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert all(each.startswith("hint: ") for each in lines[1:])
    assert message in lines[0]
    assert answer.seconds < LIMIT_SECONDS


def trusted(home):
    """What a later run would take from a cache; all of it must be whole."""
    models = hub.cached_models(Path(home) / "hub")
    for folder in models.values():
        checkpoints.verify(folder)
    return models


# Names.


@pytest.mark.parametrize(
    "name",
    [
        *("", "repo", "a/b/c", "/etc/passwd", "../b", "a/..", "./a", "~/a", "a/b@", "a/b@..", "a/b@../../x", "a/b@/x"),
        *("a/b@x/../y", "a/b@x//y", "a/b@.git", "a/b@x.lock", "a--b/c", "a/b.git", "-a/b", "a/-b", "a/b\n", "a\\b/c"),
        *(
            "a/b@c@d",
            "a/b c",
            "a/b?x=1",
            "a/b#c",
            "http://h/a/b",
            "a/b@%2e%2e",
            "a\0/b",
            "é/b",
            "a" * 97 + "/b",
            "a/b@-x",
        ),
    ],
)
def test_names_with_tricks_are_none(name, tmp_path):
    assert names.parse(name) is None
    assert names.parse(f"hf:{name}") is None
    with pytest.raises(ModelNotFoundError) as caught:
        hub.resolve(name, cache_dir=tmp_path)
    assert "\n" not in caught.value.message
    with pytest.raises(StackrevError):
        hub.pull(name, cache_dir=tmp_path)


def test_what_is_nearby_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(Path("user") / "repo")
    assert hub.resolve(REPO, cache_dir=tmp_path / "cache") == Path(REPO)
    for name in names.packaged_names():
        assert hub.resolve(name) == names.resolve(name)


def test_nothing_is_imported_to_find_what_is_nearby(tmp_path):
    make(tmp_path / "mine")
    code = "import sys; from stackrev.storage import hub; hub.resolve(sys.argv[1]); "
    code += "assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "mine")], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


# There and back.


def best_model(tmp_path):
    """The packaged model where there is one, and a small untrained one where not, with the score it must have."""
    source = tmp_path / "source"
    if "stack-lstm" in names.packaged_names():
        shutil.copytree(names.resolve("stack-lstm"), source)
        return source, 1.0
    make(source)
    return source, 0.0


def test_push_delete_pull_and_the_server_goes_away(tmp_path):
    source, coarse = best_model(tmp_path)
    weights = (source / "model.safetensors").read_bytes()
    score = ("evaluate", "--lengths", "65-128", "--json", "--model")
    with Hub() as server:
        pushed = run(server, tmp_path / "home", "models", "push", source, REPO, "--private", "--json")
        assert pushed.code == 0, pushed.err
        assert pushed.err == ""
        assert server.repos[REPO].private
        commit = server.repos[REPO].refs["main"]
        assert (pushed.json["commit"], pushed.json["url"]) == (commit, f"{server.url}/{REPO}/commit/{commit}")
        assert set(server.repos[REPO].commits[commit]) == {*checkpoints.FILES, ".gitattributes"}
        assert sum(each.startswith("storage PUT") for each in server.requests) == 1
        assert any("stackrev/" in each or "stackrev" in each for each in server.agents)
        card = server.repos[REPO].commits[commit]["README.md"].data.decode()
        assert pushed.json["scores"]["65-128"]["coarse"] == coarse
        assert f"value: {coarse}" in card
        assert f"--model {REPO} " in card
        shutil.rmtree(source)
        shutil.rmtree(tmp_path / "home", ignore_errors=True)

        for number, name in enumerate((REPO, f"{REPO}@{commit}")):
            home = tmp_path / f"home{number}"
            pulled = run(server, home, "models", "pull", name, "--json")
            assert pulled.code == 0, pulled.err
            assert pulled.err == ""
            assert pulled.json["commit"] == commit
            assert (Path(pulled.json["folder"]) / "model.safetensors").read_bytes() == weights
            assert pulled.json["scores"] == pushed.json["scores"]
        server.requests.clear()
        answer = run(server, home, *score, f"{REPO}@{commit}")
        assert answer.code == 0, answer.err
        assert answer.json[0]["coarse"] == coarse
        assert not server.requests  # a cached model needs no network
    for extra, options in (({}, ()), ({}, ("--offline",)), ({"HF_HUB_OFFLINE": "1"}, ())):
        answer = run(server, tmp_path / "home0", *score, REPO, *options, **extra)
        assert answer.code == 0, answer.err
        assert answer.json[0]["coarse"] == coarse
    verified = run(server, tmp_path / "home0", "models", "verify", REPO, "--offline", "--json")
    assert verified.code == 0, verified.err
    listed = run(server, tmp_path / "home0", "models", "list", "--json")
    assert REPO in [each["model"] for each in listed.json]
    assert_refused(run(server, tmp_path / "home0", "models", "pull", REPO), message="the Hub failed")
    assert_refused(
        run(server, tmp_path / "home0", "models", "info", "user/other", "--offline"), message="not in the cache"
    )


def test_a_cached_model_costs_little_more_than_a_folder(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        run(server, tmp_path / "home", "models", "pull", REPO)

    def seconds(name):
        start = time.monotonic()
        assert run(server, tmp_path / "home", "models", "info", name).code == 0
        return time.monotonic() - start

    near, far = (min(seconds(name) for _ in range(3)) for name in (tmp_path / "mine", REPO))
    assert far < near + 1.0


def test_dry_run_sends_nothing(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        answer = run(server, tmp_path / "home", "models", "push", tmp_path / "mine", REPO, "--dry-run")
        assert not server.requests
    assert answer.code == 0
    assert "model.safetensors" in answer.out
    assert "license: mit" in answer.out
    assert answer.err == f"note: nothing was sent to {REPO}\n"


LIBRARY = """
import sys
from pathlib import Path
from stackrev.storage import checkpoints
from stackrev.errors import CheckpointError
from stackrev.models.reversers import LSTMReverser, StackLSTMReverser
source, cache = map(Path, sys.argv[1:])
model = StackLSTMReverser.from_pretrained(source)
url = model.push_to_hub("user/repo", config=checkpoints.load_config(source)[0], private=True)
back = StackLSTMReverser.from_pretrained("user/repo", cache_dir=cache)
pinned = {"revision": url.rpartition("/")[2], "local_files_only": True}
again = StackLSTMReverser.from_pretrained("user/repo", cache_dir=cache, **pinned)
for key, each in model.state_dict().items():
    assert each.equal(back.state_dict()[key]) and each.equal(again.state_dict()[key])
try:
    LSTMReverser.from_pretrained("user/repo", cache_dir=cache)
except CheckpointError as error:
    sys.stderr.write(error.message)
"""


def test_the_library_is_silent(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        done = run_python(server, tmp_path / "home", "-c", LIBRARY, tmp_path / "mine", tmp_path / "cache")
    assert (done.code, done.out) == (0, ""), done.err
    assert done.err == "user/repo holds a StackLSTMReverser, not a LSTMReverser"


def test_from_pretrained_is_strict_about_folders(tmp_path):
    model = make(tmp_path / "mine")
    model.save_pretrained(tmp_path / "again")
    assert StackLSTMReverser.from_pretrained(tmp_path / "again").config == SMALL.model
    with pytest.raises(CheckpointError, match="not a LSTMReverser"):
        LSTMReverser.from_pretrained(str(tmp_path / "again"))
    with pytest.raises(ModelNotFoundError):
        LSTMReverser.from_pretrained(tmp_path / "again", revision="v1")


# What goes wrong.


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
    """

    message: str | None
    fault: Fault | None = None
    change: object = None
    mends: bool = False
    extra: dict = field(default_factory=dict)


def status(code, where, header=None, **options):
    return Fault("status", where, code, {"X-Error-Code": header} if header else {}, **options)


INFO = r"/api/models/user/repo"
HEAD = r"^HEAD .*config\.json"


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


def absurd(server):
    server.sizes["model.safetensors"] = 10**12


CASES = {
    "no fault": Case(None),
    "401": Case("refused access", status(401, INFO)),
    "401 private": Case("there is no model 'user/repo' here or on the Hub", status(401, INFO, "RepoNotFound")),
    "404 repo": Case("there is no model 'user/repo' here or on the Hub", status(404, INFO, "RepoNotFound")),
    "404 revision": Case("has no revision 'main'", status(404, INFO, "RevisionNotFound")),
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
    "absurd size": Case("more than a checkpoint can need", change=absurd),
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
    ),
    "private": Case(None, change=lambda server: setattr(server.repos[REPO], "private", True)),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases at once, as most of their time is spent waiting: what the pull answered, and what a second one did."""
    root = tmp_path_factory.mktemp("faults")
    make(root / "mine")

    def attempt(name):
        case, home = CASES[name], root / name.replace(" ", "-")
        home.mkdir()
        with Hub() as server:
            server.bomb = root / "executed"
            server.add(REPO, root / "mine")
            if case.change is not None:
                case.change(server)
            server.fault = replace(case.fault) if case.fault else None
            first = run(server, home, "models", "pull", REPO, **case.extra)
            left = trusted(home)
            server.fault = None
            second = run(server, home, "models", "pull", REPO, **case.extra) if case.mends else None
            return first, left, second, list(server.requests)

    slowest_first = sorted(CASES, key=lambda name: -("hang" in name or name in ("stall", "trickle")))
    with ThreadPoolExecutor(4) as pool:
        results = dict(zip(slowest_first, pool.map(attempt, slowest_first), strict=True))
    return root, results


@pytest.mark.parametrize("name", CASES)
def test_pull_when_something_is_wrong(outcomes, name):
    root, results = outcomes
    case, (first, left, second, requests) = CASES[name], results[name]
    if case.message is None:
        assert first.code == 0, first.err
        assert first.err == ""
        assert left
    else:
        assert_refused(first, message=case.message)
        assert not left
    if case.mends:
        assert second.code == 0, second.err
        checkpoints.verify(Path(second.out.strip()))
    assert not (root / "executed").exists()
    assert not [each for each in requests if ".bin" in each or "evil" in each]
    assert not [each for each in root.rglob("*evil*") if "evil" in each.name]


def test_a_cache_that_has_gone_bad_is_refused_and_pull_mends_it(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        folder = Path(run(server, tmp_path / "home", "models", "pull", REPO).out.strip())
        blob = (folder / "model.safetensors").resolve()
        data = bytearray(blob.read_bytes())
        data[-2] ^= 1
        blob.write_bytes(data)
        with pytest.raises(CheckpointError, match="checksum"):
            checkpoints.load(hub.resolve(REPO, cache_dir=tmp_path / "home" / "hub"))
        assert run(server, tmp_path / "home", "models", "pull", REPO).code == 0
        checkpoints.verify(folder)


def test_pull_fetches_what_is_new(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        first = run(server, tmp_path / "home", "models", "pull", REPO, "--json").json["commit"]
        checkpoints.save_scores(tmp_path / "mine", {"8-64": {"coarse": 0.5, "fine": 0.5, "samples": 1, "seed": 0}})
        second = server.add(REPO, tmp_path / "mine")
        assert run(server, tmp_path / "home", "models", "info", REPO, "--json").json["folder"].endswith(first)
        assert run(server, tmp_path / "home", "models", "pull", REPO, "--json").json["commit"] == second
        assert run(server, tmp_path / "home", "models", "info", REPO, "--json").json["folder"].endswith(second)


PUSH = """
import sys
from stackrev.storage import hub
from stackrev.errors import StackrevError
try:
    hub.push(sys.argv[1], "user/repo", evaluate=lambda folder: {})
except StackrevError as error:
    assert "torch" not in sys.modules
    sys.exit(f"error: {error.message}" + (f"\\nhint: {error.hint}" if error.hint else ""))
"""

PUSHES = {
    "wrong token": Case("refused access", extra={"HF_TOKEN": "hf_wrong"}),
    "offline": Case("network is off", extra={"HF_HUB_OFFLINE": "1"}),
    "500": Case("HTTP status 500", status(500, "preupload")),
    "429": Case("too many requests", Fault("status", "create", 429, {"Retry-After": "3600"})),
    "hang": Case("does not answer", Fault("hang", "storage PUT")),
    "403": Case("refused access", status(403, "/commit/")),
    "garbage": Case("the Hub failed", Fault("garbage", "batch")),
}


@pytest.fixture(scope="module")
def pushes(tmp_path_factory):
    """All pushes at once."""
    root = tmp_path_factory.mktemp("pushes")
    make(root / "mine")

    def attempt(case):
        with Hub() as server:
            server.fault = replace(case.fault) if case.fault else None
            return run_python(server, root / "home", "-c", PUSH, root / "mine", **case.extra)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(PUSHES, pool.map(attempt, PUSHES.values()), strict=True))


@pytest.mark.parametrize("name", PUSHES)
def test_push_when_something_is_wrong(pushes, name):
    assert_refused(pushes[name], message=PUSHES[name].message)


def test_push_refuses_what_it_cannot_name_or_read(tmp_path):
    make(tmp_path / "mine")
    for repo in ("repo", "a/b@main", "../x", "a/b/c"):
        with pytest.raises(HubError, match="not the name of a repo"):
            hub.push(tmp_path / "mine", repo, dry_run=True)
    with pytest.raises(ModelNotFoundError):
        hub.push("user/repo", "user/other", dry_run=True)
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="truncated"):
        hub.push(tmp_path / "mine", "user/repo", dry_run=True)
