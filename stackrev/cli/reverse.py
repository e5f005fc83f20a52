"""`stackrev reverse`: a network reverses a text, or every line of stdin."""

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
from stackrev.tasks import REVERSAL

app = App()


TextArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="What to reverse; lines of stdin if it is - or not given.", show_default=False),
]
CheckOption = Annotated[
    bool,
    typer.Option(
        "--check", help="Compare with the true reversal; exit code 1 if the network errs.", rich_help_panel=OUTPUT
    ),
]


@app.command(
    epilog=examples(
        "stackrev reverse '$A string to reverse|'",
        "stackrev reverse 'Füße, 日本語, 👩‍👩‍👧!' --check",
        "stackrev reverse hello --trace",
        "stackrev reverse hello --trace-html trace.html",
        "stackrev reverse -- --json",
        "stackrev reverse --model stack-lstm < lines.txt",
    ),
)
def reverse(
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
    """Let a network reverse a text.

    An argument between $ and | is reversed and ended with &, as the network reads and writes it; any other comes back
    plain. In single quotes the shell leaves $ alone. Write -- before a text that starts with -. Lines of stdin are
    answered one by one, as they come, and as they stand: --lines says if they have markers.

    A text may have up to 128 different characters, in any script: what a reader sees as one character, an emoji or a
    letter with its accents, stays whole. ASCII alone is reversed code by code. --json prints one object a line: a text
    and its reversal, or, with --trace, a step.
    """
    asked = Asked(
        text or [], context, model, lines, check, trace, trace_html, cache_dir, offline, device, threads, json
    )
    respond(
        asked,
        REVERSAL,
        command="reverse",
        doing="reversing",
        key="reversed",
        example="stackrev reverse '$A string to reverse|'",
    )
