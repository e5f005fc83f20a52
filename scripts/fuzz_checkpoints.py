"""Mutate checkpoints at random and read them: each must be refused in one line or load to weights that verify.

A mutation flips bits, cuts, extends or repeats a part of a file, or edits the header of the weights or the
configuration; half of the mutants are then given the right checksums again, as an attacker would. Anything but a
`CheckpointError` is a failure, and so is memory above 1 GiB.

    python scripts/fuzz_checkpoints.py --mutants 2000 --seed 0
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stackrev.errors import CheckpointError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.models import build, load
from stackrev.storage import checkpoints

MEMORY = 2**30
FILES = ("model.safetensors", "config.json", "history.jsonl")
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
    folder = scratch / "mutant"
    folder.mkdir()
    outcomes: Counter[str] = Counter()
    failures = []
    for number in range(mutants):
        contents = dict(chooser.choice(originals))
        names = [_mutate(contents, chooser) for _ in range(chooser.choice((1, 1, 1, 2, 4)))]
        if chooser.random() < 0.5:
            _sign(contents)
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        try:
            outcomes[_read(folder)] += 1
        except Exception as error:  # what must not happen
            failures.append(f"mutant {number} ({', '.join(names)}): {type(error).__name__}: {error}")
    return outcomes, failures


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


def _read(folder: Path) -> str:
    """Read a mutant in every way; the outcome, without what differs from mutant to mutant."""
    refusal = None
    try:
        checkpoints.verify(folder)
    except CheckpointError as error:
        refusal = error.message
    for read in (checkpoints.read_weights, checkpoints.read_history, checkpoints.load_config):
        with contextlib.suppress(CheckpointError):
            read(folder)
    if refusal is not None:
        assert "\n" not in refusal, "the message has several lines"
        assert len(refusal) < 500, "the message is too long"
        refusal.encode()  # must be fit to print
        words = refusal.replace(str(folder), "").split(":")[0].split()
        return "refused: " + " ".join(word for word in words if word.isalpha())[:60]
    model = load(folder).model
    assert all(bool(torch.isfinite(each).all()) for each in model.parameters()), "weights are not finite"
    return "loaded"


def _mutate(contents: dict[str, bytes], chooser: random.Random) -> str:
    """Change one file; what was done."""
    actions: tuple[Callable[[dict[str, bytes], random.Random], None], ...] = (_flip, _cut, _splice, _edit, _edit_header)
    action = chooser.choice(actions)
    action(contents, chooser)
    return action.__name__.strip("_")


def _flip(contents: dict[str, bytes], chooser: random.Random) -> None:
    name = chooser.choice(FILES)
    data = bytearray(contents[name])
    reach = chooser.choice((8, 200, len(data)))  # the length, the header, everything
    for _ in range(chooser.choice((1, 1, 8))):
        if data:
            data[chooser.randrange(min(reach, len(data)))] ^= 1 << chooser.randrange(8)
    contents[name] = bytes(data)


def _cut(contents: dict[str, bytes], chooser: random.Random) -> None:
    name = chooser.choice(FILES)
    contents[name] = contents[name][: chooser.randrange(len(contents[name]) + 1)]


def _splice(contents: dict[str, bytes], chooser: random.Random) -> None:
    name = chooser.choice(FILES)
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
    data = contents["model.safetensors"]
    length = int.from_bytes(data[:8], "little")
    try:
        raw = json.loads(data[8 : 8 + length])
    except (ValueError, OverflowError, RecursionError):
        return
    _change(raw, chooser)
    header = json.dumps(raw).encode()
    claimed = chooser.choice((len(header),) * 6 + (0, 1, 2**20, 2**40, 2**63))
    contents["model.safetensors"] = struct.pack("<Q", claimed) + header + data[8 + length :]


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
