"""`stackrev generate-data`: strings to test on, as a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stackrev.cli.common import (
    DEFAULT_LENGTHS,
    LengthsOption,
    QuietOption,
    SeedOption,
    UsageError,
    check_size,
    examples,
    with_default,
)
from stackrev.cli.output import Output, counted
from stackrev.tasks import vocabulary

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
    check_size(lengths, samples)
    if alphabet == "":
        raise UsageError("the alphabet is empty", hint="name the characters, as in --alphabet abc")
    symbols = range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE) if alphabet is None else vocabulary.encode(alphabet)

    import torch

    from stackrev.tasks.batches import sample_strings, save_examples, write_examples

    strings = sample_strings(
        lengths, samples, torch.Generator().manual_seed(seed), alphabet=list(dict.fromkeys(symbols))
    )
    if file is None:
        write_examples(strings, out)
        return
    with out.progress("writing", total=samples) as advance:
        save_examples(counted(strings, advance), file)
    out.note(f"wrote {samples} strings to {file}")
