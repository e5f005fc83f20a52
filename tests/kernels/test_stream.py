"""A stream of symbols through a model, against the model in torch."""

import math
import subprocess
import sys

import pytest
import torch

from stackrev.evaluation.decoding import greedy
from stackrev.kernels import available
from stackrev.kernels.cpu.stream import Stream
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")


def model_of(*, layers=1, shared=True, hidden=24, width=12, seed=0) -> StackLSTMReverser:
    config = StackLSTMConfig(hidden_size=hidden, stack_width=width, layers=layers, shared_controls=shared
    )  # fmt: skip
    model = StackLSTMReverser(config, torch.Generator().manual_seed(seed)).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def string_of(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, vocabulary.SIZE, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_greedy_decoding_is_that_of_torch(layers, shared):
    model = model_of(layers=layers, shared=shared)
    stream = model.stream()
    for length in (1, 2, 30):
        string = string_of(length, length)
        stream.reset()
        stream.encode([vocabulary.START, *string.tolist()])
        ours = stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, 40)
        assert ours.tolist() == greedy(model, [string], limit=40)[0]


def test_every_step_is_that_of_torch():
    model = model_of(layers=2)
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
            theirs = out.push.item(), out.pop.item(), state.memory.height.item()
            assert torch.allclose(torch.tensor(look[:3]), torch.tensor(theirs), atol=1e-5)
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


def test_what_is_not_a_number_stays_in_sight():
    model = StackLSTMReverser(StackLSTMConfig(hidden_size=8, stack_width=5), torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.controls.bias[1] = torch.nan
    stream = model.stream()
    stream.encode([5, 6, 7])
    assert all(math.isnan(number) for number in stream.look().read)
