"""`stackrev apply`: what a model has learned, on texts in its own vocabulary."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch
from handmade import handmade_reverser
from shapes import shape_of

from stackrev import cli
from stackrev.evaluation.decoding import greedy
from stackrev.kinds.config import Config
from stackrev.models import build, load
from stackrev.storage import checkpoints
from stackrev.tasks import TASKS
from stackrev.tasks.data import DataConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for each task: a network that reverses, and others that have learned nothing."""
    root = tmp_path_factory.mktemp("models")
    for name, task in TASKS.items():
        for kind in ("stack-lstm", "lstm"):
            shape = shape_of(kind, hidden_size=6, stack_width=5, vocabulary_size=task.size)
            model = build(shape, torch.Generator().manual_seed(3)).eval()
            config = Config(data=DataConfig(task=name), model=shape)
            checkpoints.save(root / f"{kind}-{name}", model.state_dict(), config)
    good = handmade_reverser()
    checkpoints.save(root / "good", good.state_dict(), Config(model=good.config))
    return root


@pytest.fixture
def run(capfd, monkeypatch):
    def run(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
        capfd.readouterr()
        file = io.TextIOWrapper(io.BytesIO((stdin or "").encode()))
        if stdin is None:
            monkeypatch.setattr(file, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", file)
        code = cli.main(["apply", *arguments])
        return code, *capfd.readouterr()

    return run


def test_a_network_that_reverses(run, folder):
    good = str(folder / "good")
    assert run("--model", good, "hello", "--check") == (0, "olleh\n", "")
    assert run("--model", good, "$hello|") == (0, "olleh&\n", "")
    code, out, _ = run("--model", good, "--json", "--check", stdin="ab\né\n")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"text": "ab", "output": "ba", "correct": True, "first_error": None},
        {"text": "é", "output": "é", "correct": True, "first_error": None},
    ]


@pytest.mark.parametrize("kind", ["stack-lstm", "lstm"])
@pytest.mark.parametrize("name", TASKS)
def test_every_task_in_its_own_vocabulary(run, folder, name, kind):
    task, path = TASKS[name], folder / f"{kind}-{name}"
    (source,) = task.draw(task_lengths(6), 1, torch.Generator().manual_seed(1))
    text = task.vocabulary.decode(source.tolist())
    (written,) = greedy(load(path).model, [source], task=task)
    code, out, _ = run(
        "--model", str(path), "--json", "--lines", "plain", stdin=text + "\n" if "\n" not in text else None
    )
    assert code == 0
    ended = written[:-1] if written[-1] == 2 else written
    assert json.loads(out) == {"text": text, "output": task.bind(text).show(ended)}
    if task.vocabulary.words:
        code, out, err = run("--model", str(path), "--check", text)
        assert code == 1
        assert err.startswith("error: the network errs at word 1 of ")


def task_lengths(length):
    from stackrev.config import LengthRange

    return LengthRange(minimum=length, maximum=length)


def test_a_word_that_the_task_does_not_have(run, folder):
    code, out, err = run("--model", str(folder / "stack-lstm-svo-sov"), stdin="si1 vi2 oi3\nsi1 likes oi3\n")
    assert (code, out.count("\n")) == (1, 1)
    assert err.startswith("error: line 2: word 2, 'likes', is not in the vocabulary\nhint: the words are rpi, si1, ")


def test_a_text_without_a_right_answer(run, folder):
    model = str(folder / "stack-lstm-svo-sov")
    assert run("--model", model, "si1 oi1 oi2")[0] == 0
    code, out, err = run("--model", model, "--check", stdin="si1 oi1 oi2\n")
    assert (code, out) == (1, "")
    assert err == "error: line 1: the sentence has a verb too few\nhint: give one of the grammar\n"


def test_a_trace_has_words(run, folder):
    code, out, _ = run("--model", str(folder / "stack-lstm-gender"), "--trace", "--json", "the me1 and a fe2")
    steps = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [step["fed"] for step in steps[:6]] == ["$", "the", "me1", "and", "a", "fe2"]


def test_nothing_to_apply(run, folder):
    assert run()[0] == 2
    assert run("a", "b")[0] == 2
    code, _, err = run("--model", str(folder / "nowhere"), "hello")
    assert code == 2
    assert "nowhere" in err


def test_reverse_refuses_other_tasks(folder, capfd):
    assert cli.main(["reverse", "--model", str(folder / "lstm-copy"), "hello"]) == 2
    err = capfd.readouterr().err
    assert "has learned copy, not reversal" in err
    assert f"hint: stackrev apply --model {folder / 'lstm-copy'} uses it" in err
