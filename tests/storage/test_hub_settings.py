"""Settings of this computer that make no sense: each is named in one line, and those that are not used do no harm."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hub_runs import REPO, assert_refused, make, run
from hub_server import Hub

from stackrev.errors import HubError
from stackrev.storage import hub_settings

SOCKS = "socks5://user:SECRET@127.0.0.1:1"
BROKEN = {
    "socks without its package": ({"ALL_PROXY": SOCKS, "NO_PROXY": None}, "ALL_PROXY"),
    "socks for http": ({"http_proxy": SOCKS, "NO_PROXY": None}, "http_proxy"),
    "a proxy that is not there": ({"HTTP_PROXY": "http://user:SECRET@127.0.0.1:1", "NO_PROXY": None}, "HTTP_PROXY"),
    "a proxy of no kind": ({"HTTP_PROXY": "gopher://SECRET", "NO_PROXY": None}, "HTTP_PROXY"),
    "a proxy with no host": ({"ALL_PROXY": "http://", "NO_PROXY": None}, "ALL_PROXY"),
    "a proxy in brackets": ({"ALL_PROXY": "http://[SECRET", "NO_PROXY": None}, "ALL_PROXY"),
    "a proxy with no port": ({"ALL_PROXY": "http://h:SECRET", "NO_PROXY": None}, "ALL_PROXY"),
    "no certificates": ({"SSL_CERT_FILE": "/nonexistent/ca.pem"}, "SSL_CERT_FILE"),
    "certificates that are none": ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
    "certificates in a folder": ({"SSL_CERT_FILE": "/"}, "SSL_CERT_FILE"),
    "no folder of certificates": ({"SSL_CERT_DIR": "/nonexistent"}, "SSL_CERT_DIR"),
    "timeout": ({"HF_HUB_ETAG_TIMEOUT": "soon"}, "HF_HUB_ETAG_TIMEOUT"),
    "another timeout": ({"HF_HUB_DOWNLOAD_TIMEOUT": "1.5"}, "HF_HUB_DOWNLOAD_TIMEOUT"),
    "a timeout with a line end": ({"HF_HUB_ETAG_TIMEOUT": "1\n2"}, "HF_HUB_ETAG_TIMEOUT"),
    "an endpoint of no kind": ({"HF_ENDPOINT": "huggingface.co"}, "HF_ENDPOINT"),
    "an endpoint by ftp": ({"HF_ENDPOINT": "ftp://huggingface.co"}, "HF_ENDPOINT"),
    "an empty endpoint": ({"HF_ENDPOINT": "https://"}, "HF_ENDPOINT"),
    "an endpoint with a password": ({"HF_ENDPOINT": "https://user:SECRET@h"}, "HF_ENDPOINT"),
    "an endpoint with a query": ({"HF_ENDPOINT": "https://h/?SECRET"}, "HF_ENDPOINT"),
    "an endpoint in brackets": ({"HF_ENDPOINT": "https://[h"}, "HF_ENDPOINT"),
    "a home that is a file": ({"HF_HOME": __file__}, "cannot be written"),
    "a home that nobody can write": ({"HF_HOME": "/proc/nobody"}, "cannot be written"),
    "a token that is a word": ({"HF_TOKEN": "mein schöner SECRET"}, "HF_TOKEN"),
}
HARMLESS = {
    "another tool's certificates": {"REQUESTS_CA_BUNDLE": "/nonexistent", "CURL_CA_BUNDLE": "/nonexistent"},
    "what a library would warn of": {"HF_HUB_ENABLE_HF_TRANSFER": "1", "HF_DEBUG": "1", "PYTHONWARNINGS": "always"},
    "a proxy that is not for this Hub": {"ALL_PROXY": SOCKS, "HTTPS_PROXY": "nonsense://", "NO_PROXY": "127.0.0.1"},
    "everything past a proxy": {"ALL_PROXY": "nonsense://", "NO_PROXY": "*"},
    "hosts past a proxy that are none": {"NO_PROXY": "[,*x,,://,/, "},
    "empty settings": {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "", "ALL_PROXY": "", "HTTP_PROXY": ""},
    "a token in blanks": {"HF_TOKEN": "  hf_right \n"},
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """All pulls at once."""
    root = tmp_path_factory.mktemp("settings")
    make(root / "mine")
    cases = {name: extra for name, (extra, _) in BROKEN.items()} | HARMLESS
    with Hub() as server, ThreadPoolExecutor(4) as pool:
        server.add(REPO, root / "mine")

        def attempt(name):
            return run(server, root / name.replace(" ", "-"), "models", "pull", REPO, **cases[name])

        return dict(zip(cases, pool.map(attempt, cases), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_setting_that_makes_no_sense_is_named(answers, name):
    assert_refused(answers[name])
    assert BROKEN[name][1] in answers[name].err
    assert "hint: " in answers[name].err
    assert "SECRET" not in answers[name].err


@pytest.mark.slow
@pytest.mark.parametrize("name", HARMLESS)
def test_a_setting_that_is_not_used_does_no_harm(answers, name):
    assert (answers[name].code, answers[name].err) == (0, "")


@pytest.mark.slow
def test_a_cached_model_and_a_timeout_that_makes_no_sense(tmp_path):
    make(tmp_path / "mine")
    with Hub() as server:
        server.add(REPO, tmp_path / "mine")
        assert run(server, tmp_path / "home", "models", "pull", REPO).code == 0
        for command in (("models", "info", REPO), ("models", "list"), ("reverse", "--model", REPO, "hi")):
            answer = run(server, tmp_path / "home", *command, HF_HUB_ETAG_TIMEOUT="soon")
            assert_refused(answer, message="HF_HUB_ETAG_TIMEOUT")
        # What does not concern the Hub does not look at its settings.
        answer = run(server, tmp_path / "home", "models", "info", tmp_path / "mine", HF_HUB_ETAG_TIMEOUT="soon")
        assert answer.code == 0


@pytest.mark.parametrize(
    ("variables", "setting", "login"),
    [
        ({"HTTPS_PROXY": "http://h:1"}, "HTTPS_PROXY", None),
        ({"https_proxy": "h:1"}, "https_proxy", None),
        ({"ALL_PROXY": "http://me:p%40ss@h:1"}, "ALL_PROXY", ("me", "p@ss")),
        ({"HTTPS_PROXY": "https://me@h:1", "ALL_PROXY": "x://"}, "HTTPS_PROXY", ("me", "")),
        ({"HTTP_PROXY": "http://h:1"}, None, None),
        ({"HTTPS_PROXY": "http://h:1", "NO_PROXY": "there"}, None, None),
        ({"HTTPS_PROXY": "http://h:1", "NO_PROXY": ".example,here"}, "HTTPS_PROXY", None),
    ],
)
def test_which_proxy(monkeypatch, variables, setting, login):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = hub_settings.find_proxy(hub_settings.parse_address("https://there/x"))
    assert (proxy and proxy.setting, proxy and proxy.login) == (setting, login)
    if proxy:
        assert (proxy.address.host, proxy.address.port) == ("h", 1)


@pytest.mark.parametrize(
    ("exceptions", "host", "used"),
    [
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("x,  10.1.2.3/24 ,y", "10.1.2.9", False),
        ("::1", "[::1]", False),
        ("[fd00::]/8", "[fd00::1]", True),
        ("fd00::/8", "[fd00::1]", False),
        ("/,10/x,//", "10.1.2.3", True),
        ("10.0.0.0/8", "ten.example", True),
    ],
)
def test_networks_past_a_proxy(monkeypatch, exceptions, host, used):
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert (hub_settings.find_proxy(hub_settings.parse_address(f"https://{host}/")) is not None) == used


def test_a_certificate_that_is_not_trusted_is_said_to_be(monkeypatch):
    import ssl

    from stackrev.storage.network import Client

    def refuse(*_):
        raise ConnectionError from ssl.SSLCertVerificationError("self-signed")

    monkeypatch.setattr("httpcore2.ConnectionPool.handle_request", refuse)
    with Client("https://hub.invalid", lambda: None) as client, pytest.raises(HubError, match="not trusted") as caught:
        client.ask("GET", "/")
    assert "SSL_CERT_FILE" in caught.value.hint
