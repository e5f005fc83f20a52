"""The experiment's figures, from data to a matplotlib `Figure`; nothing here reads or writes a file.

Readable in print and with any colour vision: the colours are Okabe and Ito's, what one colour tells another mark tells
as well, and lines carry their names. The same data gives the same SVG, byte for byte, with the same matplotlib.

A *history* is a list of checks as `CheckEvent.to_dict` gives them.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from stackrev.errors import MissingExtraError, StackrevError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stackrev.evaluation.traces import Trace

History = Sequence[Mapping[str, Any]]

FORMATS = ("svg", "png")

BLACK, BLUE, VERMILION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
GREY = "#767676"
_COLOURS = (BLUE, VERMILION, GREEN, BLACK, "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_MODELS = {"stack-lstm": ("stack-LSTM", 0), "lstm": ("LSTM", 1), "rnn": ("RNN", 2)}

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.titlesize": 10.5,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "stackrev",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


class LengthScores(NamedTuple):
    """One model's accuracy at some lengths.

    Attributes:
        lengths: In rising order.
        coarse: The share of strings of each length that are reversed exactly.
        fine: The mean share of the output that is right before the first error.
    """

    lengths: Sequence[int]
    coarse: Sequence[float]
    fine: Sequence[float]


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


def require() -> None:
    """Make sure that matplotlib can be imported.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingExtraError("figures need matplotlib", hint="pip install 'stackrev[plots]'") from None


def render(figure: Figure, format_: str) -> bytes:
    """A figure as the contents of a file.

    Args:
        figure: One of this module's.
        format_: "svg" or "png".

    Raises:
        StackrevError: The format is neither.
    """
    import matplotlib

    if format_ not in FORMATS:
        raise StackrevError(f"a figure cannot be written as {format_!r}", hint="name the file .svg or .png")
    metadata = {"Date": None, "Creator": "stackrev"} if format_ == "svg" else {"Software": "stackrev"}
    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(file, format=format_, metadata=metadata)
    data = file.getvalue()
    if format_ == "svg":  # matplotlib ends some lines with a space
        data = b"\n".join(line.rstrip() for line in data.splitlines()) + b"\n"
    return data


def learning(histories: Mapping[str, History], *, title: str = "How the models learn") -> Figure:
    """Loss, and fine accuracy on validation and test strings, against the number of batches, a line a model.

    Args:
        histories: By the model's name.
        title: Above the panels.
    """
    with _figure(9.0, 2.9, title) as figure:
        panels = _history_panels(figure)
        for place, (name, history) in enumerate(histories.items()):
            _, number = _MODELS.get(name, (name, place))
            for axes, values in zip(panels, _columns(history), strict=True):
                axes.plot([line["batch"] for line in history], values, **_look(number), solid_capstyle="round")
        _finish_history_panels(panels, [line["batch"] for history in histories.values() for line in history])
        labels = [
            (_MODELS.get(name, (name, place))[0], history[-1]["test"]["fine"], _MODELS.get(name, (name, place))[1])
            for place, (name, history) in enumerate(histories.items())
            if history
        ]
        _label_lines(panels[-1], labels)
    return figure


def consistency(histories: Sequence[History], *, title: str | None = None) -> Figure:
    """Loss, and fine accuracy on validation and test strings, against the number of batches, a line a seed.

    Args:
        histories: One for each seed.
        title: Above the panels; how many runs learn is added to it.
    """
    solved = [_solved_batch(history) for history in histories]
    batches = sorted(batch for batch in solved if batch is not None)
    text = f"{len(batches)} of {len(histories)} runs learn"
    if batches:
        text += f": half of these by {statistics.median_low(batches):,} batches, the last by {batches[-1]:,}"
    with _figure(9.0, 2.9, f"{title}: {text}" if title else text) as figure:
        panels = _history_panels(figure)
        thin = max(0.35, min(1.0, 6 / max(1, len(histories))))
        for history, batch in zip(histories, solved, strict=True):
            look: dict[str, Any] = {"color": BLUE, "alpha": max(thin, 0.4), "linewidth": 0.6 + thin * 0.6}
            if batch is None:
                look = {"color": VERMILION, "linestyle": _DASHES[1], "linewidth": 1.0}
            marker = "o" if len(history) == 1 else ""
            for axes, values in zip(panels, _columns(history), strict=True):
                axes.plot([line["batch"] for line in history], values, marker=marker, markersize=2, **look)
        _finish_history_panels(panels, [line["batch"] for history in histories for line in history])
        ends = [
            history[-1]["test"]["fine"]
            for history, batch in zip(histories, solved, strict=True)
            if not batch and history
        ]
        if batches and ends:
            _label_lines(panels[-1], [("learns", 1.0, 0), ("does not", statistics.mean(ends), 1)])
    return figure


def comparison(groups: Mapping[str, Sequence[History]], *, title: str) -> Figure:
    """Settings side by side: how many runs have learned, and their median fine accuracy, by the number of batches.

    Args:
        groups: By the setting's name, the history of each of its runs.
        title: Above the panels.
    """
    with _figure(9.0, 3.4, title) as figure:
        left, right = figure.subplots(1, 2)
        left.set_title("Runs that have learned")
        right.set_title("Median fine accuracy, test strings")
        last = max((line["batch"] for runs in groups.values() for history in runs for line in history), default=1)
        shares, medians = [], []
        for number, (name, runs) in enumerate(groups.items()):
            checks = sorted({line["batch"] for history in runs for line in history})
            solved = [_solved_batch(history) for history in runs]
            share = [100 * sum(each is not None and each <= batch for each in solved) / len(runs) for batch in checks]
            median = [statistics.median(_value_at(history, batch) for history in runs) for batch in checks]
            if checks and checks[-1] < last:
                checks, share, median = [*checks, last], [*share, share[-1]], [*median, median[-1]]
            left.plot(checks, share, drawstyle="steps-post", **_look(number))
            right.plot(checks, median, **_look(number))
            if checks:
                shares.append((name, share[-1], number))
                medians.append((name, median[-1], number))
        for axes, top, labels in ((left, 100, shares), (right, 1, medians)):
            _batch_axis(axes, [line["batch"] for runs in groups.values() for history in runs for line in history])
            axes.set_ylim(-0.03 * top, 1.03 * top)
            _label_lines(axes, labels)
        left.set_ylabel("share of runs (%)")
        right.set_ylabel("fine accuracy")
    return figure


def lengths(
    scores: Mapping[str, LengthScores],
    *,
    trained: tuple[int, int] = (8, 64),
    title: str = "Accuracy against the length of the string",
) -> Figure:
    """Coarse and fine accuracy against the length of the string, a line a model.

    Args:
        scores: By the model's name.
        trained: The shortest and the longest string in training.
        title: Above the panels.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    with _figure(9.0, 3.1, title) as figure:
        panels = figure.subplots(1, 2, sharex=True)
        every = sorted({length for each in scores.values() for length in each.lengths})
        for axes, field, heading in zip(
            panels,
            ("coarse", "fine"),
            ("Coarse: strings reversed exactly", "Fine: output before an error"),
            strict=True,
        ):
            axes.axvspan(*trained, color="#ececec", zorder=0, linewidth=0)
            axes.text(
                (trained[0] * trained[1]) ** 0.5,
                0.1,
                "lengths in\ntraining",
                ha="center",
                va="center",
                color=GREY,
                size=8,
            )
            labels = []
            for place, (name, each) in enumerate(scores.items()):
                label, number = _MODELS.get(name, (name, place))
                values = getattr(each, field)
                axes.plot(each.lengths, values, marker="os^Dv"[number % 5], markersize=3.5, **_look(number))
                labels.append((label, values[-1], number))
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(every))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.tick_params(axis="x", rotation=45)
            axes.set(title=heading, xlabel="length of the string (symbols)", ylabel="accuracy", ylim=(-0.03, 1.03))
            _label_lines(axes, labels)
    return figure


def gates(trace: Trace, *, title: str | None = None) -> Figure:
    """The push and pop strengths of each step, for one string.

    Args:
        trace: The steps.
        title: Above the panels.
    """
    steps = range(len(trace.fed))
    with _figure(_trace_width(trace), 3.1, title or "What the network does with its stack, symbol by symbol") as figure:
        panels = figure.subplots(2, 1, sharex=True, sharey=True)
        for axes, name, values, colour in zip(
            panels, ("push", "pop"), (trace.push, trace.pop), (BLUE, VERMILION), strict=True
        ):
            axes.bar(steps, values, width=0.72, color=colour)
            axes.set(ylabel=f"{name} strength", ylim=(0, 1.08), yticks=(0, 0.5, 1))
            axes.grid(visible=False, axis="x")
            axes.axvline(trace.encoder_steps - 0.5, color=BLACK, linewidth=0.8)
        _name_halves(panels[0], trace)
        _name_steps(panels[1], trace)
    return figure


def contents(trace: Trace, *, title: str | None = None) -> Figure:
    """What the stack holds after each step: the strength of each element, as a heat map.

    Args:
        trace: The steps.
        title: Above the map.
    """
    steps = len(trace.fed)
    nothing = float("nan")  # drawn as the paper: an element that is not yet there, or no longer
    table = [
        [step[row] if row < len(step) and step[row] > 0 else nothing for step in trace.strengths]
        for row in range(steps)
    ]
    held = max(
        (row for row in range(steps) for step in trace.strengths if row < len(step) and step[row] > 0.005), default=0
    )
    height = min(7.0, 1.6 + 0.16 * (held + 1))
    with _figure(_trace_width(trace), height, title or "What is on the stack, symbol by symbol") as figure:
        axes = figure.subplots()
        image = axes.imshow(
            table[: held + 1],
            aspect="auto",
            origin="lower",
            cmap="Blues",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(-0.5, steps - 0.5, -0.5, held + 0.5),
        )
        axes.grid(visible=False)
        axes.axvline(trace.encoder_steps - 0.5, color=BLACK, linewidth=0.8)
        labels = [_shown(each) for each in trace.fed[: held + 1]]
        axes.set_yticks(range(held + 1), labels, parse_math=False, size=7)
        axes.set_ylabel("element, by the symbol read\nwhen it was pushed")
        bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01, ticks=(0, 0.5, 1))
        bar.set_label("strength")
        _name_halves(axes, trace)
        _name_steps(axes, trace)
    return figure


def search(trials: Sequence[TrialPoint], *, title: str = "What a search has found") -> Figure:
    """The objective of each trial against each of the settings that were tried.

    Args:
        trials: Those that are done.
        title: Above the panels.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    columns = min(4, len(names)) or 1
    rows = -(-len(names) // columns) or 1
    with _figure(2.4 * columns, 2.3 * rows + 0.3, title) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in panels.flat[len(names) :]:
            axes.remove()
        for name, axes in zip(names, panels.flat, strict=False):
            tried = [trial for trial in trials if name in trial.settings]
            values = [trial.settings[name] for trial in tried]
            places: dict[Any, float] = {}
            if not all(isinstance(value, float) for value in values):
                numbers = all(isinstance(value, int) for value in values)
                places = {value: place for place, value in enumerate(sorted(set(values), key=None if numbers else str))}
                axes.set_xticks(list(places.values()), list(map(str, places)))
                axes.set_xlim(-0.5, len(places) - 0.5)
            elif name == "learning_rate":
                axes.set_xscale("log")
            for pruned, marker, colour in ((True, "x", VERMILION), (False, "o", BLUE)):
                kind = [(trial, value) for trial, value in zip(tried, values, strict=True) if trial.pruned == pruned]
                axes.scatter(
                    [places.get(value, value) for _, value in kind],
                    [trial.value for trial, _ in kind],
                    marker=marker,
                    s=16,
                    linewidths=0.9,
                    color=colour,
                    alpha=0.8,
                    label="given up early" if pruned else "finished",
                )
            axes.set_xlabel(name.replace("_", " "))
            axes.set_ylim(-0.03, 1.03)
        for row in panels:
            row[0].set_ylabel("mean validation fine")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


@contextmanager
def _figure(width: float, height: float, title: str) -> Iterator[Figure]:
    """A figure to fill, in inches; what is drawn inside the context has this module's style."""
    require()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", parse_math=False)
        yield figure


def _look(number: int) -> dict[str, Any]:
    """The colour and the dashes of line `number`; no two of the first 28 share both."""
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _DASHES[number % len(_DASHES)]}


def _columns(history: History) -> tuple[list[float], list[float], list[float]]:
    return (
        [line["loss"] for line in history],
        [line["validation"]["fine"] for line in history],
        [line["test"]["fine"] for line in history],
    )


def _solved_batch(history: History) -> int | None:
    """The first check at which all is right."""
    for line in history:
        if line["validation"]["coarse"] == line["test"]["coarse"] == 1:
            return int(line["batch"])
    return None


def _value_at(history: History, batch: int) -> float:
    """The test score of the last check up to a batch; a run that has ended keeps its last."""
    return float(next((line["test"]["fine"] for line in reversed(history) if line["batch"] <= batch), 0.0))


def _history_panels(figure: Figure) -> list[Axes]:
    from matplotlib.ticker import NullFormatter

    loss, validation, test = figure.subplots(1, 3)
    loss.set(title="Training loss", ylabel="cross-entropy (nats a symbol)", yscale="log")
    loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    loss.yaxis.set_minor_formatter(NullFormatter())
    validation.set(title="Validation, lengths trained on", ylabel="fine accuracy")
    test.set(title="Test, longer strings", ylabel="fine accuracy")
    return [loss, validation, test]


def _finish_history_panels(panels: Sequence[Axes], batches: Sequence[int]) -> None:
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


def _label_lines(axes: Axes, labels: Sequence[tuple[str, float, int]]) -> None:
    """Write each line's name beside its last value, at the right edge, apart enough to be read."""
    inches = axes.figure.bbox.height / axes.figure.dpi
    gap = 0.19 / (0.62 * inches)  # a line of text, as a share of the axes' height
    low, high = axes.get_ylim()
    placed: list[tuple[str, float, int]] = []
    for name, value, number in sorted(labels, key=lambda each: each[1]):
        place = (value - low) / (high - low)
        if placed:
            place = max(place, placed[-1][1] + gap)
        placed.append((name, place, number))
    ceiling = 1.02
    for at in reversed(range(len(placed))):
        name, place, number = placed[at]
        place = min(place, ceiling)
        ceiling = place - gap
        axes.plot((1.02, 1.09), (place, place), transform=axes.transAxes, clip_on=False, **_look(number))
        axes.text(
            *(1.11, place, name),
            transform=axes.transAxes,
            va="center",
            color=_look(number)["color"],
            size=8.5,
            parse_math=False,
        )


def _trace_width(trace: Trace) -> float:
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
            color=GREY,
            size=8.5,
            annotation_clip=False,
        )


def _name_steps(axes: Axes, trace: Trace) -> None:
    """Under each step, the symbol it reads; under the decoder's, what it writes as well."""
    below = [""] * trace.encoder_steps + [_shown(each) for each in trace.written]
    labels = [f"{_shown(fed)}\n{written}" for fed, written in zip(trace.fed, below, strict=True)]
    axes.set_xticks(range(len(labels)), labels, parse_math=False, size=7.5)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_xlabel("symbol read, and below it the symbol written")


def _shown(character: str) -> str:
    """A character as a mark that can be seen."""
    if character == " ":
        return "\u2423"
    return character if character.isprintable() else "\u00b7"
