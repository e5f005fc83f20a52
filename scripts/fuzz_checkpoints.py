"""Mutate checkpoints, the states of runs and their folders at random, read them and write over them.

- A *checkpoint* has bits flipped, parts cut, repeated or put in, or the header of its weights or its configuration
  edited; half of these are then given the right checksums again, as an attacker would. It must be refused in one line,
  or load to weights that verify.
- The *state* of a run is changed in the same ways. It must be refused in one line, or the run must go on.
- Into a *folder* are put links, pipes, folders and somebody's files under the names that a checkpoint, a run, their
  staged files and their lock have. Writing there must succeed or be refused in one line.

Whatever is done, no file elsewhere may change, nothing may take longer than a minute, and this process may not hold
more than 400 MiB of memory.

    python scripts/fuzz_checkpoints.py --mutants 2000 --seed 0
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stackrev.config import LengthRange
from stackrev.errors import CheckpointError, StackrevError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.models import build, load
from stackrev.storage import checkpoints
from stackrev.storage.locks import LOCK
from stackrev.tasks.data import DataConfig
from stackrev.training.runs import STATE, Run
from stackrev.training_config import TrainingConfig

MEMORY = 400 * 2**20
SECONDS = 60
FILES = ("model.safetensors", "config.json", "history.jsonl")
Action = Callable[[dict[str, bytes], random.Random], None]
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, "", "x", "x" * 10_000, [], {}, [[]] * 100),
    *(
        "rnn",
        "lstm",
        "stack-lstm",
        "F64",
        "BF16",
        "I8",
        [0],
        [1, 2**62],
        [-1],
        [2**32, 2**32],
        "\ud800",
        "../../etc/passwd",
    ),
)


def main() -> None:
    """Run the fuzzer; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes, failures = fuzz(Path(scratch), arguments.mutants, random.Random(arguments.seed))
    for outcome, count in outcomes.most_common():
        print(f"{count:6,}  {outcome}")
    print(f"{arguments.mutants:,} mutants in {time.monotonic() - start:.0f} s, peak memory {peak() / 2**20:.0f} MiB")
    for failure in failures:
        print(f"FAILED {failure}")
    sys.exit(bool(failures) or peak() > MEMORY)


def fuzz(scratch: Path, mutants: int, chooser: random.Random) -> tuple[Counter[str], list[str]]:
    """Make mutants and read them.

    Args:
        scratch: An empty folder.
        mutants: How many.
        chooser: Where all choices come from.

    Returns:
        How often each outcome came, and a line for each failure.
    """
    originals = [_original(scratch / kind, kind) for kind in ("stack-lstm", "lstm", "rnn")]
    state = _original_state(scratch / "run")
    (scratch / "victim").write_text("mine")
    folder = scratch / "mutant"
    outside = _outside(scratch)
    outcomes: Counter[str] = Counter()
    failures = []
    signal.signal(signal.SIGALRM, _too_long)
    for number in range(mutants):
        folder.mkdir()
        signal.alarm(SECONDS)
        done: list[str] = []
        try:
            match chooser.randrange(10):
                case 0 | 1 | 2:
                    outcomes[_resume_mutant(folder, state, chooser, done)] += 1
                case 3 | 4:
                    outcomes[_write_over(folder, originals[0], state, chooser, done)] += 1
                case _:
                    outcomes[_read_mutant(folder, chooser.choice(originals), chooser, done)] += 1
            assert _outside(scratch) == outside, "a file elsewhere has changed"
        except Exception as error:  # what must not happen
            failures.append(f"mutant {number} ({', '.join(done)}): {type(error).__name__}: {error}")
        signal.alarm(0)
        shutil.rmtree(folder)
    return outcomes, failures


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _outside(scratch: Path) -> dict[str, bytes]:
    """Every file that no mutant may touch."""
    return {
        str(path): path.read_bytes()
        for path in scratch.rglob("*")
        if path.is_file() and scratch / "mutant" not in path.parents
    }


def peak() -> int:
    """The most memory that this process has held, in bytes. Linux may count what held the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _original(folder: Path, kind: Any) -> dict[str, bytes]:
    config = Config(model=dataclasses.replace(KINDS[kind].model, hidden_size=8, layers=2))
    model = build(config.model, torch.Generator().manual_seed(0))
    checkpoints.save(folder, model.state_dict(), config, history=[{"batch": 1, "loss": 4.8}], command="stackrev train")
    return {name: (folder / name).read_bytes() for name in FILES}


def _original_state(folder: Path) -> dict[str, bytes]:
    """The state of a run after a few batches; of its checkpoint's files there are none."""
    short, longer = LengthRange(minimum=1, maximum=4), LengthRange(minimum=5, maximum=6)
    config = Config(
        data=DataConfig(lengths=short, test_lengths=longer, held_out_samples=5),
        model=dataclasses.replace(KINDS["stack-lstm"].model, hidden_size=8, stack_width=8),
        training=TrainingConfig(batches=6, batch_size=4, check_every=2, device="cpu"),
    )
    run = Run.start(folder, config, command="stackrev train")
    run.train(stop=lambda: run.trainer.progress.batch == 5)
    return {STATE: (folder / STATE).read_bytes()}


def _read_mutant(folder: Path, original: Mapping[str, bytes], chooser: random.Random, done: list[str]) -> str:
    """Read a mutated checkpoint in every way; the outcome, without what differs from mutant to mutant."""
    contents = dict(original)
    for _ in range(chooser.choice((1, 1, 1, 2, 4))):
        done.append(_mutate(contents, chooser))
    if chooser.random() < 0.5:
        _sign(contents)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    refusal = None
    try:
        checkpoints.verify(folder)
    except CheckpointError as error:
        refusal = error
    for read in (checkpoints.read_weights, checkpoints.read_history, checkpoints.load_config):
        with contextlib.suppress(CheckpointError):
            read(folder)
    if refusal is not None:
        return _refused("checkpoint", folder, refusal)
    model = load(folder).model
    assert all(bool(torch.isfinite(each).all()) for each in model.parameters()), "weights are not finite"
    return "checkpoint loaded"


def _resume_mutant(folder: Path, original: Mapping[str, bytes], chooser: random.Random, done: list[str]) -> str:
    """Go on with a run whose state has been mutated."""
    contents = dict(original)
    for _ in range(chooser.choice((1, 1, 1, 2, 4))):
        done.append(_mutate(contents, chooser, (_flip, _cut, _splice, _edit_header, _edit_state, _edit_state)))
    (folder / STATE).write_bytes(contents[STATE])
    try:
        Run.resume(folder).train(stop=lambda: True)
    except StackrevError as error:
        return _refused("state", folder, error)
    checkpoints.verify(folder)
    return "state resumed"


def _write_over(
    folder: Path, original: Mapping[str, bytes], state: Mapping[str, bytes], chooser: random.Random, done: list[str]
) -> str:
    """Put something in the way of those who write, and write."""
    for name, data in (original | state).items():
        (folder / name).write_bytes(data)
    names = [*checkpoints.FILES, STATE]
    names += [f".{name}{digits}.new" for name in names for digits in ("", ".0123456789abcdef")]
    names.append(LOCK)
    for _ in range(chooser.choice((1, 1, 2, 4))):
        path = folder / chooser.choice(names)
        path.unlink(missing_ok=True) if not path.is_dir() else path.rmdir()
        what = chooser.choice(("link", "dangling", "pipe", "folder", "second name", "text", "nothing"))
        done.append(f"{what} as {path.name}")
        match what:
            case "link":
                path.symlink_to("../victim")
            case "dangling":
                path.symlink_to("../made")
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "second name":
                path.hardlink_to(folder.parent / "victim")
            case "text":
                path.write_text(chooser.choice(("", "somebody's", "{}", "1")))
    config = Config(model=dataclasses.replace(KINDS["stack-lstm"].model, hidden_size=8, layers=2))
    weights = build(config.model, torch.Generator().manual_seed(1)).state_dict()
    outcomes = []
    for write in (
        lambda: checkpoints.save(folder, weights, config),
        lambda: checkpoints.save_scores(folder, {}),
        lambda: Run.resume(folder).train(stop=lambda: True),
        lambda: Run.start(folder, Run.resume(folder.parent / "run").config, overwrite=True),
    ):
        try:
            write()
            outcomes.append("written")
        except StackrevError as error:
            _refused("folder", folder, error)
            outcomes.append("refused")
    return f"folder: {outcomes.count('written')} of {len(outcomes)} written"


def _refused(what: str, folder: Path, error: StackrevError) -> str:
    """The outcome of a refusal, which must be one line that can be printed."""
    assert "\n" not in error.message, "the message has several lines"
    assert len(error.message) < 500, "the message is too long"
    error.message.encode()
    words = error.message.replace(str(folder), "").split(":")[0].split()
    return f"{what} refused: " + " ".join(word for word in words if word.isalpha())[:60]


def _mutate(contents: dict[str, bytes], chooser: random.Random, actions: Sequence[Action] | None = None) -> str:
    """Change one file; what was done."""
    action = chooser.choice(actions or (_flip, _cut, _splice, _edit, _edit_header))
    action(contents, chooser)
    return action.__name__.strip("_")


def _flip(contents: dict[str, bytes], chooser: random.Random) -> None:
    name = chooser.choice(list(contents))
    data = bytearray(contents[name])
    reach = chooser.choice((8, 200, len(data)))  # the length, the header, everything
    for _ in range(chooser.choice((1, 1, 8))):
        if data:
            data[chooser.randrange(min(reach, len(data)))] ^= 1 << chooser.randrange(8)
    contents[name] = bytes(data)


def _cut(contents: dict[str, bytes], chooser: random.Random) -> None:
    name = chooser.choice(list(contents))
    contents[name] = contents[name][: chooser.randrange(len(contents[name]) + 1)]


def _splice(contents: dict[str, bytes], chooser: random.Random) -> None:
    name = chooser.choice(list(contents))
    data = contents[name]
    start, end = sorted(chooser.randrange(len(data) + 1) for _ in range(2))
    junk = chooser.choice((b"", data[start:end] * 2, chooser.randbytes(end - start), b"\0" * 4096, b"[" * 20_000))
    contents[name] = data[:start] + junk + data[end:]


def _edit(contents: dict[str, bytes], chooser: random.Random) -> None:
    try:
        raw = json.loads(contents["config.json"])
    except (ValueError, RecursionError):
        return
    _change(raw, chooser)
    contents["config.json"] = json.dumps(raw).encode()


def _edit_header(contents: dict[str, bytes], chooser: random.Random) -> None:
    name = next(each for each in contents if each.endswith(".safetensors"))
    found = _header(contents[name])
    if found is None:
        return
    raw, rest = found
    _change(raw, chooser)
    header = json.dumps(raw).encode()
    claimed = chooser.choice((len(header),) * 6 + (0, 1, 2**20, 2**40, 2**63))
    contents[name] = struct.pack("<Q", claimed) + header + rest


def _edit_state(contents: dict[str, bytes], chooser: random.Random) -> None:
    found = _header(contents[STATE])
    try:
        raw, rest = found or ({}, b"")
        text = raw["__metadata__"]["state"]
        state = json.loads(text)
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    _change(state, chooser)
    raw["__metadata__"]["state"] = chooser.choice((json.dumps(state),) * 8 + ("[" * 50_000, text[:-1], "\ud800"))
    header = json.dumps(raw).encode()
    contents[STATE] = struct.pack("<Q", len(header)) + header + rest


def _header(data: bytes) -> tuple[Any, bytes] | None:
    """The header of a safetensors file, and what comes after it."""
    length = int.from_bytes(data[:8], "little")
    try:
        return json.loads(data[8 : 8 + length]), data[8 + length :]
    except (ValueError, OverflowError, RecursionError):
        return None


def _change(raw: Any, chooser: random.Random) -> None:
    """Change something somewhere in a JSON value."""
    while isinstance(raw, dict | list) and raw:
        key = chooser.choice(list(raw)) if isinstance(raw, dict) else chooser.randrange(len(raw))
        if chooser.random() < 0.3 or not (isinstance(raw[key], dict | list) and raw[key]):
            match chooser.randrange(4):
                case 0:
                    del raw[key]
                case 1 if isinstance(raw, dict):
                    raw[chooser.choice(("", "extra", "x" * 1000, "__metadata__"))] = raw.pop(key)
                case _:
                    raw[key] = chooser.choice(VALUES)
            return
        raw = raw[key]


def _sign(contents: dict[str, bytes]) -> None:
    try:
        raw = json.loads(contents["config.json"])
        for name in ("model.safetensors", "history.jsonl"):
            raw["sha256"][name] = hashlib.sha256(contents[name]).hexdigest()
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    contents["config.json"] = json.dumps(raw).encode()


if __name__ == "__main__":
    main()
