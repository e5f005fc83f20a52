"""Figures are the same for everyone: whatever a user has told matplotlib, the bytes are those of its own defaults."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from importlib.util import find_spec

import pytest

from stackrev import figures
from stackrev.errors import StackrevError

pytestmark = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs the extra 'plots'")

SCRIPT = """
import hashlib
from stackrev import figures
right = {"coarse": 1.0, "fine": 1.0}
checks = [{"batch": n, "loss": 1 / n, "validation": right, "test": right} for n in (1, 10, 1000)]
points = [figures.search.TrialPoint(n, n / 4, n == 2, {"learning_rate": 10**-n, "layers": n}) for n in (1, 2, 3)]
for drawing in (figures.learning.by_model({"lstm": checks, "mine": checks}), figures.search.trials(points)):
    for format_ in figures.FORMATS:
        print(hashlib.sha256(figures.render(drawing, format_)).hexdigest())
"""
TASTE = """
text.usetex: True
figure.facecolor: black
axes.facecolor: black
savefig.facecolor: black
savefig.bbox: tight
savefig.transparent: True
savefig.dpi: 31
figure.dpi: 317
font.family: serif
font.serif: Nimbus
font.size: 30
lines.linewidth: 9
axes.formatter.use_locale: True
axes.prop_cycle: cycler('color', ['r', 'g'])
image.cmap: hot
path.sketch: 1, 100, 2
svg.fonttype: none
svg.id: mine
hist.bins: nonsense
nobody.knows: this
no colon
"""


def drawn(folder, **environment) -> list[str]:
    """The checksums of the script's figures, drawn in a folder with additions to the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("M")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        **{"cwd": folder, "env": clean | environment, "capture_output": True, "text": True, "check": False},
    )
    assert done.stderr == ""
    assert len(done.stdout.split()) == 4
    return done.stdout.split()


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> list[str]:
    return drawn(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("backend", ["module://nonsense", "nonsense", "TkAgg", ""])
def test_the_backend_is_ours(plain, tmp_path, backend):
    assert drawn(tmp_path, MPLBACKEND=backend) == plain


@pytest.mark.parametrize("where", ["working folder", "configuration", "environment"])
def test_a_user_s_settings_change_nothing(plain, tmp_path, where):
    settings = tmp_path / "matplotlibrc"
    settings.write_text(TASTE)
    (tmp_path / "stylelib").mkdir()
    (tmp_path / "stylelib" / "broken.mplstyle").write_bytes(b"\xff: \xff\n")
    if where == "working folder":
        assert drawn(tmp_path) == plain
    elif where == "configuration":
        assert drawn("/", MPLCONFIGDIR=str(tmp_path)) == plain
    else:
        assert drawn("/", MATPLOTLIBRC=str(settings)) == plain


def test_a_configuration_that_is_not_text_is_not_read(plain, tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.size: \xff\n")
    assert drawn("/", MATPLOTLIBRC=str(tmp_path)) == plain


def test_a_folder_that_cannot_be_written_is_not_spoken_of(plain):
    assert drawn("/", MPLCONFIGDIR="/proc/nowhere") == plain


def test_settings_made_in_the_same_process_are_neither_used_nor_lost():
    matplotlib = pytest.importorskip("matplotlib")

    def draw() -> bytes:
        points = [figures.search.TrialPoint(1, 0.5, False, {"learning_rate": 0.1})]
        return figures.render(figures.search.trials(points), "png")

    plain = draw()
    mine = {"figure.facecolor": "black", "savefig.bbox": "tight", "text.usetex": True, "font.size": 30.0}
    with matplotlib.rc_context(mine):
        assert draw() == plain
        assert {name: matplotlib.rcParams[name] for name in mine} == mine


def test_what_the_font_does_not_have_is_shown_by_its_code_point(caplog):
    point = figures.search.TrialPoint(1, 0.5, False, {"日本\ud800$x$ \\frac{": "$\\nonsense{", "layers": 1})
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        drawing = figures.search.trials([point], title="日本 \ud800 $\\frac{$")
        assert figures.render(drawing, "svg").startswith(b"<?xml")
    assert drawing.get_suptitle() == "‹65E5›‹672C› ‹D800› $\\frac{$"
    assert [axes.get_xlabel() for axes in drawing.axes] == ["‹65E5›‹672C›‹D800›$x$ \\frac{", "layers"]
    assert caplog.records == []


def test_threads_do_not_disturb_each_other_s_style():
    points = [figures.search.TrialPoint(1, 0.5, False, {"learning_rate": 0.1})]
    expected = figures.render(figures.search.trials(points), "svg")
    found = []

    def draw() -> None:
        found.extend(figures.render(figures.search.trials(points), "svg") for _ in range(3))

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 9


def test_a_matplotlib_that_fails_is_one_line(monkeypatch):
    import builtins

    real = builtins.__import__

    def fail(name, *more):
        if name.partition(".")[0] == "matplotlib":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(StackrevError, match="matplotlib cannot be loaded"):
        figures.require()
