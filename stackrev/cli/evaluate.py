"""`stackrev evaluate`: coarse and fine accuracy of models on strings they have not seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from stackrev.cli import sizes
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
    examples,
    load_model,
    set_threads,
    share,
    with_default,
)
from stackrev.cli.output import Output
from stackrev.config import LengthRange
from stackrev.tasks import TASKS

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.evaluation.totals import Totals
    from stackrev.models import Checkpoint
    from stackrev.models.base import Reverser

DEFAULT_SAMPLES = 1000
PIECE_SYMBOLS, PIECE_STRINGS = 1 << 24, 100_000
"""How much is in memory at once; whatever is smaller is scored in one piece."""

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
    output = Output(json=json, quiet=quiet)
    set_threads(threads)
    with output.busy("loading"):
        from stackrev.evaluation.capabilities import HasMargins

    names = model or [DEFAULT_MODEL]
    if data is None:
        strings: _Strings = _Drawn(lengths or DEFAULT_LENGTHS, samples or DEFAULT_SAMPLES, seed)
    else:
        strings = _Read(data, lengths, samples)
    checkpoints = [load_model(name, offline=offline, cache_dir=cache_dir) for name in names]
    for name, checkpoint in zip(names, checkpoints, strict=True):
        if margins and not isinstance(checkpoint.model, HasMargins):
            raise UsageError(f"{name} has no stack, and so no margins", hint="leave out --margins")
        strings.require_memory(checkpoint.model)
    results = [
        (name, _score(name, checkpoint, strings, output, margins=margins))
        for name, checkpoint in zip(names, checkpoints, strict=True)
    ]
    used = None if data else seed
    output.result(
        [_result(name, strings.label(totals), used, totals, by_length=by_length) for name, totals in results],
        lambda: _print(results, strings, output, by_length=by_length, margins=margins),
    )


class _Strings(Protocol):
    """Where the strings come from: the same for every model, a piece at a time."""

    def total(self, output: Output) -> int | None:
        """How many symbols there are to go through, if that is known before."""

    def pieces(self) -> Iterator[list[Tensor]]:
        """The strings."""

    def label(self, totals: Totals) -> str:
        """Their lengths."""

    def require_memory(self, model: Reverser[Any]) -> None:
        """Make sure that there is memory to score the longest of them, if it is known."""


class _Drawn:
    """Strings drawn by a seed."""

    def __init__(self, lengths: LengthRange, samples: int, seed: int) -> None:
        from stackrev.tasks.draws import Draw

        sizes.require_draw(lengths, samples)
        self._lengths, self._draw = lengths, Draw(lengths, samples, seed)

    def total(self, output: Output) -> int:
        with output.busy("drawing") if self._draw.samples > sizes.MANY else nullcontext():
            return 2 * (self._draw.symbols + self._draw.samples)

    def pieces(self) -> Iterator[list[Tensor]]:
        return self._draw.pieces(symbols=PIECE_SYMBOLS, strings=PIECE_STRINGS)

    def label(self, totals: Totals) -> str:
        return str(self._lengths)

    def require_memory(self, model: Reverser[Any]) -> None:
        sizes.require_scoring(model, self._lengths.maximum)


class _Read:
    """The strings of a data file, of the wanted lengths, and no more than wanted."""

    def __init__(self, path: Path, lengths: LengthRange | None, samples: int | None) -> None:
        self._path, self._lengths, self._samples = path, lengths, samples

    def total(self, output: Output) -> None:
        return None

    def pieces(self) -> Iterator[list[Tensor]]:
        from stackrev.storage import examples

        size = {"symbols": PIECE_SYMBOLS, "strings": PIECE_STRINGS}
        found = False
        for piece in examples.read(self._path, lengths=self._lengths, most=self._samples, **size):
            found = True
            yield piece
        if not found:
            message = f"{self._path} has no strings of {self._lengths} symbols"
            raise UsageError(message, hint="leave out --lengths to use all of it")

    def label(self, totals: Totals) -> str:
        shortest, longest = totals.lengths
        return str(LengthRange(minimum=shortest, maximum=longest))

    def require_memory(self, model: Reverser[Any]) -> None:
        pass  # only the file knows how long they are


def _score(name: str, checkpoint: Checkpoint, strings: _Strings, output: Output, *, margins: bool) -> Totals:
    from stackrev.evaluation.scoring import score, symbols_of
    from stackrev.evaluation.totals import Totals

    model, task = checkpoint.model, TASKS[checkpoint.config.data.task]
    totals, total = Totals(), strings.total(output)
    with output.progress(name, total=total) as bar:
        for piece in strings.pieces():
            sizes.require_scoring(model, max(map(len, piece)))
            if total is None:
                bar.expect(symbols_of(piece))
            totals.add(score(model, piece, task=task, margins=margins, on_progress=bar))
    return totals


def _result(name: str, lengths: str, seed: int | None, totals: Totals, *, by_length: bool) -> dict[str, Any]:
    """What `--json` says of one model."""
    result: dict[str, Any] = {"model": name, "lengths": lengths, "samples": totals.samples, "seed": seed}
    result |= {"coarse": totals.coarse, "fine": totals.fine}
    if totals.margins is not None:
        result["margins"] = {
            name: round(margin, 4) if isfinite(margin) else None for name, margin in asdict(totals.margins).items()
        }
    if by_length:
        result["by_length"] = [
            {"length": length, "samples": part.samples, "coarse": part.coarse, "fine": part.fine}
            for length, part in totals.by_length().items()
        ]
    return result


def _print(
    results: list[tuple[str, Totals]], strings: _Strings, output: Output, *, by_length: bool, margins: bool
) -> None:
    rows: list[tuple[str, ...]] = [("model", "lengths", "strings", "coarse", "fine")]
    for name, totals in results:
        parts = [(strings.label(totals), totals)]
        if by_length:
            parts += [(str(length), part) for length, part in totals.by_length().items()]
        rows += [(name, label, str(part.samples), share(part.coarse), share(part.fine)) for label, part in parts]
    output.table(rows)
    if margins:
        output.line()
        output.table(_margin_rows(results))


def _margin_rows(results: list[tuple[str, Totals]]) -> list[tuple[str, ...]]:
    """What the table of margins says, a model a line."""
    found = [(name, asdict(totals.margins)) for name, totals in results if totals.margins is not None]
    heads = [head.replace("_", " ") for head in found[0][1]]
    shown = [
        (name, *(f"{margin:.3f}" if isfinite(margin) else "-" for margin in margins.values()))
        for name, margins in found
    ]
    return [("margins", *heads), *shown]
