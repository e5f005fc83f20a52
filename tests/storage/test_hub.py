"""The Hub: commands and scripts in processes of their own, against a small Hub on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_runs import REPO, ROOT, SMALL, assert_refused, make, run, run_python
from hub_server import Hub

from stackrev.errors import CheckpointError, HubError, ModelNotFoundError, StackrevError
from stackrev.models import load
from stackrev.models.lstm import LSTMReverser
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.storage import checkpoints, hub, names
from stackrev.storage.certificates import CERTIFICATE

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


@pytest.mark.slow
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
        sent = {*checkpoints.FILES, ".gitattributes"}
        if (source / CERTIFICATE).exists():
            sent.add(CERTIFICATE)
        assert set(server.repos[REPO].commits[commit]) == sent
        assert sum(each.startswith("storage PUT") for each in server.requests) == 1 + (CERTIFICATE in sent)
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


CACHED = """
import sys
from stackrev.storage import hub
assert hub.resolve("user/repo").is_dir()
assert not {"torch", "httpcore2", "httpx2", "huggingface_hub.hf_api"} & set(sys.modules), sys.modules.keys()
"""


def test_a_cached_model_costs_little_more_than_a_folder(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        assert run(server, tmp_path / "home", "models", "pull", REPO).code == 0
    done = run_python(server, tmp_path / "home", "-c", CACHED)
    assert (done.code, done.err) == (0, "")


@pytest.mark.slow
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
from stackrev.models.lstm import LSTMReverser
from stackrev.models.stack_lstm import StackLSTMReverser
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


@pytest.mark.slow
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


@pytest.mark.slow
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
            load(hub.resolve(REPO, cache_dir=tmp_path / "home" / "hub"))
        assert run(server, tmp_path / "home", "models", "pull", REPO).code == 0
        checkpoints.verify(folder)


@pytest.mark.slow
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
