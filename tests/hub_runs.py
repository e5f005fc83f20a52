"""Commands and scripts in processes of their own, against a small Hub, and what they answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from hub_server import TOKEN

import stackrev
from stackrev.kinds.config import Config
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build
from stackrev.storage import checkpoints, hub
from stackrev.tasks.data import DataConfig

ROOT = Path(stackrev.__file__).parent.parent
SMALL = Config(model=StackLSTMConfig(hidden_size=24, stack_width=8), data=DataConfig(held_out_samples=4))
REPO = "user/repo"
LIMIT_SECONDS = 60.0
LIMIT_BYTES = 400 * 2**20

HURRIED = """
from stackrev.storage import deadline
deadline.POLICY = deadline.Policy(
    call_seconds=9.0, push_seconds=9.0, connect_seconds=3.0, read_seconds=3.0, commit_seconds=4.0, patience_seconds=4.0
)
"""
"""So that a test of what never ends need not wait for as long as a user would."""

COMMAND = """
import pathlib, sys
from stackrev.cli import program
report = pathlib.Path(sys.argv.pop(1))
try:
    sys.exit(program())
finally:
    if (status := pathlib.Path("/proc/self/status")).exists():
        report.write_text(status.read_text().split("VmHWM:")[1].split()[0])
"""


def make(folder, config=SMALL):
    """A checkpoint of a small model that has learned nothing."""
    model = build(config.model, torch.Generator().manual_seed(0))
    checkpoints.save(folder, model.state_dict(), config, history=[{"batch": 1}])
    return model


def environment(server, home, **extra):
    """The variables of a process that talks to this Hub and has a cache of its own."""
    own = re.compile("HF_|HUGGING|SSL_CERT|.*_proxy$", re.IGNORECASE)
    clean = {key: value for key, value in os.environ.items() if not own.match(key)}
    clean |= {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    clean |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    return {key: value for key, value in (clean | extra).items() if value is not None}


@dataclass
class Answer:
    """What a process answered, how long it took from its first request on, and the most memory it held, in bytes."""

    code: int
    out: str
    err: str
    seconds: float
    memory: int = 0

    @property
    def json(self):
        return json.loads(self.out)


def run_python(server, home, *arguments, **extra):
    """A process of its own."""
    server.began = None
    variables = environment(server, home, **extra)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=variables, check=False
    )
    end = time.monotonic()
    return Answer(done.returncode, done.stdout, done.stderr, end - (server.began or end))


def run(server, home, *arguments, hurried=True, **extra):
    """A command of stackrev in a process of its own."""
    with tempfile.NamedTemporaryFile("r") as report:
        code = (HURRIED if hurried else "") + COMMAND
        answer = run_python(server, home, "-c", code, report.name, *arguments, **extra)
        answer.memory = 1024 * int(report.read() or 0)
    return answer


def assert_refused(answer, *, message="", code=1):
    """One line and perhaps a hint on stderr, nothing on stdout, the exit code, in time, in little memory."""
    lines = answer.err.splitlines()
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert lines, answer
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2, answer.err
    assert all(each.startswith("hint: ") for each in lines[1:])
    assert max(map(len, lines)) < 400
    assert message in lines[0]
    assert answer.seconds < LIMIT_SECONDS
    assert answer.memory < LIMIT_BYTES


def trusted(home):
    """What a later run would take from a cache; all of it must be whole."""
    models = hub.cached_models(Path(home) / "hub")
    for folder in models.values():
        checkpoints.verify(folder)
    return models
