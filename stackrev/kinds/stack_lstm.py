"""The LSTM with a neural stack: its configuration, how it is trained and run without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackrev.config import setting
from stackrev.kinds.base import Kind
from stackrev.kinds.memory_lstm import MemoryLSTMConfig, open_stream
from stackrev.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class StackLSTMConfig(MemoryLSTMConfig):
    """An LSTM encoder and an LSTM decoder that hand over a neural stack."""

    kind: Literal["stack-lstm"] = setting("stack-lstm", "The kind of model to train.", option=False)


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
