"""How the gates of a memory start: shut for some steps, and forgetting less."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stackrev.errors import ConfigError
from stackrev.kinds.deque_lstm import DequeLSTMConfig
from stackrev.kinds.memory_lstm import MemoryLSTMConfig
from stackrev.kinds.queue_lstm import QueueLSTMConfig
from stackrev.models import build
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.tasks.batches import make_batch

SHAPE = {"hidden_size": 16, "stack_width": 8}
CONFIGS = [QueueLSTMConfig(**SHAPE), DequeLSTMConfig(**SHAPE), QueueLSTMConfig(**SHAPE, layers=2)]


def built(config: MemoryLSTMConfig) -> MemoryLSTMReverser[torch.Tensor]:
    model = build(config, torch.Generator().manual_seed(5))
    assert isinstance(model, MemoryLSTMReverser)
    return model


@pytest.mark.parametrize("config", CONFIGS, ids=["queue", "deque", "two layers"])
@pytest.mark.parametrize("delay", [1, 2, 4])
def test_the_push_gate_starts_shut_for_some_steps(config: MemoryLSTMConfig, delay: int) -> None:
    model = built(dataclasses.replace(config, push_delay=delay, push_bias=1.5))
    strings = [torch.randint(3, 128, (12,), generator=torch.Generator().manual_seed(seed)) for seed in range(20)]
    with torch.no_grad():
        pushes = model.gates(make_batch(strings)).encoder[:, :, 0]
    assert torch.allclose(pushes, pushes[:, :1].expand_as(pushes))  # it is a clock: whatever the string is
    ramp = pushes[:, 0]
    assert bool((ramp.diff() > 0).all())
    assert bool((ramp[:delay] < -model.saturation).all())  # such a gate is exactly 0
    assert float(ramp[delay]) > -1
    assert float(ramp[delay + 1]) > 0.9
    assert float(ramp[-1]) == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("config", CONFIGS, ids=["queue", "deque", "two layers"])
def test_a_clock_changes_only_what_it_needs(config: MemoryLSTMConfig) -> None:
    plain, clocked = built(config).state_dict(), built(dataclasses.replace(config, push_delay=2)).state_dict()
    last, gates = config.layers - 1, [gate * config.hidden_size for gate in range(4)]
    may = {f"encoder.recurrent.{last}": gates, f"encoder.bias.{last}": gates, "controls.weight": [0]}
    may |= {"encoder.symbols": gates} if config.layers == 1 else {}
    for name, before in plain.items():
        after = clocked[name]
        if name == "initial_cell":
            assert after[-1, 0, 0] == -4
            assert int((after != before).sum()) == 1
        else:
            changed = (after != before).reshape(-1, after.shape[-1]).any(0).nonzero().flatten().tolist()
            assert set(changed) <= set(may.get(name, ())), name


@pytest.mark.parametrize("config", CONFIGS, ids=["queue", "deque", "two layers"])
def test_a_forget_bias_is_added_to_every_forget_gate(config: MemoryLSTMConfig) -> None:
    plain, other = built(config).state_dict(), built(dataclasses.replace(config, forget_bias=1.25)).state_dict()
    size = config.hidden_size
    for name, before in plain.items():
        expected = before.clone()
        if ".bias." in name:
            expected[size : 2 * size] += 1.25
        assert torch.equal(other[name], expected), name


def test_a_delay_needs_controls_of_the_encoders_own() -> None:
    with pytest.raises(ConfigError, match="push_delay"):
        QueueLSTMConfig(push_delay=1, shared_controls=True)
