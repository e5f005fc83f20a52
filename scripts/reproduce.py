"""Rerun everything behind the tables and figures of the README.

    python scripts/reproduce.py                  # all of it; the packaged models are scored, not trained
    python scripts/reproduce.py --retrain        # train the packaged models first: hours more
    python scripts/reproduce.py --quick          # a smaller version of all of it, models included, in minutes
    python scripts/reproduce.py --figures-only   # tables, figures and README from the data that is there

Everything is written to docs/results/ (with --quick, to runs/quick/): data as JSON, JSON Lines and CSV, figures as SVG
and PNG; and the README gets its results section, between two markers. What is there already is not run again, so the
same command goes on after an interruption. A model is scored again when its weights have changed. What is told of the
data is in `report.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paper
from report import LONG_SEED, MODELS, PUBLISHED, SETS, read_json, tell, write_json

from stackrev.config import LengthRange
from stackrev.errors import StackrevError
from stackrev.experiments import experiment, presets, tables
from stackrev.experiments.runs import short
from stackrev.experiments.setting import ExperimentSetting
from stackrev.models import load
from stackrev.storage import checkpoints

ROOT = Path(__file__).resolve().parent.parent

EXAMPLE = "A string to reverse"


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        seeds: How many runs of the default setting.
        exact: How many strings of which lengths a solved run of it is tried on.
        runs_of_each: How long the strings of one symbol alone are that it is tried on.
        published_seeds: How many runs of the published setting.
        row_seeds: How many runs of each other row of the table.
        comparison_seeds: How many runs of the settings that are only compared in a figure.
        samples: How many strings a model is scored on.
        lengths: How many strings of which lengths it is scored on for the length figure.
        long: How many strings of which lengths the stack-LSTM is tried on, margins and all.
        models: Options of `stackrev train` for models to be made; none if the packaged ones are taken.
        changes: What all seeds' configurations have different.
    """

    seeds: int
    exact: Mapping[int, int]
    runs_of_each: int
    published_seeds: int
    row_seeds: int
    comparison_seeds: int
    samples: int
    lengths: Mapping[int, int]
    long: Mapping[str, int]
    models: Mapping[str, str] | None
    changes: Mapping[str, Any]


FULL = Plan(
    seeds=100,
    exact={10_000: 20, 1_000_000: 1},
    runs_of_each=10_000,
    published_seeds=6,
    row_seeds=20,
    comparison_seeds=6,
    samples=1000,
    lengths={length: 50 if length <= 512 else 20 for length in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)},
    long={"65-128": 1000, "129-1024": 1000, "10000": 100, "100000": 10, "1000000": 3, "10000000": 1},
    models=None,
    changes={},
)
QUICK = Plan(
    seeds=4,
    exact={1000: 4},
    runs_of_each=100,
    published_seeds=2,
    row_seeds=1,
    comparison_seeds=1,
    samples=200,
    lengths={8: 20, 64: 20, 256: 10, 1024: 4},
    long={"65-128": 100, "10000": 2},
    models={
        "stack-lstm": "",
        "lstm": "--hidden-size 64 --batches 200 --check-every 50",
        "rnn": "--hidden-size 64 --batches 200 --warmup-batches 20 --check-every 50",
    },
    changes={"data.held_out_samples": 200, "training.batches": 600},
)


# Running


def run_settings(out: Path, plan: Plan, workers: int) -> None:
    """Train the default setting, the published one and the rows of the tables, many seeds of each."""
    rows = dict.fromkeys(presets.PRESETS, plan.comparison_seeds)
    rows |= dict.fromkeys(presets.TABLE, plan.row_seeds)
    rows |= {"default": plan.seeds, "plain settling": plan.seeds, "published": plan.published_seeds}
    for name, seeds in rows.items():
        config = presets.configure("stack-lstm", {**presets.preset(name), **plan.changes})
        asked: dict[str, Any] = {"exact": {}}
        if name in ("default", "plain settling"):
            asked["exact"] = {str(length): count for length, count in plan.exact.items()}
        if name == "default":
            asked["runs_of_each"] = plan.runs_of_each
        if config.training.settle == "certified":
            asked["proof"] = True
        experiment.run(
            out / "seeds" / name.replace(" ", "-"),
            ExperimentSetting(name, config, asked),
            range(seeds),
            workers=workers,
            on_result=lambda result, name=name: print(
                f"{name}: {tables.describe(result)}", file=sys.stderr, flush=True
            ),
        )


def make_models(out: Path, plan: Plan) -> Path:
    """The folder in which the models are: made by the plan, or packaged."""
    if plan.models is None:
        return ROOT / "checkpoints"
    for kind, options in plan.models.items():
        folder = out / "models" / kind
        done = folder / "done"
        if done.exists():
            continue
        command = ["train", "--model", kind, *options.split(), "--output", str(folder)]
        again = ["--resume"] if (folder / "training.safetensors").exists() else []
        print(f"training {kind}", file=sys.stderr)
        _stackrev(*command, *again, "--threads", "1", "--quiet")
        done.touch()
    return out / "models"


def score_models(out: Path, models: Path, plan: Plan) -> None:
    """Score each model as its file is, in a fresh process, and keep its history."""
    path, learning = out / "scores.json", out / "learning.json"
    stored = read_json(path, [])
    histories = read_json(learning, {})
    entries = []
    for kind in MODELS:
        folder = models / kind
        if not (folder / checkpoints.CONFIG).exists():
            print(f"there is no {kind} in {models}", file=sys.stderr)
            continue
        description = checkpoints.describe(folder)
        key = {"model": kind, "weights": description.checksums[checkpoints.WEIGHTS], "samples": plan.samples}
        entry = next((each for each in stored if {name: each.get(name) for name in key} == key), None)
        if entry is None or kind not in histories:
            history = checkpoints.read_history(folder)
            entry = {**key, "seed": 0, "scores": {}, **_training(history), "command": description.command}
            for lengths in SETS:
                print(f"scoring {kind} on {lengths}", file=sys.stderr)
                (found,) = json.loads(
                    _stackrev(
                        *("evaluate", "--model", str(folder), "--lengths", lengths, "--seed", "0", "--quiet", "--json"),
                        *("--samples", str(plan.samples)),
                    )
                )
                entry["scores"][lengths] = {"coarse": found["coarse"], "fine": found["fine"]}
            histories[kind] = [short(line) for line in history if "validation" in line]
        entries.append(entry)
        write_json(learning, histories)
        write_json(path, entries)
    with (out / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("model", "lengths", "strings", "coarse", "fine", "published coarse", "published fine"))
        for entry in entries:
            for lengths, each in entry["scores"].items():
                published = PUBLISHED[entry["model"]][lengths]
                writer.writerow((entry["model"], lengths, entry["samples"], each["coarse"], each["fine"], *published))


def _training(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a history says of how long training took."""
    checks = [line for line in history if "validation" in line]
    solved = next((line for line in checks if line["validation"]["coarse"] == line["test"]["coarse"] == 1), None)
    return {
        "batches": checks[-1]["batch"] if checks else None,
        "seconds": round(checks[-1]["seconds"], 1) if checks else None,
        "solved_batch": solved and solved["batch"],
        "solved_seconds": solved and round(solved["seconds"], 1),
    }


def score_lengths(out: Path, models: Path, plan: Plan) -> None:
    """Score each model on strings of one length after another."""
    import torch

    from stackrev.evaluation.scoring import score
    from stackrev.tasks.strings import sample_strings

    path = out / "lengths.json"
    stored = read_json(path, {})
    for kind in MODELS:
        folder = models / kind
        if not (folder / checkpoints.CONFIG).exists():
            continue
        weights = checkpoints.describe(folder).checksums[checkpoints.WEIGHTS]
        if stored.get(kind, {}).get("weights") != weights:
            stored[kind] = {"weights": weights, "scores": []}
        entry = stored[kind]
        done = {each["length"] for each in entry["scores"]}
        model = None
        for length, samples in plan.lengths.items():
            if length in done:
                continue
            model = model or load(folder).model
            print(f"scoring {kind} on strings of {length}", file=sys.stderr)
            generator = torch.Generator().manual_seed(length)
            found = score(model, sample_strings(LengthRange(minimum=length, maximum=length), samples, generator))
            entry["scores"].append({"length": length, "samples": samples, "coarse": found.coarse, "fine": found.fine})
            write_json(path, stored)
    with (out / "lengths.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("model", "length", "samples", "coarse", "fine"), lineterminator="\n")
        writer.writeheader()
        writer.writerows({"model": kind, **each} for kind, entry in stored.items() for each in entry["scores"])


def score_long(out: Path, models: Path, plan: Plan) -> None:
    """Try the stack-LSTM on ever longer strings, each length in a fresh process."""
    folder, path = models / "stack-lstm", out / "long.json"
    if not (folder / checkpoints.CONFIG).exists():
        return
    weights = checkpoints.describe(folder).checksums[checkpoints.WEIGHTS]
    stored = read_json(path, {})
    if (stored.get("weights"), stored.get("seed")) != (weights, LONG_SEED):
        stored = {"weights": weights, "seed": LONG_SEED, "scores": []}
    done = {(each["lengths"], each["samples"]) for each in stored["scores"]}
    for lengths, samples in plan.long.items():
        if (lengths, samples) in done:
            continue
        print(f"scoring stack-lstm on {samples} strings of {lengths}", file=sys.stderr)
        options = "--lengths", lengths, "--samples", str(samples), "--seed", str(LONG_SEED), "--margins"
        (found,) = json.loads(_stackrev("evaluate", "--model", str(folder), *options, "--quiet", "--json"))
        wanted = "lengths", "samples", "coarse", "fine", "margins"
        stored["scores"].append({name: found[name] for name in wanted})
        write_json(path, stored)


def trace_stack(out: Path, models: Path) -> None:
    """Look at the stack while one string is reversed."""
    from stackrev.evaluation.traces import trace

    folder, path = models / "stack-lstm", out / "trace.json"
    if not (folder / checkpoints.CONFIG).exists():
        return
    weights = checkpoints.describe(folder).checksums[checkpoints.WEIGHTS]
    if read_json(path, {}).get("weights") == weights:
        return
    model = load(folder).model
    found = trace(model, EXAMPLE)._asdict()
    for name in ("push", "pop"):
        found[name] = [round(value, 6) for value in found[name]]
    write_json(path, {"weights": weights, "text": EXAMPLE, "steps": found}, indent=None)


def _stackrev(*arguments: str) -> str:
    """Run the command line in a fresh process, and return what it printed."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "stackrev", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        raise StackrevError(f"stackrev {' '.join(arguments)} ended with exit code {done.returncode}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="a smaller version of all of it")
    parser.add_argument("--retrain", action="store_true", help="make the packaged models again first")
    parser.add_argument("--figures-only", action="store_true", help="run nothing: tables, figures and README alone")
    parser.add_argument("--skip-seeds", action="store_true", help="score the models, and run no seeds")
    parser.add_argument("--output", type=Path, help="where results are kept (docs/results, or runs/quick)")
    parser.add_argument("--readme", type=Path, help="whose results section is written (README.md)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    out = options.output or ROOT / ("runs/quick" if options.quick else "docs/results")
    readme = options.readme or (out / "README.md" if options.quick else ROOT / "README.md")
    out.mkdir(parents=True, exist_ok=True)
    try:
        if not options.figures_only:
            if options.retrain:
                subprocess.run([sys.executable, str(ROOT / "scripts" / "make_checkpoints.py")], check=True)
            models = make_models(out, plan)
            score_models(out, models, plan)
            score_lengths(out, models, plan)
            score_long(out, models, plan)
            trace_stack(out, models)
            if not options.skip_seeds:
                run_settings(out, plan, options.workers)
                paper.run_cells(out, plan.exact, plan.row_seeds, changes=plan.changes, workers=options.workers)
        tell(out, readme)
    except StackrevError as caught:
        print(f"error: {caught.message}" + (f" ({caught.hint})" if caught.hint else ""), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
