"""The command line: parse, call one function, print.

stdout carries the result alone, as plain text; progress, notes and errors go to stderr. Exit codes: 0, 1 failed,
2 wrong usage, 130 interrupted. An expected error is one line and a hint; `STACKREV_DEBUG=1` shows its traceback. No
module here imports torch before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from stackrev.cli import common, evaluate, generate_data, models, plot, reverse, search, train
from stackrev.errors import ConfigError, StackrevError

app = typer.Typer(
    name="stackrev",
    help="Train, test and use neural networks that reverse strings with a differentiable stack.",
    epilog=common.examples(
        "stackrev reverse '$A string to reverse|'",
        "stackrev evaluate --lengths 65-128",
        "stackrev train --seed 1",
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _module in (reverse, evaluate, train, generate_data, models, search, plot):
    app.add_typer(_module.app)


def _version(asked: bool) -> None:
    if asked:
        print(common.version())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; `sys.argv` if None.

    Returns:
        The exit code.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(None if arguments is None else list(arguments), prog_name="stackrev", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _hang_up()
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except (StackrevError, typer.TyperException, OSError, MemoryError, RuntimeError) as error:
        no_memory = "can't allocate memory" in str(error)  # as torch has it
        if os.environ.get("STACKREV_DEBUG") == "1" or (isinstance(error, RuntimeError) and not no_memory):
            raise
        return _report(error)
    except SystemExit as exit_:  # Typer's own answer to a broken pipe, and to a request for shell completion
        return exit_.code if isinstance(exit_.code, int) else 0
    return code if isinstance(code, int) else 0


def program() -> int:
    """`stackrev`, as a process of its own: `main`, and no last search for cycles in all that torch has made."""
    atexit.register(gc.freeze)
    return main()


def _report(error: BaseException) -> int:
    """Say what went wrong in a line, and what to do next in another; return the exit code."""
    code, hint = 1, None
    match error:
        case StackrevError():
            message, hint = error.message, error.hint
            if isinstance(error, ConfigError | common.UsageError):
                code, hint = 2, hint or "--help shows what can be asked for"
        case typer.TyperException():
            message, code = error.format_message().replace("Value error, ", ""), error.exit_code
            message = message[:1].lower() + message[1:].rstrip(".")
            context = getattr(error, "ctx", None)
            hint = f"see {context.command_path if context else 'stackrev'} --help"
        case OSError():
            message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        case _:
            message, hint = "out of memory", "try fewer or shorter strings, or a smaller model"
    common.complain("error", message)
    if hint:
        common.complain("hint", hint)
    return code


def _hang_up() -> int:
    """Nobody reads stdout any more: point it at nothing, so that no later flush fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
