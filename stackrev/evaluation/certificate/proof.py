"""From a network to a proof that it reverses every string, or to what stands in its way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from stackrev.evaluation.certificate.boxes import find_decoder_box, find_encoder_box
from stackrev.evaluation.certificate.conditions import Conditions, check
from stackrev.evaluation.certificate.intervals import Array, Box, Rounding
from stackrev.evaluation.certificate.network import Network, State

LONGEST = 2**53 - 2
"""The longest string that the theorem speaks of: heights of the stack are exact in float64 up to 2^53."""


@dataclass(frozen=True)
class Boxes:
    """What a certificate consists of.

    Attributes:
        encoder: E, every state of the encoder from `$` on, [K, H].
        decoder: D, every state of the encoder and of the decoder, [K, H].
    """

    encoder: State
    decoder: State

    def arrays(self) -> dict[str, Array]:
        """The ends of the boxes by name, such as `encoder.hidden.lower`, each [K, H]."""
        return {f"{name}.{kind}.{end}": getattr(getattr(getattr(self, name), kind), end) for name, kind, end in _NAMES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], network: Network) -> Boxes:
        """The boxes that `arrays` describes.

        Raises:
            ValueError: An array is missing, is one too many, or has another shape than this network's states.
        """
        expected = {".".join(name) for name in _NAMES}
        if set(arrays) != expected:
            raise ValueError(f"boxes have the ends {', '.join(sorted(expected))} and no others")
        shape = network.initial.hidden.lower.shape
        for name, values in arrays.items():
            if values.shape != shape:
                raise ValueError(f"{name} has the shape {list(values.shape)}, not {list(shape)}")
        encoder, decoder = (
            State(*(Box(arrays[f"{name}.{kind}.lower"], arrays[f"{name}.{kind}.upper"]) for kind in ("hidden", "cell")))
            for name in ("encoder", "decoder")
        )
        return cls(encoder, decoder)


_NAMES = tuple(itertools.product(("encoder", "decoder"), ("hidden", "cell"), ("lower", "upper")))


@dataclass(frozen=True)
class Proof:
    """What came of looking for a proof.

    Attributes:
        boxes: The boxes; None if none that is mapped into itself was found.
        conditions: What the check of the boxes has found; None if there are none.
        missing: Which search found no box, "encoder" or "decoder"; None if both did.
        rounding: The arithmetic that the proof is about.
        unit: The greatest unit roundoff that the boxes are known to be a proof for.
    """

    boxes: Boxes | None
    conditions: Conditions | None
    missing: str | None
    rounding: Rounding
    unit: float

    @property
    def proved(self) -> bool:
        """Whether the network reverses every string."""
        return self.conditions is not None and self.conditions.hold


def prove(network: Network, rounding: Rounding | None = None, *, thorough: bool = True) -> Proof:
    """Look for boxes and check the conditions of docs/proof.md for them.

    Args:
        network: A stack-LSTM that is meant to reverse strings.
        rounding: How it computes; as measured for float32 if None.
        thorough: Whether to find out, where there is no proof, how much is missing; if not, failing is quicker.
    """
    rounding = rounding or Rounding()
    encoder = find_encoder_box(network, rounding, thorough=thorough)
    if encoder is None:
        return Proof(None, None, "encoder", rounding, rounding.unit)
    decoder = find_decoder_box(network, encoder, rounding, thorough=thorough)
    if decoder is None:
        return Proof(None, None, "decoder", rounding, rounding.unit)
    return check_boxes(network, Boxes(encoder, decoder), rounding)


def check_boxes(network: Network, boxes: Boxes, rounding: Rounding | None = None) -> Proof:
    """Check the conditions of docs/proof.md for boxes that somebody claims to be a proof.

    Args:
        network: A stack-LSTM that is meant to reverse strings.
        boxes: The boxes.
        rounding: How it computes; as measured for float32 if None.
    """
    rounding = rounding or Rounding()
    with np.errstate(all="ignore"):  # what is no number fails the conditions
        return Proof(boxes, check(network, boxes.encoder, boxes.decoder, rounding), None, rounding, rounding.unit)


def coarsest(network: Network, proof: Proof) -> Proof:
    """The proof for the coarsest arithmetic that there is one for.

    A proof for a unit roundoff holds for every smaller one too, so the boxes of this one are the strongest certificate.

    Args:
        network: The network.
        proof: One that succeeded.

    Returns:
        A proof whose unit roundoff is the greatest power of two at which the search succeeds, at least that of `proof`.
    """
    best, good, bad = proof, _exponent(proof.rounding), 5
    while good - bad > 1:
        middle = (good + bad) // 2
        tried = prove(network, replace(proof.rounding, unit=2.0**-middle), thorough=False)
        if tried.proved:
            best, good = tried, middle
        else:
            bad = middle
    return best


def _exponent(rounding: Rounding) -> int:
    """The p of a unit roundoff of 2^-p."""
    exponent = 0
    while 2.0**-exponent > rounding.unit:
        exponent += 1
    return exponent
