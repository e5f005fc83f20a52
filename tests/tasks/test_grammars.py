"""The two grammars: their rules, the distribution of what they draw, and what is to be written for it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.tasks import TASKS
from stackrev.tasks.base import LONGEST_SENTENCE
from stackrev.tasks.gender import Gender
from stackrev.tasks.grammar import Grammar
from stackrev.tasks.svo_sov import SvoSov

GRAMMARS = [TASKS["svo-sov"], TASKS["gender"]]
TRAINING, TEST = LengthRange(minimum=8, maximum=64), LengthRange(minimum=65, maximum=128)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rejection(grammar: Grammar, lengths: LengthRange, samples: int) -> Iterator[list[str]]:
    """The paper's way: derive sources from left to right, give up those that grow too long, reject the others."""
    chance = random.Random(0)
    choices: dict[str, list[list[str]]] = {}
    for rule in grammar.rules:
        copies = int(60 * Fraction(rule.probability))
        choices.setdefault(rule.left, []).extend([rule.source.split()[::-1]] * copies)
    found = 0
    while found < samples:
        words, waiting = [], ["A"]
        while waiting and len(words) + len(waiting) <= lengths.maximum:
            part = waiting.pop()
            stem = part.rstrip("0123456789")
            if stem in choices:
                waiting += chance.choice(choices[stem])
            elif stem in grammar.classes:
                words.append(f"{grammar.classes[stem].source}{chance.randint(1, grammar.classes[stem].size)}")
            else:
                words.append(part)
        if not waiting and lengths.minimum <= len(words):
            found += 1
            yield words


@pytest.mark.parametrize("task", GRAMMARS, ids=lambda task: task.name)
def test_every_word_has_an_id_in_its_own_language(task: SvoSov | Gender) -> None:
    for target, vocabulary in ((False, task.vocabulary), (True, task.written)):
        assert set(task.grammar.words(target=target)) == set(vocabulary.names)
        assert len(set(vocabulary.names)) == vocabulary.symbols
    assert task.vocabulary.symbols == {"svo-sov": 33 * 3 + 1, "gender": 25 * 4 + 4}[task.name]
    assert task.written.symbols == {"svo-sov": 33 * 3 + 1, "gender": 25 * 4 + 7}[task.name]
    assert task.size == 3 + task.written.symbols


@pytest.mark.parametrize("task", GRAMMARS, ids=lambda task: task.name)
def test_the_rules_of_a_non_terminal_share_its_probability(task: SvoSov | Gender) -> None:
    shares = Counter[str]()
    for rule in task.grammar.rules:
        shares[rule.left] += Fraction(rule.probability)
    assert set(shares.values()) == {1}


def test_the_probabilities_of_short_sentences_by_hand() -> None:
    svo, gender = (task.grammar.probabilities(8) for task in GRAMMARS)
    # One noun, the verb, one noun; then two nouns at either place.
    assert svo[:5] == pytest.approx([0, 0, 0, 0.6 * 0.6, 2 * (0.2 * 0.6 * 0.6) * 0.6])
    # Two nouns with their articles and `and`, and then verbs without an object.
    assert gender[:8] == pytest.approx([0, 0, 0, 0, 0, 1 / 4, 1 / 4 / 8, 1 / 4 / 64])


def test_two_in_five_derivations_of_the_gender_grammar_end() -> None:
    rules = [rule for rule in TASKS["gender"].grammar.rules if rule.left == "B"]
    verbs = Fraction(3, 4)  # how often a V has a B
    children = [each.source.count("B") + each.source.count("V") * verbs for each in rules]
    assert sum(Fraction(rule.probability) * each for rule, each in zip(rules, children, strict=True)) == Fraction(11, 8)
    assert sum(TASKS["gender"].grammar.probabilities(1000)) == pytest.approx(0.4, abs=1e-9)
    assert sum(TASKS["svo-sov"].grammar.probabilities(1000)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("task", GRAMMARS, ids=lambda task: task.name)
def test_draws_are_distributed_as_the_papers_rejection_has_them(task: SvoSov | Gender) -> None:
    samples, lengths = 1500, LengthRange(minimum=8, maximum=24)
    drawn = [source for source, _ in task.grammar.draw(lengths, samples, seeded(1))]
    rejected = list(rejection(task.grammar, lengths, samples))

    def counts(sentences: list[list[str]]) -> Counter[str]:
        found: Counter[str] = Counter()
        for words in sentences:
            found[f"of length {len(words) // 4 * 4}"] += 1
            found[f"beginning with {words[0].rstrip('0123456789')} {words[1].rstrip('0123456789')}"] += 1
            found[f"ending with {words[-1].rstrip('0123456789')}"] += 1
            found[f"with {sum(word in ('rpi', 'or') for word in words)} rpi or or"] += 1
            found["with the same word at both ends"] += words[0] == words[-1]
        return found

    ours, theirs = counts(drawn), counts(rejected)
    assert len(ours) > 15
    for what in ours | theirs:
        here, there = ours[what], theirs[what]
        assert abs(here - there) < 5 * (here + there + 1) ** 0.5, (what, here, there)


@pytest.mark.parametrize("task", GRAMMARS, ids=lambda task: task.name)
def test_lengths_have_their_own_probabilities(task: SvoSov | Gender) -> None:
    chances = torch.tensor(task.grammar.probabilities(64))[8:]
    found = Counter(len(source) for source, _ in task.grammar.draw(TRAINING, 4000, seeded(2)))
    for length, chance in enumerate((chances / chances.sum()).tolist(), start=8):
        expected = 4000 * chance
        assert abs(found[length] - expected) < 5 * expected**0.5 + 2, (length, found[length], expected)


@pytest.mark.parametrize("lengths", [TRAINING, TEST], ids=str)
@pytest.mark.parametrize("task", GRAMMARS, ids=lambda task: task.name)
def test_the_answer_to_a_source_is_what_was_derived_with_it(task: SvoSov | Gender, lengths: LengthRange) -> None:
    pairs = list(task.grammar.draw(lengths, 150, seeded(3)))
    again = task.draw(lengths, 150, seeded(3))
    for (source, target), string in zip(pairs, again, strict=True):
        assert lengths.minimum <= len(source) <= lengths.maximum
        assert task.vocabulary.tokens(string.tolist()) == source
        assert task.written.tokens(task.answer(string.tolist())) == target


def test_words_of_a_class_are_equally_likely() -> None:
    found = Counter(word for source, _ in GRAMMARS[0].grammar.draw(TRAINING, 1500, seeded(4)) for word in source)
    for prefix in ("si", "oi", "vi"):
        counts = [found[f"{prefix}{number}"] for number in range(1, 34)]
        mean = sum(counts) / 33
        assert all(abs(count - mean) < 5 * mean**0.5 for count in counts)


@pytest.mark.parametrize("task", GRAMMARS, ids=lambda task: task.name)
def test_a_length_without_sentences_is_refused(task: SvoSov | Gender) -> None:
    with pytest.raises(DataError, match="no sentence of the grammar has 1-2 words"):
        task.draw(LengthRange(minimum=1, maximum=2), 1, seeded(0))
    with pytest.raises(DataError, match="too long"):
        task.draw(LengthRange(minimum=1, maximum=LONGEST_SENTENCE + 1), 1, seeded(0))
    assert task.draw(TRAINING, 0, seeded(0)) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("svo-sov", "si1 oi2", "a verb too few"),
        ("svo-sov", "si1 rpi si2 oi2", "a verb too few"),
        ("svo-sov", "si1 vi1 oi2 vi2", "two main verbs"),
        ("gender", "the we1", "no noun follows the article 'the'"),
        ("gender", "me1 and a", "no noun follows the article 'a'"),
    ],
)
def test_what_is_no_sentence_has_no_answer(name: str, text: str, message: str) -> None:
    task = TASKS[name]
    with pytest.raises(DataError, match=message):
        task.answer(task.vocabulary.encode(text))
