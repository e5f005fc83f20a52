import hashlib
import itertools
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from stackrev import figures
from stackrev.errors import MissingExtraError, StackrevError
from stackrev.evaluation.traces import Trace, trace
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser

drawn = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs the extra 'plots'")


def history(solved: int | None, end: int = 600) -> list[dict]:
    """Checks of a run that learns at a batch, or never."""
    lines = []
    for batch in range(100, end + 1, 100):
        right = solved is not None and batch >= solved
        scores = {"coarse": float(right), "fine": 1.0 if right else 0.2, "samples": 10}
        lines.append(
            {"batch": batch, "loss": 0.01 if right else 3.0, "validation": scores, "test": scores, "seconds": 1.0}
        )
    return lines


TRACE = Trace(
    fed=("$", "$", " ", "|", " "),
    written=(" ", "$"),
    push=(1.0, 1.0, 1.0, 0.0, 0.0),
    pop=(0.0, 0.0, 0.0, 1.0, 1.0),
)

DRAWINGS = {
    "learning": lambda: figures.learning.by_model(
        {"stack-lstm": history(300), "rnn": history(None), "runs/mine": history(200)}
    ),
    "one check": lambda: figures.learning.by_model({"lstm": history(100, 100)}),
    "consistency": lambda: figures.learning.by_seed([history(300), history(400), history(None)], title="Mine: $x$"),
    "nobody learns": lambda: figures.learning.by_seed([history(None)]),
    "comparison": lambda: figures.learning.by_setting(
        {f"setting {n}": [history(200), history(None, 300 + n)] for n in range(9)}, title="Nine"
    ),
    "lengths": lambda: figures.lengths.accuracy(
        {
            name: figures.lengths.LengthScores([8, 64, 4096], [1, 0.5, 0], [1, 0.7, 0.1])
            for name in ("lstm", "stack-lstm")
        }
    ),
    "lengths and intervals": lambda: figures.lengths.accuracy(
        {"lstm": figures.lengths.LengthScores([8, 64, 4096], [1, 0.5, 0], [1, 0.7, 0.1], 50)}
    ),
    "ranking": lambda: figures.ranking.by_rank(
        {f"setting {n}": [history(100 * n if n else None), history(None)] for n in range(13)}, title="Thirteen"
    ),
    "gates": lambda: figures.traces.gates(TRACE),
    "contents": lambda: figures.traces.contents(TRACE),
    "search": lambda: figures.search.trials(
        [
            figures.search.TrialPoint(
                n, n / 9, n % 2 == 0, {"learning_rate": 10**-n, "layers": n, "optimizer": "ad" + "am" * n}
            )
            for n in (1, 2, 3)
        ]
    ),
}


@drawn
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_the_same_svg_twice_and_says_no_date(name):
    first, second = (figures.render(DRAWINGS[name](), "svg") for _ in range(2))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    assert ElementTree.fromstring(first).tag.endswith("svg")
    assert b"dc:date" not in first


@drawn
def test_a_png_is_a_png():
    assert figures.render(DRAWINGS["gates"](), "png").startswith(b"\x89PNG")
    with pytest.raises(StackrevError, match="cannot be written as 'bmp'"):
        figures.render(DRAWINGS["gates"](), "bmp")


@drawn
def test_a_figure_shows_the_data_it_was_given():
    drawing = figures.learning.by_seed([history(300), history(400), history(None)])
    assert drawing.get_suptitle() == "2 of 3 runs learn: half of these by 300 batches, the last by 400"
    loss, validation, test = drawing.axes
    assert [len(axes.lines) - named for axes, named in ((loss, 0), (validation, 0), (test, 2))] == [3, 3, 3]
    assert list(test.lines[0].get_ydata()) == [0.2, 0.2, 1, 1, 1, 1]
    assert all(axes.get_xscale() == "log" and axes.get_xlabel() == "batches" for axes in drawing.axes)


@drawn
def test_no_two_of_28_lines_share_colour_and_dashes():
    looks = [figures.style.look(number) for number in range(28)]
    assert len({(each["color"], str(each["linestyle"])) for each in looks}) == 28


@drawn
def test_labels_do_not_touch():
    drawing = DRAWINGS["comparison"]()
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
        assert len(boxes) == 9
        assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *more):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError) as caught:
        figures.traces.gates(TRACE)
    assert caught.value.hint == "pip install 'stackrev[plots]'"


def test_a_trace_has_the_gates_and_the_stack_of_every_step():
    config = replace(Config().model, hidden_size=6, stack_width=5, layers=2)
    model = StackLSTMReverser(config, torch.Generator().manual_seed(0))
    model.train()
    found = trace(model, "ab$")
    assert model.training
    assert found.fed[:5] == ("$", "a", "b", "$", "|")
    assert found.encoder_steps == 4
    strengths = [
        [
            {each.step: each.strength for each in found.columns().elements(step)}.get(place, 0.0)
            for place in range(step + 1)
        ]
        for step in range(len(found.fed))
    ]
    assert len(found.fed) == len(found.push) == len(found.pop)
    assert 1 <= len(found.written) <= 4
    for step in range(len(found.fed)):
        assert strengths[step][-1] == pytest.approx(found.push[step], abs=1e-6)
    # what is on the stack after the encoder is what all steps at once leave there
    from stackrev.tasks.batches import make_batch

    batch = make_batch([torch.tensor([3 + ord(each) for each in "ab$"])])
    model.eval()
    with torch.no_grad():
        state = model.encode(batch.source, batch.steps)
    assert strengths[3] == pytest.approx(state.memory.strengths[:, 0].tolist(), abs=1e-6)


def test_a_trace_of_nothing():
    model = StackLSTMReverser(StackLSTMConfig(hidden_size=4, stack_width=4), torch.Generator().manual_seed(0))
    found = trace(model, "")
    assert found.fed == ("$", "|")
    assert len(found.written) == 1


class TestCommand:
    @pytest.fixture
    def run(self, capsys, monkeypatch, tmp_path):
        from stackrev.cli import main

        monkeypatch.chdir(tmp_path)

        def run(*arguments):
            code = main(["plot", *map(str, arguments)])
            out = capsys.readouterr()
            return code, out.out, out.err

        return run

    @pytest.fixture
    def seeds(self, tmp_path):
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "setting.json").write_text(json.dumps({"name": f"setting {name}"}))
            lines = [json.dumps({"seed": n, "history": history(300 + 100 * n)}) for n in range(3)]
            (folder / "seeds.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    @drawn
    def test_seeds_become_figures(self, run, seeds):
        assert run("consistency", seeds / "one", "-o", "a.svg", "-o", "a.png") == (0, "a.svg\na.png\n", "")
        assert run("comparison", seeds / "one", seeds / "two") == (0, "comparison.svg\n", "")
        assert (seeds / "a.png").read_bytes().startswith(b"\x89PNG")

    @drawn
    def test_a_search_becomes_a_figure(self, run, tmp_path):
        trial = {"number": 0, "value": 0.5, "state": "complete", "settings": {"layers": 1}}
        (tmp_path / "found.json").write_text(json.dumps({"all": [trial, {**trial, "value": None, "state": "failed"}]}))
        assert run("search", "found.json") == (0, "search.svg\n", "")

    @drawn
    def test_a_checkpoint_becomes_figures(self, run, tmp_path):
        from stackrev.models import build
        from stackrev.storage import checkpoints

        config = Config(model=StackLSTMConfig(hidden_size=4, stack_width=4))
        model = build(config.model, torch.Generator().manual_seed(0))
        checkpoints.save(tmp_path / "mine", model.state_dict(), config, history=history(300))
        assert run("learning", "--model", "mine") == (0, "learning.svg\n", "")
        assert run("gates", "--model", "mine", "$ab|") == (0, "gates.svg\n", "")
        assert run("stack", "--model", "mine", "ab", "-o", "s.png") == (0, "s.png\n", "")
        found = run("lengths", "--model", "mine", "--lengths", "2,4", "--samples", "3", "-o", "l.svg")
        assert found == (0, "l.svg\n", "")

    @pytest.mark.parametrize(
        "change",
        [
            {"loss": "x"},
            {"loss": 10**400},
            {"batch": 0},
            {"batch": -5},
            {"batch": 10**30},
            {"batch": 1.5},
            {"test": 3},
            {"test": {"coarse": "1", "fine": 1.0}},
            {"validation": {"coarse": float("nan"), "fine": 1.0}},
            {"validation": {"fine": 1.0}},
        ],
    )
    def test_a_check_without_numbers_is_refused_in_a_line(self, run, tmp_path, change):
        line = {**history(300)[0], **change}
        (tmp_path / "seeds.jsonl").write_text(json.dumps({"seed": 0, "history": [line]}) + "\n")
        code, out, err = run("consistency", tmp_path / "seeds.jsonl")
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
        assert len(err.splitlines()) <= 2
        assert not (tmp_path / "consistency.svg").exists()

    @drawn
    def test_a_run_that_went_astray_is_drawn(self, run, tmp_path):
        lines = [{**each, "loss": loss} for each, loss in zip(history(None), (1.0, None, float("nan")), strict=False)]
        (tmp_path / "seeds.jsonl").write_text(json.dumps({"seed": 0, "history": lines}) + "\n")
        assert run("consistency", tmp_path / "seeds.jsonl") == (0, "consistency.svg\n", "")

    @pytest.mark.parametrize(
        "change",
        [
            {"value": "x"},
            {"value": float("nan")},
            {"value": 10**400},
            {"number": "x"},
            {"settings": 3},
            {"settings": {"layers": [1]}},
            {"settings": {"learning_rate": float("inf")}},
            {"state": []},
        ],
    )
    def test_a_trial_without_numbers_is_refused_in_a_line(self, run, tmp_path, change):
        trial = {"number": 0, "value": 0.5, "state": "complete", "settings": {"layers": 1}, **change}
        (tmp_path / "found.json").write_text(json.dumps({"all": [trial]}))
        code, out, err = run("search", "found.json")
        assert (code, out) == (1, "")
        assert err.startswith("error: found.json ")

    @drawn
    def test_a_figure_replaces_no_link_and_no_folder(self, run, seeds):
        (seeds / "victim").write_text("mine")
        (seeds / "a.svg").symlink_to("victim")
        (seeds / "b.svg").mkdir()
        for name in ("a.svg", "b.svg"):
            code, out, err = run("consistency", "one", "-o", name)
            assert (code, out) == (1, "")
            assert err.startswith(f"error: {name} ")
        assert (seeds / "victim").read_text() == "mine"

    def test_what_cannot_be_drawn_is_refused_in_a_line(self, run, seeds):
        (seeds / "bad.jsonl").write_text("{}\n")
        (seeds / "empty.jsonl").write_text("")
        for arguments in (
            ("consistency", "one", "-o", "a.pdf"),
            ("consistency", "missing"),
            ("consistency", "bad.jsonl"),
            ("consistency", "empty.jsonl"),
            ("search", "bad.jsonl"),
            ("lengths", "--lengths", "eight"),
            ("learning", "--model", "nobody"),
        ):
            code, out, err = run(*arguments)
            assert code in (1, 2)
            assert out == ""
            assert err.startswith("error: ")
            assert "Traceback" not in err


@drawn
def test_a_ranking_has_the_best_on_top_and_an_interval_for_each():
    drawing = figures.ranking.by_rank(
        {"late": [history(300)] * 4, "never": [history(None)] * 4, "soon": [history(200)] * 4}, title="Three"
    )
    left, right = drawing.axes
    assert [each.get_text() for each in left.get_yticklabels()] == ["never (4 runs)", "late (4 runs)", "soon (4 runs)"]
    low, high = left.lines[0].get_xdata()  # of no run of four
    assert (low, high) == (0, pytest.approx(48.99, abs=0.01))
    assert [each.get_text() for each in right.texts] == ["none learns"]


def test_the_interval_of_a_share():
    assert figures.style.wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert figures.style.wilson(1, 50) == pytest.approx((0.9287, 1), abs=1e-4)


@drawn
def test_names_below_a_panel_do_not_touch():
    names = ("adam", "adamw", "rmsprop", "sgd", "a rather long one", "another that is long")
    points = [
        figures.search.TrialPoint(
            n, 0.5, False, {"optimizer": names[n], "hidden_size": 2 ** (n + 4), "learning_rate": 0.01 + n / 1e4}
        )
        for n in range(6)
    ]
    drawing = figures.search.trials(points)
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        ticks = [each for each in axes.get_xticklabels() if each.get_text()]
        if any(each.get_rotation() for each in ticks):
            continue  # turned, they end below their ticks
        boxes = sorted((each.get_window_extent() for each in ticks), key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@drawn
def test_a_symbol_has_the_mark_that_the_terminal_has():
    drawing = figures.traces.gates(TRACE._replace(fed=("$", "\x1b", " ", "|", "\u202e")))
    labels = [each.get_text().split("\n")[0] for each in drawing.axes[-1].get_xticklabels()]
    assert labels == ["$", "‹1B›", "␣", "|", "‹202E›"]  # the font has no ␛
    assert figures.style.shown("a 日") == "a ‹65E5›"
