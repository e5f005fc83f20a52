"""Help pages: options under headings, summaries that are never cut off, and values named in the words of the field.

Every command and group of commands is made by an `App`, and shows itself through the two classes here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from stackrev.cli.output import Output
from stackrev.cli.usage import UsageError
from stackrev.errors import did_you_mean

MODEL, STRINGS, RUN, OUTPUT = "Model", "Strings", "Run", "Output"
"""Headings; --help is under the last."""
FLAT = 10
"""A page of at most so many options has no headings."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

Row = tuple[str, str]
"""What is shown of an option, an argument or a command: how it is written, and what it does."""


class App(typer.Typer):
    """A group of commands, or a command alone, with help pages as here."""

    def __init__(self, **more: Any) -> None:
        super().__init__(cls=Group, rich_markup_mode=None, **more)

    def command(self, *names: Any, **more: Any) -> Callable[[_Function], _Function]:
        """Register a command; see `typer.Typer.command`."""
        return super().command(*names, cls=Command, **more)


class _Page:
    """What the pages of commands and of groups share."""

    def get_help(self, ctx: Any) -> str:
        """The page.

        Raises:
            StackrevError: stdout is closed.
        """
        Output()
        return str(super().get_help(ctx))  # type: ignore[misc]


class Command(_Page, TyperCommand):
    """A command with a help page of ours."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the command's name in the line of usage."""
        return _usage(self, ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options, these under headings where there are many."""
        _write_parameters(self, ctx, formatter)


class Group(_Page, TyperGroup):
    """A group of commands with a help page of ours."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the group's name in the line of usage."""
        return [*_usage(self, ctx), "COMMAND ..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the group's options and its commands, each with the whole of its summary."""
        _write_parameters(self, ctx, formatter)
        rows = [(name, _summary(each)) for name, each in self.commands.items() if not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that words call.

        Raises:
            UsageError: There is none of that name.
        """
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            message = f"{ctx.command_path} has no command {args[0]!r}"
            raise UsageError(message, hint=did_you_mean(args[0], list(self.commands)))
        return super().resolve_command(ctx, args)


def value_name(parameter: Any) -> str:
    """What the value of an argument or an option is called, such as FILE."""
    return str(parameter.metavar or parameter.name.upper()).strip("[].")


def _summary(command: Any) -> str:
    paragraph = inspect.cleandoc(command.help or "").split("\n\n")[0]
    return " ".join(paragraph.split()).removesuffix(".")


def _usage(command: Any, context: Any) -> list[str]:
    pieces = [command.options_metavar] if command.options_metavar else []
    for each in command.get_params(context):
        if each.param_type_name == "argument":
            name = value_name(each) + ("..." if each.nargs == -1 else "")
            pieces.append(name if each.required else f"[{name}]")
    return pieces


def _write_parameters(command: Any, context: Any, formatter: Any) -> None:
    shown = [each for each in command.get_params(context) if not getattr(each, "hidden", False)]
    arguments = [(value_name(each), _help(each)) for each in shown if each.param_type_name == "argument"]
    if arguments:
        with formatter.section("Arguments"):
            formatter.write_dl(arguments)
    options = [each for each in shown if each.param_type_name == "option"]
    for heading, rows in _headed(options):
        with formatter.section(heading):
            formatter.write_dl(rows)


def _headed(options: Sequence[Any]) -> Iterator[tuple[str, list[Row]]]:
    """The options by heading: in the order in which headings first appear, but for `RUN` and `OUTPUT`, which end it."""
    headings = [heading for each in options if (heading := getattr(each, "rich_help_panel", None))]
    if len(options) <= FLAT or not headings:
        yield "Options", [_row(each) for each in options]
        return
    order = [each for each in dict.fromkeys(headings) if each not in (RUN, OUTPUT)]
    for heading in (*order, RUN, OUTPUT):
        rows = [_row(each) for each in options if (getattr(each, "rich_help_panel", None) or OUTPUT) == heading]
        if rows:
            yield heading, rows


def _row(option: Any) -> Row:
    """How an option is written, and what it does."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:  # --x / --no-x
        names = f"--[no-]{option.opts[0].removeprefix('--')}"
    if not (option.is_flag or option.count):
        names += f" {option.metavar or 'TEXT'}"
    return names, _help(option)


def _help(parameter: Any) -> str:
    text = " ".join((getattr(parameter, "help", None) or "").split())
    default = _default(parameter)
    return f"{text} [default: {default}]" if default else text


def _default(parameter: Any) -> str:
    if isinstance(getattr(parameter, "show_default", None), str):
        return str(parameter.show_default)
    value = parameter.default
    if getattr(parameter, "secondary_opts", None):
        return {True: "yes", False: "no"}.get(value, "")
    return "" if value is None or value is False else str(value)
