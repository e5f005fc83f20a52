"""A name means a packaged checkpoint, a folder or a model on the Hub, and a folder that is missing is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stackrev.errors import ModelNotFoundError
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build
from stackrev.storage import checkpoints, names
from stackrev.storage.names import Reference

SMALL = Config(model=StackLSTMConfig(hidden_size=8, stack_width=6))


def make(folder):
    checkpoints.save(folder, build(SMALL.model, torch.Generator().manual_seed(0)).state_dict(), SMALL)


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("user/repo", "user/repo", "main"),
        ("user/repo@v1.0", "user/repo", "v1.0"),
        ("a_b-c.d/e@refs/pr/1", "a_b-c.d/e", "refs/pr/1"),
        ("u/r@" + "a" * 40, "u/r", "a" * 40),
        ("hf:user/repo", "user/repo", "main"),
        ("hf:user/repo@v1", "user/repo", "v1"),
    ],
)
def test_names_of_the_hub(name, repo, revision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names.parse(name) == Reference(repo, revision)
    assert names.find(name) == Reference(repo, revision)


def test_nearby_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "mine")
    make(tmp_path / "user" / "repo")
    assert names.resolve("mine") == Path("mine")
    assert names.find("user/repo") == Path("user/repo")
    assert names.find("hf:user/repo") == Reference("user/repo")
    for name in ("", "nothing", "a" * 5000, "nul\0", "other/repo"):
        with pytest.raises(ModelNotFoundError) as caught:
            names.resolve(name)
        assert all(each in caught.value.hint for each in names.packaged_names())


@pytest.mark.parametrize(
    "name", ["runs/nope", "runs/nope@v1", "./nope", "../nope/x", "runs/a/b", "/no/such", "nope/", "~/nope", ".\\nope"]
)
def test_a_folder_that_is_missing_is_said_to_be_missing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelNotFoundError, match="there is no folder") as caught:
        names.find(name)
    assert name in caught.value.message
    assert ("hf:" in caught.value.hint) == name.startswith("runs/nope")


def test_a_folder_beside_does_not_hide_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user").touch()  # a file: nothing can be in it
    (tmp_path / "runs").mkdir()
    assert names.find("user/repo") == Reference("user/repo")
    assert names.find("hf:runs/nope") == Reference("runs/nope")


def test_a_file_is_not_a_model(tmp_path):
    make(tmp_path)
    with pytest.raises(ModelNotFoundError, match="is a file, and a model is a folder"):
        names.find(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("name", ["hf:", "hf:repo", "hf:a/b/c", "hf:../x", "hf:hf:a/b", "hf:/etc/passwd"])
def test_what_begins_like_a_name_of_the_hub_is_nothing_else(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="not the name of a model on the Hub"):
        names.find(name)


def test_packaged_checkpoints_are_found_beside_or_inside_the_package(tmp_path, monkeypatch):
    package = tmp_path / "stackrev"
    package.mkdir()
    monkeypatch.setattr(names, "__file__", str(package / "storage" / "names.py"))
    make(tmp_path / "checkpoints" / "source")
    assert names.packaged_names() == []  # somebody else's folder, in site-packages say
    (tmp_path / "pyproject.toml").touch()
    assert names.packaged_names() == ["source"]
    make(package / "packaged" / "wheel")
    (package / "packaged" / "not-a-checkpoint").mkdir()
    assert names.packaged_names() == ["wheel"]
    assert names.resolve("wheel") == package / "packaged" / "wheel"


@pytest.mark.parametrize("name", names.packaged_names())
def test_packaged_checkpoints_verify(name):
    checkpoints.verify(names.resolve(name))
