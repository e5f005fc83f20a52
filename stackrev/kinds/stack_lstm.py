"""The LSTM with a neural stack: its configuration, its parameters' shapes, how it is trained and run without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from stackrev.config import Between, TrainingConfig, setting
from stackrev.kinds.base import WIDTHS, Kind, ModelConfig, Shapes

if TYPE_CHECKING:
    from stackrev.kernels.cpu.stream import Stream


@dataclass(frozen=True, kw_only=True)
class StackLSTMConfig(ModelConfig):
    """An LSTM encoder and an LSTM decoder that hand over a neural stack.

    `stack_width` is M, the width of the values on the stack. `gate_stretch` is e of
    `clamp((1 + 2e) sigmoid(x) - e, 0, 1)` (0 is the paper's sigmoid); `gate_noise` is the standard deviation of the
    noise added to the gates' pre-activations in training; `shared_controls` makes encoder and decoder work the stack
    through the same projections, as if they were one network: then an encoder that learns to push teaches the decoder
    to, which reads only what it has just pushed, and about one run in ten never learns.

    `string_noise` is the standard deviation of noise on the gates in training that stays the same for all steps of a
    string, drawn apart for encoder and decoder. It makes every batch try different ways of working the stack: a decoder
    that pushes little and pops much, for some strings, long before the average decoder does, and is rewarded for it.
    """

    kind: Literal["stack-lstm"] = setting("stack-lstm", "The kind of model to train.", option=False)
    stack_width: int = setting(64, "Width of the values on the stack.", low=1, high=4096, search=WIDTHS)
    gate_stretch: float = setting(
        0.05, "How far push and pop gates reach past 0 and 1.", low=0, high=10, search=Between(0.0, 0.3)
    )
    gate_noise: float = setting(1.0, "Noise on these gates in training.", low=0, high=100, search=Between(0.0, 3.0))
    string_noise: float = setting(
        2.0, "Noise on them that stays for a whole string.", low=0, high=100, search=Between(0.0, 4.0)
    )
    shared_controls: bool = setting(False, "Whether encoder and decoder work the stack alike.")
    push_bias: float = setting(1.5, "The initial bias of the push gate.", low=-100, high=100, search=Between(-3.0, 3.0))
    pop_bias: float = setting(-1.5, "The initial bias of the pop gate.", low=-100, high=100, search=Between(-3.0, 3.0))

    @property
    @override
    def input_width(self) -> int:
        return self.stack_width

    @override
    def shapes(self) -> Shapes:
        size, width = self.hidden_size, self.stack_width
        table: Shapes = {"initial_cell": (self.layers, 1, size)}
        for cell in ("encoder", "decoder"):
            table[f"{cell}.symbols"] = (self.vocabulary_size, 4 * size)
            for layer in range(self.layers):
                table[f"{cell}.recurrent.{layer}"] = ((width if layer == 0 else size) + size, 4 * size)
                table[f"{cell}.bias.{layer}"] = (4 * size,)
        for controls in ("controls",) if self.shared_controls else ("controls", "decoder_controls"):
            table[f"{controls}.weight"] = (size, 2 + width)
            table[f"{controls}.bias"] = (2 + width,)
        return self._shared_shapes() | table


def open_stream(config: StackLSTMConfig, weights: Mapping[str, Any]) -> Stream:
    """A stream of the compiled kernels with these weights; see `kinds.base.OpenStream`."""
    from stackrev.kernels.cpu.stream import Stream

    return Stream(
        weights,
        hidden=config.hidden_size,
        width=config.stack_width,
        layers=config.layers,
        stretch=config.gate_stretch,
    )


def page_sizes(config: StackLSTMConfig) -> dict[str, float]:
    """The sizes that `page/network.js` knows: its H, M, K and V, and e of the gates."""
    return {
        "hidden": config.hidden_size,
        "width": config.stack_width,
        "layers": config.layers,
        "vocabulary": config.vocabulary_size,
        "stretch": config.gate_stretch,
    }


STACK_LSTM = Kind(
    model=StackLSTMConfig(),
    training=TrainingConfig(settle="certified"),
    module="stackrev.models.stack_lstm:StackLSTMReverser",
    label="stack-LSTM",
    colour=0,
    summary="An LSTM with a differentiable neural stack (Grefenstette et al. 2015, arXiv 1506.02516).",
    open_stream=open_stream,
    network="stackrev.evaluation.certificate.network:read_stack_lstm",
    page_sizes=page_sizes,
)
