"""What moves at the end of a terminal that is resized, on a terminal that breaks its lines anew."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, field

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text

from stackrev.cli.resizing import breaks_lines_anew, resizable

PIECE = re.compile(r"\x1b\[(\??\d*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


@dataclass
class Terminal:
    """A terminal as high as it takes. A row is a text, and whether the next one goes on with the same line."""

    width: int
    rows: list[tuple[str, bool]] = field(default_factory=lambda: [("", False)])
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> None:
        for found in PIECE.finditer(text):
            count, command, control, words = found.groups()
            if command == "A":
                self.row -= int(count or 1)
            elif command == "K":
                self.rows[self.row] = ("", False)
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self._down()
            elif words:
                for letter in words:
                    self._put(letter)

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append(("", False))

    def _put(self, letter: str) -> None:
        if self.column == self.width:
            self.rows[self.row] = (self.rows[self.row][0], True)
            self._down()
        text, goes_on = self.rows[self.row]
        self.rows[self.row] = (text[: self.column].ljust(self.column) + letter + text[self.column + 1 :], goes_on)
        self.column += 1

    def resize(self, width: int) -> None:
        """Break lines anew; the cursor stays at the end of the last line, where it is between two frames."""
        lines, goes_on = [""], False
        for place, (text, next_goes_on) in enumerate(self.rows[: self.row + 1]):
            lines[-1:] = [lines[-1] + text] if goes_on or not place else [lines[-1], text]
            goes_on = next_goes_on
        self.width = width
        self.rows = [
            (line[at : at + width], at + width < len(line))
            for line in lines
            for at in range(0, max(1, len(line)), width)
        ]
        self.row, self.column = len(self.rows) - 1, len(self.rows[-1][0])

    @property
    def shown(self) -> list[str]:
        return [text for text, _ in self.rows if text]


class File(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(widths: list[int], *, careful: bool) -> list[str]:
    """What is on a terminal after a frame at each of its widths."""
    file, terminal = File(), Terminal(widths[0])
    console = Console(
        file=file, width=widths[0], height=50, force_terminal=True, color_system=None, legacy_windows=False
    )

    def pass_on() -> None:
        terminal.feed(file.getvalue())
        file.seek(0)
        file.truncate()

    live = Live(console=console, auto_refresh=False, transient=False)
    with live, resizable(live) if careful else contextlib.nullcontext():
        for number, width in enumerate(widths):
            console.width = width
            if terminal.width != width:
                terminal.resize(width)
            console.print(f"check {number}")
            frame = "\n".join([f"{number} {'=' * 80}"[:width], f"{number} short", f"{number} {'-' * 80}"[: width - 7]])
            live.update(Text(frame, no_wrap=True), refresh=True)
            pass_on()
    pass_on()
    return terminal.shown


@pytest.mark.parametrize("widths", [[80, 40], [80, 60, 25, 40], [30, 80], [80, 79]])
def test_nothing_of_earlier_frames_is_left(widths, monkeypatch):
    for name in ("XTERM_VERSION", "STY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    last = len(widths) - 1
    checks = [f"check {number}" for number in range(len(widths))]
    frame = [f"{last} {'=' * 80}"[: widths[-1]], f"{last} short", f"{last} {'-' * 80}"[: widths[-1] - 7]]
    assert show(widths, careful=True) == [*checks, *frame]
    if widths[-1] < widths[0] - 1:
        assert len(show(widths, careful=False)) > len(checks) + len(frame)


@pytest.mark.parametrize(
    ("environment", "anew"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "screen", "STY": "1.a"}, False),
        ({"TERM": "linux"}, False),
    ],
)
def test_a_few_old_terminals_leave_lines_as_they_are(environment, anew):
    assert breaks_lines_anew(environment) == anew
