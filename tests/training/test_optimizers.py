"""The optimizers are those of `torch.optim`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from stackrev.training.optimizers import Optimizer, soft_threshold
from stackrev.training_config import TrainingConfig

THEIRS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", THEIRS)
def test_they_move_as_torch_does(name: Any, decay: float, momentum: float) -> None:
    if momentum and name.startswith("adam"):
        pytest.skip("Adam has none")
    config = TrainingConfig(optimizer=name, learning_rate=0.01, weight_decay=decay, momentum=momentum)
    ours, theirs = model(), model()
    optimizer = Optimizer(config, ours)
    extra = {"momentum": momentum} if momentum else {}
    reference = THEIRS[name](theirs.parameters(), lr=0.01, weight_decay=decay, **extra)
    for step in range(20):
        optimizer.rate = reference.param_groups[0]["lr"] = 0.01 / (1 + step)
        for each, moved in ((ours, optimizer), (theirs, reference)):
            moved.zero_grad()
            inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            each(inputs).square().sum().backward()
            moved.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_what_has_no_gradient_stays() -> None:
    network = model()
    optimizer = Optimizer(TrainingConfig(), network)
    before = [each.detach().clone() for each in network.parameters()]
    network(torch.ones(1, 3))
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize("name", THEIRS)
def test_a_state_of_other_shapes_is_refused(name: Any) -> None:
    optimizer = Optimizer(TrainingConfig(optimizer=name), model())
    state = optimizer.state()
    optimizer.restore(state)
    key = next(each for each in state if each.endswith("0.weight") and not each.startswith("step"))
    with pytest.raises(ValueError, match="has the shape"):
        optimizer.restore({**state, key: torch.zeros(())})
    with pytest.raises(ValueError, match=r"optimizer\.other is not of this optimizer"):
        optimizer.restore({**state, "other": torch.zeros(())})
    with pytest.raises(ValueError, match=rf"optimizer\.{key} is missing"):
        optimizer.restore({name: each for name, each in state.items() if name != key})


def test_a_soft_threshold() -> None:
    numbers = torch.tensor([-2.0, -0.5, -0.1, 0.0, 0.2, 3.0])
    soft_threshold([numbers], 0.25)
    torch.testing.assert_close(numbers, torch.tensor([-1.75, -0.25, 0.0, 0.0, 0.0, 2.75]))
