"""Pairs of a user's own: how a file is read, what is held out, and what a run makes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from stackrev import cli
from stackrev.cli.settings import command_line, configure
from stackrev.config import LengthRange
from stackrev.errors import ConfigError, DataError
from stackrev.experiments import presets
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config, read_config
from stackrev.storage import checkpoints
from stackrev.storage.pairs import complete, open_task, read_examples
from stackrev.tasks.batches import held_out, sample_batch
from stackrev.tasks.data import DataConfig, PairsConfig, task_of, with_task
from stackrev.tasks.pairs import Pairs

TINY = ["--batches", "4", "--check-every", "2", "--hidden-size", "4", "--batch-size", "3", "--device", "cpu", "--quiet"]


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"input": source, "target": target}) for source, target in pairs]
    path.write_text("\n".join(lines) + "\n")
    return path


def doubled(count: int, start: int = 0) -> list[tuple[str, str]]:
    """Numbers, and every digit of them twice."""
    return [(f"{n}", "".join(2 * digit for digit in f"{n}")) for n in range(start, start + count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.jsonl", doubled(200))


def configured(file: Path, *, given: tuple[str, ...] = (), **more) -> PairsConfig:
    return complete(PairsConfig(data=str(file), **more), given=given)


def texts(task: Pairs, sources) -> set[str]:
    return {task.vocabulary.decode(each.tolist()) for each in sources}


def test_what_follows_from_a_file(file: Path) -> None:
    config = configured(file)
    assert config.symbols == tuple("0123456789")
    assert (str(config.lengths), str(config.test_lengths), config.expansion) == ("1-3", "1-3", 2)
    assert task_of(config).vocabulary.encode("10") == [4, 3]
    assert Config.fitted(data=config, model=Config().model, training=Config().training).model.vocabulary_size == 13


def test_a_tenth_is_held_out_twice_and_never_learned_from(file: Path) -> None:
    config = configured(file)
    task = open_task(config)
    validation, test = held_out(config, task)
    assert (len(validation), len(test)) == (20, 20)
    kept = texts(task, [*validation, *test])
    assert len(kept) == 40
    drawn: set[str] = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        batch = sample_batch(config.lengths, 50, generator, excluded=held_out(config, task).keys, task=task)
        sources = [batch.source[1 : int(steps), row] for row, steps in enumerate(batch.steps)]
        drawn |= texts(task, sources)
    assert drawn == {source for source, _ in doubled(200)} - kept
    again = held_out(config, open_task(config))
    assert texts(task, again.test) == texts(task, test)
    other = configured(file, held_out_seed=1)
    assert texts(task, held_out(other, open_task(other)).test) != texts(task, test)


def test_targets_are_those_of_the_file(file: Path) -> None:
    task = open_task(configured(file))
    for source, target in doubled(200):
        assert task.vocabulary.decode(task.answer(task.vocabulary.encode(source))) == target
    with pytest.raises(DataError, match="no pair has this input"):
        task.answer(task.vocabulary.encode("999"))


def test_lengths_choose_pairs(file: Path) -> None:
    short, long = LengthRange(minimum=1, maximum=2), LengthRange(minimum=3, maximum=3)
    config = configured(file, lengths=short, test_lengths=long, given=("lengths", "test_lengths"))
    task = open_task(config)
    validation, test = held_out(config, task)
    assert {len(each) for each in test} == {3}
    assert {len(each) for each in validation} <= {1, 2}
    assert {len(each) for each in task.draw(LengthRange(minimum=1, maximum=9), 300, torch.Generator())} == {1, 2}
    # A curriculum may begin with shorter strings than there are.
    nearest = open_task(configured(file, lengths=long, given=("lengths",)))
    assert {len(each) for each in nearest.draw(short, 20, torch.Generator())} == {3}


def test_files_of_their_own(file: Path, tmp_path: Path) -> None:
    validation = write(tmp_path / "validation.jsonl", doubled(5, 150))
    test = write(tmp_path / "test.jsonl", doubled(7, 1000))
    config = configured(file, validation=str(validation), test=str(test))
    task = open_task(config)
    assert str(config.test_lengths) == "4"
    assert texts(task, held_out(config, task).validation) == {str(n) for n in range(150, 155)}
    assert texts(task, held_out(config, task).test) == {str(n) for n in range(1000, 1007)}
    drawn = texts(task, task.draw(LengthRange(minimum=1, maximum=9), 5000, torch.Generator()))
    assert drawn == {str(n) for n in range(200) if not 150 <= n < 155}
    write(test, [*doubled(2, 1000), ("10a", "1")])
    with pytest.raises(DataError, match=r"test.jsonl, line 3: character 3, 'a', is not in the vocabulary"):
        configured(file, test=str(test))


def test_words_and_other_scripts(tmp_path: Path) -> None:
    pairs = [(f"{a} {b}", f"{b}  {a} !") for a in ("ja", "nein", "öfter") for b in ("na", "so")]
    config = configured(write(tmp_path / "words.jsonl", pairs), tokens="words")
    task = open_task(config)
    assert config.symbols == ("!", "ja", "na", "nein", "so", "öfter")
    assert task.bind("öfter so").show(task.answer(task.vocabulary.encode("öfter so"))) == "so öfter !"
    config = configured(write(tmp_path / "clusters.jsonl", [(f"e\u0301{n}", "👩‍👩‍👧") for n in range(9)]))
    assert set(config.symbols) == {*"012345678", "e\u0301", "👩‍👩‍👧"}
    assert open_task(config).vocabulary.encode("1e\u0301") == [4, 12]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"input": "a"}', "'target' is missing"),
        ('{"input": 5, "target": "a"}', "'input' is no text"),
        ('{"input": "\\ud800", "target": "a"}', "'input' has half a surrogate pair"),
        ('{"input": "7", "target": "8"}', "line 8 has another target for the same input"),
        (b'{"input": "\xff", "target": "a"}', "not UTF-8"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_one_bad_line_is_named(file: Path, line: str | bytes, message: str) -> None:
    lines = file.read_bytes().splitlines()
    lines[16] = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError) as caught:
        configured(file)
    assert caught.value.message == f"{file}, line 17: {message}"


def test_files_that_hold_nothing(tmp_path: Path, file: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no pairs"):
        configured(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="there is no file"):
        configured(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="leaves no pair for training"):
        configured(write(tmp_path / "two.jsonl", doubled(2)))
    with pytest.raises(DataError, match="needs pairs"):
        complete(PairsConfig())
    config = configured(file)
    write(file, doubled(201))
    with pytest.raises(DataError, match="is not the file that it was"):
        open_task(config)


def test_other_editors_lines_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"input": source, "target": target}) for source, target in doubled(20)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert configured(path).symbols == tuple("0123456789")


def test_what_is_held_out_is_not_learned_from_if_it_stands_twice(file: Path, tmp_path: Path) -> None:
    write(file, doubled(100) + doubled(100))
    other = write(tmp_path / "other.jsonl", doubled(30))
    task = open_task(configured(file, test=str(other)))
    validation, test = task.held_out()
    drawn = texts(task, task.draw(LengthRange(minimum=1, maximum=3), 2000, torch.Generator().manual_seed(0)))
    assert len(drawn) == 60
    assert not drawn & (texts(task, validation) | texts(task, test))


def test_all_lengths_are_drawn_from_the_start(file: Path) -> None:
    """A curriculum would begin with the few shortest pairs; whoever asks for one gets it."""
    for kind in KINDS:
        plain, given = Config.default(kind), {"task": "pairs", "data": str(file)}
        config = configure(plain, given)
        assert config == configure(Config.default(kind, "pairs"), given)
        assert config.training == dataclasses.replace(plain.training, curriculum_start=None)
        assert "curriculum" not in command_line(config)
        asked = configure(plain, {**given, "curriculum_start": 5})
        assert asked.training.curriculum_start == 5
        assert "--curriculum-start 5" in command_line(asked)
        assert configure(config, {"task": "copy"}).training == plain.training
        assert presets.configure(kind, given) == config
    fixed = dataclasses.replace(Config(), training=dataclasses.replace(Config().training, curriculum_start=5))
    assert configure(fixed, {"task": "pairs", "data": str(file)}).training.curriculum_start == 5


def test_settings_of_pairs_go_with_pairs(file: Path) -> None:
    config = Config.fitted(data=configured(file), model=Config().model, training=Config().training)
    raw = json.loads(json.dumps({"data": vars(config.data) | {"lengths": vars(config.data.lengths)}}, default=vars))
    raw["model"] = {"vocabulary_size": 13}
    assert read_config(raw).data == config.data
    with pytest.raises(ConfigError, match="unknown key 'tokens'"):
        read_config({"data": {"tokens": "words"}, "model": {"vocabulary_size": 131}})
    with pytest.raises(ConfigError, match="must be at most"):
        read_config({"data": {"task": "pairs", "symbols": ["a", "a"]}, "model": {}})
    assert type(with_task(config.data, "copy")) is DataConfig


def test_long_targets_are_written_to_their_ends(tmp_path: Path) -> None:
    config = configured(write(tmp_path / "long.jsonl", [(str(n), "x" * 99) for n in range(10)]))
    assert task_of(config).most_written(1) > 99


def test_a_file_is_read_for_a_model_of_another(file: Path, tmp_path: Path) -> None:
    task, sources = read_examples(write(tmp_path / "more.jsonl", doubled(3, 1000)), configured(file))
    assert [task.vocabulary.decode(task.answer(each)) for each in sources] == ["11000000", "11000011", "11000022"]


@pytest.mark.slow
def test_pairs_from_the_command_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, again, more = tmp_path / "run", tmp_path / "again", write(tmp_path / "more.jsonl", doubled(3, 1000))
    train = ["train", "--task", "pairs", "--data", str(file), *TINY]
    assert cli.main([*train, "--output", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["scores"]) == ["1-3"]
    assert told["scores"]["1-3"]["samples"] == 20
    config = checkpoints.describe(run).config
    assert isinstance(config.data, PairsConfig)
    assert config.data.symbols == tuple("0123456789")
    assert '"symbols": "10 chars, see config.json"' in (run / "README.md").read_text()
    # Stopped half way and resumed, it is the same run.
    assert cli.main([*train, "--output", str(again), "--batches", "2"]) == 0
    assert cli.main(["train", "--resume", "--output", str(again), "--batches", "4", "--quiet"]) == 0
    capsys.readouterr()
    first, second = (checkpoints.describe(each).checksums for each in (run, again))
    assert first["model.safetensors"] == second["model.safetensors"]
    model = ["--model", str(run)]
    assert cli.main(["evaluate", *model, "--json", "--quiet"]) == 0
    (held,) = json.loads(capsys.readouterr().out)
    assert (held["samples"], held["fine"]) == (20, told["scores"]["1-3"]["fine"])
    assert cli.main(["evaluate", *model, "--data", str(more), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["lengths"] == "4"
    assert cli.main(["apply", *model, "--json", "12"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "12"
    assert cli.main(["apply", *model, "1x"]) == 1
    assert "character 2, 'x', is not in the vocabulary" in capsys.readouterr().err
    assert cli.main(["apply", *model, "--check", "12"]) == 2
    assert cli.main(["reverse", *model, "12"]) == 2
    assert cli.main(["train", "--data", str(file), *TINY]) == 2
    assert "the task reversal has no --data\nhint: it goes with --task pairs" in capsys.readouterr().err
    file.unlink()
    assert cli.main(["evaluate", *model, "--quiet"]) == 2
    assert "there is no file" in capsys.readouterr().err
