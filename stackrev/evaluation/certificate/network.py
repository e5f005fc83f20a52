"""A stack-LSTM's weights as the proof reads them, and one step of its encoder and of its decoder on boxes.

Symbols: `$` starts, `|` ends and `&` closes a string; S symbols are in between. Shapes: K layers of H units, a stack of
width M, a vocabulary of V ids. R rows are cases side by side: symbols, or pairs of a fed symbol and a read.

The stack has no part in this. docs/proof.md shows why: where the gates are 0 and 1 exactly, what an encoder step reads
is the value that the step before has pushed, and what a decoder step reads is a value that the encoder has pushed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stackrev.evaluation.certificate.intervals import (
    Array,
    Box,
    Rounding,
    concatenate,
    join,
    linear,
    point,
    product,
    rounded,
    sigmoid,
    tanh,
)
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.tasks import vocabulary


class State(NamedTuple):
    """Every state that the controller may be in.

    Attributes:
        hidden: [..., K, H].
        cell: [..., K, H].
    """

    hidden: Box
    cell: Box

    def contains(self, other: State) -> bool:
        """Whether all states of another box lie within this one."""
        return self.hidden.contains(other.hidden) and self.cell.contains(other.cell)

    def hull(self, other: State) -> State:
        """The smallest box that holds both."""
        return State(self.hidden.hull(other.hidden), self.cell.hull(other.cell))

    def over_rows(self) -> State:
        """The hull over the first axis."""
        return State(self.hidden.over(0), self.cell.over(0))


@dataclass(frozen=True)
class Cell:
    """An encoder or a decoder.

    Attributes:
        symbols: [V, 4H], what symbols add to the first layer's pre-activations, its bias included.
        recurrent: For each layer [M + H, 4H] or [2H, 4H]: the rows of the read or the layer below, then its own.
        bias: [4H] for each layer above the first.
        gates: [H, 2], from the top layer to the pre-activations of push and pop.
        gates_bias: [2].
        value: [H, M], from the top layer to the value that is pushed.
        value_bias: [M].
    """

    symbols: Array
    recurrent: tuple[Array, ...]
    bias: tuple[Array, ...]
    gates: Array
    gates_bias: Array
    value: Array
    value_bias: Array

    def first_layer(self, reads: Box, hidden: Box, rounding: Rounding) -> Box:
        """What reads [R, M] and the first layer's hidden state [H] add to its pre-activations: [R, 4H]."""
        return linear(concatenate(reads, hidden), self.recurrent[0], np.zeros(1), rounding, extra=3)

    def step(self, symbols: Array, sums: Box, state: State, rounding: Rounding) -> State:
        """Every state after a step.

        Args:
            symbols: [R, 4H], the rows' symbols.
            sums: [R, 4H], from `first_layer`.
            state: Every state before the step, [K, H].
            rounding: How the network computes.

        Returns:
            [R, K, H].
        """
        error = rounding.gamma(self.recurrent[0].shape[0] + 6) * np.abs(symbols)
        z = Box(symbols - error + sums.lower, symbols + error + sums.upper)
        hidden: list[Box] = []
        cell: list[Box] = []
        for layer, before in enumerate(self.recurrent):
            if layer:
                source = concatenate(hidden[-1], state.hidden[layer])
                z = linear(source, before, self.bias[layer - 1], rounding)
            h, c = _lstm(z, state.cell[layer], rounding)
            hidden.append(h)
            cell.append(c)
        return State(join(hidden, np.stack, axis=-2), join(cell, np.stack, axis=-2))

    def gate_inputs(self, top: Box, rounding: Rounding) -> Box:
        """The pre-activations of push and pop, [R, 2], from the top layer's hidden states [R, H]."""
        return linear(top, self.gates, self.gates_bias, rounding)

    def values(self, top: Box, rounding: Rounding) -> Box:
        """The values that are pushed, [R, M], from the top layer's hidden states [R, H]."""
        return tanh(linear(top, self.value, self.value_bias, rounding), rounding)


def _lstm(z: Box, cell: Box, rounding: Rounding) -> tuple[Box, Box]:
    """The cell: c' = f c + i g and h' = o tanh(c'), from pre-activations [R, 4H] and cell states [H]."""
    size = z.lower.shape[-1] // 4
    i, f, o = (sigmoid(z[..., k * size : (k + 1) * size], rounding) for k in (0, 1, 3))
    g = tanh(z[..., 2 * size : 3 * size], rounding)
    kept, new = product(f, cell), product(i, g)
    total = Box(kept.lower + new.lower, kept.upper + new.upper)
    c = rounded(total, kept.magnitude + new.magnitude, 3, rounding)
    h = product(o, tanh(c, rounding))
    return rounded(h, h.magnitude, 2, rounding), c


@dataclass(frozen=True)
class Network:
    """A stack-LSTM that reverses strings, in float64.

    Attributes:
        encoder: The encoder.
        decoder: The decoder.
        initial: Its trained first state, [K, H].
        output: [H, H], from the decoder's top layer to the read-out's hidden layer.
        output_bias: [H].
        logits: [H, V].
        logits_bias: [V].
        stretch: e of the stretched gates.
        start: The id of `$`.
        separator: The id of `|`.
        end: The id of `&`.
        alphabet: [S], the ids that strings are made of.
    """

    encoder: Cell
    decoder: Cell
    initial: State
    output: Array
    output_bias: Array
    logits: Array
    logits_bias: Array
    stretch: float
    start: int
    separator: int
    end: int
    alphabet: tuple[int, ...]

    @property
    def largest(self) -> float:
        """The greatest absolute value of any weight."""
        arrays = [*vars(self.encoder).values(), *vars(self.decoder).values()]
        arrays += [self.output, self.output_bias, self.logits, self.logits_bias]
        arrays += [self.initial.hidden.magnitude, self.initial.cell.magnitude]
        flat = [part for each in arrays for part in (each if isinstance(each, tuple) else (each,))]
        return float(np.max([np.abs(part).max() for part in flat]))

    @property
    def width(self) -> int:
        """M, the width of the stack."""
        return int(self.encoder.value.shape[1])

    def started(self, rounding: Rounding) -> State:
        """Every state after `$`, [K, H]: one point, but for rounding."""
        reads = point(np.zeros((1, self.width)))
        sums = self.encoder.first_layer(reads, self.initial.hidden[0], rounding)
        return self.encoder.step(self.encoder.symbols[[self.start]], sums, self.initial, rounding).over_rows()

    def encoded(self, state: State, rounding: Rounding) -> State:
        """Every state after one more symbol, [S, K, H], one row a symbol, from any state [K, H] after at least `$`."""
        reads = self.encoder.values(state.hidden[-1][None], rounding)
        sums = self.encoder.first_layer(reads, state.hidden[0], rounding)
        return self.encoder.step(self.encoder.symbols[list(self.alphabet)], sums, state, rounding)

    def pushed(self, started: State, encoded: State, rounding: Rounding) -> Box:
        """Every value on the stack, [1 + S, M]: pushed after `$`, and after each symbol."""
        first = self.encoder.values(started.hidden[-1][None], rounding)
        rest = self.encoder.values(encoded.hidden[:, -1], rounding)
        return join([first, rest], np.concatenate)

    @property
    def fed(self) -> tuple[int, ...]:
        """What a decoder step may be fed: `|` and every symbol."""
        return (self.separator, *self.alphabet)

    @property
    def wanted(self) -> tuple[int, ...]:
        """What is to be written for each value on the stack: `&` for that of `$`, and the symbols."""
        return (self.end, *self.alphabet)


def read_stack_lstm(config: StackLSTMConfig, weights: Mapping[str, npt.NDArray[np.float32]]) -> Network:
    """The network that a stack-LSTM's weights describe.

    Args:
        config: The model's configuration.
        weights: Every parameter by its name in the model's `state_dict`, with its shape.
    """
    layers = config.layers
    exact = {name: np.asarray(values, dtype=np.float64) for name, values in weights.items()}

    def cell(name: str, controls: str) -> Cell:
        weight, bias = exact[f"{controls}.weight"], exact[f"{controls}.bias"]
        biases = [exact[f"{name}.bias.{k}"] for k in range(layers)]
        # The network adds symbol and bias in float32: one rounding, which `Cell.step` counts.
        return Cell(
            symbols=exact[f"{name}.symbols"] + biases[0],
            recurrent=tuple(exact[f"{name}.recurrent.{k}"] for k in range(layers)),
            bias=tuple(biases[1:]),
            gates=weight[:, :2],
            gates_bias=bias[:2],
            value=weight[:, 2:],
            value_bias=bias[2:],
        )

    markers = (vocabulary.START, vocabulary.SEPARATOR, vocabulary.END)
    return Network(
        encoder=cell("encoder", "controls"),
        decoder=cell("decoder", "controls" if config.shared_controls else "decoder_controls"),
        initial=State(point(exact["initial_hidden"][:, 0]), point(exact["initial_cell"][:, 0])),
        output=exact["output.weight"].T,
        output_bias=exact["output.bias"],
        logits=exact["logits.weight"].T,
        logits_bias=exact["logits.bias"],
        stretch=config.gate_stretch,
        start=vocabulary.START,
        separator=vocabulary.SEPARATOR,
        end=vocabulary.END,
        alphabet=tuple(k for k in range(exact["logits.bias"].shape[0]) if k not in markers),
    )
