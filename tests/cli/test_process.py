"""`stackrev` as a process: locales, closed and full streams, signals, folders that are gone, and terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stackrev import cli
from stackrev.cli import arguments, process

COMMAND = (sys.executable, "-m", "stackrev")
TINY = (
    *("--hidden-size", "8", "--stack-width", "8", "--batch-size", "4", "--batches", "2", "--check-every", "2"),
    *("--lengths", "1-4", "--test-lengths", "5-6", "--held-out-samples", "5", "--device", "cpu", "--clip-norm", "inf"),
)
DEFAULT_SEEDS = Path(__file__).resolve().parents[2] / "docs" / "results" / "seeds" / "default"
NOT_UTF_8 = os.fsdecode(b"run\xff")
HOSTILE = "x\x1b[31m\x07\u202ey\u200b\u2028\U000e0041z"
SHOWN = "x␛[31m␇‹202E›y‹200B›‹2028›‹E0041›z"

SLOW = pytest.mark.slow


def run(*words: str | bytes, env: dict[str, str] | None = None, **more) -> subprocess.CompletedProcess[bytes]:
    if "input" not in more:
        more["stdin"] = subprocess.DEVNULL
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, timeout=120, check=False, env=os.environ | (env or {}), **more
    )


def in_shell(line: str, **more) -> subprocess.CompletedProcess[bytes]:
    """Run a line of the shell in which `stackrev` is the command."""
    script = f'stackrev() {{ {shlex.join(COMMAND)} "$@"; }}\n{line}'
    return subprocess.run(["bash", "-c", script], capture_output=True, timeout=120, check=False, **more)


def on_terminal(*words: str, env: dict[str, str] | None = None, also_out: bool = True, **more) -> str:
    """What a command shows on a terminal, from both streams or from stderr alone."""
    leader, follower = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {
        "TERM": "xterm", "COLUMNS": "200", **(env or {})
    }  # fmt: skip
    out = follower if also_out else subprocess.DEVNULL
    more = {"stdin": follower, **more}
    with subprocess.Popen([*COMMAND, *words], stdout=out, stderr=follower, env=environment, **more) as running:
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with runs whose names a terminal, a locale or UTF-8 can't take."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("模", NOT_UTF_8, HOSTILE):
        assert cli.main(["train", *TINY, "--quiet", "--output", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="module")
def locales(tmp_path_factory):
    """Locales of other encodings, as far as the system can make them."""
    folder = tmp_path_factory.mktemp("locales")
    found = [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "cp1252"}]
    for language, encoding in (("de_DE", "ISO-8859-1"), ("ja_JP", "EUC-JP"), ("en_US", "UTF-8")):
        name = f"{language}.{encoding}"
        command = ["localedef", "-i", language, "-f", encoding, str(folder / name)]
        if shutil.which("localedef") and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            found.append({"LC_ALL": name, "LOCPATH": str(folder)})
    return found


class TestLocales:
    @pytest.mark.slow
    def test_an_argument_is_utf_8_whatever_the_locale(self, locales):
        for locale in locales:
            done = run("reverse", "é日Ã模", "--check", env=locale)
            assert (done.stdout.decode(), done.stderr) == ("模Ã日é\n", b""), locale
            assert run("reverse", input="é日Ã模\n".encode(), env=locale).stdout == done.stdout

    @pytest.mark.slow
    def test_an_argument_that_is_not_utf_8_is_one_clear_line(self, locales):
        for locale in locales:
            done = run("reverse", b"ab\xff", env=locale)
            assert (done.returncode, done.stdout) == (1, b"")
            assert done.stderr.startswith(b"error: the text is not UTF-8: its byte 2 is 0xff\nhint: "), locale

    @pytest.mark.slow
    def test_paths_and_model_names_too(self, locales, trained):
        for locale in locales:
            for name in ("模", NOT_UTF_8):
                told = run("models", "info", name, env=locale, cwd=trained)
                assert told.stdout.startswith(b"model: " + os.fsencode(name) + b"\n"), (locale, told.stderr)
            missing = run("reverse", "--model", "没有", "hi", env=locale, cwd=trained)
            assert missing.stderr.decode().startswith("error: there is no model '没有'\n"), locale

    def test_words_are_taken_as_they_are_on_windows(self, monkeypatch):
        """Typer would expand variables, ~ and *, which it does where it reads the words itself."""
        import typer

        given = {}
        monkeypatch.setattr(sys, "argv", ["stackrev", "reverse", "$HOME|"])
        monkeypatch.setattr(typer.core.TyperGroup, "main", lambda self, words, **more: given.update(more, words=words))
        assert cli.main() == 0
        assert given["words"] == ["reverse", "$HOME|"]
        assert given["windows_expand_args"] is False

    def test_bytes_of_another_encoding_are_read_as_utf_8(self, monkeypatch):
        monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
        monkeypatch.setattr(os, "fsencode", lambda word: word.encode("latin-1"))
        monkeypatch.setattr(sys, "argv", ["stackrev", "é".encode().decode("latin-1"), "\xff"])
        assert arguments.typed_words() == ["é", "\udcff"]


class TestStreams:
    @pytest.mark.parametrize(
        "redirection",
        [
            *(">&-", ">/dev/full", "2>/dev/full"),
            *(pytest.param(each, marks=SLOW) for each in ("2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "&>/dev/full")),
        ],
    )
    @pytest.mark.parametrize(
        "command",
        [
            "reverse hi",
            "reverse hi --check --json",
            "reverse --model nope hi",
            "--version",
            "--help",
            "models list",
            "models info stack-lstm",
            "generate-data --samples 2",
            "trian",
        ],
    )
    def test_one_that_is_closed_or_full_is_one_line(self, command, redirection):
        done = in_shell(f"stackrev {command} {redirection}")
        assert done.returncode in (0, 1, 2)
        lines = done.stderr.decode().splitlines()
        assert all(line.startswith(("error: ", "hint: ")) for line in lines), lines
        assert sum(line.startswith("error: ") for line in lines) <= 1
        if "2>" not in redirection and "&>" not in redirection and done.returncode == 1:
            assert lines

    @pytest.mark.parametrize("redirection", [">/dev/full", "&>/dev/full"])
    def test_a_traceback_that_is_asked_for_leaves_the_exit_code_alone(self, redirection):
        done = in_shell(f"STACKREV_DEBUG=1 stackrev reverse hi {redirection}")
        assert done.returncode == 1
        assert b"sys.excepthook" not in done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
    @pytest.mark.parametrize(
        "command", ["apply hi", "page hi -o -", "certify stack-lstm --json", "experiment table {}", "models verify"]
    )
    def test_a_result_that_goes_nowhere_is_a_failure(self, command, redirection, tmp_path):
        done = in_shell(f"stackrev {command.format(DEFAULT_SEEDS)} {redirection}", cwd=tmp_path)
        error = b"error: stdout is closed" if redirection == ">&-" else b"error: No space left on device"
        assert (done.returncode, done.stderr.splitlines()[0]) == (1, error)
        assert len(done.stderr.splitlines()) <= 2

    @pytest.mark.parametrize("words", ["--help", "reverse -h", "models --help", "models"])
    def test_a_help_page_is_a_result(self, words):
        done = in_shell(f"stackrev {words} >&-")
        assert (done.returncode, done.stderr.splitlines()[0]) == (1, b"error: stdout is closed")

    def test_a_closed_stdout_is_noticed_before_the_work(self, tmp_path):
        done = in_shell(f"stackrev train {shlex.join(TINY)} --output run >&-", cwd=tmp_path)
        assert (done.returncode, done.stderr.splitlines()[0]) == (1, b"error: stdout is closed")
        assert not list(tmp_path.iterdir())

    def test_what_needs_no_stdout_works_without(self, tmp_path):
        done = in_shell("stackrev generate-data --samples 2 -o data.jsonl >&-", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"note: wrote 2 strings to data.jsonl\n")
        assert len((tmp_path / "data.jsonl").read_text().splitlines()) == 2

    @pytest.mark.slow
    def test_what_belongs_to_stderr_goes_nowhere_else(self, tmp_path):
        done = in_shell(f"stackrev train {shlex.join(TINY)} --output run --json 2>&-", cwd=tmp_path)
        assert done.returncode == 0
        assert json.loads(done.stdout)["folder"] == "run"

    def test_no_file_gets_the_place_of_a_closed_stream(self):
        code = "from stackrev.cli import process; process.prepare(); import os; print(os.open('/dev/null', 0))"
        done = subprocess.run(
            ["bash", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- 2>&-"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert int(done.stdout) > 2

    def test_a_stdin_that_cannot_be_read_is_one_line(self):
        done = in_shell("stackrev reverse 0> /dev/null")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"error: ")
        assert len(done.stderr.splitlines()) == 1


class TestJson:
    @pytest.mark.slow
    def test_it_is_json_for_everybody(self, trained):
        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        for name in ("模", NOT_UTF_8, HOSTILE):
            told = json.loads(run("models", "info", name, "--json", cwd=trained).stdout, parse_constant=refuse)
            assert (told["folder"], told["config"]["training"]["clip_norm"]) == (name, None)
        margins = run("evaluate", "--margins", "--samples", "2", "--json", "--model", NOT_UTF_8, cwd=trained)
        assert json.loads(margins.stdout, parse_constant=refuse)[0]["model"] == NOT_UTF_8


class TestInterruption:
    @pytest.mark.slow
    @pytest.mark.parametrize("words", [("reverse",), ("--help",), ("evaluate", "--samples", "2000")])
    def test_it_is_silent_while_modules_are_imported(self, words):
        """Once Python is up and has begun with stackrev: an interruption at every few modules that it imports."""
        code = (
            "import sys, os, signal, stackrev.cli\n"
            "left = int(sys.argv.pop(1))\n"
            "class Interrupt:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        global left\n"
            "        left -= 1\n"
            "        if left == 0: os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupt())\n"
            "code = stackrev.cli.program()\n"
            "print('not reached' if left > 0 else '', file=sys.stderr, end='')\n"
            "sys.exit(code)"
        )
        reached = 0
        for count in (1, 2, 5, 12, 40, 150, 500):
            done = subprocess.run(
                [sys.executable, "-c", code, str(count), *words],
                capture_output=True,
                input=b"",
                timeout=60,
                check=False,
            )
            if done.stderr == b"not reached":
                break
            reached += 1
            assert (done.returncode, done.stderr) == (130, b""), count
        assert reached > 3

    @pytest.mark.parametrize("after", ["", "raise ImportError('half imported')\n"])
    def test_it_waits_for_the_import_of_torch_which_may_lose_it_or_abort(self, tmp_path, after):
        (tmp_path / "torch.py").write_text(
            "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    for _ in range(999): pass\n"
            f"except BaseException:\n    print('caught', flush=True)\n{after}"
        )
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from stackrev.cli import process; process.prepare()\n"
            "try:\n    import torch\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")

    def test_where_it_is_inherited_as_ignored_it_stays_so(self):
        command = f"trap '' INT; exec {shlex.join(COMMAND)} reverse"
        with subprocess.Popen(["bash", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
            for text in (b"abc\n", b"def\n"):
                running.stdin.write(text)
                running.stdin.flush()
                assert running.stdout.readline() == text[-2::-1] + b"\n"
                running.send_signal(signal.SIGINT)
            running.stdin.close()
            assert running.wait(60) == 0


class TestFolders:
    @pytest.mark.parametrize(
        "words", ["reverse hi", "models list", "evaluate --samples 2", "generate-data -o x", "train"]
    )
    def test_one_that_is_gone_is_one_line(self, words, tmp_path):
        gone = tmp_path / "gone"
        gone.mkdir()
        done = in_shell(f"cd {gone} && rmdir {gone} && stackrev {words}")
        if words.startswith(("reverse", "models")):
            assert (done.returncode, done.stderr) == (0, b"")
        else:
            error, hint = done.stderr.decode().splitlines()
            assert (done.returncode, error) == (1, "error: the working folder has been deleted")
            assert hint.startswith("hint: ")


class TestTerminals:
    @pytest.mark.slow
    def test_what_is_foreign_is_visible(self, trained):
        for words in (
            ["models", "info", HOSTILE],
            ["models", "verify", HOSTILE],
            ["models", "push", HOSTILE, "user/repo", "--dry-run"],
            ["evaluate", "--samples", "2", "--model", HOSTILE],
            ["reverse", "--model", f"no{HOSTILE}", "hi"],
            ["apply", "--model", HOSTILE, "hi"],
            ["certify", HOSTILE],
            ["page", "--model", HOSTILE, "-o", f"{HOSTILE}.html"],
            ["experiment", "table", HOSTILE],
            ["reverse", f"--{HOSTILE}"],
            ["generate-data", "--samples", "2", "-o", f"{HOSTILE}/file"],
            [HOSTILE],
            ["train", *TINY, "--resume", "--output", HOSTILE],
        ):
            shown = on_terminal(*words, cwd=trained)
            ours = shown.replace("\x1b[", "")  # of the bars and of the live view
            assert not set("\x07\u202e\u200b\u2028\U000e0041") & set(ours), words
            assert "x\x1b[31m" not in shown, words

    @pytest.mark.slow
    def test_its_marks_are_the_same_everywhere(self, trained):
        assert f"model: {SHOWN}\r\nfolder: {SHOWN}\r\n" in on_terminal("models", "info", HOSTILE, cwd=trained)
        assert f"\r\n{SHOWN} " in on_terminal("evaluate", "--samples", "2", "--model", HOSTILE, cwd=trained)
        assert "saved in run‹xFF›" in on_terminal("train", *TINY, "--resume", "--output", NOT_UTF_8, cwd=trained)

    def test_a_pipe_gets_what_there_is(self, trained):
        assert run("models", "info", HOSTILE, cwd=trained).stdout.decode().split("\n")[0] == f"model: {HOSTILE}"
        assert run("reverse", "a\u202e\u200bb").stdout.decode() == "b\u200b\u202ea\n"

    def test_json_on_a_terminal_is_the_same_json(self):
        shown = on_terminal("reverse", "--json", HOSTILE)
        assert "\u202e" not in shown
        assert json.loads(shown)["text"] == HOSTILE

    def test_a_traceback_that_was_asked_for_is_visible_too(self):
        shown = on_terminal("reverse", "--model", HOSTILE, "hi", env={"STACKREV_DEBUG": "1"})
        assert "Traceback" in shown
        assert not set("\x1b\x07\u202e\u200b\u2028\U000e0041") & set(shown)

    def test_readable_text_stays_readable(self):
        text = "👩‍👩‍👧 ❤️ שָׁלוֹם क्षि é日"
        shown = on_terminal("reverse", "--json", text)
        assert json.loads(shown)["text"] == text
        assert text in shown

    @pytest.mark.slow
    def test_torch_is_not_imported_in_silence(self):
        assert "loading torch...\r\x1b[K" in on_terminal("generate-data", "--samples", "1")
        assert "loading" not in on_terminal("generate-data", "--samples", "1", "-o", os.devnull, "--quiet")
        assert b"loading" not in run("generate-data", "--samples", "1").stderr

    @pytest.mark.slow
    def test_a_certificate_is_not_checked_in_silence(self):
        for words in (("models", "verify", "stack-lstm"), ("models", "info", "stack-lstm")):
            assert "checking its" in on_terminal(*words, also_out=False)
            assert on_terminal(*words, "--quiet", also_out=False) == ""

    @pytest.mark.slow
    def test_a_long_text_is_not_reversed_in_silence(self, tmp_path):
        (tmp_path / "long.txt").write_bytes(b"0123456789" * 60_000 + b"\n")
        with (tmp_path / "long.txt").open("rb") as file:
            shown = on_terminal("reverse", also_out=False, stdin=file)
        assert "reversing" in shown


def test_finishing_lets_nothing_interrupt():
    previous = signal.getsignal(signal.SIGINT)
    try:
        process.finish()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
