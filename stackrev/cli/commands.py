"""The commands, put together: the one Typer application."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from stackrev.cli import common
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output

COMMANDS = (
    "reverse",
    "apply",
    "page",
    "evaluate",
    "certify",
    "train",
    "generate-data",
    "models",
    "search",
    "experiment",
    "plot",
)
"""The commands, in the order of the help page. Each is in the module of its name."""


def application(names: Sequence[str] = COMMANDS) -> App:
    """The application with these commands; the modules of others, which take a while, are not imported."""
    app = App(
        name="stackrev",
        help="Neural networks that reverse strings with a differentiable stack.",
        epilog=common.examples(
            "stackrev reverse '$A string to reverse|'",
            "stackrev evaluate --lengths 65-128",
            "stackrev train --seed 1",
        ),
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    for name in names:
        app.add_typer(import_module(f"stackrev.cli.{name.replace('-', '_')}").app)
    app.callback(invoke_without_command=True)(_root)
    return app


def _version(asked: bool) -> None:
    if asked:
        Output().text(common.version())
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    common.show_help(context)
