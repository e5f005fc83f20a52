"""What a network does with its stack while it works on one string."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackrev.figures import style
from stackrev.structures.columns import FAINT
from stackrev.tasks.visible import mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stackrev.evaluation.traces import Trace

LONGEST_LABEL = 3.8
"""How many characters fit below a step; the name of a glyph that the font lacks has six, and all become smaller."""


def gates(trace: Trace, *, title: str | None = None) -> Figure:
    """The push and pop strengths of each step, for one string.

    Args:
        trace: The steps.
        title: Above the panels.
    """
    steps, strengths = range(len(trace.fed)), trace.gates
    with style.drawn(
        _width(trace),
        1.55 * len(strengths),
        title or f"What the network does with its {trace.structure}, symbol by symbol",
    ) as figure:
        panels = figure.subplots(len(strengths), 1, sharex=True, sharey=True)
        for axes, (name, values) in zip(panels, strengths.items(), strict=True):
            axes.bar(steps, values, width=0.72, color=style.VERMILION if name.endswith("pop") else style.BLUE)
            axes.set(ylabel=f"{name.replace('_', ' ')} strength", ylim=(0, 1.08), yticks=(0, 0.5, 1))
            axes.grid(visible=False, axis="x")
            axes.axvline(trace.encoder_steps - 0.5, color=style.BLACK, linewidth=0.8)
        _name_halves(panels[0], trace)
        _name_steps(panels[-1], trace)
    return figure


def contents(trace: Trace, *, title: str | None = None) -> Figure:
    """What the stack holds after each step: the strength of each element, as a heat map.

    Args:
        trace: The steps.
        title: Above the map.
    """
    steps = len(trace.fed)
    table = _table(trace)
    held = len(table) - 1
    height = min(7.0, 1.6 + 0.16 * (held + 1))
    with style.drawn(_width(trace), height, title or _TITLES[trace.structure]) as figure:
        axes = figure.subplots()
        image = axes.imshow(
            table,
            aspect="auto",
            origin="lower",
            cmap="Blues",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(-0.5, steps - 0.5, -0.5, held + 0.5),
        )
        axes.grid(visible=False)
        axes.axvline(trace.encoder_steps - 0.5, color=style.BLACK, linewidth=0.8)
        labels = [_shown(each) for each in trace.fed for _ in range(trace.ends)][: held + 1]
        axes.set_yticks(range(held + 1), labels, parse_math=False, size=7)
        axes.set_ylabel("element, by the symbol read\nwhen it was pushed")
        bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01, ticks=(0, 0.5, 1))
        bar.set_label("strength")
        _name_halves(axes, trace)
        _name_steps(axes, trace)
    return figure


def _table(trace: Trace) -> list[list[float]]:
    """The strength of each element, a row an element and a column a step, up to the last that is more than faint."""
    steps = len(trace.fed)
    nothing = float("nan")  # drawn as the paper: an element that is not yet there, or no longer
    rows = [[nothing] * steps for _ in range(trace.ends * steps)]
    held, columns = 0, trace.columns()
    for step in range(steps):
        for element in columns.elements(step):
            place = trace.ends * element.step + element.end
            rows[place][step] = element.strength
            if element.strength > FAINT:
                held = max(held, place)
    return rows[: held + 1]


_TITLES = {
    name: f"What is {where}, symbol by symbol"
    for name, where in (("stack", "on the stack"), ("queue", "in the queue"), ("deque", "in the deque"))
}


def _width(trace: Trace) -> float:
    return max(5.0, min(14.0, 1.6 + 0.17 * len(trace.fed)))


def _name_halves(axes: Axes, trace: Trace) -> None:
    middle = trace.encoder_steps
    for place, text in (((middle - 1) / 2, "reads"), ((middle + len(trace.fed) - 1) / 2, "writes")):
        axes.annotate(
            text,
            (place, 1.02),
            xycoords=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=style.GREY,
            size=8.5,
            annotation_clip=False,
        )


def _name_steps(axes: Axes, trace: Trace) -> None:
    """Under each step, the symbol it reads; under the decoder's, what it writes as well."""
    below = [""] * trace.encoder_steps + [_shown(each) for each in trace.written]
    labels = [f"{_shown(fed)}\n{written}" for fed, written in zip(trace.fed, below, strict=True)]
    longest = max(map(len, "\n".join(labels).split("\n")))
    axes.set_xticks(range(len(labels)), labels, parse_math=False, size=7.5 * min(1.0, LONGEST_LABEL / longest))
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_xlabel("symbol read, and below it the symbol written")


def _shown(character: str) -> str:
    """A symbol by the mark that the trace in a terminal and the page have for it."""
    return style.shown(mark(character))
