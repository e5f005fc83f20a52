"""The same mistake has the same exit code: whatever is named on a command line and is not there, it is wrong usage."""

from __future__ import annotations

import pytest
from test_arguments import EVERY

NOTHING_NAMED = {("models", "list"), ("models", "pull"), ("generate-data",), ("experiment", "run")}
"""Commands that read no file or folder of the user's; what is on the Hub alone may be there and out of reach."""

MODEL = [
    *("reverse --model {} x", "apply --model {} x", "page --model {}", "evaluate --model {}", "certify {}"),
    *("models info {}", "models verify {}", "models push {} user/repo", "plot learning -m {}", "plot lengths -m {}"),
    *("plot gates -m {} x", "plot stack -m {} x"),
]
OTHERS = [
    *("evaluate --data {}", "train --resume --output {}", "train --task pairs --data {}"),
    *("search --trials 0 --journal {}", "search --trials 1 --task pairs --data {}", "experiment table {}"),
    *("experiment rerun {} 1", "plot consistency {}", "plot comparison {}", "plot search {}"),
]


def test_every_command_that_is_given_something_is_tried():
    tried = {tuple(each.split(" {}")[0].split(" -")[0].split()) for each in (*MODEL, *OTHERS)}
    assert tried | NOTHING_NAMED == set(EVERY)


@pytest.mark.parametrize("line", [*MODEL, *OTHERS])
def test_what_is_named_and_is_not_there_is_wrong_usage(stackrev, line, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    missing = tmp_path / "missing"
    result = stackrev(*line.format(missing).split())
    assert result.code == 2, result.err
    error, *hint = result.err.splitlines()
    assert str(missing) in error
    assert len(hint) <= 1
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["experiment table {}", "plot consistency {}", "plot comparison {}"])
def test_a_folder_without_an_experiment_is_like_one_that_is_not_there(stackrev, line, tmp_path):
    pytest.importorskip("matplotlib")
    result = stackrev(*line.format(tmp_path).split())
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: {tmp_path} holds no experiment")


def test_pairs_that_are_not_named_are_wrong_usage(stackrev):
    assert stackrev("train", "--task", "pairs").code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hidden_size=x", "config.model.hidden_size must be a whole number, not 'x'"),
        ("learning_rate=[1]", "config.training.learning_rate must be a number, not [1]"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(stackrev, change, message, tmp_path):
    result = stackrev("experiment", "run", str(tmp_path / "e"), "--set", change)
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: {message}")
