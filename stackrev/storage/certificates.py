"""A certificate in a file, `certificate.safetensors`, beside the weights that it is about.

It holds the boxes of docs/proof.md in float64, and in its metadata

    format, version     "stackrev-certificate", "1"
    weights             the SHA-256 of `model.safetensors`
    unit                the unit roundoff that the boxes were found for
    sha256              the SHA-256 of the boxes, so that damage is told from a wrong claim

A certificate is a claim. Whoever reads one checks it before believing it; reading only makes sure that it is whole and
about the weights beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackrev.errors import CheckpointError, MissingFileError
from stackrev.storage import files
from stackrev.storage.format import CERTIFICATE as CERTIFICATE
from stackrev.storage.format import LIMITS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_FORMAT = {"format": "stackrev-certificate", "version": "1"}
_KEYS = {*_FORMAT, "weights", "unit", "sha256"}
_AGAIN = "make it again with `stackrev certify --write`"


@dataclass(frozen=True)
class Certificate:
    """What a certificate says.

    Attributes:
        weights: The SHA-256 of the weights that it is about, in hexadecimal.
        unit: The unit roundoff that its boxes were found for.
        boxes: The ends of the boxes by name, such as `encoder.hidden.lower`, each [K, H].
    """

    weights: str
    unit: float
    boxes: Mapping[str, Array]


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Put a certificate into a checkpoint's folder, in one rename.

    Raises:
        CheckpointError: It cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save

    boxes = {name: np.ascontiguousarray(ends, dtype=np.float64) for name, ends in sorted(certificate.boxes.items())}
    metadata = {
        **_FORMAT,
        "weights": certificate.weights,
        "unit": repr(certificate.unit),
        "sha256": _digest(boxes),
    }
    with files.raising(CheckpointError):
        files.write(Path(folder) / CERTIFICATE, save(boxes, metadata=metadata))


def read_certificate(folder: Path) -> Certificate | None:
    """The certificate in a checkpoint's folder; None if there is none.

    Raises:
        CheckpointError: It is damaged.
    """
    path = Path(folder) / CERTIFICATE
    with files.raising(CheckpointError):
        try:
            data = files.read_bytes(path, LIMITS[CERTIFICATE])
        except MissingFileError:
            return None
    return parse_certificate(data, path)


def about(folder: Path, weights: str) -> Certificate | None:
    """The certificate in a folder, if it is whole and about the weights with this SHA-256; None otherwise."""
    try:
        certificate = read_certificate(folder)
    except CheckpointError:
        return None
    return certificate if certificate is not None and certificate.weights == weights else None


def parse_certificate(data: bytes, path: Path) -> Certificate:
    """The certificate in the bytes of a file.

    Args:
        data: The bytes.
        path: What to call the file in errors.

    Raises:
        CheckpointError: It is damaged.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        boxes = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
        unit = float(metadata.get("unit", "nan"))
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not a safetensors file", hint=_AGAIN) from error
    if set(metadata) != _KEYS or any(metadata[key] != value for key, value in _FORMAT.items()):
        raise CheckpointError(f"{path} is not a certificate that this stackrev reads", hint=_AGAIN)
    if not (math.isfinite(unit) and 0 < unit < 1):
        raise CheckpointError(f"{path} is damaged: its unit roundoff is no number between 0 and 1", hint=_AGAIN)
    if any(ends.dtype != np.float64 or not np.isfinite(ends).all() for ends in boxes.values()):
        raise CheckpointError(f"{path} is damaged: a box has ends that are no finite float64 numbers", hint=_AGAIN)
    if metadata["sha256"] != _digest(boxes):
        raise CheckpointError(f"{path} is damaged: its boxes do not have the checksum in it", hint=_AGAIN)
    return Certificate(metadata["weights"], unit, boxes)


def _digest(boxes: Mapping[str, Array]) -> str:
    """The SHA-256 of names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, ends in sorted(boxes.items()):
        digest.update(f"{name} {list(ends.shape)}\n".encode())
        digest.update(ends.astype("<f8").tobytes())
    return digest.hexdigest()
