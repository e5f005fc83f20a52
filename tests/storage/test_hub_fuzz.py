"""Answers of a Hub with random bytes wrong: a pull gives a whole checkpoint or one error, and no file elsewhere."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading

import pytest
from hub_runs import REPO, make
from hub_server import Hub

from stackrev.errors import StackrevError
from stackrev.storage import checkpoints, deadline, hub

QUICK = deadline.Policy(
    call_seconds=2.0, connect_seconds=2.0, read_seconds=0.1, attempts=2, patience_seconds=0.2, resumptions=1
)
JUNK = (b"", b"\0", b"\r\n", b"\r\n\r\n", b"../../x", b'"', b"9" * 30, b"\xff" * 9, b"[" * 99, b": ", b"chunked", b"-1")


class Meddler:
    """Stands before a Hub and passes on what it says, now and then with something wrong."""

    def __init__(self, port, chooser):
        self._port = port
        self._chooser = chooser
        self._server = socket.create_server(("127.0.0.1", 0))
        self._over = False
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._over = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self):
        while not self._over:
            with contextlib.suppress(OSError):
                connection, _ = self._server.accept()
                threading.Thread(target=self._pass_on, args=(connection,), daemon=True).start()

    def _pass_on(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as home:
            threading.Thread(target=self._copy, args=(client, home), daemon=True).start()
            while data := home.recv(2**16):
                client.sendall(self._spoil(data) if self._chooser.random() < 0.15 else data)

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)

    def _spoil(self, data):
        chooser = self._chooser
        start = chooser.randrange(len(data))
        if chooser.random() < 0.7:
            start %= 400  # where the headers are
        end = min(len(data), start + chooser.choice((0, 1, 1, 8, 40)))
        return data[:start] + chooser.choice((*JUNK, data[start:end] * 2, chooser.randbytes(end - start))) + data[end:]


def attempt(cache):
    """Why a pull was refused; empty if the cache now has the whole checkpoint."""
    try:
        checkpoints.verify(hub.pull(REPO, cache_dir=cache, token="x"))
    except StackrevError as error:
        return error.message
    return ""


def place_of(path):
    return re.fullmatch(
        r"models--user--repo(/(blobs/([0-9a-f]{40}|[0-9a-f]{64})|refs/main|snapshots/[0-9a-f]{40}/[a-zA-Z.]+))", path
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_answers_with_random_bytes_wrong(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(deadline, "POLICY", QUICK)
    monkeypatch.setenv("NO_PROXY", "*")
    make(tmp_path / "mine")
    outcomes = {"whole": 0, "refused": 0}
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        meddler = Meddler(int(server.url.rpartition(":")[2]), random.Random(seed))
        monkeypatch.setattr("stackrev.storage.hub_settings.endpoint", lambda: meddler.url)
        for number in range(40):
            cache = tmp_path / "caches" / str(number)
            refusal = attempt(cache)
            outcomes["refused" if refusal else "whole"] += 1
            assert "\n" not in refusal
            assert len(refusal) < 300
            assert bool(hub.cached_models(cache)) == (not refusal)
            found = [path.relative_to(cache).as_posix() for path in cache.rglob("*") if not path.is_dir()]
            assert [path for path in found if not place_of(path)] == []
        meddler.close()
    assert min(outcomes.values()) > 0, outcomes
    assert {path.name for path in tmp_path.iterdir()} <= {"mine", "caches"}
