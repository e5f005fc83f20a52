"""Studies in databases: passwords that nobody sees, and workers that begin and die as they like."""

import builtins
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from importlib.util import find_spec
from urllib.parse import quote

import postgres_server
import pytest

from stackrev.errors import MissingExtraError, StudyError
from stackrev.experiments import databases
from stackrev.experiments.search import Search
from stackrev.kinds.config import Config

pytestmark = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra 'search'")
needs_server = pytest.mark.skipif(
    not postgres_server.installed() or find_spec("psycopg") is None, reason="needs PostgreSQL and the extra 'postgres'"
)

SMALL = (
    "--batch-size 4 --lengths 1-3 --test-lengths 4-5 --held-out-samples 10 --layers 1 --hidden-size 8 --stack-width 8 "
    "--no-prune --threads 1"
)
LEAKS = [
    "sqlite://u:{}@host/x.db",
    "sqlite://u:{}@/x.db",
    "postgresql://u:{}@127.0.0.1:1/x",
    "postgresql://u:{}@127.0.0.1:port/x",
    "postgresql+psycopg://u:{}@127.0.0.1:1/x",
    "postgresql+psycopg2://u:{}@127.0.0.1:1/x",
    "postgres://u:{}@127.0.0.1:1/x",
    "postgresql://u@127.0.0.1:1/x?password={}",
    "postgresql://u@127.0.0.1:1/x?sslmode=disable&passwd={}",
    "postgresql://127.0.0.1:1/x?user=u&password={}&connect_timeout=1",
    "postgresql://u@127.0.0.1:1/x?sslpassword={}",
    "postgresql://127.0.0.1:1/x?options={}",
    "mysql://u:{}@127.0.0.1:1/x",
    "nonsense://u:{}@host/x",
    "u:{}@host/x",
    "host=127.0.0.1 user=u password={} dbname=x",
    "//u:{}@host/x",
    "postgresql:u:{}@host/x",
]
PASSWORDS = ["PASSWORD", "PASS@WORD", "PASS/WORD", "PASS:WORD", "PASS%40WORD", "PASS WORD", "PASS{WORD}", "PASS\\WORD"]
PASSWORDS += ["PASS?WORD", "PASS#WORD", "PASS&WORD", "PASS=WORD", "PASS;WORD", "PASS]WORD", "[PASS", "PASS'WORD"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("address", LEAKS)
def test_no_error_shows_a_password(address, password):
    for written in {password, quote(password, safe="")}:
        with pytest.raises((StudyError, MissingExtraError)) as caught:
            Search("tiny", Config(), storage=address.format(written))
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.hint)
        assert "PASS" not in shown
        assert "WORD" not in shown


@pytest.mark.parametrize("debug", ["0", "1"])
@pytest.mark.parametrize("address", LEAKS[:3])
def test_the_command_shows_no_password(address, debug):
    command = [sys.executable, "-m", "stackrev", "search", "--json", "--storage", address.format("PASSWORD")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "STACKREV_DEBUG": debug}
    )
    assert done.returncode == 1
    assert "PASSWORD" not in done.stdout + done.stderr
    assert done.stderr


def test_what_is_no_secret_is_told(tmp_path):
    with pytest.raises(StudyError, match="unable to open database file"):
        Search("tiny", Config(), storage=f"sqlite:///{tmp_path}/nowhere/x.db")
    with pytest.raises(StudyError, match="nonsense"):
        Search("tiny", Config(), storage="nonsense://host/x")


@pytest.mark.parametrize("address", ["postgresql://u@127.0.0.1/x", "postgres://u@127.0.0.1/x"])
def test_without_psycopg_one_line_names_the_extra(monkeypatch, address):
    real = builtins.__import__
    monkeypatch.delitem(sys.modules, "psycopg", raising=False)

    def refuse(name, *more):
        if name.partition(".")[0] == "psycopg":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(databases.importlib, "import_module", refuse)
    with pytest.raises(MissingExtraError) as caught:
        Search("tiny", Config(), storage=address)
    assert "psycopg" in caught.value.message
    assert caught.value.hint == "pip install 'stackrev[postgres]'"


def test_another_missing_driver_is_named():
    with pytest.raises(MissingExtraError) as caught:
        Search("tiny", Config(), storage="mysql+pymysql://u@127.0.0.1/x")
    assert "PyMySQL" in caught.value.message


def test_what_optuna_calls_experimental_stays_quiet(tmp_path, monkeypatch):
    """Optuna 4.0 warns of more than its later versions do."""
    import optuna

    fail_stale_trials = optuna.storages.fail_stale_trials

    @optuna._experimental.experimental_func("2.9.0")
    def warning(study):
        fail_stale_trials(study)

    monkeypatch.setattr(optuna.storages, "fail_stale_trials", warning)
    search = Search("tiny", Config(), storage=f"sqlite:///{tmp_path}/a.db")
    assert search._study.take(1).number == 0  # a trial that runs
    search._study.fail_stale()
    search.close()


def workers(count, trials, *options, fast_grace=False):
    """Start workers at once on one study."""
    code = textwrap.dedent(f"""
        import sys
        from stackrev import cli
        from stackrev.experiments import databases, studies
        if {fast_grace}:
            databases.HEARTBEAT_SECONDS, databases.GRACE_SECONDS, studies.UNCLAIMED_SECONDS = 1, 4, 4.0
        sys.exit(cli.main())
    """)
    command = [sys.executable, "-c", code, "search", "--trials", str(trials), *SMALL.split(), *options, "--json"]
    pipe = subprocess.PIPE
    return [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]


@pytest.mark.slow
def test_workers_that_make_one_database_at_once_all_live(tmp_path):
    address = f"sqlite:///{tmp_path}/a.db"
    running = workers(4, 4, "--storage", address, "--batches", "2", "--check-every", "2")
    for each in running:
        out, err = each.communicate(timeout=300)
        assert each.returncode == 0, err
        assert json.loads(out)["trials"] == {"complete": 4, "pruned": 0, "running": 0, "failed": 0}


@pytest.fixture(scope="module")
def postgres():
    with postgres_server.server() as port:
        yield port


@needs_server
@pytest.mark.slow
class TestPostgres:
    @pytest.fixture
    def address(self, postgres):
        return f"postgresql://tester:{quote(postgres_server.PASSWORD, safe='')}@127.0.0.1:{postgres}"

    def create(self, address, name):
        import sqlalchemy

        engine = sqlalchemy.create_engine(databases.normal(f"{address}/postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return f"{address}/{name}"

    def test_three_workers_make_a_database_and_one_is_killed(self, address):
        storage = self.create(address, "killed")
        batches = ("--batches", "400", "--check-every", "20")
        running = workers(3, 6, "--storage", storage, *batches, fast_grace=True)
        deadline = time.monotonic() + 300
        while self.reports(storage) < 2:  # a trial is on its way
            assert time.monotonic() < deadline
            assert all(each.poll() is None for each in running), running[0].communicate()
            time.sleep(0.2)
        running[0].send_signal(signal.SIGKILL)
        running[0].communicate()
        for each in running[1:]:
            out, err = each.communicate(timeout=300)
            assert each.returncode == 0, err
            found = json.loads(out)["trials"]
            assert found["complete"] == 6
            assert found["failed"] <= 1
            assert found["running"] == found["pruned"] == 0
            assert postgres_server.PASSWORD not in out + err

    def reports(self, storage):
        import sqlalchemy

        engine = sqlalchemy.create_engine(databases.normal(storage))
        try:
            with engine.connect() as connection:
                query = sqlalchemy.text("SELECT count(*) FROM trial_intermediate_values")
                return connection.execute(query).scalar()
        except sqlalchemy.exc.ProgrammingError:  # no tables yet
            return 0
        finally:
            engine.dispose()

    @pytest.mark.parametrize("form", ["tester:WRONG@127.0.0.1:{}/postgres", "tester@127.0.0.1:{}/x?password=WRONG"])
    def test_a_wrong_password_is_not_repeated(self, postgres, form):
        with pytest.raises(StudyError) as caught:
            Search("tiny", Config(), storage=f"postgresql://{form.format(postgres)}")
        shown = "".join(traceback.format_exception(caught.value))
        assert "password authentication failed" in shown
        assert "WRONG" not in shown

    def test_a_server_that_goes_away_is_one_line(self, address):
        import sqlalchemy

        storage = self.create(address, "dropped")
        search = Search("tiny", Config(), storage=storage)
        engine = sqlalchemy.create_engine(databases.normal(f"{address}/postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("DROP DATABASE dropped WITH (FORCE)"))
        engine.dispose()
        with pytest.raises(StudyError) as caught:
            search.results()
        assert postgres_server.PASSWORD not in "".join(traceback.format_exception(caught.value))
        search.close()
