"""Training runs that live in a folder, and lose nothing when they are stopped or killed.

The folder is a checkpoint (see `checkpoints`) and one file more, `training.safetensors`, which holds everything that
the run needs to go on: weights, the optimizer's state, generators, configuration and history (see `state`). That file
alone is what a run resumes from, and it is replaced in one rename before the checkpoint is. So a run that is killed at
any moment has a whole checkpoint and a whole state; at worst the checkpoint is one save behind, and the next save mends
that.

One process trains in a folder at a time: it holds the folder's lock while it trains or saves, and it goes on only from
what it has last written or read there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stackrev.errors import CheckpointError, LockedError, RunNotFoundError, TrainingError
from stackrev.evaluation.certificate.proof import Proof
from stackrev.evaluation.scoring import Scores, score
from stackrev.kinds.config import Config, settings_of
from stackrev.models import load
from stackrev.models.certification import certify_run
from stackrev.models.devices import resolve_device
from stackrev.storage import checkpoints, files, locks
from stackrev.storage.locks import Lock
from stackrev.storage.pairs import open_task
from stackrev.tasks.batches import held_out
from stackrev.training import state as states
from stackrev.training.events import CheckEvent, Event, OnEvent
from stackrev.training.schedules import same_with_more
from stackrev.training.state import STATE, State
from stackrev.training.trainer import Trainer

SAVE_SECONDS = 60.0
"""How long a run may go on without a save, where its checks are further apart."""
WAIT_SECONDS = 1.0
"""How long a folder's lock is waited for: another process may be about to end."""


@dataclass(frozen=True)
class Change:
    """A setting with which a run goes on in place of another.

    Attributes:
        setting: Its name.
        old: Its value so far, as the command line has it.
        new: Its value from now on.
        exact: Whether the weights are certain to be, bit for bit, those of a run that had `new` from its start.
    """

    setting: str
    old: str
    new: str
    exact: bool


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
        self._saved: tuple[int, int, bool] | None = None
        self._lock: Lock | None = None
        self._stamp = _stamp(folder)

    @classmethod
    def start(cls, folder: Path, config: Config, *, command: str | None = None, overwrite: bool = False) -> Run:
        """Begin a run in a folder, and save it at once: a folder that cannot be written is no surprise later.

        Args:
            folder: Where; made if need be.
            config: What to train and how.
            command: The command that made it, for the checkpoint.
            overwrite: Whether a run or a checkpoint in the folder may be replaced.

        Raises:
            TrainingError: The folder is not free, or another process trains there.
            CheckpointError: The folder cannot be written.
        """
        if folder.exists() and not folder.is_dir():
            raise TrainingError(f"{folder} is not a folder", hint="choose another --output")
        trainer = Trainer(config)
        with files.raising(CheckpointError):
            files.make_folder(folder)
        with _locked(folder) as lock:
            _claim(folder, overwrite=overwrite)
            run = cls(folder, trainer, command=command, threads=torch.get_num_threads())
            run._save(lock)
        return run

    @classmethod
    def resume(cls, folder: Path) -> Run:
        """A run as it was last saved.

        Raises:
            TrainingError: The folder holds no run, its state does not fit together, or another process trains there.
            CheckpointError: The state is damaged.
        """
        if not (folder / STATE).is_file():
            raise RunNotFoundError(
                f"{folder} holds no run to resume", hint="leave out --resume to start one, or name its folder"
            )
        with _locked(folder):
            stamp = _stamp(folder)
            tensors, state = states.read(folder)
        trainer = Trainer(state.config)
        trainer.restore(tensors, {"progress": state.progress})
        run = cls(folder, trainer, command=state.command, threads=state.threads)
        run._stamp = stamp
        return run

    @property
    def config(self) -> Config:
        """What the run trains and how."""
        return self.trainer.config

    def change(self, config: Config) -> list[Change]:
        """Go on with another configuration, as far as a run can: what has been learned stays.

        What was changed is part of the run's configuration and of its recorded command from the next save on.

        Args:
            config: The configuration to go on with.

        Raises:
            TrainingError: A setting differs that would make it another run; or `batches` is less than it has had.
        """
        found = _changes(self.trainer, config)
        for name, (_, setting) in settings_of(self.config).items():
            change = next((each for each in found if each.setting == name), None)
            if change is not None and not setting.resumable:
                raise TrainingError(
                    f"{self.folder} was started with {name} = {change.old}, not {change.new}",
                    hint="resume it without that option, or start another run with another --output",
                )
        if config.training.batches < (had := self.trainer.progress.batch):
            raise TrainingError(
                f"{self.folder} has had {had:,} batches already", hint=f"give --batches {had} or more, or leave it out"
            )
        if found:
            tensors, state = self.trainer.state()
            self.trainer = Trainer(config)
            self.trainer.restore(tensors, state)
            self._saved = None
            options = " ".join(f"--{each.setting.replace('_', '-')} {each.new}" for each in found)
            if self.command is not None:
                self.command += f"; from batch {had} on with {options}"
        return found

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
            TrainingError: The loss is not finite; or another process trains in the folder, or has since this run was
                last read or saved.
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

        with self._hold():
            with contextlib.suppress(_Stopped):
                self.trainer.run(handle)
            self.save()
        return self.trainer.done

    def save(self) -> None:
        """Save the run as it stands; nothing is written if nothing has changed.

        Raises:
            TrainingError: Another process trains in the folder, or has since this run was last read or saved.
            CheckpointError: It cannot be written.
        """
        if self._now() != self._saved:
            with self._hold() as lock:
                self._save(lock)

    def _save(self, lock: Lock) -> None:
        progress = self.trainer.progress
        tensors, description = self.trainer.state()
        state = State(self.config, description["progress"], self.command, self.threads)
        states.write(self.folder, tensors, state)
        self._stamp = _stamp(self.folder)
        checkpoints.save(
            self.folder,
            self.trainer.outcome(),
            self.config,
            scores=self._scores(),
            history=progress.history,
            command=self.command,
            lock=lock,
        )
        self._saved = self._now()

    def _now(self) -> tuple[int, int, bool]:
        """What changes with every batch, with every check, and with the weights that are saved."""
        return self.trainer.progress.batch, len(self.trainer.progress.history), self.trainer.spoiled

    @contextlib.contextmanager
    def _hold(self) -> Iterator[Lock]:
        """Hold the folder's lock, and make sure that the folder is as this run knows it."""
        if self._lock is not None:
            yield self._lock
            return
        with _locked(self.folder) as lock:
            if _stamp(self.folder) != self._stamp:
                raise TrainingError(
                    f"another process has trained in {self.folder} meanwhile", hint="--resume goes on from there"
                )
            self._lock = lock
            try:
                yield lock
            finally:
                self._lock = None

    def _scores(self) -> dict[str, Any]:
        """The last check's scores, if they are these weights'."""
        progress, data = self.trainer.progress, self.config.data
        if not progress.history or progress.history[-1]["batch"] != progress.batch or self.trainer.spoiled:
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
        TrainingError: Another process trains in the folder.
        CheckpointError: The checkpoint cannot be read or written.
    """
    checkpoints.describe(folder)
    with _locked(folder) as lock:
        checkpoint = load(folder)
        data = checkpoint.config.data
        task = open_task(data)
        sets = zip((data.lengths, data.test_lengths), held_out(data, task), strict=True)
        scores = {
            str(lengths): score(checkpoint.model, each, task=task, on_progress=on_progress) for lengths, each in sets
        }
        recorded = {name: summary(each, data.held_out_seed) for name, each in scores.items()}
        checkpoints.save_scores(folder, recorded, lock=lock)
    return scores


def certify(folder: Path) -> Proof | None:
    """Prove that the model of a finished run reverses every string, from its file, and keep the certificate there.

    Returns:
        The proof, which may have failed; None if no proof is about such a model.

    Raises:
        TrainingError: Another process trains in the folder.
        CheckpointError: The checkpoint cannot be read, or the certificate not be written.
    """
    with _locked(folder):
        return certify_run(folder)


def summary(scores: Scores, seed: int) -> dict[str, Any]:
    """Scores as a checkpoint records them."""
    return {**states.summary(scores), "seed": seed}


class _Stopped(Exception):
    """A run was asked to stop."""


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Lock]:
    """Hold a folder's lock.

    Raises:
        TrainingError: Another process holds it.
        CheckpointError: The folder cannot be written.
    """
    with contextlib.ExitStack() as stack, files.raising(CheckpointError):
        try:
            lock = stack.enter_context(locks.lock(folder, seconds=WAIT_SECONDS))
        except LockedError as error:
            who = "another process" if error.pid is None else f"another process ({error.pid})"
            raise TrainingError(
                f"{who} trains in {folder}", hint="wait until it has ended, or choose another --output"
            ) from error
        yield lock


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    """What tells one state of a run's folder from the next: every save replaces the file."""
    try:
        status = (folder / STATE).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _claim(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a run may be written to a folder, and remove the state of one that it replaces."""
    taken = [name for name in (STATE, *checkpoints.ALL_FILES) if os.path.lexists(folder / name)]
    if not taken:
        return
    foreign = checkpoints.foreign(folder)
    if STATE in taken and not states.is_state(folder):
        foreign = STATE
    if foreign is not None:
        raise TrainingError(
            f"{folder} has a {foreign} that is not a run's",
            hint="choose another --output, or move it away; nothing was overwritten",
        )
    if not overwrite:
        raise TrainingError(
            f"{folder} already holds a run",
            hint="--resume goes on with it, --force replaces it, --output chooses another folder",
        )
    with files.raising(CheckpointError):
        files.remove(folder / STATE)


def _changes(trainer: Trainer, config: Config) -> list[Change]:
    """The settings in which a configuration differs from a run's."""
    ours, theirs = trainer.config, config
    if type(ours.model) is not type(theirs.model):
        return [Change("kind", ours.model.kind, theirs.model.kind, exact=False)]
    progress, training = trainer.progress, ours.training
    exact = {
        "batches": theirs.training.batches > progress.batch
        and same_with_more(training, progress.history, progress.solved_batch, progress.batch),
        "settle_batches": progress.solved_batch is None
        or not (training.settles_by_number or progress.batch >= trainer.end),  # where it was checked
        # At which checks a run is right decides when it begins to settle.
        "check_every": False,
        "device": len({resolve_device(each.training.device, each.model.kind) for each in (ours, theirs)}) == 1,
    }
    found = []
    for name, (section, _) in settings_of(ours).items():
        old, new = (getattr(getattr(each, section), name) for each in (ours, theirs))
        if old != new:
            found.append(Change(name, _plain(old), _plain(new), exact=not progress.batch or exact.get(name, False)))
    return found


def _plain(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
