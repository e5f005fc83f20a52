"""What commands share: options, and models by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackrev import __version__, kernels
from stackrev.cli.output import Output
from stackrev.cli.requests import Meaning
from stackrev.config import LengthRange
from stackrev.errors import StackrevError

if TYPE_CHECKING:
    from stackrev.models import Checkpoint

DEFAULT_MODEL: str = "stack-lstm"
DEFAULT_LENGTHS = LengthRange(minimum=65, maximum=128)


class UsageError(StackrevError):
    """The command line asks for something that makes no sense; exit code 2."""


def complete_model(incomplete: str) -> list[str]:
    """The packaged names that start with what has been typed."""
    from stackrev.storage import names

    return [name for name in names.packaged_names() if name.startswith(incomplete)]


def _parse_seed(value: str | int) -> int:
    text = str(value)  # a default comes as it is
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < 2**63):
        raise typer.BadParameter(f"{text!r} is not a number from 0 to 2**63 - 1")
    return int(text)


def with_default(help_: str, default: object) -> str:
    """The help of an option whose default is not a plain value."""
    return f"{help_} [default: {default}]"


_MODEL_HELP = "A packaged model, a checkpoint folder, or [hf:]user/repo[@revision] on the Hub."

ModelOption = Annotated[str, typer.Option("--model", metavar="NAME", help=_MODEL_HELP, autocompletion=complete_model)]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help=with_default(f"{_MODEL_HELP} Repeat it to compare several.", DEFAULT_MODEL),
        autocompletion=complete_model,
    ),
]
LengthsOption = Annotated[
    LengthRange | None,
    typer.Option(
        "--lengths",
        metavar="MIN-MAX",
        parser=LengthRange.parse,
        help=with_default("The lengths of the strings.", DEFAULT_LENGTHS),
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="<int>", parser=_parse_seed, help="The seed that strings are drawn with.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", metavar="FOLDER", help="The Hub's cache.", show_default="the standard one, see HF_HOME"
    ),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use the cache alone, never the network.")]


def show_help(context: typer.Context) -> None:
    """Show the help of a group of commands that is called without one: the group's callback."""
    if context.invoked_subcommand is None:
        Output().text(context.get_help())


LinesOption = Annotated[
    Meaning | None,
    typer.Option(
        "--lines",
        help=with_default(
            "How lines are meant: plain, marked (between $ and |), or auto, marked where they look it.",
            "plain; auto for an argument",
        ),
    ),
]
TraceOption = Annotated[bool, typer.Option("--trace", help="Show what the network does with its stack, a line a step.")]
PageOption = Annotated[
    Path | None,
    typer.Option(
        "--trace-html", metavar="FILE", help="Write a page that runs the network on the text, as stackrev page does."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress and no notes on stderr.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="<int>",
        min=1,
        max=1024,
        help="How many threads torch may use; its own choice if not given.",
    ),
]


def examples(*commands: str) -> str:
    """The end of a help page: commands, each on a line of its own."""
    return "\b\nExamples:\n" + "\n".join(f"  {each}" for each in commands)


def find_model(name: str, *, offline: bool = False, cache_dir: Path | None = None) -> Path:
    """The folder of a model, fetched from the Hub if need be: every command finds models here.

    Args:
        name: A packaged name, a folder, or `[hf:]user/repo[@revision]`.
        offline: Whether to use the Hub's cache alone.
        cache_dir: The Hub's cache, if it is not the standard one.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
        HubError: It had to be fetched, and could not be.
    """
    from stackrev.storage import names

    found = names.find(name)
    if isinstance(found, Path):
        return found  # at once: the Hub takes a while to import
    from stackrev.storage import hub

    return hub.resolve(name, offline=offline, cache_dir=cache_dir)


def load_model(name: str, *, offline: bool = False, cache_dir: Path | None = None) -> Checkpoint:
    """A model by its name; see `find_model`."""
    from stackrev.models import load

    return load(find_model(name, offline=offline, cache_dir=cache_dir), name=name)


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def version() -> str:
    """The version of stackrev, of torch, and which implementation of the stack is at work."""
    from importlib import metadata

    return f"stackrev {__version__}\ntorch {metadata.version('torch')}\n{kernels.describe()}"


def share(value: float) -> str:
    """A share with four decimals, cut rather than rounded: only all is 1.0000."""
    return f"{math.floor(value * 10_000) / 10_000:.4f}"
