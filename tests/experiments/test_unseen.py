"""Strings that have decided nothing in a run."""

import pytest
import torch

from stackrev.config import LengthRange
from stackrev.errors import ConfigError
from stackrev.evaluation import scoring
from stackrev.experiments import presets
from stackrev.experiments.measurements.unseen import UNSEEN
from stackrev.experiments.setting import ExperimentSetting
from stackrev.kinds.config import DataConfig
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build
from stackrev.tasks import REVERSAL
from stackrev.tasks.batches import held_out


def test_unseen_strings_are_neither_held_out_nor_those_of_another_seed(monkeypatch):
    model = build(StackLSTMConfig(hidden_size=6, stack_width=6), torch.Generator().manual_seed(0))
    tried = []
    score = scoring.score

    def watched(model, strings, **options):
        tried.append([each.tolist() for each in strings])
        return score(model, strings, **options)

    monkeypatch.setattr(scoring, "score", watched)
    asked = UNSEEN.parse("9-12:30")
    seen = []
    found, again = (UNSEEN.measure(model, REVERSAL, asked, seen.append) for _ in range(2))
    assert found == again
    assert (found["lengths"], found["samples"], found["exact"]) == ("9-12", 30, 0)
    assert tried[0] == tried[1]
    assert {len(each) for each in tried[0]} == {9, 10, 11, 12}
    lengths = LengthRange(minimum=9, maximum=12)
    for seed in range(5):
        data = DataConfig(lengths=lengths, test_lengths=lengths, held_out_samples=30, held_out_seed=seed)
        sets = held_out(data)
        assert not {*map(tuple, tried[0])} & {tuple(each.tolist()) for each in (*sets.validation, *sets.test)}
    assert sum(seen) / 2 == pytest.approx(UNSEEN.symbols(asked), rel=0.1)


def test_what_can_be_asked_of_unseen_strings():
    parse, check = UNSEEN.parse, UNSEEN.check
    assert parse("65-128") == {"lengths": "65-128", "samples": 1000}
    assert parse(" 065 - 128 : 7") == {"lengths": "65-128", "samples": 7}
    assert parse("64:5") == {"lengths": "64", "samples": 5} == check({"lengths": "64", "samples": 5})
    for text in ("", "x", "9:", "9:0", "9:-1", "9-5:1", "9:x", "65-128:100000000", "9" * 5000):
        with pytest.raises(ConfigError):
            parse(text)
    for raw in (None, 5, {}, {"lengths": "9"}, {"lengths": 9, "samples": 1}, {"lengths": "9", "samples": True}):
        with pytest.raises(ConfigError):
            check(raw)


@pytest.mark.parametrize(
    ("task", "lengths", "hint"),
    [
        ("bigram-flip", "65", "a length must be a multiple of 2"),
        ("svo-sov", "2", "the shortest has 3 words"),
        ("gender", "2000001", "at most 2,000,000 words"),
        ("reversal", "0", "the shortest has 1 character"),
    ],
)
def test_lengths_that_a_task_does_not_have_are_refused_before_the_training(task, lengths, hint):
    config = presets.configure("queue-lstm", {"task": task})
    for asked in ({"unseen": {"lengths": lengths, "samples": 5}}, {"exact": {"10": 1, lengths: 1}}):
        if asked.get("exact") and lengths == "0":
            continue
        with pytest.raises(ConfigError, match=f"{task} has no string of {lengths}") as caught:
            ExperimentSetting("x", config, asked)
        assert caught.value.hint == hint


def test_lengths_that_a_task_has_are_not_refused():
    config = presets.configure("queue-lstm", {"task": "bigram-flip"})
    for fine in ({"unseen": {"lengths": "65-66", "samples": 5}}, {"exact": {"10": 1}}, {"exact": None}, {}):
        assert ExperimentSetting("x", config, fine).asked == fine
