"""What a search has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stackrev.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CHARACTERS = 30
"""So many characters in a row fit below a panel."""


class TrialPoint(NamedTuple):
    """One trial of a search.

    Attributes:
        number: Its number.
        value: Its objective.
        pruned: Whether it was given up early.
        settings: What was tried, by name.
    """

    number: int
    value: float
    pruned: bool
    settings: Mapping[str, Any]


def trials(points: Sequence[TrialPoint], *, title: str = "What a search has found") -> Figure:
    """The objective of each trial against each of the settings that were tried.

    Args:
        points: The trials that are done.
        title: Above the panels.
    """
    names = list(dict.fromkeys(name for point in points for name in point.settings))
    columns = min(4, len(names)) or 1
    rows = -(-len(names) // columns) or 1
    with style.drawn(2.4 * columns, 2.3 * rows + 0.3, title) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in panels.flat[len(names) :]:
            axes.remove()
        for name, axes in zip(names, panels.flat, strict=False):
            _panel(axes, name, [point for point in points if name in point.settings])
        for row in panels:
            row[0].set_ylabel("mean validation fine")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _panel(axes: Axes, name: str, tried: Sequence[TrialPoint]) -> None:
    """The objective against one setting: numbers to scale, counts and names side by side."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    values = [point.settings[name] for point in tried]
    places: dict[Any, float] = {}
    if not all(isinstance(value, float) for value in values):
        numbers = all(isinstance(value, int) for value in values)
        places = {value: place for place, value in enumerate(sorted(set(values), key=None if numbers else str))}
        shown = [style.shown(str(value)) for value in places]
        axes.set_xticks(list(places.values()), shown, parse_math=False, **_turned(shown))
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif name == "learning_rate":
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if max(values) < 30 * min(values):  # its powers of ten are too few to read a value by
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.tick_params(axis="x", rotation=35)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for pruned, marker, colour in ((True, "x", style.VERMILION), (False, "o", style.BLUE)):
        kind = [(point, value) for point, value in zip(tried, values, strict=True) if point.pruned == pruned]
        axes.scatter(
            [places.get(value, value) for _, value in kind],
            [point.value for point, _ in kind],
            marker=marker,
            s=16,
            linewidths=0.9,
            color=colour,
            alpha=0.8,
            label="given up early" if pruned else "finished",
        )
    axes.set_xlabel(style.shown(name.replace("_", " ")), parse_math=False)
    axes.set_ylim(-0.03, 1.03)


def _turned(labels: Sequence[str]) -> dict[str, Any]:
    """How names below a panel are turned, where they would touch if they were level."""
    if sum(map(len, labels)) + 2 * len(labels) <= CHARACTERS:
        return {}
    return {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
