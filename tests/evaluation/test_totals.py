"""Totals of one piece are its scores, bit for bit, and those of several are the scores of all their strings."""

from __future__ import annotations

import random

import pytest

from stackrev.evaluation.margins import Margins
from stackrev.evaluation.scoring import Scores
from stackrev.evaluation.totals import Totals


def scores(count: int, seed: int) -> Scores:
    draw = random.Random(seed)
    lengths = tuple(draw.randint(0, 9) for _ in range(count))
    margins = Margins(*(draw.uniform(-1, 1) for _ in range(5)))
    return Scores(tuple(draw.randint(0, length + 1) for length in lengths), lengths, margins)


def test_one_piece_is_its_scores() -> None:
    piece = scores(1000, 0)
    totals = Totals()
    totals.add(piece)
    assert (totals.samples, totals.coarse, totals.fine) == (piece.samples, piece.coarse, piece.fine)
    assert totals.margins == piece.margins
    assert totals.lengths == (0, 9)
    parts = piece.by_length()
    assert list(totals.by_length()) == list(parts)
    for length, part in totals.by_length().items():
        assert (part.samples, part.coarse, part.fine) == (
            parts[length].samples, parts[length].coarse, parts[length].fine
        )  # fmt: skip


def test_several_pieces_are_the_scores_of_all() -> None:
    pieces = [scores(100, seed) for seed in range(5)]
    totals = Totals()
    for piece in pieces:
        totals.add(piece)
    together = Scores(
        tuple(right for piece in pieces for right in piece.correct),
        tuple(length for piece in pieces for length in piece.lengths),
    )
    assert totals.samples == 500
    assert totals.coarse == together.coarse
    assert totals.fine == pytest.approx(together.fine, rel=1e-14)
    assert {length: part.samples for length, part in totals.by_length().items()} == {
        length: part.samples for length, part in together.by_length().items()
    }
    assert totals.margins is not None
    assert totals.margins.logits == min(piece.margins.logits for piece in pieces if piece.margins)
