"""`stackrev generate-data`: strings to test on, as a data file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from stackrev.cli import settings, sizes, values
from stackrev.cli.common import (
    DEFAULT_LENGTHS,
    LengthsOption,
    QuietOption,
    SeedOption,
    UsageError,
    examples,
    with_default,
)
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output, counted
from stackrev.cli.settings import TaskOption
from stackrev.tasks import REVERSAL, TASKS, vocabulary

PIECE_SYMBOLS, PIECE_STRINGS = 1 << 20, 20_000
"""How much is in memory at once."""

app = App()


@app.command(
    epilog=examples(
        "stackrev generate-data --lengths 65-128 --samples 1000 -o test.jsonl",
        "stackrev generate-data --lengths 8 --samples 3 --alphabet abc",
        "stackrev generate-data --task gender --lengths 8-20 --samples 5",
    ),
)
def generate_data(
    task_name: TaskOption = REVERSAL.name,
    lengths: LengthsOption = None,
    samples: Annotated[int, typer.Option(help="How many strings to draw.", **values.whole("--samples", 1))] = 1000,
    seed: SeedOption = 0,
    alphabet: Annotated[
        str | None,
        typer.Option(
            metavar="CHARACTERS",
            help=with_default("The ASCII characters to draw from; for tasks on any characters.", "all 128"),
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help=with_default("Where to write.", "stdout"))
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write random strings and what is to be written for them, such as their reversals, as JSON Lines.

    Each line is {"input": "$...|", "target": "...&"}. `stackrev evaluate` draws the same strings from the same lengths,
    samples and seed, for a model of the same task.
    """
    file = None if output is None or str(output) == "-" else output
    out = Output(quiet=quiet, result=file is None)
    lengths = lengths or DEFAULT_LENGTHS
    sizes.require_draw(lengths, samples, written=True)
    if alphabet == "":
        raise UsageError("the alphabet is empty", hint="name the characters, as in --alphabet abc")
    task = TASKS[settings.task_named(task_name)]
    if alphabet is not None and task.vocabulary is not vocabulary.ASCII:
        raise UsageError(f"{task.name} has words of its own", hint="leave out --alphabet")
    symbols = None if alphabet is None else list(dict.fromkeys(vocabulary.encode(alphabet)))
    with out.busy("drawing"):
        from stackrev.storage import examples as data
        from stackrev.tasks.draws import draw

        drawn = draw(task, lengths, samples, seed, alphabet=symbols)
        pieces = drawn.pieces(symbols=PIECE_SYMBOLS, strings=PIECE_STRINGS)
        first = next(pieces)  # the lengths of all strings are drawn before it
    strings = (string for piece in itertools.chain([first], pieces) for string in piece)
    with out.progress("writing", total=samples, wait=True) as bar:
        if file is None:
            for line in data.lines(counted(strings, bar), task):
                out.line(line.decode().removesuffix("\n"))
            out.flush()
        else:
            data.save(file, counted(strings, bar), task)
    if file is not None:
        out.note(f"wrote {samples} strings to {file}")
