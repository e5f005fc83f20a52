"""Training runs that live in a folder, and lose nothing when they are stopped or killed.

The folder is a checkpoint (see `checkpoints`) and one file more, `training.safetensors`, which holds everything that
the run needs to go on: weights, the optimizer's state, generators, configuration and history. That file alone is what
a run resumes from, and it is replaced in one rename before the checkpoint is. So a run that is killed at any moment
has a whole checkpoint and a whole state; at worst the checkpoint is one save behind, and the next save mends that.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from stackrev.config import Config, from_dict, to_dict
from stackrev.errors import CheckpointError, ConfigError, TrainingError
from stackrev.evaluation.scoring import Scores, score
from stackrev.storage import checkpoints
from stackrev.tasks.batches import held_out
from stackrev.training.trainer import CheckEvent, Event, OnEvent, Trainer

STATE = "training.safetensors"
SAVE_SECONDS = 60.0
"""How long a run may go on without a save, where its checks are further apart."""


class Run:
    """A training run and its folder.

    Args:
        folder: Where it is saved.
        trainer: The run.
        command: The command that made it, for the checkpoint.
        threads: How many threads torch had when the run was started; with as many it goes on bit for bit.

    Attributes:
        folder: As given.
        trainer: As given.
        command: As given.
        threads: As given.
    """

    def __init__(self, folder: Path, trainer: Trainer, *, command: str | None = None, threads: int) -> None:
        self.folder = folder
        self.trainer = trainer
        self.threads = threads
        self.command = command
        self._saved: tuple[int, int] | None = None

    @classmethod
    def start(cls, folder: Path, config: Config, *, command: str | None = None, overwrite: bool = False) -> Run:
        """Begin a run in a folder, and save it at once: a folder that cannot be written is no surprise later.

        Args:
            folder: Where; made if need be.
            config: What to train and how.
            command: The command that made it, for the checkpoint.
            overwrite: Whether a run or a checkpoint in the folder may be replaced.

        Raises:
            TrainingError: The folder is not free.
            CheckpointError: The folder cannot be written.
        """
        _claim(folder, overwrite=overwrite)
        run = cls(folder, Trainer(config), command=command, threads=torch.get_num_threads())
        run.save()
        return run

    @classmethod
    def resume(cls, folder: Path) -> Run:
        """A run as it was last saved.

        Raises:
            TrainingError: The folder holds no run, or its state does not fit together.
            CheckpointError: The state is damaged.
        """
        path = folder / STATE
        if not path.is_file():
            raise TrainingError(
                f"{folder} holds no run to resume", hint="leave out --resume to start one, or name its folder"
            )
        tensors, metadata = checkpoints.load_tensors(path)
        try:
            state = json.loads(metadata["state"])
            config = from_dict(Config, state["config"])
            command, threads = state["command"], state["threads"]
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise CheckpointError(f"{path} is not the state of a run", hint="start the run again") from error
        trainer = Trainer(config)
        trainer.restore(tensors, state)
        return cls(folder, trainer, command=command, threads=threads)

    @property
    def config(self) -> Config:
        """What the run trains and how."""
        return self.trainer.config

    def require(self, config: Config) -> None:
        """Make sure that the run is of a configuration.

        Raises:
            TrainingError: It is of another.
        """
        ours, theirs = _flat(to_dict(self.config)), _flat(to_dict(config))
        for name, value in ours.items():
            if theirs[name] != value:
                raise TrainingError(
                    f"{self.folder} was started with {name} = {_plain(value)}, not {_plain(theirs[name])}",
                    hint="resume it without that option, or start another run with another --output",
                )

    def train(
        self,
        on_event: OnEvent | None = None,
        *,
        stop: Callable[[], bool] = lambda: False,
        save_seconds: float = SAVE_SECONDS,
    ) -> bool:
        """Train, saving at every check, at least every `save_seconds`, and at the end.

        Args:
            on_event: Called after every batch and every check. If it raises, nothing more is saved.
            stop: Asked between two batches whether to save and return early.
            save_seconds: How long the run may go on without a save.

        Returns:
            Whether the run is done.

        Raises:
            TrainingError: The loss is not finite.
            CheckpointError: The run cannot be saved.
        """
        last = time.monotonic()

        def handle(event: Event) -> None:
            nonlocal last
            if on_event is not None:
                on_event(event)
            if isinstance(event, CheckEvent) or time.monotonic() - last >= save_seconds:
                self.save()
                last = time.monotonic()
            if stop():
                raise _Stopped

        with contextlib.suppress(_Stopped):
            self.trainer.run(handle)
        self.save()
        return self.trainer.done

    def save(self) -> None:
        """Save the run as it stands; nothing is written if nothing has changed.

        Raises:
            CheckpointError: It cannot be written.
        """
        progress = self.trainer.progress
        now = (progress.batch, len(progress.history))
        if now == self._saved:
            return
        tensors, state = self.trainer.state()
        state |= {"command": self.command, "threads": self.threads}
        checkpoints.save_tensors(self.folder / STATE, tensors, {"state": json.dumps(state)})
        checkpoints.save(
            self.folder,
            self.trainer.model,
            self.config,
            scores=self._scores(),
            history=progress.history,
            command=self.command,
        )
        self._saved = now

    def _scores(self) -> dict[str, Any]:
        """The last check's scores, if they are these weights'."""
        progress, data = self.trainer.progress, self.config.data
        if not progress.history or progress.history[-1]["batch"] != progress.batch:
            return {}
        last = progress.history[-1]
        return {
            str(lengths): {**last[name], "seed": data.held_out_seed}
            for lengths, name in ((data.lengths, "validation"), (data.test_lengths, "test"))
        }


def measure(folder: Path, *, on_progress: Callable[[int], object] | None = None) -> dict[str, Scores]:
    """Score a checkpoint on its held-out strings as a reader of its file would, and record the scores in it.

    Args:
        folder: The checkpoint.
        on_progress: As for `score`, over both sets.

    Returns:
        The scores of each range of lengths, such as "65-128".

    Raises:
        CheckpointError: The checkpoint cannot be read or written.
    """
    checkpoint = checkpoints.load(folder)
    data = checkpoint.config.data
    sets = zip((data.lengths, data.test_lengths), held_out(data), strict=True)
    scores = {str(lengths): score(checkpoint.model, each, on_progress=on_progress) for lengths, each in sets}
    checkpoints.save_scores(folder, {name: summary(each, data.held_out_seed) for name, each in scores.items()})
    return scores


def summary(scores: Scores, seed: int) -> dict[str, Any]:
    """Scores as a checkpoint records them."""
    return {"coarse": scores.coarse, "fine": scores.fine, "samples": scores.samples, "seed": seed}


class _Stopped(Exception):
    """A run was asked to stop."""


def _claim(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a run may be written to a folder, and remove the state of one that it replaces."""
    taken = [name for name in (STATE, *checkpoints.FILES) if (folder / name).exists()]
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder", hint="choose another --output")
    if not taken:
        return
    if not {STATE, checkpoints.CONFIG} & set(taken):
        raise TrainingError(
            f"{folder} has a {taken[0]} that is not a run's", hint="choose another --output; nothing was overwritten"
        )
    if not overwrite:
        raise TrainingError(
            f"{folder} already holds a run",
            hint="--resume goes on with it, --force replaces it, --output chooses another folder",
        )
    with contextlib.suppress(FileNotFoundError):
        (folder / STATE).unlink()


def _flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration by their own names, which are different in each section."""
    return {name: value for section in raw.values() for name, value in section.items()}


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "-".join(map(str, value.values()))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
