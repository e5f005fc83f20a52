"""`stackrev search`: look for better settings, with as many workers as there are machines for."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackrev.cli import settings
from stackrev.cli.common import (
    DEFAULT_MODEL,
    JsonOption,
    QuietOption,
    ThreadsOption,
    UsageError,
    complain,
    examples,
    print_json,
    print_table,
    set_threads,
)
from stackrev.config import Config
from stackrev.experiments.search import SPACE, Result, Search, settings_of

if TYPE_CHECKING:
    from stackrev.experiments.search import OnResult

app = typer.Typer()


@app.command(
    epilog=examples(
        "stackrev search --trials 50",
        "stackrev search --model lstm --batches 2000 --check-every 200 --hidden-size 128",
        "stackrev search --vary learning_rate,optimizer --storage postgresql://me@server/studies",
        "stackrev search --trials 0",
    ),
)
def search(
    context: typer.Context,
    kind: settings.Kind = None,
    trials: Annotated[
        int, typer.Option(min=0, help="How many trials the study is to have in all; 0 shows what it has.")
    ] = 30,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="The study.", show_default="the model")] = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file that holds the study.", show_default="runs/search.journal"),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="A database instead, for workers on many machines.")
    ] = None,
    vary: Annotated[
        str | None,
        typer.Option(metavar="SETTINGS", help=f"What to vary, of {', '.join(SPACE)}.", show_default="all not given"),
    ] = None,
    prune: Annotated[bool, typer.Option(help="Whether to give up trials that fall behind at a check.")] = True,
    best: Annotated[int, typer.Option(min=1, help="How many of the best trials to show.")] = 10,
    batches: settings.Batches = None,
    check_every: settings.CheckEvery = None,
    settle_batches: settings.SettleBatches = None,
    settle_temperature: settings.SettleTemperature = None,
    seed: settings.Seed = None,
    batch_size: settings.BatchSize = None,
    mixed_lengths: settings.MixedLengths = None,
    curriculum_start: settings.CurriculumStart = None,
    curriculum_loss: settings.CurriculumLoss = None,
    optimizer: settings.OptimizerName = None,
    learning_rate: settings.LearningRate = None,
    schedule: settings.ScheduleName = None,
    warmup_batches: settings.WarmupBatches = None,
    weight_decay: settings.WeightDecay = None,
    momentum: settings.Momentum = None,
    clip_norm: settings.ClipNorm = None,
    recurrent_l1: settings.RecurrentL1 = None,
    hidden_size: settings.HiddenSize = None,
    layers: settings.Layers = None,
    stack_width: settings.StackWidth = None,
    initialisation: settings.InitialisationName = None,
    gate_stretch: settings.GateStretch = None,
    gate_noise: settings.GateNoise = None,
    string_noise: settings.StringNoise = None,
    push_bias: settings.PushBias = None,
    pop_bias: settings.PopBias = None,
    lengths: settings.Lengths = None,
    test_lengths: settings.TestLengths = None,
    held_out_samples: settings.HeldOutSamples = None,
    device: settings.DeviceName = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search for the settings that a model learns best and soonest with.

    A trial is worth the mean of its validation fine accuracy over its checks. A setting given as an option is kept
    as given. The same command started again, here or on any machine that reaches the study, adds a worker, or goes on
    where a search was stopped.
    """
    if journal is not None and storage is not None:
        raise UsageError("a study is either in a --journal or in a --storage", hint="leave one of them out")
    # Settings are options named after the fields they set, so they are taken from the context as they are.
    base = settings.configure(Config.default(kind or DEFAULT_MODEL), context.params)
    settle = base.training.settle_batches
    if settle_batches is None:  # a solved trial has nothing more to tell
        base = dataclasses.replace(base, training=dataclasses.replace(base.training, settle_batches=0))
    over = [name for name in settings_of(base.model.kind) if context.params.get(name) is None]
    if vary is not None:
        over = [name.strip() for name in vary.split(",") if name.strip()]
        if given := [name for name in over if context.params.get(name) is not None]:
            raise UsageError(f"{given[0]} is both given and to be varied", hint="leave one of them out")
    if not over:
        raise UsageError("there is nothing to vary", hint="give fewer settings")
    name = study or base.model.kind
    worker = Search(
        name,
        base,
        over=over,
        journal=None if storage else journal or Path("runs") / "search.journal",
        storage=storage,
        prune=prune,
    )
    set_threads(threads)
    interrupted = False
    try:
        worker.work(trials, on_result=None if quiet else _teller(worker))
    except KeyboardInterrupt:
        interrupted = True
        if not quiet:
            complain("note", "stopped; the trial that was running is not counted, and the same command goes on")
    finally:
        worker.close()
    results, winners = worker.results(), worker.best(best)
    command = _command(winners[0], settle) if winners else None
    counts = {state: sum(each.state == state for each in results) for state in _STATES}
    if json:
        print_json(
            {
                "study": name,
                "trials": counts,
                "best": [each.to_dict() for each in winners],
                "all": [each.to_dict() for each in results],
                "command": command,
            }
        )
    else:
        print(f"study {name}: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
        if winners:
            print_table([("trial", *_COLUMNS, *worker.over), *(_row(each, worker.over) for each in winners)])
            print(f"to train the best of them:\n{command}")
    if interrupted:
        raise typer.Exit(130)


_STATES = ("complete", "pruned", "running", "failed")
_COLUMNS = ("value", "validation", "test", "solved at", "seconds")


def _teller(worker: Search) -> OnResult:
    def tell(result: Result) -> None:
        best = worker.best(1)
        words = [f"trial {result.number} {result.state}: {_number(result.value)}"]
        if best:
            words.append(f"(best {_number(best[0].value)}, trial {best[0].number})")
        words += [f"{name} {_number(value)}" for name, value in result.settings.items()]
        print(" ".join(words), file=sys.stderr, flush=True)

    return tell


def _command(winner: Result, settle: int | None) -> str:
    training = dataclasses.replace(winner.config.training, settle_batches=settle)
    return settings.command_line(dataclasses.replace(winner.config, training=training))


def _row(result: Result, over: Sequence[str]) -> tuple[str, ...]:
    outcome = result.outcome
    values = (result.value, *(outcome.get(key) for key in ("validation", "test", "solved_batch", "seconds")))
    return (str(result.number), *map(_number, values), *(_number(result.settings.get(name)) for name in over))


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
