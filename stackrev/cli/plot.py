"""`stackrev plot`: the experiment's figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackrev.cli import sizes, values
from stackrev.cli.common import (
    DEFAULT_MODEL,
    ModelOption,
    ModelsOption,
    QuietOption,
    SeedOption,
    ThreadsOption,
    UsageError,
    examples,
    find_model,
    load_model,
    set_threads,
    show_help,
)
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output
from stackrev.cli.plot_data import checks, read_seeds, read_trials, setting_name
from stackrev.config import LengthRange
from stackrev.tasks.data import task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LENGTHS = "8,16,32,64,128,256,512,1024,2048,4096"
MOST_LINES = 6
"""More settings than this are compared in rows, since lines would hide each other."""
EXAMPLE = "$A string to reverse|"

app = App(
    name="plot",
    help="Draw the experiment's figures, as SVG or PNG.",
    epilog=examples(
        "stackrev plot learning -m stack-lstm -m lstm -m rnn",
        "stackrev plot lengths -m stack-lstm -m lstm -m rnn -o lengths.png",
        "stackrev plot gates 'hello world'",
        "stackrev plot consistency docs/results/seeds/default",
        "stackrev plot comparison docs/results/seeds/*/ --title 'Settings'",
    ),
    invoke_without_command=True,
    callback=show_help,
)

OutputOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where to draw it: .svg or .png; repeat it for both.",
        show_default="the figure's name, .svg",
    ),
]
TitleOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What to write above it.", show_default="what it shows")
]
TextArgument = Annotated[str, typer.Argument(metavar="TEXT", help="An ASCII string; $ and | around it are taken off.")]


@app.command()
def learning(
    model: ModelsOption = None,
    title: TitleOption = None,
    output: OutputOption = None,
) -> None:
    """Loss and fine accuracy while training, a line a model.

    They come from the histories of checkpoints.
    """
    _check(output)
    from stackrev import figures
    from stackrev.storage import checkpoints

    histories = {}
    for name in model or [DEFAULT_MODEL]:
        folder = find_model(name)
        kind = checkpoints.load_config(folder)[0].model.kind
        history = checks(checkpoints.read_history(folder), name)
        histories[kind if kind not in histories else name] = history
    figure = figures.learning.by_model(histories, **_titled(title))
    _write(figure, "learning", output)


@app.command()
def consistency(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What stackrev experiment run wrote, or its seeds.jsonl.")
    ],
    title: TitleOption = None,
    output: OutputOption = None,
) -> None:
    """Loss and fine accuracy while training, a line a seed."""
    _check(output)
    from stackrev import figures

    _write(figures.learning.by_seed(read_seeds(folder), title=title), "consistency", output)


@app.command()
def comparison(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="What stackrev experiment run wrote, a folder a setting.")
    ],
    title: TitleOption = None,
    output: OutputOption = None,
) -> None:
    """How many runs of each setting learn, and how soon."""
    _check(output)
    from stackrev import figures

    groups = {setting_name(folder): read_seeds(folder) for folder in folders}
    draw = figures.learning.by_setting if len(groups) <= MOST_LINES else figures.ranking.by_rank
    _write(draw(groups, title=title or "How settings compare"), "comparison", output)


@app.command()
def search(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What stackrev search --json printed.")],
    title: TitleOption = None,
    output: OutputOption = None,
) -> None:
    """What each trial of a search is worth, against each setting."""
    _check(output)
    from stackrev import figures

    _write(figures.search.trials(read_trials(file), **_titled(title)), "search", output)


@app.command()
def lengths(
    model: ModelsOption = None,
    at: Annotated[str, typer.Option("--lengths", metavar="N,N,...", help="At which lengths.")] = LENGTHS,
    samples: Annotated[int, typer.Option(help="How many strings of each length.", **values.whole("--samples", 1))] = 50,
    seed: SeedOption = 0,
    title: TitleOption = None,
    output: OutputOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Accuracy against the length of the string, a line a model."""
    _check(output)
    from stackrev import figures

    wanted = _parse_lengths(at)
    sizes.require_draw(LengthRange(minimum=wanted[0], maximum=wanted[-1]), samples)
    set_threads(threads)
    names = model or [DEFAULT_MODEL]

    with Output(quiet=quiet).busy("loading"):
        import torch

        from stackrev.evaluation.scoring import score, symbols_of

        figures.require()
    scores, trained = {}, None
    for name in names:
        checkpoint = load_model(name)
        sizes.require_scoring(checkpoint.model, wanted[-1])
        trained = trained or checkpoint.config.data.lengths
        if not task_of(checkpoint.config.data).knows:
            hint = "stackrev evaluate --by-length scores the pairs of its file"
            raise UsageError(f"nobody knows the right answers of {name} at other lengths", hint=hint)
        task, generator = task_of(checkpoint.config.data), torch.Generator().manual_seed(seed)
        strings = [
            string
            for length in wanted
            for string in task.draw(LengthRange(minimum=length, maximum=length), samples, generator)
        ]
        with Output(quiet=quiet).progress(name, total=symbols_of(strings)) as advance:
            each = score(checkpoint.model, strings, task=task, on_progress=advance).by_length().values()
        kind = checkpoint.config.model.kind
        scores[kind if kind not in scores else name] = figures.lengths.LengthScores(
            wanted, [part.coarse for part in each], [part.fine for part in each], samples
        )
    assert trained is not None
    _write(
        figures.lengths.accuracy(scores, trained=(trained.minimum, trained.maximum), **_titled(title)),
        "lengths",
        output,
    )


@app.command()
def gates(
    text: TextArgument = EXAMPLE,
    model: ModelOption = DEFAULT_MODEL,
    title: TitleOption = None,
    output: OutputOption = None,
) -> None:
    """Push and pop strengths while one string is reversed."""
    _check(output)
    from stackrev import figures

    _write(figures.traces.gates(_trace(model, text), title=title), "gates", output)


@app.command()
def stack(
    text: TextArgument = EXAMPLE,
    model: ModelOption = DEFAULT_MODEL,
    title: TitleOption = None,
    output: OutputOption = None,
) -> None:
    """What is on the stack while one string is reversed."""
    _check(output)
    from stackrev import figures

    _write(figures.traces.contents(_trace(model, text), title=title), "stack", output)


def _trace(name: str, text: str) -> Any:
    from stackrev import figures

    with Output().busy("loading"):
        from stackrev.evaluation.capabilities import CanTrace
        from stackrev.evaluation.traces import trace

        figures.require()
    checkpoint = load_model(name)
    model = checkpoint.model
    if not isinstance(model, CanTrace):
        raise UsageError(f"{name} has no stack", hint=f"name a {DEFAULT_MODEL}")
    if len(text) > 1 and text.startswith("$") and text.endswith("|"):
        text = text[1:-1]
    if len(text) > 200:
        raise UsageError(f"{len(text)} symbols are too many for one figure", hint="give at most 200")
    return trace(model, text, task_of(checkpoint.config.data))


def _parse_lengths(text: str) -> list[int]:
    try:
        wanted = sorted({int(each) for each in text.split(",")})
    except ValueError:
        raise UsageError(f"{text!r} is not a list of lengths", hint="write 8,64,512") from None
    if wanted[0] < 1:
        raise UsageError("lengths must be at least 1")
    return wanted


def _titled(title: str | None) -> dict[str, Any]:
    return {} if title is None else {"title": title}


def _check(output: list[Path] | None) -> None:
    """Refuse a file that cannot become a figure, and a closed stdout, before any work is done."""
    from stackrev.figures import FORMATS

    Output()
    for path in output or ():
        if path.suffix[1:].lower() not in FORMATS:
            raise UsageError(f"{path} is neither an .svg nor a .png", hint="name the file .svg or .png")


def _write(figure: Figure, name: str, output: list[Path] | None) -> None:
    from stackrev.figures import render
    from stackrev.storage import files

    out = Output()
    for path in output or [Path(f"{name}.svg")]:
        with out.busy(f"drawing {path}"):
            data = render(figure, path.suffix[1:].lower())
        files.write(path, data)
        out.line(str(path))
