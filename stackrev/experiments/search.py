"""Hyperparameter search: Optuna studies that any number of workers share.

A study is a journal file, or a database for workers on many machines. A trial trains one configuration and is worth the
mean of its validation fine accuracy over its checks, those after an early end counting as the last: it rewards what is
learned, and how soon. Trials that fall behind the others at a check are pruned.

**Nothing is lost and nothing repeated.** A study is asked for N trials in all. A worker takes the next one only while
fewer than N are done or running; where several take the last place at once, the lowest numbers keep it. A worker that
is killed leaves its trial running: every worker holds a lock on a file of its own beside the journal for as long as it
lives, so a running trial whose lock is free is failed, and makes room for another. In a database the same is done by
Optuna's heartbeat, a minute after the last beat.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.config import Config, from_dict, to_dict
from stackrev.errors import ConfigError, MissingExtraError, StackrevError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

HEARTBEAT_SECONDS = 15
GRACE_SECONDS = 60


@dataclass(frozen=True)
class Between:
    """The numbers from `low` to `high`; whole ones if these are, and `log` for even odds at every scale."""

    low: float
    high: float
    log: bool = False


SPACE: Mapping[str, Between | tuple[Any, ...]] = {
    "hidden_size": (16, 32, 64, 128, 256),
    "layers": Between(1, 4),
    "stack_width": (16, 32, 64, 128, 256),
    "optimizer": ("adam", "adamw", "rmsprop", "sgd"),
    "learning_rate": Between(1e-4, 1e-1, log=True),
    "gate_stretch": Between(0.0, 0.3),
    "gate_noise": Between(0.0, 3.0),
    "string_noise": Between(0.0, 4.0),
    "push_bias": Between(-3.0, 3.0),
    "pop_bias": Between(-3.0, 3.0),
}
"""What a search varies, and over which values."""

_GATES = ("gate_stretch", "gate_noise", "string_noise", "push_bias", "pop_bias")
_MODEL = ("hidden_size", "layers", "stack_width", *_GATES)
_UNCLAIMED_SECONDS = 60
"""After how long a running trial that names no worker is taken to have lost it."""


class SearchError(StackrevError):
    """A study cannot be opened, or is of something else."""


@dataclass(frozen=True)
class Result:
    """One trial.

    Attributes:
        number: Its number in the study.
        state: "complete", "pruned", "running", "waiting" or "failed".
        value: The mean of its validation fine accuracy; for a pruned trial, of what it had.
        settings: What was tried, by name.
        outcome: What came of it: `validation` and `test` fine accuracy, `solved_batch`, `batches`, `seconds`.
        config: The whole configuration.
    """

    number: int
    state: str
    value: float | None
    settings: Mapping[str, Any]
    outcome: Mapping[str, Any]
    config: Config

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain JSON values."""
        return {
            "number": self.number,
            "state": self.state,
            "value": self.value,
            "settings": dict(self.settings),
            **self.outcome,
            "config": to_dict(self.config),
        }


OnResult = Callable[[Result], object]
OnCheck = Callable[[int, int, float], object]
"""Called after each check of a trial with its number, the batch and the validation fine accuracy."""


def settings_of(kind: str) -> tuple[str, ...]:
    """What can be searched over for a kind of model."""
    return tuple(name for name in SPACE if kind == "stack-lstm" or name not in _GATES)


def require() -> None:
    """Make sure that Optuna can be imported, and that it is quiet.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("a search needs optuna", hint="pip install 'stackrev[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Search:
    """One worker's view of a study.

    Args:
        name: The study's name.
        base: What every trial starts from.
        over: Which settings vary; see `settings_of`.
        journal: The study's file; made if need be.
        storage: A database's URL, in place of a journal.
        prune: Whether trials that fall behind are given up.

    Raises:
        MissingExtraError: Optuna is not installed.
        SearchError: The study cannot be opened, or is of another base configuration.
        ConfigError: A setting cannot be searched over.
    """

    def __init__(
        self,
        name: str,
        base: Config,
        *,
        over: Sequence[str] | None = None,
        journal: Path | None = None,
        storage: str | None = None,
        prune: bool = True,
    ) -> None:
        require()
        import optuna

        known = settings_of(base.model.kind)
        self.over = tuple(each for each in known if over is None or each in over)
        if unknown := [each for each in over or () if each not in known]:
            raise ConfigError(f"a search cannot vary {unknown[0]!r}", hint=f"it can vary {', '.join(known)}")
        self.base = base
        self._workers: _Workers | None = None
        setting = {"base": to_dict(base), "over": list(self.over), "prune": prune}
        try:
            self._study = self._open(name, journal, storage, prune, setting)
            stored = self._study.user_attrs.get("setting")
            if stored is None:  # its maker is between the two steps of making it, or died there
                self._study.set_user_attr("setting", setting)
            elif {**stored, "base": to_dict(from_dict(Config, stored["base"]))} != setting:
                raise SearchError(
                    f"the study {name!r} was started with other options",
                    hint="give the command that started it, or another --study",
                )
        except (OSError, ValueError, KeyError, TypeError, ImportError, optuna.exceptions.OptunaError) as error:
            raise SearchError(f"cannot open the study {name!r}: {_first_line(error)}") from error
        except Exception as error:
            if type(error).__module__.startswith("sqlalchemy"):
                raise SearchError(f"cannot open {storage}: {_first_line(error)}") from error
            raise

    def _open(
        self, name: str, journal: Path | None, storage: str | None, prune: bool, setting: dict[str, Any]
    ) -> optuna.Study:
        import optuna

        warmup = 2 * self.base.training.check_every
        how: dict[str, Any] = {"study_name": name}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if storage is not None:
                beat, grace = HEARTBEAT_SECONDS, GRACE_SECONDS
                how["storage"] = optuna.storages.RDBStorage(storage, heartbeat_interval=beat, grace_period=grace)
            elif journal is not None:
                journal.parent.mkdir(parents=True, exist_ok=True)
                how["storage"] = optuna.storages.JournalStorage(_journal(journal))
                self._workers = _Workers(journal)
            else:
                raise SearchError("a study needs a journal or a storage")
            how["sampler"] = optuna.samplers.TPESampler(constant_liar=True, multivariate=True)
            how["pruner"] = optuna.pruners.MedianPruner(n_warmup_steps=warmup) if prune else optuna.pruners.NopPruner()
            try:
                study = optuna.create_study(direction="maximize", **how)
            except optuna.exceptions.DuplicatedStudyError:
                return optuna.load_study(**how)
        study.set_user_attr("setting", setting)
        start = {name: _value(self.base, name) for name in self.over}
        study.enqueue_trial({name: value for name, value in start.items() if _reachable(name, value)})
        return study

    def work(self, trials: int, *, on_result: OnResult | None = None, on_check: OnCheck | None = None) -> None:
        """Run trials until the study has so many in all, those of other workers included.

        Args:
            trials: How many the study is to have.
            on_result: Called after each trial of this worker.
            on_check: Called after each check of a trial.
        """
        import optuna

        states = optuna.trial.TrialState

        def objective(trial: Trial) -> float:
            if self._workers is not None:
                trial.set_user_attr("worker", self._workers.own)
            before = sum(each.state != states.FAIL for each in self._trials() if each.number < trial.number)
            if before >= trials:
                raise _SurplusError
            return self._run(trial, on_check)

        while True:
            self._fail_stale()
            if sum(each.state not in (states.FAIL, states.WAITING) for each in self._trials()) >= trials:
                return
            last = -1

            def remember(study: optuna.Study, trial: FrozenTrial) -> None:
                nonlocal last
                last = trial.number

            self._study.optimize(objective, n_trials=1, catch=(_SurplusError,), callbacks=[remember])
            result = self._result(self._study.trials[last])
            if on_result is not None and result.state != "failed":
                on_result(result)

    def results(self) -> list[Result]:
        """All trials, by number."""
        return [self._result(each) for each in self._trials()]

    def best(self, count: int | None = None) -> list[Result]:
        """The best trials that were trained to their end, best first; earlier ones first among equals."""
        done = [each for each in self.results() if each.state == "complete"]
        return sorted(done, key=lambda each: -(each.value or 0.0))[:count]

    def close(self) -> None:
        """Let go of what tells other workers that this one lives."""
        if self._workers is not None:
            self._workers.close()

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _run(self, trial: Trial, on_check: OnCheck | None) -> float:
        import optuna

        from stackrev.errors import TrainingError
        from stackrev.training.trainer import CheckEvent, Event, Trainer

        config = _apply(self.base, {name: _suggest(trial, name) for name in self.over})
        trainer = Trainer(config)
        fine: list[float] = []

        def note() -> None:
            last = trainer.progress.history[-1]
            outcome = {
                "validation": last["validation"]["fine"],
                "test": last["test"]["fine"],
                "solved_batch": trainer.progress.solved_batch,
                "batches": trainer.progress.batch,
                "seconds": round(trainer.progress.seconds, 2),
            }
            trial.set_user_attr("outcome", outcome)

        def watch(event: Event) -> None:
            if not isinstance(event, CheckEvent):
                return
            fine.append(event.validation.fine)
            if on_check is not None:
                on_check(trial.number, event.batch, event.validation.fine)
            trial.report(event.validation.fine, event.batch)
            if not trainer.done and trial.should_prune():
                note()
                raise optuna.TrialPruned

        checks = -(-config.training.batches // config.training.check_every)
        try:
            trainer.run(watch)
        except TrainingError as error:
            trial.set_user_attr("error", error.message)
            return sum(fine) / checks
        note()
        return (sum(fine) + (checks - len(fine)) * fine[-1]) / checks

    def _fail_stale(self) -> None:
        """Fail the running trials whose workers are gone."""
        import optuna

        if self._workers is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self._study)
            return
        for each in self._trials():
            if each.state != optuna.trial.TrialState.RUNNING:
                continue
            worker = each.user_attrs.get("worker")
            if worker is None:  # it may be about to say whose it is
                age = datetime.datetime.now() - (each.datetime_start or datetime.datetime.min)
                gone = age.total_seconds() > _UNCLAIMED_SECONDS or not self._workers.others_alive()
            else:
                gone = worker != self._workers.own and not self._workers.alive(worker)
            if not gone:
                continue
            with contextlib.suppress(RuntimeError, optuna.exceptions.OptunaError):  # another worker was faster
                self._study.tell(each.number, state=optuna.trial.TrialState.FAIL)

    def _result(self, trial: FrozenTrial) -> Result:
        value = trial.value if trial.state.name == "COMPLETE" else None
        if value is None and trial.intermediate_values:
            value = sum(trial.intermediate_values.values()) / len(trial.intermediate_values)
        settings = {name: trial.params[name] for name in self.over if name in trial.params}
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        outcome = dict(trial.user_attrs.get("outcome", {}))
        if "error" in trial.user_attrs:
            outcome["error"] = trial.user_attrs["error"]
        return Result(trial.number, state, value, settings, outcome, _apply(self.base, settings))


class _SurplusError(Exception):
    """The study had enough trials when this one was taken."""


def _suggest(trial: Trial, name: str) -> Any:
    match SPACE[name]:
        case Between(int(low), int(high)):
            return trial.suggest_int(name, low, high)
        case Between(low, high, log):
            return trial.suggest_float(name, low, high, log=log)
        case choices:
            return trial.suggest_categorical(name, choices)


def _reachable(name: str, value: Any) -> bool:
    """Whether a value is among those that a search tries."""
    space = SPACE[name]
    return space.low <= value <= space.high if isinstance(space, Between) else value in space


def _value(config: Config, name: str) -> Any:
    return getattr(config.model if name in _MODEL else config.training, name)


def _apply(base: Config, settings: Mapping[str, Any]) -> Config:
    model = {name: value for name, value in settings.items() if name in _MODEL}
    training = {name: value for name, value in settings.items() if name not in _MODEL}
    return replace(base, model=replace(base.model, **model), training=replace(base.training, **training))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# Locks


class _Lock:
    """A lock on a file that the system lets go of when its holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; False if it is not to be waited for and another has it."""
        import fcntl

        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if os.path.samestat(os.fstat(file), self._path.stat()):
                    self._file = file
                    return True
            except FileNotFoundError:
                pass
            except BlockingIOError:
                os.close(file)
                return False
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # the file was removed while it was waited for: take the one that is there now

    def release(self) -> None:
        """Let go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _journal(path: Path) -> Any:
    """The journal, whose every line is whole: a line that a killed writer left unfinished is cut off under the lock."""
    from optuna.storages.journal import JournalFileBackend

    lock = _Lock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire()
    except ImportError:  # no fcntl on Windows: Optuna's own lock, which has to be waited for after a kill
        return JournalFileBackend(str(path))
    try:
        if path.exists():
            data = path.read_bytes()
            if (whole := data.rfind(b"\n") + 1) < len(data):
                os.truncate(path, whole)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock_obj=lock)  # type: ignore[arg-type]


class _Workers:
    """Who is at work on a journal: one locked file a worker, in a folder beside it."""

    def __init__(self, journal: Path) -> None:
        self._folder = journal.with_name(journal.name + ".workers")
        self.own = uuid.uuid4().hex
        self._lock: _Lock | None = _Lock(self._folder / self.own)
        self._folder.mkdir(exist_ok=True)
        try:
            self._lock.acquire()
        except ImportError:  # no fcntl on Windows: workers are taken to be alive
            self._lock = None

    def alive(self, worker: str) -> bool:
        """Whether a worker still runs."""
        if self._lock is None:
            return True
        path = self._folder / worker
        if not path.exists():
            return False
        lock = _Lock(path)
        if not lock.acquire(wait=False):
            return True
        path.unlink(missing_ok=True)
        lock.release()
        return False

    def others_alive(self) -> bool:
        """Whether any other worker runs."""
        return any(self.alive(each) for each in self._names() if each != self.own)

    def _names(self) -> Iterator[str]:
        return (each.name for each in list(self._folder.iterdir()))

    def close(self) -> None:
        """Be no longer at work, and clear away what killed workers have left."""
        if self._lock is None:
            return
        for each in self._names():
            if each != self.own:
                self.alive(each)
        (self._folder / self.own).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None
