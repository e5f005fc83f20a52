"""The README's results are those of docs/results/, and its figures are drawn from there."""

import json
import math
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from stackrev.experiments import presets
from stackrev.experiments.setting import read_setting

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs the extra 'plots'")


@pytest.fixture(scope="module")
def reproduce():
    sys.path.insert(0, str(ROOT / "scripts"))
    import reproduce

    yield reproduce
    sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def report(reproduce):
    import report

    return report


def named_figures(text: str) -> list[str]:
    return re.findall(r"docs/results/figures/([\w-]+)\.svg", text)


def test_the_readme_tells_what_the_data_tells(reproduce, report):
    text = report.between_markers(README.read_text(encoding="utf-8"))
    names = [path.stem for path in (RESULTS / "figures").glob("*.svg")]
    assert text == report.section(report.read_results(RESULTS), "docs/results/figures", names)


def test_the_scores_in_the_readme_are_those_measured(reproduce, report):
    text = report.between_markers(README.read_text(encoding="utf-8"))
    path = RESULTS / "scores.json"
    measured = json.loads(path.read_text()) if path.exists() else []
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    for entry in measured:
        for lengths, scores in entry["scores"].items():
            (row,) = (each for each in rows if each[0] == report.MODELS[entry["model"]] and f" {lengths} " in each[1])
            for cell, value in ((row[3], scores["coarse"]), (row[5], scores["fine"])):
                assert math.isclose(float(cell), value, abs_tol=1e-3)
                assert (cell == "1.000") == (value == 1)
    assert len([row for row in rows if " symbols" in " ".join(row)]) == sum(len(each["scores"]) for each in measured)


def test_the_long_strings_in_the_readme_are_those_measured(reproduce, report):
    text = report.between_markers(README.read_text(encoding="utf-8"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    path = RESULTS / "long.json"
    assert path.exists() == (RESULTS / "scores.json").exists()
    for each in json.loads(path.read_text())["scores"] if path.exists() else []:
        name = re.sub(r"\d+", lambda number: f"{int(number[0]):,}", each["lengths"])
        (row,) = (row for row in rows if row[:2] == [name, f"{each['samples']:,}"])
        assert int(row[2].replace(",", "")) == round(each["coarse"] * each["samples"])
        assert float(row[3]) == pytest.approx(min(list(each["margins"].values())[:4]), abs=0.006)
        assert float(row[4]) == pytest.approx(each["margins"]["logits"], abs=0.006)


def test_the_counts_in_the_readme_are_those_of_the_seeds(reproduce, report):
    text = report.between_markers(README.read_text(encoding="utf-8"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    path = RESULTS / "seeds" / "default" / "seeds.jsonl"
    seeds = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if seeds:
        solved = [each for each in seeds if each["solved_batch"] is not None]
        row = next(row for row in rows if row[0] == "default")
        assert [int(row[1]), int(row[2])] == [len(seeds), len(solved)]
        assert [each["seed"] for each in seeds] == list(range(len(seeds)))
    else:
        assert all(row[0] != "default" for row in rows)


@pytest.mark.slow
def test_every_figure_is_there_and_is_drawn_again(reproduce, report):
    from stackrev import figures

    named = named_figures(README.read_text(encoding="utf-8"))
    stored = {path.stem for path in (RESULTS / "figures").glob("*.svg")}
    drawn = dict(report.draw(report.read_results(RESULTS))) if named else {}
    assert set(named) <= stored
    assert set(named) <= set(drawn)
    if named and json.loads((RESULTS / "figures" / "versions.json").read_text()) == report.drawn_with():
        for name in named:
            assert figures.render(drawn[name], "svg") == (RESULTS / "figures" / f"{name}.svg").read_bytes(), name


class TestGenerator:
    @pytest.fixture
    def out(self, reproduce, tmp_path):
        from seed_results import result

        for name, seeds in (("default", 5), ("published", 2), ("width 32", 2), ("two layers", 2)):
            folder = tmp_path / "results" / "seeds" / name.replace(" ", "-")
            folder.mkdir(parents=True)
            exact = {"10000": {"exact": 20, "samples": 20, "fine": 1.0}}
            lines = [
                result(seed, None if seed == 3 else 100 + seed, exact if seed != 3 else {}) for seed in range(seeds)
            ]
            (folder / "seeds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        scores = {"8-64": {"coarse": 0.9996, "fine": 0.99996}, "65-128": {"coarse": 1.0, "fine": 1.0}}
        entry = {"model": "stack-lstm", "samples": 1000, "scores": scores, "batches": 500, "seconds": 90.0}
        entry |= {"solved_batch": 200, "solved_seconds": 36.4, "command": "stackrev train"}
        out = tmp_path / "results"
        (out / "scores.json").write_text(json.dumps([entry]))
        (out / "learning.json").write_text(json.dumps({"stack-lstm": result(0, 200)["history"]}))
        lengths = [{"length": length, "samples": 5, "coarse": 1.0, "fine": 1.0} for length in (8, 64, 512)]
        margins = {"encoder_push": 3.0, "encoder_pop": 2.5, "decoder_push": 4.0, "decoder_pop": 5.0, "logits": 6.125}
        long = {"lengths": "1000000", "samples": 3, "coarse": 1.0, "fine": 1.0, "margins": margins}
        (out / "long.json").write_text(json.dumps({"weights": "0", "seed": 7, "scores": [long]}))
        (out / "lengths.json").write_text(json.dumps({"stack-lstm": {"weights": "0", "scores": lengths}}))
        return out

    @pytest.mark.slow
    def test_tables_figures_and_readme_come_from_the_data_alone(self, reproduce, report, out, tmp_path):
        readme = tmp_path / "README.md"
        readme.write_text(f"# Mine\n\n{report.START}\nold\n{report.END}\n\nThe rest.\n")
        arguments = ["--figures-only", "--output", str(out), "--readme", str(readme)]
        assert reproduce.main(arguments) == 0
        text = readme.read_text()
        assert text.startswith("# Mine\n\n")
        assert text.endswith("\n\nThe rest.\n")
        assert "old" not in text
        assert "| stack-LSTM | validation, 8-64 symbols | 1.000 | 0.999 | 1.000 | 0.999 |" in text
        assert "| stack-LSTM | 1,000-3,000 | 500 | 200 (36 s) | 90 s |" in text
        assert "| 1,000,000 | 3 | 3 | 2.50 | 6.12 |" in text
        assert "| default | 5 | 4 | 102 | 104 | 1.0 | 4 of 5 |" in text
        assert "| width 32 | 2 | 2 | 100 | 101 | 1.0 |" in text
        assert "Seeds that do not learn by default: 3." in text
        for name in ("learning", "lengths", "consistency", "published", "sizes", "depths"):
            assert f"](results/figures/{name}.svg)" in text
        files = {path: path.read_bytes() for path in [readme, *out.rglob("*.*")]}
        assert reproduce.main(arguments) == 0
        assert {path: path.read_bytes() for path in [readme, *out.rglob("*.*")]} == files

    def test_nothing_measured_is_nothing_told(self, reproduce, report, tmp_path):
        assert report.section(report.read_results(tmp_path), "figures", []) == ""

    def test_a_readme_without_markers_is_left_alone(self, reproduce, report, out, tmp_path, capsys):
        readme = tmp_path / "README.md"
        readme.write_text("# Mine\n")
        assert reproduce.main(["--figures-only", "--output", str(out), "--readme", str(readme)]) == 1
        assert readme.read_text() == "# Mine\n"
        assert "markers" in capsys.readouterr().err

    def test_a_model_is_scored_once_for_its_weights(self, reproduce, report, tmp_path, monkeypatch):
        import dataclasses

        import torch
        from seed_results import result

        from stackrev.kinds.config import Config
        from stackrev.kinds.stack_lstm import StackLSTMConfig
        from stackrev.models import build
        from stackrev.storage import checkpoints

        config = Config(model=StackLSTMConfig(hidden_size=4, stack_width=4))
        model = build(config.model, torch.Generator().manual_seed(0))
        history = result(0, 200)["history"]
        checkpoints.save(
            tmp_path / "models" / "stack-lstm", model.state_dict(), config, history=history, command="stackrev train"
        )
        asked = []

        def answer(*arguments):
            asked.append(arguments)
            return json.dumps([{"coarse": 0.5, "fine": 0.75}])

        monkeypatch.setattr(reproduce, "_stackrev", answer)
        plan = dataclasses.replace(reproduce.QUICK, samples=7, lengths={2: 3, 4: 2})
        for _ in range(2):
            reproduce.score_models(tmp_path, tmp_path / "models", plan)
            reproduce.score_lengths(tmp_path, tmp_path / "models", plan)
            reproduce.trace_stack(tmp_path, tmp_path / "models")
        assert len(asked) == 2
        results = report.read_results(tmp_path)
        assert results.scores[0]["scores"]["65-128"] == {"coarse": 0.5, "fine": 0.75}
        assert results.scores[0]["solved_batch"] == 200
        assert [each["length"] for each in results.lengths["stack-lstm"]["scores"]] == [2, 4]
        assert len(results.trace.push) == len(results.trace.fed)
        assert {"learning", "lengths", "gates", "stack"} <= {name for name, _ in report.draw(results)}


def test_the_papers_cells_are_of_the_settings_that_are_said(report):
    """Each stored cell has the default settings of its model and task, but for what the cell itself changes."""
    for cell in report.paper.CELLS:
        folder = cell.folder(RESULTS)
        if folder.is_dir():
            stored = read_setting(folder)
            assert stored.config == presets.configure(cell.kind, {**dict(cell.changes), "task": cell.task}), cell.name
            assert len(report.paper.read_cells(RESULTS)[cell]) <= cell.seeds
    assert {each.name for each in (RESULTS / "paper").iterdir()} <= {f"{c.kind}-{c.task}" for c in report.paper.CELLS}


def test_runs_that_started_over_are_counted(report):
    def run(*batches: int) -> dict[str, Any]:
        wrong = {"validation": {"coarse": 0.4}, "test": {"coarse": 1.0}}
        return {"history": [{"batch": batch, **wrong} for batch in batches]}

    gender, copying = report.paper.Cell("deque-lstm", "gender"), report.paper.Cell("deque-lstm", "copy")
    training = presets.configure("deque-lstm", {"task": "gender"}).training
    after = training.restart_batches
    assert after == 1500
    runs = [run(50, after - 50), run(50, after), run(after, 2 * after), run(training.batches), run()]
    assert report.paper.restarted({gender: runs, copying: runs}) == (2, 5)
    assert report.paper.restarted({}) == (0, 0)


def test_the_rows_of_the_papers_table(report):
    def run(solved: int | None, coarse: float, **exact: tuple[int, int]) -> dict[str, Any]:
        tried = {length: {"exact": right, "samples": of} for length, (right, of) in exact.items()}
        test = {"coarse": coarse, "fine": 0.99951}
        return {"solved_batch": solved, "solved_seconds": solved and solved / 10, "test": test, "exact": tried}

    def unseen(right: int) -> dict[str, Any]:
        return {"unseen": {"lengths": "65-128", "exact": right, "samples": 1000}}

    cell = report.paper.Cell("queue-lstm", "bigram-flip")
    runs = [run(100, 1.0, **{"10000": (20, 20)}), run(300, 1.0, **{"10000": (19, 20)}), run(None, 0.9997)]
    alone = {"model": "rnn", "solved_batch": None, "solved_seconds": None, "scores": {"65-128": runs[2]["test"]}}
    head, reversal, row = report.paper.rows({cell: runs}, [], [alone, {**alone, "model": "stack-lstm"}])
    assert len(head) == len(row) == len(reversal)
    assert row == (
        *("bigram-flip", "queue-LSTM", ".55 / .98", "1.000 / 0.999", "2 of 3", "-", "200", "20.0", "1 of 3", "-"),
    )
    assert reversal == ("reversal", "RNN", "-", "0.999 / 0.999", "0 of 1", "-", "-", "-", "-", "-")
    for of_both, share in (
        (({}, unseen(1000)), "1 of 3"),
        ((unseen(1000), unseen(999)), "1 of 3"),
        ((unseen(999), unseen(999)), "0 of 3"),
        (({"proof": {"proved": True}}, {"proof": {"proved": True}}), "2 of 3"),
        (({"proof": {"proved": False}}, {"proof": None, "unseen": None}), "-"),
    ):
        known = [{**each, **more} for each, more in zip(runs, (*of_both, {}), strict=True)]
        assert report.paper.rows({cell: known}, [], [])[-1][head.index("right on all unseen strings")] == share
