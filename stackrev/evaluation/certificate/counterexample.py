"""Looking for a string that a model gets wrong, where there is no proof that it gets all of them right.

The strings tried are those that networks are known to fail on, the shortest first: the empty one, one symbol over and
over, two in turn, random strings of growing length, and strings built backwards from the step where the proof has the
least to spare. What is found is then shortened for as long as the model still errs on it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

String = list[int]
Margin = Callable[[String], float]
"""By how much the right logit exceeds every other, at the step of a string where that is least."""


class Writer(Protocol):
    """What writes something for each string, as `evaluation.decoding.Decoder` does."""

    def write(self, strings: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """What is written for each string, with the end marker."""
        ...


@dataclass(frozen=True)
class Counterexample:
    """A string that a model gets wrong.

    Attributes:
        string: Its symbols' ids.
        wanted: What it should be answered with, end marker included.
        written: What the model writes.
        tried: How many strings were tried before it was found.
    """

    string: tuple[int, ...]
    wanted: tuple[int, ...]
    written: tuple[int, ...]
    tried: int

    @property
    def place(self) -> int:
        """The first step at which the model errs, from 1."""
        pairs = zip(self.wanted, self.written, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return same + 1


@dataclass
class Search:
    """A search for a counterexample.

    Attributes:
        model: What writes.
        symbols: What strings are made of, as ids.
        end: The end marker's id.
        target: From a string to what should be written, without the end marker.
        tried: How many strings have been tried.
    """

    model: Writer
    symbols: Sequence[int]
    end: int
    target: Callable[[String], Sequence[int]]
    tried: int = 0

    def run(
        self,
        *,
        worst: tuple[int, int] | None = None,
        margin: Margin | None = None,
        longest: int = 10_000,
        on_stage: Callable[[str], object] | None = None,
    ) -> Counterexample | None:
        """Try every kind of string, and shorten the first that the model gets wrong.

        Args:
            worst: The symbol fed and the symbol to be written at the step where the proof has the least to spare.
            margin: What strings that are built backwards are chosen by; they are left out if None.
            longest: The longest random string.
            on_stage: Told what is tried now.

        Returns:
            A short string that the model gets wrong; None if it got all of them right.
        """
        random_ = random.Random(0)
        for name, strings in self._stages(random_, worst, margin, longest):
            if on_stage is not None:
                on_stage(name)
            wrong = self._first_wrong(strings)
            if wrong is not None:
                string = self._shortened(wrong)
                written = self._written([string])[0]
                wanted = (*self.target(string), self.end)
                return Counterexample(tuple(string), wanted, tuple(written), self.tried)
        return None

    def _stages(
        self, random_: random.Random, worst: tuple[int, int] | None, margin: Margin | None, longest: int
    ) -> Iterator[tuple[str, Iterable[String]]]:
        symbols = self.symbols
        yield "every string of up to 1 symbol", [[], *([symbol] for symbol in symbols)]
        for length in (2, 3, 5, 8, 16, 33, 64, 128):
            yield f"one symbol {length} times", ([symbol] * length for symbol in symbols)
            pairs = [random_.sample(list(symbols), min(2, len(symbols))) for _ in range(200)]
            yield f"two symbols in turn, {length} in all", ((pair * length)[:length] for pair in pairs)
            yield f"random strings of {length} symbols", (random_.choices(symbols, k=length) for _ in range(200))
        if margin is not None and worst is not None:
            yield "strings built backwards from the step that is hardest to prove", self._backwards(worst, margin)
        yield "every string of 2 symbols", ([*pair] for pair in itertools.product(symbols, repeat=2))
        for length in (1_000, longest):
            yield f"one symbol {length:,} times", ([symbol] * length for symbol in symbols)
            yield f"random strings of {length:,} symbols", (random_.choices(symbols, k=length) for _ in range(20))

    def _backwards(self, worst: tuple[int, int], margin: Margin) -> Iterator[String]:
        """Strings in which the worst step occurs, each preceded by what leaves the least margin there.

        The decoder is fed `fed` and has to write `wanted` where `wanted` stands before `fed` in the string.
        """
        known = set(self.symbols)
        string = [symbol for symbol in reversed(worst) if symbol in known]
        for _ in range(24):
            candidates = [[symbol, *string] for symbol in self.symbols]
            candidates += [[*string, symbol] for symbol in self.symbols]
            string = min(candidates, key=margin)
            yield string

    def _written(self, strings: Sequence[String]) -> list[list[int]]:
        self.tried += len(strings)
        return list(self.model.write(strings))

    def _wrong(self, string: String, written: Sequence[int]) -> bool:
        return list(written) != [*self.target(string), self.end]

    def _first_wrong(self, strings: Iterable[String]) -> String | None:
        """The first string that the model gets wrong, of as many at a time as one call is worth."""
        iterator = iter(strings)
        while batch := list(itertools.islice(iterator, 256)):
            for string, written in zip(batch, self._written(batch), strict=True):
                if self._wrong(string, written):
                    return string
        return None

    def _shortened(self, string: String) -> String:
        """The string without whatever can be left out so that the model still gets it wrong."""
        size = len(string) // 2
        while size:
            starts = range(0, len(string), size)
            shorter = [string[:start] + string[start + size :] for start in starts][:256]
            found = self._first_wrong(shorter)
            if found is None:
                size //= 2
            else:
                string, size = found, min(size, len(found) // 2 or len(found))
        return string
