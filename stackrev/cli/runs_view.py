"""What is shown on stderr while many runs are trained: a line for each that has ended, and where the others stand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stackrev.cli.output import Output, cells

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


INDENT = "    "


class RunsView:
    """Where runs stand. On a terminal they have a bar each; elsewhere there are lines alone.

    Args:
        output: What the command says.
        bars: The bars, if somebody looks at stderr.
    """

    def __init__(self, output: Output, bars: Progress | None) -> None:
        self._output, self._bars = output, bars
        self._tasks: dict[object, TaskID] = {}

    def line(self, text: str) -> None:
        """Say something that stays, such as what came of a run."""
        if self._bars is not None:
            self._bars.refresh()  # where the others stand now, however soon after the last frame
            console = self._bars.console
            for line in folded(self._output.err.shown(text), console.width):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif not self._output.quiet:
            self._output.say(text)

    def at(self, run: object, text: str, *, done: int = 0, total: int | None = None) -> None:
        """Say where a run stands; one that cannot be counted has a bar that moves."""
        if self._bars is None:
            return
        values: dict[str, Any] = {"description": self._output.err.shown(text), "completed": done, "total": total}
        if run not in self._tasks:
            self._tasks[run] = self._bars.add_task(**values)
            self._bars.refresh()
        else:
            self._bars.update(self._tasks[run], **values)

    def end(self, run: object) -> None:
        """A run stands nowhere any more."""
        task = self._tasks.pop(run, None)
        if self._bars is not None and task is not None:
            self._bars.remove_task(task)


@contextlib.contextmanager
def runs_view(output: Output) -> Iterator[RunsView]:
    """A view of many runs, for as long as they are trained."""
    if output.quiet or not output.err.terminal:
        yield RunsView(output, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    from stackrev.cli.resizing import resizable

    where = TextColumn("{task.description}", markup=False, table_column=Column(ratio=3, no_wrap=True))
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
    console = Console(stderr=True)
    with (
        Progress(where, bar, TimeElapsedColumn(), console=console, transient=True, expand=True) as bars,
        resizable(bars.live),
    ):
        yield RunsView(output, bars)


def folded(text: str, width: int) -> list[str]:
    """A line in lines of at most so many columns, broken between words; all but the first are indented."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if cells(longer) > width and lines[-1].strip():
            lines.append(INDENT + word)
        else:
            lines[-1] = longer
    return lines
