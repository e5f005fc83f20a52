"""Very large and very small requests: done in pieces, or refused in a line before memory is gone."""

from __future__ import annotations

import json
import os

import pytest

from stackrev import cli
from stackrev.cli import evaluate, generate_data, memory


@pytest.fixture
def run(capfd):
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(each) for each in arguments])
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("evaluate", "--lengths", "10000000", "--samples", "1"), 1),
        (("evaluate", "--lengths", "500000000", "--samples", "1"), 2),
        (("evaluate", "--lengths", "1-10000000", "--samples", "1", "--margins"), 1),
        (("evaluate", "--model", "lstm", "--lengths", "500000", "--samples", "1"), 1),
        (("evaluate", "--model", "rnn", "--model", "stack-lstm", "--lengths", "500000", "--samples", "1"), 1),
        (("generate-data", "--lengths", "100000000", "--samples", "1"), 2),
        (("generate-data", "--lengths", "100000000", "--samples", "1", "-o", "data.jsonl"), 2),
    ],
)
def test_a_string_that_does_not_fit_is_refused_at_once(run, monkeypatch, tmp_path, arguments, code):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 2 << 30)
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    error, hint = err.splitlines()
    assert error.startswith("error: a string of ")
    assert error.endswith(" of memory, and there are 2.0 GiB")
    assert hint == "hint: ask for shorter strings"
    assert not list(tmp_path.iterdir())


def test_a_long_string_of_a_data_file_is_refused_too(run, monkeypatch, tmp_path):
    run("generate-data", "--lengths", "20000", "--samples", "2", "-o", tmp_path / "data.jsonl")
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    code, out, err = run("evaluate", "--data", tmp_path / "data.jsonl")
    assert (code, out) == (1, "")
    assert err.startswith("error: a string of 20,000 symbols would take ")


@pytest.mark.parametrize("kind", ["stack-lstm", "lstm", "rnn"])
def test_a_model_that_does_not_fit_is_refused_before_it_is_made(run, monkeypatch, tmp_path, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 2 << 30)
    code, out, err = run("train", "--model", kind, "--hidden-size", "4096", "--layers", "16")
    assert (code, out) == (2, "")
    assert err.startswith("error: to train this model takes ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [("evaluate",), ("generate-data",)])
def test_too_many_strings_are_a_slip(run, arguments):
    code, out, err = run(*arguments, "--samples", "1000000000")
    assert (code, out) == (2, "")
    assert err.startswith("error: 1000000000 strings of up to 128 symbols are too many\n")


def test_strings_scored_in_pieces_score_the_same(run, monkeypatch, tmp_path):
    asked = "evaluate", "--lengths", "1-5", "--samples", "300", "--by-length", "--margins", "--json"
    (whole,) = json.loads(run(*asked)[1])
    run("generate-data", "--lengths", "1-5", "--samples", "300", "-o", tmp_path / "data.jsonl")
    monkeypatch.setattr(evaluate, "PIECE_STRINGS", 7)
    monkeypatch.setattr(evaluate, "PIECE_SYMBOLS", 19)
    (pieces,) = json.loads(run(*asked)[1])
    assert pieces == {**whole, "margins": pytest.approx(whole["margins"], abs=1e-3)}
    (read,) = json.loads(run("evaluate", "--data", tmp_path / "data.jsonl", *asked[-3:])[1])
    assert read == {**pieces, "seed": None}


def test_strings_written_in_pieces_are_the_same(run, monkeypatch):
    asked = "generate-data", "--lengths", "0-9", "--samples", "100", "--seed", "3"
    whole = run(*asked)[1]
    assert len(whole.splitlines()) == 100
    monkeypatch.setattr(generate_data, "PIECE_STRINGS", 7)
    monkeypatch.setattr(generate_data, "PIECE_SYMBOLS", 19)
    assert run(*asked)[1] == whole


def test_data_that_is_no_file_is_refused(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        code, out, err = run("evaluate", "--data", path)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {path} ")
        assert len(err.splitlines()) == 1
