"""From what is stored to a model that runs. Imports torch only when a model in torch is asked for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev import kernels
from stackrev.errors import ConfigError
from stackrev.evaluation.decoding import Decoder, NativeDecoder, TorchDecoder
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.models.building import build
from stackrev.storage import checkpoints, tensors
from stackrev.tasks.data import task_of

if TYPE_CHECKING:
    import torch

    from stackrev.models.base import Reverser
    from stackrev.tasks.base import Task


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        name: What it was asked for as.
        folder: Where it lies.
        config: The run that made it.
        scores: Measured results, as in `storage.format.Description`.
        model: In evaluation mode.
    """

    name: str
    folder: Path
    config: Config
    scores: Mapping[str, Any]
    model: Reverser[Any]


def load(
    name_or_folder: str | Path,
    *,
    name: str | None = None,
    device: str | torch.device = "cpu",
    cache_dir: Path | None = None,
    token: str | None = None,
    offline: bool = False,
) -> Checkpoint:
    """Load a model from its file, strictly.

    Args:
        name_or_folder: A folder as a `Path`; or as a string whatever `hub.resolve` knows: a packaged name, a folder, or
            a model of the Hugging Face Hub.
        name: What to call it; the string, or the folder's name, if None.
        device: Where the model goes.
        cache_dir: Where what comes from the Hub is kept.
        token: For the Hub.
        offline: Whether to do without the network.

    Raises:
        CheckpointError: There is no such model, or it is incomplete, damaged or not one of ours.
        HubError: The Hub refused, failed or could not be reached.
    """
    import torch

    from stackrev.kernels.defaults import torch_defaults
    from stackrev.storage import hub

    if isinstance(name_or_folder, Path):
        folder, name = name_or_folder, name or name_or_folder.resolve().name
    else:
        folder = hub.resolve(name_or_folder, cache_dir=cache_dir, token=token, offline=offline)
        name = name or name_or_folder
    description, weights = checkpoints.read(folder)
    config = description.config
    with torch_defaults():
        # Every initial value is about to be replaced: draw the cheapest ones, and none from the global generator.
        model = build(replace(config.model, initialisation="torch"), torch.Generator())
        model.config = config.model
        model.load_state_dict(tensors.from_raw(weights), assign=True)
    return Checkpoint(name, folder, config, description.scores, model.to(device).eval())


def require_task(folder: Path, task: Task, *, name: str) -> None:
    """Make sure that a checkpoint has learned a task.

    Args:
        folder: The checkpoint.
        task: What it is wanted for.
        name: What the model is called in the message.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours.
        ConfigError: It has learned something else.
    """
    if (learned := checkpoints.describe(folder).config.data.task) != task.name:
        raise ConfigError(
            f"{name} has learned {learned}, not {task.name}", hint=f"stackrev apply --model {shlex.quote(name)} uses it"
        )


def open_decoder(folder: Path, *, device: str | torch.device = "cpu", threads: int | None = None) -> Decoder:
    """The quickest decoder for a checkpoint.

    Args:
        folder: The checkpoint.
        device: Where the model runs. The compiled kernels are on the CPU alone.
        threads: How many threads the compiled kernels may use; one for each core if None.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours.
    """
    learned = checkpoints.describe(folder).config
    kind, task = KINDS[learned.model.kind], task_of(learned.data)
    if str(device) == "cpu" and kernels.available() and kind.open_stream is not None:
        config, weights = checkpoints.read_weights(folder)
        stream = kind.open_stream(config.model, {name: each.data for name, each in weights.items()})
        return NativeDecoder(stream, config.model.input_width, task, threads=threads)
    return TorchDecoder(load(folder, device=device).model, task)
