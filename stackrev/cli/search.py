"""`stackrev search`: look for better settings, with as many workers as there are machines for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stackrev.cli import settings, values
from stackrev.cli.common import (
    DEFAULT_MODEL,
    JsonOption,
    QuietOption,
    ThreadsOption,
    UsageError,
    examples,
    set_threads,
)
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output
from stackrev.cli.runs_view import RunsView, runs_view
from stackrev.experiments.search import Result, Search, Step, space_of
from stackrev.kinds.config import Config

app = App()
_SPACE = ", ".join(space_of(Config()))
SEARCH = "Search"

TrialsOption = Annotated[
    int,
    typer.Option(
        help="How many trials the study is to have in all; 0 shows what it has.",
        rich_help_panel=SEARCH,
        **values.whole("--trials", 0),
    ),
]
StudyOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The study.", show_default="the model", rich_help_panel=SEARCH)
]
JournalOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The file that holds the study.",
        show_default="runs/search.journal",
        rich_help_panel=SEARCH,
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A database instead, for workers on many machines.", rich_help_panel=SEARCH),
]
VaryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SETTINGS", help=f"What to vary, of {_SPACE}.", show_default="all not given", rich_help_panel=SEARCH
    ),
]
PruneOption = Annotated[
    bool, typer.Option(help="Whether to give up trials that fall behind at a check.", rich_help_panel=SEARCH)
]
BestOption = Annotated[
    int,
    typer.Option(help="How many of the best trials to show.", rich_help_panel=SEARCH, **values.whole("--best", 1)),
]


@app.command(
    epilog=examples(
        "stackrev search --trials 50",
        "stackrev search -m lstm --batches 2000 --check-every 200 --layers 2",
        "stackrev search --vary learning_rate,layers --storage postgresql://me@host/s",
        "stackrev search --trials 0",
    ),
)
@settings.options
def search(
    *,
    kind: settings.Kind = None,
    trials: TrialsOption = 30,
    study: StudyOption = None,
    journal: JournalOption = None,
    storage: StorageOption = None,
    vary: VaryOption = None,
    prune: PruneOption = True,
    best: BestOption = 10,
    given: settings.Given,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search for the settings that a model learns best with.

    A trial is worth the mean of its validation fine accuracy over its checks. A setting given as an option is kept
    as given. The same command started again, here or on any machine that reaches the study, adds a worker, or goes on
    where a search was stopped. A database's password need not be in its address: PostgreSQL reads ~/.pgpass.
    """
    if journal is not None and storage is not None:
        raise UsageError("a study is either in a --journal or in a --storage", hint="leave one of them out")
    output = Output(json=json, quiet=quiet)
    config = settings.configure(Config.default(kind or DEFAULT_MODEL), given)
    journal = None if storage else journal or Path("runs") / "search.journal"
    name = study or config.model.kind
    interrupted = False
    with runs_view(output) as view:
        view.at("study", f"opening the study {name}")
        if trials == 0 and vary is None and not given:
            worker = Search.show(name, journal=journal, storage=storage)
        else:
            over = _varied(config, vary, list(given))
            settle = config.training.settle_batches
            base = config if {"settle", "settle_batches"} & given.keys() else _unsettled(config)
            worker = Search(name, base, over=over, journal=journal, storage=storage, prune=prune, settle_batches=settle)
        try:
            if trials:
                set_threads(threads)
                interrupted = not _work(worker, trials, view)
            found = _found(worker, name, best)
        finally:
            worker.close()
    if interrupted:
        output.note("stopped; the trial that was running is put back, and the same command goes on")
    output.result(found, lambda: _print(output, found, worker.over))
    if interrupted:
        raise typer.Exit(130)


_STATES = ("complete", "pruned", "running", "failed")
_COLUMNS = {
    "value": "value",
    "validation": "validation",
    "test": "test",
    "solved_batch": "solved at",
    "seconds": "seconds",
}


def _unsettled(config: Config) -> Config:
    """The same without settling: a trial that is solved has nothing more to tell."""
    training = dataclasses.replace(config.training, settle="plain", settle_batches=0)
    return dataclasses.replace(config, training=training)


def _varied(config: Config, vary: str | None, given: Sequence[str]) -> list[str]:
    """What is to be varied.

    Raises:
        UsageError: Nothing is, or something that is also given.
    """
    if vary is None:
        over = [name for name in space_of(config) if name not in given]
    else:
        over = [name for each in vary.split(",") if (name := each.strip())]
        if both := [name for name in over if name in given]:
            raise UsageError(f"{both[0]} is both given and to be varied", hint="leave one of them out")
    if not over:
        raise UsageError("there is nothing to vary", hint="give fewer settings")
    return over


def _work(worker: Search, trials: int, view: RunsView) -> bool:
    """Run trials; whether they came to their end, or were interrupted."""

    def tell(result: Result) -> None:
        best = worker.best(1)
        words = [f"trial {result.number} {result.state}: {_number(result.value)}"]
        if best:
            words.append(f"(best {_number(best[0].value)}, trial {best[0].number})")
        words += [f"{name} {_number(value)}" for name, value in result.settings.items()]
        view.line(" ".join(words))
        view.at("study", f"looking for work after trial {result.number}")

    def step(now: Step) -> None:
        fine = "" if now.fine is None else f", fine {now.fine:.3f}"
        words = f"trial {now.number} of {trials}: batch {now.batch} of {now.batches}, loss {now.loss:.3f}{fine}"
        view.at("study", words, done=now.batch, total=now.batches)

    def wait(running: int) -> None:
        view.at("study", f"waiting for {running} trial{'s' * (running != 1)} of other workers")

    try:
        view.at("study", "starting the first trial")
        worker.work(trials, on_result=tell, on_step=step, on_wait=wait)
    except KeyboardInterrupt:
        return False
    return True


def _found(worker: Search, name: str, best: int) -> dict[str, Any]:
    """What a study holds, as plain JSON values."""
    results, winners = worker.results(), worker.best(best)
    return {
        "study": name,
        "trials": {state: sum(each.state == state for each in results) for state in _STATES},
        "best": [each.to_dict() for each in winners],
        "all": [each.to_dict() for each in results],
        "command": _command(winners[0], worker.settle_batches) if winners else None,
    }


def _print(output: Output, found: Mapping[str, Any], over: Sequence[str]) -> None:
    counts = [f"{count} {state}" for state, count in found["trials"].items() if count]
    output.line(f"study {found['study']}: {', '.join(counts) or 'no trial yet'}")
    if found["best"]:
        output.table([("trial", *_COLUMNS.values(), *over), *(_row(each, over) for each in found["best"])])
        output.text(f"to train the best of them:\n{found['command']}")


def _command(winner: Result, settle: int | None) -> str:
    training = winner.config.training
    if training == _unsettled(winner.config).training:  # only its trials went without
        settled = Config.default(winner.config.model.kind, winner.config.data.task).training.settle
        training = dataclasses.replace(training, settle=settled)
    training = dataclasses.replace(training, settle_batches=settle)
    return settings.command_line(dataclasses.replace(winner.config, training=training))


def _row(trial: Mapping[str, Any], over: Sequence[str]) -> tuple[str, ...]:
    outcome = [_number(trial.get(key)) for key in _COLUMNS]
    return (str(trial["number"]), *outcome, *(_number(trial["settings"].get(name)) for name in over))


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
