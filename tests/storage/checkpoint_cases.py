"""A small checkpoint, and the ways in which it is changed and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import stackrev
from stackrev.errors import CheckpointError
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build, load
from stackrev.storage import checkpoints, format

SMALL = Config(model=StackLSTMConfig(hidden_size=8, stack_width=6))
SCORES = {"65-128": {"coarse": 0.25, "fine": 0.5, "samples": 4, "seed": 0}}
ROOT = Path(stackrev.__file__).parent.parent


def make(folder, config=SMALL, *, seed=0, **recorded):
    model = build(config.model, torch.Generator().manual_seed(seed))
    checkpoints.save(folder, model.state_dict(), config, **recorded)
    return model


def equal(model, other):
    state, expected = model.state_dict(), other.state_dict()
    return list(state) == list(expected) and all(torch.equal(state[key], expected[key]) for key in state)


def resign(folder):
    """Give a tampered checkpoint the checksums of its files, as an attacker would."""
    raw = json.loads((folder / "config.json").read_text())
    raw["sha256"] = {name: format.sha((folder / name).read_bytes()) for name in raw["sha256"]}
    (folder / "config.json").write_text(json.dumps(raw))


def refused(folder):
    """The message that refuses a checkpoint, which must be one line, the same for every way of reading it."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    with pytest.raises(CheckpointError):
        checkpoints.read_weights(folder)
    with pytest.raises(CheckpointError):
        checkpoints.verify(folder)
    message = caught.value.message
    assert "\n" not in message
    assert len(message) < 400
    return message
