"""Which seeds of a setting have been run, are being run and are still to be run, for workers that share them.

In a folder, results are the lines of `seeds.jsonl`, and a seed that is being run is a locked file: the system lets go
of it when the worker dies, however it dies. In a database seeds are the trials of a study; see `studies`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stackrev.errors import ConfigError, LockedError, MissingFileError, StudyError
from stackrev.experiments.runs import environment, read_result
from stackrev.experiments.setting import SETTING, ExperimentSetting, parse_json, read_setting
from stackrev.experiments.studies import LostTrialError, Study
from stackrev.experiments.tables import summarise
from stackrev.storage import files, locks

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LINES = "seeds.jsonl"
SUMMARY = "summary.json"
LARGEST = 2**30
"""How many bytes a `seeds.jsonl` may have."""

_CLAIMS = ".seeds"
_LOCK_SECONDS = 60.0


class Seeds(Protocol):
    """The seeds of a setting, as workers share them."""

    def results(self) -> Mapping[int, dict[str, Any]]:
        """The results there are, by seed."""

    def take(self, wanted: Sequence[int]) -> int | None:
        """A seed to be run now, which nobody else runs from now on; None if there is none."""

    def keep(self, result: Mapping[str, Any]) -> None:
        """Write down the result of a seed that was taken."""

    def put_back(self, seed: int) -> None:
        """A seed that was taken is not run after all."""

    def close(self) -> None:
        """Take no more."""


class Folder:
    """An experiment's folder: `setting.json`, `seeds.jsonl`, `summary.json`.

    Args:
        path: The folder; made if need be.
        setting: What is run.

    Attributes:
        path: As given.
        setting: As stored.

    Raises:
        StudyError: It holds another setting, or cannot be read or written.
    """

    def __init__(self, path: Path, setting: ExperimentSetting) -> None:
        self.path = path
        self._results: dict[int, dict[str, Any]] = {}
        self._read = (0, 0)  # of which file how many bytes have been read
        self._claims: dict[int, locks.Lock] = {}
        with files.raising(StudyError):
            files.make_folder(path)
            with locks.lock(path, seconds=_LOCK_SECONDS):
                if not (path / SETTING).exists():
                    raw = {**setting.to_dict(), "environment": environment()}
                    files.write(path / SETTING, (json.dumps(raw, indent=2) + "\n").encode())
        self.setting = read_setting(path)
        if not self.setting.same(setting):
            raise StudyError(f"{path} holds runs of another setting", hint="give each setting a folder of its own")

    def results(self) -> Mapping[int, dict[str, Any]]:
        """The results in the folder, by seed, as far as their lines are whole.

        Raises:
            StudyError: A line is not a result.
        """
        lines = self.path / LINES
        with files.raising(StudyError), contextlib.suppress(MissingFileError), files.opened(lines, LARGEST) as file:
            which = (self.path / LINES).stat().st_ino
            if self._read[0] != which:  # it has been put in order
                self._results, self._read = {}, (which, 0)
            file.seek(self._read[1])
            for line in file:
                if line.endswith(b"\n"):
                    result = _result(line, lines)
                    self._results[result["seed"]] = result
                    self._read = (which, self._read[1] + len(line))
        return self._results

    def take(self, wanted: Sequence[int]) -> int | None:
        """See `Seeds`."""
        for seed in wanted:
            if seed in self._results or seed in self._claims:
                continue
            with files.raising(StudyError):
                files.make_folder(self.path / _CLAIMS)
                claim = locks.Lock(self.path / _CLAIMS / str(seed))
                try:
                    claim.acquire()
                except LockedError:
                    continue
            if seed in self.results():  # another worker was faster
                claim.release()
                continue
            self._claims[seed] = claim
            return seed
        return None

    def keep(self, result: Mapping[str, Any]) -> None:
        """See `Seeds`."""
        with files.raising(StudyError), locks.lock(self.path, seconds=_LOCK_SECONDS):
            files.append(self.path / LINES, _line(result))
        self.put_back(result["seed"])

    def put_back(self, seed: int) -> None:
        """See `Seeds`."""
        if seed in self._claims:
            self._claims.pop(seed).release()

    def add(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Write down results that were kept elsewhere."""
        known = self.results()
        if lines := b"".join(_line(each) for each in results if each["seed"] not in known):
            with files.raising(StudyError), locks.lock(self.path, seconds=_LOCK_SECONDS):
                files.append(self.path / LINES, lines)

    def finish(self) -> dict[str, Any]:
        """Put the lines in order and write the summary of all of them; returns it."""
        with files.raising(StudyError), locks.lock(self.path, seconds=_LOCK_SECONDS):
            results = [result for _, result in sorted(self.results().items())]
            ordered = b"".join(map(_line, results))
            with contextlib.suppress(MissingFileError):
                if files.read_bytes(self.path / LINES, LARGEST) != ordered:
                    files.write(self.path / LINES, ordered)
            summary = summarise(self.setting.name, results)
            files.write(self.path / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
        return summary

    def close(self) -> None:
        """See `Seeds`."""
        for seed in tuple(self._claims):
            self.put_back(seed)
        with contextlib.suppress(OSError):
            (self.path / _CLAIMS).rmdir()  # unless others have claims


def read_seeds(folder: Path) -> dict[int, dict[str, Any]]:
    """The results in a folder, by seed; a line that a killed run left unfinished does not count.

    Raises:
        StudyError: A line is not a result.
    """
    path, results = folder / LINES, {}
    with files.raising(StudyError), contextlib.suppress(MissingFileError):
        for line in files.read_lines(path, LARGEST):
            if line.endswith(b"\n"):
                result = _result(line, path)
                results[result["seed"]] = result
    return dict(sorted(results.items()))


def _result(line: bytes, path: Path) -> dict[str, Any]:
    try:
        return read_result(parse_json(line))
    except (ValueError, StudyError) as error:
        raise StudyError(f"{path} has a line that is not the result of a seed: {error}", hint="move it away") from error


def _line(result: Mapping[str, Any]) -> bytes:
    return (json.dumps(result, separators=(",", ":")) + "\n").encode()


class Shared:
    """The seeds of a setting in a database, each a trial of a study.

    Args:
        study: The study.
        setting: What is run.

    Raises:
        StudyError: The study is of another setting.
    """

    def __init__(self, study: Study, setting: ExperimentSetting) -> None:
        self._study = study
        self._claims: dict[int, FrozenTrial] = {}
        try:
            same = ExperimentSetting.from_dict(study.settings(setting.to_dict())).same(setting)
        except ConfigError:
            same = False
        if not same:
            raise StudyError(f"the study {study.name!r} is of another setting", hint="give another --study")

    def results(self) -> Mapping[int, dict[str, Any]]:
        """See `Seeds`."""
        found = {}
        for trial in self._study.trials():
            if trial.state.name == "COMPLETE" and "seed" in trial.user_attrs:
                try:
                    result = read_result(trial.user_attrs.get("result"))
                except StudyError as error:
                    raise StudyError(f"trial {trial.number} of the study is damaged: {error.message}") from error
                found[result["seed"]] = result
        return found

    def take(self, wanted: Sequence[int]) -> int | None:
        """See `Seeds`."""
        self._study.fail_stale()
        held = self._held()
        for seed in wanted:
            if seed not in held:
                self._study.enqueue({"seed": seed})
                held = self._held()  # where several do this at once, the lowest number counts
            if held[seed].state.name == "WAITING" and self._study.start(held[seed]):
                self._claims[seed] = held[seed]
                return seed
        return None

    def _held(self) -> dict[int, FrozenTrial]:
        """The trial that counts of each seed."""
        held: dict[int, FrozenTrial] = {}
        for trial in self._study.trials():
            seed = trial.user_attrs.get("seed")
            if type(seed) is int and trial.state.name != "FAIL":
                held.setdefault(seed, trial)
        return held

    def keep(self, result: Mapping[str, Any]) -> None:
        """See `Seeds`."""
        trial = self._claims.pop(result["seed"])
        with contextlib.suppress(LostTrialError):  # whoever took it over will get the same
            self._study.complete(trial, "result", dict(result), float(result["solved_batch"] is not None))

    def put_back(self, seed: int) -> None:
        """See `Seeds`."""
        with contextlib.suppress(LostTrialError):
            self._study.put_back(self._claims.pop(seed))

    def add(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Write down results that were kept elsewhere."""
        known = self.results()
        for result in results:
            if result["seed"] not in known and self.take([result["seed"]]) is not None:
                self.keep(result)

    def close(self) -> None:
        """See `Seeds`."""
        for seed in tuple(self._claims):
            self.put_back(seed)
        self._study.close()
