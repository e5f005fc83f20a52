"""Traces of models with a queue or a deque: what is told is what the model has done."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from shapes import shape_of

from stackrev import figures
from stackrev.cli import trace as shown
from stackrev.evaluation.traces import Trace, _read, trace
from stackrev.models import build
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.structures.two_ends import history_of
from stackrev.tasks import TASKS, vocabulary

KINDS = ["stack-lstm", "queue-lstm", "deque-lstm"]


def model_of(kind: str) -> MemoryLSTMReverser[Any]:
    model = build(shape_of(kind, hidden_size=6, stack_width=4), torch.Generator().manual_seed(1)).eval()
    assert isinstance(model, MemoryLSTMReverser)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that gates differ from step to step
    return model


def traced(kind: str) -> Trace:
    return trace(model_of(kind), "abc", TASKS["copy"])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_reads_and_heights_are_those_of_the_model(kind: str) -> None:
    model = model_of(kind)
    source, fed = [vocabulary.START, 70, 80, 90, 75, 85], [vocabulary.SEPARATOR, 70, 71, 72]
    record = model.record(source, fed)
    history = history_of(record.structure, record.push, record.pop, record.bottom_push, record.bottom_pop)
    ends = 2 if kind == "deque-lstm" else 1
    state = model.initial_state(1)
    for step, symbol in enumerate([*source, *fed]):
        cell = model.encoder if step < len(source) else model.decoder
        state = model.run(cell, torch.tensor([[symbol]]), torch.tensor([1]), state).state
        assert history.heights[step] == pytest.approx(float(state.memory.strengths.sum()), abs=1e-6)
        read = _read(record.values, [history.read(step, end) for end in range(ends)])
        torch.testing.assert_close(read, state.read[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_is_told_in_every_form(kind: str) -> None:
    found = traced(kind)
    name = kind.removesuffix("-lstm")
    gates = ["push", "pop", "bottom_push", "bottom_pop"] if name == "deque" else ["push", "pop"]
    assert list(found.gates) == gates
    assert len(found.stored) == len(found.fed) * found.ends
    header, *rows = shown.plain(found)
    assert header.endswith("queue, front first" if name == "queue" else f"{name}, top first")
    assert len(rows) == len(found.fed)
    for width in (40, 78, 110):
        assert len(list(shown.picture(found, width=width, colour=False))) == len(found.fed) + 1
    steps = list(shown.steps(found))
    assert json.loads(json.dumps(steps)) == steps
    for step in steps:
        assert step["height"] == pytest.approx(sum(each["strength"] for each in step[name]), abs=0.02)
        assert all(("end" in each) == (name == "deque") for each in step[name])
        assert set(gates) <= step.keys()


@pytest.mark.parametrize("kind", ["queue-lstm", "deque-lstm"])
def test_a_trace_is_drawn(kind: str) -> None:
    figures.require()
    found = traced(kind)
    assert len(figures.traces.gates(found).axes) == len(found.gates)
    assert figures.traces.contents(found).axes[0].get_title() is not None
