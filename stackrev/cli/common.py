"""What commands share: options, and models by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from stackrev import __version__, kernels
from stackrev.cli import values
from stackrev.cli.help_pages import MODEL, OUTPUT, RUN, STRINGS
from stackrev.cli.output import Output
from stackrev.cli.requests import Meaning
from stackrev.cli.usage import UsageError as UsageError
from stackrev.config import LengthRange
from stackrev.training_config import Device

if TYPE_CHECKING:
    import torch

    from stackrev.models import Checkpoint

DEFAULT_MODEL: str = "stack-lstm"
DEFAULT_LENGTHS = LengthRange(minimum=65, maximum=128)


def complete_model(incomplete: str) -> list[str]:
    """The packaged names that start with what has been typed."""
    from stackrev.storage import names

    return [name for name in names.packaged_names() if name.startswith(incomplete)]


def with_default(help_: str, default: object) -> str:
    """The help of an option whose default is not a plain value."""
    return f"{help_} [default: {default}]"


_MODEL_HELP = "A packaged model, a checkpoint folder, or [hf:]user/repo[@revision] on the Hub."

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help=_MODEL_HELP,
        autocompletion=complete_model,
        rich_help_panel=MODEL,
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help=with_default(f"{_MODEL_HELP} Repeat it to compare several.", DEFAULT_MODEL),
        autocompletion=complete_model,
        rich_help_panel=MODEL,
    ),
]
LengthsOption = Annotated[
    LengthRange | None,
    typer.Option(
        "--lengths",
        metavar="MIN-MAX",
        parser=LengthRange.parse,
        help=with_default("The lengths of the strings.", DEFAULT_LENGTHS),
        rich_help_panel=STRINGS,
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        help="The seed that strings are drawn with.",
        rich_help_panel=STRINGS,
        **values.whole("--seed", 0, 2**63 - 1),
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="FOLDER",
        help="The Hub's cache.",
        show_default="the standard one, see HF_HOME",
        rich_help_panel=MODEL,
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Use the cache alone, never the network.", rich_help_panel=MODEL)
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="Where to compute; auto is the CPU for what has compiled kernels, else a GPU if any.",
        rich_help_panel=RUN,
        **values.choice("--device", get_args(Device)),
    ),
]


def show_help(context: typer.Context) -> None:
    """Show the help of a group of commands that is called without one: the group's callback."""
    if context.invoked_subcommand is None:
        Output().text(context.get_help())


LinesOption = Annotated[
    str | None,
    typer.Option(
        "--lines",
        rich_help_panel="Text",
        **values.choice("--lines", get_args(Meaning)),
        help=with_default(
            "How lines are meant: plain, marked (between $ and |), or auto, marked where they look it.",
            "plain; auto for an argument",
        ),
    ),
]
TraceOption = Annotated[
    bool,
    typer.Option("--trace", help="Show what the network does with its stack, a line a step.", rich_help_panel=OUTPUT),
]
PageOption = Annotated[
    Path | None,
    typer.Option(
        "--trace-html",
        metavar="FILE",
        help="Write a page that runs the network on the text, as stackrev page does.",
        rich_help_panel=OUTPUT,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="No progress and no notes on stderr.", rich_help_panel=OUTPUT)
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="How many threads may work at once; one a core if not given.",
        rich_help_panel=RUN,
        **values.whole("--threads", 1, 1024),
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


def load_model(name: str, *, offline: bool = False, cache_dir: Path | None = None, device: str = "cpu") -> Checkpoint:
    """A model by its name, on the device that --device names; see `find_model` and `find_device`."""
    from stackrev.models import load

    folder = find_model(name, offline=offline, cache_dir=cache_dir)
    return load(folder, name=name, device=find_device(device, folder))


def find_device(name: str, folder: Path) -> str | torch.device:
    """The device that --device names, for the model in a folder. The CPU is found without torch.

    Raises:
        CheckpointError: The model is damaged.
        TrainingError: The machine has no such device.
    """
    if name == "cpu":
        return name
    from stackrev.models.devices import resolve_device
    from stackrev.storage import checkpoints

    return resolve_device(name, checkpoints.describe(folder).config.model.kind)


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def version() -> str:
    """The version of stackrev, of torch, and which implementation of the stack is at work."""
    from importlib import metadata

    try:
        torch = f"torch {metadata.version('torch')}"
    except metadata.PackageNotFoundError:
        torch = "torch is not installed: only reverse works"
    return f"stackrev {__version__}\n{torch}\n{kernels.describe()}"


def share(value: float) -> str:
    """A share with four decimals, cut rather than rounded: only all is 1.0000."""
    return f"{math.floor(value * 10_000) / 10_000:.4f}"
