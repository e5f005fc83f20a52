"""`stackrev reverse`: a network reverses a text, or every line of stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stackrev.cli import requests
from stackrev.cli.answering import Answering
from stackrev.cli.common import (
    DEFAULT_MODEL,
    CacheOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    ThreadsOption,
    UsageError,
    examples,
    find_model,
    with_default,
)
from stackrev.cli.output import Output
from stackrev.cli.requests import Meaning

app = typer.Typer()


TextArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT]", help="What to reverse; lines of stdin if it is - or not given.", show_default=False
    ),
]
LinesOption = Annotated[
    Meaning | None,
    typer.Option(
        "--lines",
        help=with_default(
            "How lines are meant: plain, marked (between $ and |), or auto, marked where they look it.",
            "plain; auto for an argument",
        ),
    ),
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Compare with the true reversal; exit code 1 if the network errs.")
]
TraceOption = Annotated[bool, typer.Option("--trace", help="Show what the network does with its stack, a line a step.")]
PageOption = Annotated[
    Path | None,
    typer.Option(
        "--trace-html", metavar="FILE", help="Write a page that runs the network on the text, as stackrev page does."
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
    words = text or []
    if len(words) > 1:
        raise UsageError("there is more than one text", hint="put it in single quotes: stackrev reverse 'two words'")
    # After -- even a lone - is a text.
    stream = not words or (words == ["-"] and "--" not in (context.obj or {}).get("words", ()))
    if trace_html is not None and stream:
        raise UsageError("--trace-html shows one text", hint="give it as an argument")
    output = Output(json=json)
    if stream and (sys.stdin is None or (sys.stdin.isatty() and not words)):
        raise UsageError("there is nothing to reverse", hint="try: stackrev reverse '$A string to reverse|'")
    with output.progress("reversing", total=0, wait=True) as bar:
        if stream:
            batches = requests.parse_lines(sys.stdin.buffer, lines or "plain", bar)
        else:
            batches = iter([[requests.parse_argument(words[0], lines or "auto", output.note)]])
        # Read before the model is loaded, so that a text that cannot be reversed need not wait for it.
        first = next(batches, None)
        if first is None:
            return
        folder = find_model(model, offline=offline, cache_dir=cache_dir)
        answering = Answering(model, folder, output, bar, check=check, trace=trace, page=trace_html, threads=threads)
        answering.answer(first)
        for batch in batches:
            answering.answer(batch)
    if answering.wrong:
        if stream:
            output.note(f"{answering.wrong:,} of {answering.count:,} lines are wrong")
        raise typer.Exit(1)
