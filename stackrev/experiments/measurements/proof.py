"""Whether a run is proved to answer every string of every length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackrev.errors import ConfigError
from stackrev.experiments.measurements.base import Measurement, OnProgress

if TYPE_CHECKING:
    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task


def _check_true(raw: Any) -> bool:
    if raw is not True:
        raise ConfigError("whether to prove is either said to be true or not at all")
    return True


def _prove(model: Reverser[Any], task: Task, asked: bool, on_progress: OnProgress) -> dict[str, Any]:
    """Whether the model reverses every string of every length, by docs/proof.md.

    Returns:
        `proved`, and the least margins of the proof by name: how far gates are past 0 and 1, and logits apart.
    """
    from stackrev.models.certification import prove_model

    proof = prove_model(model) if task.certifiable else None
    if proof is None or not proof.proved or proof.conditions is None:
        return {"proved": False}
    names = ("encoder_push", "encoder_pop", "decoder_push", "decoder_pop", "logits")
    return {"proved": True, "margins": {name: round(proof.conditions.margins[name], 3) for name in names}}


def _valid_proof(found: Any) -> bool:
    return found is None or (isinstance(found, dict) and type(found.get("proved")) is bool)


def _tell_proof(found: Any) -> list[str]:
    return [] if found is None else ["proved" if found["proved"] else "not proved"]


def _summarise_proofs(found: Mapping[int, Any], runs: int) -> dict[str, Any]:
    had = {seed: each for seed, each in found.items() if each is not None}
    missing = [seed for seed, each in had.items() if not each["proved"]]
    return {"runs": len(had) - len(missing), "of": runs, "not_proved_seeds": missing}


PROOF = Measurement(
    help="Try to prove each solved run at every length.",
    parse=lambda text: True,
    check=_check_true,
    symbols=lambda asked: 0,
    measure=_prove,
    nothing=None,
    valid=_valid_proof,
    tell=_tell_proof,
    summarise=_summarise_proofs,
)
