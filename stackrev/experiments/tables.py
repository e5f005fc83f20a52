"""What many seeds of a setting come to: a summary of each setting, and rows of a table."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stackrev.experiments.measurements import MEASUREMENTS
from stackrev.storage import files


def describe(result: Mapping[str, Any]) -> str:
    """One seed's result as a line of text."""
    if result["solved_batch"] is None:
        words = [f"seed {result['seed']}: not solved in {result['batches']} batches ({result['seconds']:.1f} s)"]
    else:
        words = [f"seed {result['seed']}: solved at {result['solved_batch']} ({result['solved_seconds']:.1f} s)"]
    for name in ("validation", "test"):
        if result[name]:
            words.append(f"{name} {result[name]['coarse']:.3f}/{result[name]['fine']:.3f}")
    for name, each in MEASUREMENTS.items():
        if name in result:
            words += each.tell(result[name])
    if "error" in result:
        words.append(result["error"])
    return "  ".join(words)


def summarise(name: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of a setting's results.

    Returns:
        `runs`, `solved`, the unsolved seeds, quartiles of batches and of seconds to solve, how many end right, and
        what has been measured: for each length, say, how many runs are exact on every string of it.
    """
    solved = [each for each in results if each["solved_batch"] is not None]
    summary = {
        "name": name,
        "runs": len(results),
        "solved": len(solved),
        "unsolved_seeds": [each["seed"] for each in results if each["solved_batch"] is None],
        "perfect_at_end": sum(
            bool(each["test"]) and each["validation"]["coarse"] == each["test"]["coarse"] == 1.0 for each in results
        ),
        "batches_to_solve": _quartiles([each["solved_batch"] for each in solved]),
        "seconds_to_solve": _quartiles([each["solved_seconds"] for each in solved]),
        "seconds": round(sum(each["seconds"] for each in results), 1),
    }
    for key, measurement in MEASUREMENTS.items():
        found = {each["seed"]: each[key] for each in solved if each.get(key) is not None}
        if found or key == "exact":
            summary[key] = measurement.summarise(found, len(results))
    return summary


def _quartiles(values: Sequence[float]) -> dict[str, float] | None:
    """Least, quartiles and greatest; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    low, middle, high = (
        statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else (ordered[0],) * 3
    )
    return {
        "min": ordered[0],
        "quartile_1": round(low, 2),
        "median": round(middle, 2),
        "quartile_3": round(high, 2),
        "max": ordered[-1],
    }


def tabulate(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summaries as rows of a table."""
    rows = []
    for summary in summaries:
        batches, seconds = summary["batches_to_solve"] or {}, summary["seconds_to_solve"] or {}
        row = {
            "setting": summary["name"],
            "runs": summary["runs"],
            "solved": summary["solved"],
            "median_batches": batches.get("median"),
            "max_batches": batches.get("max"),
            "median_seconds": seconds.get("median"),
            "unsolved_seeds": " ".join(map(str, summary["unsolved_seeds"])),
        }
        for length, each in summary["exact"].items():
            row[f"exact_{length}"] = each["runs"]
        for key in [key for key in MEASUREMENTS if key != "exact" and key in summary]:
            row[key] = summary[key]["runs"]
        rows.append(row)
    return rows


def table_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A table as text, its heads first."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [columns, *([("" if row.get(key) is None else str(row[key])) for key in columns] for row in rows)]


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as `table.json` and `table.csv`."""
    files.write(folder / "table.json", (json.dumps(rows, indent=2) + "\n").encode())
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(folder / "table.csv", text.getvalue().encode())
