"""Many strings side by side through a model, against the model in torch and against each string alone."""

import math

import pytest
import torch

from stackrev.evaluation.decoding import greedy
from stackrev.kernels import available
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")

MARKERS = {"start": vocabulary.START, "separator": vocabulary.SEPARATOR, "stop": vocabulary.END}


def model_of(seed=0, ending=0.5, **shape) -> StackLSTMReverser:
    config = StackLSTMConfig(**{"hidden_size": 24, "stack_width": 12} | shape)
    model = StackLSTMReverser(config, torch.Generator().manual_seed(seed)).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        model.logits.bias[vocabulary.END] += ending
    return model


def strings_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, vocabulary.SIZE, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "shape", [{}, {"layers": 2, "shared_controls": True}, {"hidden_size": 17, "stack_width": 5}, {"cell_stretch": 0.3}]
)
def test_answers_are_those_of_torch(shape, seed):
    model = model_of(seed, **shape)
    strings = strings_of(5, 0, 30, 1, 7, 7, 30, 63, 2, 12, 3, 8, 21)
    answers = model.stream().answer(strings, **MARKERS, limits=[40] * len(strings))
    for string, written in zip(strings, answers, strict=True):
        assert written == greedy(model, [torch.tensor(string, dtype=torch.int64)], limit=40)[0]


def test_what_is_written_for_a_string_does_not_depend_on_its_neighbours():
    stream = model_of().stream()
    strings = strings_of(*range(40), *range(40, 0, -3))
    together = stream.answer(strings, **MARKERS, limits=[100] * len(strings))
    for place in range(0, len(strings), 7):
        for count in (1, 2, 3, 5, 14):
            some = strings[place : place + count]
            assert stream.answer(some, **MARKERS, limits=[100] * len(some)) == together[place : place + count]


def test_rows_change_places_where_answers_end_early():
    strings = strings_of(*range(40))
    lengths = set()
    for ending in (0.7, 1.0, 1.5):
        model = model_of(ending=ending)
        answers = model.stream().answer(strings, **MARKERS, limits=[40] * len(strings))
        lengths |= {len(written) for written in answers}
        for string, written in zip(strings[::5], answers[::5], strict=True):
            assert written == greedy(model, [torch.tensor(string, dtype=torch.int64)], limit=40)[0]
    assert len(lengths) > 1


def test_each_answer_has_a_limit_of_its_own():
    stream, strings = model_of().stream(), strings_of(3, 9, 4)
    whole = stream.answer(strings, **MARKERS | {"stop": -1}, limits=[20] * 3)
    assert [len(written) for written in whole] == [20, 20, 20]
    cut = stream.answer(strings, **MARKERS | {"stop": -1}, limits=[0, 20, 7])
    assert cut == [[], whole[1], whole[2][:7]]
    assert stream.answer([], **MARKERS, limits=[]) == []


def test_a_stream_at_work_elsewhere_is_not_disturbed():
    stream, (string,) = model_of().stream(), strings_of(20)
    stream.encode([vocabulary.START, *string])
    before = stream.look()
    (written,) = stream.answer([string], **MARKERS, limits=[30])
    assert stream.look() == before
    assert stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, 30).tolist() == written


def test_strings_of_bytes_are_answered_as_lists_are():
    stream, strings = model_of().stream(), strings_of(3, 0, 9, 4)
    narrow = [bytes(each) for each in strings]
    for some in (narrow, [*narrow[:2], *strings[2:]]):
        assert stream.answer(some, **MARKERS, limits=[20] * 4) == stream.answer(strings, **MARKERS, limits=[20] * 4)
    with pytest.raises(ValueError, match="does not have such a symbol"):
        stream.answer([bytes([vocabulary.SIZE])], **MARKERS, limits=[4])


@pytest.mark.parametrize("symbol", [-1, vocabulary.SIZE, 1 << 40])
def test_unknown_symbols_are_refused(symbol):
    with pytest.raises(ValueError, match="does not have such a symbol"):
        model_of().stream().answer([[5], [symbol]], **MARKERS, limits=[4, 4])


def test_wrong_limits_are_refused():
    for limits in ([4], [4, -1]):
        with pytest.raises(ValueError, match="limit"):
            model_of().stream().answer([[5], [6]], **MARKERS, limits=limits)


def test_nan_among_the_logits_is_passed_over_as_in_a_stream():
    model = model_of()
    with torch.no_grad():
        model.logits.bias[9] = math.nan
    stream, (string,) = model.stream(), strings_of(8)
    stream.encode([vocabulary.START, *string])
    alone = stream.decode_greedy(vocabulary.SEPARATOR, -1, 12).tolist()
    assert 9 not in alone
    assert stream.answer([string], **MARKERS | {"stop": -1}, limits=[12]) == [alone]
