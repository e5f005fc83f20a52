"""What moves at the end of a terminal, after the terminal has been resized: nothing of the last frame stays behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import RenderHook
from rich.control import Control
from rich.segment import ControlType, Segment

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable
    from rich.live import Live


class Resizing(RenderHook):
    """Counts the rows that the last frame takes by now, and wipes away all of them.

    rich goes up by as many rows as a frame had when it was drawn. Most terminals break their lines anew when they
    become narrower, and then the same frame takes more.

    Args:
        console: Where frames are drawn, each the last of what is printed.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: list[int] = []  # how many columns each line of the last frame has
        self._width = console.width

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """See `rich.console.RenderHook`."""
        width = self._console.width
        if width < self._width and isinstance(renderables[0], Control):
            rows = sum(max(1, -(-cells // width)) for cells in self._lines)
            renderables = [_wipe(rows), *renderables[1:]]
        self._width = width
        frame = self._console.render_lines(renderables[-1], pad=False)
        self._lines = [Segment.get_line_length(line) for line in frame]
        return renderables


def _wipe(rows: int) -> Control:
    """From the last of so many rows to the first, each of them emptied."""
    up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * max(0, rows - 1)
    return Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)


def breaks_lines_anew(environment: Mapping[str, str]) -> bool:
    """Whether a terminal breaks its lines anew when it becomes narrower, as all but a few old ones do."""
    old = environment.get("XTERM_VERSION") or environment.get("STY") or environment.get("TERM") == "linux"
    return not old


@contextlib.contextmanager
def resizable(live: Live) -> Iterator[None]:
    """While this lasts, a live display that has been started follows its terminal's width."""
    console = live.console
    if not console.is_interactive or not breaks_lines_anew(os.environ):
        yield
        return
    console.push_render_hook(Resizing(console))
    try:
        yield
        live.refresh()
    finally:
        console.pop_render_hook()
