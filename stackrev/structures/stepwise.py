"""The recurrence of a controller on a queue or a deque in plain torch, step by step; letters are in recurrence.py.

Autograd differentiates it, one node an operation. Rows are sorted by length: those that still run are the first n, and
what the others have come to is put aside until the end.

Where nothing is differentiated, values are written into one buffer, and of a long memory only those are touched that
are read: a step costs a look at every position, but not at every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stackrev.structures.base import Positions
from stackrev.structures.stretched import Stretches, candidate, gate
from stackrev.structures.table import MemoryState, Structure

_LONG = 512  # elements from which on it pays to look for those that are read


class Weights(NamedTuple):
    """The weights inside the recurrence, as `MemoryLSTMWeights`."""

    recurrent: Sequence[Tensor]
    biases: Sequence[Tensor]
    control: Tensor
    control_bias: Tensor


class Rows(NamedTuple):
    """What n rows have come to: layers of [n, H], and the memory without its values."""

    hidden: list[Tensor]
    cell: list[Tensor]
    read: Tensor
    positions: Positions

    def part(self, rows: slice) -> Rows:
        """Some of the rows."""
        bottoms, tops, low, high = self.positions
        positions = Positions(bottoms[:, rows], tops[:, rows], low[rows], high[rows])
        return Rows([h[rows] for h in self.hidden], [c[rows] for c in self.cell], self.read[rows], positions)


class Result(NamedTuple):
    """Hidden states [T, B, H], push and pop [T, B, E], and the final state in parts."""

    hidden: Tensor
    push: Tensor
    pop: Tensor
    final: tuple[Tensor, Tensor, Tensor]
    memory: MemoryState


def recurrence(
    structure: Structure,
    x: Tensor,
    lengths: Tensor,
    stretches: Stretches,
    noise: Tensor | None,
    state: tuple[Tensor, Tensor, Tensor],
    memory: MemoryState,
    weights: Weights,
) -> Result:
    """Run the recurrence.

    Args:
        structure: Which memory it is.
        x: [T, B, 4H], the inputs.
        lengths: [B], falling.
        stretches: How far the gates are stretched.
        noise: [T, B, 2E], or None.
        state: Hidden and cell state [K, B, H], and the read [B, E M].
        memory: The memory before the first step.
        weights: The weights.
    """
    loop = _Loop(structure, x, state, memory, weights, stretches)
    for t, n in enumerate((lengths[None, :] > torch.arange(x.shape[0])[:, None]).sum(1).tolist()):
        loop.shrink(n)
        loop.step(x[t, :n], None if noise is None else noise[t, :n])
    return loop.result()


class _Values:
    """The values of a memory that grows by E elements a step, [N, n, M]."""

    def __init__(self, values: Tensor, elements: int, *, buffered: bool) -> None:
        self.count, self.width = values.shape[0], values.shape[2]
        self._buffered = buffered
        self._values = values
        if buffered:
            self._values = values.new_empty(elements, *values.shape[1:])
            self._values[: self.count] = values

    def append(self, values: Tensor) -> None:
        """E more elements, [E, n, M]."""
        count, self.count = self.count, self.count + values.shape[0]
        if self._buffered:
            self._values[count : self.count] = values
        else:
            self._values = torch.cat([self._values, values])

    def shrink(self, n: int) -> None:
        """The first n rows go on."""
        self._values = self._values[:, :n]

    def all(self) -> Tensor:
        """All of them."""
        return self._values[: self.count]

    def read(self, alpha: Tensor) -> Tensor:
        """Their sum, weighted by alpha [N, n]."""
        values, alpha = self.all(), alpha.to(self._values.dtype)
        if self._buffered and self.count > _LONG:
            touched = (alpha != 0).any(1).nonzero()[:, 0]  # NaN among them
            values, alpha = values[touched], alpha[touched]
        return torch.einsum("nb,nbm->bm", alpha, values)


class _Loop:
    """The loop over steps: what it updates, and what it leaves behind."""

    def __init__(
        self,
        structure: Structure,
        x: Tensor,
        state: tuple[Tensor, Tensor, Tensor],
        memory: MemoryState,
        weights: Weights,
        stretches: Stretches,
    ) -> None:
        self.structure, self.weights, self.e, self.batch = structure, weights, stretches, x.shape[1]
        hidden, cell, read = state
        self.rows = Rows(list(hidden), list(cell), read, Positions(*memory[1:]))
        floats = x, *state, *memory, *weights.recurrent, *weights.biases, weights.control, weights.control_bias
        buffered = not (torch.is_grad_enabled() and any(each.requires_grad for each in floats))
        self.elements = memory.values.shape[0] + structure.ends * x.shape[0]
        self.values = _Values(memory.values, self.elements, buffered=buffered)
        self.aside: list[tuple[Rows, Tensor]] = []  # rows that have ended and their values, the last rows first
        self.hidden: list[Tensor] = []
        self.gates: list[Tensor] = []
        self.like = x

    def shrink(self, n: int) -> None:
        """The first n rows go on, and the others have ended."""
        if n < self.rows.read.shape[0]:
            self.aside.append((self.rows.part(slice(n, None)), self.values.all()[:, n:]))
            self.rows = self.rows.part(slice(n))
            self.values.shrink(n)

    def step(self, x: Tensor, noise: Tensor | None) -> None:
        """One step of the rows that run."""
        below, hidden, cell = self.rows.read, [], []
        for k, matrix in enumerate(self.weights.recurrent):
            start = self.weights.biases[k - 1] if k else x
            z = torch.addmm(start, torch.cat([below, self.rows.hidden[k]], 1), matrix)
            z_i, z_f, z_g, z_o = z.chunk(4, 1)
            i, f, o = (gate(each.sigmoid(), self.e.cell) for each in (z_i, z_f, z_o))
            cell.append(torch.addcmul(f * self.rows.cell[k], i, candidate(z_g.tanh(), self.e.cell)))
            below = o * cell[k].tanh()
            hidden.append(below)
        a = torch.addmm(self.weights.control_bias, below, self.weights.control)
        ends, positions = self.structure.ends, self.rows.positions
        before = a[:, : 2 * ends] if noise is None else a[:, : 2 * ends] + noise
        gates = gate(before.sigmoid(), self.e.memory).view(-1, ends, 2)
        self.values.append(a[:, 2 * ends :].tanh().view(len(a), ends, self.values.width).transpose(0, 1))
        assert self.structure.advance is not None
        alphas, positions = self.structure.advance(positions, *gates.to(positions.high.dtype).unbind(2))
        read = torch.cat([self.values.read(alpha) for alpha in alphas], 1)
        self.rows = Rows(hidden, cell, read, positions)
        self.hidden.append(self._padded(below))
        self.gates.append(self._padded(gates.detach()))

    def _padded(self, rows: Tensor) -> Tensor:
        """With zeros for the rows that have ended."""
        missing = self.batch - rows.shape[0]
        return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows

    def result(self) -> Result:
        """What has come of all steps."""
        groups = [(self.rows, self.values.all()), *reversed(self.aside)]
        rows = [self._grown(*each) for each in groups]
        bottoms, tops, low, high = (
            torch.cat(parts, -1) for parts in zip(*(each.positions for each, _ in rows), strict=True)
        )
        values = torch.cat([each for _, each in rows], 1)
        memory = self.structure.state(values, bottoms, tops, low, high)  # type: ignore[call-arg]
        layers = range(len(self.weights.recurrent))
        hidden, cell = (
            torch.stack([torch.cat([getattr(each, name)[k] for each, _ in rows]) for k in layers])
            for name in ("hidden", "cell")
        )
        final = hidden, cell, torch.cat([each.read for each, _ in rows])
        size, ends = self.rows.hidden[-1].shape[1], self.structure.ends
        if not self.hidden:
            nothing = self.like.new_zeros(0, self.batch, ends)
            return Result(self.like.new_zeros(0, self.batch, size), nothing, nothing, final, memory)
        push, pop = torch.stack(self.gates).unbind(3)
        return Result(torch.stack(self.hidden), push, pop, final, memory)

    def _grown(self, rows: Rows, values: Tensor) -> tuple[Rows, Tensor]:
        """With elements of no strength for the steps that were not taken."""
        bottoms, tops, low, high = rows.positions
        steps = (self.elements - bottoms.shape[0]) // self.structure.ends
        if not steps:
            return rows, values
        where = torch.stack([high, low][: self.structure.ends]).repeat(steps, 1)
        positions = Positions(torch.cat([bottoms, where]), torch.cat([tops, where]), low, high)
        return rows._replace(positions=positions), torch.cat([values, values.new_zeros(len(where), *values.shape[1:])])
