"""What the LSTMs with a stack, a queue or a deque have in common: their settings and their parameters' shapes."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from stackrev.config import Between, setting
from stackrev.errors import ConfigError
from stackrev.kinds.base import WIDTHS, ModelConfig, Shapes

if TYPE_CHECKING:
    from stackrev.kernels.cpu.stream import Stream


REMEMBERING = {
    "hidden_size": 128,
    "cell_stretch": 0.1,
    "push_delay": 0,
    "string_noise": 0.3,
    "forget_bias": 1.0,
    "curriculum_start": 16,
    "least_share": 0.6,
    "symbol_noise": 0.5,
    "batches": 12_000,
    "restart_batches": 2500,
    "recurrent_l1": 0.0003,
    "stretch_batches": 2000,
    "settle_batches": 3000,
    "settle_noise": 1.0,
    "settle_rate": 0.02,
}
"""Settings by which a queue or a deque learns SVO to SOV, where the LSTMs have to keep a verb and to count clauses.

Nothing is to be read ahead there, so pushes begin at once. With more noise that stays for a string, some runs never
come to use the memory. LSTMs that forget little, and begin with sentences of 16 words at most, learn to keep the verb.
Short sentences are left out later, because longer ones have clauses nested more deeply; they come back once the run is
solved. From there on the LSTMs' own gates are stretched more and more, and noise on symbols drives them to 0 and 1,
while the rate falls nearly to 0. Then the LSTMs count far more clauses than sentences of training have. A small L1
penalty on the recurrent weights takes away other cells, which would drift over a long sentence. It leaves the counters,
whose gates are 0 and 1 even with somewhat smaller weights. Some runs of a deque never learn to write the first word,
and start over.
"""

SETTLING = {"settle_batches": 1000, "settle_rate": 0.02, "cell_l2": 0.003}
"""Settings by which a queue or a deque settles on gender and on bigrams, where what is written depends on what is near.

When all held-out strings are right, a few of many others are still wrong, and to get these right takes many batches at
a falling rate. On these two tasks an LSTM has to remember only a few symbols. The penalty makes it forget the rest, so
that its cells do not grow with the length of the string.
"""


@dataclass(frozen=True, kw_only=True)
class MemoryLSTMConfig(ModelConfig):
    """An LSTM encoder and an LSTM decoder that hand over a memory: a neural stack, queue or deque.

    `stack_width` is M, the width of the values in the memory, whichever it is. `gate_stretch` is e of
    `clamp((1 + 2e) sigmoid(x) - e, 0, 1)` (0 is the paper's sigmoid); `gate_noise` is the standard deviation of the
    noise added to the gates' pre-activations in training; `shared_controls` makes encoder and decoder work the memory
    through the same projections, as if they were one network: then an encoder that learns to push teaches the decoder
    to, which reads only what it has just pushed, and about one run in ten never learns.

    `cell_stretch` is the e of the LSTMs' own gates, which are the usual ones where it is 0. Their candidate is
    `clamp((1 + 2e) tanh(x), -1, 1)`. A cell whose gates are 0 or 1 keeps what it has to the last bit, and one whose
    candidate is -1, 0 or 1 besides counts exactly, up to 2^24. (`push_delay` supposes usual gates at the start, as with
    `stretch_batches`. `torch.compile` breaks its graph where such a model's stretch is read.)

    `string_noise` is the standard deviation of noise on the gates in training that stays the same for all steps of a
    string, drawn apart for encoder and decoder. It makes every batch try different ways of working the memory: a
    decoder that pushes little and pops much, for some strings, long before the average decoder does, and is rewarded
    for it.

    `push_bias` and `pop_bias` are where the gates' biases start. Those of the decoder may start elsewhere: an encoder
    that is inclined to push and a decoder that is inclined to pop already move through the memory in order, and what is
    left to learn is what to write there. (With `shared_controls` there is one set of biases, which starts as the
    encoder's.)

    `push_delay` is for about how many steps the encoder's push gate starts shut: what it pushes for a word can then
    depend on the words after it, as it must where a read has to be ahead of what is written. One unit of the encoder
    then begins as a clock, which depends on nothing but time, and the push gate as a function of that unit alone. Both
    are trained from there on like all others. `forget_bias` is added to the initial biases of the forget gates: with
    one of 1 or 2 the LSTMs forget less to begin with (Gers et al. 2000, Section 4; Jozefowicz et al. 2015).

    `memory` is what the memory is, and `ends` E, at how many ends it is worked.
    """

    memory: ClassVar[Literal["stack", "queue", "deque"]] = "stack"
    ends: ClassVar[int] = 1

    stack_width: int = setting(64, "Width of the values on the stack, queue or deque.", low=1, high=4096, search=WIDTHS)
    gate_stretch: float = setting(
        0.05, "How far push and pop gates reach past 0 and 1.", low=0, high=10, search=Between(0.0, 0.3)
    )
    gate_noise: float = setting(1.0, "Noise on these gates in training.", low=0, high=100, search=Between(0.0, 3.0))
    string_noise: float = setting(
        2.0, "Noise on them that stays for a whole string.", low=0, high=100, search=Between(0.0, 4.0)
    )
    cell_stretch: float = setting(0.0, "How far the LSTMs' own gates reach past 0 and 1.", low=0, high=10)
    shared_controls: bool = setting(False, "Whether encoder and decoder work it alike.")
    push_bias: float = setting(1.5, "The initial bias of the push gate.", low=-100, high=100, search=Between(-3.0, 3.0))
    pop_bias: float = setting(-1.5, "The initial bias of the pop gate.", low=-100, high=100, search=Between(-3.0, 3.0))
    decoder_push_bias: float | None = setting(
        None, "The decoder's initial bias of the push gate; none for the same.", low=-100, high=100
    )
    decoder_pop_bias: float | None = setting(
        None, "The decoder's initial bias of the pop gate; none for the same.", low=-100, high=100
    )

    push_delay: int = setting(0, "For about how many steps the encoder's push gate starts shut.", low=0, high=8)
    forget_bias: float = setting(0.0, "What is added to the forget gates' initial biases.", low=-100, high=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.push_delay and self.shared_controls and self.initialisation == "tuned":
            raise ConfigError(
                f"push_delay is {self.push_delay}, and with shared_controls the encoder has no push gate of its own",
                hint="give --push-delay 0 (push_delay=0), or leave out shared_controls",
            )

    @property
    @override
    def input_width(self) -> int:
        return self.ends * self.stack_width

    @property
    @override
    def stretches_cells(self) -> bool:
        return self.cell_stretch > 0

    @property
    @override
    def penalises_cells(self) -> bool:
        return True

    @property
    def encoder_biases(self) -> tuple[float, ...]:
        """The initial biases of the encoder's gates, 2E of them: push and pop of each end."""
        return self.push_bias, self.pop_bias

    @property
    def decoder_biases(self) -> tuple[float, ...]:
        """The initial biases of the decoder's gates, 2E of them: push and pop of each end."""
        return tuple(
            same if own is None else own for own, same in zip(self._of_decoder, self.encoder_biases, strict=True)
        )

    @property
    def _of_decoder(self) -> tuple[float | None, ...]:
        """The decoder's biases as they are set, in the order of `encoder_biases`; None for those of the encoder."""
        return self.decoder_push_bias, self.decoder_pop_bias

    @override
    def shapes(self) -> Shapes:
        size, read = self.hidden_size, self.input_width
        table: Shapes = {"initial_cell": (self.layers, 1, size)}
        if self.stretches_cells:
            table["cell_stretch"] = (1,)
        for cell in ("encoder", "decoder"):
            table[f"{cell}.symbols"] = (self.vocabulary_size, 4 * size)
            for layer in range(self.layers):
                table[f"{cell}.recurrent.{layer}"] = ((read if layer == 0 else size) + size, 4 * size)
                table[f"{cell}.bias.{layer}"] = (4 * size,)
        for controls in ("controls",) if self.shared_controls else ("controls", "decoder_controls"):
            table[f"{controls}.weight"] = (size, 2 * self.ends + read)
            table[f"{controls}.bias"] = (2 * self.ends + read,)
        return self._shared_shapes() | table

    @override
    def buffers(self) -> Mapping[str, tuple[float, float]]:
        return {"cell_stretch": (0.0, ctypes.c_float(self.cell_stretch).value)} if self.stretches_cells else {}


def open_stream(config: MemoryLSTMConfig, weights: Mapping[str, Any]) -> Stream:
    """A stream of the compiled kernels with these weights; see `kinds.base.OpenStream`."""
    from stackrev.kernels.cpu.stream import Stream

    return Stream(
        weights,
        structure=config.memory,
        hidden=config.hidden_size,
        width=config.stack_width,
        layers=config.layers,
        stretch=config.gate_stretch,
        cell_stretch=memoryview(weights["cell_stretch"]).cast("B").cast("f")[0] if config.stretches_cells else 0.0,
    )
