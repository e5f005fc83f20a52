"""Proofs of checkpoints: from a folder to its network, its proof, and the certificate in it. Needs no torch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stackrev import kernels
from stackrev.errors import CheckpointError
from stackrev.evaluation.certificate.counterexample import Counterexample, Margin, Search
from stackrev.evaluation.certificate.intervals import FLOAT32, Rounding
from stackrev.evaluation.certificate.network import Network
from stackrev.evaluation.certificate.proof import Boxes, Proof, check_boxes, coarsest, prove
from stackrev.kinds import kind_of
from stackrev.kinds.base import ModelConfig
from stackrev.models.loading import open_decoder
from stackrev.storage import checkpoints
from stackrev.storage.certificates import Certificate, read_certificate, write_certificate
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.tasks.data import task_of

if TYPE_CHECKING:
    from stackrev.models.base import Reverser

_COARSER = 2.0**-18
OPERANDS = {"TF32": 2.0**-11, "bfloat16": 2.0**-8}
"""Formats that hardware rounds the operands of matrix products to, and their unit roundoffs."""


@dataclass(frozen=True)
class Certification:
    """What came of an attempt to prove a checkpoint.

    Attributes:
        folder: The checkpoint.
        weights: The SHA-256 of its weights, in hexadecimal.
        proof: The proof for float32; None if the model is of a kind that this proof is not about.
        strongest: The proof for the coarsest arithmetic that there is one for; None if there is none.
        operands: For which formats of the operands of matrix products it is proved too.
        counterexample: A string that the model gets wrong, if one was found.
        seconds: How long proving took, without the search for a counterexample.
    """

    folder: Path
    weights: str
    proof: Proof | None
    strongest: Proof | None
    operands: tuple[str, ...]
    counterexample: Counterexample | None
    seconds: float

    @property
    def proved(self) -> bool:
        """Whether the model reverses every string."""
        return self.proof is not None and self.proof.proved


def open_network(folder: Path) -> Network | None:
    """The network of a checkpoint; None if no proof is about such a model.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours.
    """
    config, weights = checkpoints.read_weights(folder)
    arrays = {name: np.frombuffer(raw.data, dtype="<f4").reshape(raw.shape) for name, raw in weights.items()}
    return network_of(config.model, arrays)


def network_of(config: ModelConfig, weights: Mapping[str, npt.NDArray[np.float32]]) -> Network | None:
    """The network that a model's weights describe; None if no proof is about such a model.

    Args:
        config: The model's configuration.
        weights: Every parameter by its name, with its shape.
    """
    place = kind_of(config.kind).network
    if place is None or config.stretches_cells:
        return None
    module, _, name = place.partition(":")
    network: Network = getattr(importlib.import_module(module), name)(config, weights)
    return network


def prove_quickly(network: Network) -> Proof:
    """A proof for float32 by boxes that hold for a somewhat coarser arithmetic too, where there are such.

    Its margins are a little smaller than those of `prove`, and it does not say how much is missing where it fails.
    """
    for unit in (_COARSER, FLOAT32):
        proof = prove(network, Rounding(unit=unit), thorough=False)
        if proof.proved and proof.boxes is not None:
            return replace(check_boxes(network, proof.boxes), unit=unit)
    return replace(proof, unit=FLOAT32)


def prove_model(model: Reverser[Any]) -> Proof | None:
    """What `prove_quickly` says of a model as it stands; None if no proof is about such a model."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    network = network_of(model.config, arrays)
    return None if network is None else prove_quickly(network)


def certify_run(folder: Path) -> Proof | None:
    """Prove the checkpoint of a run that has ended, and keep the certificate beside its weights.

    Returns:
        The proof; None if no proof is about such a model.

    Raises:
        CheckpointError: The checkpoint is damaged, or the certificate cannot be written.
    """
    network = open_network(folder)
    if network is None:
        return None
    proof = prove_quickly(network)
    if proof.proved and proof.boxes is not None:
        weights = checkpoints.describe(folder).checksums[checkpoints.WEIGHTS]
        write_certificate(folder, Certificate(weights, proof.unit, proof.boxes.arrays()))
    return proof


def certify(folder: Path, *, on_stage: Callable[[str], object] = lambda _: None) -> Certification:
    """Prove that a checkpoint's model reverses every string, or look for one that it does not.

    Args:
        folder: A checkpoint.
        on_stage: Told what is done now.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours, or it has learned another task.
    """
    description = checkpoints.describe(folder)
    if not task_of(description.config.data).certifiable:
        learned = description.config.data.task
        raise CheckpointError(f"{folder} has learned {learned}, and the proof is about {REVERSAL.name}")
    weights = description.checksums[checkpoints.WEIGHTS]
    network = open_network(folder)
    start = time.perf_counter()
    on_stage("looking for boxes that hold every state")
    proof = None if network is None else prove(network)
    strongest, operands = None, []
    if network is not None and proof is not None and proof.proved:
        on_stage("looking for the coarsest arithmetic that it holds for")
        strongest = coarsest(network, proof)
        for name, unit in OPERANDS.items():
            if prove(network, replace(proof.rounding, operands=unit), thorough=False).proved:
                operands.append(name)
    seconds = time.perf_counter() - start
    counterexample = None
    if proof is None or not proof.proved:
        counterexample = find_counterexample(folder, proof, on_stage=on_stage)
    return Certification(folder, weights, proof, strongest, tuple(operands), counterexample, seconds)


def find_counterexample(
    folder: Path, proof: Proof | None, *, on_stage: Callable[[str], object] = lambda _: None
) -> Counterexample | None:
    """A string that a checkpoint's model gets wrong, if one is found.

    Args:
        folder: A checkpoint.
        proof: A proof of it that failed; the search begins where that has the least to spare.
        on_stage: Told what is tried now.
    """
    search = Search(
        open_decoder(folder),
        range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE),
        vocabulary.END,
        lambda string: string[::-1],
    )
    place = proof.conditions.places["logits"] if proof is not None and proof.conditions is not None else ()
    return search.run(
        worst=(place[0], place[1]) if len(place) == 2 else None,
        margin=_margin(folder),
        on_stage=lambda stage: on_stage(f"trying {stage}"),
    )


def _margin(folder: Path) -> Margin | None:
    """How near the model comes to an error on a string, where the compiled kernels can tell."""
    config, weights = checkpoints.read_weights(folder)
    open_stream = kind_of(config.model.kind).open_stream
    if open_stream is None or not kernels.available():
        return None
    stream = open_stream(config.model, {name: raw.data for name, raw in weights.items()})

    def margin(string: list[int]) -> float:
        stream.reset()
        stream.encode([vocabulary.START, *string])
        found = stream.score(vocabulary.SEPARATOR, vocabulary.target_ids(string))
        return found.margin if found.right == len(string) + 1 else -1.0

    return margin


def store(certification: Certification) -> None:
    """Write the certificate of a proof beside the weights that it is about.

    Raises:
        CheckpointError: There is no proof, or it cannot be written.
    """
    strongest = certification.strongest or certification.proof
    if not certification.proved or strongest is None or strongest.boxes is None:
        raise CheckpointError(f"{certification.folder} is not proved, so there is no certificate to write")
    boxes = strongest.boxes.arrays()
    write_certificate(certification.folder, Certificate(certification.weights, strongest.unit, boxes))


def check_stored(folder: Path) -> Proof | None:
    """Check the certificate in a checkpoint's folder, whoever made it.

    Returns:
        The proof that it amounts to, for float32; None if there is none.

    Raises:
        CheckpointError: The certificate is damaged, about other weights, or does not prove anything.
    """
    certificate = read_certificate(folder)
    if certificate is None:
        return None
    again = "make one with `stackrev certify --write`, or remove it"
    if certificate.weights != checkpoints.describe(folder).checksums[checkpoints.WEIGHTS]:
        raise CheckpointError(f"the certificate in {folder} is about other weights", hint=again)
    network = open_network(folder)
    if network is None or not task_of(checkpoints.describe(folder).config.data).certifiable:
        raise CheckpointError(f"{folder} holds a certificate, and a model that none can be about", hint=again)
    try:
        boxes = Boxes.from_arrays(certificate.boxes, network)
    except ValueError as error:
        raise CheckpointError(f"the certificate in {folder} is damaged: {error}", hint=again) from error
    proof = check_boxes(network, boxes, Rounding())
    if not proof.proved:
        raise CheckpointError(f"the certificate in {folder} proves nothing: its conditions do not hold", hint=again)
    return proof
