"""A study in a file: a journal of JSON lines, read strictly, and who is at work on it.

The journal is Optuna's: one line for each thing that happened to a study. Anybody may have written it, so each record
is checked before it is used, and nothing in it ever becomes a path. Lines are added whole, under a lock, and are on
disk before anything else is done; a line that a killed writer left unfinished is cut off by the next one.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.errors import FileError, LockedError, MissingFileError, StudyError
from stackrev.storage import files, locks

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LARGEST = 2**30
"""How many bytes a journal may have."""
LONGEST = 2**20
"""How many bytes a line of it may have; the longest that a search writes has some thousands."""
_LOCK_SECONDS = 60.0
_NUMBER, _TEXT = (int, float), (str,)
_ID = (int,)
_MAYBE_TEXT = (str, type(None))

# What each operation's record must have, by its number; see optuna.storages.journal.
_RECORDS: Mapping[int, Mapping[str, tuple[type, ...]]] = {
    0: {"study_name": _TEXT, "directions": (list,)},
    1: {"study_id": _ID},
    2: {"study_id": _ID, "user_attr": (dict,)},
    3: {"study_id": _ID, "system_attr": (dict,)},
    4: {"study_id": _ID, "datetime_start": _MAYBE_TEXT},
    5: {"trial_id": _ID, "param_name": _TEXT, "param_value_internal": _NUMBER, "distribution": _TEXT},
    6: {"trial_id": _ID, "state": (int,), "values": (list, type(None))},
    7: {"trial_id": _ID, "step": (int,), "intermediate_value": _NUMBER},
    8: {"trial_id": _ID, "user_attr": (dict,)},
    9: {"trial_id": _ID, "system_attr": (dict,)},
    10: {},
}
# What it may have.
_OPTIONAL: Mapping[str, tuple[type, ...]] = dict.fromkeys(
    ("user_attrs", "system_attrs", "params", "distributions", "intermediate_values"), (dict,)
)


class Journal:
    """The journal as Optuna's storage wants it: a backend that reads and appends records.

    Args:
        path: The file; made when the first record is written.

    Raises:
        StudyError: It is not a journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = (0, 0)  # the number of the record after the last one read, and where it begins

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from a number on, as far as their lines are whole."""
        number, place = self._next if self._next[0] <= log_number_from else (0, 0)
        for line in self._lines(place):
            if not line.endswith(b"\n"):  # being written, or never to be finished
                return
            number, place = number + 1, place + len(line)
            record = self._read(line, number)
            if number > log_number_from:
                self._next = (number, place)
                yield record

    def append_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """Add records."""
        lines = b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in logs)
        with files.raising(StudyError):
            lock = locks.Lock(self._path.with_name(self._path.name + ".lock"))
            lock.acquire(_LOCK_SECONDS)
            with lock:
                files.append(self._path, lines)

    def _lines(self, place: int) -> Iterator[bytes]:
        try:
            with files.opened(self._path, LARGEST) as file:
                file.seek(place)
                while line := file.readline(LONGEST + 1):
                    yield line
        except MissingFileError:
            return
        except FileError as error:
            raise StudyError(error.message, hint=error.hint) from error

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line) if len(line) <= LONGEST else None
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not _is_record(record):
            raise StudyError(
                f"{self._path}, line {number}, is not a record of a study",
                hint="move the file away, or give another --journal",
            )
        return record


def _is_record(record: Mapping[str, Any]) -> bool:
    operation = record.get("op_code")
    if type(operation) is not int or operation not in _RECORDS or not isinstance(record.get("worker_id"), str):
        return False
    fields = {**{name: types for name, types in _OPTIONAL.items() if name in record}, **_RECORDS[operation]}
    return all(name in record and type(record[name]) in types for name, types in fields.items())


class Workers:
    """Who is at work on a journal: one locked file for each worker, in a folder beside it.

    The system lets go of the lock when its worker dies, however it dies.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Path) -> None:
        self._folder = journal.with_name(journal.name + ".workers")
        with files.raising(StudyError):
            files.make_folder(self._folder)
        if self._folder.is_symlink() or not self._folder.is_dir():
            raise StudyError(f"{self._folder} is not a folder", hint="move it away, or give another --journal")
        self.name = secrets.token_hex(16)
        self._lock = locks.Lock(self._folder / self.name)
        with files.raising(StudyError):
            self._lock.acquire(_LOCK_SECONDS)  # another worker may be looking whether it is held

    def start(self, trial: int) -> None:
        """Have a trial of this worker live: its lock says so already."""

    def stop(self, trial: int) -> None:
        """Let go of a trial of this worker."""

    def refresh(self, waiting: Sequence[FrozenTrial]) -> None:
        """See to it that a trial that is about to be taken up again is not taken for one that has lost its worker."""

    def gone(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those of the running trials whose workers are gone, as far as they tell whose they are."""
        named = [each for each in running if "worker" in each.user_attrs]
        living = self._living() if named else set()
        return [each for each in named if str(each.user_attrs["worker"]) not in living]

    def alone(self) -> bool:
        """Whether there is no other worker."""
        return self._living() == {self.name}

    def _living(self) -> set[str]:
        """The names of the workers at work. What dead ones have left is removed."""
        living = {self.name}
        with contextlib.suppress(OSError):
            for path in tuple(self._folder.iterdir()):
                name = path.name
                if name == self.name or not re.fullmatch("[0-9a-f]{32}", name):
                    continue
                lock = locks.Lock(path)
                try:
                    lock.acquire()
                except LockedError:
                    living.add(name)
                except FileError:
                    continue  # not a worker's
                else:
                    lock.release()
        return living

    def close(self) -> None:
        """Stop working, and clear away what killed workers have left."""
        if self._lock.held:
            self._living()
            self._lock.release()
