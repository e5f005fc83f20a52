"""The command line: parse, call one function, print.

stdout carries the result alone, as plain text or as JSON; progress, notes and errors go to stderr. Exit codes: 0, 1
failed, 2 wrong usage, 130 interrupted. An expected error is one line and a hint; `STACKREV_DEBUG=1` shows its
traceback. No module here imports torch before a command runs, so that help and completion answer at once; and this one
imports nothing before somebody catches Ctrl-C.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, which takes a while to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import typer

    app: typer.Typer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; what was typed, if None.

    Returns:
        The exit code.
    """
    try:
        from stackrev.cli.run import run

        return run(arguments)
    except KeyboardInterrupt:
        return 130


def program() -> int:
    """`stackrev`, as a process of its own: `main`, with streams, locale and signals as commands need them."""
    try:
        from stackrev.cli import process

        process.prepare()
        code = main()
        process.finish()
    except KeyboardInterrupt:
        return 130
    return code


def __getattr__(name: str) -> Any:
    """`app`, the Typer application with every command, loaded when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stackrev.cli.commands import application

    return application()
