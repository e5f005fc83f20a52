"""`stackrev train`: runs that are made, resumed and refused, and settings as options."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import TINY, command, read_command
from hypothesis import given
from hypothesis import strategies as st

from stackrev.cli.settings import command_line, configure
from stackrev.cli.train import _advice
from stackrev.experiments import presets
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config, settings_of
from stackrev.models import load
from stackrev.storage import checkpoints
from stackrev.training import runs


class TestTrain:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind(self, stackrev, tmp_path, kind):
        result = stackrev("train", "--model", kind, *TINY, "--output", str(tmp_path / "run"))
        assert result.code == 0
        assert result.out.startswith(f"{kind}, seed 0: not solved; 4 batches in ")
        assert result.out.endswith(f"saved in {tmp_path / 'run'}\n")
        shown = [line.split()[:2] for line in result.err.splitlines()]
        assert shown[:2] == [["1-4", "5-6"], ["batch", "loss"]]
        assert [words[0] for words in shown[2:]] == ["2", "4", "note:", "hint:"]
        assert checkpoints.verify(tmp_path / "run")

    def test_json_and_quiet(self, stackrev, tmp_path):
        result = stackrev("train", *TINY, "--quiet", "--json", "--output", str(tmp_path / "run"))
        assert result.err == ""
        told = result.json
        assert (told["model"], told["seed"], told["batches"], told["solved_batch"]) == ("stack-lstm", 0, 4, None)
        assert told["scores"] == checkpoints.load_config(tmp_path / "run")[1]
        assert told["scores"].keys() == {"1-4", "5-6"}

    def test_that_a_run_started_over_is_said(self, stackrev, tmp_path):
        train = ("train", *TINY, "--restart-batches", "2", "--output", str(tmp_path / "run"))
        said = stackrev(*train).err.splitlines()
        assert said[3] == "starting over: less than half of the strings are right"
        assert "note: the run started over after 2 batches, because less than half of the strings were right" in said
        resumed = stackrev("train", "--resume", "--output", str(tmp_path / "run"), "--batches", "6").err
        assert "started over after 4 batches" in resumed
        assert "note: its weights may not be, bit for bit, those of a run that was started with" in resumed
        assert "ed over after" not in stackrev("train", *TINY, "--output", str(tmp_path / "plain")).err

    def test_the_folder_has_the_name_of_model_and_seed(self, stackrev, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        stackrev("train", *TINY, "--model", "rnn", "--seed", "7", "--quiet")
        assert (tmp_path / "runs/rnn-seed7/model.safetensors").is_file()
        assert stackrev("train", "--resume", "--model", "rnn", "--seed", "7", "--quiet").code == 0

    def test_nothing_is_overwritten_unasked(self, stackrev, tmp_path):
        train = ("train", *TINY, "--quiet", "--output", str(tmp_path / "run"))
        assert stackrev(*train).code == 0
        result = stackrev(*train, "--seed", "1")
        assert result.code == 1
        assert "already holds a run" in result.err
        assert "--force" in result.err
        assert stackrev(*train, "--seed", "1", "--force").code == 0

    def test_another_configuration_does_not_resume(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--quiet", "--output", str(tmp_path / "run"))
        result = stackrev("train", "--resume", "--layers", "2", "--output", str(tmp_path / "run"))
        assert result.code == 1
        assert "was started with layers = 1, not 2" in result.err
        result = stackrev(
            "train", "--resume", "--batches", "6", "--check-every", "3", "--output", str(tmp_path / "run")
        )
        assert result.code == 0
        assert "note: goes on with batches = 6 in place of 4" in result.err
        assert "bit for bit" in result.err
        assert checkpoints.describe(tmp_path / "run").config.training.batches == 6
        assert stackrev("train", "--resume", "--hidden-size", "8", "--output", str(tmp_path / "run")).code == 0

    def test_the_recorded_command_makes_the_same_weights(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--no-mixed-lengths", "--quiet", "--output", str(tmp_path / "first"))
        command = checkpoints.describe(tmp_path / "first").command
        assert str(tmp_path) not in command
        stackrev(*command.split()[1:], "--quiet", "--output", str(tmp_path / "second"))
        first, second = (load(tmp_path / name).model.state_dict() for name in ("first", "second"))
        assert all(first[name].equal(second[name]) for name in first)

    def test_ctrl_c_saves_and_says_how_to_go_on(self, tmp_path):
        folder = tmp_path / "my run"
        arguments = [*TINY, "--batches", "1000000", "--output", str(folder)]
        with subprocess.Popen(
            [sys.executable, "-m", "stackrev", "train", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as running:
            head = [running.stderr.readline() for _ in range(3)]
            assert head[1].split()[:2] == [b"batch", b"loss"]
            time.sleep(0.2)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        assert (running.returncode, out) == (130, b"")
        note, hint = err.decode().splitlines()[-2:]
        batch = runs.Run.resume(folder).trainer.progress.batch
        assert note == f"note: stopped after {batch} batches and saved in {folder}"
        assert hint == f"hint: stackrev train --resume --output '{folder}' goes on"
        assert checkpoints.verify(folder)


class TestUnsolved:
    def test_a_run_that_does_not_learn_says_so_and_what_to_change(self, stackrev, tmp_path):
        result = stackrev("train", *TINY, "--output", str(tmp_path / "run"), "--quiet")
        assert (result.code, result.err) == (0, "")
        result = stackrev("train", *TINY, "--learning-rate", "4e-3", "--output", str(tmp_path / "other"))
        assert result.code == 0
        note, hint = result.err.splitlines()[-2:]
        assert note == "note: the run ended unsolved: after 4 batches not every string was right"
        assert hint == (
            f"hint: stackrev train --resume --output {tmp_path / 'other'} --batches 8 trains for longer;"
            " or leave --hidden-size, --batch-size, --learning-rate at the default"
        )

    def test_a_default_run_is_told_of_its_seed(self):
        advice = _advice(Config.default("rnn"), Path("my runs"))
        command = "stackrev train --resume --output 'my runs' --batches 40000"
        assert advice == f"{command} trains for longer; or try another --seed"


class TestSettings:
    @given(
        kind=st.sampled_from(list(KINDS)),
        options=st.fixed_dictionaries(
            {},
            optional={
                "hidden_size": st.integers(1, 100),
                "mixed_lengths": st.booleans(),
                "learning_rate": st.floats(1e-9, 1.0),
                "clip_norm": st.floats(1e-3, float("inf")),
                "pop_bias": st.floats(-100, 100),
                "settle_batches": st.none() | st.integers(0, 99),
                "curriculum_start": st.none() | st.integers(1, 99),
                "schedule": st.sampled_from(["cosine", "step"]),
                "device": st.sampled_from(["cpu", "auto"]),
            },
        ),
    )
    def test_a_command_line_says_all_of_a_configuration(self, kind, options):
        options = {name: value for name, value in options.items() if name in settings_of(Config.default(kind))}
        config = configure(Config.default(kind), options)
        for name, value in options.items():
            section = next(each for each in (config.data, config.model, config.training) if hasattr(each, name))
            assert getattr(section, name) == value
        assert read_command(command_line(config)) == config

    def test_defaults_need_no_options(self):
        assert command_line(Config.default("lstm")) == "stackrev train --model lstm --seed 0"

    def test_what_is_tuned_for_a_task_is_a_default(self):
        tuned = [(kind, task) for kind, each in KINDS.items() for task in each.tasks]
        assert tuned
        for kind, task in tuned:
            config = configure(Config.default(kind), {"task": task})
            assert config == Config.default(kind, task) == presets.configure(kind, {"task": task})
            assert command_line(config) == f"stackrev train --model {kind} --seed 0 --task {task}"
            assert read_command(command_line(config)) == config
        other = configure(Config.default("queue-lstm"), {"task": "svo-sov", "push_delay": 2})
        assert command_line(other).endswith("--task svo-sov --push-delay 2")

    def test_help_names_what_is_tuned_for_a_task(self, stackrev):
        shown = "".join(stackrev("train", "--help").out.split())  # whatever is wrapped where
        assert "16for--tasksvo-sovwithqueue-lstmanddeque-lstm]" in shown

    def test_shared_controls_of_a_queue_take_no_delay(self, stackrev, tmp_path):
        result = stackrev("train", "--model", "queue-lstm", "--shared-controls", "--output", str(tmp_path / "run"))
        assert (result.code, result.out) == (2, "")
        assert "push_delay is 2" in result.err
        assert "--push-delay 0" in result.err
        assert not (tmp_path / "run").exists()

    def test_every_setting_is_an_option(self):
        parameters = {each.name for each in command("train").params}
        for kind in KINDS:
            assert {name for name, (_, each) in settings_of(Config.default(kind)).items() if each.option} <= parameters

    def test_a_setting_of_another_kind_is_refused(self, stackrev, tmp_path):
        for kind, option in (("lstm", "--stack-width"), ("rnn", "--gate-noise"), ("stack-lstm", "--embedding-width")):
            result = stackrev("train", "--model", kind, option, "8", "--output", str(tmp_path / "run"))
            assert (result.code, result.out) == (2, "")
            assert f"the model {kind} has no {option}" in result.err
            assert not (tmp_path / "run").exists()
