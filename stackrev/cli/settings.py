"""The settings of a run as options: one for each setting that a configuration declares, under its own name."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shlex
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import typer

from stackrev.cli import values
from stackrev.cli.common import DEFAULT_MODEL, with_default
from stackrev.cli.help_pages import MODEL, STRINGS
from stackrev.cli.values import NONE
from stackrev.config import LengthRange, Setting
from stackrev.config import settings as declared
from stackrev.errors import ConfigError
from stackrev.kinds import KINDS
from stackrev.kinds.config import SECTIONS, Config, settings_of
from stackrev.tasks import TASKS
from stackrev.tasks.data import DataConfig, PairsConfig, data_class
from stackrev.tasks.pairs import Pairs

_ORDER = ("model", "training", "data")  # of the sections on a help page

_HEADINGS = {"training": "Training", "model": MODEL, "data": "Data"}
_SETTLING = (
    *("settle", "settle_batches", "settle_temperature", "settle_growth", "settle_rate"),
    *("settle_noise", "stretch_batches"),
    *("sharpen_from", "recurrent_l1", "cell_l2"),
)

Kind = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=with_default("The kind of model to train.", DEFAULT_MODEL),
        rich_help_panel=MODEL,
        **values.choice("--model", tuple(KINDS)),
    ),
]
"""The option of the kind of model."""

_TASK = declared(DataConfig)["task"]

TaskOption = Annotated[
    str,
    typer.Option(
        "--task",
        help="The task.",
        rich_help_panel=STRINGS,
        **values.choice("--task", tuple(TASKS), aliases=tuple(_TASK.aliases)),
    ),
]
"""The option of the task, where no run is configured."""


def task_named(name: str) -> str:
    """The task that is meant by a name given to `TaskOption`."""
    return _TASK.aliases.get(name, name)


Given = Mapping[str, Any]
"""The settings that were given as options, by name; as None those that were given as "none"."""


class _Option(NamedTuple):
    """A setting that is an option.

    Attributes:
        setting: What was declared; kinds that have the same setting differ in its default alone.
        section: The part of a configuration that it belongs to.
        defaults: Of each kind of model that has it.
    """

    setting: Setting
    section: str
    defaults: dict[str, Any]


def _options() -> dict[str, _Option]:
    """Every setting of every kind of model that is an option, by name, in the order of a help page."""
    found: dict[str, dict[str, _Option]] = {section: {} for section in _ORDER}
    for kind in KINDS:
        for config in (Config.default(kind), Config.default(kind, Pairs.name)):
            for name, (section, setting) in settings_of(config).items():
                if setting.option:
                    entry = found[section].setdefault(name, _Option(setting, section, {}))
                    entry.defaults.setdefault(kind, getattr(getattr(config, section), name))
    return {name: entry for section in found.values() for name, entry in section.items()}


_OPTIONS = _options()


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every setting of a run.

    The command has a parameter `kind`, and a parameter `given` in the place where the options go; it is called with a
    mapping of those that were given, of type `Given`. The option of the seed comes right after that of the kind.
    """
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == "given":
            parameters += [_parameter(name) for name in _OPTIONS if name != "seed"]
        else:
            parameters.append(parameter)
        if parameter.name == "kind":
            parameters.append(_parameter("seed"))

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in _OPTIONS}
        given = {name: _value(name, value) for name, value in values.items() if value is not None}
        command(given=given, **arguments)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter(name: str) -> inspect.Parameter:
    """The parameter through which Typer makes the option of a setting."""
    setting, section, _ = _OPTIONS[name]
    kind: Any = setting.type
    more: dict[str, Any] = {}
    if setting.choices:
        more = values.choice(option(name), setting.choices, aliases=tuple(setting.aliases))
    elif setting.type is LengthRange:
        more = {"metavar": "MIN-MAX", "parser": LengthRange.parse}
    elif setting.type is str:
        more = {"metavar": "FILE"}
    elif setting.type is not bool:
        more = values.number(option(name), setting)
    names = _switch(name) if setting.type is bool else option(name)
    heading = "Settling" if name in _SETTLING else _HEADINGS[section]
    found = typer.Option(names, help=_help(name), rich_help_panel=heading, **more)
    annotation = Annotated[kind | None, found]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _value(name: str, value: Any) -> Any:
    """The value that is meant by what was given as an option."""
    setting = _OPTIONS[name].setting
    return None if value == NONE and setting.optional else setting.aliases.get(value, value)


def _help(name: str) -> str:
    """What a setting does, its default by kind of model and task, and which kinds alone have it."""
    setting, _, by_kind = _OPTIONS[name]
    kinds: dict[str, list[str]] = {}
    for kind, value in by_kind.items():
        kinds.setdefault(_text(value), []).append(kind)
    shown = ", ".join(f"{value} for {' and '.join(names)}" for value, names in kinds.items())
    if len(kinds) == 1:
        shown = next(iter(kinds)) + ("" if len(by_kind) == len(KINDS) else f"; {' and '.join(by_kind)} only")
    if name in PairsConfig.training:
        shown = f"{shown}; {_text(PairsConfig.training[name])} for --task pairs"
    tuned: dict[str, list[str]] = {}
    for kind, each in KINDS.items():
        for task, own in each.tasks.items():
            if name in own:
                tuned.setdefault(f"{_text(own[name])} for --task {task}", []).append(kind)
    shown += "".join(f"; {words} with {' and '.join(names)}" for words, names in tuned.items())
    return with_default(setting.help, shown)


def option(name: str) -> str:
    """What the option of a setting is called."""
    return "--" + name.replace("_", "-")


def _switch(name: str) -> str:
    return f"{option(name)}/--no-{option(name)[2:]}"


def _text(value: object) -> str:
    """A value as it is written on a command line."""
    match value:
        case None:
            return NONE
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}" if float(f"{value:g}") == value else repr(value)
        case _:
            return str(value)


def configure(base: Config, given: Given) -> Config:
    """A configuration with the settings that were given.

    Args:
        base: What holds for the others.
        given: Settings by name.

    Raises:
        ConfigError: A value is out of range, or the kind of model or the task has no such setting.
        DataError: A file of pairs cannot be read, or is not one.
    """
    task = given.get("task", base.data.task)
    foreign_data = declared(PairsConfig).keys() - declared(data_class(task)).keys()
    if other := next((name for name in given if name in foreign_data), None):
        raise ConfigError(f"the task {task} has no {option(other)}", hint="it goes with --task pairs")
    base = base.for_task(task)
    ours = settings_of(base)
    if foreign := next((name for name in given if name not in ours), None):
        kinds = " and ".join(_OPTIONS[foreign].defaults)
        hint = f"leave it out: it is a setting of {kinds}"
        raise ConfigError(f"the model {base.model.kind} has no {option(foreign)}", hint=hint)
    changes: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in given.items():
        changes[ours[name][0]][name] = value
    sections = {section: dataclasses.replace(getattr(base, section), **changes[section]) for section in SECTIONS}
    data = sections["data"]
    if isinstance(data, PairsConfig) and not data.symbols:
        from stackrev.storage import pairs

        sections["data"] = pairs.complete(data, given=given)
    return Config.fitted(**sections)


def command_line(config: Config, *, threads: int | None = None) -> str:
    """The shortest `stackrev train` that trains a configuration, on so many threads if it matters."""
    words = ["stackrev", "train", "--model", config.model.kind, "--seed", str(config.training.seed)]
    for name, value in changed(config).items():
        if isinstance(value, bool):
            words.append(_switch(name).split("/")[0 if value else 1])
        else:
            words += [option(name), _text(value)]
    if threads is not None:
        words += ["--threads", str(threads)]
    return shlex.join(words)


def changed(config: Config) -> dict[str, Any]:
    """The settings, the seed aside, that are not at the default of the kind of model."""
    kind = config.model.kind
    usual = Config.default(kind, config.data.task)
    found = {}
    for name, (section, setting) in settings_of(config).items():
        if setting.option and name != "seed":
            value = getattr(getattr(config, section), name)
            data = section == "data"  # of which the task itself is one
            default = _OPTIONS[name].defaults[kind] if data else getattr(getattr(usual, section), name)
            if value != default:
                found[name] = value
    return found
