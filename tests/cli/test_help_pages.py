"""Help pages and what is said of bad values: the same everywhere, in our own words."""

from __future__ import annotations

import re

import pytest
import typer

from stackrev import cli
from stackrev.cli.common import UsageError
from stackrev.cli.help_pages import FLAT
from stackrev.errors import ConfigError, did_you_mean

ROOT = typer.main.get_command(cli.app)


def below(command, path=()):
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from below(each, (*path, name))


EVERY = dict(below(ROOT))
TAKE_VALUES = [
    (path, option)
    for path, command in EVERY.items()
    for option in command.params
    if option.param_type_name == "option" and not option.is_flag and path
]


def page(path):
    context = EVERY[path].make_context(" ".join(("stackrev", *path)), [], resilient_parsing=True, terminal_width=80)
    return context.get_help()


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_a_page_fits_80_columns_and_is_not_cut_off(path):
    text = page(path)
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"[a-z]\.\.\.$|<(int|float|str|path|list)|x[<>]=", text, re.MULTILINE)
    for name, command in getattr(EVERY[path], "commands", {}).items():
        assert re.search(rf"^  {name} +\S.{{9,}}$", text, re.MULTILINE), name
        assert command.help


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_many_options_stand_under_headings(path):
    text = page(path)
    options = re.findall(r"^  (-\S+, )?--", text, re.MULTILINE)
    assert ("\nOptions:\n" in text) == (len(options) <= FLAT)
    assert "--help" in text.split(":\n")[-2 if EVERY[path].epilog else -1] or len(options) <= FLAT


def test_the_headings_of_train():
    found = re.findall(r"^([A-Z]\w+):$", page(("train",)), re.MULTILINE)
    assert found == ["Model", "Training", "Settling", "Data", "Run", "Output"]
    assert "  --seed N " in page(("train",))
    assert "[default: 0]" in page(("generate-data",))


@pytest.mark.parametrize(
    ("path", "option"), TAKE_VALUES, ids=lambda each: getattr(each, "name", None) or " ".join(each)
)
def test_every_option_names_its_value_and_refuses_nonsense_in_our_words(path, option):
    assert option.metavar, "what is the value called?"
    if option.metavar in ("NAME", "FILE", "FOLDER", "TEXT", "URL", "NAME=VALUE") or option.name in ("vary", "alphabet"):
        return  # any text will do, until the command runs
    if option.metavar in ("LENGTHS", "LENGTH", "SEEDS", "N,N,..."):
        return  # read by the command
    with pytest.raises((UsageError, ConfigError), match=re.escape("'!?'")) as caught:
        EVERY[path].make_context("a command", [option.opts[0], "!?"])
    assert caught.value.message.startswith(option.opts[0]) or option.metavar == "MIN-MAX"
    assert "nvalid" not in caught.value.message


def test_m_is_short_for_model():
    found = [option for path, option in TAKE_VALUES if "--model" in option.opts]
    assert len(found) >= 6
    assert all("-m" in option.opts for option in found)


def test_what_was_meant():
    assert did_you_mean("lstn", ["lstm", "rnn"]) == "did you mean lstm? there are lstm, rnn"
    assert did_you_mean("ADAMW", ["adam", "adamw"]).startswith("did you mean adamw?")
    assert did_you_mean("s", ["none", "settle"]).startswith("did you mean settle?")
    assert did_you_mean("zzz", ["lstm", "rnn"]) == did_you_mean("", ["lstm", "rnn"]) == "there are lstm, rnn"
    many = [f"setting_{number}" for number in range(20)]
    assert did_you_mean("setting7", many) == "did you mean setting_7?"
