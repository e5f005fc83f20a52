"""The compiled read-out for torch: from hidden states to the loss and its gradients, or to what is right.

What it computes is in stackrev/readout.py and readout.h. It is an autograd function alone and no operator: its
gradients exist as soon as the loss does, so that the logits never have to be kept.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stackrev.kernels.cpu.calls import ReadOutCall
from stackrev.kernels.cpu.memory import contiguous
from stackrev.kernels.cpu.operators import call, differentiable_once, pointer


def _read_out(
    inputs: Sequence[Tensor], targets: Tensor, lengths: Tensor, temperature: float, results: Sequence[int | None]
) -> None:
    """Call the kernel on the states and the four weights; it fills the results, pointers in `ReadOutCall`'s order."""
    whole = [*map(contiguous, inputs)]
    lengths, targets = lengths.to(torch.int64).contiguous(), targets.to(torch.int64).contiguous()
    steps, batch, hidden = whole[0].shape
    sizes = steps, batch, hidden, whole[3].shape[0], torch.get_num_threads()
    pointers = *map(pointer, (lengths, targets, *whole)), *results
    call("read_out", whole[0].dtype, ReadOutCall(*sizes, temperature, *pointers))


class _ReadOutLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, targets: Tensor, lengths: Tensor, temperature: float, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses = (ctypes.c_double * 2)()
        gradients = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs]
        _read_out(inputs, targets, lengths, temperature, (None, ctypes.addressof(losses), *map(pointer, gradients)))
        ctx.save_for_backward(*gradients, *inputs)
        loss, at_one = (inputs[0].new_tensor(number) for number in losses)
        ctx.mark_non_differentiable(at_one)
        return loss, at_one

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, g_loss: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors[: len(ctx.saved_tensors) // 2]
        return None, None, None, *(gradient * g_loss for gradient in gradients)


def read_out_loss(
    inputs: Sequence[Tensor], targets: Tensor, lengths: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The losses of stackrev/readout.py, on arguments that belong together.

    Args:
        inputs: The states [T, B, H], the output layer's weight [H, H] and bias [H], the logits' [V, H] and [V].
        targets: [T, B].
        lengths: [B].
        temperature: What the logits are divided by.

    Returns:
        The mean loss at that temperature, and at 1, which has no derivative.

    Raises:
        ValueError: The lengths are not sorted.
        IndexError: A target is not one of the V.
    """
    losses: tuple[Tensor, Tensor] = _ReadOutLoss.apply(targets, lengths, temperature, *inputs)  # type: ignore[no-untyped-call]
    return losses


def read_out_right(inputs: Sequence[Tensor], targets: Tensor, lengths: Tensor) -> Tensor:
    """Whether each step's greatest logit is its target's, [T, B]; arguments and errors as of `read_out_loss`."""
    right = torch.empty(targets.shape, dtype=torch.int8, device="cpu")
    _read_out([tensor.detach() for tensor in inputs], targets, lengths, 1.0, (right.data_ptr(), *(None,) * 6))
    return right.bool()
