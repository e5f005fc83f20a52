"""Settling until the model is provably right for strings of every length.

Once a run is solved, bounds that hold for all strings join its loss (`structures/bounds.py`). They do not close on an
ordinary solved model: with a box of states a fiftieth as wide as it should be, its gates already miss their ends by 20.
So boxes start nearly as points, and their scale k grows by a tenth a batch as long as the bounds' loss is small:

    data loss + worst-case cross-entropy + 0.1 hinges of the four gates + 0.1 hinge of the forget gates + ranges of c

All of it is about what the solved model does already: which gate is open while it reads and while it writes, and which
symbol is to be written for a value on the stack. At k = 1 the bounds are whole. Now and then it is tried whether boxes
can be found that a step maps into themselves, with margins to spare; then the run ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from stackrev.errors import TrainingError
from stackrev.models.base import Reverser
from stackrev.readout import ReadOutWeights
from stackrev.structures.bounds import Bounds, Stage, contains, inflated, worst_logits
from stackrev.tasks import vocabulary

_START, _GROWTH, _SHRINKAGE = 0.005, 1.1, 0.97
_STEP = 0.05  # by how much the scale grows at most
_MOST = 1.03  # where the bounds close at more than the whole, they close at the whole with room to spare
_SMALL_LOSS = 1.0  # at which the scale may grow
_ENCODER_STEPS = 2  # by how many steps a batch follows the boxes, and derives through them
_HINGE = 8.0  # how far gates are pushed past saturation
_FORGET, _FORGET_HINGE = 0.1, 1.5  # weight; a forget gate of sigmoid(1.5) = 0.82 is not pushed at
_GATES = 0.1
_RANGE, _RANGE_HINGE = 0.05, 2.0
_TEMPERATURE = 3.0

TRY_EVERY = 5
"""Every so many batches it is tried whether the bounds close, once they are taken of more than half the box."""
_TRIED_FROM = 0.5
_ROUNDS = 30
_ENOUGH_GATES, _ENOUGH_LOGITS, _ENOUGH_CELLS = 4.0, 4.0, 32.0


@dataclass(frozen=True)
class Closing:
    """How near a run is to a proof.

    Attributes:
        scale: How wide the boxes are that the bounds are taken of: 1 is what a proof needs.
        gates: By how much the worst of the gates is past saturation then; below 0 it is not saturated.
        logits: By how much the right logit exceeds the others at least.
        cells: The greatest absolute cell state.
        closed: Whether boxes were found that every step maps into themselves.
    """

    scale: float
    gates: float
    logits: float
    cells: float
    closed: bool = False

    @property
    def enough(self) -> bool:
        """Whether the bounds close, with so much to spare that a proof will find the same."""
        return self.closed and self.spare

    @property
    def spare(self) -> bool:
        """Whether the margins are large."""
        return self.gates >= _ENOUGH_GATES and self.logits >= _ENOUGH_LOGITS and self.cells <= _ENOUGH_CELLS

    def to_dict(self) -> dict[str, Any]:
        """For the history."""
        return {name: each if isinstance(each, bool) else round(each, 4) for name, each in asdict(self).items()}


class Settling:
    """The part of a run that makes its bounds close: what joins the loss, and whether it has been enough.

    Args:
        model: The model that is trained.

    Attributes:
        scale: k of the next batch.
        closed_batch: After how many batches of the run the bounds were found to close; None if not yet.

    Raises:
        TrainingError: There are no such bounds for this model.
    """

    def __init__(self, model: Reverser[Any]) -> None:
        self._model = model
        self.scale = _START
        self.closed_batch: int | None = None
        self._encoder = torch.zeros_like(_bounds_of(model).start)  # boxes after the last batch, [2, K, H]
        self._decoder = self._encoder.clone()

    def loss(self) -> tuple[Tensor, Closing]:
        """The bounds' part of a batch's loss, and what the bounds are; the scale moves on."""
        encoded, decoded, margins, apart, found = self._bounds()
        loss = torch.logsumexp(apart / _TEMPERATURE, -1).mean()
        loss = loss + _GATES * sum((_HINGE - each).relu().mean() for each in margins)
        for stage in (encoded, decoded):
            loss = loss + _FORGET * (stage.forget - _FORGET_HINGE).relu().mean((1, 2)).sum()
            radius = (stage.cells[1] - stage.cells[0]) * 0.5
            loss = loss + _RANGE * (radius - _RANGE_HINGE).relu().mean(1).sum()
        self._encoder, self._decoder = (each.hull.detach().clamp(-1, 1) for each in (encoded, decoded))
        self._move_on(float(loss.detach()))
        return loss, found

    def _bounds(self) -> tuple[Stage, Stage, tuple[Tensor, ...], Tensor, Closing]:
        """Bounds at this scale: both stages, the gates' margins, the worst of the logits, and all in short."""
        bounds, scale = _bounds_of(self._model), self.scale * _MOST
        hull = self._encoder
        for _ in range(_ENCODER_STEPS):
            encoded = bounds.encode(hull, scale)
            hull = encoded.hull
        decoded = bounds.decode(self._decoder, encoded, scale)
        apart = _worst(decoded, self._model.read_out_weights)
        margins = _margins(encoded, decoded, bounds.saturation)
        return encoded, decoded, margins, apart, _closing(encoded, decoded, margins, apart, scale)

    @torch.no_grad()
    def look(self) -> Closing:
        """What the bounds of the next batch would be, if the weights stayed as they are."""
        return self._bounds()[-1]

    def _move_on(self, loss: float) -> None:
        if loss < _SMALL_LOSS:
            self.scale = min(1.0, self.scale + min((_GROWTH - 1) * self.scale, _STEP))
        else:
            self.scale *= _SHRINKAGE

    def due(self, batch: int, found: Closing) -> bool:
        """Whether it is time to try whether the bounds close, after what a batch's loss has found."""
        return batch % TRY_EVERY == 0 and found.scale >= _TRIED_FROM and found.spare

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs, as copies."""
        closed = -1 if self.closed_batch is None else self.closed_batch
        return {
            "scale": torch.tensor(self.scale, dtype=torch.float64),
            "closed": torch.tensor(closed),
            "encoder": self._encoder.clone(),
            "decoder": self._decoder.clone(),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises:
            ValueError: Something is missing, or is not what `state` gives.
        """
        for name, ours in self.state().items():
            if name not in tensors:
                raise ValueError(f"settling.{name} is missing")
            theirs = tensors[name]
            if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype) or not bool(torch.isfinite(theirs).all()):
                raise ValueError(f"settling.{name} is not what it should be")
        scale, closed = float(tensors["scale"]), int(tensors["closed"])
        if not (0 < scale <= 1 and closed >= -1):
            raise ValueError(f"settling has the scale {scale} and closed at {closed}")
        self.scale, self.closed_batch = scale, None if closed < 0 else closed
        self._encoder.copy_(tensors["encoder"])
        self._decoder.copy_(tensors["decoder"])


@torch.no_grad()
def close(model: Reverser[Any]) -> Closing | None:
    """Look for boxes that every step maps into themselves, from nothing and in float64.

    Returns:
        The margins in them; None if there seem to be none.

    Raises:
        TrainingError: There are no such bounds for this model.
    """
    bounds = _bounds_of(model, exact=True)
    hull = bounds.start
    for reach in _reaches():
        encoded = bounds.encode(hull)
        if contains(hull, encoded.hull):
            break
        hull = inflated(hull, encoded.hull, reach)
    else:
        return None
    encoded = encoded._replace(hull=hull)
    for reach in _reaches():
        decoded = bounds.decode(hull, encoded)
        if contains(hull, decoded.hull):
            break
        hull = inflated(hull, decoded.hull, reach)
    else:
        return None
    apart = _worst(decoded, ReadOutWeights(*(each.detach().double() for each in model.read_out_weights)))
    return _closing(encoded, decoded, _margins(encoded, decoded, bounds.saturation), apart, 1.0, closed=True)


def _bounds_of(model: Reverser[Any], *, exact: bool = False) -> Bounds:
    """The bounds of a model; exact ones are in float64 and have no derivatives."""
    controllers = model.controllers()
    if controllers is None:
        raise TrainingError(
            "this model cannot settle for a proof: that takes a stack whose gates reach 0 and 1, by a gate stretch, "
            "and LSTMs without a cell stretch",
            hint="use --settle plain",
        )
    return Bounds(controllers.to(torch.float64), exact=True) if exact else Bounds(controllers)


def _reaches() -> list[float]:
    """By how much a box is inflated in each round: more and more, as long as it has not closed."""
    return [1e-4 * 1.05**count for count in range(_ROUNDS)]


def _worst(decoded: Stage, read_out: ReadOutWeights) -> Tensor:
    return worst_logits(decoded.top, _wanted(read_out.logits), *read_out)


def _wanted(logits: Tensor) -> Tensor:
    """The right symbol for each value on the stack: `&` for that of `$`, and every symbol for its own."""
    symbols = torch.arange(vocabulary.FIRST_SYMBOL, logits.shape[0], device=logits.device)
    return torch.cat([symbols.new_tensor([vocabulary.END]), symbols])


def _margins(encoded: Stage, decoded: Stage, saturation: float) -> tuple[Tensor, ...]:
    """By how much gates are past saturation, [1 + S] each: push and pop while reading, push and pop while writing."""
    (lower, upper), (d_lower, d_upper) = encoded.gates.unbind(), decoded.gates.unbind()
    past = (lower[:, 0], -upper[:, 1], -d_upper[:, 0], d_lower[:, 1])
    return tuple(each - saturation for each in past)


def _closing(
    encoded: Stage, decoded: Stage, margins: tuple[Tensor, ...], apart: Tensor, scale: float, *, closed: bool = False
) -> Closing:
    with torch.no_grad():
        others = apart.scatter(1, _wanted(apart.T)[:, None], -torch.inf)
        gates = min(float(each.min()) for each in margins)
        cells = max(float(stage.cells.abs().max()) for stage in (encoded, decoded))
    return Closing(scale, gates, -float(others.max()), cells, closed)
