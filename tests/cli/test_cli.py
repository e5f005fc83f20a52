"""The command line: what goes to stdout and to stderr, exit codes, and no traceback whatever is typed."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackrev import cli
from stackrev.cli import common, sizes
from stackrev.cli.settings import _OPTIONS, command_line, configure
from stackrev.cli.train import _advice
from stackrev.errors import ModelNotFoundError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config, settings_of
from stackrev.models import load, open_decoder
from stackrev.storage import checkpoints
from stackrev.training import runs

TINY = (
    *("--hidden-size", "8", "--batch-size", "4", "--batches", "4", "--check-every", "2"),
    *("--lengths", "1-4", "--test-lengths", "5-6", "--held-out-samples", "5", "--device", "cpu"),
    *("--warmup-batches", "0"),
)


class Result:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def stackrev(capfd, monkeypatch):
    """Run a command in this process, with bytes on stdin or with a terminal there."""

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        capfd.readouterr()
        file = io.TextIOWrapper(io.BytesIO(stdin or b""))
        if stdin is None:
            monkeypatch.setattr(file, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", file)
        code = cli.main(arguments)
        return Result(code, *capfd.readouterr())

    return run


def process(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stackrev", *arguments], capture_output=True, text=True, timeout=120, check=False, **more
    )


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
            (["evaluate", "--data", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
            (["generate-data", "-o", "nowhere/file"], "nowhere/file cannot be written"),
            (["generate-data", "--alphabet", "aé"], "is not ASCII"),
            (["train", "--resume", "--output", "nowhere"], "nowhere holds no run"),
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

        monkeypatch.setattr("stackrev.cli.reverse.find_model", interrupt)
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


class TestReverse:
    @pytest.mark.parametrize(
        ("text", "answer"),
        [
            ("$A string to reverse|", "esrever ot gnirts A&"),
            ("A string to reverse", "esrever ot gnirts A"),
            ("[red]bold[/red] 100%", "%001 ]der/[dlob]der["),
            ("$|", "&"),
            ("$&|", "&&"),
            ("$", "$"),
            ("$a", "a$"),
            ("a&", "&a"),
        ],
    )
    def test_markers_in_marker_out(self, stackrev, text, answer):
        result = stackrev("reverse", text)
        assert (result.code, result.out, result.err) == (0, answer + "\n", "")

    def test_what_the_shell_leaves_of_double_quotes(self, stackrev):
        result = stackrev("reverse", " string to reverse|")
        assert (result.code, result.out) == (0, "esrever ot gnirts \n")
        assert result.err.startswith("note: ")
        assert "single quotes" in result.err

    @pytest.mark.parametrize("text", ["-foo", "--foo", "-1", "--foo=bar", "---", "-", "--", "-é", "-h", "--version"])
    def test_what_starts_with_a_dash_is_a_text_after_two_dashes(self, stackrev, text):
        assert stackrev("reverse", "--", text).out == text[::-1] + "\n"

    def test_after_two_dashes_options_are_text(self, stackrev):
        assert stackrev("reverse", "--", "--model").out == "ledom--\n"

    def test_lines_of_stdin(self, stackrev):
        for arguments in (["reverse"], ["reverse", "-"]):
            result = stackrev(*arguments, stdin=b"hello\n$hi|\r\n\ntable |\nlast")
            assert (result.code, result.out, result.err) == (0, "olleh\n|ih$\n\n| elbat\ntsal\n", "")

    def test_lines_are_meant_as_they_stand_unless_said_otherwise(self, stackrev):
        lines = b"$hi|\n$a\nb|\n|\n$|\n"
        assert stackrev("reverse", stdin=lines).out == "|ih$\na$\n|b\n|\n|$\n"
        assert stackrev("reverse", "--lines", "plain", stdin=lines).out == "|ih$\na$\n|b\n|\n|$\n"
        assert stackrev("reverse", "--lines", "auto", stdin=lines).out == "ih&\na$\n|b\n|\n&\n"
        result = stackrev("reverse", "--lines", "marked", stdin=lines)
        assert (result.code, result.out) == (1, "ih&\n")
        assert result.err.startswith("error: line 2: the text is not between $ and |\nhint: ")

    def test_an_argument_may_be_meant_otherwise_too(self, stackrev):
        assert stackrev("reverse", "--lines", "plain", "$hi|").out == "|ih$\n"
        assert stackrev("reverse", "--lines", "marked", "$hi|").out == "ih&\n"
        plain = stackrev("reverse", "--lines", "plain", " string|")
        assert (plain.out, plain.err) == ("|gnirts \n", "")
        result = stackrev("reverse", "--lines", "marked", " string|")
        assert (result.code, result.out) == (1, "")
        assert "single quotes" in result.err
        assert stackrev("reverse", "--lines", "some", "hi").code == 2

    @given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9), max_size=5))
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    def test_every_line_of_a_stream_is_answered_as_rev_would(self, stackrev, lines):
        lines += [f"${each}|" for each in lines]
        result = stackrev("reverse", stdin="".join(f"{each}\n" for each in lines).encode())
        assert result.out == "".join(f"{each[::-1]}\n" for each in lines)

    def test_an_empty_stdin_is_an_empty_answer(self, stackrev):
        result = stackrev("reverse", stdin=b"")
        assert (result.code, result.out, result.err) == (0, "", "")

    def test_lines_before_a_bad_one_are_answered(self, stackrev):
        many = "".join(map(chr, range(0x4E00, 0x4E81)))
        result = stackrev("reverse", stdin=f"hello\nworld\n{many}\nagain\n".encode())
        assert (result.code, result.out) == (1, "olleh\ndlrow\n")
        assert result.err.startswith("error: line 3: the text has 129 different characters")
        result = stackrev("reverse", stdin=b"hello\nab\xffc\n")
        assert (result.code, result.out) == (1, "olleh\n")
        assert result.err.startswith("error: line 2 is not UTF-8: byte 8 of the input is 0xff\n")

    def test_many_lines_come_back_in_order(self, stackrev):
        lines = [f"line {number} " + "x" * (number % 40) for number in range(300)]
        result = stackrev("reverse", stdin="\n".join(lines).encode())
        assert result.out.splitlines() == [line[::-1] for line in lines]

    def test_answers_come_as_lines_go(self):
        with subprocess.Popen(
            [sys.executable, "-m", "stackrev", "reverse"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as running:
            for line in (b"first", b"second"):
                running.stdin.write(line + b"\n")
                running.stdin.flush()
                assert running.stdout.readline() == line[::-1] + b"\n"
            running.stdin.close()
            assert running.wait(timeout=60) == 0


class TestEvaluate:
    def test_the_table(self, stackrev):
        result = stackrev("evaluate", "--samples", "20")
        assert result.code == 0
        assert [line.split() for line in result.out.splitlines()] == [
            ["model", "lengths", "strings", "coarse", "fine"],
            ["stack-lstm", "65-128", "20", "1.0000", "1.0000"],
        ]

    def test_json_has_one_object_a_model(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--output", str(tmp_path / "tiny"))
        result = stackrev(
            "evaluate", "--lengths", "1-3", "--samples", "20", "--seed", "5", "--by-length", "--json",
            "--model", "stack-lstm", "--model", str(tmp_path / "tiny"),
        )  # fmt: skip
        good, bad = result.json
        assert good.keys() == {"model", "lengths", "samples", "seed", "coarse", "fine", "by_length"}
        assert (good["model"], good["lengths"], good["samples"], good["seed"]) == ("stack-lstm", "1-3", 20, 5)
        assert sum(each["samples"] for each in good["by_length"]) == 20
        assert [each["length"] for each in good["by_length"]] == [1, 2, 3]
        assert bad["model"] == str(tmp_path / "tiny")
        assert bad["coarse"] < 1
        assert "by_length" not in stackrev("evaluate", "--samples", "1", "--json").json[0]

    def test_margins(self, stackrev, tmp_path):
        arguments = "evaluate", "--lengths", "1-9", "--samples", "20", "--margins"
        result = stackrev(*arguments, "--json").json[0]
        names = ["encoder_push", "encoder_pop", "decoder_push", "decoder_pop", "logits"]
        assert list(result["margins"]) == names
        assert 0 < min(result["proved_margins"].values())
        assert all(result["proved_margins"][name] <= result["margins"][name] for name in names)
        table = stackrev(*arguments).out.split("\n\n")[1].splitlines()
        assert table[0].split()[0] == "margins"
        for name, line in (("margins", table[1]), ("proved_margins", table[2])):
            shown = line.split()[-5:]
            assert [float(each) for each in shown] == pytest.approx(list(result[name].values()), abs=0.001)
        assert table[1].startswith("stack-lstm ")
        assert table[2].startswith("stack-lstm, proved ")
        untrained = str(tmp_path / "tiny")
        stackrev("train", *TINY, "--gate-stretch", "0", "--settle", "plain", "--output", untrained)
        result = stackrev(*arguments, "--model", untrained, "--json").json[0]
        assert result["margins"]["encoder_push"] is None  # never exactly 0 or 1
        assert result["proved_margins"] is None
        assert " - " in stackrev(*arguments, "--model", untrained).out

    def test_only_a_stack_has_margins(self, stackrev, tmp_path):
        rnn = str(tmp_path / "rnn")
        assert stackrev("train", *TINY, "--model", "rnn", "--output", rnn).code == 0
        result = stackrev("evaluate", "--margins", "--model", "stack-lstm", "--model", rnn)
        assert (result.code, result.out) == (2, "")
        assert "has no stack" in result.err

    def test_it_draws_what_generate_data_writes(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--output", str(tmp_path / "tiny"))
        asked = ["--lengths", "1-6", "--samples", "30", "--seed", "3"]
        stackrev("generate-data", *asked, "-o", str(tmp_path / "data.jsonl"))
        common_ = ["--model", str(tmp_path / "tiny"), "--json", "--by-length"]
        drawn = stackrev("evaluate", *asked, *common_).json[0]
        read = stackrev("evaluate", "--data", str(tmp_path / "data.jsonl"), *common_).json[0]
        assert (read.pop("seed"), drawn.pop("seed")) == (None, 3)
        assert read == drawn

    def test_lengths_and_samples_choose_from_a_data_file(self, stackrev, tmp_path):
        path = tmp_path / "data.jsonl"
        stackrev("generate-data", "--lengths", "1-6", "--samples", "60", "-o", str(path))
        result = stackrev("evaluate", "--data", str(path), "--lengths", "2-4", "--samples", "5", "--json").json[0]
        assert (result["lengths"], result["samples"]) == ("2-4", 5)
        assert stackrev("evaluate", "--data", str(path), "--lengths", "99").code == 2

    def test_a_damaged_data_file_is_one_line(self, stackrev, tmp_path):
        path = tmp_path / "data.jsonl"
        path.write_text('{"input": "$ab|", "target": "ab&"}\n')
        result = stackrev("evaluate", "--data", str(path))
        assert (result.code, result.out) == (1, "")
        assert "line 1: the target is not the string reversed" in result.err

    def test_only_all_is_shown_as_one(self):
        assert common.share(0.99999) == "0.9999"
        assert common.share(1.0) == "1.0000"


class TestGenerateData:
    def test_lines(self, stackrev):
        result = stackrev("generate-data", "--lengths", "3-5", "--samples", "40", "--alphabet", "abca")
        examples = [json.loads(line) for line in result.out.splitlines()]
        assert len(examples) == 40
        assert {len(each["input"]) for each in examples} == {5, 6, 7}
        assert all(each["target"] == each["input"][-2:0:-1] + "&" for each in examples)
        assert set("".join(each["input"][1:-1] for each in examples)) == set("abc")

    def test_the_seed_decides(self, stackrev):
        first, again, other = (stackrev("generate-data", "--seed", seed, "--samples", "5").out for seed in "112")
        assert first == again != other

    def test_a_file_is_written_whole_and_noted_on_stderr(self, stackrev, tmp_path):
        path = tmp_path / "data.jsonl"
        result = stackrev("generate-data", "--samples", "3", "-o", str(path))
        assert (result.code, result.out) == (0, "")
        assert result.err == f"note: wrote 3 strings to {path}\n"
        assert len(path.read_text().splitlines()) == 3
        assert stackrev("generate-data", "--samples", "3", "--quiet", "-o", str(path)).err == ""
        assert stackrev("generate-data", "--samples", "3", "-o", "-").out == path.read_text()


class TestTrain:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind(self, stackrev, tmp_path, kind):
        result = stackrev("train", "--model", kind, *TINY, "--output", str(tmp_path / "run"))
        assert result.code == 0
        assert result.out.startswith(f"{kind}, seed 0: not solved; 4 batches in ")
        assert result.out.endswith(f"saved in {tmp_path / 'run'}\n")
        shown = [line.split()[:2] for line in result.err.splitlines()]
        assert shown == [["batch", "2"], ["batch", "4"], ["note:", "the"], ["hint:", "stackrev"]]
        assert checkpoints.verify(tmp_path / "run")

    def test_json_and_quiet(self, stackrev, tmp_path):
        result = stackrev("train", *TINY, "--quiet", "--json", "--output", str(tmp_path / "run"))
        assert result.err == ""
        told = result.json
        assert (told["model"], told["seed"], told["batches"], told["solved_batch"]) == ("stack-lstm", 0, 4, None)
        assert told["scores"] == checkpoints.load_config(tmp_path / "run")[1]
        assert told["scores"].keys() == {"1-4", "5-6"}

    def test_the_folder_has_the_name_of_model_and_seed(self, stackrev, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        stackrev("train", *TINY, "--model", "rnn", "--seed", "7", "--quiet")
        assert (tmp_path / "runs/rnn-seed7/model.safetensors").is_file()
        assert stackrev("train", "--resume", "--model", "rnn", "--seed", "7", "--quiet").code == 0

    def test_nothing_is_overwritten_unasked(self, stackrev, tmp_path):
        train = ("train", *TINY, "--quiet", "--output", str(tmp_path / "run"))
        assert stackrev(*train).code == 0
        result = stackrev(*train, "--seed", "1")
        assert result.code == 1
        assert "already holds a run" in result.err
        assert "--force" in result.err
        assert stackrev(*train, "--seed", "1", "--force").code == 0

    def test_another_configuration_does_not_resume(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--quiet", "--output", str(tmp_path / "run"))
        result = stackrev("train", "--resume", "--layers", "2", "--output", str(tmp_path / "run"))
        assert result.code == 1
        assert "was started with layers = 1, not 2" in result.err
        result = stackrev(
            "train", "--resume", "--batches", "6", "--check-every", "3", "--output", str(tmp_path / "run")
        )
        assert result.code == 0
        assert "note: goes on with batches = 6 in place of 4" in result.err
        assert "bit for bit" in result.err
        assert checkpoints.describe(tmp_path / "run").config.training.batches == 6
        assert stackrev("train", "--resume", "--hidden-size", "8", "--output", str(tmp_path / "run")).code == 0

    def test_the_recorded_command_makes_the_same_weights(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--no-mixed-lengths", "--quiet", "--output", str(tmp_path / "first"))
        command = checkpoints.describe(tmp_path / "first").command
        assert str(tmp_path) not in command
        stackrev(*command.split()[1:], "--quiet", "--output", str(tmp_path / "second"))
        first, second = (load(tmp_path / name).model.state_dict() for name in ("first", "second"))
        assert all(first[name].equal(second[name]) for name in first)

    def test_ctrl_c_saves_and_says_how_to_go_on(self, tmp_path):
        folder = tmp_path / "my run"
        arguments = [*TINY, "--batches", "1000000", "--output", str(folder)]
        with subprocess.Popen(
            [sys.executable, "-m", "stackrev", "train", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as running:
            assert running.stderr.readline().startswith(b"batch")
            time.sleep(0.2)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        assert (running.returncode, out) == (130, b"")
        note, hint = err.decode().splitlines()[-2:]
        batch = runs.Run.resume(folder).trainer.progress.batch
        assert note == f"note: stopped after {batch} batches and saved in {folder}"
        assert hint == f"hint: stackrev train --resume --output '{folder}' goes on"
        assert checkpoints.verify(folder)


class TestUnsolved:
    def test_a_run_that_does_not_learn_says_so_and_what_to_change(self, stackrev, tmp_path):
        result = stackrev("train", *TINY, "--output", str(tmp_path / "run"), "--quiet")
        assert (result.code, result.err) == (0, "")
        result = stackrev("train", *TINY, "--learning-rate", "4e-3", "--output", str(tmp_path / "other"))
        assert result.code == 0
        note, hint = result.err.splitlines()[-2:]
        assert note == "note: the run ended unsolved: after 4 batches not every string was right"
        assert hint == (
            f"hint: stackrev train --resume --output {tmp_path / 'other'} --batches 8 trains for longer;"
            " or leave --hidden-size, --batch-size, --learning-rate at the default"
        )

    def test_a_default_run_is_told_of_its_seed(self):
        advice = _advice(Config.default("rnn"), Path("my runs"))
        command = "stackrev train --resume --output 'my runs' --batches 40000"
        assert advice == f"{command} trains for longer; or try another --seed"


class TestSettings:
    @given(
        kind=st.sampled_from(list(KINDS)),
        options=st.fixed_dictionaries(
            {},
            optional={
                "hidden_size": st.integers(1, 100),
                "mixed_lengths": st.booleans(),
                "learning_rate": st.floats(1e-9, 1.0),
                "clip_norm": st.floats(1e-3, float("inf")),
                "pop_bias": st.floats(-100, 100),
                "settle_batches": st.none() | st.integers(0, 99),
                "curriculum_start": st.none() | st.integers(1, 99),
                "schedule": st.sampled_from(["cosine", "step"]),
                "device": st.sampled_from(["cpu", "auto"]),
            },
        ),
    )
    def test_a_command_line_says_all_of_a_configuration(self, kind, options):
        options = {name: value for name, value in options.items() if name in settings_of(Config.default(kind))}
        config = configure(Config.default(kind), options)
        for name, value in options.items():
            section = next(each for each in (config.data, config.model, config.training) if hasattr(each, name))
            assert getattr(section, name) == value
        assert read_command(command_line(config)) == config

    def test_defaults_need_no_options(self):
        assert command_line(Config.default("lstm")) == "stackrev train --model lstm --seed 0"

    def test_every_setting_is_an_option(self):
        parameters = {each.name for each in command("train").params}
        for kind in KINDS:
            assert {name for name, (_, each) in settings_of(Config.default(kind)).items() if each.option} <= parameters

    def test_a_setting_of_another_kind_is_refused(self, stackrev, tmp_path):
        for kind, option in (("lstm", "--stack-width"), ("rnn", "--gate-noise"), ("stack-lstm", "--embedding-width")):
            result = stackrev("train", "--model", kind, option, "8", "--output", str(tmp_path / "run"))
            assert (result.code, result.out) == (2, "")
            assert f"the model {kind} has no {option}" in result.err
            assert not (tmp_path / "run").exists()


@functools.cache
def command(name: str):
    return typer.main.get_command(cli.app).commands[name]


def read_command(line: str) -> Config:
    """The configuration that `stackrev train` would read from a command line."""
    arguments = shlex.split(line)[2:]
    context = command("train").make_context("train", arguments)
    given = {name: value for name, value in context.params.items() if value is not None and name in _OPTIONS}
    values = {name: None if value == "none" else value for name, value in given.items()}
    return configure(Config.default(context.params["kind"]), values)


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
