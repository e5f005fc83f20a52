"""`stackrev evaluate`: coarse and fine accuracy of models on strings they have not seen."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackrev.cli.common import (
    DEFAULT_LENGTHS,
    DEFAULT_MODEL,
    CacheOption,
    JsonOption,
    LengthsOption,
    ModelsOption,
    OfflineOption,
    QuietOption,
    SeedOption,
    ThreadsOption,
    UsageError,
    check_size,
    examples,
    load_model,
    set_threads,
    share,
    with_default,
)
from stackrev.cli.output import Output
from stackrev.config import LengthRange

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.evaluation.scoring import Scores

DEFAULT_SAMPLES = 1000

app = typer.Typer()


@app.command(
    epilog=examples(
        "stackrev evaluate --lengths 65-128",
        "stackrev evaluate --model stack-lstm --model runs/lstm-seed0 --lengths 8-64 --by-length",
        "stackrev evaluate --data test.jsonl --json",
    ),
)
def evaluate(
    lengths: LengthsOption = None,
    model: ModelsOption = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A data file to test on; --lengths and --samples then choose from it."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="<int>", min=1, help=with_default("How many strings.", f"{DEFAULT_SAMPLES}, or a whole data file")
        ),
    ] = None,
    seed: SeedOption = 0,
    by_length: Annotated[bool, typer.Option("--by-length", help="Also show the scores of each length.")] = False,
    margins: Annotated[
        bool, typer.Option("--margins", help="Also show how far a stack-lstm is from deciding otherwise.")
    ] = False,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how well models reverse strings.

    Coarse accuracy is the share of strings whose whole output is right, end marker included and nothing after it. Fine
    accuracy is the mean share of the output that is right before the first error. Strings of 65-128 symbols are drawn
    if nothing else is asked for, the same for every model.

    Margins are the least over all strings, each up to its first error or its last symbol. Those of the push and pop
    gates are by how much their pre-activations are past the point from which a gate is exactly 0 or 1; a negative one
    has been between. That of the logits is by how much the right symbol's exceeds the second best.
    """
    out = Output(json=json, quiet=quiet)
    set_threads(threads)
    if data is None:
        asked = lengths or DEFAULT_LENGTHS
        strings = _draw(asked, samples or DEFAULT_SAMPLES, seed)
    else:
        strings = _read(data, lengths, samples)
        found = [len(each) for each in strings]
        asked = LengthRange(minimum=min(found), maximum=max(found))

    from stackrev.evaluation.scoring import score, symbols_of

    names = model or [DEFAULT_MODEL]
    checkpoints = [load_model(name, offline=offline, cache_dir=cache_dir) for name in names]
    for name, checkpoint in zip(names, checkpoints, strict=True):
        if margins and checkpoint.model.config.kind != "stack-lstm":
            raise UsageError(f"{name} has no stack, and so no margins", hint="leave out --margins")
    results = []
    for name, checkpoint in zip(names, checkpoints, strict=True):
        with out.progress(name, total=symbols_of(strings)) as advance:
            results.append((name, score(checkpoint.model, strings, margins=margins, on_progress=advance)))
    used = None if data else seed
    out.result(
        [_result(name, asked, used, scores, by_length=by_length) for name, scores in results],
        lambda: _print_scores(out, asked, results, by_length=by_length, margins=margins),
    )


def _print_scores(
    out: Output, lengths: LengthRange, results: list[tuple[str, Scores]], *, by_length: bool, margins: bool
) -> None:
    rows = [row for name, scores in results for row in _rows(name, lengths, scores, by_length=by_length)]
    out.table([("model", "lengths", "strings", "coarse", "fine"), *rows])
    if margins:
        out.line()
        out.table(_margin_rows(results))


def _draw(lengths: LengthRange, samples: int, seed: int) -> list[Tensor]:
    import torch

    from stackrev.tasks.batches import sample_strings

    check_size(lengths, samples)
    return sample_strings(lengths, samples, torch.Generator().manual_seed(seed))


def _read(path: Path, lengths: LengthRange | None, samples: int | None) -> list[Tensor]:
    from stackrev.tasks.batches import read_examples

    strings = read_examples(path)
    if lengths is not None:
        strings = [each for each in strings if lengths.minimum <= len(each) <= lengths.maximum]
        if not strings:
            raise UsageError(f"{path} has no strings of {lengths} symbols", hint="leave out --lengths to use all of it")
    return strings[:samples]


def _result(name: str, lengths: LengthRange, seed: int | None, scores: Scores, *, by_length: bool) -> dict[str, Any]:
    """What `--json` says of one model."""
    result = {"model": name, "lengths": str(lengths), "samples": scores.samples, "seed": seed}
    result |= {"coarse": scores.coarse, "fine": scores.fine}
    if scores.margins is not None:
        result["margins"] = {
            name: round(margin, 4) if isfinite(margin) else None for name, margin in asdict(scores.margins).items()
        }
    if by_length:
        result["by_length"] = [
            {"length": length, "samples": each.samples, "coarse": each.coarse, "fine": each.fine}
            for length, each in scores.by_length().items()
        ]
    return result


def _rows(name: str, lengths: LengthRange, scores: Scores, *, by_length: bool) -> list[tuple[str, ...]]:
    """What the table says of one model."""
    parts = [(str(lengths), scores)]
    if by_length:
        parts += [(str(length), each) for length, each in scores.by_length().items()]
    return [(name, label, str(each.samples), share(each.coarse), share(each.fine)) for label, each in parts]


def _margin_rows(results: list[tuple[str, Scores]]) -> list[tuple[str, ...]]:
    """What the table of margins says, a model a line."""
    found = [(name, asdict(scores.margins)) for name, scores in results if scores.margins is not None]
    heads = [head.replace("_", " ") for head in found[0][1]]
    shown = [
        (name, *(f"{each:.3f}" if isfinite(each) else "-" for each in margins.values())) for name, margins in found
    ]
    return [("margins", *heads), *shown]
