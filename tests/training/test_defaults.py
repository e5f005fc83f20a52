"""What a program has set as torch's defaults changes nothing that is built, loaded, trained or scored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from shapes import shape_of

from stackrev.config import LengthRange
from stackrev.evaluation.decoding import greedy
from stackrev.evaluation.scoring import score
from stackrev.evaluation.traces import trace
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.models import build, load
from stackrev.storage import checkpoints
from stackrev.tasks.data import DataConfig
from stackrev.tasks.strings import sample_strings
from stackrev.training.trainer import train
from stackrev.training_config import TrainingConfig


@contextlib.contextmanager
def default_type() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


DEFAULTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": default_type,
    "meta device": default_device,
    "meta device around": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
}


def tiny(kind: str) -> Config:
    return Config(
        data=DataConfig(
            lengths=LengthRange(minimum=1, maximum=4),
            test_lengths=LengthRange(minimum=5, maximum=6),
            held_out_samples=5,
        ),
        model=shape_of(kind, hidden_size=6, stack_width=5),
        training=TrainingConfig(batches=3, batch_size=4, check_every=2, device="cpu"),
    )


def results(kind: str, folder: Any) -> list[Any]:
    """What comes out of a kind of model: as plain values, which no default can reach any more."""
    config = tiny(kind)
    built = build(config.model, torch.Generator("cpu").manual_seed(0)).state_dict()
    trained = train(config).model.state_dict()
    loaded = load(folder).model
    strings = sample_strings(config.data.lengths, 5, torch.Generator("cpu").manual_seed(1))
    tensors = [*built.values(), *trained.values(), *loaded.state_dict().values()]
    found: list[Any] = [(str(each.dtype), each.device.type, each.tolist()) for each in tensors]
    found += [[each.tolist() for each in strings], greedy(loaded, strings), score(loaded, strings)]
    if KINDS[kind].open_stream is not None:
        found.append(trace(loaded, "abc"))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_change_nothing(kind: str, tmp_path: Any) -> None:
    checkpoints.save(tmp_path, build(tiny(kind).model, torch.Generator().manual_seed(2)).state_dict(), tiny(kind))
    expected = results(kind, tmp_path)
    for name, default in DEFAULTS.items():
        with default():
            assert results(kind, tmp_path) == expected, name
        assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(()).device.type == "cpu"
