"""What is in a queue and in a deque after each step, against the structures themselves."""

from __future__ import annotations

import itertools

import pytest
import torch
from controls import CONTROLS
from hypothesis import given, settings
from hypothesis import strategies as st

from stackrev.structures.columns import FAINT, Columns, Element, History
from stackrev.structures.deque import neural_deque
from stackrev.structures.queue import neural_queue
from stackrev.structures.stack import neural_stack
from stackrev.structures.two_ends import DequeColumns, QueueColumns

strength = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(0, 1))


def strengths(elements: list[Element], steps: int, ends: int = 1) -> list[float]:
    """What is left of each push, in the order of pushes."""
    found = [0.0] * (steps * ends)
    for each in elements:
        found[ends * each.step + each.end] = each.strength
    return found


def agree(history: History, step: int, reads: list[list[float]], left: list[float]) -> None:
    """The elements after a step are those of a state, touch each other, and are read as it is."""
    elements = list(history.elements(step))
    ends = len(reads)
    assert strengths(elements, step + 1, ends) == pytest.approx(left, abs=1e-9)
    assert sum(each.strength for each in elements) == pytest.approx(history.heights[step], abs=1e-9)
    least, most = (sum(each.strength >= FAINT + near for each in elements) for near in (1e-9, -1e-9))
    assert least <= history.count(step) <= most
    for end, shares in enumerate(reads):
        found = [0.0] * len(shares)
        for each in history.read(step, end):
            found[ends * each.step + each.end] = each.bottom_read if end else each.read
        assert found == pytest.approx(shares, abs=1e-9)


@settings(max_examples=25)
@given(st.lists(st.tuples(strength, strength), min_size=1, max_size=8))
def test_a_queue_and_a_stack(controls: list[tuple[float, float]]) -> None:
    push, pop = torch.tensor(controls, dtype=torch.float64).unbind(1)
    values = torch.eye(len(controls), dtype=torch.float64)[:, None]
    for function, history in ((neural_queue, QueueColumns), (neural_stack, Columns)):
        columns = history(push.tolist(), pop.tolist())
        assert len(columns) == len(controls)
        for step in range(len(controls)):
            part = slice(step + 1)
            reads, state = function(values[part], push[part, None], pop[part, None])
            agree(columns, step, [reads[-1, 0].tolist()[: step + 1]], state.strengths[:, 0].tolist())


@settings(max_examples=25)
@given(st.lists(st.tuples(*[strength] * 4), min_size=1, max_size=8))
def test_a_deque(controls: list[tuple[float, ...]]) -> None:
    push, bottom_push, pop, bottom_pop = torch.tensor(controls, dtype=torch.float64).unbind(1)
    eye = torch.eye(2 * len(controls), dtype=torch.float64)[:, None]
    columns = DequeColumns(*(each.tolist() for each in (push, pop, bottom_push, bottom_pop)))
    assert len(columns) == len(controls)
    for step in range(len(controls)):
        part = slice(step + 1)
        strengths = (each[part, None] for each in (push, bottom_push, pop, bottom_pop))
        top, bottom, state = neural_deque(eye[::2][part], eye[1::2][part], *strengths)
        reads = [each[-1, 0, : 2 * (step + 1)].tolist() for each in (top, bottom)]
        agree(columns, step, reads, state.strengths[:, 0].tolist())


def test_elements_of_a_deque_are_told_from_the_top_down(generator: torch.Generator) -> None:
    (push, pop), (bottom_push, bottom_pop) = (CONTROLS["often emptied"](60, generator) for _ in range(2))
    columns = DequeColumns(*(each[:, 0].tolist() for each in (push, pop, bottom_push, bottom_pop)))
    for step in range(60):
        elements = list(columns.elements(step))
        for above, below in itertools.pairwise(elements):
            assert above.bottom == below.top
