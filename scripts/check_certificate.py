"""Check a certificate that a stack-LSTM reverses every string, independently of the package that made it.

    python scripts/check_certificate.py checkpoints/stack-lstm

Reads `model.safetensors`, `config.json` and `certificate.safetensors` of a folder and checks the conditions of the
theorem in docs/proof.md in the ball arithmetic of Arb (python-flint). It believes nothing but the constants below: the
certificate is a claim, two boxes of states, and every condition is computed from the weights. No code of stackrev is
imported. Exit code 0: proved. 1: not proved. 2: wrong usage, or files that cannot be read.

How rounding is treated: a sum of k products in float32, in any order, is the exact sum of products each multiplied by
1 + t with |t| <= gamma_k = k u / (1 - k u) (Higham 2002, section 3.1). So a matrix whose entries are the balls
w (1 +- gamma_k) times a vector of balls contains whatever the network computes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import flint
import numpy as np
from flint import arb, arb_mat
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

UNIT = arb(2) ** -24  # float32
SIGMOID_ERROR = arb(2) ** -23  # of the sigmoid and the hyperbolic tangent as computed, measured over all of float32
TANH_ERROR = arb(2) ** -22
LARGEST = 2.0**50  # no weight and no bound is larger, so that no sum of float32 overflows
UNDERFLOW = arb(2) ** -70  # what flushing to zero does to one term: at most 2^-126 times what it is multiplied by
START, SEPARATOR, END = 0, 1, 2

flint.ctx.prec = 64


class Interval(NamedTuple):
    """From a lower to an upper bound, both exact numbers."""

    lower: arb
    upper: arb

    def ball(self) -> arb:
        """The interval as a ball."""
        return self.lower.union(self.upper)


def gamma(count: int) -> arb:
    """The bound on the relative error of so many roundings in a row."""
    return (count * UNIT / (1 - count * UNIT)).upper()


def noisy(matrix: np.ndarray, count: int) -> arb_mat:
    """The matrix whose entries are perturbed by so many roundings."""
    factor = 1 + arb(0, gamma(count))
    return arb_mat([[arb(float(entry)) * factor for entry in row] for row in matrix])


def multiply(vectors: list[list[arb]], matrix: arb_mat) -> list[list[arb]]:
    """Several vectors times a noisy matrix, with what underflow may do to their terms."""
    underflow = arb(0, 2 * matrix.nrows() * UNDERFLOW)
    return [[entry + underflow for entry in row] for row in (arb_mat(vectors) * matrix).tolist()]


def product(a: Interval, b: Interval) -> Interval:
    """The range of products."""
    ends = [x * y for x in a for y in b]
    lower, upper = ends[0], ends[0]
    for end in ends[1:]:
        lower, upper = lower.min(end), upper.max(end)
    return Interval(lower.lower(), upper.upper())


def sigmoid(x: arb) -> Interval:
    """What the network may compute as 1 / (1 + exp(-x)) for x in a ball; the function rises."""
    lower, upper = (1 / (1 + (-end).exp()) for end in (x.lower(), x.upper()))
    return Interval((lower - SIGMOID_ERROR).lower(), (upper + SIGMOID_ERROR).upper())


def tanh(x: arb) -> Interval:
    """What the network may compute as the hyperbolic tangent for x in a ball; the function rises."""
    return Interval((x.lower().tanh() - TANH_ERROR).lower(), (x.upper().tanh() + TANH_ERROR).upper())


def lstm(z: list[arb], cell: list[Interval]) -> tuple[list[Interval], list[Interval]]:
    """The cell, c' = f c + i g and h' = o tanh(c'), for pre-activations z in the order i, f, g, o."""
    size, hidden, after = len(cell), [], []
    three, two = arb(0, gamma(3)), arb(0, gamma(2))
    for j in range(size):
        i, f, o = sigmoid(z[j]), sigmoid(z[size + j]), sigmoid(z[3 * size + j])
        kept, new = product(f, cell[j]), product(i, tanh(z[2 * size + j]))
        error = (abs(kept.ball()).upper() + abs(new.ball()).upper()) * three + arb(0, 6 * UNDERFLOW)
        c = Interval((kept.lower + new.lower + error).lower(), (kept.upper + new.upper + error).upper())
        h = product(o, tanh(c.ball()))
        error = abs(h.ball()).upper() * two + arb(0, 4 * UNDERFLOW)
        after.append(c)
        hidden.append(Interval((h.lower + error).lower(), (h.upper + error).upper()))
    return hidden, after


class State(NamedTuple):
    """Of every layer, the intervals of its hidden and of its cell state."""

    hidden: list[list[Interval]]
    cell: list[list[Interval]]

    def holds(self, other: State) -> bool:
        """Whether another box of states lies within this one."""
        return all(
            bool(a.lower <= b.lower) and bool(b.upper <= a.upper)
            for mine, theirs in zip(self, other, strict=True)
            for layer, their_layer in zip(mine, theirs, strict=True)
            for a, b in zip(layer, their_layer, strict=True)
        )


class Cell:
    """The encoder or the decoder."""

    def __init__(self, weights: dict[str, np.ndarray], name: str, controls: str, layers: int) -> None:
        first = weights[f"{name}.recurrent.0"]
        terms = first.shape[0] + 8  # layers above have twice as many at most
        # The sum is computed in float64, which errs by 2^-53: far less than one of the roundings that `terms` counts.
        self.symbols = noisy(weights[f"{name}.symbols"] + weights[f"{name}.bias.0"], terms).tolist()
        self.first = noisy(first, terms)
        self.above = [noisy(weights[f"{name}.recurrent.{k}"], 2 * terms) for k in range(1, layers)]
        self.bias = [noisy(weights[f"{name}.bias.{k}"][None], 2 * terms).tolist()[0] for k in range(1, layers)]
        weight, bias = weights[f"{controls}.weight"], weights[f"{controls}.bias"]
        self.controls = noisy(weight, weight.shape[0] + 6)
        self.controls_bias = noisy(bias[None], weight.shape[0] + 6).tolist()[0]

    def sums(self, reads: list[list[arb]], state: State) -> list[list[arb]]:
        """What each of several reads and the hidden state add to the first layer's pre-activations."""
        hidden = [each.ball() for each in state.hidden[0]]
        return multiply([read + hidden for read in reads], self.first)

    def step(self, symbol: int, sums: list[arb], state: State) -> State:
        """Every state after a step, from every state before it."""
        z = [a + b for a, b in zip(self.symbols[symbol], sums, strict=True)]
        hidden, cell = lstm(z, state.cell[0])
        all_hidden, all_cell = [hidden], [cell]
        for k, (matrix, bias) in enumerate(zip(self.above, self.bias, strict=True), start=1):
            source = [each.ball() for each in (*all_hidden[-1], *state.hidden[k])]
            z = [a + b for a, b in zip(multiply([source], matrix)[0], bias, strict=True)]
            hidden, cell = lstm(z, state.cell[k])
            all_hidden.append(hidden)
            all_cell.append(cell)
        return State(all_hidden, all_cell)

    def control(self, states: list[State]) -> list[list[arb]]:
        """The pre-activations of push, pop and value, for each of several boxes of states."""
        tops = [[each.ball() for each in state.hidden[-1]] for state in states]
        return [[a + b for a, b in zip(row, self.controls_bias, strict=True)] for row in multiply(tops, self.controls)]


def saturation(stretch: float) -> tuple[arb, arb]:
    """Below which pre-activation a gate clamp((1 + 2e) sigmoid(x) - e, 0, 1) is computed as 0, above which as 1."""
    e, four = arb(stretch), gamma(4)
    zero = e * (1 - four) / ((1 + 2 * e) * (1 + four)) - SIGMOID_ERROR
    one = (1 + e) * (1 + four) / ((1 + 2 * e) * (1 - four)) + SIGMOID_ERROR
    if not (zero > 0 and one < 1):
        raise SystemExit("not proved: the gates are not stretched enough to be 0 or 1 exactly")
    return (zero / (1 - zero)).log().lower(), (one / (1 - one)).log().upper()


class Checker:
    """A network, two boxes of states, and the least margins found so far."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]["model"]
        stored = load(data := (folder / "model.safetensors").read_bytes())
        usual = not config.get("cell_stretch") and "cell_stretch" not in stored
        if not usual or config["kind"] != "stack-lstm" or any(each.dtype != np.float32 for each in stored.values()):
            raise ValueError("it is not a stack-LSTM in float32 with the LSTM's usual gates")
        weights = {name: tensor.astype(np.float64) for name, tensor in stored.items()}
        with safe_open(folder / "certificate.safetensors", framework="np") as file:
            boxes, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        self.checksum = hashlib.sha256(data).hexdigest()
        if metadata.get("weights") != self.checksum:
            raise SystemExit("not proved: the certificate is about other weights")
        if metadata.get("sha256") != digest(boxes):
            raise SystemExit("not proved: the certificate is damaged")
        if not all((np.abs(tensor) <= LARGEST).all() for tensor in (*weights.values(), *boxes.values())):
            raise SystemExit("not proved: a weight or a bound is too large, so that sums may overflow, or NaN")
        first = {kind: weights[f"initial_{kind}"][:, 0] for kind in ("hidden", "cell")}
        layers, size = first["hidden"].shape
        controls = "controls" if config["shared_controls"] else "decoder_controls"
        self.encoder = Cell(weights, "encoder", "controls", layers)
        self.decoder = Cell(weights, "decoder", controls, layers)
        self.zero, self.one = saturation(float(config["gate_stretch"]))
        start = {f"{kind}.{end}": values for kind, values in first.items() for end in ("lower", "upper")}
        self.initial = self.box(start, (layers, size))
        self.E, self.D = (
            self.box(
                {key.removeprefix(f"{name}."): x for key, x in boxes.items() if key.startswith(name)}, (layers, size)
            )
            for name in ("encoder", "decoder")
        )
        self.output = noisy(weights["output.weight"].T, size + 6)
        self.output_bias = noisy(weights["output.bias"][None], size + 6).tolist()[0]
        self.logits = noisy(np.concatenate([weights["logits.weight"], weights["logits.bias"][:, None]], 1), size + 6)
        self.symbols = range(END + 1, weights["logits.bias"].shape[0])
        self.width = weights["encoder.recurrent.0"].shape[0] - size
        self.margins: dict[str, float] = {}

    @staticmethod
    def box(bounds: dict[str, np.ndarray], shape: tuple[int, ...]) -> State:
        """A box of states, from the bounds of `hidden` and `cell`, each [layers, hidden size]."""
        ends = [[bounds[f"{kind}.{end}"] for end in ("lower", "upper")] for kind in ("hidden", "cell")]
        if any(each.shape != shape for pair in ends for each in pair):
            raise ValueError("the boxes are not of this network's shape")
        exact = [[[[arb(float(x)) for x in row] for row in each] for each in pair] for pair in ends]
        return State(
            *([[Interval(*x) for x in zip(*row, strict=True)] for row in zip(*pair, strict=True)] for pair in exact)
        )

    def require(self, condition: str, margin: arb) -> None:
        """Note a margin, and stop where a condition is not sure to hold."""
        self.margins[condition] = min(self.margins.get(condition, math.inf), float(margin.lower()))
        if not margin > 0:
            raise SystemExit(f"not proved: {condition} may fail by {-self.margins[condition]:.3g}")

    def within(self, condition: str, outer: State, inner: State) -> None:
        """Stop where a box of states may leave another."""
        if not outer.holds(inner):
            raise SystemExit(f"not proved: {condition}")

    def check(self) -> None:
        """Check every condition of the theorem."""
        encoder, zeros = self.encoder, [arb(0)] * self.width
        started = encoder.step(START, encoder.sums([zeros], self.initial)[0], self.initial)
        self.within("the state after `$` may lie outside of E", self.E, started)
        (control,) = encoder.control([self.E])
        reads = [[tanh(x).ball() for x in control[2:]]]
        after = [encoder.step(symbol, encoder.sums(reads, self.E)[0], self.E) for symbol in self.symbols]
        for state in after:
            self.within("an encoder step may leave E", self.E, state)
        controls = encoder.control([started, *after])
        for control in controls:
            self.require("encoder push", control[0].lower() - self.one)
            self.require("encoder pop", self.zero - control[1].upper())
        self.within("E does not lie within D", self.D, self.E)
        self.check_decoder([[tanh(x).ball() for x in control[2:]] for control in controls])

    def check_decoder(self, values: list[list[arb]]) -> None:
        """Check every step of the decoder, by the value that it reads."""
        sums = self.decoder.sums(values, self.D)
        for wanted, each in zip((END, *self.symbols), sums, strict=True):
            after = [self.decoder.step(fed, each, self.D) for fed in (SEPARATOR, *self.symbols)]
            for state, control in zip(after, self.decoder.control(after), strict=True):
                self.within("a decoder step may leave D", self.D, state)
                self.require("decoder push", self.zero - control[0].upper())
                self.require("decoder pop", control[1].lower() - self.one)
            self.check_logits(after, wanted)

    def check_logits(self, states: list[State], wanted: int) -> None:
        """Check that one symbol's logit exceeds every other's."""
        tops = multiply([[each.ball() for each in state.hidden[-1]] for state in states], self.output)
        out = [[tanh(a + b).ball() for a, b in zip(row, self.output_bias, strict=True)] for row in tops]
        logits = self.logits.tolist()
        right = logits.pop(wanted)
        ahead = arb_mat([[a - b for a, b in zip(right, other, strict=True)] for other in logits]).transpose()
        for gaps in multiply([[*each, arb(1)] for each in out], ahead):
            for gap in gaps:
                self.require("logit gap", gap.lower())


def digest(boxes: dict[str, np.ndarray]) -> str:
    """The checksum of the boxes: of their names and shapes, and of their values in little-endian float64."""
    found = hashlib.sha256()
    for name, ends in sorted(boxes.items()):
        found.update(f"{name} {list(ends.shape)}\n".encode() + ends.astype("<f8").tobytes())
    return found.hexdigest()


def main() -> None:
    """Check the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        checker = Checker(folder)
        checker.check()
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        parser.error(f"{folder} cannot be read as a checkpoint with a certificate: {error!r}")
    except SystemExit as reason:
        print(reason)
        sys.exit(1)
    print(f"proved: the network {checker.checksum} reverses every string of up to 2^53 - 2 symbols exactly")
    for condition, margin in checker.margins.items():
        print(f"  {condition}: at least {margin:.4f}")


if __name__ == "__main__":
    main()
