"""The conditions of the theorem in docs/proof.md, checked for given boxes with rounding included.

1.  the state after `$` lies in E, and F_x(E) lies in E for every symbol x
2.  after `$` and on F_x(E): push is exactly 1 and pop exactly 0
3.  E lies in D, and G_{f,v}(D) lies in D for every fed f and every value v on the stack
4.  on G_{f,v}(D): push is exactly 0 and pop exactly 1, and the logit of the symbol that v belongs to exceeds
    every other
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stackrev.evaluation.certificate.boxes import decoder_rows
from stackrev.evaluation.certificate.intervals import Array, Box, Rounding, join, linear, saturation, tanh
from stackrev.evaluation.certificate.network import Network, State


@dataclass(frozen=True)
class Conditions:
    """What the check of a pair of boxes has found.

    A margin is positive where its condition holds with room to spare, and tells by how much it fails where negative.

    Attributes:
        encoder_closed: Condition 1: by how much the images lie within E, at the coordinate with the least room.
        encoder_push: Condition 2: how far the encoder's push gate is above where it is exactly 1.
        encoder_pop: Condition 2: how far its pop gate is below where it is exactly 0.
        decoder_closed: Condition 3: as condition 1, for D.
        decoder_push: Condition 4: how far the decoder's push gate is below where it is exactly 0.
        decoder_pop: Condition 4: how far its pop gate is above where it is exactly 1.
        logits: Condition 4: by how much the right logit exceeds every other.
        worst: The fed symbol and the symbol to be written where `logits` is least, as ids.
    """

    encoder_closed: float
    encoder_push: float
    encoder_pop: float
    decoder_closed: float
    decoder_push: float
    decoder_pop: float
    logits: float
    worst: tuple[int, int]

    @property
    def hold(self) -> bool:
        """Whether all conditions hold. A margin that is NaN does not."""
        closed = self.encoder_closed >= 0 and self.decoder_closed >= 0
        gates = (self.encoder_push, self.encoder_pop, self.decoder_push, self.decoder_pop)
        return closed and all(margin >= 0 for margin in gates) and self.logits > 0


def check(network: Network, encoder: State, decoder: State, rounding: Rounding) -> Conditions:
    """Check every condition for the boxes E and D, each [K, H]."""
    zero, one = saturation(network.stretch, rounding)
    started, encoded = network.started(rounding), network.encoded(encoder, rounding)
    tops = join([started.hidden[-1][None], encoded.hidden[:, -1]], np.concatenate)
    inputs = network.encoder.gate_inputs(tops, rounding)
    values = network.pushed(started, encoded, rounding)
    closed = [_room(decoder, encoder)]
    push: list[float] = []
    pop: list[float] = []
    logits: list[float] = []
    worst: list[tuple[int, int]] = []
    for part, after in decoder_rows(network, values, decoder, rounding):
        closed.append(_room(decoder, after))
        top = after.hidden[:, -1]
        gates = network.decoder.gate_inputs(top, rounding)
        push.append(zero - _greatest(gates.upper[:, 0]))
        pop.append(_least(gates.lower[:, 1]) - one)
        gaps = _gaps(network, top, rounding)
        fed, wanted = divmod(int(gaps.argmin()), gaps.shape[1])
        logits.append(float(gaps[fed, wanted]))
        worst.append((network.fed[part.start + fed], network.wanted[wanted]))
    return Conditions(
        encoder_closed=_all(_room(encoder, started), _room(encoder, encoded)),
        encoder_push=_least(inputs.lower[:, 0]) - one,
        encoder_pop=zero - _greatest(inputs.upper[:, 1]),
        decoder_closed=_all(*closed),
        decoder_push=_all(*push),
        decoder_pop=_all(*pop),
        logits=_all(*logits),
        worst=worst[int(np.argmin(logits))],
    )


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


def _room(outer: State, inner: State) -> float:
    """By how much a box lies within another where that is least; negative where it leaves it."""
    return _all(
        *(_least(b.lower - a.lower) for a, b in zip(outer, inner, strict=True)),
        *(_least(a.upper - b.upper) for a, b in zip(outer, inner, strict=True)),
    )


def _all(*margins: float) -> float:
    """The least margin; NaN if one is, where `min` would pass over it."""
    return float(np.min(margins))


def _least(values: Array) -> float:
    return float(values.min())


def _greatest(values: Array) -> float:
    return float(values.max())
