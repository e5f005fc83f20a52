"""Checkpoints: what is saved comes back, what is damaged is refused in one line, and no crash spoils anything."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shapes import shape_of

import stackrev
from stackrev.errors import CheckpointError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build, load
from stackrev.storage import checkpoints, files, format, tensors

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


# Refusals.


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


# Crashes.


class CrashError(BaseException):
    """The power went away."""


class Steps:
    """Counts the steps that change the disk and fails at one of them, in the middle."""

    def __init__(self, monkeypatch, fatal):
        self.left = fatal
        stage, rename, unlink = files.stage, Path.replace, Path.unlink

        def crashing_stage(path, data):
            if self.over():
                staged = stage(path, data[: len(data) // 2])
                raise CrashError(staged)
            return stage(path, data)

        def crashing_rename(path, target):
            if self.over():
                raise CrashError
            return rename(path, target)

        def crashing_unlink(path, missing_ok=False):
            if self.left >= 0:  # who is dead tidies nothing up
                unlink(path, missing_ok)

        monkeypatch.setattr(files, "stage", crashing_stage)
        monkeypatch.setattr(Path, "replace", crashing_rename)
        monkeypatch.setattr(Path, "unlink", crashing_unlink)

    def over(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("interval", range(8))
@pytest.mark.parametrize("again", range(9))
def test_a_crash_at_any_step_leaves_one_whole_checkpoint(tmp_path, interval, again):
    """Then a second save crashes at any step too, and a third goes through."""
    models = [make(tmp_path, seed=0, history=[{"save": 0}])]
    committed = 0
    for number, fatal in ((1, interval), (2, again)):
        models.append(build(SMALL.model, torch.Generator().manual_seed(number)))
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, fatal)
            try:
                checkpoints.save(tmp_path, models[-1].state_dict(), SMALL, history=[{"save": number}])
            except CrashError:
                assert fatal < 10
            else:
                assert steps.left >= 0
        checkpoints.verify(tmp_path)
        saved = checkpoints.read_history(tmp_path)[0]["save"]
        assert equal(load(tmp_path).model, models[saved])
        assert saved in (number, committed)
        committed = saved
    make(tmp_path, seed=3, history=[{"save": 3}])
    assert checkpoints.read_history(tmp_path) == [{"save": 3}]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(checkpoints.FILES)


def test_sigkill_at_random_moments(tmp_path):
    """A process that saves without a pause is killed and what it leaves is read, many times over."""
    code = textwrap.dedent("""
        import sys, torch
        from pathlib import Path
        from stackrev.storage import checkpoints, tensors
        from stackrev.kinds.stack_lstm import StackLSTMConfig
        from stackrev.kinds.config import Config
        from stackrev.models import build, load
        config = Config(model=StackLSTMConfig(hidden_size=48))
        number = int(sys.argv[2])
        model = build(config.model, torch.Generator())
        while True:
            number += 1
            with torch.no_grad():
                model.output.bias.fill_(number)
            tensors.save(Path(sys.argv[1], "training.safetensors"), {"n": torch.tensor(number)}, {})
            checkpoints.save(Path(sys.argv[1]), model.state_dict(), config, history=[{"save": number}])
            print(number, flush=True)
    """)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    chooser, done = random.Random(0), 0
    for _ in range(3):
        arguments = [sys.executable, "-c", code, str(tmp_path), str(done)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
            process.stdout.readline()
            time.sleep(chooser.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            done = int((process.stdout.read().splitlines() or [done + 1])[-1])
        loaded = load(tmp_path)
        saved = checkpoints.read_history(tmp_path)[0]["save"]
        assert loaded.model.output.bias[0].item() == saved
        with tensors.opened(tmp_path / "training.safetensors") as stored:
            state = int(stored.read()["n"])
        assert done <= saved <= state <= done + 1
        done = state


def test_a_reader_beside_a_writer_sees_whole_checkpoints(tmp_path):
    """Every read, while another process saves as fast as it can, gives one of its saves."""
    code = textwrap.dedent("""
        import sys, torch
        from pathlib import Path
        from stackrev.storage import checkpoints
        from stackrev.kinds.stack_lstm import StackLSTMConfig
        from stackrev.kinds.config import Config
        from stackrev.models import build, load
        config = Config(model=StackLSTMConfig(hidden_size=8))
        model = build(config.model, torch.Generator())
        for number in range(10**9):
            with torch.no_grad():
                model.output.bias.fill_(number)
            checkpoints.save(Path(sys.argv[1]), model.state_dict(), config, history=[{"save": number}])
            print(number, flush=True)
    """)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        process.stdout.readline()
        seen = set()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            seen.add(struct.unpack_from("<f", checkpoints.read_weights(tmp_path)[1]["output.bias"].data)[0])
        process.kill()
        process.stdout.read()
    assert len(seen) > 3
