"""Gender conjugation: articles without gender become articles that agree with their nouns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from typing_extensions import override

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.tasks.base import LONGEST_SENTENCE, Task
from stackrev.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stackrev.tasks.grammar import Grammar

_CLASSES = {"W": (25, "we", "wg"), "M": (25, "me", "mg"), "F": (25, "fe", "fg"), "N": (25, "ne", "ng")}
_ARTICLES = {"the": {"m": "der", "f": "die", "n": "das"}, "a": {"m": "ein", "f": "eine", "n": "ein"}}
_CONJUNCTIONS = {"and": "und", "or": "oder"}


def _named(side: int) -> list[str]:
    return [f"{each[1 + side]}{number}" for each in _CLASSES.values() for number in range(1, each[0] + 1)]


class Gender(Task):
    """English articles become German ones (Section 4.2 and Table 1b of Grefenstette et al. 2015).

    Nouns are masculine, feminine or neuter, and `the` and `a` are `der`, `die`, `das` and `ein`, `eine`, `ein` before
    them. All words keep their places.

    >>> task = Gender()
    >>> source = "the me17 and a fe3 we11 the ne19 and the me2"
    >>> task.written.decode(task.answer(task.vocabulary.encode(source)))
    'der mg17 und eine fg3 wg11 das ng19 und der mg2'
    """

    name = "gender"
    summary = "the sentence in the other language, with articles that agree with their nouns"
    vocabulary = Vocabulary.of((*_ARTICLES, *_CONJUNCTIONS, *_named(0)), words=True)
    target_vocabulary = Vocabulary.of(
        (*dict.fromkeys(each for forms in _ARTICLES.values() for each in forms.values()), *_CONJUNCTIONS.values(),
         *_named(1)), words=True,
    )  # fmt: skip
    uniform = False
    shortest = 5
    longest = LONGEST_SENTENCE

    @override
    def answer(self, string: Sequence[int]) -> list[int]:
        words = self.vocabulary.tokens(string)
        written = []
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if forms := _ARTICLES.get(word):
                if following[:1] not in forms:
                    raise DataError(f"no noun follows the article {word!r}", hint="give a sentence of the grammar")
                written.append(forms[following[0]])
            else:
                written.append(_CONJUNCTIONS.get(word) or f"{word[0]}g{word[2:]}")
        return self.written.encode_tokens(written)

    @override
    def draw(self, lengths: LengthRange, samples: int, generator: torch.Generator) -> list[Tensor]:
        import torch

        drawn = self.grammar.draw(lengths, samples, generator)
        return [torch.tensor(self.vocabulary.encode_tokens(source)) for source, _ in drawn]

    @cached_property
    def grammar(self) -> Grammar:
        """The grammar, as the paper prints it, but for the second number in `B1 V2`, which is printed as 1."""
        from stackrev.tasks.grammar import Grammar, Rule, Words

        articles = tuple(
            Rule("1/6", "S", f"{article} {noun}1", f"{forms[noun.lower()]} {noun}1")
            for article, forms in _ARTICLES.items()
            for noun in ("M", "F", "N")
        )
        rules = (
            *articles,
            Rule("3/4", "V", "W1 B2", "W1 B2"),
            Rule("1/4", "V", "W1", "W1"),
            Rule("1/4", "B", "B1 or B2", "B1 oder B2"),
            Rule("1/4", "B", "S1 and S2", "S1 und S2"),
            Rule("1/2", "B", "B1 V2", "B1 V2"),
            Rule("1", "A", "B1", "B1"),
        )
        return Grammar("A", rules, {name: Words(*each) for name, each in _CLASSES.items()})
