"""The view of a training run: what it draws, and that it changes nothing."""

from __future__ import annotations

import io
import math

import pytest
import torch
from handmade import CONFIG as HANDMADE
from handmade import handmade_reverser
from shapes import shape_of

from stackrev.cli import live
from stackrev.config import LengthRange
from stackrev.evaluation.capabilities import CanTrace
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.tasks.data import DataConfig
from stackrev.tasks.vocabulary import ASCII
from stackrev.training.events import BatchEvent
from stackrev.training.trainer import Trainer
from stackrev.training_config import TrainingConfig

TINY = DataConfig(
    lengths=LengthRange(minimum=1, maximum=4), test_lengths=LengthRange(minimum=5, maximum=6), held_out_samples=5
)


def trainer_of(kind: str = "stack-lstm", **more) -> Trainer:
    training = TrainingConfig(batches=6, batch_size=4, check_every=3, device="cpu", **more)
    return Trainer(Config(data=TINY, model=shape_of(kind, hidden_size=6, stack_width=5), training=training))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_sparkline():
    assert live.sparkline([0, 0.5, 1], low=0, high=1) == "▁▅█"
    assert live.sparkline([-5, 7], low=0, high=1) == "▁█"
    assert live.sparkline([3, 3], low=3, high=3) == "▁▁"
    assert live.sparkline([], low=0, high=1) == ""


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100, 1000])
def test_a_series_keeps_means_of_everything(count):
    series = live.Series(8)
    for value in range(count):
        series.add(float(value))
    means = series.means
    assert len(means) <= 9
    assert means == sorted(means)
    if count:
        each = 2 ** max(0, math.ceil(math.log2(count / 8)))
        assert means[0] == pytest.approx((min(each, count) - 1) / 2, abs=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_peek_changes_nothing(kind):
    trainer = trainer_of(kind)
    trainer.model.train()
    before = {name: each.clone() for name, each in trainer.model.state_dict().items()}
    generator = torch.get_rng_state()
    found = live.peek(trainer)
    assert found.text == "The "
    assert 1 <= len(found.written) <= 5
    assert (found.reading is not None) == isinstance(trainer.model, CanTrace)
    assert trainer.model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(each, before[name]) for name, each in trainer.model.state_dict().items())


def test_a_run_is_the_same_whoever_looks_on(monkeypatch):
    monkeypatch.setattr(live, "SAMPLE_SECONDS", 0.0)
    alone, watched = trainer_of(), trainer_of()
    alone.run()
    monkeypatch.setattr("sys.stderr", Terminal())
    with live.training_view(watched, quiet=False) as on_event:
        watched.run(on_event)
    theirs = watched.model.state_dict()
    assert all(torch.equal(each, theirs[name]) for name, each in alone.model.state_dict().items())


def test_the_gates_and_the_sample_of_a_network_that_is_right():
    trainer = trainer_of()
    trainer.model = handmade_reverser(HANDMADE)
    found = live.peek(trainer)
    assert "".join(found.written) == " ehT&"
    assert found.reading == pytest.approx((1, 0), abs=1e-3)
    assert found.writing == pytest.approx((0, 1), abs=1e-3)
    *_, written = live._sample(found, 80)
    assert {str(span.style) for span in written.spans} == {"green"}


def test_wrong_characters_are_marked():
    *_, sample, written = live._sample(
        live.Peek("abc", ("c", "x", "a", "\x1b"), ("c", "b", "a", "&"), ASCII, None, None), 80
    )
    assert sample.plain == "sample    abc"
    assert written.plain == "          cxa␛"
    assert ["red" in str(span.style) for span in written.spans] == [False, True, False, True]


@pytest.mark.parametrize("width", [30, 40, 80, 100])
def test_the_view_holds_what_there_is_to_see(width):
    trainer = trainer_of()
    view = live._View(trainer)
    trainer.run(view.take)
    text = view.draw(width).plain
    assert all(len(line) <= width for line in text.splitlines())
    for word in ("loss", "1-4", "5-6", "gates", "sample", "The "):
        assert word in text
    if width >= 40:
        assert "batch 6 of 6" in text
        assert "strings/s" in text
        assert "0:00 left" in text


def test_frames_are_few():
    view = live._View(trainer_of())
    drawn = [view.take(BatchEvent(batch, 1.0, 1.0)) for batch in range(50)]
    assert drawn[0]
    assert sum(drawn) < 25


def test_a_terminal_gets_the_view_and_a_line_a_check(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    trainer = trainer_of()
    with live.training_view(trainer, quiet=False) as on_event:
        trainer.run(on_event)
    text = stderr.getvalue()
    assert text.count("batch    loss  coarse    fine  coarse    fine  batch/s") == 1
    assert text.count("\n      3  ") == 1
    assert "sample    The" in text


def test_elsewhere_lines_and_nothing_that_moves(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    trainer = trainer_of()
    with live.training_view(trainer, quiet=False) as on_event:
        trainer.run(on_event)
    groups, names, *lines = stderr.getvalue().splitlines()
    assert (groups.split(), names.split()[:2]) == (["1-4", "5-6"], ["batch", "loss"])
    assert [line.split()[0] for line in lines] == ["3", "6"]
    assert "\x1b" not in stderr.getvalue()


def test_quiet_is_silent(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    trainer = trainer_of()
    with live.training_view(trainer, quiet=True) as on_event:
        trainer.run(on_event)
    assert stderr.getvalue() == ""


def test_a_run_that_settles_for_a_proof_shows_how_near_it_is(monkeypatch):
    trainer = trainer_of(settle="certified")
    trainer.progress.solved_batch = 0
    view, events = live._View(trainer), []
    trainer.run(lambda event: (view.take(event), events.append(event)))
    near = next(event.closing for event in reversed(events) if isinstance(event, BatchEvent))
    drawn = view.draw(200).plain
    assert f"gates {near.gates:+.1f}, logits {near.logits:+.1f} at the worst of all strings" in drawn
    assert f"{near.scale:.1%}" in drawn
    assert "at the worst" not in live._View(trainer_of()).draw(200).plain
    narrow = view.draw(40).plain.splitlines()
    assert f"{'':10}gates {near.gates:+.1f}, logits {near.logits:+.1f}" in narrow
    assert f"{'':10}at the worst of all strings" in narrow
