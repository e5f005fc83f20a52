"""`stackrev experiment`: train one setting with many seeds, and see how often and how well it learns."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stackrev.cli import measured, settings, values
from stackrev.cli.common import (
    DEFAULT_MODEL,
    JsonOption,
    QuietOption,
    examples,
    show_help,
    with_default,
)
from stackrev.cli.help_pages import MODEL, RUN, App
from stackrev.cli.output import Output
from stackrev.cli.runs_view import RunsView, runs_view
from stackrev.experiments import presets, tables
from stackrev.experiments.seeds import read_seeds
from stackrev.experiments.setting import SETTING, ExperimentSetting, read_setting

app = App(
    name="experiment",
    help="Train one setting with many seeds, and count how many learn.",
    invoke_without_command=True,
    callback=show_help,
    epilog=examples(
        "stackrev experiment run runs/default --seeds 0-9",
        "stackrev experiment rerun docs/results/seeds/default 17",
        "stackrev experiment table docs/results/seeds/*/",
    ),
)

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the experiment is kept.")]
StorageOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A database, for workers that don't share the folder.", rich_help_panel=RUN),
]
StudyOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Its name in the database.", show_default="the folder's", rich_help_panel=RUN),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Another value of a setting of `train`; may be repeated.",
        rich_help_panel=MODEL,
    ),
]
SettingOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=with_default(f"One of: {', '.join(presets.PRESETS)}.", "default"), rich_help_panel=MODEL
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        help="How many processes train side by side.",
        show_default="one a core",
        rich_help_panel=RUN,
        **values.whole("--workers", 1, 1024),
    ),
]


SeedsOption = Annotated[
    str,
    typer.Option(metavar="SEEDS", help="The seeds it is to have, such as 0-99 or 3,5,10-19.", rich_help_panel=RUN),
]
NameOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What tables call it.", show_default="what it sets", rich_help_panel=MODEL),
]
KeepWeightsOption = Annotated[
    bool,
    typer.Option(
        "--keep-weights",
        help="Keep each trained model as a checkpoint in FOLDER/weights.",
        rich_help_panel=RUN,
    ),
]


@app.command(
    epilog=examples(
        "stackrev experiment run runs/default --seeds 0-99 --exact 10000:20",
        "stackrev experiment run runs/small --set hidden_size=32 --set stack_width=32",
        "stackrev experiment run runs/published --setting published --seeds 0-5",
        "stackrev experiment run runs/default --runs-of-each 10000 --proof",
        "stackrev experiment run runs/unseen --unseen 65-128:1000",
        "stackrev experiment run runs/default --storage postgresql://me@host/studies",
    )
)
@measured.options
def run(
    *,
    folder: FolderArgument,
    seeds: SeedsOption = "0-9",
    kind: settings.Kind = None,
    setting: SettingOption = None,
    changes: SetOption = None,
    name: NameOption = None,
    asked: measured.Asked,
    workers: WorkersOption = None,
    keep_weights: KeepWeightsOption = False,
    storage: StorageOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a setting with many seeds.

    A seed is written down when it is done: the same command goes on where it was stopped, and started again at the
    same time, here or on another machine, it takes its share of the seeds. A FOLDER that holds an experiment goes on
    with its own setting. It has setting.json, seeds.jsonl (a line a seed, with its history) and summary.json. A run's
    weights are the same bit for bit wherever it is trained with the same versions on the same kind of processor.
    """
    from stackrev.experiments import experiment

    wanted = presets.parse_seeds(seeds)
    if (folder / SETTING).exists() and not any((kind, setting, changes, asked)):
        what = read_setting(folder)
    else:
        what = _setting(kind or DEFAULT_MODEL, setting or "default", changes or [], asked, name)
    output = Output(json=json, quiet=quiet)
    with runs_view(output) as view:
        telling = _Telling(view, len(wanted))
        try:
            summary = experiment.run(
                folder,
                what,
                wanted,
                workers=workers or os.cpu_count() or 1,
                storage=storage,
                study=study,
                keep_weights=keep_weights,
                on_result=telling.result,
                on_stage=telling.stage,
                on_wait=telling.wait,
            )
        except KeyboardInterrupt:
            output.note("stopped; the same command goes on from here")
            raise
    output.result(summary, lambda: output.table(tables.table_cells(tables.tabulate([summary]))))
    again = shlex.join(["stackrev", "experiment", "rerun", str(folder), str(wanted[0])])
    output.hint(f"any seed again, and compared: {again}")


def _setting(
    kind: str, setting: str, changes: Sequence[str], asked: measured.Asked, name: str | None
) -> ExperimentSetting:
    """What the options of `run` ask for."""
    config = presets.configure(kind, {**presets.preset(setting), **presets.parse_changes(changes)})
    return ExperimentSetting(name or " ".join([kind, setting, *changes]), config, asked)


@app.command(
    epilog=examples(
        "stackrev experiment rerun docs/results/seeds/default 17 65", "stackrev experiment rerun runs/default 0 --json"
    )
)
def rerun(
    folder: FolderArgument,
    seeds: Annotated[list[str], typer.Argument(metavar="SEEDS...", help="Which seeds, such as 17, or 0-9.")],
    workers: WorkersOption = 1,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train stored seeds again, and compare bit for bit.

    History, scores and weights are compared. The exit code is 1 if anything is not as stored; then it says what, and on
    which machine it was stored.
    """
    from stackrev.experiments import experiment
    from stackrev.experiments.runs import environment

    wanted = presets.parse_seeds(",".join(seeds))
    output = Output(json=json, quiet=quiet)
    found = []
    with runs_view(output) as view:
        telling = _Telling(view, len(wanted))
        for each in experiment.rerun(folder, wanted, workers=workers or 1, on_stage=telling.stage):
            telling.result(each.after)
            found.append(each)
    found.sort(key=lambda each: each.seed)
    value = [
        {"seed": each.seed, "same": not each.changed, "changed": each.changed, "now": each.after} for each in found
    ]

    def show() -> None:
        for each in found:
            if not each.changed:
                output.line(f"seed {each.seed}: as stored in history, scores and weights, {each.after['weights']}")
                continue
            output.line(f"seed {each.seed}: not as stored: {', '.join(each.changed)}")
            output.line(f"stored: {tables.describe(each.before)}")
            output.line(f"now:    {tables.describe(each.after)}")

    output.result(value, show)
    if any(each.changed for each in found):
        output.note(f"stored on {_plain(read_setting(folder).environment)}")
        output.note(f"now on {_plain(environment())}")
        raise typer.Exit(1)


@app.command(
    epilog=examples("stackrev experiment table docs/results/seeds/*/", "stackrev experiment table runs/a --json")
)
def table(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="The experiments.")],
    json: JsonOption = False,
) -> None:
    """Tell what experiments came to, a row each.

    A row tells how many runs learn, how soon, and what has been measured of them.
    """
    output = Output(json=json)
    summaries = [tables.summarise(read_setting(folder).name, list(read_seeds(folder).values())) for folder in folders]
    output.result(summaries, lambda: output.table(tables.table_cells(tables.tabulate(summaries))))


class _Telling:
    """Tells on stderr how an experiment goes.

    Args:
        view: Where.
        seeds: How many seeds there are to be.
    """

    def __init__(self, view: RunsView, seeds: int) -> None:
        self._view, self._seeds, self._done = view, seeds, 0
        view.at("all", "looking for seeds to run")

    def result(self, result: Mapping[str, Any]) -> None:
        """A seed is done."""
        self._done += 1
        self._view.end(result["seed"])
        self._view.line(tables.describe(result))
        self._view.at("all", f"{self._done} of {self._seeds} seeds run here", done=self._done, total=self._seeds)

    def stage(self, stage: Any) -> None:
        """A seed has come so far."""
        self._view.at(stage.seed, f"seed {stage.seed}: {stage.words}", done=stage.done, total=stage.total or None)

    def wait(self, seeds: int) -> None:
        """Other workers have the rest."""
        self._view.at("all", f"waiting for {seeds} seed{'s' * (seeds != 1)} of other workers")


def _plain(environment: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in environment.items())
