"""`stackrev apply`: a network does what it has learned with a text, or with every line of stdin."""

from __future__ import annotations

from typing import Annotated

import typer

from stackrev.cli.answering import Asked, respond
from stackrev.cli.common import (
    DEFAULT_MODEL,
    CacheOption,
    DeviceOption,
    JsonOption,
    LinesOption,
    ModelOption,
    OfflineOption,
    PageOption,
    ThreadsOption,
    TraceOption,
    examples,
)
from stackrev.cli.help_pages import OUTPUT, App

app = App()


TextArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="What to read; lines of stdin if it is - or not given.", show_default=False),
]
CheckOption = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Compare with the right answer, if the task knows it; exit code 1 for a wrong one.",
        rich_help_panel=OUTPUT,
    ),
]


@app.command(
    epilog=examples(
        "stackrev apply hello",
        "stackrev apply --model queue-lstm-gender 'a ne5 and the me2' --check",
        "stackrev apply --model runs/words --json < lines.txt",
    ),
)
def apply(
    context: typer.Context,
    text: TextArgument = None,
    model: ModelOption = DEFAULT_MODEL,
    lines: LinesOption = None,
    check: CheckOption = False,
    trace: TraceOption = False,
    trace_html: PageOption = None,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Let a network do with a text what it has learned, in its own vocabulary.

    A model that has learned words takes a text apart at its spaces. One that has learned to move characters about
    takes any text of up to 128 different ones, as stackrev reverse does. An argument between $ and | is answered with &
    at its end, as the network writes it. Lines of stdin are answered one by one, as they come. --json prints one object
    a line: a text and the output, or, with --trace, a step.
    """
    asked = Asked(
        text or [], context, model, lines, check, trace, trace_html, cache_dir, offline, device, threads, json
    )
    respond(
        asked, None, command="apply", doing="applying", key="output", example="stackrev apply --model stack-lstm hello"
    )
