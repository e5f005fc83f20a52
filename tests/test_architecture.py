"""The house keeps its plan: data flows down the list of rooms, and every option is explained where people look."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import stackrev
from stackrev import cli

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "stackrev"

# From top to bottom, as docs/design.md has them: a room imports only from those above it.
ROOMS = (
    "errors", "config", "kernels", "tasks", "structures", "readout", "kinds", "models", "storage", "evaluation",
    "training", "figures", "experiments", "cli", "__main__",
)  # fmt: skip
# A model saves, loads and shares itself through rooms further down, which it imports only when it is asked to.
WHEN_CALLED = {("models", "storage"), ("models", "evaluation")}
# Rooms that work without torch, or before it is there.
WITHOUT_TORCH = (
    "errors",
    "config",
    "tasks.vocabulary",
    "tasks.data",
    "kinds.config",
    "models",
    "tasks.text",
    "kernels.cpu",
    "storage.checkpoints",
    "storage.hub",
    "evaluation.decoding",
    "experiments.search",
    "figures",
    "cli",
    "__main__",
)
# Packages with one user.
ONLY_IN = {
    "safetensors": {"storage"},
    "huggingface_hub": {"storage"},
    "httpcore2": {"storage"},
    "optuna": {"experiments"},
    "matplotlib": {"figures"},
    "typer": {"cli"},
    "rich": {"cli"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, *, anywhere: bool) -> set[str]:
    """The modules that a file imports: wherever it does, or when it is itself imported; not for types alone."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if not anywhere and isinstance(node, ast.FunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{each.name}" for each in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_upwards(path):
    room = room_of(path)
    assert room in ROOMS, f"{path} is in no room: give it one in docs/design.md and here"
    for name in imports(path, anywhere=True):
        package, *rest = name.split(".")
        if package == "stackrev" and rest and rest[0] in ROOMS:
            other = rest[0]
            allowed = (room, other) in WHEN_CALLED and name not in imports(path, anywhere=False)
            assert allowed or ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {name}"
        elif package in ONLY_IN:
            assert room in ONLY_IN[package], f"{path} imports {name}"


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_rooms_without_torch(room):
    module = "stackrev" if room == "__main__" else f"stackrev.{room}"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_plan_names_every_room():
    plan = (ROOT / "docs/design.md").read_text()
    for room in ROOMS[:-1]:
        assert f"`{room}.py`" in plan or f"`{room}/`" in plan, f"docs/design.md does not name {room}"


def test_public_names_are_there_and_load_nothing_before():
    for name in stackrev.__all__:
        assert getattr(stackrev, name) is not None
    assert set(stackrev.__all__) <= set(dir(stackrev))
    assert set(stackrev.__all__) - {"__version__"} == set(stackrev._ROOM_OF)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stackrev.nothing
    code = "import sys, stackrev; stackrev.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def commands(command=None, path=("stackrev",)):
    """Every command that does something, by the words that call it, with the examples of its page and its group's."""
    command = command or typer.main.get_command(cli.app)
    examples = re.findall(r"^ +(stackrev .*)$", command.epilog or "", re.MULTILINE)
    for name, inner in getattr(command, "commands", {}).items():
        for words, (each, more) in commands(inner, (*path, name)):
            yield words, (each, [*examples, *more])
    if not hasattr(command, "commands"):
        yield path, (command, examples)


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_explained(path):
    command, _ = COMMANDS[path]
    assert " ".join(path) in (ROOT / "README.md").read_text(), "the README does not show it"
    assert command.help
    for part in command.params:
        assert part.help, f"{part.name} has no help"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_examples_on_help_pages_parse(path):
    command, examples = COMMANDS[path]
    own = [shlex.split(re.split(" [<|>] ", each)[0]) for each in examples]
    own = [each[len(path) :] for each in own if tuple(each[: len(path)]) == path]
    if path[1] != "plot":
        assert own
    for arguments in own:
        command.make_context("example", list(arguments))
