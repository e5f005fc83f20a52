"""The words of a command line: which text they are, what they lack, and what is said of those that mean nothing."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import typer

from stackrev.cli.help_pages import value_name
from stackrev.cli.usage import UsageError

_NUMBER = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)


def typed_words() -> list[str]:
    """What was typed after the program's name.

    A POSIX system hands over bytes. They are text in UTF-8 whatever the locale says, as those of stdin are; bytes that
    are not UTF-8 come out as lone surrogates, which `os.fsencode` turns back.
    """
    if os.name == "nt" or sys.getfilesystemencoding() == "utf-8":
        return sys.argv[1:]
    return [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]


def with_version_everywhere(command: Any) -> Any:
    """Let every command below a group take the group's --version."""
    version = next(option for option in command.params if option.name == "version")
    own = copy.copy(version)
    own.expose_value, own.hidden = False, True
    for each in _below(command):
        if all(option.name != "version" for option in each.params):
            each.params.append(own)
    return command


def _below(command: Any) -> Iterator[Any]:
    for each in getattr(command, "commands", {}).values():
        yield each
        yield from _below(each)


def require_values(command: Any, words: Sequence[str]) -> None:
    """Refuse an option whose value is left out, so that the word after it would be taken for one.

    Raises:
        UsageError: Nothing, or a word that starts with `-` and is no number, stands where a value should.
    """
    command, rest = _find(command, words)
    options = _options(command)
    while rest:
        word, *rest = rest
        if word == "--":
            return
        option = options.get(word)
        if option is None or not _takes_value(option):
            continue
        if not rest:
            raise UsageError(f"{word} needs a value")
        value, *rest = rest
        if value.startswith("-") and value != "-" and not _NUMBER.match(value):
            write = f"{word}={value}" if word.startswith("--") else f"{word}{value}"
            raise UsageError(f"{word} needs a value, and {value} looks like an option", hint=f"if it is one: {write}")


def explain(error: typer.TyperException, words: Sequence[str]) -> tuple[str, str]:
    """What is wrong with a command line, in our own words, and what to do about it."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "stackrev"
    hint = f"see {path} --help"
    option, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
    if hasattr(error, "possibilities"):  # an option that there isn't
        return _no_such_option(_typed(str(option), words), context, hint)
    if option is not None:
        return f"{option} takes no value" if "not take" in message else f"{option} needs a value", hint
    if parameter is not None and parameter.required and "issing" in message:
        name = parameter.opts[0] if parameter.param_type_name == "option" else value_name(parameter)
        return f"{path} needs {'an' if name[0] in 'AEIO' else 'a'} {name}", hint
    if extra := re.search(r"unexpected extra argument(?:s|\(s\))? \((.*)\)", message, re.DOTALL):
        return f"{path} does not take {extra[1]!r}", hint
    return message[:1].lower() + message[1:].rstrip("."), hint


def _no_such_option(name: str, context: Any, hint: str) -> tuple[str, str]:
    path = context.command_path if context else "stackrev"
    close = get_close_matches(f"--{name.lstrip('-').lower()}", _options(context.command) if context else ())
    if close:
        hint = f"did you mean {close[0]}?"
    elif context and any(each.param_type_name == "argument" for each in context.command.params):
        hint += "; write -- before what starts with - and is no option"
    return f"{path} has no option {name}", hint


def _typed(option: str, words: Sequence[str]) -> str:
    """The word that an option was read from: `-check` is read as `-c` and more."""
    if option.startswith("--"):
        return option
    return next((word.partition("=")[0] for word in words if word.startswith(option)), option)


def _find(command: Any, words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that words call, and the words that are its own."""
    rest = list(words)
    while rest and hasattr(command, "commands"):
        word = rest.pop(0)
        if word in command.commands:
            command = command.commands[word]
        elif not word.startswith("-"):
            break
    return command, rest


def _options(command: Any) -> Mapping[str, Any]:
    """The options of a command by each of their names; None for the one that shows its help."""
    options = {
        name: each
        for each in command.params
        if each.param_type_name == "option"
        for name in (*each.opts, *each.secondary_opts)
    }
    return {**options, "--help": None, "-h": None}


def _takes_value(option: Any) -> bool:
    return not (option.is_flag or option.count)
