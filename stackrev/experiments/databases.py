"""A study in a database: its address, which may hold a password, and how any number of workers open it at once.

Nothing of an address is ever shown but the kind of database, and no message of a library in which a secret of the
address occurs: what cannot be seen in a log need not be taken out of it.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus

from stackrev.errors import MissingExtraError, StackrevError, StudyError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

HEARTBEAT_SECONDS = 15
GRACE_SECONDS = 60
"""How long after its last heartbeat a worker is taken to be gone."""
OPENING_SECONDS = 60.0
"""For how long a database that others are just making is tried."""
BUSY_SECONDS = 60
"""How long SQLite waits for another writer."""

# Parts of an address that are no secret.
_PLAIN = ("host", "hostaddr", "port", "dbname", "user", "sslmode", "connect_timeout", "application_name", "charset")
_POSTGRES = re.compile(r"postgres(ql)?://")
_PACKAGES = {"MySQLdb": "mysqlclient", "pymysql": "PyMySQL", "psycopg": "psycopg[binary]", "cx_Oracle": "cx-Oracle"}


def normal(address: str) -> str:
    """An address with its driver: PostgreSQL is spoken to through psycopg, whatever SQLAlchemy's own choice is.

    Raises:
        StudyError: It is not an address of a database.
    """
    if not re.match(r"[A-Za-z][\w+.-]*://", address):
        raise StudyError("the --storage is not an address of a database", hint="write postgresql://user@host/database")
    return _POSTGRES.sub("postgresql+psycopg://", address, count=1)


def kind(address: str) -> str:
    """What may be said of an address: the kind of its database."""
    return re.split(r"[:+]", address, maxsplit=1)[0]


def secrets(address: str) -> set[str]:
    """Whatever in an address may be a secret, as it is written and as it is meant."""
    rest = address.partition("://")[2] or address
    account, _, _ = rest.rpartition("@")
    user, _, password = account.partition(":")
    found = {password, *user.split("@")[1:]}
    query = rest.partition("?")[2] if "://" in address else address
    for name, equals, value in (each.partition("=") for each in re.split(r"[&;\s]+", query)):
        if name.lower() not in _PLAIN:
            found.add(value if equals else name)
    found |= {piece for each in found for piece in re.split(r"[@:/?#&=;\s]+", each)}
    found |= {unquote(each) for each in found} | {unquote_plus(each) for each in found}
    found |= {repr(each)[1:-1] for each in found}
    return found - {""}


def explain(error: BaseException, address: str) -> str:
    """What a library's error says, in one line, unless it tells a secret of the address."""
    told = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    name = type(told).__name__
    if isinstance(told, AssertionError | LookupError | TypeError | AttributeError | RecursionError):
        return f"what it holds does not fit together ({name})"
    text = next(filter(None, map(str.strip, str(told).splitlines())), name)
    if any(secret in text for secret in secrets(address)):
        return f"{name}, of which no more is shown because it repeats a part of the address"
    return text


def without_secrets(error: BaseException, address: str) -> BaseException:
    """An error to chain in place of a library's: the same place, and nothing that tells a secret."""
    return RuntimeError(f"{type(error).__name__}: {explain(error, address)}").with_traceback(error.__traceback__)


def open_storage(address: str) -> RDBStorage:
    """A database as Optuna's storage, its tables made if need be.

    Several workers may do this at once with a database that is new. Then all make the same tables, and all but one
    fail at each; what they failed at is there when they try again.

    Raises:
        StudyError: The database cannot be reached or used.
        MissingExtraError: Its driver is not installed.
    """
    import optuna
    import sqlalchemy

    arguments: dict[str, Any] = {"timeout": BUSY_SECONDS} if kind(address) == "sqlite" else {}
    options: dict[str, Any] = {"connect_args": arguments, "pool_pre_ping": True}
    try:
        _check_driver(address)
        engine = sqlalchemy.create_engine(address, **options)
        with engine.connect():
            pass
        engine.dispose()
    except ImportError as error:
        raise _missing(error) from None
    end = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            return optuna.storages.RDBStorage(
                address.replace("{", "{{").replace("}", "}}"),  # Optuna takes an address for a template
                engine_kwargs=dict(options),
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
            )
        except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError, AssertionError):
            # AssertionError: another has made the table of versions and not yet filled it.
            if time.monotonic() > end:
                raise
            time.sleep(random.uniform(0.02, 0.2))


def _check_driver(address: str) -> None:
    if address.startswith("postgresql+psycopg://"):
        importlib.import_module("psycopg")


def _missing(error: ImportError) -> MissingExtraError:
    name = (error.name or "").partition(".")[0]
    if name == "psycopg" or "pq wrapper" in str(error):
        return MissingExtraError("a study in PostgreSQL needs psycopg", hint="pip install 'stackrev[postgres]'")
    package = _PACKAGES.get(name, name or "its driver")
    return MissingExtraError(f"this kind of database needs the package {package}", hint=f"pip install {package}")


class Heartbeats:
    """Who is at work on a study in a database: a worker's trials get a heartbeat for as long as it lives.

    Args:
        storage: The database.
        study: The study.
    """

    def __init__(self, storage: RDBStorage, study: Study) -> None:
        self._storage, self._study = storage, study
        self.name = token_hex(16)
        self._trials: set[int] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def start(self, trial: int) -> None:
        """Have a trial of this worker live."""
        self._storage.record_heartbeat(trial)
        self._trials.add(trial)
        if self._thread.ident is None:
            self._thread.start()

    def stop(self, trial: int) -> None:
        """Let go of a trial of this worker."""
        self._trials.discard(trial)

    def refresh(self, waiting: Sequence[FrozenTrial]) -> None:
        """See to it that a trial that is about to be taken up again is not taken for one that has lost its worker."""
        for each in waiting:
            self._storage.record_heartbeat(each._trial_id)

    def gone(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Fail the running trials whose workers are gone; none is left for the caller to fail."""
        import optuna

        if running:
            optuna.storages.fail_stale_trials(self._study)
        return []

    def alone(self) -> bool:
        """Whether there is no other worker; never known here."""
        return False

    def close(self) -> None:
        """Stop working."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS):
            for trial in tuple(self._trials):
                # Where the database is away for longer, the trial's next report says so.
                with contextlib.suppress(Exception):
                    self._storage.record_heartbeat(trial)
        self._storage.remove_session()


@contextlib.contextmanager
def telling_nothing(address: str, what: str) -> Iterator[None]:
    """Turn every error of a library from inside into one that tells no secret of the address.

    Raises:
        StudyError: There was one.
    """
    try:
        yield
    except StackrevError:
        raise
    except Exception as error:
        raise StudyError(f"{what}: {explain(error, address)}") from without_secrets(error, address)
