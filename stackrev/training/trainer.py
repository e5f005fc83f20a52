"""Training, as a sequence of batches and checks that can stop between any two batches and resume bit for bit.

A run's weights depend on its configuration alone. Three generators, seeded from `training.seed`, draw weights to begin
with, batches and noise, so that a change in one does not shift the others.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from stackrev.config import LengthRange, to_dict
from stackrev.errors import TrainingError
from stackrev.evaluation.scoring import Scores, score
from stackrev.kernels.defaults import torch_defaults
from stackrev.kinds.config import Config
from stackrev.models import build
from stackrev.models.base import Reverser
from stackrev.models.devices import resolve_device
from stackrev.readout import read_out_loss
from stackrev.storage.pairs import open_task
from stackrev.tasks.batches import Batch, HeldOut, held_out, sample_batch
from stackrev.training.certified import Closing, Settling, close
from stackrev.training.events import BatchEvent, CheckEvent, OnEvent
from stackrev.training.noise import noise_on_symbols
from stackrev.training.optimizers import Optimizer, grow, soft_threshold
from stackrev.training.penalties import hidden_and_penalty
from stackrev.training.schedules import last_start, learning_rate, sharpening
from stackrev.training.state import is_right, named

CHECK_SAMPLES = 100
"""A check scores this many held-out strings of either set. Where all are right and it matters, it goes on to the whole
sets: a run is solved by them, and it ends by them. While weights grow, every right check does so, because its weights
may be the last that are right."""

BOUND_NORM = 0.3
"""What the bounds' gradient is clipped to, where the optimizer does not divide a gradient by its usual size."""


@dataclass
class Progress:
    """How far a run has come; with the weights, the optimizer's state and the generators it is the whole run.

    Attributes:
        batch: Batches learned from.
        seconds: Time spent.
        loss_sum: Sum of the losses since the last check.
        loss_count: How many they are.
        solved_batch: The first check at which everything held out was right, if one was.
        longest: The longest string that the curriculum allows; None without one.
        history: The checks so far.
    """

    batch: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    longest: int | None = None
    solved_batch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One training run.

    Args:
        config: What to train and how. Nothing else decides the outcome on a given machine and thread count.

    Raises:
        TrainingError: The model cannot settle as it is told to, or the machine lacks the device.

    Attributes:
        config: As given.
        model: The model as it stands.
        progress: How far it has come.
        task: What is learned.
        held_out: The strings that it never learns from.
    """

    @torch_defaults()
    def __init__(self, config: Config) -> None:
        self.config = config
        self.task = open_task(config.data)
        self.device = resolve_device(config.training.device, config.model.kind)
        seeds = torch.Generator().manual_seed(config.training.seed)
        weights, batches, noise = (
            torch.Generator().manual_seed(each)
            for each in torch.randint(2**62, (3,), generator=seeds, dtype=torch.int64).tolist()
        )
        self.model: Reverser[Any] = build(config.model, weights).to(self.device)
        self.optimizer = Optimizer(config.training, self.model)
        certified = config.training.settle == "certified" and self.task.certifiable
        self._settling = Settling(self.model) if certified else None
        self.progress = Progress(longest=config.training.curriculum_start)
        self._generators = {"batches": batches, "noise": noise}
        if config.training.restart_batches is not None:
            self._generators["weights"] = weights
        self.held_out: HeldOut = held_out(config.data, self.task)
        self._excluded = self.held_out.keys
        self._stretch_cells()
        self._right: dict[str, Tensor] = {}  # the weights with which all that is held out was last found right

    @property
    def end(self) -> int:
        """After how many batches the run ends, if everything is right then: as far as can be told by now."""
        training, progress = self.config.training, self.progress
        settled = self._settled
        if settled is None:
            return training.batches
        if progress.batch > settled:  # not everything was right then: at the next check, perhaps
            settled = -(-progress.batch // training.check_every) * training.check_every
        return min(training.batches, settled)

    @property
    def done(self) -> bool:
        """Whether the run has had all its batches, or has settled and got everything right at its last check.

        A run whose cells' weights have grown ends then even if it is wrong: it comes to the weights last found right.
        """
        progress = self.progress
        if progress.batch >= self.config.training.batches:
            return True
        last = progress.history[-1] if progress.history else None
        if last is None or not last["batch"] == progress.batch >= self.end:
            return False
        return is_right(last) or (progress.solved_batch is not None and self.config.training.settle_growth > 0)

    @property
    def spoiled(self) -> bool:
        """Whether the run is done and wrong, after everything held out was right: settling has spoiled it."""
        history = self.progress.history
        return bool(self._right) and self.done and bool(history) and not is_right(history[-1])

    def outcome(self) -> dict[str, Tensor]:
        """The weights that the run comes to: the model's, or if these are spoiled those that were last found right."""
        return self._right if self.spoiled else self.model.state_dict()

    def scores(self, most: int | None = None) -> tuple[Scores, Scores]:
        """The model's scores on the validation and the test strings, or on so many of each at most."""
        validation, test = (score(self.model, each[:most], task=self.task) for each in self.held_out)
        return validation, test

    def run(self, on_event: OnEvent | None = None) -> None:
        """Go on until the run is done.

        Args:
            on_event: Called after every batch and every check. What it raises ends the run between two batches, from
                where it can go on.

        Raises:
            TrainingError: The loss is not finite.
        """
        emit = on_event or (lambda event: None)
        while self._check_due or not self.done:
            with self._timed():
                event = self._check() if self._check_due else self._learn()
            emit(event)

    @torch_defaults()
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that `restore` needs, as copies: tensors, and a description in plain JSON values."""
        tensors = {f"model.{name}": tensor.clone() for name, tensor in self.model.state_dict().items()}
        tensors.update({f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()})
        tensors.update({f"right.{name}": tensor for name, tensor in self._right.items()})
        for name, generator in self._generators.items():
            tensors[f"generator.{name}"] = generator.get_state()
        if self._settling is not None:
            tensors.update({f"settling.{name}": tensor for name, tensor in self._settling.state().items()})
        return tensors, {"config": to_dict(self.config), "progress": asdict(self.progress)}

    @torch_defaults()
    def restore(self, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Put the run back to where `state` was taken.

        Raises:
            TrainingError: The state is of another run, or incomplete.
        """
        try:
            model = {name: tensors[f"model.{name}"] for name in self.model.state_dict()}
            right = named(tensors, "right.")
            for weights in (model, right) if right else (model,):
                self.model.check_state(weights)
            self.model.load_state_dict(model)
            self._right = {name: tensor.to(self.device, copy=True) for name, tensor in right.items()}
            self.optimizer.restore(named(tensors, "optimizer."))
            if self._settling is not None:
                self._settling.restore(named(tensors, "settling."))
            for name, generator in self._generators.items():
                generator.set_state(tensors[f"generator.{name}"])
            self.progress = Progress(**copy.deepcopy(description["progress"]))
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise TrainingError(
                f"the training state does not fit the configuration: {reason}",
                hint="resume with the configuration the run was started with",
            ) from None

    def learning_rate(self, batch: int) -> float:
        """The learning rate of a batch, counted from 0. It falls from `solved_batch` on if `settle_rate` is below 1."""
        return learning_rate(self.config.training, self.progress.history, self.progress.solved_batch, batch)

    @property
    def _settled(self) -> int | None:
        """After how many batches the run has settled, as far as that is known."""
        training, progress = self.config.training, self.progress
        if progress.solved_batch is None or training.settle == "none":
            return progress.solved_batch
        if training.settle_batches is None:
            return None
        return self._settling.closed_batch if self._settling else progress.solved_batch + training.settle_batches

    @property
    def _growing(self) -> int | None:
        """How often the cells' weights have grown when this batch is done; None if they grow no longer."""
        progress, settle = self.progress, self.config.training.settle_batches
        batches = 0 if progress.solved_batch is None else progress.batch + 1 - progress.solved_batch
        return batches if settle is None or batches <= settle else None

    @property
    def _sharpening(self) -> bool:
        """Whether the loss divides the logits before the run is solved."""
        return sharpening(self.config.training, self.progress.history)

    @property
    def _last_start(self) -> int:
        """After how many batches the run last started over; 0 if it never did."""
        return last_start(self.config.training, self.progress.history)

    @property
    def _check_due(self) -> bool:
        progress, training = self.progress, self.config.training
        checked = progress.history[-1]["batch"] if progress.history else 0
        due = progress.batch % training.check_every == 0 or progress.batch == self.end
        return due and progress.batch > checked

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.progress.seconds += time.perf_counter() - start

    @torch_defaults()
    def _learn(self) -> BatchEvent:
        training, progress = self.config.training, self.progress
        if progress.batch and progress.batch == self._last_start:
            self._start_over()
        self._stretch_cells()
        self.optimizer.rate = self.learning_rate(progress.batch)
        batch = self._draw()
        if not self.model.training:
            self.model.train()
        self.optimizer.zero_grad()
        settling = progress.solved_batch is not None
        with self._noise_on_symbols():
            loss_at_one, closing = self._backward(batch, settling=settling)
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, training.clip_norm)
        measured, gradient_norm = float(loss_at_one), float(norm)
        if not (math.isfinite(measured) and math.isfinite(gradient_norm)):
            raise TrainingError(
                f"the loss is no longer finite at batch {progress.batch + 1}", hint="try a lower --learning-rate"
            )
        self.optimizer.step()
        if training.settle_growth and self._growing:
            grow(self.model.cell_weights(), training.settle_growth)
        if training.recurrent_l1 and settling:
            fall = training.recurrent_l1 * self.optimizer.rate / training.learning_rate
            soft_threshold(self.model.recurrent_weights(), fall)
        progress.batch += 1
        progress.loss_sum += measured
        progress.loss_count += 1
        if progress.longest is not None and measured < training.curriculum_loss:
            progress.longest = min(progress.longest + 1, self.config.data.lengths.maximum)
        if closing is not None:
            closing = self._try_to_close(closing)
        return BatchEvent(progress.batch, measured, gradient_norm, closing)

    def _stretch_cells(self) -> None:
        """Stretch the cells' gates as far as they are to be in the next batch, if that depends on the batch."""
        batches, solved = self.config.training.stretch_batches, self.progress.solved_batch
        if batches is not None:
            done = 0 if solved is None else self.progress.batch + 1 - solved
            self.model.stretch_cells(min(1.0, done / batches))

    def _start_over(self) -> None:
        """Draw new weights, and forget all that was learned."""
        self.model.load_state_dict(build(self.config.model, self._generators["weights"]).state_dict())
        self.optimizer = Optimizer(self.config.training, self.model)
        self.progress.longest = self.config.training.curriculum_start

    def _backward(self, batch: Batch, *, settling: bool) -> tuple[Tensor, Closing | None]:
        """The gradient of a batch's loss; that loss without temperature and penalty; the bounds if they join it.

        The bounds are those of the weights as they are, with noise on symbols if there is any.
        """
        training = self.config.training
        temperature = training.settle_temperature if settling or self._sharpening else 1.0
        cell_l2 = training.cell_l2 if settling else 0.0
        hidden, penalty = hidden_and_penalty(self.model, batch, cell_l2, self._generators["noise"])
        loss, loss_at_one = read_out_loss(
            hidden, batch.target, batch.target_steps, self.model.read_out_weights, temperature=temperature
        )
        if penalty is not None:
            loss = loss + penalty
        closing = None
        if settling and self._settling is not None:
            bound, closing = self._settling.loss()
            if self.optimizer.rescales:
                loss = loss + bound
            else:  # bounds have a gradient far larger than the data's, which is followed as it is
                bound.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, BOUND_NORM)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss_at_one, closing

    def _noise_on_symbols(self) -> AbstractContextManager[None]:
        """Within it the weights of symbols are noisy, if they are to be: from the curriculum's end until settled."""
        training, longest, growing = self.config.training, self.progress.longest, self._growing
        if growing is None or not (longest is None or longest >= self.config.data.lengths.maximum):
            return nullcontext()
        settling = self.progress.solved_batch is not None and training.settle_noise is not None
        deviation = training.settle_noise if settling else training.symbol_noise
        grown = (1 + training.settle_growth) ** growing
        return noise_on_symbols(self.model, deviation or 0.0, grown, self._generators["noise"])

    def _try_to_close(self, closing: Closing) -> Closing:
        """Try whether the bounds close, if it is time to; what is known then, given the last batch's bounds."""
        progress, training = self.progress, self.config.training
        if self._settling is None or progress.solved_batch is None or training.settle_batches is None:
            return closing
        settled = progress.batch >= progress.solved_batch + training.settle_batches
        if not (settled and self._settling.due(progress.batch, closing)):
            return closing
        found = close(self.model)
        if found is None or not found.enough:
            return closing
        self._settling.closed_batch = progress.batch
        return found

    def _look(self) -> Closing | None:
        """How near the run is to a proof; None if it does not settle for one, or not yet."""
        if self._settling is None or self.progress.solved_batch is None:
            return None
        found = close(self.model)
        return found if found is not None and found.enough else self._settling.look()

    def _draw(self) -> Batch:
        training, lengths, longest = self.config.training, self.config.data.lengths, self.progress.longest
        if longest is not None:
            longest = max(longest - longest % self.task.length_step, self.task.shortest)
            lengths = LengthRange(minimum=min(lengths.minimum, longest), maximum=min(lengths.maximum, longest))
        share = training.least_share if self.progress.solved_batch is None else 0.0
        least = math.ceil(share * lengths.maximum - 1e-9)  # 0.07 of 100 is 7.000000000000001
        least -= least % self.task.length_step
        lengths = LengthRange(minimum=max(lengths.minimum, least), maximum=lengths.maximum)
        return sample_batch(
            lengths,
            training.batch_size,
            self._generators["batches"],
            mixed_lengths=training.mixed_lengths,
            excluded=self._excluded,
            task=self.task,
        ).to(self.device)

    @torch_defaults()
    def _check(self) -> CheckEvent:
        progress = self.progress
        start = time.perf_counter()
        validation, test = self.scores(CHECK_SAMPLES)
        right, last = validation.perfect and test.perfect, progress.batch >= self.config.training.batches
        whole = progress.solved_batch is None or progress.batch >= self.end or self.config.training.settle_growth > 0
        if last or (right and whole):
            validation, test = self.scores()
            if validation.perfect and test.perfect:
                self._right = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        seconds = progress.seconds + time.perf_counter() - start
        loss = progress.loss_sum / max(1, progress.loss_count)
        rate, closing = self.learning_rate(progress.batch - 1), self._look()
        event = CheckEvent(progress.batch, loss, rate, validation, test, seconds, closing)
        if event.perfect and progress.solved_batch is None:
            progress.solved_batch = progress.batch
        if self._settling is not None and not event.perfect:
            self._settling.closed_batch = None
        progress.loss_sum, progress.loss_count = 0.0, 0
        progress.history.append(event.to_dict())
        return replace(event, restarts=self._last_start == progress.batch and not self.done)


def train(config: Config, on_event: OnEvent | None = None) -> Trainer:
    """Train a model from its start to its end; `Trainer` for one that stops and resumes."""
    trainer = Trainer(config)
    trainer.run(on_event)
    return trainer
