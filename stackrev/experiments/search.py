"""Hyperparameter search: which settings a model learns best and soonest with.

A trial trains one configuration and is worth the mean of its validation fine accuracy over its checks, those after an
early end counting as the last: it rewards what is learned, and how soon. Trials that fall behind the others at a check
are pruned. How workers share a study is in `studies`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stackrev.config import Between, from_dict, settings, to_dict
from stackrev.errors import ConfigError, StudyError, TrainingError, did_you_mean
from stackrev.experiments.studies import LostTrialError, OnWait, Study, Work, require
from stackrev.kinds.config import Config, read_config

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from stackrev.config import Space


def space_of(config: Config) -> dict[str, Space]:
    """What a search may vary, and over which values, by the settings' names."""
    classes: list[Any] = [type(config.model), type(config.training)]
    return {name: each.search for cls in classes for name, each in settings(cls).items() if each.search}


class Step(NamedTuple):
    """How far a trial has come.

    Attributes:
        number: Its number.
        batch: Batches learned from.
        batches: How many it may have.
        loss: The last one's, in nats a symbol.
        fine: The validation fine accuracy at the last check; None before the first.
    """

    number: int
    batch: int
    batches: int
    loss: float
    fine: float | None


@dataclass(frozen=True)
class Result:
    """One trial.

    Attributes:
        number: Its number in the study.
        state: "complete", "pruned", "running" or "failed".
        value: The mean of its validation fine accuracy; for a trial that did not end, of what it had.
        settings: What was tried, by name.
        outcome: What came of it: `validation` and `test` fine accuracy, `solved_batch`, `batches`, `seconds`, and
            `error` if it could not go on.
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
OnStep = Callable[[Step], object]


class Search:
    """One worker's view of a search; `Search.show` for one that only looks.

    Args:
        name: The study's name.
        base: What every trial starts from.
        over: Which settings vary, of `space_of(base)`; all of them if None.
        journal: The study's file; made if need be.
        storage: A database's address, in place of a journal.
        prune: Whether trials that fall behind are given up.
        settle_batches: How long the best of them will settle when it is trained; only written down.

    Attributes:
        base: As given.
        over: What varies.
        settle_batches: As given.

    Raises:
        MissingExtraError: Optuna, or the database's driver, is not installed.
        StudyError: The study cannot be opened, or is of other settings.
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
        settle_batches: int | None = None,
    ) -> None:
        require()
        import optuna

        space = space_of(base)
        self.over = tuple(name for name in space if over is None or name in over)
        if unknown := [name for name in over or () if name not in space]:
            raise ConfigError(f"a search cannot vary {unknown[0]!r}", hint=did_you_mean(unknown[0], list(space)))
        self.base, self.settle_batches = base, settle_batches
        warmup = 2 * base.training.check_every
        self._study = Study(
            name,
            journal=journal,
            storage=storage,
            sampler=lambda: optuna.samplers.TPESampler(constant_liar=True, multivariate=True),
            pruner=lambda: optuna.pruners.MedianPruner(n_warmup_steps=warmup) if prune else optuna.pruners.NopPruner(),
        )
        setting = {"base": to_dict(base), "over": list(self.over), "prune": prune, "settle_batches": settle_batches}
        try:
            if not _same(self._study.settings(setting), base, self.over, prune):
                raise StudyError(
                    f"the study {name!r} was started with other options",
                    hint="give the command that started it, or another --study; --trials 0 shows it",
                )
            if self._study.new:
                self._study.propose(
                    {each: value for each in self.over if _reachable(space[each], value := self._value(each))}
                )
        except BaseException:
            self._study.close()
            raise

    @classmethod
    def show(cls, name: str, *, journal: Path | None = None, storage: str | None = None) -> Search:
        """A search that is there already, to be looked at: its settings are its own, and it does no work.

        Raises:
            MissingExtraError: Optuna, or the database's driver, is not installed.
            StudyError: It is not there, or is damaged.
        """
        study = Study(name, journal=journal, storage=storage, make=False)
        self = cls.__new__(cls)
        self._study = study
        try:
            stored = study.settings()
            self.base = read_config(stored["base"])
            self.over = tuple(each for each in space_of(self.base) if each in stored["over"])
            settle = stored.get(
                "settle_batches", Config.default(self.base.model.kind, self.base.data.task).training.settle_batches
            )
            self.settle_batches = settle if isinstance(settle, int) else None
        except (KeyError, TypeError, AttributeError, ConfigError):
            study.close()
            raise StudyError(f"the study {name!r} is not a search", hint="--study chooses another") from None
        return self

    def work(
        self,
        trials: int,
        *,
        on_result: OnResult | None = None,
        on_step: OnStep | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        """Run trials until the study has so many in all, those of other workers included.

        An interrupted trial is put back: whoever looks for work next starts it again.

        Args:
            trials: How many the study is to have.
            on_result: Called after each trial of this worker.
            on_step: Called after each batch of a trial.
            on_wait: Called with the number of other workers' trials, as long as they are waited for.
        """
        while (work := self._study.take(trials, on_wait=on_wait)) is not None:
            try:
                self._run(work, on_step or (lambda step: None))
            except LostTrialError:
                continue
            except BaseException:
                work.put_back()
                raise
            if on_result is not None:
                on_result(self._result(self._study.trials()[work.number]))

    def results(self) -> list[Result]:
        """All trials that have been started, by number."""
        return [self._result(each) for each in self._study.trials() if each.state.name != "WAITING"]

    def best(self, count: int | None = None) -> list[Result]:
        """The best trials that were trained to their end, best first; earlier ones first among equals."""
        done = [each for each in self.results() if each.state == "complete"]
        return sorted(done, key=lambda each: -(each.value or 0.0))[:count]

    def close(self) -> None:
        """Let go of what tells other workers that this one lives."""
        self._study.close()

    def _run(self, work: Work, on_step: OnStep) -> None:
        """Train a trial to its end, or until it falls behind."""
        from stackrev.training.events import CheckEvent, Event
        from stackrev.training.trainer import Trainer

        space = space_of(self.base)
        config = self._apply({name: work.suggest(_asking(name, space[name])) for name in self.over})
        trainer = Trainer(config)
        fine: list[float] = []
        loss = math.nan

        def watch(event: Event) -> None:
            nonlocal loss
            loss = event.loss
            if isinstance(event, CheckEvent):
                fine.append(event.validation.fine)
                work.report(event.validation.fine, event.batch)
            on_step(Step(work.number, event.batch, config.training.batches, loss, fine[-1] if fine else None))
            if isinstance(event, CheckEvent) and not trainer.done and work.should_stop():
                raise _Behind

        checks = -(-config.training.batches // config.training.check_every)
        try:
            trainer.run(watch)
        except _Behind:
            work.note("outcome", _outcome(trainer.progress))
            work.finish(None)
        except TrainingError as error:
            work.note("error", error.message)
            work.finish(sum(fine) / checks)
        else:
            work.note("outcome", _outcome(trainer.progress))
            work.finish((sum(fine) + (checks - len(fine)) * fine[-1]) / checks)

    def _result(self, trial: FrozenTrial) -> Result:
        """A trial as it is stored, read strictly.

        Raises:
            StudyError: It is not one of a search.
        """
        try:
            checks = list(trial.intermediate_values.values())
            value = trial.value if trial.state.name == "COMPLETE" else sum(checks) / len(checks) if checks else None
            outcome = {**_read_outcome(trial.user_attrs.get("outcome", {})), **_read_error(trial.user_attrs)}
            tried = {name: trial.params[name] for name in self.over if name in trial.params}
            state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
            return Result(trial.number, state, _finite(value), tried, outcome, self._apply(tried))
        except (ConfigError, TypeError, ValueError, OverflowError) as error:
            raise StudyError(
                f"trial {trial.number} of the study is damaged: {error}", hint="start another study"
            ) from error

    def _value(self, name: str) -> Any:
        return getattr(self.base.model if hasattr(self.base.model, name) else self.base.training, name)

    def _apply(self, tried: Mapping[str, Any]) -> Config:
        raw = to_dict(self.base)
        for name, value in tried.items():
            raw["model" if hasattr(self.base.model, name) else "training"][name] = value
        return from_dict(Config, raw)


class _Behind(Exception):
    """A trial has fallen behind the others."""


def _same(stored: Any, base: Config, over: Sequence[str], prune: bool) -> bool:
    """Whether a study is of these settings."""
    try:
        return (read_config(stored["base"]), tuple(stored["over"]), stored["prune"]) == (base, tuple(over), prune)
    except (KeyError, TypeError, ConfigError):
        return False


def _asking(name: str, space: Space) -> Callable[[Trial], Any]:
    match space:
        case Between(int(), int()):
            return lambda trial: trial.suggest_int(name, int(space.low), int(space.high))
        case Between(low, high, log):
            return lambda trial: trial.suggest_float(name, low, high, log=log)
        case choices:
            return lambda trial: trial.suggest_categorical(name, choices)


def _reachable(space: Space, value: Any) -> bool:
    """Whether a value is among those that a search tries."""
    return space.low <= value <= space.high if isinstance(space, Between) else value in space


def _outcome(progress: Any) -> dict[str, Any]:
    """What came of a trial that has been checked."""
    last = progress.history[-1]
    return {
        "validation": last["validation"]["fine"],
        "test": last["test"]["fine"],
        "solved_batch": progress.solved_batch,
        "batches": progress.batch,
        "seconds": round(progress.seconds, 2),
    }


def _read_outcome(stored: Any) -> dict[str, Any]:
    names = ("validation", "test", "solved_batch", "batches", "seconds")
    if not isinstance(stored, dict):
        raise TypeError("its outcome is not an object")
    return {name: _finite(stored[name]) for name in names if name in stored}


def _read_error(attributes: Mapping[str, Any]) -> dict[str, str]:
    error = attributes.get("error")
    if error is not None and not isinstance(error, str):
        raise TypeError("its error is not a text")
    return {} if error is None else {"error": error}


def _finite(value: Any) -> Any:
    """A number, or None.

    Raises:
        TypeError: It is something else.
        ValueError: It is not finite.
    """
    if value is None or type(value) is int:
        return value
    if type(value) is not float:
        raise TypeError(f"{value!r:.40} is not a number")
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value
