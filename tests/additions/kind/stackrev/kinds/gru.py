"""The GRU: its configuration, the shapes of its parameters, and how it is trained by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from stackrev.config import setting
from stackrev.kinds.base import BaselineConfig, Kind, Shapes
from stackrev.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class GRUConfig(BaselineConfig):
    """An encoder and a decoder that are GRUs."""

    kind: Literal["gru"] = setting("gru", "The kind of model to train.", option=False)

    @override
    def shapes(self) -> Shapes:
        return self._network_shapes(3 * self.hidden_size) | self._shared_shapes()


GRU = Kind(
    model=GRUConfig(hidden_size=256),
    training=TrainingConfig(batches=12_000, recurrent_l1=0.0),
    module="stackrev.models.gru:GRUReverser",
    label="GRU",
    colour=5,
    summary="A GRU, as a baseline.",
)
