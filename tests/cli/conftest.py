"""What tests of commands share."""

from __future__ import annotations

import io
import sys

import pytest
from command_line import Result

from stackrev import cli


@pytest.fixture
def stackrev(capfd, monkeypatch):
    """Run a command in this process, with bytes on stdin or with a terminal there."""

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        capfd.readouterr()
        file = io.TextIOWrapper(io.BytesIO(stdin or b""))
        if stdin is None:
            monkeypatch.setattr(file, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", file)
        code = cli.main(arguments)
        return Result(code, *capfd.readouterr())

    return run
