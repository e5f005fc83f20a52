"""What a model does with its stack, queue or deque while it transduces one text, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stackrev import kernels
from stackrev.errors import DataError
from stackrev.evaluation.capabilities import CanStream, CanTrace, Transducer
from stackrev.evaluation.decoding import greedy
from stackrev.kernels.defaults import torch_defaults
from stackrev.structures.columns import Element, History
from stackrev.structures.two_ends import history_of
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.tasks.base import Task


class Trace(NamedTuple):
    """T steps of the encoder and then of the decoder, over one text.

    Attributes:
        fed: The symbol that each step reads: `$` and the text, then `|` and what has been written.
        written: What the decoder wrote, one symbol a step, the end marker included.
        push: Each step's push strength, T of them; of a deque, at the top.
        pop: Each step's pop strength, likewise.
        stored: What the network writes when it has read the value that each step pushed; of a deque, each step's top
            push comes before its bottom push.
        reads: What it writes, or would write, for what each step has read; empty where the stack is.
        structure: What it works: "stack", "queue" or "deque".
        bottom_push: Each step's push strength at the bottom of a deque.
        bottom_pop: Each step's pop strength there.
    """

    fed: tuple[str, ...]
    written: tuple[str, ...]
    push: tuple[float, ...]
    pop: tuple[float, ...]
    stored: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    structure: str = "stack"
    bottom_push: tuple[float, ...] = ()
    bottom_pop: tuple[float, ...] = ()

    @property
    def ends(self) -> int:
        """At how many ends the structure is worked."""
        return 2 if self.bottom_push else 1

    @property
    def gates(self) -> dict[str, tuple[float, ...]]:
        """Each gate's strengths by its name: push and pop, and those at the bottom of a deque."""
        found = {"push": self.push, "pop": self.pop}
        if self.bottom_push:
            found |= {"bottom_push": self.bottom_push, "bottom_pop": self.bottom_pop}
        return found

    def symbol(self, element: Element) -> str:
        """What is stored in an element."""
        return self.stored[self.ends * element.step + element.end]

    @property
    def encoder_steps(self) -> int:
        """How many of the steps are the encoder's."""
        return len(self.fed) - len(self.written)

    def columns(self) -> History:
        """The column of liquid after each step."""
        return history_of(self.structure, self.push, self.pop, self.bottom_push, self.bottom_pop)


def trace(model: Transducer, text: str, task: Task = REVERSAL) -> Trace:
    """Transduce a text greedily, and tell what happened on the stack.

    Decoding ends with the end marker, or after as many symbols as the whole target has, if the task knows it. A stored
    value stands for what the network writes when it has read it. A value that is never read is given to the network as
    its read, as if it were on top when the network begins to write.

    Args:
        model: A trained model; its mode is put back afterwards.
        text: Any text, without markers.
        task: What the model has learned.

    Raises:
        ValueError: The model has no stack to trace; see `CanTrace`.
        VocabularyError: The text has too many different characters, or what is not in the task's vocabulary.
    """
    if not isinstance(model, CanTrace):
        raise ValueError("only a model with a stack, a queue or a deque can be traced")
    bound = task.bind(text)
    training = model.training
    model.eval()
    try:
        with torch_defaults(), torch.inference_mode():
            written = _write(model, bound.ids, _most(task, bound.ids))
            source, fed = [vocabulary.START, *bound.ids], [vocabulary.SEPARATOR, *written[:-1]]
            record = model.record(source, fed)
            columns = history_of(record.structure, record.push, record.pop, record.bottom_push, record.bottom_pop)
            ends = range(2 if record.bottom_push else 1)
            inside = [[columns.read(step, end) for end in ends] for step in range(len(columns))]
            reads = torch.stack([_read(record.values, elements) for elements in inside])
            alone = torch.cat([record.values for _ in ends], 1)  # each value as if it were read at every end
            stored, read = (model.answers(each, record.state) for each in (alone, reads))
    finally:
        model.train(training)
    # What the network did write, it wrote for what it had read one step before: that goes before what it would have.
    main = [max(elements[0], key=_read_of, default=None) if len(ends) == 1 else None for elements in inside]
    answered = range(len(source) - 1, len(source) - 1 + len(written))
    for step, symbol in zip(answered, written, strict=True):
        read[step] = symbol
        if (element := main[step]) is not None and element.read > 0.5:
            stored[element.step] = symbol
    shown = bound.clusters(read)
    for step, element in enumerate(main):
        if step not in answered:
            if not any(inside[step]):
                shown[step] = ""
            elif element is not None and element.read > 0.5:
                shown[step] = bound.show([stored[element.step]])
    return Trace(
        fed=(*bound.sources(source), *bound.clusters(fed)),
        written=tuple(bound.clusters(written)),
        push=tuple(record.push),
        pop=tuple(record.pop),
        stored=tuple(bound.clusters(stored)),
        reads=tuple(shown),
        structure=record.structure,
        bottom_push=tuple(record.bottom_push),
        bottom_pop=tuple(record.bottom_pop),
    )


def _most(task: Task, ids: Sequence[int]) -> int:
    """How many symbols are written at most."""
    try:
        return len(task.answer(ids)) + 1
    except DataError:  # no source of the task: nobody knows what is to be written
        return task.most_written(len(ids))


def _write(model: Transducer, ids: Sequence[int], limit: int) -> list[int]:
    """What the model writes, by the compiled kernels where they can run it: they are faster than a call a symbol."""
    weight = next(model.parameters())
    if (
        isinstance(model, CanStream)
        and kernels.available()
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
    ):
        stream = model.stream()
        stream.encode([vocabulary.START, *ids])
        return stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, limit).tolist()
    (written,) = greedy(model, [torch.tensor(list(ids), dtype=torch.int64)], limit=limit)
    return written


def _read_of(element: Element) -> float:
    return element.read


def _read(values: Tensor, elements: Sequence[Sequence[Element]]) -> Tensor:
    """What is read at each of E ends, [E M], of the values [E T, M] that steps have pushed."""
    reads = []
    for end, inside in enumerate(elements):
        shares = [each.bottom_read if end else each.read for each in inside]
        places = [len(elements) * each.step + each.end for each in inside]
        reads.append(torch.tensor(shares, dtype=values.dtype, device=values.device) @ values[places])
    return torch.cat(reads)
