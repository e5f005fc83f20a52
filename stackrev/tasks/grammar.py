"""Inversion transduction grammars: sentences drawn together with their translations.

A rule rewrites a non-terminal in both languages at once. It is written as in Table 1 of Grefenstette et al. 2015 (their
appendix on the grammars): the parts of the source, the same parts in the order of the target, and a number after each
part that is the same on both sides, such as `S1 VT2 O3` and `S1 O3 VT2`. A part that is a class stands for one of the
class's words, each as likely as any other; every other part is a word.

The paper draws derivations and rejects those whose source has a length outside the wanted range. Here the same
distribution is drawn without rejection. Let p_X(n) be the probability that X derives a source of n words. A length n is
drawn with probability proportional to p_A(n) over the range, then a derivation given n: each rule, and each split of n
between its parts, in proportion to its share of p_X(n). A derivation that never ends has no part in this.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError

LONGEST = 20_000
"""The longest source that can be drawn: the table of p_X(n) takes time that grows with the square of n."""
_CACHED = 512  # lengths up to which the shares of rules and splits are kept
_BLOCK = 4096  # random numbers drawn at once
_FIT = 256  # where the rate is measured by which p_X(n) falls


class Rule(NamedTuple):
    """One rule of a grammar.

    Attributes:
        probability: As the paper prints it, such as "1/5".
        left: The non-terminal that it rewrites.
        source: What by, in the source language.
        target: The same in the target language.
    """

    probability: str
    left: str
    source: str
    target: str


class Words(NamedTuple):
    """A class of words: `size` of them, named by a prefix and a number from 1 on in each language."""

    size: int
    source: str
    target: str


class _Part(NamedTuple):
    """One part of a rule's right side: a word, a class or a non-terminal, and its number if it has one."""

    name: str
    number: str


class _Node:
    """A rule that has been chosen, and what its parts became: a node, or the number of a word of a class."""

    __slots__ = ("children", "rule")

    def __init__(self, rule: int) -> None:
        self.rule = rule
        self.children: dict[_Part, _Node | int] = {}


class Grammar:
    """An inversion transduction grammar.

    Args:
        root: The non-terminal of a whole sentence.
        rules: Its rules, those of a non-terminal after those it can be rewritten by without a word beside.
        classes: Its classes of words, by name.

    Attributes:
        rules: As given.
        classes: As given.
    """

    def __init__(self, root: str, rules: tuple[Rule, ...], classes: Mapping[str, Words]) -> None:
        self.rules, self.classes, self._root = rules, classes, root
        self._order = list(dict.fromkeys(rule.left for rule in rules))
        self._sources = [self._parts(rule.source) for rule in rules]
        self._targets = [self._parts(rule.target) for rule in rules]
        self._inside: dict[str, Tensor] = {}
        self._shares: dict[tuple[str, int], tuple[list[float], list[tuple[int, int]]]] = {}
        self._decay = 0.0

    def words(self, *, target: bool) -> Iterator[str]:
        """All words of one of the two languages: those of the rules, then those of the classes."""
        seen = dict.fromkeys(
            part.name for parts in (self._targets if target else self._sources) for part in parts if self._is_word(part)
        )
        yield from seen
        for each in self.classes.values():
            yield from (f"{each.target if target else each.source}{number}" for number in range(1, each.size + 1))

    def probabilities(self, longest: int) -> list[float]:
        """p(n): the probability that a derivation ends, and has a source of n words; for n up to `longest`."""
        table = self._table(longest)[self._root][: longest + 1]
        return (table * torch.exp(self._decay * torch.arange(len(table), dtype=torch.float64))).tolist()

    def draw(
        self, lengths: LengthRange, samples: int, generator: torch.Generator
    ) -> Iterator[tuple[list[str], list[str]]]:
        """Draw sentences and their translations.

        Args:
            lengths: The range of the sources' lengths.
            samples: How many.
            generator: Where the draws come from.

        Raises:
            DataError: No sentence has a length in the range, or the range goes too far.
        """
        if lengths.maximum > LONGEST:
            raise DataError(f"sentences of {lengths.maximum:,} words are too long", hint=f"at most {LONGEST:,}")
        table = self._table(lengths.maximum)[self._root][lengths.minimum : lengths.maximum + 1]
        logarithms = table.log() + self._decay * torch.arange(len(table), dtype=torch.float64)
        if not len(table) or not bool((table > 0).any()):
            raise DataError(f"no sentence of the grammar has {lengths} words", hint="ask for other lengths")
        if not samples:
            return
        places = torch.multinomial(
            (logarithms - logarithms.max()).exp(), samples, replacement=True, generator=generator
        )
        numbers = _numbers(generator)
        for place in places.tolist():
            tree = self._derive(lengths.minimum + place, numbers)
            yield self._read(tree, self._sources, target=False), self._read(tree, self._targets, target=True)

    def _parts(self, side: str) -> list[_Part]:
        parts = []
        for word in side.split():
            found = re.fullmatch(r"([A-Z]+)(\d)", word)
            parts.append(_Part(found[1], found[2]) if found else _Part(word, ""))
        return parts

    def _is_word(self, part: _Part) -> bool:
        return not part.number

    def _open(self, rule: int) -> tuple[int, list[_Part]]:
        """How many words a rule adds itself, a class being one word, and its non-terminals."""
        inner = [part for part in self._sources[rule] if part.number and part.name not in self.classes]
        return len(self._sources[rule]) - len(inner), inner

    def _table(self, longest: int) -> dict[str, Tensor]:
        """p_X(n) exp(-n decay) for every non-terminal X and n up to at least `longest`."""
        if self._inside and len(self._inside[self._root]) > longest:
            return self._inside
        size = max(2 * _FIT, longest) + 1
        if not self._decay:
            root = self._fill(2 * _FIT + 1, 0.0)[self._root]
            self._decay = math.log(float(root[2 * _FIT] / root[_FIT])) / _FIT
        self._inside = self._fill(size, self._decay)
        return self._inside

    def _fill(self, size: int, decay: float) -> dict[str, Tensor]:
        inside = {name: torch.zeros(size, dtype=torch.float64) for name in self._order}
        rules = [(rule, float(Fraction(each.probability)), *self._open(rule)) for rule, each in enumerate(self.rules)]
        for n in range(1, size):
            for rule, probability, own, inner in rules:
                left, rest = inside[self.rules[rule].left], n - own
                weight = probability * math.exp(-decay * own)
                if not inner:
                    left[n] += weight if rest == 0 else 0.0
                elif len(inner) == 1 and rest > 0:
                    left[n] += weight * inside[inner[0].name][rest]
                elif rest > 1:
                    first, second = inside[inner[0].name], inside[inner[1].name]
                    left[n] += weight * torch.dot(first[1:rest], second[1:rest].flip(0))
        return inside

    def _derive(self, length: int, numbers: Iterator[float]) -> _Node:
        """A derivation whose source has so many words."""
        root = _Node(-1)
        top = _Part(self._root, "0")
        waiting: list[tuple[_Node, _Part, int]] = [(root, top, length)]
        while waiting:
            above, part, n = waiting.pop()
            rule, split = self._choose(part.name, n, numbers)
            node = _Node(rule)
            above.children[part] = node
            own, inner = self._open(rule)
            for each in self._sources[rule]:
                if each.name in self.classes and each.number:
                    node.children[each] = 1 + int(next(numbers) * self.classes[each.name].size)
            sizes = [split, n - own - split] if len(inner) == 2 else [n - own] * len(inner)
            waiting += [(node, each, size) for each, size in zip(inner, sizes, strict=True)]
        found = root.children[top]
        assert isinstance(found, _Node)
        return found

    def _choose(self, name: str, n: int, numbers: Iterator[float]) -> tuple[int, int]:
        """A rule for a non-terminal that is to have n words, and how many of them its first non-terminal has."""
        shares, choices = self._shares.get((name, n)) or self._weigh(name, n)
        return choices[min(bisect.bisect_right(shares, next(numbers) * shares[-1]), len(choices) - 1)]

    def _weigh(self, name: str, n: int) -> tuple[list[float], list[tuple[int, int]]]:
        """The running sum of the shares of p_X(n), and the rule and split that each of them is of."""
        weights: list[float] = []
        choices: list[tuple[int, int]] = []
        for rule, each in enumerate(self.rules):
            own, inner = self._open(rule)
            rest = n - own
            if each.left != name or rest < len(inner) or (not inner and rest):
                continue
            factor = float(Fraction(each.probability)) * math.exp(-self._decay * own)
            if len(inner) < 2:
                weights.append(factor * (float(self._inside[inner[0].name][rest]) if inner else 1.0))
                choices.append((rule, rest))
                continue
            first, second = self._inside[inner[0].name], self._inside[inner[1].name]
            weights += (factor * first[1:rest] * second[1:rest].flip(0)).tolist()
            choices += [(rule, split) for split in range(1, rest)]
        found = torch.tensor(weights, dtype=torch.float64).cumsum(0).tolist(), choices
        if n <= _CACHED:
            self._shares[name, n] = found
        return found

    def _read(self, tree: _Node, sides: list[list[_Part]], *, target: bool) -> list[str]:
        """One language's side of a derivation."""
        words: list[str] = []
        waiting: list[tuple[_Node, _Part] | _Node] = [tree]
        while waiting:
            item = waiting.pop()
            if isinstance(item, _Node):
                waiting += [(item, part) for part in reversed(sides[item.rule])]
                continue
            node, part = item
            child = node.children.get(part)
            if isinstance(child, _Node):
                waiting.append(child)
            elif child is not None:
                each = self.classes[part.name]
                words.append(f"{each.target if target else each.source}{child}")
            else:
                words.append(part.name)
        return words


def _numbers(generator: torch.Generator) -> Iterator[float]:
    """Uniform random numbers, without end."""
    while True:
        yield from torch.rand(_BLOCK, generator=generator, dtype=torch.float64).tolist()
