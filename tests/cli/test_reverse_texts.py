"""`stackrev reverse`: texts and lines, with markers and without."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


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
