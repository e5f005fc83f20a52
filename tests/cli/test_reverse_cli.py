"""`stackrev reverse`: checks, traces, streams and terminals."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from handmade import handmade_reverser

from stackrev import cli, kernels
from stackrev.cli import answering
from stackrev.kinds.config import Config
from stackrev.kinds.lstm import LSTMConfig
from stackrev.kinds.rnn import RNNConfig
from stackrev.models import build
from stackrev.storage import checkpoints

COMMAND = [sys.executable, "-m", "stackrev", "reverse"]
compiled = pytest.mark.skipif(not kernels.available(), reason="without the compiled kernels it has to wait for torch")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    checkpoints.save(folder, handmade_reverser().state_dict(), Config(model=handmade_reverser().config))
    return str(folder)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A network that writes an x for every o."""
    folder, model = tmp_path_factory.mktemp("bad"), handmade_reverser()
    with torch.no_grad():
        x, o = (3 + ord(each) for each in "xo")
        model.logits.weight[x] = model.logits.weight[o]
        model.logits.bias[x] = 0.5
    checkpoints.save(folder, model.state_dict(), Config(model=model.config))
    return str(folder)


@pytest.fixture
def run(capfd, monkeypatch):
    def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        capfd.readouterr()
        file = io.TextIOWrapper(io.BytesIO(stdin or b""))
        if stdin is None:
            monkeypatch.setattr(file, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", file)
        code = cli.main(["reverse", *arguments])
        return code, *capfd.readouterr()

    return run


def in_terminal(*arguments: str, **environment: str) -> str:
    """What a command shows on a terminal."""
    leader, follower = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {
        "TERM": "xterm-256color", "COLUMNS": "100", **environment
    }  # fmt: skip
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=follower, stdout=follower, stderr=subprocess.DEVNULL, env=environment
    ) as running:
        os.close(follower)
        shown = b""
        while select.select([leader], [], [], 60)[0]:
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        running.wait(60)
    os.close(leader)
    return shown.decode()


class TestText:
    def test_any_text(self, run):
        assert run("é日👩‍👩‍👧") == (0, "👩‍👩‍👧日é\n", "")
        assert run("$é日|") == (0, "日é&\n", "")
        assert run(stdin="é日\n$שָׁa|\r\n\n".encode()) == (0, "日é\n|aשָׁ$\n\n", "")

    def test_an_argument_that_is_not_utf_8(self, run):
        code, out, err = run(os.fsdecode(b"ab\xff"))
        assert (code, out) == (1, "")
        assert err.startswith("error: the text is not UTF-8: its byte 2 is 0xff\nhint: ")

    def test_control_characters_are_untouched_when_piped(self, run):
        assert run("\x1b[31m\x07") == (0, "\x07m13[\x1b\n", "")

    @compiled
    def test_and_made_visible_on_a_terminal(self):
        assert in_terminal("\x1b[31m\x07") == "␇m13[␛\r\n"

    def test_json(self, run):
        code, out, _ = run("--json", "--lines", "auto", stdin="é\n$ab|\n".encode())
        assert code == 0
        assert [json.loads(line) for line in out.splitlines()] == [
            {"text": "é", "reversed": "é"},
            {"text": "ab", "reversed": "ba&"},
        ]


class TestCheck:
    def test_a_network_that_is_right(self, run, good):
        assert run("--model", good, "--check", "hello") == (0, "olleh\n", "")

    def test_the_first_error(self, run, bad):
        code, out, err = run("--model", bad, "--check", "hello")
        assert (code, out) == (1, "xlleh\n")
        assert err == "error: the network errs at character 1 of 5: it writes 'x' and should write 'o'\n"

    def test_lines(self, run, bad):
        code, out, err = run("--model", bad, "--check", "--json", stdin=b"abc\nfoo\n")
        assert code == 1
        assert [json.loads(line) for line in out.splitlines()] == [
            {"text": "abc", "reversed": "cba", "correct": True, "first_error": None},
            {"text": "foo", "reversed": "xxf", "correct": False, "first_error": 1},
        ]
        assert err.startswith("error: line 2: the network errs at character 1 of 3")
        assert err.endswith("note: 1 of 2 lines are wrong\n")

    @pytest.mark.parametrize(
        ("written", "place"),
        [([5, 4, 2], None), ([5, 5, 2], 2), ([5, 2], 2), ([5, 4], 3), ([5, 4, 4], 3), ([5, 4, 2, 2], 4), ([], 1)],
    )
    def test_where_the_first_error_is(self, written, place):
        assert answering.first_error(written, [5, 4, 2]) == place

    @compiled
    def test_colour_on_a_terminal_and_nowhere_else(self, bad):
        shown = in_terminal("--model", bad, "--check", "goal")
        assert shown == "\x1b[32mla\x1b[0m\x1b[1;31mx\x1b[0mg\r\n"
        assert in_terminal("--model", bad, "--check", "goal", NO_COLOR="1") == "laxg\r\n"

    def test_a_baseline(self, run, tmp_path):
        model = build(LSTMConfig(hidden_size=4, embedding_width=4), torch.Generator()).eval()
        checkpoints.save(tmp_path, model.state_dict(), Config(model=model.config))
        code, _, err = run("--model", str(tmp_path), "--check", "--threads", "1", "hello")
        assert code == 1
        assert err.startswith("error: the network errs at character 1 of 5: ")


class TestTrace:
    def test_columns_and_the_answer(self, run, good):
        code, out, err = run("--model", good, "--trace", "$hé|")
        *lines, answer = out.splitlines()
        assert (code, err, answer) == (0, "", "éh&")
        assert len(lines) == 7
        assert lines[3].split() == ["3", "read", "é", "1.00", "0.00", "3.00", "é", "é:1.00", "h:1.00", "&:1.00"]

    def test_json_is_an_object_a_step(self, run, good):
        code, out, _ = run("--model", good, "--trace", "--json", "hi")
        assert code == 0
        assert [json.loads(line)["step"] for line in out.splitlines()] == [1, 2, 3, 4, 5, 6]

    def test_a_page(self, run, good, tmp_path):
        path = tmp_path / "trace.html"
        code, out, err = run("--model", good, "--trace-html", str(path), "hi")
        assert (code, out, err) == (0, "ih\n", f"note: wrote {path}\n")
        assert "<!doctype html>" in path.read_text()
        assert '"text":"hi"' in path.read_text()
        code, out, err = run("--model", good, "--trace-html", str(tmp_path / "no" / "where"), "hi")
        assert code == 1
        assert "cannot be written: No such file or directory" in err
        assert run("--trace-html", str(path), stdin=b"hi\n")[0] == 2

    def test_what_cannot_be_traced(self, run, good, tmp_path):
        model = build(RNNConfig(hidden_size=4, embedding_width=4), torch.Generator()).eval()
        checkpoints.save(tmp_path, model.state_dict(), Config(model=model.config))
        code, _, err = run("--model", str(tmp_path), "--trace", "hi")
        assert code == 2
        assert "has no stack to trace" in err
        code, _, err = run("--model", str(tmp_path), "--trace-html", str(tmp_path / "page.html"), "hi")
        assert code == 2
        assert "has no stack to show" in err
        assert not (tmp_path / "page.html").exists()
        assert run("--model", good, "--trace", "x" * 2001)[0] == 1

    def test_a_page_of_a_long_text(self, run, good, tmp_path):
        small, large = tmp_path / "small.html", tmp_path / "large.html"
        assert run("--model", good, "--trace-html", str(small), "x")[0] == 0
        assert run("--model", good, "--trace-html", str(large), "x" * 10_000)[0] == 0
        assert large.stat().st_size - small.stat().st_size == 9_999


@compiled
class TestStreams:
    def test_nothing_waits_for_torch(self):
        code = (
            "import sys; from stackrev.cli import main; code = main(['reverse', 'hello']); "
            "sys.exit(code or any(each in sys.modules for each in ('torch', 'numpy', 'rich', 'regex')))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, "olleh\n")

    def test_completion_does_not_either(self):
        code = (
            "import sys, atexit; from stackrev.cli import main; "
            "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); sys.exit(main([]))"
        )
        environment = os.environ | {
            "_STACKREV_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "stackrev reverse --model st"
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert "stack-lstm" in done.stdout
        assert done.stderr == "False\n"

    def test_20_000_lines_a_minute_in_constant_memory(self):
        # The bound is far above what it takes: machines that run tests are busy.
        code = (
            "import resource, sys; from stackrev.cli import main; code = main(['reverse']); "
            "print(resource.getrusage(resource.RUSAGE_SELF), file=sys.stderr)"
        )
        lines = [f"{number:064d}" for number in range(3_000)]
        usage = []
        for count in (500, len(lines)):
            data = "\n".join(lines[:count]).encode()
            done = subprocess.run(
                [sys.executable, "-c", code], input=data, capture_output=True, timeout=120, check=True
            )
            assert done.stdout.decode().splitlines() == [line[::-1] for line in lines[:count]]
            usage.append(
                [float(re.search(rf"{key}=([\d.]+)", done.stderr.decode())[1]) for key in ("ru_utime", "ru_maxrss")]
            )
        (few_seconds, few_memory), (seconds, memory) = usage
        assert (len(lines) - 500) / (seconds - few_seconds) * 60 > 20_000
        assert memory - few_memory < 20_000  # kilobytes

    def test_a_reader_that_leaves_is_met_with_silence(self):
        lines = "x" * 50 + "\n"
        command = f"{shlex.join(COMMAND)} | head -n 1"
        done = subprocess.run(
            ["bash", "-c", command], input=lines * 20_000, capture_output=True, text=True, timeout=120, check=True
        )
        assert (done.stdout, done.stderr) == (lines, "")

    def test_ctrl_c_is_130_and_silent(self):
        with subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            running.stdin.write(b"abc\n")
            running.stdin.flush()
            assert running.stdout.readline() == b"cba\n"
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 130
            assert running.stderr.read() == b""

    def test_a_line_of_many_chunks(self, run):
        line = b"0123456789" * 20_000
        start = time.monotonic()
        assert run(stdin=b"a\n" + line + b"\nb") == (0, f"a\n{line[::-1].decode()}\nb\n", "")
        assert time.monotonic() - start < 60


def test_the_examples_on_its_help_page_work(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, page, _ = run("--help")
    examples = re.findall(r"^ +stackrev reverse (.*)$", page, re.MULTILINE)
    assert len(examples) == 6
    for example in examples:
        arguments, _, file = example.partition(" < ")
        code, out, err = run(*shlex.split(arguments), stdin=b"a line\n" if file else None)
        assert code == 0, err
        assert out
