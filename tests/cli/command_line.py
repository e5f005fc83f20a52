"""Running commands, in this process and in one of their own, and reading what was typed."""

from __future__ import annotations

import functools
import json
import shlex
import subprocess
import sys

import typer

from stackrev import cli
from stackrev.cli.settings import _OPTIONS, configure
from stackrev.kinds.config import Config

TINY = (
    *("--hidden-size", "8", "--batch-size", "4", "--batches", "4", "--check-every", "2"),
    *("--lengths", "1-4", "--test-lengths", "5-6", "--held-out-samples", "5", "--device", "cpu"),
    *("--warmup-batches", "0"),
)


class Result:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


def process(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stackrev", *arguments], capture_output=True, text=True, timeout=120, check=False, **more
    )


@functools.cache
def command(name: str):
    return typer.main.get_command(cli.app).commands[name]


def read_command(line: str) -> Config:
    """The configuration that `stackrev train` would read from a command line."""
    arguments = shlex.split(line)[2:]
    context = command("train").make_context("train", arguments)
    given = {name: value for name, value in context.params.items() if value is not None and name in _OPTIONS}
    values = {name: None if value == "none" else value for name, value in given.items()}
    return configure(Config.default(context.params["kind"]), values)
