"""The network policy by itself: time, size, repetition and trust, against servers that break each rule."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from dataclasses import replace

import pytest
from hub_faults import Fault
from hub_server import TOKEN, Hub

from stackrev.errors import HubError
from stackrev.storage import deadline, hub_settings, network

SHORT = deadline.Policy(
    call_seconds=1.5, push_seconds=1.5, connect_seconds=9.0, read_seconds=9.0, commit_seconds=9.0, patience_seconds=9.0
)
BOUND = 20.0
"""The most seconds that a call with the policy above may take on a machine that is very busy."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def in_time(monkeypatch):
    """Calls have little time, and must end in not much more."""
    monkeypatch.setattr(deadline, "POLICY", SHORT)
    start = time.monotonic()
    yield
    assert time.monotonic() - start < BOUND


@pytest.fixture
def impatient(monkeypatch):
    """Nothing is sent again."""
    monkeypatch.setattr(deadline, "POLICY", replace(deadline.POLICY, attempts=1))


@pytest.fixture
def hub():
    with Hub() as server:
        server.add("user/repo", files={"README.md": b"x" * 1000})
        yield server


@contextlib.contextmanager
def listening(answer):
    """A server on loopback that does with each connection what `answer` does, until it is over."""
    stop = threading.Event()
    sockets = []

    def serve():
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                sockets.append(connection)
                threading.Thread(target=attempt, args=(connection,), daemon=True).start()

    def attempt(connection):
        with contextlib.suppress(OSError):
            answer(connection, stop)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            for each in sockets:
                each.close()


def client(url, token=TOKEN, **options):
    return network.Client(url, lambda: token, **options)


def ask(url, path="/api/models/user/repo"):
    with client(url) as connection:
        return connection.ask("GET", path)


# Time.


def drip(connection, stop):
    while not stop.wait(0.2):
        connection.sendall(b"\x16")


def drip_http(connection, stop):
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    drip(connection, stop)


def chunks(connection, stop):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not stop.wait(0.2):
        connection.sendall(b"1\r\nx\r\n")


def silence(connection, stop):
    stop.wait()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("answer", [drip, drip_http, chunks, silence])
def test_a_call_has_one_deadline_whatever_is_slow(in_time, scheme, answer):
    with listening(answer) as port, pytest.raises(HubError, match="the Hub failed"):
        ask(f"{scheme}://127.0.0.1:{port}")


def test_a_connection_that_nobody_accepts(in_time):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        with pytest.raises(HubError, match="the Hub failed"):
            ask(f"http://127.0.0.1:{port}")
        for each in waiting:
            each.close()


def test_a_name_that_is_looked_up_for_ever(in_time, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    with pytest.raises(HubError, match="the Hub failed"):
        ask("http://hub.invalid")
    over.set()


def test_a_token_that_is_looked_for_for_ever(in_time):
    over = threading.Event()
    with pytest.raises(HubError, match="token"):
        network.Client("http://127.0.0.1:1", over.wait)
    over.set()


def test_a_proxy_that_drips(in_time, monkeypatch):
    with listening(drip_http) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(HubError, match="the Hub failed"):
            ask("https://hub.invalid")


def test_an_upload_that_nobody_reads(in_time, hub):
    refused = pytest.raises(HubError, match="the Hub failed")
    with listening(silence) as port, client(hub.url, sending=True) as connection, refused:
        connection.upload(f"http://127.0.0.1:{port}/", b"x" * 2**24)


def test_the_policy_ends_every_call_within_a_minute():
    """What is left over is for a file that comes at `bytes_per_second` and for the process that asks."""
    policy = deadline.Policy()
    assert max(policy.call_seconds, policy.push_seconds) <= 45


@pytest.mark.parametrize(("seconds", "earned"), [(0.5, 0.5), (2.0, 2.0), (100.0, 3.0)])
def test_time_in_which_a_file_moves_fast_enough_is_left_out(monkeypatch, seconds, earned):
    """Three seconds' worth of bytes, in more time or less: what comes at once buys no time for what comes later."""
    now = 1000.0
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now)
    clock = deadline.Deadline(SHORT)
    now += 1.0
    clock.start()
    now += seconds
    clock.earn(3 * SHORT.bytes_per_second)
    assert clock.left() == pytest.approx(SHORT.call_seconds - 1.0 - seconds + earned)


# Size.


@pytest.mark.parametrize("encoding", [None, "identity", "gzip", "deflate", "GZIP"])
def test_an_answer_has_a_limit_after_decompression(hub, encoding):
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(str(encoding).lower(), bytes)
    for data, fits in ((b'"' + b"x" * 98 + b'"', True), (b'"' + b"x" * 99 + b'"', False)):
        hub.fault = Fault("status", "GET", 200, {"Content-Encoding": encoding}, data=pack(data))
        with client(hub.url) as connection:
            if fits:
                assert connection.ask("GET", "/", limit=100).json() == "x" * 98
            else:
                with pytest.raises(HubError, match="too large"):
                    connection.ask("GET", "/", limit=100)


def test_what_follows_a_compressed_body_counts(hub):
    hub.fault = Fault("status", "GET", 200, {"Content-Encoding": "gzip"}, data=gzip.compress(b"1") + b"x" * 10**6)
    with client(hub.url) as connection, pytest.raises(HubError, match="too large"):
        connection.ask("GET", "/", limit=10**5)


@pytest.mark.parametrize("encoding", ["br", "zstd", "x", "gzip, gzip", "gzip;q=1"])
def test_what_cannot_be_counted_is_refused(hub, encoding):
    hub.fault = Fault("status", "GET", 200, {"Content-Encoding": encoding})
    with pytest.raises(HubError, match="compressed"):
        ask(hub.url)
    with client(hub.url) as connection, pytest.raises(HubError, match="compressed"):
        list(connection.download("/user/repo/resolve/main/README.md", 2))


def test_damaged_compression(hub):
    hub.fault = Fault("status", "GET", 200, {"Content-Encoding": "gzip"}, data=b"not gzip")
    with pytest.raises(HubError, match="damaged"):
        ask(hub.url)


# Repetition.


@pytest.mark.parametrize("kind", ["cut", "stall"])
def test_a_file_is_resumed_where_it_broke_off(hub, kind, monkeypatch):
    monkeypatch.setattr(deadline, "POLICY", replace(deadline.POLICY, read_seconds=1.0))
    hub.fault = Fault(kind, "GET", times=1)
    seen = []
    with client(hub.url, count=seen.append) as connection:
        assert b"".join(connection.download("/user/repo/resolve/main/README.md", 1000)) == b"x" * 1000
    assert sum(seen) == 1000
    assert len(hub.requests) == 2


def test_a_file_from_a_hub_that_cannot_resume(hub):
    hub.fault = Fault("cut", "GET", times=1)
    with client(hub.url) as connection:
        parts = connection.download("/user/repo/resolve/main/README.md", 1000)
        first = next(parts)
        hub.fault = Fault("status", "GET", 200, data=b"x" * 400 + b"y" * 600)
        assert (first + b"".join(parts)).startswith(b"x" * 500 + b"y" * 500)


def test_an_answer_that_breaks_off_is_asked_for_again(hub):
    hub.fault = Fault("cut", "GET", times=2)
    assert ask(hub.url).status == 200
    hub.fault = Fault("cut", "GET")
    with pytest.raises(HubError, match="breaking off"):
        ask(hub.url)


def test_what_commits_something_is_sent_once(hub):
    hub.fault = Fault("status", "POST", 503)
    with client(hub.url) as connection, pytest.raises(HubError, match="503"):
        connection.ask("POST", "/api/repos/create", content=b"{}")
    assert len(hub.requests) == 1


# Trust.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_stays_at_home(hub, status):
    with Hub() as stranger:
        stranger.add("user/repo", files={"README.md": b"x" * 1000})
        away = Fault("status", "^GET /start", status, {"Location": f"{stranger.url}/api/models/user/repo"})
        hub.fault = away
        with client(hub.url) as connection:
            assert connection.ask("GET", "/start").status == 200
            assert stranger.requests
            assert not stranger.authorized
            # Not even at home, once a stranger has had a say in where to go.
            stranger.fault = Fault("status", "", status, {"Location": f"{hub.url}/api/models/user/repo"})
            hub.authorized.clear()
            assert connection.ask("GET", "/start").status == 200
            assert hub.authorized == ["GET /start"]
            hub.fault = replace(away, where="POST")
            stranger.requests.clear()
            assert connection.ask("POST", "/start", content=b"secret").status == status
            connection.upload(f"{stranger.url}/lfs/x", b"x")
            connection.ask("POST", f"{stranger.url}/verify", content=b"{}")
            assert not [line for line in stranger.requests if "start" in line]
            assert not stranger.authorized


@pytest.mark.parametrize(
    "change", [("127.0.0.1", "localhost"), ("http://", "http://x@"), ("127.0.0.1:", "127.0.0.1.:"), ("http", "https")]
)
def test_another_spelling_of_home_gets_no_token(hub, impatient, change):
    with client(hub.url) as connection, contextlib.suppress(HubError):
        connection.ask("GET", hub.url.replace(*change) + "/api/models/user/repo")
    assert not hub.authorized


@pytest.mark.parametrize("token", ["a b", "a\nHost: evil", "é", "a\0b"])
def test_a_token_with_characters_that_no_token_has(token):
    with pytest.raises(HubError, match="token"):
        hub_settings.find_token(token)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "x",
            "//h",
            "ftp://h",
            "file:///x",
            "http:///x",
            "http://h:0",
            "http://h:99999",
            "http://u@h",
            "http://[h",
        ),
        *("http://é", "http://h/\n", "http://h /", "http://h\\x", "http://.h", "http://" + "h" * 300, "javascript:x"),
    ],
)
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match=r"URL|IPv6|Port|port"):
        hub_settings.parse_address(url)


def test_clients_are_independent(hub):
    """One that ends takes nothing from another."""
    with client(hub.url) as first:
        with client(hub.url) as second:
            assert second.ask("GET", "/api/models/user/repo").status == 200
        assert first.ask("GET", "/api/models/user/repo").status == 200


@pytest.mark.parametrize("data", [b"", b"\0", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\xff" * 1000])
def test_what_is_not_http(hub, impatient, data):
    hub.fault = Fault("noise", "", data=data)
    with pytest.raises(HubError, match="not HTTP"):
        ask(hub.url)


# Ways there.


def test_by_way_of_a_proxy(hub, monkeypatch):
    """The small Hub answers a proxy's requests as it does its own."""
    monkeypatch.setenv("HTTP_PROXY", hub.url.replace("://", "://me:secret@"))
    assert ask("http://hub.invalid").json()["id"] == "user/repo"


@pytest.mark.parametrize(
    ("data", "scheme", "message"),
    [
        (b"HTTP/1.1 407 evil\r\nContent-Length: 0\r\n\r\n", "http", "wants a login"),
        (b"HTTP/1.1 407 evil\r\nContent-Length: 0\r\n\r\n", "https", "does not connect"),
        (b"HTTP/1.1 502 evil\r\nContent-Length: 0\r\n\r\n", "https", "does not connect"),
        (b"evil", "http", "ALL_PROXY"),
        (b"evil", "https", "ALL_PROXY"),
        (b"", "https", "ALL_PROXY"),
    ],
)
def test_a_proxy_that_refuses_is_named(in_time, monkeypatch, data, scheme, message):
    def answer(connection, _):
        connection.recv(2**16)
        connection.sendall(data)
        connection.close()

    with listening(answer) as port:
        monkeypatch.setenv("ALL_PROXY", f"http://me:SECRET@127.0.0.1:{port}")
        with pytest.raises(HubError, match=message) as caught:
            ask(f"{scheme}://hub.invalid")
    assert "ALL_PROXY" in caught.value.message
    assert "evil" not in caught.value.message
    assert "SECRET" not in caught.value.message


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_over_tls(hub, monkeypatch, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub.servers[0].socket = context.wrap_socket(hub.servers[0].socket, server_side=True)
    url = hub.url.replace("http:", "https:")
    with pytest.raises(HubError, match="not trusted"):
        ask(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ask(url).json()["id"] == "user/repo"
    with client(url) as connection:
        assert b"".join(connection.download("/user/repo/resolve/main/README.md", 1000)) == b"x" * 1000
    hub.fault = Fault("status", "GET", 302, {"Location": hub.url})
    with pytest.raises(HubError, match="from https to http"):
        ask(url)
