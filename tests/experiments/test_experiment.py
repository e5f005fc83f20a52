"""Many seeds of a setting: written down as they come, shared, run again bit for bit."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from seed_results import result

from stackrev.errors import ConfigError, StudyError
from stackrev.experiments import presets, tables
from stackrev.experiments.measurements import MEASUREMENTS
from stackrev.experiments.measurements.exact import parse_exact, try_length
from stackrev.experiments.runs import run_seed
from stackrev.experiments.seeds import Folder, read_seeds
from stackrev.experiments.setting import ExperimentSetting, read_setting
from stackrev.kinds.config import Config
from stackrev.models import load
from stackrev.tasks import REVERSAL
from stackrev.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "docs" / "results" / "seeds"
CHANGES = {
    "hidden_size": 6,
    "stack_width": 6,
    "batches": 4,
    "batch_size": 3,
    "check_every": 2,
    "held_out_samples": 4,
    "lengths": "1-3",
    "test_lengths": "4-5",
}
OPTIONS = [part for name, value in CHANGES.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture
def tiny():
    return ExperimentSetting("tiny", presets.configure("stack-lstm", CHANGES))


@pytest.fixture
def stackrev(capsys):
    from stackrev.cli import main

    def stackrev(*arguments):
        code = main(["experiment", *map(str, arguments)])
        out = capsys.readouterr()
        return code, out.out, out.err

    return stackrev


class TestSettings:
    def test_seeds_lengths_and_settings_are_read(self):
        assert presets.parse_seeds("3,0-2,2") == [0, 1, 2, 3]
        assert parse_exact("1024,10000:1") == {"1024": 20, "10000": 1}
        found = presets.parse_changes(["training.learning_rate=0.004", "settle_batches=null", "lengths=3-9"])
        config = presets.configure("stack-lstm", found)
        assert config.training.learning_rate == 0.004
        assert config.training.settle_batches is None
        assert str(config.data.lengths) == "3-9"

    @pytest.mark.parametrize(
        "text", ["model.widht=3", "widht=3", "modle.width=3", "training.a.b=1", "=1", "hidden_size=wide", "seed"]
    )
    def test_what_is_no_setting_is_refused(self, text):
        with pytest.raises(ConfigError):
            presets.configure("stack-lstm", presets.parse_changes([text]))

    @pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,,2", "0-99999999999", "1.5"])
    def test_what_is_no_list_of_seeds_is_refused(self, text):
        with pytest.raises(ConfigError):
            presets.parse_seeds(text)

    @pytest.mark.parametrize("text", ["a", "10:", "0:1", "5:0", "5:-1", "99999999999:1", "1000000:10000"])
    def test_what_is_no_list_of_lengths_is_refused(self, text):
        with pytest.raises(ConfigError):
            parse_exact(text)

    def test_every_named_setting_is_one(self):
        for name, changes in presets.PRESETS.items():
            config = presets.configure("stack-lstm", changes)
            assert (config == Config.default("stack-lstm")) == (name == "default")
            plain = "plain settling", "published"  # the latter's gates never reach 0 and 1
            assert (config.training.settle == "certified") == (name not in plain)
            Trainer(config)
        assert set(presets.TABLE) <= set(presets.PRESETS)
        with pytest.raises(ConfigError, match="there is no setting 'nonsense'"):
            presets.preset("nonsense")

    @pytest.mark.parametrize("folder", sorted(STORED.iterdir()), ids=lambda folder: folder.name)
    def test_stored_settings_are_those_of_their_names(self, folder):
        stored = read_setting(folder)
        name = {each.replace(" ", "-"): each for each in presets.PRESETS}[folder.name]
        # What was stored before a run could settle in several ways settled plainly, and is run again so.
        told = json.loads((folder / "setting.json").read_text())["config"]["training"]
        plain = {} if "settle" in told else {"settle": "plain"}
        here = ExperimentSetting(name, presets.configure("stack-lstm", presets.preset(name) | plain), stored.asked)
        assert stored.same(here)
        assert ExperimentSetting.from_dict(json.loads(json.dumps(here.to_dict()))).same(stored)
        assert len(read_seeds(folder)) == json.loads((folder / "summary.json").read_text())["runs"]


class TestSeed:
    def test_a_seed_has_its_whole_history(self, tiny):
        first, again, other = (run_seed(tiny.seeded(seed), {}) for seed in (3, 3, 4))
        assert [line["batch"] for line in first["history"]] == [2, 4]
        assert first["validation"]["samples"] == 4
        assert first["solved_batch"] is None
        assert first["exact"] == {}
        assert first["weights"] == again["weights"] != other["weights"]

    def test_what_was_not_solved_is_not_measured(self, tiny):
        found = run_seed(tiny.seeded(0), {"exact": {"5": 2}, "runs_of_each": 3})
        assert (found["exact"], found["longest_exact"], found["runs_of_each"]) == ({}, None, None)
        assert "not solved in 4 batches" in tables.describe(found)

    @pytest.fixture
    def model(self):
        import torch

        from stackrev.kinds.stack_lstm import StackLSTMConfig
        from stackrev.models import build

        return build(StackLSTMConfig(hidden_size=6, stack_width=6), torch.Generator().manual_seed(0))

    def test_long_strings_are_tried_the_same_with_and_without_kernels(self, model):
        from stackrev.kernels import using

        found = try_length(model, 9, 3)
        with using("torch"):
            plain = try_length(model, 9, 3)
        found.pop("margin", None)
        assert plain == found
        assert plain["samples"] == 3

    def test_runs_of_each_symbol_are_tried(self, model, monkeypatch):
        from stackrev.evaluation import scoring
        from stackrev.tasks import vocabulary

        tried = []

        def score(model, strings, **options):
            (string,) = strings
            tried.append(string.tolist())
            right = len(string) if string[0] == 17 else len(string) + 1
            return scoring.Scores((right,), (len(string),))

        monkeypatch.setattr(scoring, "score", score)
        found = MEASUREMENTS["runs_of_each"].measure(model, REVERSAL, 7, lambda symbols: None)
        assert tried == [[symbol] * 7 for symbol in range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE)]
        assert found == {"length": 7, "exact": 127, "samples": 128, "wrong": [17]}

    def test_a_packaged_model_reverses_runs_of_each_symbol(self):

        model = load(ROOT / "checkpoints" / "stack-lstm").model
        seen = []
        found = MEASUREMENTS["runs_of_each"].measure(model, REVERSAL, 40, seen.append)
        assert (found["exact"], found["samples"], found["wrong"]) == (128, 128, [])
        assert sum(seen) == MEASUREMENTS["runs_of_each"].symbols(40)


class TestFolder:
    def test_workers_take_each_seed_once(self, tiny, tmp_path):
        first, second = Folder(tmp_path / "a", tiny), Folder(tmp_path / "a", tiny)
        assert [first.take([0, 1, 2]), second.take([0, 1, 2]), first.take([0, 1, 2])] == [0, 1, 2]
        assert second.take([0, 1, 2]) is None
        first.put_back(2)
        assert second.take([0, 1, 2]) == 2
        first.keep(result(0, 100))
        assert second.results().keys() == {0}
        first.close()
        assert second.take([0]) is None
        second.close()
        assert not (tmp_path / "a" / ".seeds").exists()

    def test_a_line_that_was_cut_short_does_no_harm(self, tiny, tmp_path):
        folder = Folder(tmp_path, tiny)
        folder.take([0])
        folder.keep(result(0))
        with (tmp_path / "seeds.jsonl").open("a") as file:
            file.write('{"seed": 1, "solved_b')
        assert folder.results().keys() == read_seeds(tmp_path).keys() == {0}
        assert folder.take([2, 1]) == 2
        folder.keep(result(2))
        folder.take([1])
        folder.keep(result(1))
        assert list(folder.results()) == [0, 2, 1]
        assert folder.finish()["runs"] == 3
        lines = (tmp_path / "seeds.jsonl").read_text().splitlines()
        assert [json.loads(line)["seed"] for line in lines] == [0, 1, 2]

    @pytest.mark.parametrize(
        "line",
        [
            "text",
            "[" * 100_000,
            "[]",
            "{}",
            json.dumps({**result(0), "seed": "0"}),
            json.dumps({**result(0), "seed": -1}),
            json.dumps({**result(0), "seconds": float("nan")}),
            json.dumps({**result(0, 100), "solved_seconds": None}),
            json.dumps({**result(0), "validation": {}}),
            json.dumps({**result(0, 100), "exact": {"../x": {"exact": 1, "samples": 1}}}),
            json.dumps({**result(0, 100), "exact": {"5": []}}),
            json.dumps({**result(0, 100), "runs_of_each": [3]}),
            json.dumps({**result(0, 100), "proof": 5}),
            json.dumps({**result(0, 100), "proof": {"proved": "yes"}}),
            json.dumps({**result(0, 100), "error": 5}),
            json.dumps({**result(0), "history": [1]}),
            json.dumps({**result(0), "history": None}),
        ],
        ids=lambda line: line[:30],
    )
    def test_a_line_that_is_no_result_is_named(self, stackrev, tiny, tmp_path, line):
        Folder(tmp_path, tiny).close()
        (tmp_path / "seeds.jsonl").write_text(line + "\n")
        for command in (("table", tmp_path), ("rerun", tmp_path, 0), ("run", tmp_path, "--seeds", "0")):
            code, out, err = stackrev(*command)
            assert (code, out) == (1, "")
            assert "seeds.jsonl has a line that is not the result of a seed" in err
        assert (tmp_path / "seeds.jsonl").read_text() == line + "\n"

    @pytest.mark.parametrize(
        "change",
        [
            {"config": None},
            {"config": {"model": {"kind": "nonsense"}}},
            {"exact": {"0": 1}},
            {"exact": [1]},
            {"exact": {"0010": 1}},
            {"exact": {"\u0661\u0660": 1}},
            {"exact": {"9" * 5000: 1}},
            {"unseen": {"lengths": "x", "samples": 1}},
            {"runs_of_each": "x"},
            {"unknown": 1},
            {"name": 5},
        ],
        ids=lambda change: str(change)[:50],
    )
    def test_a_setting_that_is_none_is_named(self, stackrev, tiny, tmp_path, change):
        (tmp_path / "setting.json").write_text(json.dumps({**tiny.to_dict(), **change}))
        code, _, err = stackrev("table", tmp_path)
        assert code == 1
        assert "setting.json" in err

    def test_another_setting_needs_another_folder(self, tiny, tmp_path):
        Folder(tmp_path, tiny).close()
        with pytest.raises(StudyError, match="another setting"):
            Folder(tmp_path, ExperimentSetting("x", Config()))
        with pytest.raises(StudyError, match="another setting"):
            Folder(tmp_path, ExperimentSetting("x", tiny.config, {"runs_of_each": 5}))

    def test_nothing_is_written_through_a_link(self, stackrev, tiny, tmp_path):
        folder, victim = tmp_path / "a", tmp_path / "victim.txt"
        Folder(folder, tiny).close()
        victim.write_text("mine\n")
        (folder / "seeds.jsonl").symlink_to(victim)
        assert stackrev("run", folder, "--seeds", "0")[0] == 1
        assert victim.read_text() == "mine\n"


@pytest.mark.slow
class TestCommand:
    def test_a_folder_goes_on_where_it_was_left_and_is_compared(self, stackrev, tmp_path):
        folder = tmp_path / "a"
        code, out, err = stackrev("run", folder, "--seeds", "0-1", "--workers", "2", *OPTIONS, "--name", "tiny")
        assert code == 0
        assert "tiny" in out
        assert err.count("not solved in 4 batches") == 2
        before = read_seeds(folder)
        code, out, err = stackrev("run", folder, "--seeds", "0-2", "--json")  # with the folder's own setting
        assert code == 0
        assert (json.loads(out)["runs"], json.loads(out)["name"]) == (3, "tiny")
        assert err.count("seed ") == 1 + err.count("any seed")
        after = read_seeds(folder)
        assert {seed: after[seed] for seed in before} == before
        assert json.loads((folder / "summary.json").read_text()) == json.loads(out)
        code, out, _ = stackrev("rerun", folder, 0, 2, "--json")
        assert code == 0
        assert [(each["seed"], each["same"]) for each in json.loads(out)] == [(0, True), (2, True)]
        changed = {**before[1], "weights": "0" * 64, "batches": 3}
        (folder / "seeds.jsonl").write_text(json.dumps(changed) + "\n")
        code, out, err = stackrev("rerun", folder, 1)
        assert code == 1
        assert "seed 1: not as stored: batches, weights" in out
        assert "stored on python" in err
        assert stackrev("rerun", folder, 7)[0] == 2

    def test_a_terminal_shows_how_far_a_seed_has_come(self, stackrev, tmp_path, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "200")
        options = [*OPTIONS, "--set", "batches=150"]
        assert stackrev("run", tmp_path / "a", "--seeds", "0", *options)[0] == 0
        assert re.search(r"seed 0: (starting|batch \d+ of at most 150)", terminal.getvalue())

    @pytest.mark.parametrize("shared", ["folder", "database"])
    def test_workers_share_and_a_killed_one_loses_nothing(self, tmp_path, shared):
        if shared == "database" and find_spec("optuna") is None:
            pytest.skip("needs the extra 'search'")
        storage = ["--storage", f"sqlite:///{tmp_path}/a.db", "--study", "tiny"] if shared == "database" else []
        code = (
            "import sys\nfrom stackrev import cli\nfrom stackrev.experiments import databases, studies\n"
            "databases.HEARTBEAT_SECONDS, databases.GRACE_SECONDS, studies.UNCLAIMED_SECONDS = 1, 4, 4.0\n"
            "if __name__ == '__main__': sys.exit(cli.main())\n"
        )
        (tmp_path / "worker.py").write_text(code)

        def start(place):
            command = [sys.executable, str(tmp_path / "worker.py"), "experiment", "run", str(tmp_path / place)]
            command += ["--seeds", "0-5", "--workers", "1", "--json", *OPTIONS, "--set", "batches=300", *storage]
            pipe = subprocess.PIPE
            return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ})

        places = ["a", "a"] if shared == "folder" else ["a", "b"]
        workers = [start(place) for place in places]
        deadline = time.monotonic() + 300
        while not (tmp_path / "a" / "seeds.jsonl").exists() and shared == "folder":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if shared == "database":
            workers[0].stderr.readline()  # its first seed is done
        workers[0].send_signal(signal.SIGKILL)
        workers[0].communicate()
        out, err = workers[1].communicate(timeout=300)
        assert workers[1].returncode == 0, err
        assert json.loads(out)["runs"] == 6
        assert list(read_seeds(tmp_path / places[1])) == list(range(6))
        assert not (tmp_path / places[1] / ".seeds").exists() or shared == "folder"

    def test_ctrl_c_puts_seeds_back(self, tmp_path):
        command = [sys.executable, "-m", "stackrev", "experiment", "run", str(tmp_path / "a"), "--seeds", "0-3"]
        command += ["--workers", "1", *OPTIONS, "--set", "batches=1000000"]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        deadline = time.monotonic() + 300
        while not list((tmp_path / "a").glob(".seeds/*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        _, err = running.communicate(timeout=120)
        assert running.returncode == 130, err
        assert "Traceback" not in err
        assert not (tmp_path / "a" / ".seeds").exists()

    @pytest.mark.skipif(not find_spec("torch"), reason="needs torch")
    def test_a_stored_seed_is_measured_again(self, stackrev, tmp_path):
        """The weights' last bits are this machine's; what is measured of a solved run is there either way."""
        folder = tmp_path / "default"
        folder.mkdir()
        for name in ("setting.json", "seeds.jsonl"):
            shutil.copy(STORED / "default" / name, folder / name)
        setting = json.loads((folder / "setting.json").read_text())
        (folder / "setting.json").write_text(json.dumps({**setting, "exact": {"200": 2}, "runs_of_each": 20}))
        code, out, _ = stackrev("rerun", folder, 17, "--json")
        (found,) = json.loads(out)
        assert code == 1  # it was stored with other measurements
        assert found["now"]["exact"]["200"]["samples"] == 2
        assert found["now"]["runs_of_each"]["samples"] == 128


def test_a_wrong_setting_is_one_line(stackrev, tmp_path):
    code, _, err = stackrev("run", tmp_path / "a", "--set", "widht=3")
    assert code == 2
    assert err.startswith("error: ")
    assert "widht" in err
    assert not (tmp_path / "a").exists()
    code, _, err = stackrev("table", tmp_path / "a")
    assert code == 2
    assert "holds no experiment" in err
