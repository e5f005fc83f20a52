"""What all figures share: the look, the labels of lines, and the way to a file.

A figure must not depend on who draws it. So matplotlib is imported and used here with its own defaults and this
module's style, and never with what a user's `matplotlibrc`, `MPLBACKEND` or style sheets ask for; figures are drawn on
a canvas of their own, without pyplot, and text that the font cannot show is replaced before it is drawn.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import MissingExtraError, StackrevError
from stackrev.kinds import KINDS
from stackrev.tasks.visible import code_point, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")

BLACK, BLUE, VERMILION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
GREY = "#767676"
_COLOURS = (BLUE, VERMILION, GREEN, BLACK, "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_MODELS = {name: (kind.label, kind.colour) for name, kind in KINDS.items()}

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
_LOCK = threading.RLock()  # matplotlib's settings belong to the whole process


def require() -> None:
    """Make sure that matplotlib can be imported.

    Raises:
        MissingExtraError: It is not installed.
        StackrevError: It is installed, and fails.
    """
    with _LOCK:
        _import()


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Within this context matplotlib has its own defaults and this module's style, and prints nothing.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    with _LOCK:
        _import()
        import matplotlib

        # The backend is left alone: nothing here asks for it, and to set it would load it.
        plain = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
        with _silent(), matplotlib.rc_context({**plain, **_STYLE}):
            yield


@contextlib.contextmanager
def drawn(width: float, height: float, title: str) -> Iterator[Figure]:
    """A figure to fill, in inches; what is drawn within this context has the style."""
    with styled():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(shown(title), x=0.01, ha="left", parse_math=False)
        yield figure


def render(figure: Figure, format_: str) -> bytes:
    """A figure as the contents of a file.

    Args:
        figure: One of this package's.
        format_: "svg" or "png".

    Raises:
        StackrevError: The format is neither.
    """
    if format_ not in FORMATS:
        raise StackrevError(f"a figure cannot be written as {format_!r}", hint="name the file .svg or .png")
    metadata = {"Date": None, "Creator": "stackrev"} if format_ == "svg" else {"Software": "stackrev"}
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format=format_, backend="agg" if format_ == "png" else "svg", metadata=metadata)
    data = file.getvalue()
    if format_ == "svg":  # matplotlib ends some lines with a space
        data = b"\n".join(line.rstrip() for line in data.splitlines()) + b"\n"
    return data


def look(number: int) -> dict[str, Any]:
    """The colour and the dashes of line `number`; no two of the first 28 share both."""
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _DASHES[number % len(_DASHES)]}


def line_of(model: str, place: int) -> tuple[str, int]:
    """A model's name in a figure, and the number of its line: packaged models always have the same."""
    return _MODELS.get(model, (model, place))


def label_lines(axes: Axes, labels: Sequence[tuple[str, float, int]]) -> None:
    """Write each line's name beside its last value, at the right edge, apart enough to be read.

    Args:
        axes: Where the lines are drawn.
        labels: Of each line its name, its last value and its number.
    """
    inches = axes.figure.bbox.height / axes.figure.dpi
    gap = 0.19 / (0.62 * inches)  # a line of text, as a share of the axes' height
    low, high = axes.get_ylim()
    placed: list[tuple[str, float, int]] = []
    for name, value, number in sorted(labels, key=lambda label: label[1]):
        place = (value - low) / (high - low)
        if placed:
            place = max(place, placed[-1][1] + gap)
        placed.append((name, place, number))
    ceiling = 1.02
    for at in reversed(range(len(placed))):
        name, place, number = placed[at]
        place = min(place, ceiling)
        ceiling = place - gap
        axes.plot((1.02, 1.09), (place, place), transform=axes.transAxes, clip_on=False, **look(number))
        axes.text(
            *(1.11, place, shown(name)),
            transform=axes.transAxes,
            va="center",
            color=look(number)["color"],
            size=8.5,
            parse_math=False,
        )


def shown(text: str) -> str:
    """A text as the font can draw it: of what it lacks, or cannot be seen, there is the mark that a terminal shows."""
    known = _characters()
    lines = [visible(line) for line in text.split("\n")]
    return "\n".join(
        "".join(each if ord(each) in known else code_point(_meant(each)) for each in line) for line in lines
    )


def _meant(character: str) -> str:
    """The control character that a picture such as ␛ stands for, which the font lacks; any other character itself."""
    code = ord(character)
    return chr(code - 0x2400) if 0x2400 <= code < 0x2420 else "\x7f" if character == "␡" else character


def wilson(share: float, samples: int) -> tuple[float, float]:
    """The 95 % interval of a share of so many samples (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z * (share * (1 - share) / samples + (z / (2 * samples)) ** 2) ** 0.5 / (1 + z * z / samples)
    return max(0.0, middle - half), min(1.0, middle + half)


@functools.cache
def _characters() -> frozenset[int]:
    """The code points that the font has."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))).get_charmap())


def _import() -> None:
    """Import matplotlib by its own defaults, whatever the environment and the user's files say."""
    try:
        with _own_defaults(), _silent():
            import matplotlib.backends.backend_agg
            import matplotlib.backends.backend_svg
            import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingExtraError("figures need matplotlib", hint="pip install 'stackrev[plots]'") from None
    except (OSError, ValueError, RuntimeError) as error:  # a matplotlibrc in the working folder comes before all others
        raise StackrevError(
            f"matplotlib cannot be loaded: {error}", hint="a file matplotlibrc in this folder may be the reason"
        ) from error


@contextlib.contextmanager
def _own_defaults() -> Iterator[None]:
    """Name matplotlib's own settings in the environment while it is imported for the first time."""
    spec = None if "matplotlib" in sys.modules else find_spec("matplotlib")
    if spec is None or spec.origin is None:
        yield
        return
    own = {"MATPLOTLIBRC": str(Path(spec.origin).parent / "mpl-data" / "matplotlibrc"), "MPLBACKEND": "agg"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep matplotlib's remarks on its settings, its cache and its fonts to itself."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
