"""How runs learn: a line a model, a seed or a setting, against the number of batches.

A *history* is a list of checks as `CheckEvent.to_dict` gives them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackrev.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]


def by_model(histories: Mapping[str, History], *, title: str = "How the models learn") -> Figure:
    """Loss, and fine accuracy on validation and test strings, against the number of batches, a line a model.

    Args:
        histories: By the model's name.
        title: Above the panels.
    """
    with style.drawn(9.0, 2.9, title) as figure:
        panels = _panels(figure)
        labels = []
        for place, (model, history) in enumerate(histories.items()):
            name, number = style.line_of(model, place)
            for axes, values in zip(panels, _columns(history), strict=True):
                axes.plot(_batches([history]), values, **style.look(number), solid_capstyle="round")
            if history:
                labels.append((name, history[-1]["test"]["fine"], number))
        _finish(panels, _batches(histories.values()))
        style.label_lines(panels[-1], labels)
    return figure


def by_seed(histories: Sequence[History], *, title: str | None = None) -> Figure:
    """Loss, and fine accuracy on validation and test strings, against the number of batches, a line a seed.

    Args:
        histories: One for each seed.
        title: Above the panels; how many runs learn is added to it.
    """
    solved = [solved_batch(history) for history in histories]
    batches = sorted(batch for batch in solved if batch is not None)
    text = f"{len(batches)} of {len(histories)} runs learn"
    if batches:
        text += f": half of these by {statistics.median_low(batches):,} batches, the last by {batches[-1]:,}"
    with style.drawn(9.0, 2.9, f"{title}: {text}" if title else text) as figure:
        panels = _panels(figure)
        thin = max(0.35, min(1.0, 6 / max(1, len(histories))))
        learns = {"color": style.BLUE, "alpha": max(thin, 0.4), "linewidth": 0.6 + thin * 0.6}
        does_not = {**style.look(1), "linewidth": 1.0}
        for history, batch in zip(histories, solved, strict=True):
            marker = "o" if len(history) == 1 else ""
            look = does_not if batch is None else learns
            for axes, values in zip(panels, _columns(history), strict=True):
                axes.plot(_batches([history]), values, marker=marker, markersize=2, **look)
        _finish(panels, _batches(histories))
        ends = [
            history[-1]["test"]["fine"]
            for history, batch in zip(histories, solved, strict=True)
            if batch is None and history
        ]
        if batches and ends:
            style.label_lines(panels[-1], [("learns", 1.0, 0), ("does not", statistics.mean(ends), 1)])
    return figure


def by_setting(groups: Mapping[str, Sequence[History]], *, title: str) -> Figure:
    """Settings side by side: how many runs have learned, and their median fine accuracy, by the number of batches.

    Args:
        groups: By the setting's name, the history of each of its runs.
        title: Above the panels.
    """
    batches = _batches(history for runs in groups.values() for history in runs)
    with style.drawn(9.0, 3.4, title) as figure:
        left, right = figure.subplots(1, 2)
        left.set_title("Runs that have learned")
        right.set_title("Median fine accuracy, test strings")
        shares, medians = [], []
        for number, (name, runs) in enumerate(groups.items()):
            checks, share, median = _progress(runs, max(batches, default=1))
            left.plot(checks, share, drawstyle="steps-post", **style.look(number))
            right.plot(checks, median, **style.look(number))
            if checks:
                shares.append((name, share[-1], number))
                medians.append((name, median[-1], number))
        for axes, top, labels in ((left, 100, shares), (right, 1, medians)):
            _batch_axis(axes, batches)
            axes.set_ylim(-0.03 * top, 1.03 * top)
            style.label_lines(axes, labels)
        left.set_ylabel("share of runs (%)")
        right.set_ylabel("fine accuracy")
    return figure


def _progress(runs: Sequence[History], last: int) -> tuple[list[int], list[float], list[float]]:
    """A setting's checks up to batch `last`; at each the share of runs that have learned (%), and the median score."""
    checks = sorted(set(_batches(runs)))
    solved = [solved_batch(history) for history in runs]
    share = [100 * sum(at is not None and at <= batch for at in solved) / len(runs) for batch in checks]
    median = [statistics.median(_value_at(history, batch) for history in runs) for batch in checks]
    if checks and checks[-1] < last:  # runs that have ended keep what they have reached
        checks, share, median = [*checks, last], [*share, share[-1]], [*median, median[-1]]
    return checks, share, median


def _batches(histories: Iterable[History]) -> list[int]:
    return [line["batch"] for history in histories for line in history]


def _columns(history: History) -> tuple[list[float], list[float], list[float]]:
    return (
        [line["loss"] for line in history],
        [line["validation"]["fine"] for line in history],
        [line["test"]["fine"] for line in history],
    )


def solved_batch(history: History) -> int | None:
    """The first check at which all is right."""
    for line in history:
        if line["validation"]["coarse"] == line["test"]["coarse"] == 1:
            return int(line["batch"])
    return None


def _value_at(history: History, batch: int) -> float:
    """The test score of the last check up to a batch; a run that has ended keeps its last."""
    return float(next((line["test"]["fine"] for line in reversed(history) if line["batch"] <= batch), 0.0))


def _panels(figure: Figure) -> list[Axes]:
    from matplotlib.ticker import NullFormatter

    loss, validation, test = figure.subplots(1, 3)
    loss.set(title="Training loss", ylabel="cross-entropy (nats a symbol)", yscale="log")
    loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    loss.yaxis.set_minor_formatter(NullFormatter())
    validation.set(title="Validation, lengths trained on", ylabel="fine accuracy")
    test.set(title="Test, longer strings", ylabel="fine accuracy")
    return [loss, validation, test]


def _finish(panels: Sequence[Axes], batches: Sequence[int]) -> None:
    for axes in panels:
        _batch_axis(axes, batches)
    for axes in panels[1:]:
        axes.set_ylim(-0.03, 1.03)


def _batch_axis(axes: Axes, batches: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    first, last = min(batches, default=1), max(batches, default=10)
    axes.set_xscale("log")
    axes.set_xlim(first / 1.05, max(last, first * 2) * 1.05)
    narrow = last < 60 * first
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("batches")
