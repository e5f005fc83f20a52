"""Tensors and texts in one file: they come back as they were, and what a header claims is checked first."""

from __future__ import annotations

import json
import os
import struct

import pytest
import torch

from stackrev.errors import CheckpointError
from stackrev.storage import tensors

TENSORS = {
    "step": torch.tensor(3.0),
    "rng": torch.arange(5, dtype=torch.uint8),
    "exact": torch.rand(3, 2).double().T,
    "none": torch.zeros(0, 4),
    "count": torch.tensor([2**62, -1]),
    "half": torch.tensor([0.5], dtype=torch.bfloat16),
}


def read(path):
    with tensors.opened(path) as stored:
        return stored.read(), stored.texts


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_tensors_and_texts_come_back(tmp_path):
    tensors.save(tmp_path / "x", TENSORS, {"history": '{"a": "\\u00e9"}\n'})
    back, texts = read(tmp_path / "x")
    assert texts == {"history": '{"a": "\\u00e9"}\n'}
    assert back.keys() == TENSORS.keys()
    assert all(back[key].dtype == each.dtype and torch.equal(back[key], each) for key, each in TENSORS.items())
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_torch_s_defaults_change_nothing(tmp_path):
    tensors.save(tmp_path / "x", TENSORS, {})
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        back, _ = read(tmp_path / "x")
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert all(back[key].dtype == each.dtype and torch.equal(back[key], each) for key, each in TENSORS.items())


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    whole = torch.arange(6.0)
    shared = {
        "a": whole,
        "b": whole,
        "part": whole[1:4],
        "wide": whole[:1].expand(3),
        "neg": torch.tensor([1j]).conj().imag,
    }
    tensors.save(tmp_path / "x", shared, {})
    back, _ = read(tmp_path / "x")
    assert all(torch.equal(back[key], each) for key, each in shared.items())


def test_what_a_dead_writer_left_is_cleared_away_and_nothing_else(tmp_path):
    (tmp_path / ".x.0123456789abcdef.new").touch()
    (tmp_path / ".x.new").touch()
    (tmp_path / ".y.0123456789abcdef.new").touch()
    (tmp_path / ".x.0000000000000000.new").symlink_to("nothing")
    tensors.save(tmp_path / "x", {}, {})
    left = sorted(each.name for each in tmp_path.iterdir())
    assert left == [".x.0000000000000000.new", ".y.0123456789abcdef.new", "x"]


def test_damaged_tensors_are_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(CheckpointError, match="has no x"):
        read(path)
    tensors.save(path, {"a": torch.zeros(100)}, {})
    for size in (400, 300, 20, 4, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError, match="damaged"):
            read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(path)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        *(b"[" * 100_000, b"[]", b"1", b"null", b'"\\ud800"', b'{"\xff": 1}', b"{", b"", '{"é": {}}'.encode()),
        *({"a": 1}, {"a": []}, {"a": {}}, {"a": entry() | {"more": 1}}),
        *({"a": entry(dtype)} for dtype in ("BOOL", "F4", 1, None, [], "U8")),
        *({"a": entry(shape=shape)} for shape in (2, [3], [2.0], [True, 2], [-1, -2], [2**62, 2**62], [1] * 9 + [2])),
        *(
            {"a": entry(offsets=offsets)}
            for offsets in (8, [8], [0, 8, 9], [1, 9], [8, 0], [-8, 0], [0, 2**70], ["0", 8])
        ),
        {"a": entry(), "b": entry()},
        {"a": entry(), "b": entry(offsets=[16, 24])},
        {},
        *({"__metadata__": texts, "a": entry()} for texts in (1, [], {"a": 1}, {"a": "\ud800"}, {"a": None})),
    ],
    ids=lambda header: str(header)[:40],
)
def test_headers_that_are_refused(tmp_path, header):
    write(tmp_path / "x", header, b"\0" * 8)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read(tmp_path / "x")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_nothing_is_allocated_for_what_a_header_only_claims(tmp_path):
    write(tmp_path / "x", {"a": entry(shape=[2**60], offsets=[0, 2**62])}, b"\0" * 8)
    with pytest.raises(CheckpointError, match="damaged"):
        read(tmp_path / "x")
    (tmp_path / "x").write_bytes(struct.pack("<Q", 2**63))
    with pytest.raises(CheckpointError, match="damaged"):
        read(tmp_path / "x")
    with (tmp_path / "x").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="more than it can need"):
        read(tmp_path / "x")
