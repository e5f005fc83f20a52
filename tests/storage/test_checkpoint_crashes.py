"""No crash spoils a checkpoint, at whatever step of a save it comes."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from checkpoint_cases import ROOT, SMALL, equal, make

from stackrev.models import build, load
from stackrev.storage import checkpoints, files, tensors


class CrashError(BaseException):
    """The power went away."""


class Steps:
    """Counts the steps that change the disk and fails at one of them, in the middle."""

    def __init__(self, monkeypatch, fatal):
        self.left = fatal
        stage, rename, unlink = files.stage, Path.replace, Path.unlink

        def crashing_stage(path, data):
            if self.over():
                staged = stage(path, data[: len(data) // 2])
                raise CrashError(staged)
            return stage(path, data)

        def crashing_rename(path, target):
            if self.over():
                raise CrashError
            return rename(path, target)

        def crashing_unlink(path, missing_ok=False):
            if self.left >= 0:  # who is dead tidies nothing up
                unlink(path, missing_ok)

        monkeypatch.setattr(files, "stage", crashing_stage)
        monkeypatch.setattr(Path, "replace", crashing_rename)
        monkeypatch.setattr(Path, "unlink", crashing_unlink)

    def over(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("interval", range(8))
@pytest.mark.parametrize("again", range(9))
def test_a_crash_at_any_step_leaves_one_whole_checkpoint(tmp_path, interval, again):
    """Then a second save crashes at any step too, and a third goes through."""
    models = [make(tmp_path, seed=0, history=[{"save": 0}])]
    committed = 0
    for number, fatal in ((1, interval), (2, again)):
        models.append(build(SMALL.model, torch.Generator().manual_seed(number)))
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, fatal)
            try:
                checkpoints.save(tmp_path, models[-1].state_dict(), SMALL, history=[{"save": number}])
            except CrashError:
                assert fatal < 10
            else:
                assert steps.left >= 0
        checkpoints.verify(tmp_path)
        saved = checkpoints.read_history(tmp_path)[0]["save"]
        assert equal(load(tmp_path).model, models[saved])
        assert saved in (number, committed)
        committed = saved
    make(tmp_path, seed=3, history=[{"save": 3}])
    assert checkpoints.read_history(tmp_path) == [{"save": 3}]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(checkpoints.FILES)


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path):
    """A process that saves without a pause is killed and what it leaves is read, many times over."""
    code = textwrap.dedent("""
        import sys, torch
        from pathlib import Path
        from stackrev.storage import checkpoints, tensors
        from stackrev.kinds.stack_lstm import StackLSTMConfig
        from stackrev.kinds.config import Config
        from stackrev.models import build, load
        config = Config(model=StackLSTMConfig(hidden_size=48))
        number = int(sys.argv[2])
        model = build(config.model, torch.Generator())
        while True:
            number += 1
            with torch.no_grad():
                model.output.bias.fill_(number)
            tensors.save(Path(sys.argv[1], "training.safetensors"), {"n": torch.tensor(number)}, {})
            checkpoints.save(Path(sys.argv[1]), model.state_dict(), config, history=[{"save": number}])
            print(number, flush=True)
    """)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    chooser, done = random.Random(0), 0
    for _ in range(3):
        arguments = [sys.executable, "-c", code, str(tmp_path), str(done)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
            process.stdout.readline()
            time.sleep(chooser.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            done = int((process.stdout.read().splitlines() or [done + 1])[-1])
        loaded = load(tmp_path)
        saved = checkpoints.read_history(tmp_path)[0]["save"]
        assert loaded.model.output.bias[0].item() == saved
        with tensors.opened(tmp_path / "training.safetensors") as stored:
            state = int(stored.read()["n"])
        assert done <= saved <= state <= done + 1
        done = state


def test_a_reader_beside_a_writer_sees_whole_checkpoints(tmp_path):
    """Every read, while another process saves as fast as it can, gives one of its saves."""
    code = textwrap.dedent("""
        import sys, torch
        from pathlib import Path
        from stackrev.storage import checkpoints
        from stackrev.kinds.stack_lstm import StackLSTMConfig
        from stackrev.kinds.config import Config
        from stackrev.models import build, load
        config = Config(model=StackLSTMConfig(hidden_size=8))
        model = build(config.model, torch.Generator())
        for number in range(10**9):
            with torch.no_grad():
                model.output.bias.fill_(number)
            checkpoints.save(Path(sys.argv[1]), model.state_dict(), config, history=[{"save": number}])
            print(number, flush=True)
    """)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        process.stdout.readline()
        seen = set()
        start = time.monotonic()
        try:
            while time.monotonic() < start + 2 or len(seen) < 4:
                assert time.monotonic() < start + 60, "the writer has stopped"
                seen.add(struct.unpack_from("<f", checkpoints.read_weights(tmp_path)[1]["output.bias"].data)[0])
        finally:
            process.kill()
            process.stdout.read()
