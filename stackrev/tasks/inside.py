"""Inside probabilities of a grammar: how likely a non-terminal is to derive a source of n words.

What a rule of X adds to p_X(n) is its probability times p_Y(n - own), or, where it has two non-terminals Y and Z, times

    sum_k p_Y(k) p_Z(n - own - k)        0 < k < n - own

with `own` the words that it adds itself. Every Y and Z has at least one word, so the table is filled from the shortest
length up. A derivation of n words is drawn from it top down: a rule, and how many words Y has, in proportion to their
shares of p_X(n). This is the recursive method of Flajolet, Zimmermann and Van Cutsem (1994).

p_X(n) falls exponentially. A table holds p_X(n) exp(-n decay) instead, which neither overflows nor underflows.
"""

from __future__ import annotations

import bisect
import math
from array import array
from typing import NamedTuple

import torch
from torch import Tensor

SHORT = 512
"""Lengths up to which the shares of productions and splits are kept once they have been computed."""
_FIT = 256  # where the rate is measured by which p_X(n) falls


class Production(NamedTuple):
    """What a rule says of a source's length.

    Attributes:
        left: The non-terminal that it rewrites.
        probability: How often.
        own: How many words it adds itself.
        inner: The non-terminals that it leaves, at most two.
    """

    left: str
    probability: float
    own: int
    inner: tuple[str, ...]


class _Shares(NamedTuple):
    """The choices for a non-terminal that is to have n words, in order.

    Attributes:
        sums: The running sum of the shares of p_X(n).
        starts: Where the splits of each production begin.
        productions: The productions.
    """

    sums: array[float]
    starts: list[int]
    productions: list[int]


class Inside:
    """The table of p_X(n), each n from all shorter ones: it takes time that grows with the square of the longest.

    Args:
        productions: Those of the grammar, in an order in which a non-terminal comes after those that it can be
            rewritten by without a word beside.
        root: The non-terminal of a whole sentence.
        longest: The longest source.

    Attributes:
        longest: As given, or longer.
        decay: About how much the logarithm of p_X(n) changes from one n to the next.
        table: p_X(n) exp(-n decay) for n from 0 to `longest`, by X.
    """

    def __init__(self, productions: list[Production], root: str, longest: int) -> None:
        self._productions, self._root = productions, root
        self.longest = max(2 * _FIT, longest)
        self.decay = self._rate()
        self.table = self._whole()
        self._kept: dict[tuple[str, int], _Shares] = {}

    def choose(self, name: str, n: int, number: float) -> tuple[int, int]:
        """A production for a non-terminal that is to have n words.

        Args:
            name: The non-terminal.
            n: How many words it is to have, with p_X(n) > 0.
            number: A uniform random number, at least 0 and less than 1.

        Returns:
            The production's place, and how many of the words its first non-terminal has.
        """
        sums, starts, productions = self._kept.get((name, n)) or self._weigh(name, n)
        place = min(bisect.bisect_right(sums, number * sums[-1]), len(sums) - 1)
        which = bisect.bisect_right(starts, place) - 1
        production = self._productions[productions[which]]
        split = 1 + place - starts[which] if len(production.inner) == 2 else n - production.own
        return productions[which], split

    def _rate(self) -> float:
        """How the logarithm of p(n) grows from one length to another."""
        root = self._fill(2 * _FIT + 1, 0.0)[self._root]
        return math.log(float(root[2 * _FIT] / root[_FIT])) / _FIT

    def _whole(self) -> dict[str, Tensor]:
        return self._fill(self.longest + 1, self.decay)

    def _fill(self, size: int, decay: float) -> dict[str, Tensor]:
        """The table of lengths below `size`, directly."""
        names = dict.fromkeys(production.left for production in self._productions)
        table = {name: torch.zeros(size, dtype=torch.float64) for name in names}
        weights = [each.probability * math.exp(-decay * each.own) for each in self._productions]
        for n in range(1, size):
            for (name, _, own, inner), weight in zip(self._productions, weights, strict=True):
                left, rest = table[name], n - own
                if not inner:
                    left[n] += weight if rest == 0 else 0.0
                elif len(inner) == 1 and rest > 0:
                    left[n] += weight * table[inner[0]][rest]
                elif rest > 1:
                    first, second = table[inner[0]], table[inner[1]]
                    left[n] += weight * torch.dot(first[1:rest], second[1:rest].flip(0))
        return table

    def _weigh(self, name: str, n: int) -> _Shares:
        parts: list[Tensor] = []
        starts: list[int] = []
        productions: list[int] = []
        for place, (left, probability, own, inner) in enumerate(self._productions):
            rest = n - own
            if left != name or rest < len(inner) or (not inner and rest):
                continue
            starts.append(sum(map(len, parts)))
            productions.append(place)
            factor = probability * math.exp(-self.decay * own)
            if len(inner) == 2:
                first, second = self.table[inner[0]], self.table[inner[1]]
                parts.append(factor * first[1:rest] * second[1:rest].flip(0))
            else:
                share = factor * (float(self.table[inner[0]][rest]) if inner else 1.0)
                parts.append(torch.tensor([share], dtype=torch.float64))
        found = _Shares(array("d", torch.cat(parts).cumsum(0).tolist()), starts, productions)
        if n <= SHORT:
            self._kept[name, n] = found
        return found
