"""A checkpoint that is damaged, or not one of ours, is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from checkpoint_cases import make, refused, resign

from stackrev.errors import CheckpointError
from stackrev.storage import checkpoints, tensors


def test_missing_files(tmp_path):
    assert "there is no folder" in refused(tmp_path / "nowhere")
    assert "has no config.json" in refused(tmp_path)
    for name in ("model.safetensors", "config.json"):
        make(tmp_path)
        (tmp_path / name).unlink()
        assert f"has no {name}" in refused(tmp_path)


def test_truncated_at_every_length(tmp_path):
    make(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for size in (0, 1, 7, 8, 9, 1000, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        assert "truncated" in refused(tmp_path) or size > len(whole) - 4000


def test_one_flipped_bit(tmp_path):
    make(tmp_path)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    assert "checksum" in refused(tmp_path)


def test_history_is_checked_too(tmp_path):
    make(tmp_path, history=[{"batch": 1}])
    (tmp_path / "history.jsonl").write_text('{"batch": 2}\n')
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoints.verify(tmp_path)
    for text in ("[1]\n", "{\n", "\xff\n"):
        (tmp_path / "history.jsonl").write_text(text)
        resign(tmp_path)
        with pytest.raises(CheckpointError, match=r"history\.jsonl"):
            checkpoints.read_history(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "transformers", "not a stackrev checkpoint"),
        ("version", 3, "has version 3"),
        ("version", True, "has version True"),
        ("version", "1" * 1000, "has version"),
        ("config", None, "must be an object"),
        ("config", {"model": {"hidden_size": 10**9}}, "hidden_size"),
        ("config", {"model": {"hidden_size": 2**70}}, "hidden_size"),
        ("config", {"model": {"vocabulary_size": 5}}, "vocabulary_size is 5"),
        ("config", {"model": {"vocabulary_size": 200}}, "vocabulary_size is 200"),
        ("config", {"model": {"hidden_size": -1}}, "hidden_size"),
        ("config", {"model": {"kind": "transformer"}}, "kind"),
        ("config", {"model": {"kind": ["rnn"]}}, "kind"),
        ("config", {"model": {"heads": 8}}, "heads"),
        ("config", {"model": {"hidden_size": 4096, "stack_width": 4096, "layers": 16}}, "MiB of weights"),
        ("config", {"model": {"hidden_size": 9}}, "has the shape [1, 1, 8]"),
        ("scores", [1], "scores"),
        ("command", 7, "command"),
        ("sha256", {}, "SHA-256"),
        ("sha256", {"model.safetensors": "0" * 64, "history.jsonl": "g" * 64}, "SHA-256"),
        ("surprise", 1, "surprise"),
    ],
)
def test_configs_that_are_refused(tmp_path, key, value, message):
    make(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {key: value}))
    assert message in refused(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"format": ' + "1" * 10_000 + "}", "\x00", '{"model_type": "gpt2"}']
)
def test_config_files_that_are_not_ours(tmp_path, text):
    make(tmp_path)
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in refused(tmp_path)


def test_config_that_is_not_utf8(tmp_path):
    make(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    assert "is not JSON" in refused(tmp_path)


def test_absurd_sizes_are_refused_unread(tmp_path):
    make(tmp_path)
    for name in ("model.safetensors", "config.json"):
        with (tmp_path / name).open("r+b") as file:
            file.truncate(2**40)  # sparse: takes no room
        assert "more than it can need" in refused(tmp_path)


def test_files_that_are_not_files(tmp_path):
    for name in ("model.safetensors", "config.json"):
        make(tmp_path)
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        assert "irectory" in refused(tmp_path)
        (tmp_path / name).rmdir()
        os.mkfifo(tmp_path / name)
        assert "not a regular file" in refused(tmp_path)
        (tmp_path / name).unlink()


def retensor(folder, change):
    """Rewrite the tensors of a checkpoint and sign them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    resign(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("output.bias"), "lacks the tensor 'output.bias'"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown tensor 'extra'"),
        (lambda t: t.update({"output.weight": t["output.weight"].reshape(4, 16)}), "has the shape [4, 16]"),
        (lambda t: t.update({"output.bias": torch.zeros(8, dtype=torch.int32)}), "is I32, not F32"),
        (lambda t: t["output.bias"].fill_(float("nan")), "not finite"),
        (lambda t: t["initial_cell"].fill_(float("-inf")), "not finite"),
    ],
)
def test_tensors_that_are_refused(tmp_path, change, message):
    make(tmp_path)
    retensor(tmp_path, change)
    assert message in refused(tmp_path)


def test_the_largest_finite_weights_load(tmp_path):
    make(tmp_path)
    retensor(tmp_path, lambda t: t["output.weight"].fill_(3.4028234e38))
    checkpoints.verify(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 10_000,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 6000) + b"[" * 6000,
        struct.pack("<Q", 2) + b"{}" + b"\0" * 20_000,
    ],
)
def test_files_that_are_not_safetensors(tmp_path, data):
    make(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data.ljust(22_000, b" "))
    resign(tmp_path)
    assert "safetensors" in refused(tmp_path)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_never_opened(tmp_path, signed, how):
    make(tmp_path / "ck")
    path = tmp_path / "ck" / "model.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps([Bomb(tmp_path / "executed"), "x" * 22_000]))
    else:
        torch.save({"a": Bomb(tmp_path / "executed"), "b": torch.zeros(5000)}, path)
    if signed:
        resign(tmp_path / "ck")
    refused(tmp_path / "ck")
    with pytest.raises(CheckpointError), tensors.opened(path):
        pass
    assert not (tmp_path / "executed").exists()


def test_pickles_beside_the_weights_are_left_alone_and_named_when_alone(tmp_path):
    make(tmp_path / "ck")
    (tmp_path / "ck" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    checkpoints.verify(tmp_path / "ck")
    (tmp_path / "ck" / "model.safetensors").unlink()
    assert "pytorch_model.bin" in refused(tmp_path / "ck")
    assert not (tmp_path / "executed").exists()
