"""Small models of every kind, for tests that do not care which."""

from __future__ import annotations

from typing import Any

from stackrev.config import settings
from stackrev.kinds import KINDS
from stackrev.kinds.base import ModelConfig


def shape_of(kind: str, *, stack_width: int, **more: Any) -> ModelConfig:
    """The configuration of a kind: `stack_width` is also an embedding's, and settings that it lacks are left out."""
    cls = KINDS[kind].configuration
    given = {"stack_width": stack_width, "embedding_width": stack_width, **more}
    return cls(**{name: value for name, value in given.items() if name in settings(cls)})
