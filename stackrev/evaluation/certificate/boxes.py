"""Finding boxes that hold every state that the controller can be in, however long the string.

The encoder's box E has to satisfy: the state after `$` lies in E, and F_x(E) lies in E for every symbol x. The least
such box is the limit of E <- hull(E, F_x(E)), which grows towards it and never arrives; so each round inflates the box
by a little, and the search ends when the image of the box lies within it. The decoder's box D contains E and is found
in the same way from G_{f,v}(D), for every fed f and every value v on the stack.

There are (1 + S)^2 pairs of f and v. Most of them have no part in the hull, so rounds go through those few that have
reached an end of it (the *active* pairs), and a round through all pairs, which finds further ones, closes the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stackrev.evaluation.certificate.intervals import Array, Box, Rounding, saturation
from stackrev.evaluation.certificate.network import Network, State

ROUNDS = 1_000
"""How often a box may grow before the search gives up."""

_WIDEST = 1e3
_CHUNK = 130_000  # numbers that a processor keeps near


def find_encoder_box(network: Network, rounding: Rounding, *, thorough: bool = True) -> State | None:
    """A box E of encoder states, [K, H], which every symbol maps into itself; None if none was found.

    Args:
        network: The network.
        rounding: How it computes.
        thorough: Whether to go on once a gate may be neither 0 nor 1 within the box. Since the box only grows, there
            is no proof then; the box is of interest only to those who ask how much is missing.
    """
    started = network.started(rounding)
    zero, one = saturation(network.stretch, rounding)

    def image(box: State) -> State | None:
        after = network.encoded(box, rounding)
        if not thorough:
            inputs = network.encoder.gate_inputs(after.hidden[:, -1], rounding)
            if inputs.lower[:, 0].min() < one or inputs.upper[:, 1].max() > zero:
                return None
        return after.over_rows().hull(started)

    return _grow(started, image)


def find_decoder_box(network: Network, encoder: State, rounding: Rounding, *, thorough: bool = True) -> State | None:
    """A box D of decoder states, [K, H]: it holds E, and every step maps it into itself; None if none is found.

    Args:
        network: The network.
        encoder: E.
        rounding: How the network computes.
        thorough: As of `find_encoder_box`.
    """
    values = network.pushed(network.started(rounding), network.encoded(encoder, rounding), rounding)
    box = encoder
    pairs = _Pairs(network, values, rounding, thorough)
    for _ in range(20):
        image, found = pairs.image_of_all(box)
        if box.contains(image):
            return box
        pairs.activate(found)
        grown = _grow(box.hull(image), lambda state: pairs.image(state, encoder))
        if grown is None:
            return None
        box = grown
    return None


def decoder_rows(
    network: Network, values: Box, state: State, rounding: Rounding, *, chunk: int = _CHUNK
) -> Iterator[tuple[slice, State]]:
    """Every state after a decoder step, by chunks of fed symbols.

    Yields:
        Which of `network.fed`, and the states [F (1 + S), K, H] for these and, of each in turn, for every value.
    """
    sums = network.decoder.first_layer(values, state.hidden[0], rounding)
    count, size = sums.lower.shape
    fed = network.decoder.symbols[list(network.fed)]
    step = max(1, chunk // (count * size))
    for first in range(0, len(fed), step):
        rows = fed[first : first + step]
        symbols, places = np.repeat(rows, count, axis=0), np.tile(np.arange(count), len(rows))
        yield slice(first, first + len(rows)), network.decoder.step(symbols, sums[places], state, rounding)


class _Pairs:
    """Pairs of a fed symbol and a value, and what decoder steps make of them."""

    def __init__(self, network: Network, values: Box, rounding: Rounding, thorough: bool) -> None:
        self._network, self._values, self._rounding, self._thorough = network, values, rounding, thorough
        self._zero, self._one = saturation(network.stretch, rounding)
        self._active = np.zeros(0, dtype=np.int64)

    def activate(self, pairs: Array) -> None:
        """Let these pairs, by number, take part in `image`."""
        self._active = np.union1d(self._active, pairs).astype(np.int64)

    def image(self, state: State, encoder: State) -> State | None:
        """The hull of E and of the states after a step with an active pair; None if there is no use in going on."""
        network, values = self._network, self._values
        fed, value = np.divmod(self._active, values.lower.shape[0])
        sums = network.decoder.first_layer(values, state.hidden[0], self._rounding)
        symbols = network.decoder.symbols[np.asarray(network.fed)[fed]]
        after = network.decoder.step(symbols, sums[value], state, self._rounding)
        if not self._thorough:
            inputs = network.decoder.gate_inputs(after.hidden[:, -1], self._rounding)
            if inputs.upper[:, 0].max() > self._zero or inputs.lower[:, 1].min() < self._one:
                return None
        return after.over_rows().hull(encoder)

    def image_of_all(self, state: State) -> tuple[State, Array]:
        """The hull of the states after a step with any pair, and the numbers of the pairs that reach its ends."""
        hull: State | None = None
        count = self._values.lower.shape[0]
        best: list[tuple[Array, Array]] = []
        for part, after in decoder_rows(self._network, self._values, state, self._rounding):
            ends = [-after.hidden.lower, after.hidden.upper, -after.cell.lower, after.cell.upper]
            flat = np.concatenate([end.reshape(len(end), -1) for end in ends], axis=1)
            places = flat.argmax(0)
            best.append((np.take_along_axis(flat, places[None], 0)[0], places + part.start * count))
            hull = after.over_rows() if hull is None else hull.hull(after.over_rows())
        assert hull is not None, "a decoder step is fed something"
        winners = np.stack([score for score, _ in best]).argmax(0)
        places = np.take_along_axis(np.stack([place for _, place in best]), winners[None], 0)[0]
        return hull, np.unique(places)


def _grow(box: State, image: Callable[[State], State | None]) -> State | None:
    """Inflate a box until its image lies within it; None if it grows without end, or if there is no image."""
    for count in range(ROUNDS):
        after = image(box)
        if after is None:
            return None
        if box.contains(after):
            return box
        if not np.isfinite(after.cell.upper).all() or after.cell.magnitude.max() > _WIDEST:
            return None
        share = 0.02 if count < ROUNDS // 2 else 0.2
        box = State(*(_inflated(old, new, share) for old, new in zip(box, after, strict=True)))
    return None


def _inflated(old: Box, new: Box, share: float) -> Box:
    """The hull of a box and its image, and a little more where the image has left the box."""
    reach = share * (new.upper - new.lower) * 0.05 + 1e-7
    return Box(
        np.where(new.lower < old.lower, new.lower - reach, old.lower),
        np.where(new.upper > old.upper, new.upper + reach, old.upper),
    )
