"""What works where torch is missing, and what is said of the rest."""

import subprocess
import sys

import pytest

from stackrev import kernels

MISSING = """
import sys
from importlib import abc, metadata

class Missing(abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
found = metadata.version
def version(name):
    if name == "torch":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
from stackrev.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(*words, text=""):
    command = [sys.executable, "-c", MISSING, *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not kernels.available(), reason="the kernels were not compiled")
def test_texts_and_lines_are_reversed():
    assert run("reverse", "hello").stdout == "olleh\n"
    lines = [f"line {n}" * (n % 5) for n in range(500)]
    done = run("reverse", "--threads", "2", text="\n".join(lines) + "\n")
    assert done.stdout == "".join(f"{line[::-1]}\n" for line in lines)


def test_the_version_says_so():
    assert "torch is not installed" in run("--version").stdout


@pytest.mark.parametrize("words", [("train", "--batches", "1"), ("evaluate",), ("reverse", "--model", "lstm", "x")])
def test_other_commands_say_what_to_install(words, tmp_path):
    done = run(*words)
    assert done.returncode == 1
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error == "error: PyTorch is not installed, and this needs it"
    assert "pip install torch" in hint
