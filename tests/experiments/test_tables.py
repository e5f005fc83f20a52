"""Summaries and tables count what the seeds' lines say."""

import json
from pathlib import Path

from seed_results import result

from stackrev.experiments import tables
from stackrev.experiments.seeds import read_seeds

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "docs" / "results" / "seeds"


def test_stored_summaries_are_those_of_their_seeds():
    for folder in STORED.iterdir():
        summary = json.loads((folder / "summary.json").read_text())
        assert tables.summarise(summary["name"], list(read_seeds(folder).values())) == summary


def test_a_summary_counts():
    exact = {"1000": {"exact": 20, "samples": 20, "fine": 1.0}}
    short = {"1000": {"exact": 19, "samples": 20, "fine": 0.99}}
    runs = {"length": 10, "exact": 128, "samples": 128, "wrong": []}
    results = [result(0, 100, exact), result(1), result(2, 300, short), result(3, 200, exact)]
    results[0]["runs_of_each"] = runs
    results[2]["runs_of_each"] = {**runs, "exact": 127, "wrong": [3]}
    found = tables.summarise("mine", results)
    assert (found["runs"], found["solved"], found["unsolved_seeds"], found["perfect_at_end"]) == (4, 3, [1], 3)
    assert found["batches_to_solve"] == {"min": 100, "quartile_1": 150, "median": 200, "quartile_3": 250, "max": 300}
    assert found["exact"] == {"1000": {"runs": 2, "of": 4, "samples": 20, "not_exact_seeds": [2]}}
    assert found["runs_of_each"] == {"runs": 1, "of": 4, "samples": 128, "not_exact_seeds": [2]}
    (row,) = tables.tabulate([found])
    assert (row["solved"], row["median_batches"], row["exact_1000"], row["runs_of_each"]) == (3, 200, 2, 1)
    assert tables.table_cells([row])[1][0] == "mine"
    nothing = tables.summarise("none", [result(0)])
    assert nothing["batches_to_solve"] is None
    assert tables.table_cells(tables.tabulate([nothing]))
