"""What follows a model's recurrence, up to the loss or to what it gets right, as functions of hidden states.

    o_t = tanh(W_o h_t + b_o),   logits_t = W_l o_t + b_l    (paper section 3.4: o_t is the controller's output)

Hidden states are [T, B, H], of rows that take different numbers of steps: longest first, so that the rows still running
are always the first so many. Only steps that are taken count. On the CPU the compiled kernels go from hidden states to
the loss and its gradients, or to a comparison, without ever holding all logits, and without autocast or a second
derivative; plain torch does the same with all logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from stackrev.kernels import dispatch
from stackrev.structures.recurrence import check_lengths

_NO_SYMBOL = torch.iinfo(torch.int64).min  # an id that no target has, so that every step counts in the loss


class ReadOutWeights(NamedTuple):
    """The two layers.

    Attributes:
        output: W_o, [H, H].
        output_bias: b_o, [H].
        logits: W_l, [V, H].
        logits_bias: b_l, [V].
    """

    output: Tensor
    output_bias: Tensor
    logits: Tensor
    logits_bias: Tensor


def read_out(hidden: Tensor, weights: ReadOutWeights) -> Tensor:
    """Logits [..., V] of hidden states [..., H]."""
    output = torch.tanh(linear(hidden, weights.output, weights.output_bias))
    return linear(output, weights.logits, weights.logits_bias)


def read_out_loss(
    hidden: Tensor, targets: Tensor, steps: Tensor, weights: ReadOutWeights, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of the steps that are taken, in nats a symbol.

    Args:
        hidden: [T, B, H].
        targets: [T, B], the right symbols' ids.
        steps: [B], how many steps each row takes, longest first; on the CPU.
        weights: The two layers.
        temperature: What the logits are divided by.

    Returns:
        The loss at that temperature, and the loss at 1, without a derivative.

    Raises:
        ValueError: Shapes do not belong together, or the steps do not fall.
        IndexError: A target is not one of the V symbols.
    """
    _check(hidden, targets, steps, weights)
    kernels = dispatch.kernels_for((hidden, *weights), indices=(targets, steps), watched=False)
    if kernels is not None:
        losses: tuple[Tensor, Tensor] = kernels.read_out_loss((hidden, *weights), targets, steps, temperature)
        return losses
    logits, right = read_out(pack(hidden, steps), weights), pack(targets, steps).long()

    def loss_of(scaled: Tensor) -> Tensor:
        return cross_entropy(scaled, right, ignore_index=_NO_SYMBOL)

    loss = loss_of(logits / temperature if temperature != 1 else logits)
    return loss, loss_of(logits.detach()) if temperature != 1 else loss.detach()


def read_out_right(hidden: Tensor, targets: Tensor, steps: Tensor, weights: ReadOutWeights) -> Tensor:
    """Whether the greatest logit is the right symbol's, [T, B], on the CPU.

    False where no step is taken, and where a logit is NaN. Arguments and errors as of `read_out_loss`.
    """
    _check(hidden, targets, steps, weights)
    kernels = dispatch.kernels_for((hidden, *weights), indices=(targets, steps), watched=False)
    if kernels is not None:
        found: Tensor = kernels.read_out_right((hidden, *weights), targets, steps)
        return found
    table = torch.zeros(targets.shape, dtype=torch.bool, device="cpu")
    logits = read_out(pack(hidden, steps), weights)
    right = (logits.argmax(-1) == pack(targets, steps)) & ~logits.isnan().any(-1)
    table[torch.arange(targets.shape[0])[:, None] < steps] = right.cpu()
    return table


def _check(hidden: Tensor, targets: Tensor, steps: Tensor, weights: ReadOutWeights) -> None:
    if hidden.dim() != 3 or weights.logits.dim() != 2:
        raise ValueError(f"hidden and logits have {hidden.dim()} and {weights.logits.dim()} dimensions, not 3 and 2")
    (_, batch, size), symbols = hidden.shape, weights.logits.shape[0]
    expected = {
        "targets": (targets, hidden.shape[:2]),
        "steps": (steps, (batch,)),
        "output": (weights.output, (size, size)),
        "output bias": (weights.output_bias, (size,)),
        "logits": (weights.logits, (symbols, size)),
        "logits bias": (weights.logits_bias, (symbols,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != torch.Size(shape):
            raise ValueError(f"{name} has the shape {list(tensor.shape)}, not {list(shape)}")
    check_lengths(steps, hidden.shape[0])


def pack(steps_first: Tensor, steps: Tensor) -> Tensor:
    """The running rows [sum of steps, ...] of a padded batch [T, B, ...], step by step."""
    flat = steps_first.flatten(0, 1)
    if bool((steps == steps_first.shape[0]).all()):
        return flat
    running = torch.arange(steps_first.shape[0])[:, None] < steps
    return flat.index_select(0, running.flatten().nonzero()[:, 0].to(flat.device))
