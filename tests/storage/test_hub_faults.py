"""All that can go wrong with the Hub, each in a process of its own that must end in one line, in time, in its place."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hub_cases import CASES, ETAG, SLOW, Case, status
from hub_faults import Fault
from hub_runs import HURRIED, REPO, assert_refused, make, run, run_python, trusted
from hub_server import Hub

from stackrev.storage import checkpoints

QUICK = (
    *("no fault", "401 private", "429", "cut", "wrong checksum", "hang", "garbage", "absurd size", "names with tricks"),
    *("a pickle for weights", "etag absolute", "etag upwards", "commit upwards", "loop", "drip", "flood"),
    *("bomb of gzip", "nested", "a length that lies", "not HTTP", "words"),
)
"""At least one of each kind; the others are of the same kinds."""


def outside(fault, folder):
    """The fault, with a folder that nothing may be written to."""

    def fill(value):
        return [fill(each) for each in value] if isinstance(value, list) else value and value.replace("OUTSIDE", folder)

    folder = str(folder)
    return replace(fault, headers={name: fill(value) for name, value in fault.headers.items()})


def misplaced(home):
    """Files of a cache that are not where they should be."""
    place = r"hub/models--user--repo/(blobs/([0-9a-f]{40}|[0-9a-f]{64})|refs/main|snapshots/[0-9a-f]{40}/[a-zA-Z.]+)"
    found = [path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir()]
    return [path for path in found if not re.fullmatch(place, path)]


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """All cases that are asked for, at once: what a pull answered, and a second one, and what they have left."""
    root = tmp_path_factory.mktemp("faults")
    make(root / "mine")
    (root / "outside").mkdir()

    def attempt(name):
        case, home = CASES[name], root / name.replace(" ", "-")
        home.mkdir()
        with Hub() as server:
            server.bomb = root / "executed"
            server.add(REPO, root / "mine")
            if case.change is not None:
                case.change(server)
            server.fault = outside(case.fault, root / "outside") if case.fault else None
            first = run(server, home, "models", "pull", REPO, **case.extra)
            left = trusted(home)
            server.fault = None
            second = run(server, home, "models", "pull", REPO, **case.extra) if case.mends else None
            return first, left, second, list(server.requests), misplaced(home)

    mine = [item.callspec.params["name"] for item in request.session.items if "outcomes" in item.fixturenames]
    slowest_first = sorted(mine, key=lambda name: -any(word in name for word in SLOW))
    with ThreadPoolExecutor(4) as pool:
        results = dict(zip(slowest_first, pool.map(attempt, slowest_first), strict=True))
    return root, results


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_pull_when_something_is_wrong(outcomes, name):
    root, results = outcomes
    case, (first, left, second, requests, stray) = CASES[name], results[name]
    if case.message is None:
        assert first.code == 0, first.err
        assert first.err == ""
        assert left
    else:
        assert_refused(first, message=case.message, code=case.code)
        assert not left
    if case.mends:
        assert second.code == 0, second.err
        checkpoints.verify(Path(second.out.strip()))
    if case.message == ETAG:
        assert not [each for each in requests if each.startswith("GET") and "resolve" in each]
    assert "evil" not in first.err
    assert stray == []
    assert not list((root / "outside").iterdir())
    assert not (root / "executed").exists()
    assert not [each for each in requests if ".bin" in each or "evil" in each]
    assert not [each for each in root.rglob("*evil*") if "evil" in each.name]


@pytest.mark.slow
def test_no_call_takes_over_a_minute(tmp_path):
    """With the policy that users have: what takes longest."""
    make(tmp_path / "mine")
    names = ("drip everywhere", "drip at the weights", "trickle", "waiting", "slow loop", "hang everywhere", "stall")

    def attempt(name):
        with Hub() as server:
            server.add(REPO, tmp_path / "mine")
            server.fault = replace(CASES[name].fault)
            return run(server, tmp_path / name.replace(" ", "-"), "models", "pull", REPO, hurried=False)

    with ThreadPoolExecutor(len(names)) as pool:
        for answer in pool.map(attempt, names):
            assert_refused(answer)


PUSH = """
import sys
from stackrev.storage import hub
from stackrev.errors import StackrevError
try:
    hub.push(sys.argv[1], "user/repo", evaluate=lambda folder: {})
except StackrevError as error:
    assert "torch" not in sys.modules
    sys.exit(f"error: {error.message}" + (f"\\nhint: {error.hint}" if error.hint else ""))
"""

PUSHES = {
    "wrong token": Case("refused access", extra={"HF_TOKEN": "hf_wrong"}),
    "offline": Case("network is off", extra={"HF_HUB_OFFLINE": "1"}),
    "500": Case("HTTP status 500", status(500, "preupload")),
    "429": Case("too many requests", Fault("status", "create", 429, {"Retry-After": "3600"})),
    "hang": Case("does not answer", Fault("hang", "storage PUT")),
    "403": Case("refused access", status(403, "/commit/")),
    "garbage": Case("the Hub failed", Fault("garbage", "batch")),
    "drip": Case("too slowly", Fault("drip", "/commit/")),
    "drip at the storage": Case("too slowly", Fault("drip", "storage PUT")),
    "bomb": Case("too large", Fault("bomb", "preupload", headers={"Content-Encoding": "gzip"})),
    "flood": Case("too large", Fault("flood", "/commit/")),
    "redirected to a stranger": Case("HTTP status 307", Fault("status", "/commit/", 307, {"Location": "http://evil/"})),
}


@pytest.fixture(scope="module")
def pushes(tmp_path_factory):
    """All pushes at once."""
    root = tmp_path_factory.mktemp("pushes")
    make(root / "mine")

    def attempt(case):
        with Hub() as server:
            server.fault = replace(case.fault) if case.fault else None
            return run_python(server, root / "home", "-c", HURRIED + PUSH, root / "mine", **case.extra)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(PUSHES, pool.map(attempt, PUSHES.values()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUSHES)
def test_push_when_something_is_wrong(pushes, name):
    assert_refused(pushes[name], message=PUSHES[name].message)
