"""`stackrev tasks`: what can be learned."""

from __future__ import annotations

import typer

from stackrev.cli.common import JsonOption, QuietOption, examples
from stackrev.cli.output import Output
from stackrev.tasks import TASKS

app = typer.Typer()


@app.command(epilog=examples("stackrev tasks", "stackrev tasks --json"))
def tasks(json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the tasks."""
    output = Output(json=json, quiet=quiet)
    rows = [{"task": task.name, "answer": task.summary} for task in TASKS.values()]
    output.result(rows, lambda: output.table([["task", "answer"], *(list(row.values()) for row in rows)]))
