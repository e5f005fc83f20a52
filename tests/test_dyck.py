"""The worked model of docs/dyck.py: what it is asked, and that it learns it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

SPEC = importlib.util.spec_from_file_location("dyck", Path(__file__).resolve().parent.parent / "docs/dyck.py")
assert SPEC is not None
assert SPEC.loader is not None
dyck = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(dyck)


def test_every_answer_is_the_innermost_open_bracket():
    brackets, wanted = dyck.draw(40, 20, torch.Generator().manual_seed(0))
    assert brackets.shape == wanted.shape == (40, 20)
    for string, answers in zip(brackets.T.tolist(), wanted.T.tolist(), strict=True):
        left = []
        for bracket, answer in zip(string, answers, strict=True):
            if bracket < dyck.KINDS:
                left.append(bracket)
            else:
                assert left.pop() == bracket - dyck.KINDS
            assert answer == left[-1]


@pytest.mark.slow
def test_it_is_right_at_six_times_the_length_it_was_trained_on():
    model = dyck.train(seed=1)
    assert dyck.score(model, 6 * dyck.LENGTH, strings=200) > 0.95
    assert dyck.score(dyck.Brackets(), dyck.LENGTH, strings=200) < 0.05  # one that has learned nothing
