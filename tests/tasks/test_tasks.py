"""A task is one file: it draws sources, answers them, and names its vocabulary; the rest follows from that."""

from __future__ import annotations

import doctest
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from shapes import shape_of

from stackrev import cli
from stackrev.config import LengthRange, settings
from stackrev.errors import ConfigError, DataError
from stackrev.evaluation.decoding import greedy
from stackrev.evaluation.scoring import score
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config, read_config
from stackrev.models import build
from stackrev.storage import checkpoints
from stackrev.tasks import TASKS, vocabulary
from stackrev.tasks.base import Task
from stackrev.tasks.batches import held_out, make_batch, sample_batch
from stackrev.tasks.data import DataConfig
from stackrev.tasks.strings import sample_strings
from stackrev.tasks.vocabulary import Vocabulary
from stackrev.training.trainer import Trainer
from stackrev.training_config import TrainingConfig


class Thirds(Task):
    """Every symbol, or every third: targets are in another order of lengths, and ids are larger than a byte."""

    name = "thirds"
    summary = "Every symbol of a string of even length, every third of another."
    vocabulary = Vocabulary(1000)

    def answer(self, string: Sequence[int]) -> list[int]:
        return list(string)[:: 3 if len(string) % 2 else 1]


THIRDS = Thirds()
LENGTHS = LengthRange(minimum=1, maximum=9)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("module", sorted({"stackrev.tasks.base", *(type(task).__module__ for task in TASKS.values())}))
def test_the_worked_examples_work(module) -> None:
    found = doctest.testmod(sys.modules[module])
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("task", [*TASKS.values(), THIRDS])
def test_answers_side_by_side_are_the_answers(task: Task) -> None:
    strings = task.draw(LENGTHS, 8, seeded(0))
    assert all(len(each) % task.length_step == 0 for each in strings)
    assert all(set(each.tolist()) <= set(task.vocabulary.ids) for each in strings)
    batch = make_batch(strings, task)
    ordered = sorted(strings, key=len, reverse=True)
    rows = range(8) if batch.order is None else batch.order.tolist()
    assert (batch.target_steps.diff() <= 0).all()
    for place, row in enumerate(rows):
        answer = task.answer(ordered[row].tolist())
        steps = int(batch.target_steps[place])
        assert batch.target[:steps, place].tolist() == [*answer, vocabulary.END]
        assert batch.fed[:steps, place].tolist() == [vocabulary.SEPARATOR, *answer]
        assert (batch.target[steps:, place] == vocabulary.END).all()
    assert batch.of_sources([ordered[row] for row in rows])[0] is ordered[0]


@pytest.mark.parametrize("kind", KINDS)
def test_targets_of_other_lengths_are_read_from_their_own_sources(kind: str) -> None:
    config = shape_of(kind, hidden_size=6, stack_width=5, vocabulary_size=THIRDS.vocabulary.size)
    model = build(config, seeded(0)).eval()
    strings = THIRDS.draw(LENGTHS, 7, seeded(3))
    batch = make_batch(strings, THIRDS)
    assert batch.order is not None
    together = model.hidden(batch)
    for place, row in enumerate(batch.order.tolist()):
        alone = model.hidden(make_batch([sorted(strings, key=len, reverse=True)[row]], THIRDS))
        steps = int(batch.target_steps[place])
        torch.testing.assert_close(together[:steps, place], alone[:, 0], rtol=1e-5, atol=1e-6)
    together.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_of_the_task(kind: str) -> None:
    config = shape_of(kind, hidden_size=6, stack_width=5, vocabulary_size=THIRDS.vocabulary.size)
    model = build(config, seeded(0)).eval()
    strings = THIRDS.draw(LENGTHS, 7, seeded(3))
    whole = score(model, strings, task=THIRDS)
    assert whole.targets == tuple(len(THIRDS.answer(each.tolist())) + 1 for each in strings)
    assert whole.correct == tuple(score(model, [each], task=THIRDS).correct[0] for each in strings)
    assert sum(each.samples for each in whole.by_length().values()) == 7


@pytest.mark.parametrize("text", ["abc", "$abc|"])
def test_a_text_that_no_source_is_as_long_as_is_not_answered(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["apply", "--model", "queue-lstm-bigram-flip", text]) == 1
    written, said = capsys.readouterr()
    assert written == ""
    assert "bigram-flip has no string of" in said
    assert "a length must be a multiple of 2" in said


@pytest.mark.parametrize(
    ("model", "text", "hint"),
    [("queue-lstm-gender", "the me17", "5 words"), ("queue-lstm-bigram-flip", "", "2 characters")],
)
def test_a_text_shorter_than_any_source_is_not_answered(
    model: str, text: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["apply", "--model", model, text]) == 1
    written, said = capsys.readouterr()
    assert written == ""
    assert f"the shortest has {hint}" in said


def test_bigram_flip_is_for_even_lengths() -> None:
    task = TASKS["bigram-flip"]
    data = DataConfig(task="bigram-flip", held_out_samples=300, test_lengths=LengthRange(minimum=65, maximum=70))
    assert {len(each) for each in held_out(data).test} == {66, 68, 70}
    batch = sample_batch(LengthRange(minimum=1, maximum=9), 200, seeded(1), task=task)
    assert set((batch.steps - 1).tolist()) == {2, 4, 6, 8}
    with pytest.raises(DataError, match="3 symbols cannot be cut into pairs"):
        task.answer([5, 6, 7])
    with pytest.raises(DataError, match="3 symbols cannot be cut into pairs"):
        make_batch([torch.tensor([5, 6, 7])], task)
    with pytest.raises(DataError, match="no length in 3 is a multiple of 2"):
        task.draw(LengthRange(minimum=3, maximum=3), 1, seeded(0))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_is_scored_as_a_greedy_decoder_writes(task: Task) -> None:
    config = shape_of("stack-lstm", hidden_size=6, stack_width=5, vocabulary_size=task.size)
    model = build(config, seeded(0)).eval()
    strings = task.draw(LENGTHS, 7, seeded(3))
    for string, right in zip(strings, score(model, strings, task=task).correct, strict=True):
        (written,) = greedy(model, [string])
        target = [*task.answer(string.tolist()), vocabulary.END]
        pairs = enumerate(zip(target, written, strict=False))
        assert right == next((place for place, (a, b) in pairs if a != b), len(target))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_from_the_command_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--lengths", "5-8", "--test-lengths", "9-12", "--held-out-samples", "5"]
    tiny = ["--batches", "2", "--check-every", "2", "--hidden-size", "4", "--batch-size", "3", "--device", "cpu"]
    run, data = str(tmp_path / "run"), str(tmp_path / "data.jsonl")
    alias = "reverse" if name == "reversal" else name
    assert cli.main(["train", "--task", alias, *short, *tiny, "--output", run, "--json", "--quiet"]) == 0
    assert f'"--task {name}' in capsys.readouterr().out.replace("stackrev train --model stack-lstm --seed 0 ", '"') or (
        name == "reversal"
    )
    assert checkpoints.describe(Path(run)).config.data.task == name
    drawn = ["--lengths", "6-9", "--samples", "7", "--seed", "3"]
    assert cli.main(["generate-data", "--task", alias, *drawn, "-o", data, "--quiet"]) == 0
    assert cli.main(["evaluate", "--model", run, *drawn, "--json", "--quiet"]) == 0
    one = json.loads(capsys.readouterr().out)[0]
    assert cli.main(["evaluate", "--model", run, "--data", data, "--json", "--quiet"]) == 0
    other = json.loads(capsys.readouterr().out)[0]
    assert (one["fine"], one["coarse"], one["samples"]) == (other["fine"], other["coarse"], 7)


def test_ids_above_a_byte_are_held_out_and_drawn() -> None:
    strings = THIRDS.draw(LengthRange(minimum=1, maximum=1), 400, seeded(0))
    batch = sample_batch(LengthRange(minimum=1, maximum=1), 50, seeded(1), task=THIRDS)
    assert int(batch.source.max()) > 255
    from stackrev.tasks.batches import HeldOut

    excluded = HeldOut(strings, []).keys
    again = sample_batch(LengthRange(minimum=1, maximum=1), 50, seeded(1), task=THIRDS, excluded=excluded)
    assert not set(again.source[1].tolist()) & {int(each) for each in strings}


class Doubled(Task):
    """Strings of one symbol over and over: not every string is a source, so the task draws them itself."""

    name = "doubled"
    summary = "A string of one symbol, as it is."
    uniform = False

    def answer(self, string: Sequence[int]) -> list[int]:
        return list(string)

    def draw(self, lengths: LengthRange, samples: int, generator: torch.Generator) -> list[torch.Tensor]:
        return [each[:1].expand(len(each)) for each in sample_strings(lengths, samples, generator)]


def test_a_task_may_draw_sources_of_its_own() -> None:
    batch = sample_batch(LENGTHS, 20, seeded(0), task=Doubled())
    for row in range(20):
        assert len(set(batch.source[1 : int(batch.steps[row]), row].tolist())) <= 1


def test_a_configuration_names_its_task() -> None:
    assert settings(DataConfig)["task"].choices == (*TASKS, "pairs")
    assert read_config({"data": {}, "model": {}}).data.task == "reversal"
    with pytest.raises(ConfigError, match="task is 'sorting'"):
        DataConfig(task="sorting")
    with pytest.raises(ConfigError, match="vocabulary_size is 1,003"):
        Config(model=shape_of("lstm", stack_width=4, vocabulary_size=1003))


@pytest.mark.parametrize("kind", KINDS)
def test_copy_is_trained_from_start_to_end(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataConfig(
        task="copy",
        lengths=LengthRange(minimum=1, maximum=3),
        test_lengths=LengthRange(minimum=4, maximum=5),
        held_out_samples=6,
    )
    training = TrainingConfig(batches=4, batch_size=4, check_every=2, settle="certified", device="cpu")
    trainer = Trainer(Config(data=data, model=shape_of(kind, hidden_size=6, stack_width=5), training=training))
    trainer.run()
    assert trainer.progress.batch == 4
    assert [each.tolist() for each in held_out(data).test] == [each.tolist() for each in held_out(DataConfig(
        lengths=data.lengths, test_lengths=data.test_lengths, held_out_samples=6)).test]  # fmt: skip
    assert trainer._settling is None
    checkpoints.save(tmp_path, trainer.model.state_dict(), trainer.config)
    card = (tmp_path / "README.md").read_text()
    assert "trained to write the string as it is and `&`" in card
    assert "revers" not in card
    assert cli.main(["reverse", "--model", str(tmp_path), "hello"]) == 2
    assert "has learned copy, not reversal" in capsys.readouterr().err
    string = torch.tensor([5, 6, 7])
    assert make_batch([string], TASKS["copy"]).target[:, 0].tolist() == [5, 6, 7, vocabulary.END]
