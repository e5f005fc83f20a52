"""What is shown on stderr while many runs are trained: a line for each that has ended, and where the others stand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stackrev.cli.output import Output
from stackrev.cli.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class RunsView:
    """Where runs stand. On a terminal they have a bar each; elsewhere there are lines alone.

    Args:
        quiet: Whether to show nothing.
        bars: The bars, if stderr is a terminal.
    """

    def __init__(self, *, quiet: bool, bars: Progress | None) -> None:
        self._quiet, self._bars = quiet, bars
        self._tasks: dict[object, TaskID] = {}

    def line(self, text: str) -> None:
        """Say something that stays, such as what came of a run."""
        if self._bars is not None:
            self._bars.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            Output(result=False).say(text)

    def at(self, run: object, text: str, *, done: int | None = None, total: int | None = None) -> None:
        """Say where a run stands; one that cannot be counted has a bar that moves."""
        if self._bars is None:
            return
        values: dict[str, Any] = {"description": visible(text), "completed": done or 0, "total": total}
        if run not in self._tasks:
            self._tasks[run] = self._bars.add_task(**values)
        else:
            self._bars.update(self._tasks[run], **values)

    def end(self, run: object) -> None:
        """A run stands nowhere any more."""
        task = self._tasks.pop(run, None)
        if self._bars is not None and task is not None:
            self._bars.remove_task(task)


@contextlib.contextmanager
def runs_view(*, quiet: bool) -> Iterator[RunsView]:
    """A view of many runs, for as long as they are trained."""
    if quiet or not Output(result=False).err.terminal:
        yield RunsView(quiet=quiet, bars=None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield RunsView(quiet=False, bars=bars)
