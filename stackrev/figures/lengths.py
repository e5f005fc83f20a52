"""How accuracy falls with the length of the string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from stackrev.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class LengthScores(NamedTuple):
    """One model's accuracy at some lengths.

    Attributes:
        lengths: In rising order.
        coarse: The share of strings of each length that are reversed exactly.
        fine: The mean share of the output that is right before the first error.
        samples: How many strings of each length there were, where the interval of `coarse` is to be drawn.
    """

    lengths: Sequence[int]
    coarse: Sequence[float]
    fine: Sequence[float]
    samples: int | None = None


def accuracy(
    scores: Mapping[str, LengthScores],
    *,
    trained: tuple[int, int] = (8, 64),
    title: str = "Accuracy against the length of the string",
) -> Figure:
    """Coarse and fine accuracy against the length of the string, a line a model.

    Where the number of strings is known, a band is the 95 % interval (Wilson's) of the coarse accuracy, and the
    number is told below.

    Args:
        scores: By the model's name.
        trained: The shortest and the longest string in training.
        title: Above the panels.
    """
    with style.drawn(9.0, 3.1, title) as figure:
        coarse, fine = figure.subplots(1, 2, sharex=True)
        _panel(coarse, scores, "coarse", trained, "Coarse: strings reversed exactly")
        _panel(fine, scores, "fine", trained, "Fine: output before an error")
        samples = sorted({score.samples for score in scores.values() if score.samples})
        if samples:
            strings = " or ".join(f"{each:,}" for each in samples)
            told = f"{strings} strings of each length; bands: 95 % intervals (Wilson)"
            figure.supxlabel(told, x=0.01, ha="left", size=8, color=style.GREY)
    return figure


def _panel(
    axes: Axes,
    scores: Mapping[str, LengthScores],
    field: Literal["coarse", "fine"],
    trained: tuple[int, int],
    heading: str,
) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.axvspan(*trained, color="#ececec", zorder=0, linewidth=0)
    middle = (trained[0] * trained[1]) ** 0.5  # of a logarithmic axis
    axes.text(middle, 0.1, "lengths in\ntraining", ha="center", va="center", color=style.GREY, size=8)
    labels = []
    for place, (model, score) in enumerate(scores.items()):
        name, number = style.line_of(model, place)
        values = getattr(score, field)
        axes.plot(score.lengths, values, marker="os^Dv"[number % 5], markersize=3.5, **style.look(number))
        if field == "coarse" and score.samples:
            low, high = zip(*(style.wilson(share, score.samples) for share in values), strict=True)
            axes.fill_between(score.lengths, low, high, color=style.look(number)["color"], alpha=0.15, linewidth=0)
        labels.append((name, values[-1], number))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(
        FixedLocator(sorted({length for score in scores.values() for length in score.lengths}))
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="x", rotation=45)
    axes.set(title=heading, xlabel="length of the string (symbols)", ylabel="accuracy", ylim=(-0.03, 1.03))
    style.label_lines(axes, labels)
