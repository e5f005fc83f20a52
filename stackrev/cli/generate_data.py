"""`stackrev generate-data`: strings to test on, as a data file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from stackrev.cli import sizes
from stackrev.cli.common import (
    DEFAULT_LENGTHS,
    LengthsOption,
    QuietOption,
    SeedOption,
    UsageError,
    examples,
    with_default,
)
from stackrev.cli.output import Output, counted
from stackrev.tasks import vocabulary

PIECE_SYMBOLS, PIECE_STRINGS = 1 << 20, 20_000
"""How much is in memory at once."""

app = typer.Typer()


@app.command(
    epilog=examples(
        "stackrev generate-data --lengths 65-128 --samples 1000 --seed 0 -o test.jsonl",
        "stackrev generate-data --lengths 8 --samples 3 --alphabet abc",
    ),
)
def generate_data(
    lengths: LengthsOption = None,
    samples: Annotated[int, typer.Option(metavar="<int>", min=1, help="How many strings to draw.")] = 1000,
    seed: SeedOption = 0,
    alphabet: Annotated[
        str | None,
        typer.Option(metavar="CHARACTERS", help=with_default("The ASCII characters to draw from.", "all 128")),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help=with_default("Where to write.", "stdout"))
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write random strings and their reversals as JSON Lines.

    Each line is {"input": "$...|", "target": "...&"}. `stackrev evaluate` draws the same strings from the same lengths,
    samples and seed.
    """
    file = None if output is None or str(output) == "-" else output
    out = Output(quiet=quiet, result=file is None)
    lengths = lengths or DEFAULT_LENGTHS
    sizes.require_draw(lengths, samples, written=True)
    if alphabet == "":
        raise UsageError("the alphabet is empty", hint="name the characters, as in --alphabet abc")
    symbols = None if alphabet is None else list(dict.fromkeys(vocabulary.encode(alphabet)))
    with out.busy("drawing"):
        from stackrev.storage import examples as data
        from stackrev.tasks.draws import Draw

        draw = Draw(lengths, samples, seed, alphabet=symbols)
        pieces = draw.pieces(symbols=PIECE_SYMBOLS, strings=PIECE_STRINGS)
        first = next(pieces)  # the lengths of all strings are drawn before it
    strings = (string for piece in itertools.chain([first], pieces) for string in piece)
    with out.progress("writing", total=samples, wait=True) as bar:
        if file is None:
            for line in data.lines(counted(strings, bar)):
                out.line(line.decode().removesuffix("\n"))
            out.flush()
        else:
            data.save(file, counted(strings, bar))
    if file is not None:
        out.note(f"wrote {samples} strings to {file}")
