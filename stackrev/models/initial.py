"""Initial values of weights, each drawn from a generator that is given."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def blank(module: Module) -> Module:
    """A module from the meta device, with memory but no values: made so that no global generator is drawn from.

    `to_empty` does the same, and imports torch's symbolic shapes for it.
    """
    for each in module.modules():
        for name, parameter in list(each.named_parameters(recurse=False)):
            setattr(each, name, nn.Parameter(torch.empty(parameter.shape)))
    return module


def recurrent(module: nn.RNNBase) -> list[nn.Parameter]:
    """The matrices of torch's recurrent layers that carry state from step to step."""
    return [getattr(module, f"weight_hh_l{layer}") for layer in range(module.num_layers)]


@torch.no_grad()
def initialise_linear(layer: nn.Linear, generator: torch.Generator | None, *, xavier: bool) -> None:
    """Xavier's normal weights and no bias, or torch's own uniform ones."""
    if xavier:
        nn.init.xavier_normal_(layer.weight, generator=generator)
        layer.bias.zero_()
    else:
        bound = 1 / math.sqrt(layer.in_features)
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def initialise_network(network: nn.RNNBase, generator: torch.Generator | None, *, orthogonal: bool) -> None:
    """Torch's own uniform values for its recurrent layers; with `orthogonal`, recurrent matrices are that instead."""
    bound = 1 / math.sqrt(network.hidden_size)
    for parameter in network.parameters():
        parameter.uniform_(-bound, bound, generator=generator)
    if orthogonal:
        for matrix in recurrent(network):
            for gate in torch.split(matrix, network.hidden_size):
                nn.init.orthogonal_(gate, generator=generator)
