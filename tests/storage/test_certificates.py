"""Certificates in files: whole, about the weights beside them, and refused where they are damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from stackrev.errors import CheckpointError
from stackrev.storage.certificates import CERTIFICATE, Certificate, read_certificate, write_certificate

BOXES = {
    f"{name}.{end}": np.full((1, 3), value) for name in ("a", "b") for end, value in (("lower", -1.0), ("upper", 1.0))
}


@pytest.fixture
def folder(tmp_path):
    write_certificate(tmp_path, Certificate("0" * 64, 2.0**-24, BOXES))
    return tmp_path


def test_what_is_written_is_read(folder):
    certificate = read_certificate(folder)
    assert certificate.weights == "0" * 64
    assert certificate.unit == 2.0**-24
    assert certificate.boxes.keys() == BOXES.keys()
    assert all((certificate.boxes[name] == BOXES[name]).all() for name in BOXES)


def test_there_may_be_none(tmp_path):
    assert read_certificate(tmp_path) is None


def rewritten(folder, *, boxes=None, **changed):
    path = folder / CERTIFICATE
    data = path.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    metadata = {key: value for key, value in {**metadata, **changed}.items() if value is not None}
    path.write_bytes(save(boxes or load(data), metadata=metadata))


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "2"},
        {"format": "pt"},
        {"unit": "nan"},
        {"unit": "0"},
        {"unit": "x"},
        {"sha256": "0" * 64},
        {"unit": None},
        {"more": "x"},
    ],
)
def test_other_metadata_is_refused(folder, changed):
    rewritten(folder, **changed)
    with pytest.raises(CheckpointError, match="certificate"):
        read_certificate(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_another_number_in_a_box_is_damage(folder, value):
    boxes = {name: ends.copy() for name, ends in BOXES.items()}
    boxes["a.lower"][0, 1] = value
    rewritten(folder, boxes=boxes)
    with pytest.raises(CheckpointError, match="damaged"):
        read_certificate(folder)


def test_other_types_are_refused(folder):
    rewritten(folder, boxes={name: ends.astype(np.float32) for name, ends in BOXES.items()})
    with pytest.raises(CheckpointError, match="damaged"):
        read_certificate(folder)


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\xff" * 8, (8).to_bytes(8, "little") + b"[[[[[[[["])
def test_other_files_are_refused(folder, data):
    (folder / CERTIFICATE).write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        read_certificate(folder)


def test_a_folder_or_a_large_file_is_no_certificate(tmp_path):
    with (tmp_path / CERTIFICATE).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(CheckpointError, match="more than it can need"):
        read_certificate(tmp_path)
    (tmp_path / CERTIFICATE).unlink()
    (tmp_path / CERTIFICATE).mkdir()
    with pytest.raises(CheckpointError):
        read_certificate(tmp_path)
