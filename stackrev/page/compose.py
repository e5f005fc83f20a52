"""From a checkpoint and a text to the page that runs the one on the other."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from stackrev.errors import CheckpointError, ConfigError
from stackrev.kinds import KINDS, kind_of
from stackrev.storage import certificates, checkpoints
from stackrev.tasks import REVERSAL

LARGEST = 96 << 20
"""The most bytes of weights that a page holds: base64 makes a third more of them, and a browser has to read it all."""

_PARTS = ("page.css", "text.js", "network.js", "arithmetic.js", "batch.js", "train.js", "view.js", "training.js")
_PLACE = re.compile(r"/\*PUT ([\w.]+)\*/")


@dataclass(frozen=True)
class Contents:
    """What a page is about.

    Attributes:
        name: What the model is called.
        shape: The sizes of its network, by the names that `network.js` has for them.
        weights: The name and the shape of each parameter, in the order in which `values` holds them.
        values: All parameters as float32, little-endian, one after the other.
        margins: The margins of the certificate that proves the model, by name; None where there is none.
    """

    name: str
    shape: Mapping[str, Any]
    weights: tuple[tuple[str, tuple[int, ...]], ...]
    values: bytes
    margins: Mapping[str, float] | None


def read(folder: Path, name: str) -> Contents:
    """What a page about a checkpoint holds.

    Args:
        folder: The checkpoint.
        name: What to call it.

    Raises:
        CheckpointError: The checkpoint is damaged.
        ConfigError: No page can run the model: it has no stack, has learned another task, has cells with
            stretched gates, or is too large.
    """
    description, weights = checkpoints.read(folder)
    config = description.config
    sizes = kind_of(config.model.kind).page_sizes
    if sizes is None:
        shown = " or ".join(kind for kind, each in KINDS.items() if each.page_sizes is not None)
        hint = f"name a {shown}; stackrev apply --trace shows a queue or a deque at work"
        raise ConfigError(f"{name} has no stack to show", hint=hint)
    if config.data.task != REVERSAL.name:
        raise ConfigError(
            f"{name} has learned {config.data.task}, not {REVERSAL.name}", hint="stackrev evaluate scores it"
        )
    if config.model.stretches_cells:
        raise ConfigError(
            f"{name} has LSTMs whose own gates are stretched, and the page runs others alone",
            hint="stackrev apply --trace shows what it does",
        )
    values = b"".join(bytes(each.data) for each in weights.values())
    if len(values) > LARGEST:
        raise ConfigError(f"{name} has {len(values):,} bytes of weights, too many for a page")
    return Contents(
        name=name,
        shape=sizes(config.model),
        weights=tuple((each, tensor.shape) for each, tensor in weights.items()),
        values=values,
        margins=_margins(folder, description.checksums[checkpoints.WEIGHTS]),
    )


def _margins(folder: Path, weights: str) -> Mapping[str, float] | None:
    """The margins of the certificate beside the weights, checked; None if there is none that proves them."""
    if certificates.about(folder, weights) is None:
        return None
    from stackrev.models.certification import check_stored

    try:
        proof = check_stored(folder)
    except CheckpointError:
        return None
    return None if proof is None or proof.conditions is None else proof.conditions.margins


def compose(contents: Contents, text: str) -> str:
    """The page, opened on a text.

    Args:
        contents: The model that it runs.
        text: Any text, without markers. It is for the browser to say so if the text has too many characters.

    Returns:
        HTML that needs nothing but itself.
    """
    data = {
        "name": contents.name,
        "shape": contents.shape,
        "weights": contents.weights,
        "values": base64.b64encode(contents.values).decode("ascii"),
        "margins": contents.margins,
        "text": text,
    }
    room = resources.files("stackrev.page")
    parts = {name: room.joinpath(name).read_text(encoding="utf-8") for name in _PARTS}
    parts["data"] = _script_json(data)
    template = room.joinpath("page.html").read_text(encoding="utf-8")
    return _PLACE.sub(lambda found: parts[found[1]], template)


def _script_json(value: object) -> str:
    """JSON that is safe inside of `<script>`: ASCII, in which nothing begins a tag or a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
