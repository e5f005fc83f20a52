"""What is shown on stderr while many runs are trained: a line for each that has ended, and where the others stand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stackrev.cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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
            shown = self._output.err.shown(text)
            self._bars.console.print(shown, markup=False, highlight=False, soft_wrap=True)
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

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield RunsView(output, bars)
