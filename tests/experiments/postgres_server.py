"""A PostgreSQL server of a test's own, on a loopback address, where PostgreSQL is installed."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

PASSWORD = "s3:cr@t/% word"


def program(name):
    """Where a program of PostgreSQL's is: Debian keeps the server's out of the path."""
    places = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))


def installed():
    return program("initdb") is not None and program("pg_ctl") is not None


def user():
    """Whom the server runs as: it refuses root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("there is no user but root")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def server():
    """A running server; gives its port. Its one user is `tester`, whose password is `PASSWORD`."""
    who = user()
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as scratch:
        folder, port = Path(scratch), free_port()
        (folder / "password").write_text(PASSWORD + "\n")
        if who:
            for path in (folder, folder / "password"):
                os.chown(path, who["user"], who["group"])

        def call(*command):
            return subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **who)

        data = str(folder / "data")
        account = ("--username", "tester", "--pwfile", str(folder / "password"), "--auth", "scram-sha-256")
        call(program("initdb"), "--pgdata", data, *account, "--no-sync", "--encoding", "UTF8", "--locale", "C")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
        start = ("start", "--pgdata", data, "--log", str(folder / "log"), "-w", "--options", options)
        call(program("pg_ctl"), *start)
        try:
            yield port
        finally:
            call(program("pg_ctl"), "stop", "--pgdata", data, "--mode", "immediate")
