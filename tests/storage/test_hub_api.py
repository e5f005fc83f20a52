"""What a Hub answers is checked for its type and its form before anything is done with it."""

from __future__ import annotations

import hashlib
import json

import pytest
from hub_faults import Fault
from hub_runs import REPO, make
from hub_server import Hub

from stackrev.errors import CheckpointError, HubError, ModelNotFoundError, StackrevError
from stackrev.storage import checkpoints, hub, hub_api
from stackrev.storage.names import Reference
from stackrev.storage.network import Answer

COMMIT = "c" * 40
HERE = Reference(REPO)
FILES = [{"rfilename": name, "size": 10} for name in checkpoints.FILES]


class Fake:
    """A client that gives one answer to everything."""

    def __init__(self, body=None, status=200, **headers):
        self.answer = Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body or b"")

    def ask(self, *_, **__):
        return self.answer


def listing(reference=HERE, **changed):
    return hub_api.look_up(Fake(json.dumps({"sha": COMMIT, "siblings": FILES} | changed).encode()), reference)


def test_a_listing():
    assert listing() == hub_api.Listing(COMMIT, dict.fromkeys(checkpoints.FILES, 10))
    assert (
        listing(siblings=[*FILES, {"rfilename": "../../evil", "size": -1}, {"rfilename": 3}, None, "x", []])
        == listing()
    )


@pytest.mark.parametrize("sha", [None, 5, "", "main", "../../x", "C" * 40, "c" * 39, "c" * 64, COMMIT + "\n", [COMMIT]])
def test_a_commit_that_is_none(sha):
    with pytest.raises(HubError, match="makes no sense"):
        listing(sha=sha)


def test_a_pinned_commit_is_the_one_that_is_fetched():
    assert listing(Reference(REPO, COMMIT)).commit == COMMIT
    with pytest.raises(HubError, match="another commit"):
        listing(Reference(REPO, "d" * 40))


@pytest.mark.parametrize("size", [None, -1, 1.5, "10", True, [], {}, float("nan")])
def test_sizes_that_are_none(size):
    with pytest.raises(HubError, match="how large"):
        listing(siblings=[each | {"size": size} for each in FILES])


@pytest.mark.parametrize("size", [2**28, 10**18, 10**4000])
def test_sizes_that_no_checkpoint_needs(size):
    with pytest.raises(CheckpointError, match="more than a checkpoint can need") as caught:
        listing(siblings=[each | {"size": size} for each in FILES])
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("siblings", [None, {}, "x", 5])
def test_files_that_are_none(siblings):
    with pytest.raises(HubError, match="makes no sense"):
        listing(siblings=siblings)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'"x"', b"\xff", b"{", b"[" * 10**6, b"1" * 10**5, b'{"":' * 10**5]
)
def test_bodies_that_are_none(body):
    with pytest.raises(HubError):
        hub_api.look_up(Fake(body), HERE)


@pytest.mark.parametrize("etag", ['"%s"', 'W/"%s"', "%s"])
@pytest.mark.parametrize("checksum", ["a" * 40, "b" * 64])
def test_checksums(etag, checksum):
    assert hub_api.look_at(Fake(etag=etag % checksum), HERE, COMMIT, "README.md") == checksum
    linked = Fake(status=302, etag="x", x_linked_etag=etag % checksum, x_repo_commit=COMMIT)
    assert hub_api.look_at(linked, HERE, COMMIT, "README.md") == checksum


TRICKS = [
    *("", '""', "/abs/path", "../../x", '"/abs/path"', '"../../x"', ".", "a" * 39, "a" * 41, "a" * 63, "A" * 40),
    *(
        "a" * 40 + "/",
        "a" * 40 + "\n",
        "\n" + "a" * 40,
        '"' + "a" * 40,
        "a" * 40 + '"',
        "w/" + "a" * 40,
        "W/" + "a" * 40,
    ),
    *('W/W/"' + "a" * 40 + '"', " " + "a" * 40, "a" * 40 + ", " + "b" * 40, "é" * 40, "\u0661" * 40, "a" * 40 + "\0"),
    *("%2e%2e%2f" + "a" * 31, "C:\\x", "con", "a" * 20 + "/" + "a" * 19, "\uff41" * 40),
]


@pytest.mark.parametrize("etag", TRICKS)
def test_checksums_that_are_none(etag):
    for header in ("etag", "x_linked_etag"):
        with pytest.raises(HubError, match="no valid checksum") as caught:
            hub_api.look_at(Fake(**{"etag": "x", header: etag}), HERE, COMMIT, "README.md")
        assert "abs" not in caught.value.message


@pytest.mark.parametrize("commit", ["", "../../x", "/abs", "d" * 40, COMMIT + ", " + COMMIT])
def test_another_commit(commit):
    with pytest.raises(HubError, match="another commit"):
        hub_api.look_at(Fake(etag="a" * 40, x_repo_commit=commit), HERE, COMMIT, "README.md")


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (401, None, HubError, "refused access"),
        (403, "x" * 999, HubError, "refused access"),
        (404, "RepoNotFound", ModelNotFoundError, "there is no model"),
        (404, "RevisionNotFound", ModelNotFoundError, "has no revision"),
        (404, "EntryNotFound", HubError, "lacks a file"),
        (403, "GatedRepo", HubError, "is gated"),
        (404, None, HubError, "HTTP status 404"),
        (302, None, HubError, "HTTP status 302"),
        (451, "\x1b[31m", HubError, "HTTP status 451"),
    ],
)
def test_refusals(status, code, kind, message):
    headers = {"x_error_message": "\x1b[31mevil"} | ({} if code is None else {"x_error_code": code})
    for attempt in (hub_api.look_up, lambda *them: hub_api.look_at(*them, COMMIT, "README.md")):
        with pytest.raises(kind, match=message) as caught:
            attempt(Fake(b'{"error": "evil"}', status, **headers), HERE)
        assert "evil" not in str(caught.value) + str(caught.value.hint)
        assert len(caught.value.message) < 120


# Pushing.


@pytest.fixture
def pushing(tmp_path, monkeypatch):
    """A push to a Hub of its own."""
    make(tmp_path / "mine")
    with Hub() as server:
        monkeypatch.setattr("stackrev.storage.hub_settings.endpoint", lambda: server.url)
        server.push = lambda **options: hub.push(tmp_path / "mine", REPO, token="hf_right", **options)
        yield server


def answering(where, value):
    return Fault("body", where, data=value if isinstance(value, bytes) else json.dumps(value).encode())


def batch(**action):
    return lambda oid: {"objects": [{"oid": oid, "size": 1, "actions": action}]}


ANSWERS = {
    "no modes": ("how", answering("preupload", {})),
    "modes of no kind": (
        "how",
        answering("preupload", {"files": [{"path": each, "uploadMode": "x"} for each in FILES]}),
    ),
    "modes that are words": ("how", answering("preupload", {"files": "evil"})),
    "modes of lists": ("how", answering("preupload", {"files": [{"path": ["evil"]}, [], None]})),
    "ignored": (
        "ignores",
        answering(
            "preupload",
            {"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": True} for f in checkpoints.FILES]},
        ),
    ),
    "no objects": ("where files", answering("batch", {})),
    "other objects": ("take a file", answering("batch", {"objects": [{"oid": "evil"}, {"oid": ["evil"]}, 3]})),
    "no commit": ("no commit", answering("/commit/", {"success": True})),
    "a commit that is a path": ("no commit", answering("/commit/", {"commitOid": "../evil", "commitUrl": "evil"})),
    "a card it cannot read": ("card", Fault("status", "yaml", 400, data=b'{"errors": [{"message": "evil"}]}')),
    "no verification": ("storage", Fault("status", "/verify", 404, data=b"evil")),
    "full": ("storage", Fault("status", "storage PUT", 507, data=b"evil")),
    "flood": ("too large", Fault("flood", "batch")),
    "bomb": ("too large", Fault("bomb", "preupload", headers={"Content-Encoding": "gzip"})),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_to_a_push(pushing, name):
    message, pushing.fault = ANSWERS[name]
    with pytest.raises(StackrevError, match=message) as caught:
        pushing.push()
    assert "evil" not in caught.value.message + str(caught.value.hint)


@pytest.mark.parametrize(
    "href", ["file:///etc/x", "/etc/x", "ftp://h/", "", 3, None, ["x"], "http://u:p@h/", "http://[h"]
)
def test_places_to_send_to_that_are_none(pushing, tmp_path, href):
    oid = hashlib.sha256((tmp_path / "mine" / "model.safetensors").read_bytes()).hexdigest()
    pushing.fault = answering("batch", batch(upload={"href": href})(oid))
    with pytest.raises(HubError):
        pushing.push()
    assert not [line for line in pushing.requests if "/commit/" in line]


def test_the_token_goes_to_no_stranger_that_verifies(pushing):
    with Hub() as stranger:
        pushing.elsewhere = stranger.url
        with pytest.raises(HubError):
            pushing.push()
        assert [line for line in stranger.requests if "verify" in line]
        assert not stranger.authorized


def test_what_is_told_is_measured_on_what_is_sent(pushing):
    def evaluate(folder):
        assert checkpoints.load_config(folder)[1] == {}
        return {"8-64": {"coarse": 0.25, "fine": 0.5, "samples": 4, "seed": 0}}

    result = pushing.push(evaluate=evaluate, private=True)
    sent = pushing.repos[REPO].commits[result.commit]
    assert pushing.repos[REPO].private
    assert json.loads(sent["config.json"].data)["scores"] == result.scores
    assert "value: 0.25" in sent["README.md"].data.decode()
    assert pushing.cards == [result.card]
    assert result.url == f"{pushing.url}/{REPO}/commit/{result.commit}"
    # A second one, to a repo that is there, sends no weights again.
    pushing.requests.clear()
    assert pushing.push().scores == {}
    assert not [line for line in pushing.requests if "PUT" in line]


def test_who_may_write_but_not_create_can_push(pushing):
    pushing.add(REPO, files={"x": b""})
    pushing.fault = Fault("status", "create", 403)
    assert pushing.push().commit
