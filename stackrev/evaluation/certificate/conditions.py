"""The conditions of the theorem in docs/proof.md, checked for given boxes with rounding included.

1.  the state after `$` lies in E, and F_x(E) lies in E for every symbol x
2.  after `$` and on F_x(E): push is exactly 1 and pop exactly 0
3.  E lies in D, and G_{f,v}(D) lies in D for every fed f and every value v on the stack
4.  on G_{f,v}(D): push is exactly 0 and pop exactly 1, and the logit of the symbol that v belongs to exceeds
    every other
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from stackrev.evaluation.certificate.boxes import decoder_rows
from stackrev.evaluation.certificate.intervals import LARGEST, Array, Box, Rounding, join, linear, saturation, tanh
from stackrev.evaluation.certificate.network import Network, State


@dataclass(frozen=True)
class Conditions:
    """What the check of a pair of boxes has found: a margin for each condition, where there is least of it.

    A margin is positive where its condition holds with room to spare, and tells by how much it fails where negative.

    Attributes:
        overflow: How far every weight and every end of a box lies below `intervals.LARGEST`.
        encoder_closed: Condition 1: by how much the images lie within E, at the coordinate with the least room.
        encoder_push: Condition 2: how far the encoder's push gate is above where it is exactly 1.
        encoder_pop: Condition 2: how far its pop gate is below where it is exactly 0.
        decoder_closed: Condition 3: as condition 1, for D.
        decoder_push: Condition 4: how far the decoder's push gate is below where it is exactly 0.
        decoder_pop: Condition 4: how far its pop gate is above where it is exactly 1.
        logits: Condition 4: by how much the right logit exceeds every other.
        places: Of each margin by its name, the step where it is least, as ids: the symbol that the encoder reads, or
            the symbol that the decoder is fed and the one that it has to write.
    """

    overflow: float
    encoder_closed: float
    encoder_push: float
    encoder_pop: float
    decoder_closed: float
    decoder_push: float
    decoder_pop: float
    logits: float
    places: Mapping[str, tuple[int, ...]]

    @property
    def margins(self) -> dict[str, float]:
        """Every margin by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "places"}

    @property
    def failed(self) -> list[str]:
        """The names of the conditions that do not hold. A margin that is NaN does not."""
        return [name for name, margin in self.margins.items() if not (margin > 0 if name == "logits" else margin >= 0)]

    @property
    def hold(self) -> bool:
        """Whether all conditions hold."""
        return not self.failed


def check(network: Network, encoder: State, decoder: State, rounding: Rounding) -> Conditions:
    """Check every condition for the boxes E and D, each [K, H]."""
    least = _Least()
    sizes = [network.largest, *(box.magnitude.max() for state in (encoder, decoder) for box in state)]
    least.add("overflow", LARGEST - np.asarray(sizes), [()] * len(sizes))
    zero, one = saturation(network.stretch, rounding)
    started, encoded = network.started(rounding), network.encoded(encoder, rounding)
    read = [(network.start,), *((symbol,) for symbol in network.alphabet)]
    first = State(started.hidden[None], started.cell[None])
    least.add("encoder_closed", np.concatenate([_room(encoder, first), _room(encoder, encoded)]), read)
    tops = join([started.hidden[-1][None], encoded.hidden[:, -1]], np.concatenate)
    inputs = network.encoder.gate_inputs(tops, rounding)
    least.add("encoder_push", inputs.lower[:, 0] - one, read)
    least.add("encoder_pop", zero - inputs.upper[:, 1], read)

    least.add("decoder_closed", _room(decoder, State(encoder.hidden[None], encoder.cell[None])), [()])
    values = network.pushed(started, encoded, rounding)
    for part, after in decoder_rows(network, values, decoder, rounding):
        steps = [*itertools.product(network.fed[part], network.wanted)]
        least.add("decoder_closed", _room(decoder, after), steps)
        top = after.hidden[:, -1]
        inputs = network.decoder.gate_inputs(top, rounding)
        least.add("decoder_push", zero - inputs.upper[:, 0], steps)
        least.add("decoder_pop", inputs.lower[:, 1] - one, steps)
        least.add("logits", _gaps(network, top, rounding).ravel(), steps)
    return Conditions(**least.margins, places=least.places)


class _Least:
    """The least margin of each condition so far, and where it is. NaN counts as least of all."""

    def __init__(self) -> None:
        self.margins: dict[str, float] = {}
        self.places: dict[str, tuple[int, ...]] = {}

    def add(self, name: str, margins: Array, steps: Sequence[tuple[int, ...]]) -> None:
        """Take account of margins, one for each step."""
        place = int(margins.argmin())  # of NaN, if there is any
        margin, before = float(margins[place]), self.margins.get(name)
        if before is None or math.isnan(margin) or margin < before:
            self.margins[name], self.places[name] = margin, steps[place]


def _gaps(network: Network, top: Box, rounding: Rounding) -> Array:
    """By how much the right logit exceeds every other, at least: [F, 1 + S], from hidden states [F (1 + S), H].

    The difference of two logits is bounded as one sum, o (W_y - W_k), since bounds of both apart would not know that it
    is the same o.
    """
    rows = tanh(linear(top, network.output, network.output_bias, rounding), rounding)
    shape = (-1, len(network.wanted), network.output.shape[1])
    out = Box(rows.lower.reshape(shape), rows.upper.reshape(shape))
    center, radius = (out.lower + out.upper) / 2, (out.upper - out.lower) / 2
    terms = network.logits.shape[0] + 4
    products = rounding.products(terms) * (out.magnitude @ np.abs(network.logits))
    absolute = products + rounding.gamma(terms) * np.abs(network.logits_bias)
    middle = center @ network.logits + network.logits_bias
    gaps = np.empty(middle.shape[:2])
    for column, symbol in enumerate(network.wanted):
        spread = radius[:, column] @ np.abs(network.logits - network.logits[:, [symbol]])
        error = absolute[:, column] + absolute[:, column, [symbol]]
        gap = middle[:, column, [symbol]] - middle[:, column] - spread - error
        gap[:, symbol] = math.inf
        gaps[:, column] = gap.min(1)
    return gaps


def _room(outer: State, inner: State) -> Array:
    """By how much each of several boxes [R, K, H] lies within another [K, H] where that is least: [R]."""
    rooms = [
        room.reshape(len(room), -1).min(1)
        for a, b in ((outer.hidden, inner.hidden), (outer.cell, inner.cell))
        for room in (b.lower - a.lower, a.upper - b.upper)
    ]
    least: Array = np.min(rooms, axis=0)
    return least
