"""The LSTM with a neural queue: its configuration, how it is trained and run without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from stackrev.config import setting
from stackrev.kinds.base import Kind
from stackrev.kinds.memory_lstm import REMEMBERING, SETTLING, MemoryLSTMConfig, open_stream
from stackrev.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class QueueLSTMConfig(MemoryLSTMConfig):
    """An LSTM encoder and an LSTM decoder that hand over a neural queue.

    A queue forgives less than a stack: whatever is popped too early shifts all that is read later. So the encoder's pop
    gate starts shut and the decoder's nearly open, strings are too long for the LSTM to hold from the start, and those
    of a batch have one length. What is pushed for a word can depend on the next one (see `push_delay`), since some
    tasks are learned only so.
    """

    memory: ClassVar[Literal["stack", "queue", "deque"]] = "queue"
    kind: Literal["queue-lstm"] = setting("queue-lstm", "The kind of model to train.", option=False)


QUEUE_LSTM = Kind(
    model=QueueLSTMConfig(pop_bias=-8.0, decoder_push_bias=-1.5, decoder_pop_bias=3.0, push_delay=2, string_noise=1.0),
    training=TrainingConfig(batches=3000, mixed_lengths=False, curriculum_start=None, sharpen_from=0.5),
    module="stackrev.models.queue_lstm:QueueLSTMReverser",
    label="queue-LSTM",
    colour=3,
    summary="An LSTM with a differentiable neural queue (Grefenstette et al. 2015, arXiv 1506.02516).",
    task="copy",
    tasks={"svo-sov": REMEMBERING, "gender": SETTLING, "bigram-flip": SETTLING},
    open_stream=open_stream,
)
