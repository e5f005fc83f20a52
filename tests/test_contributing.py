"""CONTRIBUTING.md names the files that an addition needs, and no others are needed: toys are added and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ADDITIONS = Path(__file__).with_name("additions")
# The lines that each toy adds to files that are there, each after a line that is.
LINES: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "task": {
        "stackrev/tasks/__init__.py": (
            ("from stackrev.tasks.copy import Copy", "from stackrev.tasks.doubling import Doubling"),
            ("    Copy(),", "    Doubling(),"),
        ),
    },
    "kind": {
        "stackrev/kinds/__init__.py": (
            ("from stackrev.kinds.deque_lstm import DEQUE_LSTM", "from stackrev.kinds.gru import GRU"),
            ("    LSTM,", "    GRU,"),
        ),
    },
    "command": {
        "stackrev/cli/commands.py": (('    "search",', '    "tasks",'),),
        "README.md": (("stackrev models list ", "stackrev tasks  # what can be learned"),),
    },
    "measurement": {
        "stackrev/experiments/measurements/__init__.py": (
            (
                "from stackrev.experiments.measurements.exact import EXACT",
                "from stackrev.experiments.measurements.norm import NORM",
            ),
            ('    "exact": EXACT,', '    "norm": NORM,'),
        ),
    },
}
TINY = (
    *("--hidden-size", "4", "--batches", "2", "--batch-size", "2", "--check-every", "2", "--warmup-batches", "0"),
    *("--lengths", "1-3", "--test-lengths", "4-5", "--held-out-samples", "4"),
)
USES = (
    ("train", "--model", "gru", "--task", "doubling", "--output", "gru", *TINY),
    ("evaluate", "--model", "gru", "--lengths", "1-3", "--samples", "5", "--json"),
    ("models", "verify", "gru"),
    ("generate-data", "--task", "doubling", "--lengths", "2", "--samples", "1"),
    ("tasks",),
    ("experiment", "run", "seeds", "--seeds", "0", "--workers", "1", "--norm", "--set", "batches=1"),
)


def recipes() -> dict[str, tuple[set[str], set[str]]]:
    """What CONTRIBUTING.md asks for, by the noun of its heading: new files, and files that get a line."""
    found = {}
    for section in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        new, line = (set(re.findall(rf"^- {word} `([^`]+)`", text, re.MULTILINE)) for word in ("new", "line"))
        if new or line:
            found[heading.split()[1]] = new, line
    return found


RECIPES = recipes()


def added(toy: str) -> list[Path]:
    """The new files of a toy, relative to the root."""
    files = (path for path in (ADDITIONS / toy).rglob("*") if path.is_file() and path.suffix == ".py")
    return sorted(path.relative_to(ADDITIONS / toy) for path in files)


def test_every_recipe_is_about_files_that_are_there():
    assert {*LINES, "structure", "kernel", "setting"} == RECIPES.keys()
    for new, lines in RECIPES.values():
        for name in new:
            assert (ROOT / name).parent.is_dir(), name
            assert "NAME" in name
        for name in lines:
            assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("toy", LINES)
def test_a_toy_touches_what_its_recipe_names_and_nothing_else(toy):
    new, lines = RECIPES[toy]
    assert LINES[toy].keys() == lines
    paths = [path.as_posix() for path in added(toy)]
    assert len(paths) == len(new)
    for pattern in new:
        assert any(re.fullmatch(re.escape(pattern).replace("NAME", r"\w+"), path) for path in paths), pattern


def test_tables_that_the_recipes_name_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for file, table in re.findall(r"^- line `(stackrev/[^`]+)`:.* in `([A-Z]+)`", text, re.MULTILINE):
        assert re.search(rf"^{table}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (file, table)


def insert(path: Path, after: str, line: str) -> None:
    """Add a line to a file, after every line of it that begins so: a name that is imported and listed, after both."""
    lines, found = [], 0
    for each in path.read_text(encoding="utf-8").splitlines():
        lines.append(each)
        if each == after or (after.endswith(" ") and each.startswith(after)):
            lines.append(line)
            found += 1
    assert found, f"{path} has no line {after!r}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the package, without compiled kernels, with every toy in it."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "additions")
    for name in ("stackrev", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for toy, lines in LINES.items():
        for path in added(toy):
            shutil.copy(ADDITIONS / toy / path, folder / path)
        for name, inserted in lines.items():
            for after, line in inserted:
                insert(folder / name, after, line)
    return folder


@pytest.mark.slow
def test_toys_are_used_from_the_command_line_and_pass_their_tests(copy):
    tests = [str(path) for toy in LINES for path in added(toy) if path.parts[0] == "tests"]
    assert len(tests) == len(LINES)
    code = (
        "import sys, pytest, stackrev.cli as cli\n"
        f"assert cli.__file__.startswith({str(copy)!r})\n"
        f"for words in {USES!r}:\n"
        "    assert cli.main(words) == 0, words\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *{tests!r}]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(copy), "STACKREV_NATIVE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for shown in ('"model": "gru"', "every symbol of the string twice"):
        assert shown in done.stdout
