import builtins
import dataclasses
import inspect
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from stackrev.config import LengthRange
from stackrev.errors import ConfigError, MissingExtraError, StudyError
from stackrev.experiments.search import Search, space_of
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.tasks.data import DataConfig
from stackrev.training_config import TrainingConfig

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra 'search'")

TINY = Config(
    data=DataConfig(
        lengths=LengthRange(minimum=1, maximum=3),
        test_lengths=LengthRange(minimum=4, maximum=5),
        held_out_samples=10,
    ),
    model=StackLSTMConfig(hidden_size=8, stack_width=8),
    training=TrainingConfig(batches=4, batch_size=4, check_every=2, settle_batches=0),
)
VARIED = ("optimizer", "learning_rate", "gate_noise")
OPTIONS = shlex.split(
    "--batch-size 4 --check-every 2 --lengths 1-3 --test-lengths 4-5 --held-out-samples 10 --layers 1 --hidden-size 8 "
    "--stack-width 8 --no-prune --threads 1"
)


def test_each_kind_varies_what_it_has():
    assert list(space_of(Config()))[:3] == ["hidden_size", "layers", "stack_width"]
    assert {"gate_noise", "optimizer", "learning_rate"} <= set(space_of(Config()))
    assert "gate_noise" not in space_of(Config.default("rnn"))
    assert "seed" not in space_of(Config())


@needs_optuna
class TestSearch:
    @pytest.fixture
    def open_study(self, tmp_path):
        opened = []

        def open_study(base=TINY, **options):
            search = Search("tiny", base, **{"over": VARIED, "journal": tmp_path / "a.journal", **options})
            opened.append(search)
            return search

        yield open_study
        for each in opened:
            each.close()

    def test_a_study_goes_on_and_ends(self, open_study):
        seen = []
        first = open_study()
        first.work(2, on_result=seen.append)
        first.close()
        second = open_study()
        second.work(4, on_result=seen.append)
        second.work(4, on_result=seen.append)
        assert [each.number for each in seen] == [0, 1, 2, 3]
        assert [each.number for each in second.results()] == [0, 1, 2, 3]
        values = [each.value for each in second.best()]
        assert values == sorted(values, reverse=True)

    def test_the_first_trial_is_the_base_itself(self, open_study):
        search = open_study()
        search.work(1)
        (result,) = search.results()
        assert result.config == TINY
        assert result.state == "complete"
        assert set(result.settings) == set(VARIED)
        assert result.outcome["batches"] == 4

    def test_the_value_is_the_mean_over_the_checks(self, open_study):
        from stackrev.training.trainer import train

        search = open_study()
        search.work(3)
        for result in search.results():
            fine = [line["validation"]["fine"] for line in train(result.config).progress.history]
            assert result.value == pytest.approx(sum(fine) / 2)

    def test_trials_that_fall_behind_are_pruned(self, open_study, monkeypatch):
        import optuna

        monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: self.number % 2 == 1)
        search = open_study()
        search.work(4)
        results = search.results()
        assert [each.state for each in results] == ["complete", "pruned"] * 2
        assert results[1].outcome["batches"] == 2
        assert [each.number for each in search.best()] in ([0, 2], [2, 0])

    def test_a_trial_that_diverges_counts_for_what_it_had(self, open_study, monkeypatch):
        from stackrev.errors import TrainingError
        from stackrev.training.trainer import Trainer

        def diverge(self, on_event):
            raise TrainingError("the loss is no longer finite")

        monkeypatch.setattr(Trainer, "run", diverge)
        search = open_study()
        search.work(1)
        (result,) = search.results()
        assert (result.state, result.value) == ("complete", 0.0)
        assert result.outcome == {"error": "the loss is no longer finite"}

    def test_every_batch_is_told(self, open_study):
        seen = []
        open_study().work(1, on_step=seen.append)
        assert sorted({each.batch for each in seen}) == [1, 2, 3, 4]
        assert {each.number for each in seen} == {0}
        assert seen[0].fine is None
        assert seen[-1].fine is not None

    def test_an_interrupted_trial_is_put_back(self, open_study, monkeypatch):
        search = open_study()

        def interrupt(*arguments):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search.work(2, on_step=interrupt)
        assert search.results() == []
        search.work(2)
        assert [each.state for each in search.results()] == ["complete", "complete"]
        assert search.results()[0].config == TINY

    def test_a_line_that_was_cut_short_does_no_harm(self, open_study, tmp_path):
        first = open_study()
        first.work(1)
        first.close()
        with (tmp_path / "a.journal").open("a") as file:
            file.write('{"op_code": 4, "worker')
        second = open_study()
        second.work(2)
        assert [each.state for each in second.results()] == ["complete"] * 2

    def test_another_setting_needs_another_study(self, open_study):
        open_study()
        with pytest.raises(StudyError, match="other options"):
            open_study(over=("optimizer",))

    def test_what_cannot_be_varied_or_opened_is_refused(self, open_study, tmp_path):
        with pytest.raises(ConfigError, match="cannot vary 'seed'"):
            open_study(over=("seed",))
        (tmp_path / "text").write_text("not a journal\n")
        with pytest.raises(StudyError, match="line 1, is not a record"):
            open_study(journal=tmp_path / "text")
        with pytest.raises(StudyError, match="cannot open"):
            open_study(storage="nonsense://")

    def test_a_database_does_the_same(self, open_study, tmp_path):
        search = open_study(storage=f"sqlite:///{tmp_path / 'a.db'}")
        search.work(2)
        assert [each.state for each in search.results()] == ["complete"] * 2
        assert [each.number for each in open_study(storage=f"sqlite:///{tmp_path / 'a.db'}").results()] == [0, 1]

    def test_a_trial_that_another_worker_has_failed_is_let_go(self, open_study, monkeypatch):
        import optuna

        search = open_study()

        def fail(step):
            if step.number == 0 and step.batch == 1:
                search._study._storage.set_trial_state_values(0, optuna.trial.TrialState.FAIL)

        seen = []
        search.work(1, on_step=fail, on_result=seen.append)
        assert [each.state for each in search.results()] == ["failed", "complete"]
        assert [each.number for each in seen] == [1]

    def test_a_search_can_be_looked_at_without_its_options(self, open_study, tmp_path):
        search = open_study(settle_batches=70)
        search.work(1)
        shown = Search.show("tiny", journal=tmp_path / "a.journal")
        assert (shown.base, shown.over, shown.settle_batches) == (TINY, search.over, 70)
        assert shown.results() == search.results()
        with pytest.raises(StudyError, match="there is no study 'other'"):
            Search.show("other", journal=tmp_path / "a.journal")
        with pytest.raises(StudyError, match="there is no study in"):
            Search.show("tiny", journal=tmp_path / "b.journal")
        assert not (tmp_path / "b.journal").exists()


@needs_optuna
@pytest.mark.slow
def test_two_workers_share_a_study_and_a_killed_one_loses_one_trial(tmp_path):
    journal = tmp_path / "shared.journal"

    def start(trials):
        command = [sys.executable, "-m", "stackrev", "search", "--trials", str(trials), "--journal", str(journal)]
        command += [*OPTIONS, "--batches", "60", "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    first, second = start(6), start(6)
    deadline = time.monotonic() + 300
    while not (journal.exists() and b'"worker"' in journal.read_bytes()):  # a trial has begun
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    found = json.loads(out)
    counts = found["trials"]
    assert counts["complete"] == 6
    assert counts["failed"] <= 1
    assert counts["running"] == counts["pruned"] == 0
    done = [each for each in found["all"] if each["state"] == "complete"]
    assert len({json.dumps(each["settings"]) for each in done}) == 6
    assert not list(Path(f"{journal}.workers").iterdir())


@needs_optuna
class TestCommand:
    @pytest.fixture
    def run(self, capsys, monkeypatch, tmp_path):
        from stackrev.cli import main

        monkeypatch.chdir(tmp_path)

        def run(*arguments):
            code = main(["search", "--batches", "4", *OPTIONS, *arguments])
            out = capsys.readouterr()
            return code, out.out, out.err

        return run

    def test_the_table_ends_with_a_command_that_trains_the_winner(self, run, tmp_path):
        from stackrev.cli import settings

        code, out, err = run("--trials", "2")
        assert code == 0
        assert err.count("trial ") >= 2
        command = out.splitlines()[-1]
        assert command.startswith("stackrev train --model stack-lstm ")
        _, out, err = run("--trials", "0", "--json")
        found = json.loads(out)
        assert err == ""
        assert found["command"] == command
        assert found["trials"]["complete"] == 2
        best = found["best"][0]["config"]
        assert best["training"]["learning_rate"] == found["best"][0]["settings"]["learning_rate"]
        assert settings.command_line(Config.default("stack-lstm")) == "stackrev train --model stack-lstm --seed 0"

    def test_what_is_given_is_not_varied(self, run):
        code, out, _ = run("--trials", "1", "--quiet", "--gate-noise", "0.5")
        assert code == 0
        assert "gate_noise" not in out.splitlines()[1]
        assert "hidden_size" not in out.splitlines()[1]
        assert "gate_stretch" in out.splitlines()[1]

    def test_no_trials_show_a_study_without_its_options(self, run, monkeypatch):
        from stackrev.cli import main

        code, out, _ = run("--trials", "1", "--quiet", "--gate-noise", "0.5")
        assert code == 0
        assert main(["search", "--trials", "0"]) == 0
        shown = run("--trials", "0", "--gate-noise", "0.5")
        assert shown == (0, 2 * out, "")
        code, _, err = run("--trials", "0", "--gate-noise", "0.75")
        assert code == 1
        assert "started with other options" in err

    def test_ctrl_c_leaves_no_failed_trial(self, run, monkeypatch):
        from stackrev.training.trainer import Trainer

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "run", lambda self, watch: (_ for _ in ()).throw(KeyboardInterrupt))
            code, out, err = run("--trials", "2")
        assert code == 130
        assert "put back" in err
        assert out == "study stack-lstm: no trial yet\n"
        code, out, _ = run("--trials", "2", "--json")
        assert code == 0
        assert json.loads(out)["trials"] == {"complete": 2, "pruned": 0, "running": 0, "failed": 0}

    def test_a_terminal_shows_how_far_a_trial_has_come(self, run, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "200")
        code, out, _ = run("--trials", "1", "--json")
        assert code == 0
        assert json.loads(out)["trials"]["complete"] == 1
        shown = terminal.getvalue()
        assert re.search(r"trial 0 of 1: batch \d of 4, loss \d", shown)
        assert "trial 0 complete" in shown

    def test_contradictions_are_refused(self, run):
        for arguments in (
            ("--vary", "layers"),
            ("--vary", "nonsense"),
            ("--journal", "a", "--storage", "sqlite:///b"),
        ):
            code, out, err = run(*arguments)
            assert (code, out) == (2, "")
            assert err.startswith("error: ")


def test_without_optuna_one_line_says_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *more):
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError) as caught:
        Search("tiny", TINY, journal=tmp_path / "a.journal")
    assert caught.value.hint == "pip install 'stackrev[search]'"


def test_the_search_takes_every_setting_of_training() -> None:
    from stackrev.cli.search import search

    options = set(inspect.signature(search).parameters)
    assert {field.name for field in dataclasses.fields(TrainingConfig)} <= options
