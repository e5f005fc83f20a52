"""The Elman network: its configuration, the shapes of its parameters, and how it is trained by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from stackrev.config import setting
from stackrev.kinds.base import BaselineConfig, Kind, Shapes
from stackrev.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RNNConfig(BaselineConfig):
    """An encoder and a decoder of tanh units."""

    kind: Literal["rnn"] = setting("rnn", "The kind of model to train.", option=False)

    @override
    def shapes(self) -> Shapes:
        return self._network_shapes(self.hidden_size) | self._shared_shapes()


RNN = Kind(
    model=RNNConfig(hidden_size=512),
    training=TrainingConfig(
        batches=20_000,
        curriculum_start=None,
        learning_rate=1e-3,
        warmup_batches=200,
        schedule="cosine",
        recurrent_l1=0.0,
        check_every=200,
        settle_batches=300,
        settle_temperature=1.0,
    ),
    module="stackrev.models.rnn:RNNReverser",
    label="RNN",
    colour=2,
    summary="An Elman RNN, as a baseline for the neural stack of Grefenstette et al. 2015 (arXiv 1506.02516).",
)
