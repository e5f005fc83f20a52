"""Interval bounds of the stack-LSTM's controller, for all strings at once, as differentiable functions of its weights.

Where the encoder's pushes and pops are exactly 1 and 0, and the decoder's exactly 0 and 1, the stack drops out of the
recurrence: an encoder step reads the value that the step before has pushed, and a decoder step one that the encoder has
pushed (docs/proof.md). What is left are two maps of (h, c), one step each, which are bounded here by boxes. The bounds
are those of real numbers: rounding is left to the proof itself, and training needs no more than to come near.

    hull            [2, K, H]     lower and upper ends of every hidden state after a step, for K layers of H units
    rows            [2, R, n]     the same, apart for R cases: the state after `$` and after each of S symbols
    z               [2, R, 4H]    a layer's pre-activations: input, forget, cell and output gate
    k, scale                      by what the radius of a box is multiplied before a step

A linear map takes centre and radius to W c and |W| r; sigmoid and tanh take ends to ends. The range of the cell state
needs no iteration. With f and i g in [f_x, F_x] and [a_x, b_x] after the symbol x, the upper end C of the range has
C = max_x max_f (f C + b_x), so that ::

    C = max_x b_x / (1 - F_x)   where b_x >= 0,   b_x / (1 - f_x)   where b_x < 0

and the lower end likewise: only boxes of h are carried from step to step.

With k < 1 boxes are smaller than they should be: radius of h, range of fed symbols and memory (k f for f above) shrink
towards a single state at k = 0. Training begins near 0, where the bounds are those of a point. It ends a little above
1, where the radius of h alone is taken to be larger than it is: what closes then closes at 1 with room to spare.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackrev.structures.recurrence import MemoryLSTMWeights

_MOST_KEPT = 1 - 1e-3  # the greatest forget gate in training, where 1 / (1 - f) must stay finite
_CHUNK = 16  # symbols whose differences of logits' weights are held at once


class Controllers(NamedTuple):
    """What bounds need of a stack-LSTM.

    Attributes:
        encoder: The weights inside the encoder's recurrence.
        start: [1, 4H], what `$` contributes to its first layer, the bias included.
        symbols: [S, 4H], what each symbol contributes there.
        decoder: The weights inside the decoder's recurrence.
        fed: [1 + S, 4H], what `|` and each symbol contribute to its first layer, the bias included.
        hidden: The trained first state, [K, 1, H].
        cell: [K, 1, H].
        stretch: e of the stretched gates.
    """

    encoder: MemoryLSTMWeights
    start: Tensor
    symbols: Tensor
    decoder: MemoryLSTMWeights
    fed: Tensor
    hidden: Tensor
    cell: Tensor
    stretch: float

    @property
    def saturation(self) -> float:
        """A gate whose pre-activation is at least this is exactly 1, and at most minus this exactly 0."""
        return math.log((1 + self.stretch) / self.stretch)

    def to(self, dtype: torch.dtype) -> Controllers:
        """The same without derivatives, in another precision."""

        def weights(each: MemoryLSTMWeights) -> MemoryLSTMWeights:
            matrices, biases = (tuple(one.detach().to(dtype) for one in some) for some in (each.recurrent, each.biases))
            return MemoryLSTMWeights(
                matrices, biases, each.control.detach().to(dtype), each.control_bias.detach().to(dtype)
            )

        start, symbols, fed, hidden, cell = (
            each.detach().to(dtype) for each in (self.start, self.symbols, self.fed, self.hidden, self.cell)
        )
        encoder, decoder = weights(self.encoder), weights(self.decoder)
        return Controllers(encoder, start, symbols, decoder, fed, hidden, cell, self.stretch)


class Stage(NamedTuple):
    """What an encoder or decoder step makes of a box.

    Attributes:
        top: Rows of the top layer's hidden state, [2, 1 + S, H]; the first row is for `$`.
        hull: The hull of all states after a step and of those to begin with, [2, K, H].
        cells: The range of the cell states, [2, K, H], whatever the number of steps.
        gates: Pre-activations of push and pop, [2, 1 + S, 2].
        values: The values that are pushed, [2, 1 + S, M].
        forget: Upper ends of the forget gates' pre-activations, [K, 1 + S or S, H].
    """

    top: Tensor
    hull: Tensor
    cells: Tensor
    gates: Tensor
    values: Tensor
    forget: Tensor


class Bounds:
    """Bounds of the two maps.

    Args:
        controllers: The weights.
        exact: Whether forget gates may come as near to 1 as they are. If not, 1 - f is taken to be 0.001 at least, so
            that derivatives stay finite.
    """

    def __init__(self, controllers: Controllers, *, exact: bool = False) -> None:
        self._controllers = controllers
        self._most_kept = 1.0 if exact else _MOST_KEPT
        self._encoder = _Cell(controllers.encoder)
        self._decoder = self._encoder
        if controllers.decoder is not controllers.encoder:
            self._decoder = _Cell(controllers.decoder)
        self._started = self._start()

    @property
    def saturation(self) -> float:
        """What a gate's pre-activation has to reach."""
        return self._controllers.saturation

    @property
    def start(self) -> Tensor:
        """The state after `$` as a box, [2, K, H]: a point."""
        return self._started[0].expand(2, -1, -1)

    def encode(self, hull: Tensor, scale: float = 1.0) -> Stage:
        """An encoder step with any symbol.

        Args:
            hull: The states before it.
            scale: k.
        """
        hidden, cells = (each.expand(2, -1, -1) for each in self._started)
        before = scaled(hull, scale)
        reads = self._encoder.values(before[:, -1:])
        stage = self._step(self._encoder, self._controllers.symbols, reads, before, hidden, cells, scale)
        top = torch.cat([hidden[:, -1:], stage.top], 1)
        return self._driven(self._encoder, stage._replace(top=top))

    def decode(self, hull: Tensor, encoded: Stage, scale: float = 1.0) -> Stage:
        """A decoder step with any fed symbol, for each value that the encoder may have pushed.

        Fed symbols are one interval for each pre-activation: as if every unit chose its own.

        Args:
            hull: The states before it.
            encoded: The encoder's, in any of which the decoder may start.
            scale: k.
        """
        fed = self._controllers.fed
        symbols = scaled(torch.stack([fed.amin(0, keepdim=True), fed.amax(0, keepdim=True)]), min(scale, 1.0))
        before = scaled(hull, scale)
        stage = self._step(self._decoder, symbols, encoded.values, before, encoded.hull, encoded.cells, scale)
        return self._driven(self._decoder, stage)

    def _start(self) -> tuple[Tensor, Tensor]:
        """The state after `$`, h and c, [K, H] each: nothing has been read yet."""
        first = self._controllers
        below: Tensor | None = None
        hidden, cells = [], []
        for layer, matrix in enumerate(first.encoder.recurrent):
            h, c = first.hidden[layer], first.cell[layer]
            own = matrix[-h.shape[-1] :]
            if below is None:
                z = first.start + h @ own
            else:
                z = torch.addmm(first.encoder.biases[layer - 1], torch.cat([below, h], 1), matrix)
            i, f, g, o = z.chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            below = o.sigmoid() * c.tanh()
            hidden.append(below)
            cells.append(c)
        return torch.cat(hidden), torch.cat(cells)

    def _step(
        self, cell: _Cell, symbols: Tensor, reads: Tensor, before: Tensor, hidden: Tensor, cells: Tensor, scale: float
    ) -> Stage:
        """One step through all layers; `hidden` and `cells` are the states [2, K, H] to begin with."""
        hulls, ranges, forgets = [], [], []
        source, inputs = reads, symbols
        for layer, affine in enumerate(cell.recurrent):
            z = affine(source, before[:, layer : layer + 1]) + inputs
            source, kept, forget = _lstm(z, cells[:, layer : layer + 1], min(scale, 1.0), self._most_kept)
            hulls.append(_joined(_over_rows(source), hidden[:, layer : layer + 1]))
            ranges.append(kept)
            forgets.append(forget)
            inputs = cell.biases[layer] if layer < len(cell.biases) else inputs
        empty = source[:, :, :0]
        return Stage(source, torch.cat(hulls, 1), torch.cat(ranges, 1), empty, empty, torch.stack(forgets))

    @staticmethod
    def _driven(cell: _Cell, stage: Stage) -> Stage:
        gates, values = cell.controls(stage.top)
        return stage._replace(gates=gates, values=values)


class _Cell:
    """An encoder's or a decoder's linear maps, with the absolute weights that radii need."""

    def __init__(self, weights: MemoryLSTMWeights) -> None:
        size = weights.control.shape[0]
        self.recurrent = [_Layer(matrix, size) for matrix in weights.recurrent]
        self.biases = weights.biases
        self._control, self._absolute, self._bias = weights.control, weights.control.abs(), weights.control_bias

    def controls(self, top: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-activations of push and pop, and the values that are pushed."""
        inputs = linear(top, self._control, self._absolute) + self._bias
        return inputs[..., :2], inputs[..., 2:].tanh()

    def values(self, top: Tensor) -> Tensor:
        """The values alone."""
        return (linear(top, self._control[:, 2:], self._absolute[:, 2:]) + self._bias[2:]).tanh()


class _Layer:
    """A layer's recurrent matrix: what comes from below, and from its own hidden state."""

    def __init__(self, matrix: Tensor, size: int) -> None:
        self._matrix, self._absolute, self._below = matrix, matrix.abs(), matrix.shape[0] - size

    def __call__(self, source: Tensor, hidden: Tensor) -> Tensor:
        """Pre-activations [2, R, 4H] without the inputs, from rows [2, R, n] and the layer's own box [2, 1, H]."""
        n = self._below
        if source.shape[1] == 1:
            return linear(torch.cat([source, hidden], -1), self._matrix, self._absolute)
        below = linear(source, self._matrix[:n], self._absolute[:n])
        return below + linear(hidden, self._matrix[n:], self._absolute[n:])


def linear(box: Tensor, weight: Tensor, absolute: Tensor) -> Tensor:
    """The box of x W for all x of a box [2, R, n], given W and |W|, [n, m]."""
    lower, upper = box.unbind()
    centre, radius = ((lower + upper) * 0.5) @ weight, ((upper - lower) * 0.5) @ absolute
    return torch.stack([centre - radius, centre + radius])


def scaled(box: Tensor, scale: float) -> Tensor:
    """The box [2, ...] with its radius multiplied."""
    if scale == 1:
        return box
    lower, upper = box.unbind()
    centre, radius = (lower + upper) * 0.5, (upper - lower) * (0.5 * scale)
    return torch.stack([centre - radius, centre + radius])


def contains(box: Tensor, other: Tensor) -> bool:
    """Whether all of another box [2, ...] lies within this one."""
    return bool((box[0] <= other[0]).all() and (box[1] >= other[1]).all())


def inflated(box: Tensor, image: Tensor, reach: float) -> Tensor:
    """The hull of a box and its image, and by `reach` more where the image has left the box."""
    lower = torch.where(image[0] < box[0], image[0] - reach, box[0])
    return torch.stack([lower, torch.where(image[1] > box[1], image[1] + reach, box[1])])


def worst_logits(
    top: Tensor, wanted: Tensor, output: Tensor, output_bias: Tensor, logits: Tensor, logits_bias: Tensor
) -> Tensor:
    """By how much each logit may exceed the right one at most, [R, V]; 0 for the right one itself.

    The difference of two logits is bounded as one linear form: bounds of both apart would forget that they are of the
    same state.

    Args:
        top: Rows of the decoder's top layer, [2, R, H].
        wanted: [R], the right symbols' ids.
        output: W_o, [H, H].
        output_bias: b_o, [H].
        logits: W_l, [V, H].
        logits_bias: b_l, [V].
    """
    outputs = (linear(top, output.T, output.T.abs()) + output_bias).tanh()
    centre, radius = (outputs[0] + outputs[1]) * 0.5, (outputs[1] - outputs[0]) * 0.5
    at_centre = torch.addmm(logits_bias, centre, logits.T)
    apart: Tensor = _Apart.apply(radius, logits, logits[wanted])  # type: ignore[no-untyped-call]
    return at_centre - at_centre.gather(1, wanted[:, None]) + apart


class _Apart(torch.autograd.Function):
    """sum_n r_yn |W_kn - V_yn|, [Y, K], of r [Y, N], W [K, N] and V [Y, N], without all differences at once."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, w: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(r, w, v)
        parts = [
            torch.bmm((w[None] - v[y : y + _CHUNK, None]).abs_(), r[y : y + _CHUNK, :, None])[..., 0]
            for y in range(0, len(r), _CHUNK)
        ]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r, w, v = ctx.saved_tensors
        g_r, g_w, g_v = [], torch.zeros_like(w), []
        for y in range(0, len(r), _CHUNK):
            g, part = grads[0][y : y + _CHUNK], r[y : y + _CHUNK]
            apart = w[None] - v[y : y + _CHUNK, None]  # [Y, K, N]
            sign = apart.sign()
            g_r.append(torch.bmm(g[:, None], apart.mul_(sign))[:, 0])
            g_v.append(-torch.bmm(g[:, None], sign)[:, 0] * part)
            g_w += sign.mul_(part[:, None]).mul_(g[:, :, None]).sum(0)
        return torch.cat(g_r), g_w, torch.cat(g_v)


def _lstm(z: Tensor, cells: Tensor, scale: float, most_kept: float) -> tuple[Tensor, Tensor, Tensor]:
    """The cell on boxes.

    Args:
        z: Pre-activations, [2, R, 4H].
        cells: The cell states to begin with, [2, 1, H].
        scale: k.
        most_kept: The greatest k f for which the range of c is computed.

    Returns:
        The hidden states [2, R, H], the range of the cell state [2, 1, H], and the forget gates' upper pre-activations.
    """
    size = z.shape[-1] // 4
    squashed = z.sigmoid()
    (i, i_up), (f, f_up), (o, o_up) = (squashed[..., n * size : (n + 1) * size].unbind() for n in (0, 1, 3))
    g, g_up = z[..., 2 * size : 3 * size].tanh().unbind()
    low, high = torch.minimum(i * g, i_up * g), torch.maximum(i * g_up, i_up * g_up)  # i >= 0
    short, long = ((scale * each).clamp(max=most_kept) for each in (f, f_up))
    highest = (high / (1 - torch.where(high >= 0, long, short))).amax(0, keepdim=True)
    lowest = (low / (1 - torch.where(low <= 0, long, short))).amin(0, keepdim=True)
    kept = torch.stack([torch.minimum(lowest, cells[0]), torch.maximum(highest, cells[1])])
    c, c_up = scaled(kept, scale).unbind()
    c, c_up = torch.minimum(f * c, f_up * c) + low, torch.maximum(f * c_up, f_up * c_up) + high
    t, t_up = c.tanh(), c_up.tanh()
    hidden = torch.stack([torch.minimum(o * t, o_up * t), torch.maximum(o * t_up, o_up * t_up)])
    return hidden, kept, z[1, :, size : 2 * size]


def _over_rows(rows: Tensor) -> Tensor:
    """The hull [2, 1, n] of rows [2, R, n]."""
    return torch.stack([rows[0].amin(0, keepdim=True), rows[1].amax(0, keepdim=True)])


def _joined(box: Tensor, other: Tensor) -> Tensor:
    """The hull of two boxes."""
    return torch.stack([torch.minimum(box[0], other[0]), torch.maximum(box[1], other[1])])
