"""`stackrev page`: a page that runs a network in a browser, on any text that a visitor types."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stackrev.cli.common import (
    DEFAULT_MODEL,
    CacheOption,
    ModelOption,
    OfflineOption,
    QuietOption,
    UsageError,
    examples,
    find_model,
    with_default,
)
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output

EXAMPLE = "A string to reverse"
FILE = Path("stackrev.html")

app = App()


@app.command(
    epilog=examples(
        "stackrev page",
        "stackrev page 'hello world' -o hello.html",
        "stackrev page --model runs/stack-lstm-seed0 --open",
    )
)
def page(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help=with_default("The text that it opens on.", repr(EXAMPLE)), show_default=False
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=with_default("Where to write it; - for stdout.", f"{FILE}, or a temporary file with --open"),
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a page that runs a network with a stack in a browser.

    The page holds the network's weights and needs nothing but itself, no internet connection either. It reverses
    whatever is typed into it, shows each step, lets its visitor hold the gates, and trains a small network.
    """
    words = text or []
    if len(words) > 1:
        raise UsageError("there is more than one text", hint="put it in single quotes: stackrev page 'two words'")
    to_stdout = str(output) == "-"
    if to_stdout and open_:
        raise UsageError("--open needs a file", hint="name one with -o, or leave -o out")
    out = Output(quiet=quiet, result=to_stdout)
    from stackrev import page as pages
    from stackrev.cli.requests import parse_argument

    shown = parse_argument(words[0], "auto", out.note).text if words else EXAMPLE
    html = pages.compose(pages.read(find_model(model, offline=offline, cache_dir=cache_dir), model), shown)
    if to_stdout:
        out.write(html)
        return
    from stackrev.storage import files

    path = output or (Path(tempfile.mkdtemp(prefix="stackrev-")) / FILE.name if open_ else FILE)
    files.write(path, html.encode())
    out.note(f"wrote {path}")
    if open_:
        _show(path, out)


def _show(path: Path, out: Output) -> None:
    import webbrowser

    address = path.resolve().as_uri()
    if not webbrowser.open(address):
        out.note(f"no browser was found; the page is at {address}")
