"""A stream of symbols through a model, against the model in torch."""

import copy
import math
import subprocess
import sys

import pytest
import torch

from stackrev.evaluation.decoding import greedy
from stackrev.kernels import available
from stackrev.kernels.cpu.stream import Stream
from stackrev.kinds.deque_lstm import DequeLSTMConfig
from stackrev.kinds.memory_lstm import MemoryLSTMConfig
from stackrev.kinds.queue_lstm import QueueLSTMConfig
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.deque_lstm import DequeLSTMReverser
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.models.queue_lstm import QueueLSTMReverser
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")


KINDS: dict[str, tuple[type[MemoryLSTMConfig], type[MemoryLSTMReverser]]] = {
    "stack": (StackLSTMConfig, StackLSTMReverser),
    "queue": (QueueLSTMConfig, QueueLSTMReverser),
    "deque": (DequeLSTMConfig, DequeLSTMReverser),
}


def model_of(*, memory="stack", layers=1, shared=True, hidden=24, width=12, seed=0, **more) -> MemoryLSTMReverser:
    configuration, reverser = KINDS[memory]
    config = configuration(hidden_size=hidden, stack_width=width, layers=layers, shared_controls=shared, **more)
    model = reverser(config, torch.Generator().manual_seed(seed)).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def string_of(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, vocabulary.SIZE, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("memory", KINDS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_greedy_decoding_is_that_of_torch(layers, shared, memory):
    model = model_of(memory=memory, layers=layers, shared=shared)
    stream = model.stream()
    for length in (1, 2, 30):
        string = string_of(length, length)
        stream.reset()
        stream.encode([vocabulary.START, *string.tolist()])
        ours = stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, 40)
        assert ours.tolist() == greedy(model, [string], limit=40)[0]


@pytest.mark.parametrize("cell_stretch", [0.0, 0.3])
@pytest.mark.parametrize("memory", KINDS)
def test_strings_side_by_side_are_answered_as_alone(memory, cell_stretch):
    stream = model_of(memory=memory, layers=2, shared=False, cell_stretch=cell_stretch).stream()
    strings = [string_of(length, length).tolist() for length in (9, 0, 30, 5)]
    marks = {"start": vocabulary.START, "separator": vocabulary.SEPARATOR, "stop": vocabulary.END}
    answers = stream.answer(strings, **marks, limits=[40] * 4)
    for string, answer in zip(strings, answers, strict=True):
        stream.reset()
        stream.encode([vocabulary.START, *string])
        assert answer == stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, 40).tolist()


@pytest.mark.parametrize("cell_stretch", [0.0, 0.3])
@pytest.mark.parametrize("memory", KINDS)
def test_every_step_is_that_of_torch(memory, cell_stretch):
    model = model_of(memory=memory, layers=2, cell_stretch=cell_stretch)
    stream = model.stream()
    state = model.initial_state(1)
    one = torch.ones(1, dtype=torch.int64)
    for cell, symbols in ((model.encoder, string_of(20)), (model.decoder, string_of(20, 1))):
        for symbol in symbols:
            with torch.no_grad():
                out = model.run(cell, symbol[None, None], one, state)
            state = out.state
            (stream.encode if cell is model.encoder else stream.feed_decoder)([int(symbol)])
            look = stream.look()
            gates = torch.stack([out.push.flatten(), out.pop.flatten()], 1).flatten().tolist()
            bottom = [] if look.bottom_push is None else [look.bottom_push, look.bottom_pop]
            assert torch.allclose(torch.tensor([look.push, look.pop, *bottom]), torch.tensor(gates), atol=1e-5)
            assert look.height == pytest.approx(state.memory.strengths.sum().item(), abs=1e-5)
            assert torch.allclose(torch.tensor(look.hidden), out.hidden[0, 0], atol=1e-5)
            assert torch.allclose(torch.tensor(look.read), state.read[0], atol=1e-5)


def test_score_finds_the_first_error_of_greedy_decoding():
    stream = model_of().stream()
    source = [vocabulary.START, *string_of(10).tolist()]
    stream.encode(source)
    written = stream.decode_greedy(vocabulary.SEPARATOR, -1, 20)
    stream.reset()
    stream.encode(source)
    right, margin = stream.score(vocabulary.SEPARATOR, written)
    assert right == 20
    assert margin > 0
    wrong = written[:]
    wrong[7] = (wrong[7] + 1) % vocabulary.SIZE
    stream.reset()
    stream.encode(source)
    assert stream.score(vocabulary.SEPARATOR, wrong).right == 7


def test_pieces_give_what_the_whole_gives(monkeypatch):
    stream = model_of().stream()
    stream.encode(string_of(50).tolist())
    whole = stream.decode_greedy(vocabulary.SEPARATOR, -1, 50)
    monkeypatch.setattr("stackrev.kernels.cpu.stream._PIECE", 7)
    stream.reset()
    stream.encode(string_of(50).tolist())
    assert stream.decode_greedy(vocabulary.SEPARATOR, -1, 50) == whole
    stream.reset()
    stream.encode(string_of(50).tolist())
    assert stream.score(vocabulary.SEPARATOR, whole).right == 50


@pytest.mark.parametrize("memory", ["queue", "deque"])
def test_a_long_string_goes_through_in_order(memory):
    """Whole pushes while encoding, whole pops while decoding: what is read is what the encoder pushed first."""
    model = model_of(memory=memory, shared=False)
    with torch.no_grad():
        for part, gates in ((model.controls, [30.0, -30.0]), (model.decoder_controls, [-30.0, 30.0])):
            bottom = [-30.0, gates[1]] if memory == "deque" else []
            gates = [gates[0], -30.0, *bottom] if memory == "deque" else gates
            part.weight[:, : len(gates)] = 0
            part.bias[: len(gates)] = torch.tensor(gates)
    stream = model.stream()
    stream.encode(string_of(5000).tolist())
    assert stream.look().height == 5000
    copied = copy.copy(stream)
    width, strings = 12, string_of(4999, 1).tolist()
    state = model.initial_state(1)
    with torch.no_grad():
        out = model.run(model.encoder, string_of(5000)[:, None], torch.tensor([5000]), state)
    values = out.state.memory.values[:: 2 if memory == "deque" else 1, 0]
    for place, symbol in enumerate(strings[:3]):
        stream.feed_decoder([symbol])
        assert torch.allclose(torch.tensor(stream.look().read[-width:]), values[place + 1], atol=1e-5)
    stream.feed_decoder(strings[3:])
    assert torch.allclose(torch.tensor(stream.look().read[-width:]), values[-1], atol=1e-5)
    assert stream.look().height == 1
    assert copied.look().height == 5000
    stream.reset()
    stream.encode(string_of(3).tolist())
    assert stream.look().height == 3


def test_the_stack_gives_back_what_is_popped():
    model = model_of()
    with torch.no_grad():
        model.controls.weight[:, :2] = 0
        model.controls.bias[:2] = torch.tensor([30.0, -30.0])  # the encoder only pushes
    stream = model.stream()
    stream.encode(string_of(5000).tolist())
    assert stream.look().elements == 5000
    assert stream.look().height == 5000
    with torch.no_grad():
        model.controls.bias[:2] = torch.tensor([-30.0, 30.0])
    popping = model.stream()
    popping.encode(string_of(5).tolist())
    assert popping.look().elements <= 1


def test_symbols_and_arrays_are_checked():
    model = model_of()
    stream = model.stream()
    for wrong in ([-1], [vocabulary.SIZE]):
        with pytest.raises(ValueError, match="symbol"):
            stream.encode(wrong)
    with pytest.raises(ValueError, match="symbol"):
        stream.decode_greedy(vocabulary.SIZE, 2, 5)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    sizes = {"hidden": 24, "width": 12, "layers": 1, "stretch": 0.0}
    with pytest.raises(ValueError, match=r"encoder\.bias\.0 has"):
        Stream({**weights, "encoder.bias.0": b"1234"}, **sizes)
    del weights["output.bias"]
    with pytest.raises(ValueError, match=r"lack output\.bias"):
        Stream(weights, **sizes)
    with pytest.raises(ValueError, match="at least 1"):
        Stream(weights, **{**sizes, "layers": 0})


def test_a_stream_needs_neither_torch_nor_numpy():
    code = "import sys, stackrev.kernels.cpu.stream; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("memory", KINDS)
def test_what_is_not_a_number_stays_in_sight(memory):
    model = model_of(memory=memory, hidden=8, width=5)
    with torch.no_grad():
        model.controls.bias[1] = torch.nan
    stream = model.stream()
    stream.encode([5, 6, 7])
    assert all(math.isnan(number) for number in stream.look().read)
