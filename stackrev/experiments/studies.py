"""Studies: numbered trials that any number of workers share, in a journal or in a database.

**Nothing is lost and nothing repeated.** A study is asked for N trials in all. A worker takes the next one only while
fewer than N are done or running; where several take the last place at once, the lowest numbers keep it, and the others
are put back. A worker that is killed leaves its trial running, and others find that out: beside a journal every worker
holds a lock on a file of its own for as long as it lives, and in a database its trials get a heartbeat. What has lost
its worker is failed, and makes room for another. A worker that has nothing left to do waits for the trials of others,
so that whoever comes to an end leaves a study that is complete.

Every call of Optuna's goes through `Study`, which turns what may go wrong in it into one line, and keeps quiet what
Optuna warns of: parts that it calls experimental.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import MissingExtraError, StackrevError, StudyError, StudyNotFoundError
from stackrev.experiments import databases
from stackrev.experiments.journal import Journal, Workers
from stackrev.storage import files

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

UNCLAIMED_SECONDS = 60.0
"""After how long a running trial that names no worker is taken to have lost it."""
WAIT_SECONDS = 0.5
"""How often a worker without work looks what the others do."""

OnWait = Callable[[int], object]
"""Called with the number of other workers' trials that are waited for."""


def require() -> None:
    """Make sure that Optuna can be imported, and that it is quiet.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("a study needs optuna", hint="pip install 'stackrev[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class LostTrialError(StudyError):
    """Another worker has taken this one to be gone, and failed its trial."""


class Study:
    """One worker's view of a study.

    Args:
        name: The study's name.
        journal: The study's file.
        storage: A database's address, in place of a journal.
        sampler: How new trials are drawn; Optuna's.
        pruner: Which trials are given up; Optuna's.
        make: Whether the study is made if it is not there.

    Attributes:
        name: As given.
        new: Whether this worker has made it.

    Raises:
        MissingExtraError: Optuna, or the database's driver, is not installed.
        StudyError: The study cannot be opened, or is not there.
    """

    def __init__(
        self,
        name: str,
        *,
        journal: Path | None = None,
        storage: str | None = None,
        sampler: Callable[[], BaseSampler] | None = None,
        pruner: Callable[[], BasePruner] | None = None,
        make: bool = True,
    ) -> None:
        require()
        if journal is None and storage is None:
            raise StudyError("a study needs a journal or a storage")
        self.name, self.new = name, False
        self._address = None if storage is None else databases.normal(storage)
        self._journal = journal if storage is None else None
        self._unclaimed: dict[int, float] = {}
        self._workers: Workers | databases.Heartbeats | None = None
        with self._calling(f"cannot open the study {name!r}"):
            if self._journal is not None and not make and not self._journal.exists():
                raise StudyNotFoundError(f"there is no study in {journal}", hint="name its --journal or its --storage")
            self._storage = self._open()
            self._study = self._load(make, sampler, pruner)

    def _open(self) -> BaseStorage:
        import optuna

        if self._address is not None:
            return databases.open_storage(self._address)
        assert self._journal is not None
        return optuna.storages.JournalStorage(Journal(self._journal))  # type: ignore[arg-type]

    def _load(
        self, make: bool, sampler: Callable[[], BaseSampler] | None, pruner: Callable[[], BasePruner] | None
    ) -> optuna.Study:
        import optuna

        how: dict[str, Any] = {"study_name": self.name, "storage": self._storage}
        how |= {"sampler": sampler and sampler(), "pruner": pruner and pruner()}
        if make:
            if self._journal is not None:
                with files.raising(StudyError):
                    files.make_folder(self._journal.parent)
            with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
                made = optuna.create_study(direction="maximize", **how)
                self.new = True
                return made
        try:
            return optuna.load_study(**how)
        except KeyError:
            names = sorted(optuna.get_all_study_names(self._storage))
            known = f"there is {', '.join(names)}" if names else "there is none yet"
            raise StudyNotFoundError(f"there is no study {self.name!r}", hint=f"{known}; --study chooses") from None

    # What a study holds.

    def settings(self, own: Mapping[str, Any] | None = None) -> Any:
        """What the study's maker has written down of what is run in it.

        Args:
            own: What to write down if nothing is.
        """
        with self._calling("cannot read the study"):
            stored = self._study.user_attrs.get("setting")
            if stored is None and own is not None:  # it is new, or its maker died before this
                self._study.set_user_attr("setting", dict(own))
                stored = self._study.user_attrs.get("setting")
        return stored

    def trials(self) -> Sequence[FrozenTrial]:
        """All trials, by number."""
        with self._calling("cannot read the study"):
            return self._study.get_trials(deepcopy=False)

    def propose(self, settings: Mapping[str, Any]) -> None:
        """Have a trial with these settings tried next."""
        with self._calling("cannot write to the study"):
            self._study.enqueue_trial(dict(settings))

    # Trials of this worker.

    def take(self, total: int, *, on_wait: OnWait | None = None) -> Work | None:
        """The next trial to be run, if the study is to have so many; None if it has them.

        While it will have them if other workers end what they run, this waits for them.
        """
        import optuna

        states = optuna.trial.TrialState
        while True:
            self.fail_stale()
            trials = self.trials()
            running = sum(each.state == states.RUNNING for each in trials)
            done = sum(each.state in (states.COMPLETE, states.PRUNED) for each in trials)
            if done >= total:
                return None
            if done + running < total and (work := self._ask(total)) is not None:
                return work
            if on_wait is not None:
                on_wait(running)
            time.sleep(WAIT_SECONDS)

    def _ask(self, total: int) -> Work | None:
        import optuna

        states = optuna.trial.TrialState
        with self._calling("cannot take a trial"):
            workers = self._at_work()
            workers.refresh([each for each in self._study.get_trials(deepcopy=False) if each.state == states.WAITING])
            trial = self._study.ask()
            workers.start(trial._trial_id)
            trial.set_user_attr("worker", workers.name)
        work = Work(self, trial)
        before = sum(each.state != states.FAIL for each in self.trials() if each.number < trial.number)
        if before < total:
            return work
        work.put_back()
        return None

    # Trials by what they are asked to do, rather than by number.

    def enqueue(self, attributes: Mapping[str, Any]) -> None:
        """Add a trial that waits to be started."""
        import optuna

        with self._calling("cannot write to the study"):
            waiting = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs=dict(attributes))
            self._study.add_trial(waiting)

    def start(self, trial: FrozenTrial) -> bool:
        """Start a waiting trial, for this worker; whether no other was faster."""
        import optuna

        with self._calling("cannot take a trial"):
            workers = self._at_work()
            workers.refresh([trial])
            try:
                if not self._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.RUNNING):
                    return False
            except RuntimeError:  # it has come to its end
                return False
            workers.start(trial._trial_id)
            self._storage.set_trial_user_attr(trial._trial_id, "worker", workers.name)
        return True

    def complete(self, trial: FrozenTrial, name: str, outcome: Any, value: float) -> None:
        """Write down what came of a trial that was started."""
        import optuna

        with self._going_on(trial.number):
            self._storage.set_trial_user_attr(trial._trial_id, name, outcome)
            self._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.COMPLETE, [value])
            self._at_work().stop(trial._trial_id)

    def put_back(self, trial: FrozenTrial | Trial) -> None:
        """A trial that was started is not to be run now: whoever looks for work next starts it again."""
        import optuna

        with self._going_on(trial.number):
            self._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.WAITING)
            self._at_work().stop(trial._trial_id)

    @contextlib.contextmanager
    def _going_on(self, number: int) -> Iterator[None]:
        """Call Optuna about a trial of this worker's.

        Raises:
            LostTrialError: It is not this worker's any more.
            StudyError: Something else went wrong.
        """
        try:
            with self._calling(f"cannot go on with trial {number}"):
                yield
        except StackrevError:
            if self.trials()[number].state.is_finished():
                raise LostTrialError(f"trial {number} was failed by another worker") from None
            raise

    def fail_stale(self) -> None:
        """Fail the running trials whose workers are gone."""
        import optuna

        states = optuna.trial.TrialState
        running = [each for each in self.trials() if each.state == states.RUNNING]
        if not running:
            return
        with self._calling("cannot look after the study"):
            workers = self._at_work()
            for each in [*workers.gone(running), *self._never_claimed(running, workers)]:
                with contextlib.suppress(RuntimeError):  # another worker was faster
                    self._storage.set_trial_state_values(each._trial_id, states.FAIL)

    def _never_claimed(
        self, running: Sequence[FrozenTrial], workers: Workers | databases.Heartbeats
    ) -> list[FrozenTrial]:
        """The trials whose workers were gone before they could say whose they are."""
        nobodys = [each for each in running if "worker" not in each.user_attrs]
        now = time.monotonic()
        first = [self._unclaimed.setdefault(each.number, now) for each in nobodys]
        if nobodys and workers.alone():
            return nobodys
        return [each for each, since in zip(nobodys, first, strict=True) if now - since > UNCLAIMED_SECONDS]

    def _at_work(self) -> Workers | databases.Heartbeats:
        """What tells other workers that this one lives; from now on it does."""
        if self._workers is None:
            if self._journal is not None:
                self._workers = Workers(self._journal)
            else:
                self._workers = databases.Heartbeats(self._storage, self._study)  # type: ignore[arg-type]
        return self._workers

    def close(self) -> None:
        """Let go of what tells other workers that this one lives."""
        if self._workers is not None:
            self._workers.close()
        elif self._address is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        """Call Optuna: quietly, and what goes wrong is one line.

        Raises:
            StudyError: It went wrong.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with databases.telling_nothing(self._address or "", what):
                yield


class Work:
    """A trial that this worker runs.

    Attributes:
        number: Its number in the study.
    """

    def __init__(self, study: Study, trial: Trial) -> None:
        self.number = trial.number
        self._study, self._trial = study, trial

    def suggest(self, ask: Callable[[Trial], Any]) -> Any:
        """A value that the trial is to try."""
        with self._calling():
            return ask(self._trial)

    def report(self, value: float, step: int) -> None:
        """Tell how well it does after so many batches."""
        with self._calling():
            self._trial.report(value, step)

    def should_stop(self) -> bool:
        """Whether it has fallen behind the others."""
        with self._calling():
            return self._trial.should_prune()

    def note(self, name: str, value: Any) -> None:
        """Write something down with it."""
        with self._calling():
            self._trial.set_user_attr(name, value)

    def finish(self, value: float | None) -> None:
        """It is done, and worth so much; None if it was given up."""
        import optuna

        states = optuna.trial.TrialState
        with self._calling():
            self._study._study.tell(self._trial, value, states.PRUNED if value is None else None)
            self._study._at_work().stop(self._trial._trial_id)

    def put_back(self) -> None:
        """It is not to be run now: whoever looks for work next starts it again."""
        self._study.put_back(self._trial)

    def _calling(self) -> contextlib.AbstractContextManager[None]:
        return self._study._going_on(self.number)
