"""The trace of a run: what is on the stack, what it stands for, and how a terminal and a file show it."""

from __future__ import annotations

import itertools
import json
import re
import tracemalloc

import pytest
import torch
from handmade import handmade_reverser
from hypothesis import given
from hypothesis import strategies as st

from stackrev.cli import trace as shown
from stackrev.evaluation.traces import Trace, trace
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.structures.columns import FAINT, Columns
from stackrev.structures.stack import neural_stack_torch

STRENGTHS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 1.0]) | st.floats(0, 1, width=16)


@pytest.fixture(scope="module")
def hello() -> Trace:
    return trace(handmade_reverser(), "hé日!")


def test_the_paper_s_example():
    last = Columns([0.8, 0.5, 0.9], [0.0, 0.1, 0.9]).elements(2)
    assert [(each.step, round(each.strength, 9), round(each.read, 9)) for each in last] == [
        (2, 0.9, 0.9),
        (0, 0.3, 0.1),
    ]


@given(st.lists(st.tuples(STRENGTHS, STRENGTHS), min_size=1, max_size=12))
def test_columns_are_the_stack_s_equations(gates):
    push, pop = zip(*gates, strict=True)
    columns = Columns(push, pop)
    last = list(columns.elements(len(push) - 1))[::-1]
    d, u = (torch.tensor(each, dtype=torch.float64)[:, None] for each in (push, pop))
    values = torch.eye(len(push), dtype=torch.float64)[:, None]  # so that the read is the share of each element
    reads, state = neural_stack_torch(values, d, u)
    strengths, shares = torch.zeros(len(push)).double(), torch.zeros(len(push)).double()
    for each in last:
        strengths[each.step], shares[each.step] = each.strength, each.read
    assert torch.allclose(strengths, state.strengths[:, 0], atol=1e-12)
    assert torch.allclose(shares, reads[-1, 0], atol=1e-12)
    assert all(lower.top == upper.bottom for lower, upper in itertools.pairwise(last))
    assert columns.read(len(push) - 1) == [each for each in last if each.read > 0]
    assert columns.count(len(push) - 1) == sum(each.strength >= FAINT for each in last)


def test_what_is_stored_and_read_is_what_the_network_writes(hello):
    assert hello.fed == ("$", "h", "é", "日", "!", "|", "!", "日", "é", "h")
    assert hello.written == ("!", "日", "é", "h", "&")
    assert hello.stored[:5] == ("&", "h", "é", "日", "!")
    assert hello.reads[:5] == ("&", "h", "é", "日", "!")
    assert hello.reads[4:9] == hello.written
    assert [hello.columns().count(step) for step in range(10)] == [1, 2, 3, 4, 5, 4, 3, 2, 1, 0]
    assert hello.reads[9] == ""


def test_a_network_that_has_learned_nothing_is_traced_all_the_same():
    model = StackLSTMReverser(StackLSTMConfig(hidden_size=5, stack_width=4, layers=2), torch.Generator().manual_seed(0))
    found = trace(model, "abc")
    assert len(found.stored) == len(found.reads) == len(found.push) == len(found.fed)
    assert model.training
    assert len(list(shown.plain(found))) == len(found.fed) + 1


def test_steps_are_json(hello):
    steps = json.loads(json.dumps(list(shown.steps(hello))))
    assert [each["step"] for each in steps] == list(range(1, 11))
    assert [each["phase"] for each in steps] == ["read"] * 5 + ["write"] * 5
    assert steps[2] | {"push": 1, "pop": 0, "height": 3, "stack": None} == {
        **{"step": 3, "phase": "read", "fed": "é", "written": None, "read": "é"},
        **{"push": 1, "pop": 0, "height": 3, "stack": None},
    }
    assert [each["symbol"] for each in steps[2]["stack"]] == ["é", "h", "&"]
    assert [each["bottom"] for each in steps[2]["stack"]] == pytest.approx([2, 1, 0], abs=1e-3)
    assert [each["read"] for each in steps[2]["stack"]] == pytest.approx([1, 0, 0], abs=1e-3)


def test_plain_columns_are_aligned(hello):
    header, *rows = shown.plain(hello)
    assert header.split() == ["step", "phase", "symbol", "push", "pop", "height", "read", "stack,", "top", "first"]
    assert len(rows) == 10
    assert rows[1].split() == ["2", "read", "h", "1.00", "0.00", "2.00", "h", "h:1.00", "&:1.00"]
    assert rows[5].split()[:3] == ["6", "write", "!"]
    assert "\x1b" not in "".join(rows)
    for row in rows:
        assert shown._cells(row[: row.index("1.00")]) in (header.index("push"), header.index("pop"))


def test_many_elements_are_counted():
    found = trace(handmade_reverser(), "x" * 40)
    fullest = list(shown.plain(found))[41]
    assert fullest.endswith(f"+{41 - shown.MOST_ELEMENTS}")


@pytest.mark.parametrize("width", [20, 40, 71, 72, 120])
@pytest.mark.parametrize("colour", [True, False])
def test_a_picture_fits_its_terminal(width, colour):
    found = trace(handmade_reverser(), "a long text with 日本 in it")
    lines = list(shown.picture(found, width=width, colour=colour))
    assert len(lines) == len(found.fed) + 1
    for line in lines:
        assert shown._cells(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= width
        assert colour or "\x1b" not in line


def test_bars_and_shades():
    assert shown._bar(0, 4) == "····"
    assert shown._bar(1, 4) == "████"
    assert shown._bar(0.53, 4) == "██▏·"
    assert [shown._level(each) for each in (0, 0.5, 1)] == ["·", "▄", "█"]
    elements = [{"symbol": each, "strength": s, "read": 0} for each, s in zip("abcd", (1, 0.6, 0.3, 0.1), strict=True)]
    assert shown._stack(elements, 4, 80, colour=False) == "a█ b▓ c▒ d░ "
    assert shown._stack(elements, 4, 8, colour=False) == "a█ b▓ +2"


def long_trace(characters: int) -> Trace:
    """What a perfect network does with so many characters."""
    text = tuple("ab"[n % 2] for n in range(characters))
    written = (*text[::-1], "&")
    return Trace(
        fed=("$", *text, "|", *text[::-1]),
        written=written,
        push=(1.0,) * (characters + 1) + (0.0,) * (characters + 1),
        pop=(0.0,) * (characters + 1) + (1.0,) * (characters + 1),
        stored=("&", *text, *("&",) * (characters + 1)),
        reads=("&", *text, *written),
    )


@pytest.mark.parametrize("show", [shown.plain, lambda trace: shown.picture(trace, width=100, colour=True)])
def test_a_long_trace_takes_little_memory(show):
    found = long_trace(2_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in show(found)) == 4_003
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_control_character_is_shown_and_not_sent():
    found = trace(handmade_reverser(), "\x1b ")
    for line in (*shown.plain(found), *shown.picture(found, width=80, colour=False)):
        assert "\x1b" not in line
    assert "␛" in list(shown.plain(found))[2]
    assert "␣" in list(shown.plain(found))[3]
