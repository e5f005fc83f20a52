"""Words of a command line that mean nothing, or might mean something else."""

from __future__ import annotations

import io
import sys

import pytest
import typer

from stackrev import cli


@pytest.fixture
def stackrev(capfd, monkeypatch):
    def run(*words: str, stdin: bytes = b"one\n") -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = cli.main(words)
        return code, *capfd.readouterr()

    return run


def leaves(command=None, path=()):
    command = command or typer.main.get_command(cli.app)
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield path


EVERY = sorted(leaves())


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
@pytest.mark.parametrize("word", ["--wat", "-x", "--hlep", "-5", "--9=1", "-\u202e"])
def test_a_word_that_starts_with_a_dash_and_is_no_option_is_an_error(stackrev, path, word):
    code, out, err = stackrev(*path, word)
    error, hint = err.splitlines()
    assert (code, out) == (2, "")
    assert " has no option -" in error
    assert hint == "hint: did you mean --help?" if word == "--hlep" else hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["reverse", "--chekc"], "--check"),
        (["reverse", "--chekc=1"], "--check"),
        (["reverse", "hello", "--CHECK"], "--check"),
        (["reverse", "-check"], "--check"),
        (["reverse", "--trace-htm", "x", "hi"], "--trace-html"),
        (["train", "--learning_rate", "1"], "--learning-rate"),
        (["models", "push", "a", "b", "--dryrun"], "--dry-run"),
        (["--verison"], "--version"),
        (["trian"], "train"),
        (["models", "lst"], "list"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(stackrev, words, meant):
    code, out, err = stackrev(*words)
    assert (code, out) == (2, "")
    assert err.splitlines()[1].startswith(f"hint: did you mean {meant}?")


def test_a_flag_takes_no_value(stackrev):
    code, out, err = stackrev("reverse", "--check=1")
    assert (code, out) == (2, "")
    assert err.startswith("error: --check takes no value\n")


@pytest.mark.parametrize("path", [(), ("models",), ("plot",), *EVERY], ids=" ".join)
def test_help_and_version_work_where_people_type_them(stackrev, path):
    assert stackrev(*path, "-h") == stackrev(*path, "--help")
    assert stackrev(*path, "-h")[1].startswith(" ".join(["Usage: stackrev", *path]))
    assert stackrev(*path, "--version") == stackrev("--version")
    assert stackrev("--version")[1].startswith("stackrev ")


def test_after_two_dashes_everything_is_text(stackrev):
    for text in ("-h", "--version", "--check", "-", "--", "-5", "-é"):
        assert stackrev("reverse", "--", text)[:2] == (0, text[::-1] + "\n")
        assert stackrev("reverse", "--check", "--", text)[:2] == (0, text[::-1] + "\n")
    assert stackrev("reverse", "--")[1] == "eno\n"  # and nothing after them is stdin
    assert stackrev("reverse", "-")[1] == "eno\n"
    assert stackrev("reverse", "hi", "--check")[1] == "ih\n"
    assert stackrev("reverse", "one", "--", "two")[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["reverse", "--trace-html", "--check", "hi"],
        ["reverse", "--model", "--trace", "hi"],
        ["reverse", "--model", "--", "hi"],
        ["reverse", "--trace-html", "-x", "hi"],
        ["generate-data", "-o", "--quiet"],
        ["generate-data", "--alphabet", "-abc"],
        ["plot", "gates", "hi", "--title", "--output"],
    ],
)
def test_an_option_is_not_taken_for_a_value(stackrev, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = stackrev(*words)
    assert (code, out) == (2, "")
    assert "needs a value, and -" in err.splitlines()[0]
    assert not list(tmp_path.iterdir())


def test_values_that_start_with_a_dash_can_be_said(stackrev):
    assert stackrev("generate-data", "--samples", "1", "--lengths", "2", "--alphabet=-")[1] == (
        '{"input": "$--|", "target": "--&"}\n'
    )
    assert stackrev("generate-data", "--samples", "1", "-o", "-")[0] == 0
    assert "--pop-bias takes a number" in stackrev("train", "--pop-bias", "-1e9")[2]  # a number, and out of range
    assert stackrev("generate-data", "--seed", "-1")[0] == 2
