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

# From the ground up, as docs/design.md has them: a room imports only from those below it, never from one beside it.
FLOORS = (
    ("errors",),
    ("config",),
    ("training_config",),
    ("kernels",),
    ("structures", "tasks"),
    ("readout",),
    ("kinds",),
    ("storage", "evaluation"),
    ("models",),
    ("training", "figures", "page"),
    ("experiments",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What a model is called is said in the table of kinds, in its own modules, in the list of public names, and where the
# command line has a default. Everything else asks what a model can do.
NAMED_IN = {"__init__.py", "cli/common.py"} | {
    f"{room}/{kind}_lstm.py" for room in ("kinds", "models") for kind in ("stack", "queue", "deque")
}
# Rooms that work without torch, or before it is there.
WITHOUT_TORCH = (
    "errors",
    "config",
    "training_config",
    "tasks.vocabulary",
    "tasks.data",
    "kinds.config",
    "models",
    "models.texts",
    "tasks.text",
    "kernels.cpu",
    "storage.checkpoints",
    "storage.hub",
    "evaluation.decoding",
    "experiments.search",
    "figures",
    "page",
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


def imports(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it; not for types alone."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
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
def test_imports_point_down(path):
    room = room_of(path)
    assert room in FLOOR_OF, f"{path} is in no room: give it one in docs/design.md and here"
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "stackrev" and rest and rest[0] in FLOOR_OF:
            assert rest[0] == room or FLOOR_OF[rest[0]] < FLOOR_OF[room], f"{path} imports {name}"
        elif package in ONLY_IN:
            assert room in ONLY_IN[package], f"{path} imports {name}"


def file_of(name: str) -> Path | None:
    """The file of this package that an imported name is in; None for another package's."""
    parts = name.split(".")
    if parts[0] != "stackrev":
        return None
    for length in (len(parts), len(parts) - 1):
        place = PACKAGE.joinpath(*parts[1:length])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if length > 1 and path.is_file():
                return path
    return None


def circle(graph: dict[Path, set[Path]]) -> list[Path]:
    """Files that import each other in a circle; empty if there is none."""
    done: set[Path] = set()

    def walk(path: Path, trail: tuple[Path, ...]) -> list[Path]:
        if path in trail:
            return [*trail[trail.index(path) :], path]
        if path in done:
            return []
        for other in sorted(graph.get(path, ())):
            if found := walk(other, (*trail, path)):
                return found
        done.add(path)
        return []

    return next((found for path in sorted(graph) if (found := walk(path, ()))), [])


def test_no_files_import_each_other_in_a_circle():
    graph = {path: {other for name in imports(path) if (other := file_of(name)) and other != path} for path in FILES}
    assert file_of("stackrev.kinds.config.Config") in graph
    assert [str(path.relative_to(PACKAGE)) for path in circle(graph)] == []
    first, second = FILES[0], FILES[1]
    assert circle({first: {second}, second: {first}}) == [first, second, first]


# What fits in a reader's head: lines of a file, by how its name ends, and of a function, from its `def` to its end.
MOST_LINES = {".py": 400, ".h": 450, ".cpp": 450, ".js": 450}
MOST_IN_A_FUNCTION = 60
SOURCES = sorted(
    path
    for folder in ("stackrev", "tests", "scripts")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in MOST_LINES
)


def test_no_file_and_no_function_is_long():
    too_long = []
    for path in SOURCES:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        if (lines := len(text.splitlines())) > MOST_LINES[path.suffix]:
            too_long.append(f"{name} has {lines} lines")
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_IN_A_FUNCTION:
                    too_long.append(f"{name}: {node.name} has {lines} lines")
    assert too_long == []


def test_what_a_model_is_called_is_said_in_few_places():
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search('"(stack|queue|deque)-lstm"|(Stack|Queue|Deque)LSTMReverser', path.read_text())
    }
    assert found == NAMED_IN


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_rooms_without_torch(room):
    module = "stackrev" if room == "__main__" else f"stackrev.{room}"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_plan_names_every_room():
    plan = (ROOT / "docs/design.md").read_text()
    for room in FLOOR_OF.keys() - {"__main__"}:
        assert f"`{room}.py`" in plan or f"`{room}/`" in plan, f"docs/design.md does not name {room}"


def test_the_plan_names_files_that_are_there():
    plan = (ROOT / "docs/design.md").read_text()
    paths = [path for folder in ("stackrev", "tests", "scripts") for path in (ROOT / folder).rglob("*.*")]
    for name in re.findall(r"`([\w/]+\.(?:py|h|js))`", plan):
        assert any(path.match(name) for path in paths), f"docs/design.md names {name}"


def test_public_names_are_there_and_load_nothing_before():
    for name in stackrev.__all__:
        assert getattr(stackrev, name) is not None
    assert dir(stackrev) == sorted(stackrev.__all__)
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
