"""What a stack-LSTM does with its stack while it reverses one text, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stackrev.evaluation.decoding import greedy
from stackrev.models.reversers import StackLSTMReverser
from stackrev.structures.recurrence import StackLSTMState
from stackrev.structures.stack import StackState
from stackrev.tasks import text as texts
from stackrev.tasks import vocabulary


class Element(NamedTuple):
    """What is left of what one step has pushed.

    Attributes:
        step: The step that pushed it, from 0.
        bottom: The height at which it begins.
        top: The height at which it ends.
        read: How much of it is within the read, the topmost unit of height.
    """

    step: int
    bottom: float
    top: float
    read: float

    @property
    def strength(self) -> float:
        """What is left of it."""
        return self.top - self.bottom


class Trace(NamedTuple):
    """T steps of the encoder and then of the decoder, over one text.

    Attributes:
        fed: The symbol that each step reads: `$` and the text, then `|` and what has been written.
        written: What the decoder wrote, one symbol a step, the end marker included.
        push: Each step's push strength, T of them.
        pop: Each step's pop strength.
        stored: What the network writes when it has read the value that each step pushed.
        reads: What it writes, or would write, for what each step has read; empty where the stack is.
    """

    fed: tuple[str, ...]
    written: tuple[str, ...]
    push: tuple[float, ...]
    pop: tuple[float, ...]
    stored: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def encoder_steps(self) -> int:
        """How many of the steps are the encoder's."""
        return len(self.fed) - len(self.written)

    @property
    def strengths(self) -> tuple[tuple[float, ...], ...]:
        """After each step, the strength of every element pushed so far, the first pushed first."""
        table = []
        for step, stack in enumerate(self.stacks()):
            row = [0.0] * (step + 1)
            for element in stack:
                row[element.step] = element.strength
            table.append(tuple(row))
        return tuple(table)

    def stacks(self) -> Iterator[list[Element]]:
        """The column of liquid after each step, from the bottom up; what has been popped whole is not in it."""
        return columns(self.push, self.pop)


def columns(push: Sequence[float], pop: Sequence[float]) -> Iterator[list[Element]]:
    """A stack after each step, from the strengths alone; the equations are in `stack.py`."""
    pushed: list[tuple[int, float]] = []  # each element's step and bottom: it ends where the next one begins
    height = 0.0
    for step, (d, u) in enumerate(zip(push, pop, strict=True)):
        level = max(0.0, height - u)
        while pushed and pushed[-1][1] >= level:
            pushed.pop()
        height = level + d
        if d > 0:
            pushed.append((step, level))
        ends = [*(bottom for _, bottom in pushed), height][1:]
        yield [
            Element(at, bottom, top, max(0.0, top - max(bottom, height - 1)))
            for (at, bottom), top in zip(pushed, ends, strict=True)
        ]


def trace(model: StackLSTMReverser, text: str) -> Trace:
    """Reverse a text greedily, and tell what happened on the stack.

    Decoding ends with the end marker, or after as many symbols as the whole target has. A stored value stands for what
    the network writes when it has read it. A value that is never read is given to the network as its read, as if it
    were on top when the network begins to write.

    Args:
        model: A trained model; its mode is put back afterwards.
        text: Any text, without markers.

    Raises:
        VocabularyError: The text has too many different characters.
    """
    bound = texts.bind(text)
    training, device = model.training, model.initial_hidden.device
    model.eval()

    def steps(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        return torch.tensor(ids, device=device)[:, None], torch.tensor([len(ids)])

    try:
        with torch.inference_mode():
            string = torch.tensor(bound.ids, dtype=torch.int64)
            (written,) = greedy(model, [string], limit=len(string) + 1)
            source, fed = [vocabulary.START, *bound.ids], [vocabulary.SEPARATOR, *written[:-1]]
            encoded = model.run(model.encoder, *steps(source), model.initial_state(1))
            decoded = model.run(model.decoder, *steps(fed), encoded.state)
            push = [*encoded.push[:, 0].tolist(), *decoded.push[:, 0].tolist()]
            pop = [*encoded.pop[:, 0].tolist(), *decoded.pop[:, 0].tolist()]
            values = decoded.state.stack.values[:, 0]  # [T, M]
            stacks = list(columns(push, pop))
            reads = torch.stack([_read(values, stack) for stack in stacks])
            stored, read = (_said(model, each, encoded.state) for each in (values, reads))
    finally:
        model.train(training)
    # What the network did write, it wrote for what it had read one step before: that goes before what it would have.
    main = [max(stack, key=_read_of, default=None) for stack in stacks]
    answered = range(len(source) - 1, len(source) - 1 + len(written))
    for step, symbol in zip(answered, written, strict=True):
        read[step] = symbol
        if (element := main[step]) is not None and element.read > 0.5:
            stored[element.step] = symbol
    shown = bound.clusters(read)
    for step, element in enumerate(main):
        if step not in answered:
            if element is None:
                shown[step] = ""
            elif element.read > 0.5:
                shown[step] = bound.show([stored[element.step]])
    return Trace(
        fed=tuple(bound.clusters([*source, *fed])),
        written=tuple(bound.clusters(written)),
        push=tuple(push),
        pop=tuple(pop),
        stored=tuple(bound.clusters(stored)),
        reads=tuple(shown),
    )


def _read_of(element: Element) -> float:
    return element.read


def _read(values: Tensor, stack: Sequence[Element]) -> Tensor:
    """What a stack reads, [M], of the values [T, M] that its steps have pushed."""
    inside = [each for each in stack if each.read > 0]
    shares = torch.tensor([each.read for each in inside], dtype=values.dtype, device=values.device)
    return shares @ values[[each.step for each in inside]]


def _said(model: StackLSTMReverser, reads: Tensor, state: StackLSTMState) -> list[int]:
    """What the decoder would write first for each of the reads [N, M], if it began in a state."""
    count, width = reads.shape
    h, c = (each.expand(-1, count, -1) for each in (state.hidden, state.cell))
    asked = StackLSTMState(h, c, reads, StackState.empty(count, width, like=reads))
    symbols = torch.full((count,), vocabulary.SEPARATOR, device=reads.device)
    said: list[int] = model.step(symbols, asked)[0].argmax(-1).tolist()
    return said
