"""What is not ours is never replaced, no write follows a link, and torch's defaults change nothing."""

from __future__ import annotations

import json
import os
import sys
import threading

import pytest
import torch
from shapes import shape_of

from stackrev.errors import CheckpointError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build, load
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.storage import checkpoints, format, locks
from stackrev.storage.card import model_card

SMALL = Config(model=StackLSTMConfig(hidden_size=8, stack_width=6))


def small(seed=0, config=SMALL):
    return build(config.model, torch.Generator().manual_seed(seed))


def save(folder, model=None, **recorded):
    model = model or small()
    checkpoints.save(folder, model.state_dict(), SMALL, **recorded)
    return model


def contents(folder):
    """Every file by its name, links not followed."""
    return {each.name: each.readlink() if each.is_symlink() else each.read_bytes() for each in folder.iterdir()}


# What is not ours.

FOREIGN = {
    "config.json": '{"model_type": "gpt2"}',
    "model.safetensors": "somebody's weights",
    "history.jsonl": '{"epoch": 1}\n',
    "README.md": "# My project\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_somebody_s_is_never_replaced(tmp_path, name):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / name).write_text(FOREIGN[name])
    before = contents(folder)
    with pytest.raises(CheckpointError, match=rf"has a {name} that is not of a checkpoint of stackrev's"):
        save(folder)
    with pytest.raises(CheckpointError, match="not of a checkpoint"):
        small().save_pretrained(folder)
    save(tmp_path / "ours")
    with pytest.raises(CheckpointError, match="not of a checkpoint"):
        checkpoints.copy(tmp_path / "ours", folder)
    assert contents(folder) == before


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_somebody_s_in_a_checkpoint_of_ours_is_not_replaced_either(tmp_path, name):
    save(tmp_path)
    (tmp_path / name).write_text(FOREIGN[name])
    before = contents(tmp_path)
    assert checkpoints.foreign(tmp_path) == name
    with pytest.raises(CheckpointError, match=name):
        save(tmp_path, small(1))
    assert contents(tmp_path) == before


def test_a_checkpoint_of_ours_with_other_files_beside_it_is_replaced(tmp_path):
    save(tmp_path, scores={"1-2": {"coarse": 1.0, "fine": 1.0, "samples": 1, "seed": 0}})
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model.safetensors").unlink()
    assert checkpoints.foreign(tmp_path) is None
    model = save(tmp_path, small(1))
    assert torch.equal(load(tmp_path).model.output.weight, model.output.weight)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", checkpoints.FILES)
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_is_no_file_is_neither_replaced_nor_written_through(tmp_path, name, what):
    (tmp_path / "victim").write_text("mine")
    folder = tmp_path / "run"
    save(folder)
    (folder / name).unlink()
    match what:
        case "link":
            (folder / name).symlink_to("../victim")
        case "pipe":
            os.mkfifo(folder / name)
        case "folder":
            (folder / name).mkdir()
    before = sorted(each.name for each in folder.iterdir())
    with pytest.raises(CheckpointError) as caught:
        save(folder, small(1))
    assert "\n" not in caught.value.message
    assert (tmp_path / "victim").read_text() == "mine"
    assert sorted(each.name for each in folder.iterdir()) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "history.jsonl", "README.md"])
@pytest.mark.parametrize("digits", ["", ".0123456789abcdef"])
def test_nothing_at_a_staged_name_is_written_through(tmp_path, name, digits):
    (tmp_path / "victim").write_text("mine")
    folder = tmp_path / "run"
    save(folder)
    staged = folder / f".{name}{digits}.new"
    staged.symlink_to("../victim")
    model = save(folder, small(1))
    staged.unlink()
    os.mkfifo(staged)
    save(folder, model)
    assert (tmp_path / "victim").read_text() == "mine"
    checkpoints.verify(folder)
    assert sorted(each.name for each in folder.iterdir()) == sorted([*checkpoints.FILES, staged.name])


# Two writers.


def test_a_save_waits_for_another_and_says_so_if_that_takes_long(tmp_path, monkeypatch):
    save(tmp_path)
    monkeypatch.setattr(checkpoints, "WAIT_SECONDS", 0.0)
    with locks.lock(tmp_path):
        with pytest.raises(CheckpointError, match=rf"another process \({os.getpid()}\) writes to"):
            save(tmp_path, small(1))
        with pytest.raises(CheckpointError, match="writes to"):
            checkpoints.save_scores(tmp_path, {})
        checkpoints.verify(tmp_path)  # who only reads waits for nobody
    save(tmp_path, small(1))


def test_writers_at_once_leave_a_whole_checkpoint(tmp_path):
    models = [small(seed) for seed in range(4)]
    faults = []

    def work(number):
        try:
            for _ in range(5):
                save(tmp_path, models[number], history=[{"writer": number}])
                checkpoints.verify(tmp_path)
        except CheckpointError as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    number = checkpoints.read_history(tmp_path)[0]["writer"]
    assert torch.equal(load(tmp_path).model.output.weight, models[number].output.weight)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(checkpoints.FILES)


# What is saved, and what is loaded.


def test_tied_weights_are_saved_and_come_back(tmp_path):
    model = StackLSTMReverser(SMALL.model, torch.Generator().manual_seed(0))
    model.decoder.symbols = model.encoder.symbols
    model.output.bias = torch.nn.Parameter(model.logits.bias.detach()[:8])
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path).model
    assert all(torch.equal(each, loaded.state_dict()[name]) for name, each in model.state_dict().items())
    checkpoints.verify(tmp_path)


def test_weights_that_do_not_fit_are_not_saved(tmp_path):
    state = small().state_dict()
    for change, message in (
        ({"more": torch.zeros(1)}, "unknown tensor 'more'"),
        ({"output.bias": torch.zeros(9)}, r"output.bias has the shape \[9\], not \[8\]"),
        ({"output.bias": torch.zeros(8, device="meta")}, "meta device"),
        ({"output.bias": torch.zeros(8, dtype=torch.int32)}, "float32"),
        ({"output.bias": torch.full((8,), torch.inf)}, "not finite"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoints.save(tmp_path, state | change, SMALL)
    del state["output.bias"]
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'output\.bias'"):
        checkpoints.save(tmp_path, state, SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", [None, "meta"])
def test_torch_s_defaults_change_nothing_that_is_loaded(tmp_path, kind, dtype, device):
    config = Config(model=shape_of(kind, hidden_size=8, stack_width=6, layers=2))
    model = small(config=config)
    checkpoints.save(tmp_path, model.state_dict(), config)
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        loaded = load(tmp_path).model.state_dict()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for name, each in model.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert loaded[name].device.type == "cpu"
        assert torch.equal(loaded[name], each)


# Texts.


@pytest.mark.parametrize(
    "change",
    [
        {"command": "\ud800"},
        {"command": "stackrev \udcff train"},
        {"scores": {"\ud800": 1}},
        {"scores": {"1-2": ["\udfff"]}},
        {"scores": {"1-2": json.loads("[" * 40 + "]" * 40)}},
        {"scores": {"1-2": [[]] * 2**19}},
    ],
    ids=lambda change: str(change)[:40],
)
def test_texts_that_are_not_unicode_and_values_without_end_are_refused(tmp_path, change):
    save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | change))
    for read in (checkpoints.describe, checkpoints.read_weights, checkpoints.verify, checkpoints.read_history):
        with pytest.raises(CheckpointError) as caught:
            read(tmp_path)
        assert "\n" not in caught.value.message
        caught.value.message.encode()


def test_a_whole_character_written_as_two_escapes_is_one(tmp_path):
    save(tmp_path, command="stackrev train -o 😀")
    assert "\\ud83d" in (tmp_path / "config.json").read_text()
    assert checkpoints.describe(tmp_path).command == "stackrev train -o 😀"


def test_history_is_read_as_strictly(tmp_path):
    for line in ('{"a": "\\ud800"}', '{"a": ' + "[" * 40 + "]" * 40 + "}", '{"a": ' + "[" * 100_000 + "}"):
        with pytest.raises(CheckpointError, match=r"history"):
            format.parse_history("history.jsonl", line.encode())


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_a_folder_whose_name_is_not_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"run-\xff\xe9")
    save(folder, command=os.fsdecode(b"stackrev train -o \xff"))
    checkpoints.save_scores(folder, {"1-2": {"coarse": 1.0, "fine": 1.0, "samples": 1, "seed": 0}})
    checkpoints.verify(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "# run-\\udcff\\udce9\n" in card
    assert checkpoints.describe(folder).command == "stackrev train -o \\udcff"


def test_nothing_on_the_card_acts_on_a_terminal(tmp_path):
    save(tmp_path, command="stackrev \x1b[2J train \u202e \x9b31m\x00")
    card = model_card("a\x1b]0;b\x07\nc", checkpoints.describe(tmp_path))
    assert all(each.isprintable() or each == "\n" for each in card)
    assert "\\x1b[2J" in card
    assert "\n# a\\x1b]0;b\\x07 c\n" in card
