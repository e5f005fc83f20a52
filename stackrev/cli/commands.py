"""The commands, put together: the one Typer application."""

from __future__ import annotations

from typing import Annotated

import typer

from stackrev.cli import (
    apply,
    certify,
    common,
    evaluate,
    experiment,
    generate_data,
    models,
    page,
    plot,
    reverse,
    search,
    train,
)
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output

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
COMMANDS = (
    reverse,
    apply,
    page,
    evaluate,
    certify,
    train,
    generate_data,
    models,
    search,
    experiment,
    plot,
)
"""The modules of the commands, in the order of the help page."""

for _module in COMMANDS:
    app.add_typer(_module.app)


def _version(asked: bool) -> None:
    if asked:
        Output().text(common.version())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    common.show_help(context)
