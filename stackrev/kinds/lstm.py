"""The LSTM: its configuration, the shapes of its parameters, and how it is trained by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from stackrev.config import setting
from stackrev.kinds.base import BaselineConfig, Kind, Shapes
from stackrev.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(BaselineConfig):
    """An encoder and a decoder that are LSTMs."""

    kind: Literal["lstm"] = setting("lstm", "The kind of model to train.", option=False)

    @override
    def shapes(self) -> Shapes:
        cell = {"initial_cell": (self.layers, 1, self.hidden_size)}
        return self._network_shapes(4 * self.hidden_size) | self._shared_shapes() | cell


LSTM = Kind(
    model=LSTMConfig(hidden_size=256, layers=2),
    training=TrainingConfig(
        batches=12_000,
        curriculum_start=4,
        curriculum_loss=0.3,
        learning_rate=2e-3,
        schedule="cosine",
        recurrent_l1=0.0,
        check_every=200,
        settle_batches=300,
        settle_temperature=1.0,
    ),
    module="stackrev.models.lstm:LSTMReverser",
    label="LSTM",
    colour=1,
    summary="An LSTM, as a baseline for the neural stack of Grefenstette et al. 2015 (arXiv 1506.02516).",
)
