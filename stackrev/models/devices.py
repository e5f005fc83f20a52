"""Where a model runs."""

from __future__ import annotations

import torch

from stackrev import kernels
from stackrev.errors import TrainingError
from stackrev.kinds import KINDS


def resolve_device(name: str, kind: str) -> torch.device:
    """The device of a name.

    "auto" is what is likely to be fastest. That is the CPU where the kind of model has compiled kernels and they are
    there: without them a step of the recurrence is some dozens of operations, and on a GPU each takes longer to launch
    than to compute. For other models it is CUDA where there is one.

    Args:
        name: One of `training_config.Device`.
        kind: The kind of the model that is to run there.

    Raises:
        TrainingError: The machine has no such device.
    """
    if name == "auto":
        compiled = KINDS[kind].open_stream is not None and kernels.available()
        return torch.device("cuda" if torch.cuda.is_available() and not compiled else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name, False):
        raise TrainingError(f"this machine has no {name} device", hint="use --device cpu, or auto")
    return torch.device(name)
