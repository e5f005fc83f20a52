"""`stackrev train`: train a model into a folder, and go on where a run was stopped."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackrev.cli import settings, sizes
from stackrev.cli.common import (
    DEFAULT_MODEL,
    JsonOption,
    QuietOption,
    ThreadsOption,
    UsageError,
    examples,
    set_threads,
    share,
    with_default,
)
from stackrev.cli.help_pages import RUN, App
from stackrev.cli.output import Output
from stackrev.kinds.config import Config
from stackrev.training_config import TrainingConfig

if TYPE_CHECKING:
    from stackrev.evaluation.certificate.proof import Proof
    from stackrev.evaluation.scoring import Scores
    from stackrev.training.runs import Run

app = App()


FolderOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help=with_default("Where the run is saved.", "runs/MODEL-seedN"), rich_help_panel=RUN
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in the folder, bit for bit.", rich_help_panel=RUN)
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the run in the folder.", rich_help_panel=RUN)]


@app.command(
    epilog=examples(
        "stackrev train",
        "stackrev train --model lstm --seed 1 --output runs/my-lstm",
        "stackrev train --model queue-lstm --task gender --output runs/gender",
        "stackrev train --hidden-size 32 --output runs/small",
        "stackrev train --output runs/my-lstm --resume",
    ),
)
@settings.options
def train(
    *,
    kind: settings.Kind = None,
    output: FolderOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
    given: settings.Given,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model to reverse strings, or to do another task.

    The run is checked on held-out strings as it goes, and saved at every check; Ctrl-C saves it too, and --resume goes
    on. Once every held-out string is right it settles, as --settle says, and ends; or it ends after --batches. The
    scores at the end are those of the saved file, loaded again.
    """
    if resume and force:
        raise UsageError("--resume goes on with a run and --force replaces it", hint="leave one of them out")
    out = Output(json=json, quiet=quiet)
    config = None if resume else settings.configure(Config.default(kind or DEFAULT_MODEL), given)
    if config is not None:
        sizes.require_training(config)
    seed = given.get("seed", TrainingConfig().seed)
    folder = output or Path("runs") / f"{kind or DEFAULT_MODEL}-seed{seed}"

    with out.busy("loading"):
        from stackrev.evaluation.scoring import symbols_of
        from stackrev.training.runs import Run, certify, measure

    if config is None:
        run = Run.resume(folder)
        base = run.config if kind in (None, run.config.model.kind) else Config.default(kind)
        changes = run.change(settings.configure(base, given))
        for each in changes:
            out.note(f"goes on with {each.setting} = {each.new} in place of {each.old}")
        if not all(each.exact for each in changes):
            out.note("its weights may not be, bit for bit, those of a run that was started with these settings")
        set_threads(threads or run.threads)
    else:
        set_threads(threads)
        run = Run.start(folder, config, command=settings.command_line(config, threads=threads), overwrite=force)
    if not _train(run, quiet=quiet):
        out.note(f"stopped after {run.trainer.progress.batch} batches and saved in {folder}")
        out.hint(f"stackrev train --resume --output {shlex.quote(str(folder))} goes on")
        raise typer.Exit(130)
    with out.busy("proving the saved file"):
        proof = certify(folder) if _to_prove(run) else None
    total = sum(map(symbols_of, run.trainer.held_out))
    with out.progress("scoring the saved file", total=total) as advance:
        scores = measure(folder, on_progress=advance)
    out.result(_result(run, scores, proof), lambda: _print_summary(out, run, scores, proof))
    if start := _last_start(run):
        out.note(f"the run started over after {start} batches, because less than half of the strings were right")
    if run.trainer.spoiled:
        out.note("settling spoiled the run: its model has the weights with which everything was last found right")
    if run.trainer.progress.solved_batch is None:
        out.note(f"the run ended unsolved: after {run.trainer.progress.batch} batches not every string was right")
        out.hint(_advice(run.config, run.folder))


def _last_start(run: Run) -> int:
    """After how many batches the run last started over; 0 if it never did. After its last batch it does not."""
    from stackrev.training.schedules import last_start

    progress = run.trainer.progress
    return last_start(run.config.training, (line for line in progress.history if line["batch"] < progress.batch))


def _to_prove(run: Run) -> bool:
    """Whether the run is to end with a proof: if it settles for one, and its task has one."""
    return run.config.training.settle == "certified" and run.trainer.task.certifiable


def _train(run: Run, *, quiet: bool) -> bool:
    """Train with a view on stderr; whether the run is done, or was interrupted."""
    from stackrev.cli.live import training_view

    with training_view(run.trainer, quiet=quiet) as on_event, _interruptible() as interrupted:
        return run.train(on_event, stop=interrupted)


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a request to stop between two batches; the second stops at once."""
    asked = False
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as nohup and the background of a shell have it
        yield lambda: False
        return

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)


def _advice(config: Config, folder: Path) -> str:
    """What to do after a run that did not learn."""
    batches = min(2 * config.training.batches, 10**9)
    longer = f"stackrev train --resume --output {shlex.quote(str(folder))} --batches {batches} trains for longer"
    changed = [name for name in settings.changed(config) if name not in _INNOCENT]
    if changed:
        return f"{longer}; or leave {', '.join(map(settings.option, changed))} at the default"
    return f"{longer}; or try another --seed"


_INNOCENT = (
    *("batches", "check_every", "settle", "settle_batches", "settle_temperature", "settle_growth", "settle_rate"),
    *("settle_noise", "stretch_batches"),
    *("sharpen_from", "recurrent_l1", "cell_l2"),
    *("device", "held_out_seed", "held_out_samples", "lengths", "test_lengths"),
    *("task", "data", "validation", "test", "tokens"),
)
"""Settings that do not keep a run from learning, or that are named anyway."""


def _result(run: Run, scores: dict[str, Scores], proof: Proof | None) -> dict[str, Any]:
    """What `--json` says."""
    from stackrev.training.runs import summary

    reached, config = run.trainer.progress, run.config
    return {
        "model": config.model.kind,
        "seed": config.training.seed,
        "folder": str(run.folder),
        "batches": reached.batch,
        "solved_batch": reached.solved_batch,
        "seconds": round(reached.seconds, 3),
        "proved": None if proof is None else proof.proved,
        "scores": {lengths: summary(each, config.data.held_out_seed) for lengths, each in scores.items()},
        "command": run.command,
    }


def _print_summary(out: Output, run: Run, scores: dict[str, Scores], proof: Proof | None) -> None:
    reached, config = run.trainer.progress, run.config
    solved = "not solved" if reached.solved_batch is None else f"solved after {reached.solved_batch} batches"
    name = f"{config.model.kind}, seed {config.training.seed}"
    out.line(f"{name}: {solved}; {reached.batch} batches in {reached.seconds:.1f} s")
    rows = [(lengths, str(each.samples), share(each.coarse), share(each.fine)) for lengths, each in scores.items()]
    out.table([("lengths", "strings", "coarse", "fine"), *rows])
    if proof is not None:
        out.line("proved at every length" if proof.proved else "not proved: `stackrev certify` says what is missing")
    out.line(f"saved in {run.folder}")
