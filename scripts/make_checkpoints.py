"""Make the packaged checkpoints, each by the one command that is recorded in it.

    python scripts/make_checkpoints.py                      # all of them; the baselines take hours
    python scripts/make_checkpoints.py --only stack-lstm

Runs are kept in runs/packaged/ and resumed if this is interrupted; a finished one is published to checkpoints/.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from stackrev import cli
from stackrev.storage import checkpoints
from stackrev.training import runs

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "stack-lstm": "stackrev train --model stack-lstm --seed 0 --threads 1",
    "queue-lstm-copy": "stackrev train --model queue-lstm --task copy --seed 0 --threads 1",
    "queue-lstm-bigram-flip": "stackrev train --model queue-lstm --task bigram-flip --seed 14 --threads 1",
    "deque-lstm-bigram-flip": "stackrev train --model deque-lstm --task bigram-flip --seed 5 --threads 1",
    "queue-lstm-gender": "stackrev train --model queue-lstm --task gender --seed 3 --threads 1",
    "queue-lstm-svo-sov": "stackrev train --model queue-lstm --task svo-sov --seed 8 --threads 1",
    "lstm": "stackrev train --model lstm --seed 0 --threads 1",
    "rnn": "stackrev train --model rnn --seed 0 --threads 1",
}


def make(name: str, folder: Path) -> int:
    """Train a model in a folder, or go on with it, and publish it; the exit code of `stackrev train`."""
    arguments = [*shlex.split(COMMANDS[name])[1:], "--output", str(folder)]
    if (folder / runs.STATE).exists():
        arguments.append("--resume")
    print(f"{name}: {COMMANDS[name]}", file=sys.stderr)
    code = cli.main(arguments)
    if code == 0:
        publish(folder, ROOT / "checkpoints" / name)
    return code


def publish(folder: Path, target: Path) -> None:
    """Copy a finished run's checkpoint, without the state that only resuming needs, and verify the copy."""
    checkpoints.copy(folder, target)
    checkpoints.save_scores(target, checkpoints.describe(folder).scores)
    checkpoints.verify(target)
    print(f"published in {target.relative_to(ROOT)}", file=sys.stderr)


def main() -> int:
    """Make what was asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=COMMANDS, help="make this one (may be repeated)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "packaged", help="where runs are kept")
    chosen = parser.parse_args()
    for name in chosen.only or COMMANDS:
        if code := make(name, chosen.runs / name):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
