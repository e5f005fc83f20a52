"""Long sentences: their table agrees with the direct one, and short sentences stay what they have always been."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import pytest
import torch

from stackrev.config import LengthRange
from stackrev.tasks import TASKS, inside, relaxed
from stackrev.tasks.gender import Gender
from stackrev.tasks.grammar import Grammar
from stackrev.tasks.inside import Inside, Production
from stackrev.tasks.relaxed import RelaxedInside
from stackrev.tasks.svo_sov import SvoSov

GRAMMARS = [TASKS["svo-sov"], TASKS["gender"]]
LONG = 60_000
# The first half of the SHA-256 of sentences with their translations, as drawn before there was a table of long ones.
BEFORE = {
    ("svo-sov", 8, 64, 100, 0): "47f5eb8d1f89e6cc",
    ("svo-sov", 65, 128, 30, 1): "a969ef0833abb080",
    ("svo-sov", 513, 513, 2, 2): "5f8756ac4fa884ca",
    ("svo-sov", 500, 2000, 2, 3): "7b8443bacedabcce",
    ("gender", 8, 64, 100, 0): "d7a729b3d20db295",
    ("gender", 65, 128, 30, 1): "4440f65f9f9908c7",
    ("gender", 513, 513, 2, 2): "51d86fcf14f4df46",
    ("gender", 500, 2000, 2, 3): "44e933c770c011d2",
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exactly(length: int) -> LengthRange:
    return LengthRange(minimum=length, maximum=length)


def productions(task: SvoSov | Gender) -> list[Production]:
    """The rules of a grammar as far as lengths go, found in another way than the grammar's own."""
    found = []
    for rule in task.grammar.rules:
        inner = tuple(name for name in (part.rstrip("0123456789") for part in rule.source.split()) if name in "AOSBV")
        found.append(
            Production(rule.left, float(Fraction(rule.probability)), len(rule.source.split()) - len(inner), inner)
        )
    return found


@pytest.fixture(scope="module", params=GRAMMARS, ids=lambda task: task.name)
def long(request: pytest.FixtureRequest) -> tuple[SvoSov | Gender, RelaxedInside]:
    return request.param, RelaxedInside(productions(request.param), "A", LONG)


def test_the_table_of_long_sentences_is_the_direct_one(long) -> None:
    task, found = long
    direct = Inside(productions(task), "A", 2000)
    n = torch.arange(2001, dtype=torch.float64)
    for name, table in direct.table.items():
        here = found.table[name][:2001]
        assert torch.equal(here > 0, table > 0)
        differences = here.log() + n * found.decay - table.log() - n * direct.decay
        assert differences[table > 0].abs().max() < 2e-12


@pytest.mark.parametrize("n", [255, 256, 257, 1025, 16_383, 32_769, 49_152 + 100, LONG - 1, LONG])
def test_each_number_is_the_sum_over_rules_and_splits(long, n: int) -> None:
    task, found = long
    assert 0.1 < float(found.table["A"][LONG]) * LONG**1.5 < 10
    for name, table in found.table.items():
        total = 0.0
        for left, probability, own, inner in productions(task):
            first, second = (found.table[inner[0]], found.table[inner[-1]]) if inner else (table, table)
            rest, weight = n - own, probability * math.exp(-own * found.decay)
            if left == name and len(inner) == 2:
                total += weight * float(first[1:rest] @ second[1:rest].flip(0))
            elif left == name and inner:
                total += weight * float(first[rest])
        assert float(table[n]) == pytest.approx(total, rel=1e-13, abs=0)


def digest(task: SvoSov | Gender, shortest: int, longest: int, samples: int, seed: int) -> str:
    generator, found = seeded(seed), hashlib.sha256()
    for pair in task.grammar.draw(LengthRange(minimum=shortest, maximum=longest), samples, generator):
        found.update("\n".join(" ".join(words) for words in pair).encode())
    found.update(bytes(generator.get_state().tolist()))
    return found.hexdigest()[:16]


@pytest.fixture(scope="module", params=GRAMMARS, ids=lambda task: task.name)
def drawn(request: pytest.FixtureRequest) -> tuple[SvoSov | Gender, list[str], list[str]]:
    ((source, target),) = request.param.grammar.draw(exactly(LONG), 1, seeded(5))
    return request.param, source, target


def test_a_long_sentence_has_its_length_and_its_answer(drawn) -> None:
    task, source, target = drawn
    assert len(source) == len(target) == LONG
    ids = task.vocabulary.encode_tokens(source)
    assert task.written.tokens(task.answer(ids)) == target
    assert task.draw(exactly(LONG), 1, seeded(5))[0].tolist() == ids


def test_short_sentences_keep_their_bits_also_after_a_long_one(drawn) -> None:
    task, _, _ = drawn
    for (name, *asked), expected in BEFORE.items():
        assert name != task.name or digest(task, *asked) == expected


@cache
def shapes(grammar: Grammar, left: str, length: int) -> dict[tuple[str, ...], Fraction]:
    """How likely a non-terminal derives each source of so many words, a word of a class being its class's name."""

    def follow(parts: list[str], length: int) -> Iterator[tuple[tuple[str, ...], Fraction]]:
        if not parts:
            yield from [((), Fraction(1))] * (length == 0)
            return
        stem = parts[0].rstrip("0123456789")
        sizes = range(1, length - len(parts) + 2) if stem in lefts else (1,)
        for size in sizes:
            heads = shapes(grammar, stem, size).items() if stem in lefts else [((stem,), Fraction(1))]
            for head, chance in heads:
                for tail, other in follow(parts[1:], length - size):
                    yield head + tail, chance * other

    lefts = {rule.left for rule in grammar.rules}
    found: Counter[tuple[str, ...]] = Counter()
    for rule in grammar.rules:
        if rule.left == left:
            for shape, chance in follow(rule.source.split(), length):
                found[shape] += Fraction(rule.probability) * chance
    return dict(found)


@pytest.mark.parametrize(("task", "length"), [(GRAMMARS[0], 9), (GRAMMARS[1], 11)], ids=["svo-sov", "gender"])
def test_the_way_of_long_sentences_draws_short_ones_exactly(task, length, monkeypatch) -> None:
    monkeypatch.setattr(relaxed, "_BLOCK", 4)
    monkeypatch.setattr(relaxed, "_FIT", 64)
    monkeypatch.setattr(relaxed, "_LOOK", 1)
    monkeypatch.setattr(inside, "SHORT", 3)
    grammar = Grammar("A", task.grammar.rules, task.grammar.classes, direct=0)
    classes = {f"{each.source}{k}": name for name, each in grammar.classes.items() for k in range(1, each.size + 1)}
    samples = 2000
    drawn = grammar.draw(exactly(length), samples, seeded(6))
    found = Counter(tuple(classes.get(word, word) for word in source) for source, _ in drawn)
    expected = shapes(grammar, "A", length)
    assert set(found) <= set(expected)
    total = sum(expected.values())
    distance = 0.0
    for shape, chance in expected.items():
        mean = float(samples * chance / total)
        distance += (found[shape] - mean) ** 2 / mean
        assert abs(found[shape] - mean) < 5 * mean**0.5 + 3, (shape, found[shape], mean)
    assert abs(distance - len(expected)) < 6 * (2 * len(expected)) ** 0.5 + 30
