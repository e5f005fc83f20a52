"""Where the time of `stackrev train --seed 0` goes, from the start of its process to its end, and what it could be.

Part of benchmark.py. A process of its own runs the command and takes the time of each of its parts, and another one
does nothing but `import torch`. Seconds are medians of some runs.

A default run learns until everything held out is right, which is when a solved model is saved first, and then settles:
it goes on until it can be proved, and proves and scores the saved file. Both moments are measured, against what nobody
can leave out: `import torch`, and the batches themselves up to then, which are what the network learns from. A batch of
settling computes the bounds of the proof as well, and every so many try whether these close.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTS = (
    "interpreter",
    "import torch",
    "the other imports",
    "command line, model, held-out strings",
    "batches until solved",
    "checks until solved",
    "saves until solved",
    "batches of settling",
    "trials whether the bounds close",
    "checks while settling",
    "saves while settling",
    "proof of the saved file",
    "scores of the saved file",
    "the rest",
)
SOLVED = PARTS.index("saves until solved") + 1


def train_time(repeats: int) -> None:
    """The table, and the two ratios."""
    from measuring import report  # with torch, whose import a run's own process takes the time of

    runs, alone = [], []
    for _ in range(min(repeats, 5)):
        runs.append(run())
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        alone.append(time.perf_counter() - start)
    torch_alone = statistics.median(alone)
    solved = [sum(each[name] for name in PARTS[:SOLVED]) for each in runs]
    whole = [sum(each.values()) for each in runs]
    print(f"\n{'train --seed 0':<40} {'seconds':>8}  share")
    for number, name in enumerate(PARTS):
        seconds = statistics.median(each[name] for each in runs)
        print(f"{name:<40} {seconds:>8.3f}  {seconds / statistics.median(whole):>5.1%}")
        if number + 1 == SOLVED:
            print(f"{'= solved and saved':<40} {statistics.median(solved):>8.3f}")
    print(f"{'= proved, scored and ended':<40} {statistics.median(whole):>8.3f}\n")
    learning = statistics.median(each["batches until solved"] for each in runs)
    settling = statistics.median(each["batches of settling"] for each in runs)
    for what, taken, batches in (
        ("solved and saved", statistics.median(solved), learning),
        ("proved, scored and ended", statistics.median(whole), learning + settling),
    ):
        details = f"{taken:.2f} s; {torch_alone:.2f} s + {batches:.2f} s"
        report(
            f"{what}, against import torch and batches", taken / (torch_alone + batches), "x", "at most 1.7", details
        )


def run() -> dict[str, float]:
    """Seconds of each part of a run, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "parts.json"
        start = time.time()
        command = [sys.executable, "-P", __file__, str(start), str(found), str(Path(folder) / "run")]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=dict(os.environ))
        end = time.time() - start
        parts: dict[str, float] = json.loads(found.read_text())
    parts["the rest"] = end - sum(parts.values())
    return {name: parts.get(name, 0.0) for name in PARTS}


class Clock:
    """What each part has taken; a part within another one does not count for that one.

    Args:
        start: When the process was started, in seconds since the epoch.
    """

    def __init__(self, start: float) -> None:
        self.parts: dict[str, float] = {}
        self._inner = 0.0
        self.add("interpreter", time.time() - start)

    def add(self, name: str, seconds: float) -> None:
        """So much more."""
        self.parts[name] = self.parts.get(name, 0.0) + seconds

    @contextmanager
    def part(self, name: str | Callable[[], str]) -> Iterator[None]:
        """What is done within."""
        before, self._inner = self._inner, 0.0
        start, called = time.perf_counter(), name if isinstance(name, str) else name()
        yield
        taken = time.perf_counter() - start
        self.add(called, taken - self._inner)
        self._inner = before + taken

    def time(self, owner: Any, method: str, name: str | Callable[[Any], str]) -> None:
        """Count a function or a method from now on as a part, whose name may follow from its first argument."""
        function = getattr(owner, method)

        def timed(*arguments: Any, **more: Any) -> Any:
            with self.part(name if isinstance(name, str) else lambda: name(arguments[0])):
                return function(*arguments, **more)

        setattr(owner, method, timed)


def within(start: float, found: Path, folder: Path) -> int:
    """The command, in a process that takes the time of its parts."""
    clock = Clock(start)
    with clock.part("import torch"):
        import torch  # noqa: F401
    with clock.part("the other imports"):
        import stackrev.cli.run
        import stackrev.cli.train
        from stackrev.training import runs, trainer

    def phase(of: trainer.Trainer, learning: str, settling: str) -> str:
        return learning if of.progress.solved_batch is None else settling

    clock.time(trainer.Trainer, "_learn", lambda of: phase(of, "batches until solved", "batches of settling"))
    clock.time(trainer.Trainer, "_check", lambda of: phase(of, "checks until solved", "checks while settling"))
    clock.time(trainer, "close", "trials whether the bounds close")
    last = [0]

    def saving(of: runs.Run) -> str:
        # The save that follows the check at which everything was right is what saves the solved model first.
        solved = of.trainer.progress.solved_batch
        first = solved is None or (of.trainer.progress.batch == solved and last[0] < solved)
        last[0] = of.trainer.progress.batch
        return "saves until solved" if first else "saves while settling"

    clock.time(runs.Run, "_save", saving)
    clock.time(runs, "certify", "proof of the saved file")
    clock.time(runs, "measure", "scores of the saved file")
    with clock.part("command line, model, held-out strings"):
        code = stackrev.cli.run.run(["train", "--model", "stack-lstm", "--seed", "0", "--output", str(folder)])
    found.write_text(json.dumps(clock.parts))
    return code


if __name__ == "__main__":
    sys.exit(within(float(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
