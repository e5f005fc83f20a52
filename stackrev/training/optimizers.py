"""Torch's update rules, Adam, AdamW, RMSprop and SGD, without `torch.optim.Optimizer`; and a soft threshold.

Its constructor imports torch's compiler, which takes longer than half of a training run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from stackrev.training_config import TrainingConfig

_STATE = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "rmsprop": ("step", "square_avg", "momentum_buffer"),
    "sgd": ("momentum_buffer",),
}


class Optimizer:
    """The optimizer that a configuration names, over all parameters of a model.

    Args:
        training: Which, its learning rate, weight decay and momentum.
        model: Whose parameters.

    Attributes:
        rate: The learning rate of the next step.
    """

    def __init__(self, training: TrainingConfig, model: nn.Module) -> None:
        self.rate = training.learning_rate
        self._training = training
        self._parameters = dict(model.named_parameters())
        self._state = {
            name: {
                key: torch.zeros(() if key == "step" else parameter.shape, device=parameter.device)
                for key in _STATE[training.optimizer]
            }
            for name, parameter in self._parameters.items()
        }

    @property
    def rescales(self) -> bool:
        """Whether it divides a gradient by its usual size, so that large ones do not make large steps."""
        return self._training.optimizer != "sgd"

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that it moves."""
        return list(self._parameters.values())

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        moved = {name: parameter for name, parameter in self._parameters.items() if parameter.grad is not None}
        parameters: list[Tensor] = list(moved.values())
        grads = [parameter.grad for parameter in moved.values() if parameter.grad is not None]
        rate, momentum, decay = self.rate, self._training.momentum, self._training.weight_decay

        def state(key: str) -> list[Tensor]:
            return [self._state[name][key] for name in moved]

        match self._training.optimizer:
            case "adam" | "adamw":
                adam(
                    *(parameters, grads, state("exp_avg"), state("exp_avg_sq"), [], state("step")),
                    fused=True,
                    decoupled_weight_decay=self._training.optimizer == "adamw",
                    amsgrad=False,
                    beta1=0.9,
                    beta2=0.999,
                    lr=rate,
                    weight_decay=decay,
                    eps=1e-8,
                    maximize=False,
                )
            case "rmsprop":
                rmsprop(
                    *(parameters, grads, state("square_avg"), [], state("momentum_buffer"), state("step")),
                    lr=rate,
                    alpha=0.99,
                    eps=1e-8,
                    weight_decay=decay,
                    momentum=momentum,
                    centered=False,
                )
            case "sgd":
                buffers: list[Tensor | None] = [*state("momentum_buffer")]
                sgd(
                    *(parameters, grads, buffers),
                    weight_decay=decay,
                    momentum=momentum,
                    lr=rate,
                    dampening=0.0,
                    nesterov=False,
                    maximize=False,
                )

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs, as copies, by `{key}.{parameter}`."""
        return {f"{key}.{name}": each.clone() for name, state in self._state.items() for key, each in state.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises:
            ValueError: Something is missing or is not of this optimizer, or has another shape.
        """
        own = {f"{key}.{name}" for name, state in self._state.items() for key in state}
        if wrong := sorted(own ^ tensors.keys()):
            raise ValueError(f"optimizer.{wrong[0]} is {'missing' if wrong[0] in own else 'not of this optimizer'}")
        for name, state in self._state.items():
            for key, each in state.items():
                stored = tensors[f"{key}.{name}"]
                if stored.shape != each.shape:
                    raise ValueError(f"optimizer.{key}.{name} has the shape {[*stored.shape]}, not {[*each.shape]}")
                each.copy_(stored)


@torch.no_grad()
def soft_threshold(parameters: Iterable[Tensor], threshold: float) -> None:
    """Move every number towards 0 by `threshold`, and not past it: the proximal step of an L1 penalty.

    As a term of the loss the penalty would pass through Adam, which divides a gradient by its usual size. Where a model
    is right the loss has hardly a gradient left, so that a penalty of any size would move the weights at the full rate.
    """
    for each in parameters:
        each.copy_(torch.nn.functional.softshrink(each, threshold))


@torch.no_grad()
def grow(parameters: Iterable[Tensor], share: float) -> None:
    """Make every number larger by a share of itself."""
    for each in parameters:
        each.mul_(1 + share)
