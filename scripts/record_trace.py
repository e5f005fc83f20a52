"""Record the trace for the documentation: a terminal, as tmux sees it.

    python scripts/record_trace.py [TEXT] [--folder docs]

writes trace.txt (what a terminal shows, without colours) and trace.svg (the same with its colours). Needs tmux.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 100, 50


def main() -> None:
    """Write the two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="$A string to reverse|")
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)

    command = [sys.executable, "-m", "stackrev", "reverse", asked.text]
    shown = terminal([*command, "--trace"])
    prompt = f"$ stackrev reverse {shlex.quote(asked.text)} --trace"
    picture = Text(prompt + "\n") + Text.from_ansi(shown)
    (asked.folder / "trace.txt").write_text(picture.plain.rstrip() + "\n")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(picture)
    svg = console.export_svg(title="stackrev", unique_id="trace")
    fonts = re.compile(r"@font-face \{.*?\}\n?", re.DOTALL)  # rich would fetch them from the network
    (asked.folder / "trace.svg").write_text(fonts.sub("", svg))


def terminal(command: list[str]) -> str:
    """What a command leaves on a terminal, with its escape sequences for colour."""
    name = f"stackrev-{time.monotonic_ns()}"
    tmux = ["tmux", "-L", name, "-f", "/dev/null"]
    done = f"{shlex.join(command)}; tmux -L {name} wait-for -S shown; sleep 60"
    size = ("-x", str(COLUMNS), "-y", str(LINES))
    environment = ["env", "-u", "NO_COLOR", "LC_ALL=C.UTF-8"]
    subprocess.run([*environment, *tmux, "-u", "new-session", "-d", *size, done], check=True)
    try:
        subprocess.run([*tmux, "wait-for", "shown"], check=True, timeout=300)
        time.sleep(0.5)
        capture = subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    return capture.stdout.rstrip()


if __name__ == "__main__":
    main()
