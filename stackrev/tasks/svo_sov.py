"""SVO to SOV: the verb of the main clause moves behind its object."""

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

_CLASSES = {"ST": (33, "si", "so"), "OT": (33, "oi", "oo"), "VT": (33, "vi", "vo")}
_RELATIVE = ("rpi", "rpo")


def _words(side: int) -> tuple[str, ...]:
    named = (f"{each[1 + side]}{number}" for each in _CLASSES.values() for number in range(1, each[0] + 1))
    return (_RELATIVE[side], *named)


class SvoSov(Task):
    """Subject, verb and object become subject, object and verb (Section 4.2 and Table 1a of Grefenstette et al. 2015).

    Subjects and objects are lists of nouns, and any of these may have a relative clause, `S rpi S V`, which keeps its
    order. The verb of the main clause is the one that no `rpi` is waiting for.

    >>> task = SvoSov()
    >>> source = "si1 vi28 oi5 oi7 si15 rpi si19 vi16 oi10 oi24"
    >>> task.written.decode(task.answer(task.vocabulary.encode(source)))
    'so1 oo5 oo7 so15 rpo so19 vo16 oo10 oo24 vo28'
    """

    name = "svo-sov"
    summary = "the sentence in the other language, with its verb at the end"
    vocabulary = Vocabulary.of(_words(0), words=True)
    target_vocabulary = Vocabulary.of(_words(1), words=True)
    uniform = False
    shortest = 3
    longest = LONGEST_SENTENCE

    @override
    def answer(self, string: Sequence[int]) -> list[int]:
        # The n-th word of one language is the n-th of the other: translating changes no id.
        waiting, verb = 0, None
        for place, symbol in enumerate(string):
            if symbol == self._relative:
                waiting += 1
            elif symbol in self._verbs:
                if waiting:
                    waiting -= 1
                elif verb is None:
                    verb = place
                else:
                    raise DataError("the sentence has two main verbs", hint="give one of the grammar")
        if verb is None or waiting:
            raise DataError("the sentence has a verb too few", hint="give one of the grammar")
        return [*string[:verb], *string[verb + 1 :], string[verb]]

    @override
    def draw(self, lengths: LengthRange, samples: int, generator: torch.Generator) -> list[Tensor]:
        import torch

        drawn = self.grammar.draw(lengths, samples, generator)
        return [torch.tensor(self.vocabulary.encode_tokens(source)) for source, _ in drawn]

    @cached_property
    def grammar(self) -> Grammar:
        """The grammar, as the paper prints it."""
        from stackrev.tasks.grammar import Grammar, Rule, Words

        rules = (
            Rule("1/5", "S", "S1 S2", "S1 S2"),
            Rule("1/5", "S", "S1 rpi S2 VT3", "S1 rpo S2 VT3"),
            Rule("3/5", "S", "ST1", "ST1"),
            Rule("1/5", "O", "O1 O2", "O1 O2"),
            Rule("1/5", "O", "S1 rpi S2 VT3", "S1 rpo S2 VT3"),
            Rule("3/5", "O", "OT1", "OT1"),
            Rule("1", "A", "S1 VT2 O3", "S1 O3 VT2"),
        )
        return Grammar("A", rules, {name: Words(*each) for name, each in _CLASSES.items()})

    @cached_property
    def _relative(self) -> int:
        return self.vocabulary.encode(_RELATIVE[0])[0]

    @cached_property
    def _verbs(self) -> frozenset[int]:
        return frozenset(self.vocabulary.encode_tokens([each for each in self.vocabulary.names if each[:2] == "vi"]))
