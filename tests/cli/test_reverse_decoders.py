"""The two decoders, compiled and in torch: one set of tests, and the packaged network on any text."""

from __future__ import annotations

import os
import random
import threading
import unicodedata

import pytest
import torch
from handmade import handmade_reverser
from hypothesis import given, settings
from pyuegc import EGC
from shapes import shape_of
from texts import ANY_TEXT, oracle

from stackrev import kernels
from stackrev.evaluation import decoding
from stackrev.evaluation.threads import cores
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build, load, open_decoder
from stackrev.storage import checkpoints, names
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.tasks import text as texts

compiled = pytest.mark.skipif(not kernels.available(), reason="the kernels were not compiled")
OPENERS = {
    "native": open_decoder,
    "torch": lambda folder: decoding.TorchDecoder(load(folder).model),
}


@pytest.fixture(params=["torch", pytest.param("native", marks=compiled)])
def opener(request):
    return OPENERS[request.param]


def saved(folder, model):
    checkpoints.save(folder, model.state_dict(), Config(model=model.config))
    return folder


@pytest.fixture(scope="module")
def handmade(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("handmade"), handmade_reverser())


def test_strings_come_back_in_the_order_given(opener, handmade):
    decoder = opener(handmade)
    strings = [vocabulary.encode(each) for each in ("bc", "", "$|&", "abcdef" * 20, "x")]
    assert list(decoder.write(strings)) == [vocabulary.target_ids(each) for each in strings]
    assert list(decoder.write(strings[:1])) == [vocabulary.target_ids(strings[0])]
    assert list(decoder.write([])) == []


def test_batches_change_nothing(opener, handmade, monkeypatch):
    monkeypatch.setattr(decoding, "BATCH_SYMBOLS", 20)
    strings = [vocabulary.encode("abcdefg"[: n % 8]) for n in range(30)]
    assert list(opener(handmade).write(strings)) == [vocabulary.target_ids(each) for each in strings]


def test_a_network_that_does_not_stop_is_stopped(opener, tmp_path):
    model = handmade_reverser()
    with torch.no_grad():
        model.logits.bias[vocabulary.END] = -100.0
    written = list(opener(saved(tmp_path, model)).write([vocabulary.encode("abc"), []]))
    assert [len(each) for each in written] == [22, 16]


def test_four_threads_may_share_a_decoder(opener, handmade):
    decoder = opener(handmade)
    texts_of = [["abcdefgh" * (1 + (worker + n) % 5) for n in range(10)] for worker in range(4)]
    wrong = []

    def work(worker):
        strings = [vocabulary.encode(each) for each in texts_of[worker]]
        for string in strings:
            if list(decoder.write([string])) != [vocabulary.target_ids(string)]:
                wrong.append(string)
        if list(decoder.write(strings)) != [vocabulary.target_ids(each) for each in strings]:
            wrong.append(strings)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_writing_may_take_turns(opener, handmade):
    decoder = opener(handmade)
    strings = [vocabulary.encode(each) for each in ("abc", "defg", "h")]
    first, second = decoder.write(strings), decoder.write(strings[::-1])
    written = [next(writer) for writer in (first, second, second, first, first, second)]
    assert written == [vocabulary.target_ids(strings[place]) for place in (0, 2, 1, 1, 2, 0)]
    left = decoder.write(strings)
    next(left)
    del left
    assert list(decoder.write(strings)) == [vocabulary.target_ids(each) for each in strings]


@compiled
@pytest.mark.parametrize("shared", [True, False])
def test_both_write_the_same(tmp_path, shared):
    shape = StackLSTMConfig(hidden_size=12, stack_width=7, layers=2, shared_controls=shared)
    folder = saved(tmp_path, build(shape, torch.Generator().manual_seed(3)).eval())
    strings = [vocabulary.encode(each) for each in ("abc", "", "hello, world")]
    assert list(OPENERS["native"](folder).write(strings)) == list(OPENERS["torch"](folder).write(strings))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_opens(tmp_path, kind):
    folder = saved(tmp_path, build(shape_of(kind, hidden_size=4, stack_width=3), torch.Generator()).eval())
    decoder = open_decoder(folder)
    assert isinstance(decoder, decoding.NativeDecoder) == (KINDS[kind].open_stream is not None and kernels.available())
    assert len(next(decoder.write([[5]]))) <= REVERSAL.most_written(1)


def random_text(source: random.Random) -> str:
    """A text in which clusters of many code points are as common as single ones."""
    pools = (
        range(0x20, 0x7F), range(0xA0, 0x250), range(0x300, 0x370), range(0x5D0, 0x5EB), range(0x621, 0x655),
        range(0x905, 0x94D), range(0x1100, 0x1200), range(0x4E00, 0x5000), range(0xAC00, 0xAD00),
        range(0x1F600, 0x1F650), (0x200D, 0xFE0F, 0x1F3FB, 0x1F468, 0x1F469, 0x1F1E6, 0x1F1E8, 0x0D, 0x0A, 0x00),
    )  # fmt: skip
    some = source.sample(pools, source.randint(1, 4))
    drawn = (chr(source.choice(source.choice(some))) for _ in range(source.randint(0, 24)))
    return "".join(each for each in drawn if unicodedata.category(each) != "Cn")


@compiled
def test_10_000_random_texts_are_reversed_exactly_by_the_network():
    source = random.Random(int(os.environ.get("STACKREV_SEED", "0")))
    decoder = open_decoder(names.resolve("stack-lstm"))
    random_texts = [random_text(source) for _ in range(10_000)]
    bound = [texts.bind(each) for each in random_texts]
    clusters = 0
    for text, each, written in zip(random_texts, bound, decoder.write([each.ids for each in bound]), strict=True):
        parts = list(text) if text.isascii() else EGC(text)
        clusters += not text.isascii()
        assert written[-1] == vocabulary.END
        assert each.show(written[:-1]) == "".join(reversed(parts)), repr(text)
    assert clusters > 7_000


@pytest.fixture(scope="module")
def packaged():
    return open_decoder(names.resolve("stack-lstm"))


@compiled
@settings(max_examples=10_000)
@given(text=ANY_TEXT)
def test_10_000_texts_that_hypothesis_makes_are_reversed_exactly_by_the_network(packaged, text):
    bound = texts.bind(text)
    (written,) = packaged.write([bound.ids])
    assert written[-1] == vocabulary.END
    assert bound.show(written[:-1]) == "".join(reversed(oracle(text)))


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_short_and_long_strings_on_any_number_of_threads(handmade, threads, monkeypatch):
    monkeypatch.setattr(decoding, "SHORT", 100)
    decoder = open_decoder(handmade, threads=threads)
    strings = [vocabulary.encode("abcdefgh"[: n % 9] * (n % 17)) for n in range(300)]
    assert any(len(each) > 100 for each in strings)
    done = []
    assert list(decoder.write(strings, on_progress=done.append)) == [vocabulary.target_ids(each) for each in strings]
    assert sum(done) == sum(2 * len(each) + 1 for each in strings)


@compiled
def test_answers_that_nobody_waits_for_leave_no_thread(handmade):
    decoder = open_decoder(handmade, threads=2)
    strings = [vocabulary.encode("abc" * 300)] * 500
    before = threading.active_count()
    written = decoder.write(strings)
    next(written)
    written.close()
    assert threading.active_count() == before


@compiled
def test_writes_share_threads_which_end_with_the_last_of_them(handmade):
    decoder = open_decoder(handmade, threads=2)
    strings = [vocabulary.encode("abc" * 100)] * 500
    before = threading.active_count()
    first, second, never = (decoder.write(strings) for _ in range(3))
    assert next(first) == next(second) == vocabulary.target_ids(strings[0])
    assert threading.active_count() == before + 2
    assert len(list(first)) == len(list(second)) == 499
    assert threading.active_count() == before + 2
    del never
    assert threading.active_count() == before


@compiled
def test_bytes_are_symbols_too(handmade):
    strings = [bytes(vocabulary.encode(each)) for each in ("abc", "", "z" * 70)]
    assert list(open_decoder(handmade).write(strings)) == [vocabulary.target_ids(each) for each in strings]


def test_how_many_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores() == 3
    for nothing in ("", "0", "x", "²"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert cores() >= 1
