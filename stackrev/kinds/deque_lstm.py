"""The LSTM with a neural deque: its configuration, how it is trained and run without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from stackrev.config import Between, setting
from stackrev.kinds.base import Kind
from stackrev.kinds.memory_lstm import REMEMBERING, SETTLING, MemoryLSTMConfig, open_stream
from stackrev.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class DequeLSTMConfig(MemoryLSTMConfig):
    """An LSTM encoder and an LSTM decoder that hand over a neural deque.

    `push_bias` and `pop_bias` are of the gates at the top. In the encoder those at the bottom start shut, so that it is
    one end that learns to be filled; the decoder is inclined to pop at both. For the two grammars it is inclined to pop
    at the bottom alone: where both ends are popped, words are lost before it has learned where to read. For gender,
    pushes are delayed by three steps: with two, some runs learn all words but the articles and stay there. The
    learning rate falls, because with a constant one some runs never get the last few strings right, and a run starts
    over where less than half is right after 1,500 batches. A run settles for 2,500 batches there (or what is left of
    its 5,000), in which the ends of sentences come to be right as surely as the rest. A delay of three steps leaves the
    last three words to the LSTM, so that they reach the decoder by another way.
    """

    memory: ClassVar[Literal["stack", "queue", "deque"]] = "deque"
    ends: ClassVar[int] = 2

    kind: Literal["deque-lstm"] = setting("deque-lstm", "The kind of model to train.", option=False)
    bottom_push_bias: float = setting(
        -4.0, "The initial bias of the push gate at the bottom.", low=-100, high=100, search=Between(-6.0, 3.0)
    )
    bottom_pop_bias: float = setting(
        -4.0, "The initial bias of the pop gate at the bottom.", low=-100, high=100, search=Between(-6.0, 3.0)
    )

    decoder_bottom_push_bias: float | None = setting(
        None, "The decoder's initial bias of the push gate at the bottom; none for the same.", low=-100, high=100
    )
    decoder_bottom_pop_bias: float | None = setting(
        None, "The decoder's initial bias of the pop gate at the bottom; none for the same.", low=-100, high=100
    )

    @property
    @override
    def encoder_biases(self) -> tuple[float, ...]:
        return self.push_bias, self.pop_bias, self.bottom_push_bias, self.bottom_pop_bias

    @property
    @override
    def _of_decoder(self) -> tuple[float | None, ...]:
        return (
            self.decoder_push_bias,
            self.decoder_pop_bias,
            self.decoder_bottom_push_bias,
            self.decoder_bottom_pop_bias,
        )


DEQUE_LSTM = Kind(
    model=DequeLSTMConfig(
        pop_bias=-8.0,
        bottom_push_bias=-8.0,
        bottom_pop_bias=-8.0,
        push_delay=2,
        decoder_push_bias=-1.5,
        decoder_pop_bias=3.0,
        decoder_bottom_pop_bias=3.0,
        string_noise=1.0,
    ),
    training=TrainingConfig(batches=3000, mixed_lengths=False, curriculum_start=None, sharpen_from=0.5),
    module="stackrev.models.deque_lstm:DequeLSTMReverser",
    label="deque-LSTM",
    colour=4,
    summary="An LSTM with a differentiable neural deque (Grefenstette et al. 2015, arXiv 1506.02516).",
    task="copy",
    tasks={
        "svo-sov": {**REMEMBERING, "stack_width": 32, "decoder_pop_bias": -8.0},
        "gender": {
            **SETTLING,
            "settle_batches": 2500,
            "decoder_pop_bias": -8.0,
            "push_delay": 3,
            "symbol_noise": 0.15,
            "batches": 5000,
            "restart_batches": 1500,
            "schedule": "linear",
        },
        "bigram-flip": SETTLING,
    },
    open_stream=open_stream,
)
