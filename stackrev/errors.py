"""The errors that stackrev expects to meet, each one line and a hint."""

from __future__ import annotations

from collections.abc import Sequence


class StackrevError(Exception):
    """Base of every expected error: a one-line message and, where there is one, what to do next.

    Args:
        message: What went wrong, in one line.
        hint: What the user can do about it, in one line.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


FEW = 8
"""So many names are all listed beside the one that is most like what was given."""


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """A hint for a name that there is not: the one that is most like it, and all that there are if they are few."""
    from difflib import get_close_matches

    by_lower = {each.lower(): each for each in names}
    close = get_close_matches(name.lower(), by_lower, n=1)
    if not close:
        close = [each for each in by_lower if name and each.startswith(name.lower())]
    every = f"there are {', '.join(names)}"
    if not close:
        return every
    guess = f"did you mean {by_lower[close[0]]}?"
    return f"{guess} {every}" if len(names) <= FEW else guess


class NotFoundError(StackrevError):
    """What somebody has named is not there. On the command line that is wrong usage, whatever it is."""


class ConfigError(StackrevError):
    """A configuration has an unknown key, a wrong type or a value out of range."""


class VocabularyError(StackrevError):
    """A text or an id has no place in the vocabulary."""


class DataError(StackrevError):
    """A data file, or a request for data, is malformed."""


class DataNotFoundError(DataError, NotFoundError):
    """A data file is not there."""


class FileError(StackrevError):
    """A file cannot be read, written or locked."""


class MissingFileError(FileError, NotFoundError):
    """There is no such file."""


class LockedError(FileError):
    """Somebody else holds a lock.

    Args:
        message: See `StackrevError`.
        hint: See `StackrevError`.
        pid: The process that holds it, where that is known.
    """

    def __init__(self, message: str, *, hint: str | None = None, pid: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class CheckpointError(StackrevError):
    """A checkpoint cannot be found, read, verified or written."""


class ModelNotFoundError(CheckpointError, NotFoundError):
    """No model has the name that was asked for."""


class HubError(StackrevError):
    """The Hugging Face Hub refused, failed or could not be reached."""


class TrainingError(StackrevError):
    """A training run cannot start, go on or resume."""


class RunNotFoundError(TrainingError, NotFoundError):
    """A folder holds no run to go on with."""


class StudyError(StackrevError):
    """A study, or an experiment, cannot be opened, read or written, or is of something else."""


class StudyNotFoundError(StudyError, NotFoundError):
    """There is no such study, experiment or seed."""


class NativeError(StackrevError):
    """The native kernels were asked for and cannot be used."""


class MissingExtraError(StackrevError):
    """A command needs an optional package that is not installed."""
