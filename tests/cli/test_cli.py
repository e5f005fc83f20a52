"""The command line: what goes to stdout and to stderr, exit codes, and no traceback whatever is typed."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command_line import command, process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackrev.cli import common, sizes
from stackrev.errors import ModelNotFoundError
from stackrev.models import open_decoder


class TestRoot:
    def test_alone_it_shows_help(self, stackrev):
        alone, asked = stackrev(), stackrev("--help")
        assert (alone.code, alone.out) == (0, asked.out)
        assert "reverse" in alone.out
        assert alone.err == ""

    def test_version(self, stackrev):
        result = stackrev("--version")
        assert result.code == 0
        assert re.match(r"stackrev \d+\.\d+\.\d+\ntorch \d", result.out)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["trian"], "stackrev has no command 'trian'"),
            (["evaluate", "--wat"], "stackrev evaluate has no option --wat"),
            (["evaluate", "--samples", "0"], "--samples takes a whole number that is at least 1, not '0'"),
            (["evaluate", "--samples", "x"], "--samples takes a whole number that is at least 1, not 'x'"),
            (["evaluate", "--lengths", "9-1"], "lengths 9-1 are not a range"),
            (["evaluate", "--lengths", "x"], "'x' is not a range of lengths"),
            (["evaluate", "--lengths", "1000000000"], "1000 strings of up to 1000000000 symbols are too many"),
            (["generate-data", "--alphabet", ""], "the alphabet is empty"),
            (["generate-data", "--seed", "-1"], "between 0 and 2**63 - 1, not '-1'"),
            (["generate-data", "extra"], "stackrev generate-data does not take 'extra'"),
            (["generate-data", "-o"], "-o needs a value"),
            (["certify"], "stackrev certify needs a NAME"),
            (
                ["train", "--hidden-size", "0"],
                "--hidden-size takes a whole number that is between 1 and 4,096, not '0'",
            ),
            (["train", "--optimizer", "sdg"], "--optimizer cannot be 'sdg'"),
            (["train", "--momentum", "0.9"], "momentum goes with sgd or rmsprop"),
            (["train", "--settle-batches", "soon"], "between 0 and 1,000,000,000, or none, not 'soon'"),
            (["train", "--resume", "--force"], "--resume goes on with a run and --force replaces it"),
            (["train", "--model", "gru"], "--model cannot be 'gru'"),
            (["reverse", "--model", "nobody", "text"], "there is no model 'nobody'"),
            (["reverse"], "there is nothing to reverse"),
            (["reverse", "two", "words"], "there is more than one text"),
        ],
    )
    def test_wrong_usage_is_one_line_and_a_hint(self, stackrev, arguments, message):
        result = stackrev(*arguments)
        assert result.code == 2
        assert result.out == ""
        error, hint = result.err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        assert message in error

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["reverse", "".join(map(chr, range(0x4E00, 0x4E81)))], "the text has 129 different characters"),
            (["generate-data", "-o", "nowhere/file"], "nowhere/file cannot be written"),
            (["generate-data", "--alphabet", "aé"], "is not ASCII"),
        ],
    )
    def test_failure_is_one_line(self, stackrev, arguments, message):
        result = stackrev(*arguments)
        assert result.code == 1
        assert result.out == ""
        assert result.err.startswith(f"error: {message}") or message in result.err
        assert all(line.startswith(("error: ", "hint: ")) for line in result.err.splitlines())

    def test_debug_shows_the_traceback(self, stackrev, monkeypatch):
        monkeypatch.setenv("STACKREV_DEBUG", "1")
        with pytest.raises(ModelNotFoundError):
            stackrev("reverse", "--model", "nobody", "text")

    def test_interruption_is_130(self, stackrev, monkeypatch):
        def interrupt(*arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr("stackrev.cli.answering.find_model", interrupt)
        assert stackrev("reverse", "text").code == 130

    def test_help_is_quick_and_without_torch(self):
        code = (
            "import sys, time; from stackrev.cli import main; code = main(sys.argv[1:]); "
            "assert 'torch' not in sys.modules and 'rich' not in sys.modules; "
            "print(time.process_time(), file=sys.stderr); sys.exit(code)"
        )
        for arguments in (["--help"], ["train", "--help"], ["--version"], ["evaluate", "--samples", "x"]):
            seconds = []
            for _ in range(3):
                done = subprocess.run(
                    [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
                )
                assert "Traceback" not in done.stderr
                seconds.append(float(done.stderr.splitlines()[-1]))
            assert min(seconds) < 0.4, arguments

    def test_a_reader_that_leaves_is_met_with_silence(self):
        command = f"{sys.executable} -m stackrev generate-data --samples 20000 | head -n 1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_is_one_line(self):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "stackrev", "generate-data", "--samples", "1"],
                stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr == "error: No space left on device\n"

    def test_model_names_are_completed(self):
        environment = os.environ | {
            "_STACKREV_COMPLETE": "complete_bash", "COMP_WORDS": "stackrev reverse --model st", "COMP_CWORD": "3"
        }  # fmt: skip
        assert process(env=environment).stdout.split() == ["stack-lstm"]


COMMANDS = ("reverse", "evaluate", "train", "generate-data")
PARTS = [part for name in COMMANDS for part in command(name).params if part.param_type_name == "option"]
OPTIONS = {name for part in PARTS for name in (*part.opts, *part.secondary_opts)} - {"--output", "-o", "--data"}
WORDS = st.one_of(
    st.sampled_from(
        ["reverse", "evaluate", "train", "generate-data", "-", "--", "", "--help", "nobody", "lstm", "8-9"]
    ),
    st.sampled_from(sorted(OPTIONS)),
    st.sampled_from(["1", "0", "-1", "2.5", "nan", "inf", "1e999", "none", "9" * 30, "5-3", "1-2"]),
    st.text(max_size=8),
)


class TestAnything:
    """Nothing that is typed or piped gives a traceback: `main` returns a code, and stderr is lines of its own."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch, tmp_path_factory):
        # what a random command line asks for must not take an hour, or train in this folder
        monkeypatch.chdir(tmp_path_factory.mktemp("anything"))
        loaded = functools.cache(common.load_model)
        opened = functools.cache(open_decoder)
        monkeypatch.setattr("stackrev.models.open_decoder", opened)
        monkeypatch.setattr("stackrev.cli.evaluate.load_model", loaded)
        monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        monkeypatch.setattr(sizes, "MAX_SYMBOLS", 5_000)
        monkeypatch.setattr("stackrev.cli.train._train", lambda run, quiet: False)

    @settings(max_examples=700, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(st.sampled_from(["", "reverse", "evaluate", "train", "generate-data"]), st.lists(WORDS, max_size=5))
    def test_random_command_lines(self, stackrev, first, words):
        result = stackrev(*([first] if first else []), *words, stdin=b"a line\n")
        assert result.code in (0, 1, 2, 130)
        assert all(re.match(r"error: |hint: |note: ", line) for line in result.err.splitlines()), result.err
        assert (result.code in (0, 130)) or "error: " in result.err

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(st.binary(max_size=60) | st.text(st.characters(max_codepoint=127), max_size=60).map(str.encode))
    def test_random_input(self, stackrev, data):
        result = stackrev("reverse", stdin=data)
        assert result.code in (0, 1)
        lines = data.split(b"\n")[: -1 if data.endswith(b"\n") or not data else None]
        if result.code == 0:
            assert len(result.out.split("\n")) == len(lines) + 1
        else:
            assert re.match(r"error: line \d+", result.err)
