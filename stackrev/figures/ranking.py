"""Many settings side by side: a row each, the best on top."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stackrev.figures import style
from stackrev.figures.learning import History, solved_batch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Row(NamedTuple):
    name: str
    runs: int
    solved: list[int]

    @property
    def share(self) -> float:
        return len(self.solved) / self.runs


def by_rank(groups: Mapping[str, Sequence[History]], *, title: str) -> Figure:
    """How many runs of each setting learn, and how soon: a row a setting, ranked.

    On the left is the share of runs that learn, with its 95 % interval (Wilson's); on the right a dot a run at the
    batch at which it learned, and a bar at their median.

    Args:
        groups: By the setting's name, the history of each of its runs.
        title: Above the panels.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = [
        _Row(name, len(runs), sorted(batch for run in runs if (batch := solved_batch(run)) is not None))
        for name, runs in groups.items()
        if runs
    ]
    rows.sort(key=lambda row: (row.share, -statistics.median(row.solved or [0])))  # the best is drawn last
    with style.drawn(9.0, 1.3 + 0.27 * len(rows), title) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for place, row in enumerate(rows):
            _share(left, place, row)
            _batches(right, place, row)
        names = [style.shown(f"{row.name} ({row.runs} run{'s' * (row.runs != 1)})") for row in rows]
        left.set_yticks(range(len(rows)), names, parse_math=False, size=8.5)
        left.set_ylim(-0.6, len(rows) - 0.4)
        left.set(title="Runs that learn, and the 95 % interval", xlabel="share of runs (%)", xlim=(-3, 103))
        right.set(title="When they do; the bar is the median", xlabel="batches", xscale="log")
        right.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        batches = [batch for row in rows for batch in row.solved]
        narrow = bool(batches) and max(batches) < 60 * min(batches)
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if narrow else (1,)))
        right.xaxis.set_minor_formatter(NullFormatter())
        right.tick_params(left=False)
    return figure


def _share(axes: Axes, place: int, row: _Row) -> None:
    low, high = style.wilson(row.share, row.runs)
    colour = style.BLUE if row.solved else style.VERMILION
    axes.plot((100 * low, 100 * high), (place, place), color=colour, linewidth=1.2, solid_capstyle="butt")
    axes.plot(100 * row.share, place, marker="o", markersize=5, color=colour)


def _batches(axes: Axes, place: int, row: _Row) -> None:
    if not row.solved:
        axes.text(
            0.02, place, "none learns", transform=axes.get_yaxis_transform(), va="center", color=style.GREY, size=8
        )
        return
    axes.plot(row.solved, [place] * len(row.solved), "o", markersize=3, color=style.BLUE, alpha=0.35, markeredgewidth=0)
    axes.plot(statistics.median(row.solved), place, marker="|", markersize=11, markeredgewidth=1.8, color=style.BLACK)
