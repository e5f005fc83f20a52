"""Inside probabilities of long sources: the table of `tasks/inside.py` in time that is nearly linear.

All sums of products are found by relaxed multiplication (van der Hoeven 2002, "Relax, but don't be too lazy"): as soon
as a stretch of the table is known, a fast Fourier transform adds what it contributes to the sums of longer sources. Say
that the table is known below m, a multiple of the block's length B. Let s be the largest power of two that divides m.
Then all pairs k, n - k of which one is in [m - s, m) are added to the sums for n in [m, m + s). What is missing after
that in the sums for n in [m, m + B) are the pairs of which one is in [m, m + B), and the other in [0, B).

The missing pairs make the block's numbers the solution of linear equations, with the same coefficients for every block:

    p = c + J p,  so  p = (1 - J)^-1 c        for n in [m, m + B)

as power series, where p has all p_X, c what the rules give without the missing pairs, and J_XY is the derivative of the
rules of X by Y, up to B.

The error of a transform is about one rounding of the largest number in it, and p_X(n) exp(-n decay) falls like n^-3/2,
as it does in all grammars of this kind (Drmota 1997). The numbers of [m - s, m) are of one size if m > s, and of [0, m)
only pairs with one in the upper half go into sums from m on. So each sum is right to about 1e-14 of itself up to n of a
million, and p_X(n) agrees with the direct table to 3e-12 up to n = 20,000.
"""

from __future__ import annotations

import bisect
import math
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from stackrev.tasks import inside
from stackrev.tasks.inside import Inside

_Numbers = NDArray[np.float64]
_Transforms = dict[str, NDArray[np.complex128]]

_BLOCK = 256  # a power of two
_FIT = 2048  # where the rate is measured by which p_X(n) falls
_LOOK = 64  # how many splits are looked at first, from each end


class RelaxedInside(Inside):
    """The table of p_X(n) by relaxed multiplication; see `Inside`.

    From some n on, every p_X(n) has to be 0, or to fall like n^-3/2, exponentials aside.
    """

    @override
    def choose(self, name: str, n: int, number: float) -> tuple[int, int]:
        if n <= inside.SHORT:
            return super().choose(name, n, number)
        shares, places = [], []
        for place, (left, _, own, inner) in enumerate(self._productions):
            if left == name and inner:
                known = self._numbers[inner[0]] if len(inner) == 1 else self._sums[inner]
                shares.append(self._weights[place] * float(known[n - own]))
                places.append(place)
        sums = list(accumulate(shares))
        which = min(bisect.bisect_right(sums, number * sums[-1]), len(sums) - 1)
        below, place = sums[which - 1] if which else 0.0, places[which]
        _, _, own, inner = self._productions[place]
        if len(inner) == 1:
            return place, n - own
        return place, self._split(inner, n - own, (number * sums[-1] - below) / self._weights[place])

    def _split(self, pair: tuple[str, ...], n: int, share: float) -> int:
        """The k at which the sum of p_Y(k) p_Z(n - k) exceeds `share`.

        The sum is taken from both ends, since nearly always k or n - k is small.
        """
        first, second = (self._numbers[name] for name in pair)
        low, high, count = 1, n, _LOOK
        while low < high:
            for begin, end in ((low, min(low + count, high)), (max(low + count, high - count), high)):
                if begin < end:
                    sums = (first[begin:end] * second[n - end + 1 : n - begin + 1][::-1]).cumsum()
                    if share < sums[-1]:
                        return begin + int(sums.searchsorted(share, side="right"))
                    share -= float(sums[-1])
            low, high, count = low + count, high - count, 2 * count
        return 1 + int((first[1:n] * second[1:n][::-1]).argmax())  # `share` was all of it, but for rounding

    @override
    def _rate(self) -> float:
        root = self._fill(2 * _FIT + 1, decay := super()._rate())[self._root]
        return decay + (math.log(float(root[2 * _FIT] / root[_FIT])) + 1.5 * math.log(2)) / _FIT

    @override
    def _whole(self) -> dict[str, Tensor]:
        size = -(-(self.longest + 1) // _BLOCK) * _BLOCK
        self._weights = [each.probability * math.exp(-self.decay * each.own) for each in self._productions]
        self._numbers = {each.left: np.zeros(size) for each in self._productions}
        self._sums: dict[tuple[str, ...], _Numbers] = {
            each.inner: np.zeros(size) for each in self._productions if len(each.inner) == 2
        }
        for name, numbers in self._fill(_BLOCK, self.decay).items():
            self._numbers[name][:_BLOCK] = numbers
        self._complete(0)
        inverse, transforms = self._inverse(), dict[int, _Transforms]()
        for m in range(_BLOCK, size, _BLOCK):
            self._contribute(m, transforms)
            self._solve(m, inverse)
            self._complete(m)
        return {name: torch.from_numpy(numbers) for name, numbers in self._numbers.items()}

    def _contribute(self, m: int, transforms: dict[int, _Transforms]) -> None:
        """Add what [m - s, m) contributes to the sums for [m, m + s).

        Args:
            m: The lengths below are known.
            transforms: Those of [0, 2s), by s, once they are known.
        """
        s = m & -m
        size, start = 2 * s, m - s
        part = slice(s // 2, s) if start == 0 else slice(0, s)  # of [0, m) the lower half has been added before
        names = {name for pair in self._sums for name in pair}
        new: _Transforms = {}
        for name in names:
            piece = np.zeros(size)
            piece[part] = self._numbers[name][start:m][part]
            new[name] = np.fft.rfft(piece)
        if (known := transforms.get(s)) is None:
            known = {name: np.fft.rfft(self._numbers[name][:size], size) for name in names}
            if start:
                transforms[s] = known
        for (first, second), sums in self._sums.items():
            product = new[first] * known[second] + known[first] * new[second]
            if start == 0:
                product -= new[first] * new[second]  # which is in both
            sums[m : m + s] += np.fft.irfft(product, size)[s : s + len(sums[m : m + s])]

    def _solve(self, m: int, inverse: NDArray[np.complex128]) -> None:
        """Find p_X(n) for a block, of which the sums have everything but what the block itself contributes."""
        names = list(self._numbers)
        known = np.zeros((len(names), _BLOCK))
        for (left, _, own, inner), weight in zip(self._productions, self._weights, strict=True):
            if inner:
                there = self._numbers[inner[0]] if len(inner) == 1 else self._sums[inner]
                known[names.index(left)] += weight * there[m - own : m - own + _BLOCK]
        product = np.einsum("xyk,yk->xk", inverse, np.fft.rfft(known, 2 * _BLOCK))
        for name, found in zip(names, np.fft.irfft(product, 2 * _BLOCK)[:, :_BLOCK], strict=True):
            self._numbers[name][m : m + _BLOCK] = found

    def _complete(self, m: int) -> None:
        """Add what a block contributes to its own sums."""
        for (first, second), sums in self._sums.items():
            left, right = self._numbers[first], self._numbers[second]
            block = np.convolve(left[m : m + _BLOCK], right[:_BLOCK])
            if m:
                block += np.convolve(left[:_BLOCK], right[m : m + _BLOCK])
            sums[m : m + _BLOCK] += block[:_BLOCK]

    def _inverse(self) -> NDArray[np.complex128]:
        """The transform of (1 - J)^-1 up to the length of a block: [names, names, frequencies]."""
        names = list(self._numbers)
        derivatives = np.zeros((len(names), len(names), _BLOCK))
        for (left, _, own, inner), weight in zip(self._productions, self._weights, strict=True):
            for name, other in zip(inner, reversed(inner), strict=True):
                place = derivatives[names.index(left), names.index(name)]
                if len(inner) == 1:
                    place[own] += weight
                else:
                    place[own:] += weight * self._numbers[other][: _BLOCK - own]
        ones = np.eye(len(names))
        at_zero = np.linalg.inv(ones - derivatives[:, :, 0])
        inverse = np.zeros_like(derivatives)
        inverse[:, :, 0] = at_zero
        for n in range(1, _BLOCK):
            inverse[:, :, n] = at_zero @ np.einsum(
                "xyk,yzk->xz", derivatives[:, :, 1 : n + 1], inverse[:, :, n - 1 :: -1][:, :, :n]
            )
        return np.fft.rfft(inverse, 2 * _BLOCK)
