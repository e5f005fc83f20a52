"""Checkpoints: what is saved comes back, with its scores and its card."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from checkpoint_cases import ROOT, SCORES, SMALL, equal, make
from shapes import shape_of

from stackrev.errors import CheckpointError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.models import build, load
from stackrev.storage import checkpoints


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_the_shapes_are_those_of_the_model(kind, layers, shared):
    config = shape_of(kind, hidden_size=5, stack_width=7, layers=layers, shared_controls=shared)
    shapes = {name: tuple(each.shape) for name, each in build(config).state_dict().items()}
    assert shapes == config.shapes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back(tmp_path, kind):
    config = replace(SMALL, model=shape_of(kind, hidden_size=8, stack_width=6, layers=2))
    history = [{"batch": 1, "loss": 4.8}, {"batch": 2, "loss": float("inf")}]
    model = make(tmp_path / "a" / "b", config, scores=SCORES, history=history, command="stackrev train --seed 0")
    before = torch.get_rng_state()
    loaded = load(tmp_path / "a" / "b")
    assert torch.equal(before, torch.get_rng_state())
    assert equal(loaded.model, model)
    assert (loaded.name, loaded.config, loaded.scores) == ("b", config, SCORES)
    assert loaded.model.config == config.model
    assert not loaded.model.training
    assert all(each.requires_grad for each in loaded.model.parameters())
    assert checkpoints.load_config(tmp_path / "a" / "b") == (config, SCORES)
    assert checkpoints.read_history(tmp_path / "a" / "b") == history
    assert checkpoints.describe(tmp_path / "a" / "b").command == "stackrev train --seed 0"
    assert sorted(each.name for each in (tmp_path / "a" / "b").iterdir()) == sorted(checkpoints.FILES)
    verification = checkpoints.verify(tmp_path / "a" / "b")
    assert verification.parameters == sum(each.numel() for each in model.parameters())


def test_raw_weights_are_the_weights(tmp_path):
    model = make(tmp_path)
    config, weights = checkpoints.read_weights(tmp_path)
    assert config == SMALL
    for name, tensor in model.state_dict().items():
        assert weights[name].dtype == "F32"
        values = struct.unpack(f"<{tensor.numel()}f", weights[name].data)
        assert torch.equal(torch.tensor(values).reshape(weights[name].shape), tensor)


def test_reading_without_a_model_needs_no_torch(tmp_path):
    make(tmp_path)
    code = "import sys; from stackrev.storage import checkpoints as c; c.load_config(sys.argv[1]); "
    code += "c.read_weights(sys.argv[1]); c.read_history(sys.argv[1]); assert 'torch' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)


def test_a_failed_save_leaves_the_earlier_checkpoint(tmp_path):
    model = make(tmp_path)
    broken = build(SMALL.model)
    with torch.no_grad():
        broken.output.weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        checkpoints.save(tmp_path, broken.state_dict(), SMALL)
    with pytest.raises(CheckpointError, match="float32"):
        checkpoints.save(tmp_path, build(SMALL.model).double().state_dict(), SMALL)
    with pytest.raises(CheckpointError, match="differ"):
        build(SMALL.model).save_pretrained(tmp_path, config=Config())
    assert equal(load(tmp_path).model, model)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        make(tmp_path / "file")


def test_scores_are_recorded_without_touching_the_weights(tmp_path):
    model = make(tmp_path, scores=SCORES)
    weights = (tmp_path / "model.safetensors").read_bytes()
    new = {"8-64": {"coarse": 0.99996, "fine": 1.0, "samples": 2, "seed": 1}}
    checkpoints.save_scores(tmp_path, new)
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert checkpoints.load_config(tmp_path)[1] == SCORES | new
    assert equal(load(tmp_path).model, model)
    assert "| 8-64 | 2 | 0.9999 | 1.0000 |" in (tmp_path / "README.md").read_text()


def test_the_card_has_the_hub_s_metadata(tmp_path):
    yaml = pytest.importorskip("yaml")
    make(tmp_path / "a: 'name'", scores=SCORES | {"odd": 1, "not a range": SCORES["65-128"]}, command="a\n---\nb")
    card = (tmp_path / "a: 'name'" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == "mit"
    assert metadata["library_name"] == "stackrev"
    assert metadata["pipeline_tag"] == "text-generation"
    assert {"stackrev", "stack-lstm"} <= set(metadata["tags"])
    (entry,) = metadata["model-index"]
    assert entry["name"] == "a: 'name'"
    (result,) = entry["results"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == {"coarse": 0.25, "fine": 0.5}
    assert result["dataset"]["config"] == "65-128"
    assert card.count("\n---\n") == 1


def test_the_card_tells_how_long_training_took(tmp_path):
    card = tmp_path / "README.md"
    make(tmp_path, history=[{"batch": 50, "seconds": 3.0}, {"batch": 12_000, "seconds": 5400.4}])
    assert "\nTrained for 12,000 batches in 5,400 seconds (90 minutes).\n" in card.read_text()
    checkpoints.save_scores(tmp_path, SCORES)
    assert "\nTrained for 12,000 batches" in card.read_text()
    (tmp_path / "history.jsonl").unlink()
    checkpoints.save_scores(tmp_path, SCORES)
    for history in (
        [],
        [{"batch": 1}],
        [{"batch": "x", "seconds": 1}],
        [{"batch": 1, "seconds": math.nan}],
        [{"loss": 1}],
    ):
        make(tmp_path, history=history)
        assert "Trained for" not in card.read_text()
    make(tmp_path, history=[{"batch": 300, "seconds": 3.8}])
    assert "\nTrained for 300 batches in 4 seconds.\n" in card.read_text()
