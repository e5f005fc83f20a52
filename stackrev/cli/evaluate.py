"""`stackrev evaluate`: coarse and fine accuracy of models on strings they have not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, fields
from math import floor, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from stackrev.cli import sizes, values
from stackrev.cli.common import (
    DEFAULT_LENGTHS,
    DEFAULT_MODEL,
    CacheOption,
    DeviceOption,
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
from stackrev.cli.help_pages import OUTPUT, STRINGS, App
from stackrev.cli.output import Output
from stackrev.config import LengthRange
from stackrev.errors import CheckpointError
from stackrev.tasks.data import PairsConfig, task_of

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.evaluation.totals import Totals
    from stackrev.models import Checkpoint
    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task
    from stackrev.tasks.draws import Drawn

DEFAULT_SAMPLES = 1000
PIECE_SYMBOLS, PIECE_STRINGS = 1 << 24, 100_000
"""How much is in memory at once; whatever is smaller is scored in one piece."""

app = App()


DataOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A data file to test on; --lengths and --samples then choose from it.",
        rich_help_panel=STRINGS,
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        help=with_default("How many strings.", f"{DEFAULT_SAMPLES}, or a whole data file"),
        rich_help_panel=STRINGS,
        **values.whole("--samples", 1),
    ),
]
ByLengthOption = Annotated[
    bool, typer.Option("--by-length", help="Also show the scores of each length.", rich_help_panel=OUTPUT)
]
MarginsOption = Annotated[
    bool,
    typer.Option(
        "--margins", help="Also show how far a stack-lstm is from deciding otherwise.", rich_help_panel=OUTPUT
    ),
]


@app.command(
    epilog=examples(
        "stackrev evaluate --lengths 65-128",
        "stackrev evaluate -m stack-lstm -m lstm --lengths 8-64 --by-length",
        "stackrev evaluate --data test.jsonl --json",
    ),
)
def evaluate(
    lengths: LengthsOption = None,
    model: ModelsOption = None,
    data: DataOption = None,
    samples: SamplesOption = None,
    seed: SeedOption = 0,
    by_length: ByLengthOption = False,
    margins: MarginsOption = False,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how well models do their tasks: reverse strings, or what each has learned.

    Coarse accuracy is the share of strings whose whole output is right, end marker included and nothing after it. Fine
    accuracy is the mean share of the output that is right before the first error. Strings of 65-128 symbols are drawn
    if nothing else is asked for, the same for every model of a task.

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
        strings: _Strings = _Drawn(lengths, samples, seed)
    else:
        strings = _Read(data, lengths, samples)
    checkpoints = [load_model(name, offline=offline, cache_dir=cache_dir, device=device) for name in names]
    for name, checkpoint in zip(names, checkpoints, strict=True):
        if margins and not isinstance(checkpoint.model, HasMargins):
            raise UsageError(f"{name} has no stack, and so no margins", hint="leave out --margins")
        strings.require_memory(checkpoint.model)
    results = [
        (name, _score(name, checkpoint, strings, output, margins=margins))
        for name, checkpoint in zip(names, checkpoints, strict=True)
    ]
    used = None if data else seed
    proved = {name: _proved(checkpoint, output) for name, checkpoint in zip(names, checkpoints, strict=True) if margins}
    output.result(
        [
            _result(name, strings.label(totals), used, totals, by_length=by_length, proved=proved.get(name))
            for name, totals in results
        ],
        lambda: _print(results, strings, output, by_length=by_length, proved=proved),
    )


def _proved(checkpoint: Checkpoint, output: Output) -> Mapping[str, float] | None:
    """The margins that the certificate beside a model's weights proves, by the names of `Margins`; None without one."""
    from stackrev.evaluation.margins import Margins
    from stackrev.models.certification import check_stored

    with output.busy("checking the certificate"):
        try:
            proof = check_stored(checkpoint.folder)
        except CheckpointError as error:
            output.note(error.message)
            return None
    if proof is None or proof.conditions is None:
        return None
    return {field.name: proof.conditions.margins[field.name] for field in fields(Margins)}


class _Strings(Protocol):
    """Where the strings come from: the same for every model of a task, a piece at a time.

    Attributes:
        path: The data file; None if strings are drawn.
        lengths: The lengths that are asked for; None if none are.
        samples: How many strings are; None if no number is.
    """

    path: Path | None
    lengths: LengthRange | None
    samples: int | None

    def total(self, task: Task, output: Output) -> int | None:
        """How many symbols there are to go through, if that is known before."""

    def pieces(self, task: Task) -> Iterator[list[Tensor]]:
        """The sources of a task."""

    def label(self, totals: Totals) -> str:
        """Their lengths."""

    def require_memory(self, model: Reverser[Any]) -> None:
        """Make sure that there is memory to score the longest of them, if it is known."""


class _Drawn:
    """Strings drawn by a seed."""

    path: Path | None = None

    def __init__(self, lengths: LengthRange | None, samples: int | None, seed: int) -> None:
        self.lengths, self.samples, self._seed = lengths, samples, seed
        self._lengths, self._samples = lengths or DEFAULT_LENGTHS, samples or DEFAULT_SAMPLES
        sizes.require_draw(self._lengths, self._samples)
        self._draws: dict[str, Drawn] = {}

    def total(self, task: Task, output: Output) -> int:
        with output.busy("drawing") if self._samples > sizes.MANY or not task.uniform else nullcontext():
            return 2 * (self._draw(task).symbols + self._samples)

    def pieces(self, task: Task) -> Iterator[list[Tensor]]:
        return self._draw(task).pieces(symbols=PIECE_SYMBOLS, strings=PIECE_STRINGS)

    def _draw(self, task: Task) -> Drawn:
        from stackrev.tasks.draws import draw

        if task.name not in self._draws:
            self._draws[task.name] = draw(task, self._lengths, self._samples, self._seed)
        return self._draws[task.name]

    def label(self, totals: Totals) -> str:
        shortest, longest = totals.lengths
        if self._lengths.minimum <= shortest and longest <= self._lengths.maximum:
            return str(self._lengths)
        return str(LengthRange(minimum=shortest, maximum=longest))

    def require_memory(self, model: Reverser[Any]) -> None:
        sizes.require_scoring(model, self._lengths.maximum)


class _Read:
    """The strings of a data file, of the wanted lengths, and no more than wanted."""

    def __init__(self, path: Path, lengths: LengthRange | None, samples: int | None) -> None:
        self.path: Path | None = path
        self.lengths, self.samples = lengths, samples
        self._path = path

    def total(self, task: Task, output: Output) -> None:
        return None

    def pieces(self, task: Task) -> Iterator[list[Tensor]]:
        from stackrev.storage import examples

        size = {"symbols": PIECE_SYMBOLS, "strings": PIECE_STRINGS}
        found = False
        for piece in examples.read(self._path, lengths=self.lengths, most=self.samples, task=task, **size):
            found = True
            yield piece
        if not found:
            message = f"{self._path} has no strings of {self.lengths} symbols"
            raise UsageError(message, hint="leave out --lengths to use all of it")

    def label(self, totals: Totals) -> str:
        shortest, longest = totals.lengths
        return str(LengthRange(minimum=shortest, maximum=longest))

    def require_memory(self, model: Reverser[Any]) -> None:
        pass  # only the file knows how long they are


def _score(name: str, checkpoint: Checkpoint, strings: _Strings, output: Output, *, margins: bool) -> Totals:
    from stackrev.evaluation.scoring import score, symbols_of
    from stackrev.evaluation.totals import Totals

    model, config, totals = checkpoint.model, checkpoint.config.data, Totals()
    if isinstance(config, PairsConfig):
        task, pieces = _pairs(config, strings)
        total = None
    else:
        task = task_of(config)
        pieces, total = strings.pieces(task), strings.total(task, output)
    with output.progress(name, total=total) as bar:
        for piece in pieces:
            sizes.require_scoring(model, max(map(len, piece)))
            if total is None:
                bar.expect(symbols_of(piece))
            totals.add(score(model, piece, task=task, margins=margins, on_progress=bar))
    return totals


def _pairs(config: PairsConfig, strings: _Strings) -> tuple[Task, Iterator[list[Tensor]]]:
    """What a model of pairs is tested on: those of a file, or those that its own file holds out to test with."""
    import torch

    from stackrev.storage import pairs

    task: Task
    if strings.path is not None:
        task, inputs = pairs.read_examples(strings.path, config)
        sources = [torch.tensor(each, dtype=torch.int64) for each in inputs]
    else:
        task = pairs.open_task(config)
        sources = (task.held_out() or ([], []))[1]
    if (wanted := strings.lengths) is not None:
        sources = [each for each in sources if wanted.minimum <= len(each) <= wanted.maximum]
    if not sources:
        raise UsageError(f"there are no pairs of {wanted} symbols to test on", hint="leave out --lengths")
    return task, iter([sources[: strings.samples]])


def _result(
    name: str,
    lengths: str,
    seed: int | None,
    totals: Totals,
    *,
    by_length: bool,
    proved: Mapping[str, float] | None,
) -> dict[str, Any]:
    """What `--json` says of one model."""
    result: dict[str, Any] = {"model": name, "lengths": lengths, "samples": totals.samples, "seed": seed}
    result |= {"coarse": totals.coarse, "fine": totals.fine}
    if totals.margins is not None:
        result["margins"] = {
            name: round(margin, 4) if isfinite(margin) else None for name, margin in asdict(totals.margins).items()
        }
        result["proved_margins"] = proved and {name: _floor(margin, 4) for name, margin in proved.items()}
    if by_length:
        result["by_length"] = [
            {"length": length, "samples": part.samples, "coarse": part.coarse, "fine": part.fine}
            for length, part in totals.by_length().items()
        ]
    return result


def _floor(margin: float, decimals: int) -> float:
    """A proved margin, cut rather than rounded: what is shown is proved too."""
    scale = 10.0**decimals
    return floor(margin * scale) / scale


def _print(
    results: list[tuple[str, Totals]],
    strings: _Strings,
    output: Output,
    *,
    by_length: bool,
    proved: Mapping[str, Mapping[str, float] | None],
) -> None:
    rows: list[tuple[str, ...]] = [("model", "lengths", "strings", "coarse", "fine")]
    for name, totals in results:
        parts = [(strings.label(totals), totals)]
        if by_length:
            parts += [(str(length), part) for length, part in totals.by_length().items()]
        rows += [(name, label, str(part.samples), share(part.coarse), share(part.fine)) for label, part in parts]
    output.table(rows)
    if proved:
        output.line()
        output.table(_margin_rows(results, proved))


def _margin_rows(
    results: list[tuple[str, Totals]], proved: Mapping[str, Mapping[str, float] | None]
) -> list[tuple[str, ...]]:
    """What the table of margins says: a line for each model, and below it one for what its certificate proves."""
    rows: list[tuple[str, ...]] = []
    for name, totals in results:
        if totals.margins is None:
            continue
        margins = asdict(totals.margins)
        if not rows:
            rows.append(("margins", *(head.replace("_", " ") for head in margins)))
        rows.append((name, *(f"{margin:.3f}" if isfinite(margin) else "-" for margin in margins.values())))
        if certain := proved.get(name):
            rows.append((f"{name}, proved", *(f"{_floor(certain[each], 3):.3f}" for each in margins)))
    return rows
