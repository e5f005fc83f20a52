"""Every expected error is one line, and a hint where there is one."""

from __future__ import annotations

import inspect

import pytest

from stackrev import errors
from stackrev.errors import CheckpointError, ModelNotFoundError, StackrevError

ALL = [each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_caught_as_one(kind: type[StackrevError]) -> None:
    assert kind.__doc__
    with pytest.raises(StackrevError, match=r"^what went wrong$") as caught:
        raise kind("what went wrong", hint="what to do")
    assert (caught.value.message, caught.value.hint) == ("what went wrong", "what to do")


def test_a_hint_is_optional() -> None:
    error = StackrevError("what went wrong")
    assert str(error) == "what went wrong"
    assert error.hint is None


def test_a_missing_model_is_a_checkpoint_error() -> None:
    assert issubclass(ModelNotFoundError, CheckpointError)
