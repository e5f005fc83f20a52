"""Coarse and fine accuracy, and that they are those of a real greedy decoder."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from handmade import handmade_reverser
from shapes import shape_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stackrev.config import LengthRange
from stackrev.evaluation import scoring
from stackrev.evaluation.capabilities import HasMargins
from stackrev.evaluation.decoding import greedy
from stackrev.evaluation.scoring import Scores, correct_symbols, score
from stackrev.kernels import available, using
from stackrev.kernels.dispatch import Implementation
from stackrev.kinds import KINDS
from stackrev.kinds.rnn import RNNConfig
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build
from stackrev.models.base import Reverser, pack_targets
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.readout import ReadOutWeights
from stackrev.tasks import TASKS, vocabulary
from stackrev.tasks.batches import Batch, make_batch
from stackrev.tasks.strings import sample_strings

compiled = pytest.mark.skipif(not available(), reason="the kernels were not compiled")


def string(text: str) -> Tensor:
    return torch.tensor(vocabulary.encode(text), dtype=torch.int64)


class Scripted(nn.Module):
    """Answers each string as it is told: `{"abc": "cba&"}`; under teacher forcing too, whatever it is fed."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__()
        self.answers = answers
        self.weight = nn.Parameter(torch.zeros(1))

    read_out_weights = ReadOutWeights(
        *(torch.eye(vocabulary.SIZE), torch.zeros(vocabulary.SIZE)),
        *(torch.eye(vocabulary.SIZE), torch.zeros(vocabulary.SIZE)),
    )

    def hidden(self, batch: Batch) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        written = torch.full_like(batch.target, vocabulary.START)
        for row, steps in enumerate(batch.steps.tolist()):
            answer = self.answers[vocabulary.decode(batch.source[1:steps, row].tolist())]
            ids = [vocabulary.END if each == "&" else vocabulary.encode(each)[0] for each in answer]
            written[: len(ids), row] = torch.tensor(ids)[: len(written)]
        return nn.functional.one_hot(written, vocabulary.SIZE).float()


def scripted_scores(answers: dict[str, str]) -> Scores:
    return score(Scripted(answers), [string(each) for each in answers])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("abc", "cba&", 4),
        ("abc", "cbb&", 2),  # one wrong, before the end
        ("abc", "xba&", 0),  # what is right after the first error does not count
        ("abc", "cba", 3),  # no end marker
        ("abc", "cbac", 3),  # another symbol in its place
        ("abc", "cb&a", 2),  # an end marker too early
        ("abc", "&", 0),
        ("a&c", "c&a&", 1),  # an end marker for the character `&`
        ("", "&", 1),
        ("", "a", 0),
    ],
)
def test_by_hand(text: str, answer: str, correct: int) -> None:
    scores = scripted_scores({text: answer})
    assert scores == Scores((correct,), (len(text),))
    whole = correct == len(text) + 1
    assert (scores.coarse, scores.perfect) == (float(whole), whole)
    assert scores.fine == pytest.approx(correct / (len(text) + 1), abs=1e-15)


def test_coarse_and_fine_are_means_over_strings() -> None:
    answers = {"abc": "cba&", "x": "&", "": "&", "abcdefg": "gfex"}
    scores = scripted_scores(answers)
    assert scores.samples == 4
    assert scores.correct == (4, 0, 1, 3)
    assert scores.lengths == (3, 1, 0, 7)
    assert scores.coarse == 2 / 4
    assert scores.fine == pytest.approx((1 + 0 + 1 + 3 / 8) / 4, abs=1e-15)
    assert not scores.perfect


def test_by_length() -> None:
    scores = Scores(correct=(2, 3, 1, 0), lengths=(2, 2, 0, 5))
    parts = scores.by_length()
    assert list(parts) == [0, 2, 5]
    assert parts[2] == Scores((2, 3), (2, 2))
    assert [each.coarse for each in parts.values()] == [1.0, 0.5, 0.0]
    assert [each.fine for each in parts.values()] == pytest.approx([1.0, (2 / 3 + 1) / 2, 0.0])
    assert sum(each.samples for each in parts.values()) == scores.samples


def test_results_are_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a" * length for length in (3, 0, 5, 1, 4, 2, 5)]
    answers = {each: each[: max(0, len(each) - 2)] for each in texts}
    expected = (1, 0, 3, 0, 2, 0, 3)
    assert score(Scripted(answers), [string(each) for each in texts]).correct == expected  # type: ignore[arg-type]
    monkeypatch.setattr(scoring, "BATCH_SYMBOLS", 8)
    sizes: list[int] = []
    scores = score(Scripted(answers), [string(each) for each in texts], on_progress=sizes.append)  # type: ignore[arg-type]
    assert scores == Scores(expected, (3, 0, 5, 1, 4, 2, 5))
    assert len(sizes) > 3
    assert sum(sizes) == scoring.symbols_of([string(each) for each in texts]) == 2 * (20 + 7)


def test_plain_torch_keeps_every_column_of_a_long_string() -> None:
    model = handmade_reverser()
    with using("torch"):
        assert scoring.memory_for(model, 1_000_000) > 10**13
    if available():
        assert scoring.memory_for(model, 1_000_000) < 10**9


@pytest.mark.skipif(not available(), reason="needs compiled kernels")
@pytest.mark.parametrize("right", [True, False])
def test_progress_is_told_within_a_long_string_too(right: bool) -> None:
    model = (
        handmade_reverser()
        if right
        else StackLSTMReverser(StackLSTMConfig(hidden_size=4, stack_width=4), torch.Generator().manual_seed(0))
    )
    strings = sample_strings(LengthRange(minimum=100_000, maximum=100_000), 2, torch.Generator().manual_seed(0))
    sizes: list[int] = []
    assert score(model, strings, margins=True, on_progress=sizes.append).perfect == right
    assert sum(sizes) == scoring.symbols_of(strings)
    assert len(sizes) >= (12 if right else 8)
    if right:
        assert max(sizes) < 50_000


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch has, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@compiled
@pytest.mark.parametrize("margins", [True, False])
def test_scores_do_not_depend_on_the_number_of_threads(margins: bool, threads: Callable[[int], None]) -> None:
    model = StackLSTMReverser(StackLSTMConfig(hidden_size=20, stack_width=9), torch.Generator().manual_seed(3))
    source = torch.Generator().manual_seed(0)
    strings = sample_strings(LengthRange(minimum=0, maximum=90), 150, source)
    strings += sample_strings(LengthRange(minimum=20_000, maximum=20_000), 3, source)
    scores = []
    for count in (1, 2, 3):
        threads(count)
        told: list[int] = []
        scores.append(score(model, strings, margins=margins, on_progress=told.append))
        assert sum(told) == scoring.symbols_of(strings)
    assert scores[0] == scores[1] == scores[2]
    assert (scores[0].margins is not None) == margins


@compiled
def test_an_interrupt_stops_strings_that_are_at_work(threads: Callable[[int], None]) -> None:
    threads(2)
    strings, before = [string("abc" * 50_000)] * 20, threading.active_count()
    told: list[int] = []

    def once(count: int) -> None:
        told.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(handmade_reverser(), strings, on_progress=once)
    assert len(told) <= 2 * 2 + 1  # as many as two threads work on ahead of what is asked for
    assert threading.active_count() == before


def test_no_strings() -> None:
    with pytest.raises(ValueError, match="no strings"):
        score(handmade_reverser(), [])


@pytest.mark.parametrize("training", [True, False])
def test_a_model_keeps_its_mode(training: bool) -> None:
    model = handmade_reverser().train(training)
    assert score(model, [string("abc")]).perfect
    assert model.training == training
    with pytest.raises(KeyboardInterrupt):
        score(model, [string("abc")], on_progress=interrupt)
    assert model.training == training


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_a_perfect_model_is_perfect_at_any_length() -> None:
    strings = sample_strings(LengthRange(minimum=0, maximum=400), 60, torch.Generator().manual_seed(0))
    scores = score(handmade_reverser(), strings)
    assert (scores.coarse, scores.fine, scores.perfect) == (1.0, 1.0, True)


STRINGS = sample_strings(LengthRange(minimum=0, maximum=6), 20, torch.Generator().manual_seed(5))


@functools.cache
def stages(kind: str) -> dict[str, Reverser[Any]]:
    """A model before, during and after it has learned STRINGS by heart."""
    config = shape_of(kind, hidden_size=40, stack_width=16, gate_noise=0.0, string_noise=0.0)

    def fresh() -> Reverser[Any]:
        return build(config, torch.Generator().manual_seed(0))

    model, half = fresh(), fresh()
    batch = make_batch(STRINGS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        scores = score(model, STRINGS)
        if scores.fine < 0.6:
            half.load_state_dict(model.state_dict())
        if scores.perfect:
            return {"untrained": fresh(), "half-trained": half, "good": model}
        for _ in range(5):
            optimizer.zero_grad()
            cross_entropy(model(batch), pack_targets(batch)).backward()
            optimizer.step()
    raise AssertionError(f"the {kind} has not learned {len(STRINGS)} strings by heart")


@pytest.mark.parametrize("stage", ["untrained", "half-trained", "good"])
@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forcing_scores_as_a_greedy_decoder_does(kind: str, stage: str) -> None:
    model = stages(kind)[stage].eval()
    scores = score(model, STRINGS)
    assert scores == decoded_scores(model, STRINGS)
    match stage:
        case "good":
            assert scores.perfect
        case "half-trained":
            assert 0.1 < scores.fine < 0.9
            assert scores.coarse < 1
        case "untrained":
            assert scores.coarse == 0
    # and on strings it has not learned, where a good model errs too
    others = sample_strings(LengthRange(minimum=0, maximum=9), 30, torch.Generator().manual_seed(6))
    assert score(model, others) == decoded_scores(model, others)


def test_a_perfect_model_decodes_as_it_scores() -> None:
    strings = sample_strings(LengthRange(minimum=0, maximum=40), 20, torch.Generator().manual_seed(6))
    model = handmade_reverser()
    assert score(model, strings) == decoded_scores(model, strings)


def decoded_scores(model: Reverser[Any], strings: list[Tensor]) -> Scores:
    """Scores by their definition: of what a greedy decoder writes."""
    correct = []
    for each, written in zip(strings, greedy(model, strings), strict=True):
        target = vocabulary.target_ids(each.tolist())
        right = [a == b for a, b in zip(target, written, strict=False)]
        correct.append(right.index(False) if False in right else len(right))
        assert (correct[-1] == len(target)) == (written == target)  # all right means that nothing comes after
    return Scores(tuple(correct), tuple(map(len, strings)))


def test_correct_symbols_are_in_the_order_of_the_batch() -> None:
    batch = make_batch([string("b"), string("xyz"), string("")])
    with torch.inference_mode():
        assert correct_symbols(handmade_reverser(), batch) == [4, 2, 1]


def margins_by_hand(model: StackLSTMReverser, ids: list[int]) -> list[float]:
    """Step by step, through the decoder's own interface, up to the first error."""
    stretch = model.config.gate_stretch
    saturation = math.log((1 + stretch) / stretch)
    gates: dict[str, list[float]] = {"encoder": [], "decoder": []}
    gaps = []
    state = model.initial_state(1)
    fed = [vocabulary.START, *ids, vocabulary.SEPARATOR, *vocabulary.target_ids(ids)[:-1]]
    for place, symbol in enumerate(fed):
        cell = model.encoder if place <= len(ids) else model.decoder
        out = model.run(cell, torch.tensor([[symbol]]), torch.tensor([1]), state)
        state = out.state
        controls = model.controls_of(cell)
        inputs = (out.hidden[0, 0] @ controls.weight + controls.bias)[:2]
        gates["encoder" if place <= len(ids) else "decoder"].append((inputs.abs() - saturation).tolist())
        if place <= len(ids):
            continue
        logits = model.read_out(out.hidden[0, 0])
        target = vocabulary.target_ids(ids)[place - len(ids) - 1]
        if logits.argmax() != target:
            break
        gaps.append(float(logits[target] - logits[torch.arange(len(logits)) != target].max()))
    gates["decoder"].pop()  # nothing comes after it
    nearest = [min(gate[i] for gate in each) if each else math.inf for each in gates.values() for i in (0, 1)]
    return [*nearest, min(gaps, default=math.inf)]


@pytest.mark.parametrize("implementation", ["torch", pytest.param("compiled", marks=compiled)])
@torch.no_grad()
def test_margins(implementation: Implementation) -> None:
    perfect = handmade_reverser()
    untrained = build(StackLSTMConfig(hidden_size=8, stack_width=8), torch.Generator().manual_seed(3))
    strings = sample_strings(LengthRange(minimum=0, maximum=9), 7, torch.Generator().manual_seed(1))
    for model in (perfect, untrained):
        assert isinstance(model, StackLSTMReverser)
        by_hand = [margins_by_hand(model.eval(), each.tolist()) for each in strings]
        expected = [min(column) for column in zip(*by_hand, strict=True)]
        with using(implementation):
            found = score(model, strings, margins=True).margins
        assert found is not None
        assert list(dataclasses.astuple(found)) == pytest.approx(expected, abs=1e-4)
    assert score(perfect, strings).margins is None


def test_gates_that_are_not_stretched_never_saturate() -> None:
    model = build(StackLSTMConfig(gate_stretch=0.0, hidden_size=8, stack_width=8), torch.Generator().manual_seed(0))
    found = score(model, [string("abc")], margins=True).margins
    assert found is not None
    assert found.encoder_push == found.encoder_pop == -math.inf


@pytest.mark.parametrize("kind", ["queue-lstm", "deque-lstm"])
def test_margins_of_a_queue_and_a_deque_are_those_of_the_nearest_gate(kind: str) -> None:
    model = build(shape_of(kind, hidden_size=8, stack_width=4), torch.Generator().manual_seed(0)).eval()
    assert isinstance(model, HasMargins)
    with torch.no_grad():  # the decoder's gates alone decide, and are the same at every step
        gates = torch.tensor([5.0, -4.5, -4.0, -6.0])[: model.decoder_controls.bias.numel() - model.config.input_width]
        model.decoder_controls.weight.zero_()
        model.decoder_controls.bias[: len(gates)] = gates
        model.logits.weight.zero_()
        model.logits.bias.copy_(torch.eye(len(model.logits.bias))[ord("a") + vocabulary.FIRST_SYMBOL])
    found = score(model, [string("aab")], task=TASKS["copy"], margins=True).margins
    assert found is not None
    nearest = [4.0, 4.5] if len(gates) == 4 else [5.0, 4.5]
    assert [found.decoder_push, found.decoder_pop] == pytest.approx([each - model.saturation for each in nearest])
    assert found.encoder_push < 0
    assert found.logits == pytest.approx(1)


def test_margins_are_of_a_stack() -> None:
    with pytest.raises(ValueError, match="only a model with a stack, a queue or a deque has margins"):
        score(build(RNNConfig(hidden_size=4, embedding_width=4)), [string("abc")], margins=True)
