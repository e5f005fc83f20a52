"""What the packaged stack-lstm does with strings that are unlike those it was trained on."""

from __future__ import annotations

import functools

import pytest
import torch

from stackrev import StackLSTMReverser
from stackrev.config import LengthRange
from stackrev.evaluation.decoding import TorchDecoder
from stackrev.evaluation.scoring import score
from stackrev.tasks import vocabulary
from stackrev.tasks.strings import sample_strings

SYMBOLS = range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE)
LENGTHS = (1, 2, 7, 8, 33, 64, 65, 128, 500)


@functools.cache
def packaged() -> StackLSTMReverser:
    return StackLSTMReverser.from_pretrained("stack-lstm")


def assert_exact(strings: list[list[int]]) -> None:
    """Under teacher forcing, which decides as a greedy decoder does; see `scoring.py`."""
    scores = score(packaged(), [torch.tensor(string, dtype=torch.int64) for string in strings])
    assert [string for string, right in zip(strings, scores.correct, strict=True) if right <= len(string)] == []


def test_the_alphabet_is_ascii() -> None:
    assert vocabulary.decode(list(SYMBOLS)) == "".join(map(chr, range(128)))


def test_every_symbol_alone_and_among_others() -> None:
    every = list(SYMBOLS)
    assert_exact([[symbol] for symbol in every])
    assert_exact([[*every[:place], symbol, *every[place:]] for place, symbol in enumerate(reversed(every))])
    assert_exact([every, every[::-1], every * 3])


@pytest.mark.parametrize("length", LENGTHS)
def test_one_repeated_symbol(length: int) -> None:
    assert_exact([[symbol] * length for symbol in SYMBOLS])


@pytest.mark.parametrize("length", LENGTHS)
def test_two_alternating_symbols(length: int) -> None:
    pairs = [(a, b) for a in SYMBOLS for b in (SYMBOLS[a - SYMBOLS.start - 1], SYMBOLS[(7 * a) % 128])]
    assert_exact([[pair[place % 2] for place in range(length)] for pair in pairs])


@pytest.mark.parametrize("middle", [0, 1])
def test_palindromes(middle: int) -> None:
    halves = sample_strings(LengthRange(minimum=1, maximum=64), 200, torch.Generator().manual_seed(1))
    assert_exact([[*half, *half[:middle], *half[::-1]] for half in (each.tolist() for each in halves)])


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_shorter_than_any_trained_on(length: int) -> None:
    samples = 1 if length == 0 else 500
    strings = sample_strings(LengthRange(minimum=length, maximum=length), samples, torch.Generator().manual_seed(2))
    assert_exact([each.tolist() for each in strings])


def test_a_greedy_decoder_writes_the_same() -> None:
    strings = [[], [SYMBOLS[65]] * 200, list(SYMBOLS), [SYMBOLS[place % 2] for place in range(99)]]
    for string, written in zip(strings, TorchDecoder(packaged()).write(strings), strict=True):
        assert written == vocabulary.target_ids(string)


def test_the_gates_sit_past_0_and_1() -> None:
    strings = sample_strings(LengthRange(minimum=1, maximum=128), 300, torch.Generator().manual_seed(3))
    margins = score(packaged(), strings, margins=True).margins
    assert margins is not None
    assert min(margins.encoder_push, margins.encoder_pop, margins.decoder_push, margins.decoder_pop) > 0
    assert margins.logits > 1
