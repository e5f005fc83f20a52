"""Journals that nobody should believe, and workers that are gone."""

import json
import os
from importlib.util import find_spec

import pytest

from stackrev.errors import StudyError

pytestmark = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra 'search'")

STUDY = {"op_code": 0, "worker_id": "w", "study_name": "tiny", "directions": [2]}
TRIAL = {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": "2026-01-01T00:00:00+00:00"}


def set_attr(name, value, trial=0):
    return {"op_code": 8, "worker_id": "w", "trial_id": trial, "user_attr": {name: value}}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    from stackrev.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STACKREV_DEBUG", "0")

    def run(trials, *records, journal="a.journal"):
        """A search on a journal that begins with a study and these records."""
        lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in records]
        (tmp_path / journal).write_bytes(b"".join(line + b"\n" for line in lines))
        small = "--batches 2 --batch-size 2 --check-every 1 --lengths 1-2 --test-lengths 3 --held-out-samples 2"
        small += f" --hidden-size 4 --stack-width 4 --threads 1 --vary optimizer --study tiny --trials {trials}"
        code = main(["search", *small.split(), "--journal", journal])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.mark.parametrize(
    "record",
    [
        {"op_code": 99},
        {"op_code": 99, "worker_id": "w"},
        {"op_code": True, "worker_id": "w"},
        {"op_code": "0", "worker_id": "w"},
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": {"a": ' + b"[" * 3000 + b"]" * 3000 + b"}}",
        b'{"op_code": 0, "worker_id": "' + b"a" * 2_000_000 + b'"}',
        [],
        "text",
        None,
        b"",
        b"\xff\xfe",
        b"\x00" * 100,
        {**STUDY, "directions": [99]},
        {**STUDY, "directions": "maximize"},
        {**STUDY, "directions": []},
        {**STUDY, "study_name": 5},
        {**STUDY, "study_name": "x", "directions": None},
        {"op_code": 4, "worker_id": "w"},
        {**TRIAL, "datetime_start": "yesterday"},
        {**TRIAL, "datetime_start": 7},
        {**TRIAL, "study_id": "0"},
        {**TRIAL, "state": 17},
        {**TRIAL, "user_attrs": [1]},
        {**TRIAL, "intermediate_values": {"x": 1}},
        {"op_code": 6, "worker_id": "w", "trial_id": 0, "state": 99, "values": None},
        {"op_code": 6, "worker_id": "w", "trial_id": 0, "state": 1, "values": [1.0]},
        {"op_code": 7, "worker_id": "w", "trial_id": 0, "step": "a", "intermediate_value": 0.5},
        {"op_code": 7, "worker_id": "w", "trial_id": 0, "step": 1, "intermediate_value": "a"},
        {"op_code": 5, "worker_id": "w", "trial_id": 0, "param_name": "optimizer", "param_value_internal": 0},
        {
            "op_code": 5,
            "worker_id": "w",
            "trial_id": 0,
            "param_name": "optimizer",
            "param_value_internal": 9,
            "distribution": '{"name": "CategoricalDistribution", "attributes": {"choices": ["adam"]}}',
        },
        {
            "op_code": 5,
            "worker_id": "w",
            "trial_id": 0,
            "param_name": "optimizer",
            "param_value_internal": 0,
            "distribution": '{"name": "Nonsense"}',
        },
        set_attr("outcome", [1, 2]),
        set_attr("outcome", {"validation": "high"}),
        set_attr("outcome", {"validation": float("nan")}),
        set_attr("outcome", {"seconds": 10**400}),
        set_attr("error", 5),
        {"op_code": 7, "worker_id": "w", "trial_id": 0, "step": 1, "intermediate_value": float("nan")},
        {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"setting": "mine"}},
        {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {}},
        {"op_code": 1, "worker_id": "w", "study_id": 0},
    ],
    ids=lambda record: str(record)[:50],
)
def test_a_journal_that_is_none_is_one_line(run, tmp_path, record):
    code, out, err = run(0, STUDY, TRIAL, record)
    if code == 0:  # nothing of it was believed, or the study it spoke of is gone
        assert "tiny" in out
        assert "damaged" not in out
    else:
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
    assert "Traceback" not in err
    assert err.count("\n") <= 2


@pytest.mark.parametrize("number", [-1, 5, 2**70])
def test_a_trial_of_no_number_is_passed_over(run, number):
    code, _, _ = run(1, STUDY, set_attr("worker", "w", number), {**TRIAL, "study_id": number})
    assert code == 0


def test_a_huge_journal_is_refused_before_it_is_read(run, tmp_path, monkeypatch):
    with (tmp_path / "huge.journal").open("wb") as file:
        file.truncate(2**40)
    from stackrev.experiments.search import Search

    with pytest.raises(StudyError, match="more than it can need"):
        Search.show("tiny", journal=tmp_path / "huge.journal")


@pytest.mark.parametrize("name", ["../victim.txt", "/etc/victim.txt", "a/b", "", 5, None, ["x"], "f" * 32, "0" * 32])
def test_no_path_is_built_from_a_stored_worker(run, tmp_path, name):
    victims = [tmp_path / "victim.txt", tmp_path / "a.journal.workers" / "notes.txt", tmp_path / ("f" * 32)]
    (tmp_path / "a.journal.workers").mkdir()
    for each in victims:
        each.write_text("mine")
    code, _, err = run(1, STUDY, TRIAL, set_attr("worker", name))
    assert code == 0, err
    assert [each.read_text() for each in victims] == ["mine"] * 3
    victims[1].unlink()
    assert not list((tmp_path / "a.journal.workers").iterdir())


def test_a_workers_folder_that_leads_elsewhere_is_refused(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.journal.workers").symlink_to("elsewhere")
    (tmp_path / "elsewhere" / ("0" * 32)).write_text("")
    code, _, err = run(1, STUDY, TRIAL, set_attr("worker", "0" * 32))
    assert code == 1
    assert err.startswith("error: ")
    assert (tmp_path / "elsewhere" / ("0" * 32)).exists()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("victim.txt"), lambda path: path.mkdir()])
def test_a_journal_that_is_no_regular_file_is_refused(capsys, monkeypatch, tmp_path, make):
    from stackrev.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim.txt").write_text("")
    make(tmp_path / "a.journal")
    assert main(["search", "--trials", "1", "--journal", "a.journal"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert (tmp_path / "victim.txt").read_text() == ""


def test_a_line_that_a_killed_writer_left_is_cut_off_by_the_next_one(tmp_path):
    from stackrev.experiments.journal import Journal

    path = tmp_path / "a.journal"
    first, second = Journal(path), Journal(path)
    first.append_logs([STUDY])
    assert list(second.read_logs(0)) == [STUDY]
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "work')
    assert list(second.read_logs(1)) == []
    first.append_logs([TRIAL])
    assert list(second.read_logs(1)) == [TRIAL]
    assert list(second.read_logs(0)) == [STUDY, TRIAL]
    assert path.read_bytes().count(b"\n") == 2
