"""What a stack-LSTM does with its stack while it reverses one string, step by step."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stackrev import vocabulary
from stackrev.models import StackLSTMReverser


class Trace(NamedTuple):
    """T steps of the encoder and then of the decoder, over one string.

    Attributes:
        fed: The symbol that each step reads: `$` and the string, then `|` and what has been written.
        written: What the decoder wrote, one symbol a step, the end marker included.
        push: Each step's push strength, T of them.
        pop: Each step's pop strength.
        strengths: After each step, the strength of every element pushed so far, the first pushed first.
    """

    fed: tuple[str, ...]
    written: tuple[str, ...]
    push: tuple[float, ...]
    pop: tuple[float, ...]
    strengths: tuple[tuple[float, ...], ...]

    @property
    def encoder_steps(self) -> int:
        """How many of the steps are the encoder's."""
        return len(self.fed) - len(self.written)


def trace(model: StackLSTMReverser, text: str) -> Trace:
    """Reverse a string greedily, and tell what happened on the stack.

    Decoding ends with the end marker, or after as many symbols as the whole target has.

    Args:
        model: A trained model; its mode is put back afterwards.
        text: ASCII.

    Raises:
        VocabularyError: A character is not ASCII.
    """
    string = vocabulary.encode(text)
    training, device = model.training, model.initial_hidden.device
    model.eval()
    fed, written, push, pop, strengths = [], [], [], [], []
    one = torch.ones(1, dtype=torch.int64)
    try:
        with torch.inference_mode():
            state = model.initial_state(1)
            for cell, ids in ((model.encoder, [vocabulary.START, *string]), (model.decoder, [vocabulary.SEPARATOR])):
                for symbol in ids:  # the decoder's list grows by what it writes
                    out = model.run(cell, torch.tensor([[symbol]], device=device), one, state)
                    state = out.state
                    fed.append(symbol)
                    push.append(out.push.item())
                    pop.append(out.pop.item())
                    strengths.append(tuple(state.stack.strengths[:, 0].tolist()))
                    if cell is model.decoder:
                        written.append(int(model.read_out(out.hidden[0]).argmax()))
                        if written[-1] != vocabulary.END and len(written) <= len(string):
                            ids.append(written[-1])
    finally:
        model.train(training)
    return Trace(_characters(fed), _characters(written), tuple(push), tuple(pop), tuple(strengths))


def _characters(ids: list[int]) -> tuple[str, ...]:
    return tuple(vocabulary.decode([each]) for each in ids)
