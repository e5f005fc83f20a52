"""What a model must be able to do to be evaluated, and what some can do besides.

Nothing here or above asks what a model is called. A model that has the methods of a protocol can do what it stands
for: `isinstance(model, CanTrace)` tells whether it can be traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from stackrev.kernels.cpu.stream import Stream
    from stackrev.kinds.base import ModelConfig
    from stackrev.readout import ReadOutWeights
    from stackrev.tasks.batches import Batch


class Transducer(Protocol):
    """What every model can do; see `models.base.Reverser` for the shapes."""

    training: bool

    @property
    def config(self) -> ModelConfig:
        """Its shape."""
        ...

    @property
    def read_out_weights(self) -> ReadOutWeights:
        """From hidden states to logits."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Turn training noise on or off."""
        ...

    def eval(self) -> Any:
        """Turn training noise off."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Its weights."""
        ...

    def hidden(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """The decoder's hidden states under teacher forcing."""
        ...

    def encode(self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None) -> Any:
        """The state after the encoder has read a batch."""
        ...

    def step(self, symbols: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of the decoder: logits and the state after."""
        ...


@runtime_checkable
class CanStream(Protocol):
    """Runs one string of any length in the compiled kernels, in memory that holds what is on its stack."""

    def stream(self) -> Stream:
        """The model as it stands; see `Stream`.

        Raises:
            NativeError: The kernels are not there.
        """
        ...


class Gates(NamedTuple):
    """What a model with a stack, a queue or a deque does under teacher forcing.

    Attributes:
        encoder: [T, B, 2], the pre-activations of the encoder's push and pop gates; [T, B, 4] of a deque, those at the
            top first.
        decoder: Those of the decoder's.
        hidden: [T, B, H], the decoder's hidden states.
    """

    encoder: Tensor
    decoder: Tensor
    hidden: Tensor


@runtime_checkable
class HasMargins(Protocol):
    """Works a stack, a queue or a deque through gates that can be 0 or 1 to the last bit."""

    @property
    def saturation(self) -> float:
        """How far a gate's pre-activation must be from 0 for the gate to be 0 or 1; infinite if it never is."""
        ...

    def gates(self, batch: Batch) -> Gates:
        """The gates' pre-activations for a batch on the model's device."""
        ...

    def read_out(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""
        ...


class Record(NamedTuple):
    """What a model with a stack, a queue or a deque did, over T steps of the encoder and then of the decoder.

    Attributes:
        push: Each step's push strength, T of them; of a deque, at the top.
        pop: Each step's pop strength, likewise.
        values: [T, M], what each step pushed; of a deque [2T, M], each step's top push before its bottom push.
        state: The state in which the decoder began.
        structure: What it worked: "stack", "queue" or "deque".
        bottom_push: Each step's push strength at the bottom of a deque.
        bottom_pop: Each step's pop strength there.
    """

    push: list[float]
    pop: list[float]
    values: Tensor
    state: Any
    structure: str = "stack"
    bottom_push: Sequence[float] = ()
    bottom_pop: Sequence[float] = ()


@runtime_checkable
class CanTrace(Protocol):
    """Tells what it does with its stack, queue or deque."""

    def record(self, source: Sequence[int], fed: Sequence[int]) -> Record:
        """Run the encoder over ids and then the decoder over others."""
        ...

    def answers(self, reads: Tensor, state: Any) -> list[int]:
        """What the decoder would write first for each of the reads, if it began in a state.

        Args:
            reads: [N, M], or [N, 2M] of a deque, at its top and at its bottom.
            state: As in `Record`.
        """
        ...
