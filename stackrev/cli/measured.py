"""What is measured of runs as options: one for each measurement, under its own name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from stackrev.experiments.measurements import MEASUREMENTS

PANEL = "Measured of solved runs"

Asked = Mapping[str, Any]
"""What is asked to be measured, by the names of `MEASUREMENTS`, as plain JSON values."""


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every measurement.

    The command has a parameter `asked` in the place where the options go; it is called with those that were given,
    of type `Asked`.
    """
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += map(_parameter, MEASUREMENTS) if parameter.name == "asked" else [parameter]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in MEASUREMENTS}
        asked = {name: MEASUREMENTS[name].parse(str(value)) for name, value in given.items() if value}
        command(asked=asked, **arguments)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter(name: str) -> inspect.Parameter:
    """The parameter through which Typer makes the option of a measurement."""
    measurement = MEASUREMENTS[name]
    flag = f"--{name.replace('_', '-')}"
    option: Any = typer.Option(flag, help=measurement.help, metavar=measurement.metavar or None, rich_help_panel=PANEL)
    kind, default = (Annotated[str | None, option], None) if measurement.metavar else (Annotated[bool, option], False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
