"""How far a model with a stack, a queue or a deque is from deciding otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stackrev.evaluation.capabilities import HasMargins
from stackrev.tasks.batches import Batch


@dataclass(frozen=True)
class Margins:
    """How far a model is from other decisions, at the steps where it comes nearest.

    A stretched gate is 0 or 1 to the last bit where its pre-activation is at least log((1 + e) / e) away from 0. The
    margins of the gates are by how much it is further away: negative if a gate has been between 0 and 1, and infinitely
    so if gates are not stretched. The last step of a string, or that of the first error, is left out: what its gates do
    is not read any more.

    Attributes:
        encoder_push: Of the encoder's push gate; of a deque, of the one of both that comes nearer.
        encoder_pop: Of its pop gate, likewise.
        decoder_push: Of the decoder's push gate.
        decoder_pop: Of its pop gate.
        logits: By how much the right symbol's logit exceeds every other, before the first error.
    """

    encoder_push: float
    encoder_pop: float
    decoder_push: float
    decoder_pop: float
    logits: float


def margins_of(model: HasMargins, batch: Batch, correct: Sequence[int]) -> Margins:
    """The margins of a batch whose rows are right up to `correct`, in plain torch.

    Args:
        model: In evaluation mode.
        batch: B strings, on the model's device.
        correct: Of each row of `batch.target`, how many symbols of the target are right before the first error.
    """
    found = model.gates(batch)
    device = found.hidden.device
    right = torch.tensor(correct, device=device)
    steps, target_steps = batch.steps.to(device), batch.target_steps.to(device)
    encoding = torch.arange(found.encoder.shape[0], device=device)[:, None]
    decoding = torch.arange(found.decoder.shape[0], device=device)[:, None]
    taken = encoding < steps, decoding < right.clamp(max=target_steps - 1)
    gates: list[float] = []
    for inputs, inside in zip((found.encoder, found.decoder), taken, strict=True):
        nearest = inputs.new_full((2,), math.inf)
        if bool(inside.any()):  # of gates at two ends, the nearer counts
            nearest = inputs.abs()[inside].view(-1, 2).amin(0)
        gates += (nearest - model.saturation).tolist()
    best = model.read_out(found.hidden).topk(2, -1).values
    gaps = (best[..., 0] - best[..., 1])[decoding < right]
    encoder_push, encoder_pop, decoder_push, decoder_pop = gates
    logits = float(gaps.min()) if gaps.numel() else math.inf
    return Margins(encoder_push, encoder_pop, decoder_push, decoder_pop, logits)
