"""Inversion transduction grammars: sentences drawn together with their translations.

A rule rewrites a non-terminal in both languages at once. It is written as in Table 1 of Grefenstette et al. 2015 (their
appendix on the grammars): the parts of the source, the same parts in the order of the target, and a number after each
part that is the same on both sides, such as `S1 VT2 O3` and `S1 O3 VT2`. A part that is a class stands for one of the
class's words, each as likely as any other; every other part is a word.

The paper draws derivations and rejects those whose source has a length outside the wanted range. Here the same
distribution is drawn without rejection. Let p_X(n) be the probability that X derives a source of n words. A length n is
drawn with probability proportional to p_A(n) over the range, then a derivation given n: each rule, and each split of n
between its parts, in proportion to its share of p_X(n). A derivation that never ends has no part in this. The table of
p_X(n) is in `tasks/inside.py`, and that of long sources in `tasks/relaxed.py`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

import torch

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.tasks.base import LONGEST_SENTENCE
from stackrev.tasks.inside import Inside, Production
from stackrev.tasks.relaxed import RelaxedInside

DIRECT = 20_000
"""The longest source for which the table of p_X(n) is filled directly, in time that grows with the square of n.

Draws of sources up to here stay the same, bit for bit, for the same generator.
"""
_BLOCK = 4096  # random numbers drawn at once


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


class _Written(NamedTuple):
    """One part of a rule's right side as it is written in one language.

    Attributes:
        word: The word, if it is one.
        place: The place of a class or a non-terminal among those of the source.
        words: The words of a class.
    """

    word: str
    place: int
    words: tuple[str, ...]


class _Tree:
    """A derivation. Its nodes have numbers, the root 0.

    Attributes:
        rules: The rule of each node.
        starts: Where the parts of each node begin.
        parts: What each class and each non-terminal of a node's source became, in their order: the place of a word in
            the class, or the number of a node.
    """

    __slots__ = ("parts", "rules", "starts")

    def __init__(self) -> None:
        self.rules, self.starts, self.parts = array("l"), array("l"), array("l")


class Grammar:
    """An inversion transduction grammar.

    Args:
        root: The non-terminal of a whole sentence.
        rules: Its rules, those of a non-terminal after those it can be rewritten by without a word beside.
        classes: Its classes of words, by name.
        direct: The longest source for which the table of p_X(n) is filled directly.

    Attributes:
        rules: As given.
        classes: As given.
    """

    def __init__(
        self, root: str, rules: tuple[Rule, ...], classes: Mapping[str, Words], *, direct: int = DIRECT
    ) -> None:
        self.rules, self.classes, self._root, self._direct = rules, classes, root, direct
        self._sources = [self._parts(rule.source) for rule in rules]
        self._targets = [self._parts(rule.target) for rule in rules]
        self._numbered = [[part for part in parts if part.number] for parts in self._sources]
        self._productions = [self._production(*each) for each in zip(rules, self._sources, strict=True)]
        self._written = [self._in_language(target=False), self._in_language(target=True)]
        self._insides: dict[type[Inside], Inside] = {}

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
        inside = self._inside(longest)
        table = inside.table[self._root][: longest + 1]
        return (table * torch.exp(inside.decay * torch.arange(len(table), dtype=torch.float64))).tolist()

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
        if lengths.maximum > LONGEST_SENTENCE:
            raise DataError(
                f"sentences of {lengths.maximum:,} words are too long", hint=f"at most {LONGEST_SENTENCE:,}"
            )
        inside = self._inside(lengths.maximum)
        table = inside.table[self._root][lengths.minimum : lengths.maximum + 1]
        logarithms = table.log() + inside.decay * torch.arange(len(table), dtype=torch.float64)
        if not len(table) or not bool((table > 0).any()):
            raise DataError(f"no sentence of the grammar has {lengths} words", hint="ask for other lengths")
        if not samples:
            return
        places = torch.multinomial(
            (logarithms - logarithms.max()).exp(), samples, replacement=True, generator=generator
        )
        numbers = _numbers(generator)
        for place in places.tolist():
            tree = self._derive(inside, lengths.minimum + place, numbers)
            source, target = (_read(tree, side) for side in self._written)
            yield source, target

    def _parts(self, side: str) -> list[_Part]:
        parts = []
        for word in side.split():
            found = re.fullmatch(r"([A-Z]+)(\d)", word)
            parts.append(_Part(found[1], found[2]) if found else _Part(word, ""))
        return parts

    def _is_word(self, part: _Part) -> bool:
        return not part.number

    def _inside(self, longest: int) -> Inside:
        """The table of p_X(n) for n up to at least `longest`."""
        kind = Inside if longest <= self._direct else RelaxedInside
        found = self._insides.get(kind)
        if found is None or found.longest < longest:
            found = self._insides[kind] = kind(self._productions, self._root, longest)
        return found

    def _production(self, rule: Rule, parts: list[_Part]) -> Production:
        """A rule as far as lengths go: a class is one word."""
        inner = tuple(part.name for part in parts if part.number and part.name not in self.classes)
        return Production(rule.left, float(Fraction(rule.probability)), len(parts) - len(inner), inner)

    def _in_language(self, *, target: bool) -> list[list[_Written]]:
        """The right sides of the rules in one of the two languages, last part first."""
        sides = []
        for parts, numbered in zip(self._targets if target else self._sources, self._numbered, strict=True):
            side = []
            for part in reversed(parts):
                words: tuple[str, ...] = ()
                if part.number and (each := self.classes.get(part.name)):
                    words = tuple(f"{each.target if target else each.source}{k}" for k in range(1, each.size + 1))
                side.append(_Written("", numbered.index(part), words) if part.number else _Written(part.name, 0, ()))
            sides.append(side)
        return sides

    def _derive(self, inside: Inside, length: int, numbers: Iterator[float]) -> _Tree:
        """A derivation whose source has so many words."""
        tree = _Tree()
        waiting = [(-1, self._root, length)]  # where its number goes, a node's non-terminal, and its number of words
        while waiting:
            above, name, n = waiting.pop()
            rule, split = inside.choose(name, n, next(numbers))
            if above >= 0:
                tree.parts[above] = len(tree.rules)
            tree.rules.append(rule)
            tree.starts.append(len(tree.parts))
            size, rest = split, n - self._productions[rule].own - split
            for part in self._numbered[rule]:
                if part.name in self.classes:
                    tree.parts.append(int(next(numbers) * self.classes[part.name].size))
                else:
                    waiting.append((len(tree.parts), part.name, size))
                    tree.parts.append(0)
                    size = rest
        return tree


def _read(tree: _Tree, sides: list[list[_Written]]) -> list[str]:
    """One language's side of a derivation."""
    words: list[str] = []
    waiting: list[int | str] = [0]  # nodes and words, the first one last
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            words.append(item)
            continue
        start = tree.starts[item]
        for word, place, class_words in sides[tree.rules[item]]:
            if word:
                waiting.append(word)
            else:
                part = tree.parts[start + place]
                waiting.append(class_words[part] if class_words else part)
    return words


def _numbers(generator: torch.Generator) -> Iterator[float]:
    """Uniform random numbers, without end."""
    while True:
        yield from torch.rand(_BLOCK, generator=generator, dtype=torch.float64).tolist()
