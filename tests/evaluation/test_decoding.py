"""Greedy decoding: what is written, in what order, and where it ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from handmade import handmade_reverser
from shapes import shape_of
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.evaluation.decoding import greedy
from stackrev.kinds import KINDS
from stackrev.models import build
from stackrev.models.base import Reverser
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary
from stackrev.tasks.strings import sample_strings


def string(text: str) -> Tensor:
    return torch.tensor(vocabulary.encode(text), dtype=torch.int64)


def endless() -> StackLSTMReverser:
    """A model that never writes the end marker."""
    model = handmade_reverser()
    with torch.no_grad():
        model.logits.bias[vocabulary.END] = -100.0
    return model


def test_a_known_string() -> None:
    (written,) = greedy(handmade_reverser(), [string("A string to reverse")])
    assert vocabulary.decode(written) == "esrever ot gnirts A&"
    assert written[-1] == vocabulary.END


def test_strings_come_back_in_the_order_given() -> None:
    texts = ["bc", "", "$|&", "abcdef", "x", "yz", "a"]
    written = greedy(handmade_reverser(), [string(each) for each in texts])
    assert [vocabulary.decode(each) for each in written] == [each[::-1] + "&" for each in texts]


def test_nothing_stops_a_long_string() -> None:
    strings = sample_strings(LengthRange(minimum=500, maximum=500), 1, torch.Generator().manual_seed(0))
    assert greedy(handmade_reverser(), strings) == [vocabulary.target_ids(strings[0].tolist())]


def test_the_end_marker_ends_a_row_and_no_other() -> None:
    short, long = greedy(handmade_reverser(), [string("a"), string("abcdefgh")], limit=5)
    assert short == vocabulary.target_ids(vocabulary.encode("a"))
    assert vocabulary.decode(long) == "hgfed"


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_a_limit(limit: int) -> None:
    written = greedy(endless(), [string("abc"), string("")], limit=limit)
    assert [len(each) for each in written] == [limit, limit]


def test_without_a_limit_a_model_that_does_not_stop_is_stopped() -> None:
    written = greedy(endless(), [string("abc"), string(""), string("abcdefgh")])
    assert [len(each) for each in written] == [22, 16, 32]
    assert vocabulary.END not in {symbol for each in written for symbol in each}


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_fed_what_was_written(kind: str) -> None:
    model = build(shape_of(kind, hidden_size=8, stack_width=5), torch.Generator().manual_seed(0)).eval()
    strings = [string("abc"), string("xy")]
    for each, written in zip(strings, greedy(model, strings, limit=9), strict=True):
        assert written == by_hand(model, each, 9)


@torch.no_grad()
def by_hand(model: Reverser[Any], each: Tensor, limit: int) -> list[int]:
    source = torch.tensor(vocabulary.source_ids(each.tolist()))[:-1, None]
    state = model.encode(source, torch.tensor([len(source)]))
    symbol, written = vocabulary.SEPARATOR, []
    while len(written) < limit and symbol != vocabulary.END:
        logits, state = model.step(torch.tensor([symbol]), state)
        symbol = int(logits[0].argmax())
        written.append(symbol)
    return written


def test_a_model_is_left_as_it_was() -> None:
    model = handmade_reverser()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    greedy(model, [string("abc")])
    assert not model.training
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
