"""What moves on stderr while a command works: a bar, or a word about what takes a moment."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[[int], object]
"""What is called with how much more is done."""

PATIENCE = 0.5
"""Seconds of work before a bar that waits is shown."""


class Bar:
    """A progress bar on stderr, called with how much more is done.

    Args:
        description: What is counted, fit for a terminal.
        total: How much there is in all; None if nobody knows.
        show: Whether anybody looks.
        wait: Whether to show it only once the work has taken a while, for what is mostly done at once.
    """

    def __init__(self, description: str, *, total: int | None, show: bool, wait: bool = False) -> None:
        self._description, self._total, self._done = description, total, 0
        self._show, self._wait = show, wait
        self._start = time.monotonic()
        self._progress: Progress | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._show and not self._wait:
            self._open()
        return self

    def __exit__(self, *error: object) -> None:
        self.hide()

    def __call__(self, amount: int) -> None:
        """So much more is done."""
        self._done += amount
        if self._progress is not None:
            self._update()
        elif self._show and time.monotonic() - self._start >= PATIENCE:
            self._open()

    def expect(self, amount: int) -> None:
        """There is so much more to do than was known."""
        self._total = (self._total or 0) + amount

    def begin(self) -> None:
        """Work begins after a while of waiting, which does not count."""
        self._start = time.monotonic()

    def hide(self) -> None:
        """Take it off the terminal, so that something can be written there; it comes back if the work goes on."""
        if self._progress is not None:
            self._opened.close()
            self._progress = None
        self.begin()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        from stackrev.cli.resizing import resizable

        name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
        columns = (name, bar, MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, expand=True)
        self._task = self._progress.add_task(self._description, total=self._total)
        self._opened.enter_context(self._progress)
        self._opened.enter_context(resizable(self._progress.live))
        self._update()

    def _update(self) -> None:
        assert self._progress is not None
        self._progress.update(self._task, completed=self._done, total=self._total)


@contextlib.contextmanager
def busy(doing: str, *, show: bool) -> Iterator[None]:
    """A word on stderr that is wiped away when the work is done."""
    if not show or _has_display():
        yield
        return
    sys.stderr.write(f"{doing}...")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _has_display() -> bool:
    """Whether bars are shown already; rich then stands in the place of stderr, and says what there is to wait for."""
    proxy = sys.modules.get("rich.file_proxy")
    return proxy is not None and isinstance(sys.stderr, proxy.FileProxy)
