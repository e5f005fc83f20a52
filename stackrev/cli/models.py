"""`stackrev models`: which models there are, what is known about them, and sharing them on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackrev.cli.common import (
    CacheOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    complete_model,
    examples,
    share,
    show_help,
)
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output
from stackrev.errors import CheckpointError

if TYPE_CHECKING:
    from stackrev.storage.hub import Push

app = App(
    name="models",
    help="List, check, fetch and share models.",
    invoke_without_command=True,
    callback=show_help,
    epilog=examples(
        "stackrev models list",
        "stackrev models pull user/repo",
        "stackrev models push runs/stack-lstm-seed0 user/repo --private",
    ),
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A packaged model, a checkpoint folder, or [hf:]user/repo[@revision] on the Hub.",
        autocompletion=complete_model,
    ),
]


@app.command("list", epilog=examples("stackrev models list", "stackrev models list --json"))
def list_models(cache_dir: CacheOption = None, json: JsonOption = False) -> None:
    """List the packaged models, and those in the Hub's cache."""
    from stackrev.storage import hub, names

    output = Output(json=json)
    folders = {name: names.resolve(name) for name in names.packaged_names()}
    folders |= hub.cached_models(cache_dir)
    results = [_summary(name, folder) for name, folder in folders.items()]
    rows = [(each["model"], each["kind"], f"{each['parameters']:,}", _best(each["scores"])) for each in results]
    output.result(results, lambda: output.table([("model", "kind", "parameters", "coarse"), *rows]))


@app.command(epilog=examples("stackrev models info stack-lstm", "stackrev models info user/repo@v1 --json"))
def info(
    name: NameArgument,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show how a model was made and what it scored."""
    from stackrev.config import to_dict
    from stackrev.storage import checkpoints

    output = Output(json=json, quiet=quiet)
    folder = _find(name, cache_dir, offline, output)
    description = checkpoints.describe(folder)
    with output.busy(f"{name}: checking its certificate"):
        proved = _proved(folder)
    result = _summary(name, folder) | {
        "proved": proved,
        "command": description.command,
        "sha256": dict(description.checksums),
        "config": to_dict(description.config),
    }
    output.result(result, lambda: _print_info(output, result))


def _print_info(output: Output, result: Mapping[str, Any]) -> None:
    for key in ("model", "folder", "kind", "parameters", "proved", "command"):
        output.line(f"{key}: {_plain(result[key])}")
    for lengths, each in _scored(result["scores"]):
        output.line(f"scores on {lengths}: coarse {share(each['coarse'])}, fine {share(each['fine'])}")
    for section, values in result["config"].items():
        for key, value in values.items():
            output.line(f"{section}.{key}: {_plain(value)}")
    for file, checksum in result["sha256"].items():
        output.line(f"sha256 {_plain(file)}: {checksum}")


@app.command(epilog=examples("stackrev models verify", "stackrev models verify runs/stack-lstm-seed0"))
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Models, by name or folder.", show_default="all packaged models"),
    ] = None,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check the files, the weights and the certificate of models.

    The checksum of every file is compared, the weights are loaded strictly and have to be finite, and a certificate, if
    there is one, is checked.
    """
    from stackrev.models.certification import check_stored
    from stackrev.storage import checkpoints
    from stackrev.storage.names import packaged_names

    output, results = Output(json=json, quiet=quiet), []
    for name in names or packaged_names():
        folder = _find(name, cache_dir, offline, output)
        with output.busy(f"{name}: checking its weights and its certificate"):
            verification = checkpoints.verify(folder)
            proof = check_stored(verification.folder)
        results.append(
            {
                "model": name,
                "folder": str(verification.folder),
                "parameters": verification.parameters,
                "sha256": dict(verification.checksums),
                "proved": proof is not None,
            }
        )
        if not json:
            certified = "; its certificate proves that it reverses every string" if proof is not None else ""
            output.line(f"{name}: {verification.parameters:,} weights, as recorded{certified}")
    output.result(results, lambda: None)


@app.command(epilog=examples("stackrev models pull user/repo", "stackrev models pull user/repo@v1 --json"))
def pull(
    name: Annotated[str, typer.Argument(metavar="USER/REPO[@REVISION]", help="A model on the Hugging Face Hub.")],
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch a model from the Hub into the cache.

    A model that is there is fetched anew if the Hub has a newer version. The folder where it lies is printed.
    """
    from stackrev.storage import hub

    output = Output(json=json, quiet=quiet)
    with _progress(output) as on_progress:
        folder = hub.pull(name, offline=offline, cache_dir=cache_dir, on_progress=on_progress)
    output.result(_summary(name, folder) | {"commit": folder.name}, lambda: output.line(str(folder)))


@app.command(
    epilog=examples(
        "stackrev models push runs/stack-lstm-seed0 user/repo --dry-run",
        "stackrev models push runs/stack-lstm-seed0 user/repo --private",
    )
)
def push(
    name: NameArgument,
    repo: Annotated[str, typer.Argument(metavar="USER/REPO", help="Where on the Hub; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repo private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="The commit's message.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Share a model on the Hub, with a card that tells what it scores.

    The address of the commit is printed. The scores are measured anew, on the files that are sent. The token is the
    Hub's standard one: log in with `hf auth login`, or set HF_TOKEN.
    """
    from stackrev.storage import hub

    output = Output(json=json, quiet=quiet)
    with _progress(output) as on_progress:
        result = hub.push(
            name,
            repo,
            private=private,
            dry_run=dry_run,
            message=message,
            evaluate=partial(_evaluate, on_progress=on_progress),
            on_progress=on_progress,
        )
    told = {"repo": result.repo, "files": dict(result.files), "scores": dict(result.scores)}
    output.result(told | {"commit": result.commit, "url": result.url}, lambda: _print_push(output, result))


def _print_push(output: Output, result: Push) -> None:
    if result.url is not None:
        output.line(result.url)
        return
    for file, size in result.files.items():
        output.line(f"{file}: {size:,} bytes")
    output.line()
    output.text(result.card)
    output.note(f"nothing was sent to {result.repo}")


def _proved(folder: Path) -> str:
    """What the certificate of a checkpoint amounts to, now that it has been checked."""
    from stackrev.models.certification import check_stored

    try:
        proof = check_stored(folder)
    except CheckpointError as error:
        return f"no: {error.message}"
    return "no certificate" if proof is None else "at every length, by its certificate"


def _find(name: str, cache_dir: Path | None, offline: bool, output: Output) -> Path:
    from stackrev.storage import hub

    with _progress(output) as on_progress:
        return hub.resolve(name, offline=offline, cache_dir=cache_dir, on_progress=on_progress)


def _evaluate(folder: Path, *, on_progress: Any) -> Mapping[str, Any]:
    """The scores of a checkpoint on its own held-out strings; its certificate, if it has one, is checked first."""
    from stackrev.evaluation.scoring import score_held_out, symbols_of
    from stackrev.models import load
    from stackrev.models.certification import check_stored
    from stackrev.storage.pairs import open_task
    from stackrev.tasks.batches import held_out

    check_stored(folder)
    checkpoint = load(folder)
    data = checkpoint.config.data
    task = open_task(data)
    done, total = 0, sum(map(symbols_of, held_out(data, task)))

    def count(advance: int) -> None:
        nonlocal done
        done += advance
        on_progress("evaluate", done, total)

    return score_held_out(checkpoint.model, data, task, on_progress=count)


@contextmanager
def _progress(output: Output) -> Iterator[Any]:
    """A bar for each thing that is done, as `hub.OnProgress`."""
    done: dict[str, int] = {}
    bar = output.progress("", total=0)  # not shown
    with ExitStack() as shown:

        def show(what: str, amount: int, total: int) -> None:
            nonlocal bar
            if what not in done:
                shown.close()
                bar = shown.enter_context(output.progress(what, total=total))
            bar(amount - done.get(what, 0))
            done[what] = amount

        yield show


def _summary(name: str, folder: Path) -> dict[str, Any]:
    """A model in brief."""
    from stackrev.storage import checkpoints

    config, scores = checkpoints.load_config(folder)
    return {
        "model": name,
        "folder": str(folder),
        "kind": config.model.kind,
        "parameters": config.model.weights,
        "scores": dict(scores),
    }


def _scored(scores: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from stackrev.storage import checkpoints

    return checkpoints.results(scores)


def _best(scores: Mapping[str, Any]) -> str:
    """The coarse accuracy on the longest strings it was measured on."""
    measured = [f"{share(each['coarse'])} on {lengths}" for lengths, each in _scored(scores)]
    return measured[-1] if measured else "-"


def _plain(value: Any) -> str:
    """A value from a config, which a stranger may have written, in one line."""
    if isinstance(value, Mapping):
        return "-".join(map(str, value.values()))
    return "-" if value is None else " ".join(str(value).split("\n"))
