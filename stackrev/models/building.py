"""From a configuration to a model, by the table of kinds. Imports torch only when a model is built."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stackrev.kinds import kind_of

if TYPE_CHECKING:
    import torch

    from stackrev.kinds.base import ModelConfig
    from stackrev.models.base import Reverser


def build(config: ModelConfig, generator: torch.Generator | None = None) -> Reverser[Any]:
    """The model that a configuration describes.

    Args:
        config: Its shape and initialisation.
        generator: Where the initial weights come from; torch's global generator if None.

    Raises:
        ConfigError: There is no such kind of model.
    """
    module, _, name = kind_of(config.kind).module.partition(":")
    cls = getattr(importlib.import_module(module), name)
    from stackrev.kernels.defaults import torch_defaults

    with torch_defaults():
        model: Reverser[Any] = cls(config, generator)
    return model
