"""Scores of more strings than memory holds: what is kept is a few numbers for each length."""

from __future__ import annotations

from dataclasses import astuple

from stackrev.evaluation.margins import Margins
from stackrev.evaluation.scoring import Scores


class Totals:
    """The scores of strings that are scored in pieces; for a single piece they are those of its `Scores`, bit for bit.

    Attributes:
        samples: How many strings were scored.
        margins: The least margins so far, if they were measured.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.margins: Margins | None = None
        self._exact = 0
        self._fine = 0.0
        self._lengths: dict[int, Totals] = {}

    def add(self, scores: Scores) -> None:
        """Count a piece in."""
        self._count(scores)
        for length, part in scores.by_length().items():
            self._lengths.setdefault(length, Totals())._count(part)
        if scores.margins is not None:
            least = scores.margins if self.margins is None else self.margins
            self.margins = Margins(*map(min, astuple(scores.margins), astuple(least)))

    def _count(self, scores: Scores) -> None:
        self.samples += scores.samples
        self._exact += scores.exact
        self._fine += scores.total_fine

    @property
    def coarse(self) -> float:
        """The share of strings whose whole output is right, end marker included and nothing after it."""
        return self._exact / self.samples

    @property
    def fine(self) -> float:
        """The mean over strings of the share of the target, end marker included, that is right before an error."""
        return self._fine / self.samples

    @property
    def lengths(self) -> tuple[int, int]:
        """The shortest and the longest length."""
        return min(self._lengths), max(self._lengths)

    def by_length(self) -> dict[int, Totals]:
        """The scores of each length apart, shortest first."""
        return {length: self._lengths[length] for length in sorted(self._lengths)}
