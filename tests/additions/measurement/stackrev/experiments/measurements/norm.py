"""How large a run's weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackrev.errors import ConfigError
from stackrev.experiments.measurements.base import Measurement, OnProgress

if TYPE_CHECKING:
    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task


def _check(raw: Any) -> bool:
    if raw is not True:
        raise ConfigError("the norm is either asked for or not")
    return True


def _measure(model: Reverser[Any], task: Task, asked: bool, on_progress: OnProgress) -> dict[str, Any]:
    """The norm of all weights together."""
    return {"norm": sum(float(weights.detach().norm()) ** 2 for weights in model.parameters()) ** 0.5}


NORM = Measurement(
    help="Measure the norm of each solved run's weights.",
    parse=lambda text: True,
    check=_check,
    symbols=lambda asked: 0,
    measure=_measure,
    nothing=None,
    valid=lambda found: found is None or isinstance(found, dict),
    tell=lambda found: [] if found is None else [f"norm {found['norm']:.2f}"],
    summarise=lambda found, runs: {"runs": len(found), "of": runs},
)
