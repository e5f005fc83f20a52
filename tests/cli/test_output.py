"""The one object that commands print through."""

from __future__ import annotations

import io
import json
import math
import re
import sys

import pytest

from stackrev.cli import answering, requests
from stackrev.cli.output import GREEN, Output, Painted, Stream, Styled, in_a_line, to_json
from stackrev.cli.progress import Bar
from stackrev.errors import DataError, StackrevError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes both streams terminals with colours, for the test's own body."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def open_() -> dict[str, Terminal]:
        streams = {name: Terminal() for name in ("stdout", "stderr")}
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        return streams

    return open_


def test_a_pipe_gets_what_there_is(capfd):
    output = Output()
    output.line("a\x1b\u202e", Styled("b\x07", GREEN), "\udcff")
    output.table([("x\u200b", "1"), ("y", "22")])
    output.note("see\nthere")
    output.flush()
    out, err = capfd.readouterr()
    assert out.startswith("a\x1b\u202eb\x07")
    assert "x\u200b   1\ny  22\n" in out
    assert err == "note: see there\n"


def test_a_terminal_gets_what_can_be_seen(terminal):
    streams = terminal()
    output = Output()
    output.line("a\x1b\u202e", Styled("b\x07", GREEN), Painted("\x1b[1mc"))
    output.table([("x\u200b", "1"), ("日本", "22")])
    output.text("one\x1b\ntwo")
    output.record({"a": "\x7f\u202e\ud800"})
    output.error("no\x1bthing")
    assert streams["stdout"].getvalue().split("\n") == [
        "a␛‹202E›\x1b[32mb␇\x1b[0m\x1b[1mc", "x‹200B›   1", "日本     22", "one␛", "two",
        r'{"a": "\u007f\u202e\ud800"}', "",
    ]  # fmt: skip
    assert streams["stderr"].getvalue() == "error: no␛thing\n"


def test_quiet_keeps_notes_and_hints_but_no_error(capfd):
    output = Output(quiet=True)
    output.note("a")
    output.hint("b")
    output.error("c")
    assert capfd.readouterr().err == "error: c\n"


def test_streams_that_are_not_there(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(StackrevError, match="stdout is closed"):
        Output()
    Output(result=False).error("nobody hears it")
    with pytest.raises(StackrevError, match="stdout is closed"):
        Output(result=False).line("x")


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_what_json_has(indent):
    value = {"a": [math.nan, math.inf, -math.inf, 1.5, None, True], "b": ({"c": "\udcff\ud800é\u2028"},)}

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = to_json(value, indent=indent)
    text.encode()
    assert json.loads(text, parse_constant=refuse) == {
        "a": [None, None, None, 1.5, None, True], "b": [{"c": "\udcff\ud800é\u2028"}]
    }  # fmt: skip


def test_a_message_has_one_line():
    for broken in ("a\nb", "a\r\n  b\n", "a\u2028b", "a\x85b", "a\x1eb"):
        assert in_a_line(broken) == "a b"
        assert len(in_a_line(broken).splitlines()) == 1


def test_a_bar_makes_way_for_lines_and_comes_back(terminal):
    streams = terminal()
    output = Output()
    with output.progress("work", total=10) as bar:
        bar(3)
        output.note("in between")
        assert "note: in between\n" in streams["stderr"].getvalue()
        bar._start -= 10
        bar(3)
    assert streams["stderr"].getvalue().count("work") >= 2


def test_a_bar_that_waits_is_not_shown_for_what_is_done_at_once(terminal):
    streams = terminal()
    with Output().progress("work", total=0, wait=True) as bar:
        bar.expect(5)
        bar(5)
    assert streams["stderr"].getvalue() == ""


class Endless(io.RawIOBase):
    """A file without an end, and how much of it has been read."""

    read = 0

    def read1(self, count: int) -> bytes:
        self.read += count
        assert self.read < 10_000_000
        return b"\0" * count


def test_a_line_without_end_is_refused_before_it_takes_all_memory(monkeypatch):
    monkeypatch.setattr(requests, "available", lambda: 300_000_000)
    bar = Bar("", total=0, show=False)
    with pytest.raises(DataError, match="line 1 has no end after 1,0"):
        list(requests.parse_lines(Endless(), "plain", bar))


@pytest.mark.parametrize("words", [["reverse"], ["reverse", "--model", "lstm"]])
def test_a_long_line_is_announced_and_refused_without_memory(capfd, monkeypatch, words):
    from stackrev import cli

    monkeypatch.setattr(answering, "LONG", 500)
    monkeypatch.setattr(answering, "PROBE", 10)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\n" + b"c" * 600 + b"\n")))
    assert cli.main(words) == 0
    assert re.match(r"note: line 2 has 600 characters, which take about \d+ s and ", capfd.readouterr().err)
    monkeypatch.setattr(answering, "LONG", 300)
    monkeypatch.setattr(requests, "available", lambda: 93_000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c" * 309 + b"\n")))
    assert cli.main(words) == 1
    assert "which take about" in capfd.readouterr().err


def test_a_table_that_is_too_wide_is_folded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    rows = [("trial", "value", "seconds", "learning_rate"), ("1", "0.5", "2", "0.001"), ("12", "0.25", "33", "0.1")]
    with monkeypatch.context() as patch:
        patch.setattr(Stream, "terminal", True)
        Output().table(rows)
    out = capsys.readouterr().out
    assert out == (
        "trial  value\n1        0.5\n12      0.25\n\n"
        "trial  seconds\n1            2\n12          33\n\n"
        "trial  learning_rate\n1              0.001\n12               0.1\n"
    )
    Output().table(rows)
    assert "value  seconds  learning_rate" in capsys.readouterr().out
