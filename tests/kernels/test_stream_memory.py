"""A stream forgets values that it can find again: every number is the same, and a long string takes little memory."""

import copy
import random
from pathlib import Path

import pytest
import torch

from stackrev.kernels import available
from stackrev.kernels.cpu import stream_arrays
from stackrev.kernels.cpu.stream import Stream
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
BLOCK = 1024


def model_of(pushes: float = 30.0, *, layers: int = 1, hidden: int = 6, width: int = 5) -> StackLSTMReverser:
    """A model whose encoder pushes, by that much before the sigmoid, and whose decoder pops."""
    shape = StackLSTMConfig(hidden_size=hidden, stack_width=width, layers=layers, shared_controls=False)
    model = StackLSTMReverser(shape, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for part, sign in ((model.controls, 1), (model.decoder_controls, -1)):
            part.weight[:, :2] = 0
            part.bias[:2] = torch.tensor([pushes, -30.0]) * sign
    return model


def symbols(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(3, vocabulary.SIZE), k=length)


def both(model: StackLSTMReverser, monkeypatch: pytest.MonkeyPatch) -> tuple[Stream, Stream]:
    """One stream that keeps two blocks of values, and one that keeps all."""
    streams = []
    for kept in (2 * BLOCK, 1 << 30):
        monkeypatch.setattr(stream_arrays, "KEPT", kept)
        streams.append(model.stream())
    return streams[0], streams[1]


@pytest.mark.parametrize("pushes", [30.0, 1.0])
@pytest.mark.parametrize("layers", [1, 2])
def test_what_was_forgotten_is_found_again_to_the_last_bit(layers, pushes, monkeypatch):
    forgetful, keeping = both(model_of(pushes, layers=layers), monkeypatch)
    for each in (forgetful, keeping):
        each.encode([vocabulary.START, *symbols(9_000)])
    for _ in range(90):
        ours, theirs = (each.decode_greedy(vocabulary.SEPARATOR, -1, 99) for each in (forgetful, keeping))
        assert ours == theirs
        assert forgetful.look() == keeping.look()


def test_a_string_that_goes_up_and_down(monkeypatch):
    source = random.Random(0)
    forgetful, keeping = both(model_of(), monkeypatch)
    for _ in range(60):
        up, down = source.randrange(1, 2_500), source.randrange(1, 2_000)
        for each in (forgetful, keeping):
            each.encode(symbols(up, up))
            each.feed_decoder(symbols(down, down))
        assert forgetful.look() == keeping.look()
    while keeping.look().height > 0:
        for each in (forgetful, keeping):
            each.feed_decoder(symbols(500))
        assert forgetful.look() == keeping.look()


def test_copies_remember_the_same(monkeypatch):
    forgetful, keeping = both(model_of(), monkeypatch)
    for each in (forgetful, keeping):
        each.encode(symbols(7_000))
    copied = copy.copy(forgetful)
    del forgetful
    again = copy.copy(copied)
    again.reset()
    again.encode(symbols(7_000))
    for each in (copied, keeping, again):
        each.feed_decoder(symbols(6_900, 1))
    assert copied.look() == keeping.look() == again.look()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_long_string_takes_little_memory(monkeypatch):
    monkeypatch.setattr(stream_arrays, "KEPT", 4 * BLOCK)
    stream = model_of(hidden=4, width=512).stream()
    before = resident()
    stream.encode(symbols(100_000))
    assert resident() - before < 60e6  # the values alone take 205 MB


def resident() -> int:
    """This process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
