"""What happens in a training run, as those hear of it who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stackrev.evaluation.scoring import Scores
from stackrev.training.certified import Closing
from stackrev.training.state import summary


@dataclass(frozen=True)
class BatchEvent:
    """One batch has been learned from.

    Attributes:
        batch: How many batches have been, this one included.
        loss: Its mean cross-entropy, in nats a symbol.
        gradient_norm: The norm of its gradient before clipping.
        closing: How near the run is to a proof, if it settles for one.
    """

    batch: int
    loss: float
    gradient_norm: float
    closing: Closing | None = None


@dataclass(frozen=True)
class CheckEvent:
    """The held-out sets have been scored: a line of the history.

    Attributes:
        batch: After how many batches.
        loss: The mean loss of the batches since the last check, in nats a symbol.
        learning_rate: The rate of the last batch.
        validation: Scores on lengths that are trained on.
        test: Scores on longer strings.
        seconds: Time spent so far, checks included.
        closing: How near the run is to a proof, if it settles for one.
        restarts: Whether the run starts over after this check. It is False at a run's last check.
    """

    batch: int
    loss: float
    learning_rate: float
    validation: Scores
    test: Scores
    seconds: float
    closing: Closing | None = None
    restarts: bool = False

    @property
    def perfect(self) -> bool:
        """Whether every held-out string is reversed exactly."""
        return self.validation.perfect and self.test.perfect

    def to_dict(self) -> dict[str, Any]:
        """The line of the history."""
        closing = {} if self.closing is None else {"closing": self.closing.to_dict()}
        return {
            "batch": self.batch,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "validation": summary(self.validation),
            "test": summary(self.test),
            "seconds": round(self.seconds, 3),
            **closing,
        }


Event = BatchEvent | CheckEvent
OnEvent = Callable[[Event], object]
