"""A small run of the checkpoint fuzzer, in a process whose memory is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stackrev

ROOT = Path(stackrev.__file__).parent.parent
SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_checkpoints.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured as POSIX has it")
def test_mutated_checkpoints_are_refused_or_verify():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--mutants", "200", "--seed", "1"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for outcome in ("checkpoint loaded", "state resumed", "folder: 4 of 4 written", "folder: 0 of 4 written"):
        assert outcome in done.stdout
    assert done.stdout.count("refused") > 5
