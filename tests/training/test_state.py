"""The file that a run resumes from is read as strictly as if a stranger had written it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from test_runs import tiny

from stackrev.errors import CheckpointError, StackrevError
from stackrev.storage import tensors
from stackrev.training import state as states
from stackrev.training.runs import Run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run that has made its checks."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    Run.start(folder, tiny(), command="stackrev train").train()
    return folder


@pytest.fixture
def stored(saved, tmp_path):
    """A copy of its folder, and what its state's file holds."""
    shutil.copytree(saved, tmp_path / "run")
    with tensors.opened(saved / states.STATE) as file:
        return tmp_path / "run", file.read(), json.loads(file.texts["state"])


def refused(folder):
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        Run.resume(folder)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500
    return caught.value.message


def test_what_is_written_comes_back(saved):
    values, state = states.read(saved)
    assert (state.config, state.command) == (tiny(), "stackrev train")
    assert state.progress["batch"] == 12
    assert states.is_state(saved)
    states.write(saved, values, state)
    assert states.read(saved)[1] == state


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 900, "{", "", "[]", "null", "1", '"x"', "{}", '{"state": {}}', "\\ud800", '"\\ud800"'],
    ids=lambda text: text[:20],
)
def test_texts_that_are_no_state(stored, text):
    folder, values, _ = stored
    tensors.save(folder / states.STATE, values, {"state": text})
    assert "is not the state of a run" in refused(folder)
    tensors.save(folder / states.STATE, values, {})
    assert "is not the state of a run" in refused(folder)


WRONG_COUNTS = ("x", -1, 10**30, 1.5, True, [1], {}, "1")
WRONG_AMOUNTS = ("x", -1, float("nan"), float("inf"), True, [1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("threads", value) for value in (*WRONG_COUNTS, None, 0, 1025)),
        *(("command", value) for value in (1, [1], {}, True, "\ud800")),
        *(
            ("config", value)
            for value in (1, None, [], "x", {"model": {"hidden_size": 9}}, {"model": {"layers": 10**30}})
        ),
        *(("config", {"data": {"held_out_samples": value}}) for value in (-1, "x", 10**30)),
        ("surprise", 1),
        *(("progress", value) for value in (1, None, [], {}, "x")),
        *(("progress.batch", value) for value in (*WRONG_COUNTS, None)),
        *(("progress.loss_count", value) for value in (*WRONG_COUNTS, None)),
        *(("progress.longest", value) for value in WRONG_COUNTS),
        *(("progress.solved_batch", value) for value in (*WRONG_COUNTS, 13)),
        *(("progress.seconds", value) for value in (*WRONG_AMOUNTS, None)),
        *(("progress.loss_sum", value) for value in (*WRONG_AMOUNTS, None)),
        ("progress.surprise", 1),
        *(("progress.history", value) for value in (1, None, {}, "x", [1, 2], [[]], [None], [{}], [{"batch": 1}])),
        *((f"progress.history.0.{key}", value) for key in ("batch", "test") for value in (None, 1.5, "x", -1)),
        *((f"progress.history.0.{key}", value) for key in ("loss", "seconds") for value in WRONG_AMOUNTS),
        ("progress.history.0.batch", 11),
        ("progress.history.0.validation.coarse", 1.1),
        ("progress.history.0.validation.samples", "x"),
        ("progress.history.0.surprise", 1),
    ],
    ids=lambda value: str(value)[:24],
)
def test_values_that_are_refused(stored, key, value):
    folder, values, raw = stored
    *path, last = key.split(".")
    inner = raw
    for name in path:
        inner = inner[int(name) if name.isdecimal() else name]
    inner[last] = value
    tensors.save(folder / states.STATE, values, {"state": json.dumps(raw)})
    assert "is not the state of a run" in refused(folder)


def test_keys_that_are_missing(stored):
    folder, values, raw = stored
    for section in (raw, raw["progress"], raw["progress"]["history"][0]):
        for key in list(section):
            value = section.pop(key)
            tensors.save(folder / states.STATE, values, {"state": json.dumps(raw)})
            assert "is not the state of a run" in refused(folder)
            section[key] = value


def test_tensors_that_do_not_fit(stored):
    folder, values, raw = stored
    text = {"state": json.dumps(raw)}
    right = {name.replace("model.", "right."): each for name, each in values.items() if name.startswith("model.")}
    for change in (
        {"model.output.bias": torch.zeros(9)},
        {"model.output.bias": torch.zeros(8, dtype=torch.float64)},
        {"model.output.bias": torch.zeros(8, dtype=torch.int32)},
        {"more": torch.zeros(10**6)},
        {"right.output.bias": values["model.output.bias"]},
        right | {"right.output.bias": torch.zeros(8, dtype=torch.float64)},
        right | {"right.output.bias": torch.zeros(9)},
    ):
        tensors.save(folder / states.STATE, values | change, text)
        assert "is not the state of a run" in refused(folder)
    for name in values:
        tensors.save(folder / states.STATE, {key: each for key, each in values.items() if key != name}, text)
        with pytest.raises(StackrevError) as caught:
            Run.resume(folder)
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "bad", [torch.zeros(1, dtype=torch.uint8), torch.zeros(5056, dtype=torch.uint8), torch.zeros(3)]
)
def test_generators_that_are_none(stored, bad):
    folder, values, raw = stored
    tensors.save(folder / states.STATE, values | {"generator.noise": bad}, {"state": json.dumps(raw)})
    with pytest.raises(StackrevError) as caught:
        Run.resume(folder)
    assert "\n" not in caught.value.message
