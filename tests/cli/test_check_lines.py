"""The lines of a run's checks: their columns, and which of them are left out where there is no room."""

from __future__ import annotations

import dataclasses

import pytest

from stackrev.cli.check_lines import CheckLines
from stackrev.evaluation.scoring import Scores
from stackrev.tasks.data import DataConfig
from stackrev.training.certified import Closing
from stackrev.training.events import CheckEvent

SCORES = Scores(correct=(10_000, 10_001), lengths=(10_000, 10_000))
"""Whose coarse accuracy is 0.5, and fine accuracy 0.99995."""
CLOSING = Closing(scale=0.314, gates=7.25, logits=-3.5, cells=2.0)


def check(batch: int = 350, closing: Closing | None = None) -> CheckEvent:
    return CheckEvent(
        batch=batch, loss=0.01234, validation=SCORES, test=SCORES, learning_rate=0.01, seconds=9.0, closing=closing
    )


def test_columns_under_a_head_that_comes_once():
    lines = CheckLines(DataConfig())
    assert lines.lines(check(), 44.55, 80) == [
        "                           8-64          65-128",
        "  batch    loss  coarse    fine  coarse    fine  batch/s",
        "    350  0.0123  0.5000  0.9999  0.5000  0.9999     44.5",
    ]
    assert lines.lines(check(12_000), 44.55, 80) == [" 12,000  0.0123  0.5000  0.9999  0.5000  0.9999     44.5"]


def test_a_run_that_settles_has_three_more():
    lines = CheckLines(DataConfig())
    *_, names, line = lines.lines(check(closing=CLOSING), 44.55, None)
    assert names.split()[-3:] == ["boxes", "gates", "logits"]
    assert line.split()[-3:] == ["31.4%", "+7.2", "-3.5"]
    assert (
        lines.lines(check(closing=dataclasses.replace(CLOSING, closed=True)), 44.55, None)[-1].split()[-3] == "closed"
    )


@pytest.mark.parametrize("closing", [None, CLOSING])
@pytest.mark.parametrize("width", [15, 20, 30, 40, 56, 80, 120])
def test_columns_fit_and_the_head_comes_again_when_they_are_others(width, closing):
    lines = CheckLines(DataConfig())
    wide = lines.lines(check(closing=closing), 44.55, 80)
    assert max(map(len, wide)) <= 80
    found = lines.lines(check(closing=closing), 44.55, width)
    assert max(map(len, found)) <= width
    assert found[-1].split()[:2] == ["350", "0.0123"]
    assert (len(found) == 1) == (found[-1] == wide[-1])


def test_a_run_that_starts_over_says_so():
    lines, event = CheckLines(DataConfig()), dataclasses.replace(check(), restarts=True)
    assert lines.lines(event, 44.55, None)[-1] == "starting over: less than half of the strings are right"
    assert lines.lines(event, 44.55, 54)[-1] == "starting over: less than half of the strings are right"
    assert lines.lines(event, 44.55, 53)[-1] == "starting over"
    assert "starting" not in "".join(lines.lines(check(), 44.55, None))


def test_in_40_columns_there_are_the_fine_scores_and_the_boxes():
    found = CheckLines(DataConfig()).lines(check(closing=CLOSING), 44.55, 40)
    assert found[:2] == ["                   8-64  65-128   proof", "  batch    loss    fine    fine   boxes"]
