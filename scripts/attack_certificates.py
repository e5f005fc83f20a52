"""Try to fool the proof: alter a proved model, or its certificate, a thousand times.

    python scripts/attack_certificates.py checkpoints/stack-lstm --count 1000 --checker 20

Each altered model (a weight moved, two logit rows swapped, a gate bias changed, two symbols exchanged) is
proved or not; one that is proved is then run on strings that networks fail on, and must get all right. Each altered
certificate (a box shrunk or moved, an end changed, boxes exchanged) must fail the conditions, unless the altered boxes
are a proof themselves; as a file, it must be refused for its checksum. `--checker` so many of them are given to
scripts/check_certificate.py with a checksum that fits, whose verdict must be the package's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stackrev.errors import CheckpointError
from stackrev.evaluation.certificate.counterexample import Search
from stackrev.evaluation.certificate.proof import Boxes, check_boxes, prove
from stackrev.kinds import kind_of
from stackrev.models.certification import network_of, open_network
from stackrev.storage import checkpoints
from stackrev.storage.certificates import (
    CERTIFICATE,
    Certificate,
    parse_certificate,
    read_certificate,
    write_certificate,
)
from stackrev.tasks import vocabulary

CHECKER = Path(__file__).with_name("check_certificate.py")
Arrays = dict[str, np.ndarray]
Alteration = Callable[[Arrays, np.random.Generator], str]


def move_weight(weights: Arrays, rng: np.random.Generator) -> str:
    """One weight anywhere, by a little or by much."""
    name = str(rng.choice(sorted(weights)))
    place = tuple(int(rng.integers(size)) for size in weights[name].shape)
    weights[name][place] += rng.normal() * 10.0 ** rng.uniform(-2, 2.5)
    return "a weight moved"


def move_matrix(weights: Arrays, rng: np.random.Generator) -> str:
    """Every weight of one matrix."""
    name = str(rng.choice(sorted(weights)))
    weights[name] += rng.normal(size=weights[name].shape) * 10.0 ** rng.uniform(-3, 0.5)
    return "a matrix moved"


def swap_logits(weights: Arrays, rng: np.random.Generator) -> str:
    """The logits of two symbols, weights and biases."""
    a, b = rng.choice(len(weights["logits.bias"]), 2, replace=False)
    for name in ("logits.weight", "logits.bias"):
        weights[name][[a, b]] = weights[name][[b, a]]
    return "two logit rows swapped"


def swap_symbols(weights: Arrays, rng: np.random.Generator) -> str:
    """Two symbols as the encoder reads them."""
    a, b = rng.choice(np.arange(vocabulary.FIRST_SYMBOL, vocabulary.SIZE), 2, replace=False)
    weights["encoder.symbols"][[a, b]] = weights["encoder.symbols"][[b, a]]
    return "two symbols exchanged"


def move_gate(weights: Arrays, rng: np.random.Generator) -> str:
    """The bias of a push or pop gate."""
    name = str(rng.choice([name for name in sorted(weights) if name.endswith("controls.bias")]))
    weights[name][int(rng.integers(2))] += rng.normal() * 10
    return "a gate's bias changed"


def move_logit(weights: Arrays, rng: np.random.Generator) -> str:
    """The bias of one logit."""
    weights["logits.bias"][int(rng.integers(len(weights["logits.bias"])))] += abs(rng.normal()) * 20
    return "a logit's bias raised"


ALTERATIONS: Sequence[Alteration] = (move_weight, move_matrix, swap_logits, swap_symbols, move_gate, move_logit)


def attack_models(folder: Path, count: int, rng: np.random.Generator) -> Counter[tuple[str, str]]:
    """Alter the model so often; returns what became of each alteration."""
    config, raw = checkpoints.read_weights(folder)
    original = {name: np.frombuffer(each.data, dtype="<f4").reshape(each.shape) for name, each in raw.items()}
    verdicts: Counter[tuple[str, str]] = Counter()
    for turn in range(count):
        weights = {name: values.copy() for name, values in original.items()}
        how = ALTERATIONS[turn % len(ALTERATIONS)](weights, rng)
        network = network_of(config.model, weights)
        assert network is not None, "no proof is about this kind of model"
        proved = prove(network).proved
        if proved and (wrong := find_error(config.model, weights)) is not None:
            sys.exit(f"FOOLED: {how}, turn {turn}: proved, and wrong on {wrong!r}")
        verdicts[how, "proved" if proved else "not proved"] += 1
        print(f"\rmodels: {turn + 1} of {count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return verdicts


class Writer:
    """What writes with altered weights, in the compiled kernels."""

    def __init__(self, model: Any, weights: Arrays) -> None:
        open_stream = kind_of(model.kind).open_stream
        assert open_stream is not None
        self._stream = open_stream(model, {name: values.astype("<f4").tobytes() for name, values in weights.items()})

    def write(self, strings: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """What is written for each string."""
        for string in strings:
            self._stream.reset()
            self._stream.encode([vocabulary.START, *string])
            limit = 2 * len(string) + 16
            yield self._stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, limit).tolist()


def find_error(model: Any, weights: Arrays) -> tuple[int, ...] | None:
    """A string that the altered model gets wrong, if one is found."""
    symbols = range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE)
    found = Search(Writer(model, weights), symbols, vocabulary.END, lambda string: string[::-1]).run(longest=2_000)
    return None if found is None else found.string


def alter_boxes(boxes: Arrays, rng: np.random.Generator) -> str:
    """Change boxes in one of several ways."""
    name = str(rng.choice(sorted(boxes)))
    place = tuple(int(rng.integers(size)) for size in boxes[name].shape)
    match int(rng.integers(5)):
        case 0:
            boxes[name] *= 1 - 10.0 ** rng.uniform(-4, -0.1)
            return "a bound scaled"
        case 1:
            boxes[name][place] += (1 if name.endswith("lower") else -1) * 10.0 ** rng.uniform(-4, 0.3)
            return "an end moved inwards"
        case 2:
            for each in boxes:
                boxes[each] = boxes[each] + rng.normal() * 0.1
            return "all boxes moved"
        case 3:
            other = name.replace("lower", "upper") if name.endswith("lower") else name.replace("upper", "lower")
            boxes[name], boxes[other] = boxes[other], boxes[name]
            return "ends exchanged"
        case _:
            boxes[name][place] = rng.choice([0.0, 1e300, -1e300, 5e-324])
            return "an end replaced"


def attack_certificates(folder: Path, count: int, checker: int, rng: np.random.Generator) -> Counter[tuple[str, str]]:
    """Alter the certificate so often; returns what became of each alteration."""
    certificate, network = read_certificate(folder), open_network(folder)
    if certificate is None or network is None:
        sys.exit(f"{folder} has no certificate: make one with `stackrev certify --write`")
    data = (folder / CERTIFICATE).read_bytes()
    verdicts: Counter[tuple[str, str]] = Counter()
    for turn in range(count):
        refuse_altered_bytes(data, rng)
        boxes = {name: ends.copy() for name, ends in certificate.boxes.items()}
        how = alter_boxes(boxes, rng)
        valid = check_boxes(network, Boxes.from_arrays(boxes, network)).proved
        verdicts[how, "still a proof" if valid else "refused"] += 1
        if turn < checker:
            compare(folder, replace(certificate, boxes=boxes), valid, how)
        print(f"\rcertificates: {turn + 1} of {count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return verdicts


def refuse_altered_bytes(data: bytes, rng: np.random.Generator) -> None:
    """A bit of the file changed is noticed when it is read."""
    altered = bytearray(data)
    altered[int(rng.integers(len(altered)))] ^= 1 << int(rng.integers(8))
    try:
        found = parse_certificate(bytes(altered), Path("altered"))
    except CheckpointError:
        return
    original = parse_certificate(data, Path("original"))
    if found.weights == original.weights and any((found.boxes[k] != original.boxes[k]).any() for k in original.boxes):
        sys.exit("FOOLED: a changed bit was not noticed")


def compare(folder: Path, certificate: Certificate, valid: bool, how: str) -> None:
    """Give a certificate to the independent checker, which must come to the package's verdict."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("model.safetensors", "config.json"):
            (Path(scratch) / name).write_bytes((folder / name).read_bytes())
        write_certificate(Path(scratch), certificate)
        done = subprocess.run([sys.executable, CHECKER, scratch], capture_output=True, text=True, check=False)
    if done.returncode != (0 if valid else 1):
        sys.exit(f"DISAGREEMENT: {how}: the package says {valid}, the checker {done.stdout or done.stderr}")


def main() -> None:
    """Attack, and print a table of what became of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="altered models, and as many altered certificates")
    parser.add_argument("--checker", type=int, default=20, help="how many certificates the checker is given too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    verdicts = attack_certificates(options.folder, options.count, options.checker, rng)
    verdicts += attack_models(options.folder, options.count, rng)
    for (how, verdict), times in sorted(verdicts.items()):
        print(f"{how}: {verdict}: {times}")
    print("never fooled")


if __name__ == "__main__":
    main()
