"""What a run's settings and its history decide: when it starts over, when it divides its logits, its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stackrev.training_config import TrainingConfig

PROMISING = 0.5
"""A run that has got so much of both held-out sets right does not start over."""


def least_right(line: Mapping[str, Any]) -> float:
    """The coarse accuracy on the set with less of it, by a line of the history."""
    return float(min(line[each]["coarse"] for each in ("validation", "test")))


def last_start(training: TrainingConfig, history: Iterable[Mapping[str, Any]]) -> int:
    """After how many batches the run last started over, by the checks so far; 0 if it never did."""
    start = 0
    if training.restart_batches is None:
        return start
    for line in history:
        if least_right(line) >= PROMISING:
            break
        if line["batch"] - start >= training.restart_batches:
            start = line["batch"]
    return start


def sharpening(training: TrainingConfig, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the loss divides the logits before the run is solved, by the checks so far."""
    if training.sharpen_from >= 1:
        return False
    start = last_start(training, history)
    return any(line["batch"] > start and least_right(line) >= training.sharpen_from for line in history)


def same_with_more(
    training: TrainingConfig, history: Sequence[Mapping[str, Any]], solved: int | None, batch: int
) -> bool:
    """Whether a run that is given more batches is certain to go on as if it had been given them from the start.

    It is not if its rate has fallen by a schedule that depends on their number, nor if an earlier end left a check
    where there would have been none. The check after its last batch would not have been there, or would have been of
    fewer strings. So nothing is certain if that check can decide something: whether the run starts over or divides its
    logits, which weights a solved run would go back to, or how it goes on to settle for a proof.

    Args:
        training: The settings so far.
        history: The checks so far.
        solved: After how many batches the run was solved, if it is.
        batch: How many batches it has had.
    """
    if training.schedule != "constant" or (solved or 0) % training.check_every:
        return False
    ended = batch >= training.batches
    checked = bool(history) and history[-1]["batch"] == batch
    settled = checked and solved is not None  # a run that has settled is checked then, whatever its number of batches
    before = history[:-1] if ended or settled else history
    if any(line["batch"] % training.check_every for line in before):
        return False
    if not ended or solved == batch:
        return True
    may_start_over = training.restart_batches is not None and all(least_right(line) < PROMISING for line in before)
    may_sharpen = training.sharpen_from < 1 and not sharpening(training, before)
    return solved is None and not may_start_over and not may_sharpen


def learning_rate(
    training: TrainingConfig, history: Iterable[Mapping[str, Any]], solved: int | None, batch: int
) -> float:
    """The learning rate of a batch, counted from 0.

    Args:
        training: The settings.
        history: The checks so far.
        solved: After how many batches the run was solved, if it is. From there on the rate falls if it is to.
        batch: Which batch.
    """
    start = last_start(training, (line for line in history if line["batch"] <= batch))
    rate, settle = rate_of(training, batch, start), training.settle_batches
    if solved is None or settle is None or batch < solved:
        return rate
    done = min(1.0, (batch - solved) / max(1, settle))
    return rate * (1 - done * (1 - training.settle_rate))


def rate_of(training: TrainingConfig, batch: int, start: int = 0) -> float:
    """The learning rate of a batch, counted from 0, as the schedule has it for a run that started over at `start`."""
    batch, batches = batch - start, training.batches - start
    if batch < training.warmup_batches:
        return training.learning_rate * (batch + 1) / (training.warmup_batches + 1)
    done = (batch - training.warmup_batches) / max(1, batches - training.warmup_batches)
    match training.schedule:
        case "constant":
            factor = 1.0
        case "linear":
            factor = 1 - done
        case "cosine":
            factor = (1 + math.cos(math.pi * done)) / 2
        case "step":
            factor = 0.1 ** int(3 * done)
    return training.learning_rate * factor
