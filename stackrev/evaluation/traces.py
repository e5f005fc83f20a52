"""What a stack-LSTM does with its stack while it reverses one text, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stackrev import kernels
from stackrev.evaluation.columns import Columns, Element
from stackrev.evaluation.decoding import greedy
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.structures.recurrence import StackLSTMState
from stackrev.structures.stack import StackState
from stackrev.tasks import text as texts
from stackrev.tasks import vocabulary


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

    def columns(self) -> Columns:
        """The column of liquid after each step."""
        return Columns(self.push, self.pop)


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
            written = _write(model, bound.ids)
            source, fed = [vocabulary.START, *bound.ids], [vocabulary.SEPARATOR, *written[:-1]]
            encoded = model.run(model.encoder, *steps(source), model.initial_state(1))
            decoded = model.run(model.decoder, *steps(fed), encoded.state)
            push = [*encoded.push[:, 0].tolist(), *decoded.push[:, 0].tolist()]
            pop = [*encoded.pop[:, 0].tolist(), *decoded.pop[:, 0].tolist()]
            values = decoded.state.stack.values[:, 0]  # [T, M]
            columns = Columns(push, pop)
            inside = [columns.read(step) for step in range(len(columns))]
            reads = torch.stack([_read(values, elements) for elements in inside])
            stored, read = (_said(model, each, encoded.state) for each in (values, reads))
    finally:
        model.train(training)
    # What the network did write, it wrote for what it had read one step before: that goes before what it would have.
    main = [max(elements, key=_read_of, default=None) for elements in inside]
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


def _write(model: StackLSTMReverser, ids: Sequence[int]) -> list[int]:
    """What the model writes, by the compiled kernels where they can run it: they are faster than a call a symbol."""
    limit = len(ids) + 1
    weight = model.initial_hidden
    if kernels.available() and weight.dtype == torch.float32 and weight.device.type == "cpu":
        stream = model.stream()
        stream.encode([vocabulary.START, *ids])
        return stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, limit).tolist()
    (written,) = greedy(model, [torch.tensor(ids, dtype=torch.int64)], limit=limit)
    return written


def _read_of(element: Element) -> float:
    return element.read


def _read(values: Tensor, elements: Sequence[Element]) -> Tensor:
    """What a stack reads, [M], of the values [T, M] that its steps have pushed."""
    shares = torch.tensor([each.read for each in elements], dtype=values.dtype, device=values.device)
    return shares @ values[[each.step for each in elements]]


def _said(model: StackLSTMReverser, reads: Tensor, state: StackLSTMState) -> list[int]:
    """What the decoder would write first for each of the reads [N, M], if it began in a state."""
    count, width = reads.shape
    h, c = (each.expand(-1, count, -1) for each in (state.hidden, state.cell))
    asked = StackLSTMState(h, c, reads, StackState.empty(count, width, like=reads))
    symbols = torch.full((count,), vocabulary.SEPARATOR, device=reads.device)
    said: list[int] = model.step(symbols, asked)[0].argmax(-1).tolist()
    return said
