"""Rerun everything behind the tables and figures of the README.

    python scripts/reproduce.py                  # all of it; the packaged models are scored, not trained
    python scripts/reproduce.py --retrain        # train the packaged models first: hours more
    python scripts/reproduce.py --quick          # a smaller version of all of it, models included, in minutes
    python scripts/reproduce.py --figures-only   # tables, figures and README from the data that is there

Everything is written to docs/results/ (with --quick, to runs/quick/): data as JSON, JSON Lines and CSV, figures as SVG
and PNG; and the README gets its results section, between two markers. What is there already is not run again, so the
same command goes on after an interruption. A model is scored again when its weights have changed.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import consistency

from stackrev import figures
from stackrev.config import LengthRange
from stackrev.errors import StackrevError
from stackrev.evaluation.traces import Trace
from stackrev.kinds.config import Config
from stackrev.storage import checkpoints

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results:start -->", "<!-- results:end -->"

MODELS = {"stack-lstm": "stack-LSTM", "lstm": "LSTM", "rnn": "Elman RNN"}
SETS = {"8-64": "validation", "65-128": "test"}
PUBLISHED = {
    "stack-lstm": {"8-64": ("1.000", "1.000"), "65-128": ("1.000", "1.000")},
    "lstm": {"8-64": ("0.505", "0.77-0.93"), "65-128": ("0.000", "0.10")},
    "rnn": {"8-64": ("0.741", "0.97"), "65-128": ("0.000", "0.32")},
}
"""Coarse and fine accuracy of the published implementation's best runs."""
PUBLISHED_BATCHES = {"stack-lstm": "1,000-3,000", "lstm": "500,000", "rnn": "500,000"}

EXAMPLE = "A string to reverse"
LONG_SEED = 7
COMPARISONS = {
    "sizes": ("Width of controller and stack", {"width 32": "32", "default": "64", "width 128": "128"}),
    "depths": ("Layers of the controller", {"default": "one", "two layers": "two", "three layers": "three"}),
    "optimisers": ("Optimisers", {"default": "Adam", "AdamW": "AdamW", "RMSprop": "RMSprop", "SGD": "SGD"}),
}


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        seeds: How many runs of the default setting.
        exact: How many strings of which lengths a solved run of it is tried on.
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
    rows = dict.fromkeys(consistency.SETTINGS, plan.comparison_seeds)
    rows |= dict.fromkeys(consistency.TABLE, plan.row_seeds)
    rows["default"], rows["published"] = plan.seeds, plan.published_seeds
    for name, seeds in rows.items():
        consistency.run_folder(
            out / "seeds" / name.replace(" ", "-"),
            consistency.configure("stack-lstm", {**consistency.SETTINGS[name], **plan.changes}),
            range(seeds),
            plan.exact if name == "default" else {},
            name=name,
            workers=workers,
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
    stored = _read_json(path, [])
    histories = _read_json(learning, {})
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
            histories[kind] = [consistency._round(line) for line in history if "validation" in line]
        entries.append(entry)
        _write_json(learning, histories)
        _write_json(path, entries)
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
    from stackrev.tasks.batches import sample_strings

    path = out / "lengths.json"
    stored = _read_json(path, {})
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
            model = model or checkpoints.load(folder).model
            print(f"scoring {kind} on strings of {length}", file=sys.stderr)
            generator = torch.Generator().manual_seed(length)
            found = score(model, sample_strings(LengthRange(minimum=length, maximum=length), samples, generator))
            entry["scores"].append({"length": length, "samples": samples, "coarse": found.coarse, "fine": found.fine})
            _write_json(path, stored)
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
    stored = _read_json(path, {})
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
        _write_json(path, stored)


def trace_stack(out: Path, models: Path) -> None:
    """Look at the stack while one string is reversed."""
    from stackrev.evaluation.traces import trace
    from stackrev.models.stack_lstm import StackLSTMReverser

    folder, path = models / "stack-lstm", out / "trace.json"
    if not (folder / checkpoints.CONFIG).exists():
        return
    weights = checkpoints.describe(folder).checksums[checkpoints.WEIGHTS]
    if _read_json(path, {}).get("weights") == weights:
        return
    model = checkpoints.load(folder).model
    assert isinstance(model, StackLSTMReverser)
    found = trace(model, EXAMPLE)._asdict()
    for name in ("push", "pop"):
        found[name] = [round(value, 6) for value in found[name]]
    _write_json(path, {"weights": weights, "text": EXAMPLE, "steps": found}, indent=None)


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


# Telling


@dataclass(frozen=True)
class Results:
    """What is in a results folder.

    Attributes:
        scores: A model's scores and how it was trained, one object a model.
        learning: Histories, by model.
        lengths: Scores by length, by model.
        long: What the stack-LSTM does with long strings.
        trace: The steps of one string, or None.
        seeds: The results of all seeds, by the setting's name.
    """

    scores: Sequence[Mapping[str, Any]]
    learning: Mapping[str, Any]
    lengths: Mapping[str, Any]
    long: Sequence[Mapping[str, Any]]
    trace: Trace | None
    seeds: Mapping[str, Sequence[Mapping[str, Any]]]

    def summaries(self) -> dict[str, dict[str, Any]]:
        """The summary of each setting."""
        return {name: consistency.summarise(name, results) for name, results in self.seeds.items()}


def read_results(out: Path) -> Results:
    """What a results folder holds; nothing of what has not been run."""
    trace = _read_json(out / "trace.json", None)
    folders = {name: out / "seeds" / name.replace(" ", "-") for name in consistency.SETTINGS}
    found = {name: list(consistency.read_seeds(folder).values()) for name, folder in folders.items()}
    return Results(
        scores=_read_json(out / "scores.json", []),
        learning=_read_json(out / "learning.json", {}),
        lengths=_read_json(out / "lengths.json", {}),
        long=_read_json(out / "long.json", {}).get("scores", []),
        trace=trace and Trace(**{name: tuple(column) for name, column in trace["steps"].items()}),
        seeds={name: results for name, results in found.items() if results},
    )


def draw(results: Results) -> Iterator[tuple[str, Figure]]:
    """The figures that the results allow, by name."""
    if results.learning:
        yield "learning", figures.learning.by_model(results.learning)
    for name, title in (("default", "Default setting"), ("published", "Published setting, trained here")):
        if name in results.seeds:
            histories = [each["history"] for each in results.seeds[name] if each["history"]]
            yield "consistency" if name == "default" else name, figures.learning.by_seed(histories, title=title)
    for name, (title, rows) in COMPARISONS.items():
        groups = {
            label: [each["history"] for each in results.seeds[row] if each["history"]]
            for row, label in rows.items()
            if row in results.seeds
        }
        if len(groups) > 1:
            yield name, figures.learning.by_setting(groups, title=title)
    if results.lengths:
        scores = {
            kind: figures.lengths.LengthScores(
                *([each[name] for each in entry["scores"]] for name in ("length", "coarse", "fine"))
            )
            for kind, entry in results.lengths.items()
        }
        trained = Config().data.lengths
        yield "lengths", figures.lengths.accuracy(scores, trained=(trained.minimum, trained.maximum))
    if results.trace:
        yield "gates", figures.traces.gates(results.trace)
        yield "stack", figures.traces.contents(results.trace)


CAPTIONS = {
    "learning": "Training loss and fine accuracy of the three packaged models against the number of batches",
    "consistency": "Every seed of the default setting",
    "published": "The published setting, trained here",
    "sizes": "Widths of controller and stack",
    "depths": "Layers of the controller",
    "optimisers": "Optimisers",
    "lengths": "Accuracy of the three packaged models against the length of the string",
    "gates": "Push and pop strengths while one string is reversed",
    "stack": "The stack's contents while one string is reversed",
}


def section(results: Results, figures_at: str, names: Sequence[str]) -> str:
    """The README's results section, in Markdown, without its markers; empty if nothing has been measured.

    Args:
        results: What there is to tell.
        figures_at: Where the figures lie, from the README.
        names: Which figures there are.
    """
    blocks: list[str] = []

    def add_figures(*wanted: str) -> None:
        blocks.extend(f"![{CAPTIONS[name]}]({figures_at}/{name}.svg)" for name in wanted if name in names)

    if results.scores:
        blocks += ["### Accuracy", _accuracy(results), _effort(results)]
    add_figures("learning", "lengths")
    if results.long:
        blocks += ["### How long?", _long(results.long)]
    add_figures("gates", "stack")
    summaries = results.summaries()
    if summaries:
        blocks += ["### Does it learn every time?", _learns(summaries)]
        add_figures("consistency", "published")
        rows = {name: summaries[name] for name in consistency.TABLE if name in summaries}
        if len(rows) > 1:
            blocks += ["Other settings, everything else as by default:", _rows(rows)]
        add_figures(*COMPARISONS)
    if not blocks:
        return ""
    blocks.append(
        "All of this comes from `python scripts/reproduce.py`; the data is in `docs/results/`. Tables and figures "
        "alone, from that data: `python scripts/reproduce.py --figures-only`. Any seed again, and compared with what "
        "is stored: `python scripts/consistency.py docs/results/seeds/default --rerun 17`."
    )
    return "\n\n".join(blocks)


def _accuracy(results: Results) -> str:
    table = [("model", "strings", "coarse, published", "coarse, here", "fine, published", "fine, here")]
    for entry in results.scores:
        for lengths, each in entry["scores"].items():
            coarse, fine = PUBLISHED[entry["model"]][lengths]
            ours = _share(each["coarse"]), _share(each["fine"])
            what = f"{SETS[lengths]}, {lengths} symbols"
            table.append((MODELS[entry["model"]], what, coarse, ours[0], fine, ours[1]))
    samples = ", ".join(sorted({f"{entry['samples']:,}" for entry in results.scores}))
    return (
        f"Coarse is the share of strings reversed exactly, fine the mean share of the output before its first error; "
        f"on {samples} strings that no model has seen in training. Our figures are those of the packaged files, loaded "
        f"in a fresh process: `stackrev evaluate --model NAME --lengths 65-128 --seed 0`. The models' cards score "
        f"other strings, those held out in training.\n\n{_table(table)}"
    )


def _long(scores: Sequence[Mapping[str, Any]]) -> str:
    table = [("length", "strings", "exact", "gates past 0 and 1, at the least", "logits apart, at the least")]
    for each in scores:
        lengths = "-".join(f"{int(part):,}" for part in each["lengths"].split("-"))
        logits = each["margins"]["logits"]
        gates = min((margin for name, margin in each["margins"].items() if name != "logits" and margin is not None))
        exact = _count(each["coarse"] * each["samples"])
        gap = "-" if logits is None else f"{logits:.2f}"
        table.append((lengths, _count(each["samples"]), exact, f"{gates:.2f}", gap))
    return (
        "The same stack-LSTM, on strings far longer than the 8-64 symbols it was trained on. (It settled for longer "
        "than runs do by default, for wider margins.) A gate is 0 or 1 "
        "exactly where its pre-activation is far enough from 0; the first margin is by how much further out it is, at "
        "the step, of all steps of all strings, where that is least. The second is by how much the right logit "
        "exceeds the second best, where that is least. `stackrev evaluate --lengths 10000000 --samples 1 --seed "
        f"{LONG_SEED} --margins`\n\n{_table(table)}"
    )


def _effort(results: Results) -> str:
    table = [("model", "batches, published", "batches, here", "all right from batch", "time")]
    for entry in results.scores:
        solved = entry["solved_batch"]
        table.append(
            (
                MODELS[entry["model"]],
                PUBLISHED_BATCHES[entry["model"]],
                _count(entry["batches"]),
                "-" if solved is None else f"{_count(solved)} ({_time(entry['solved_seconds'])})",
                _time(entry["seconds"]),
            )
        )
    commands = ", ".join(f"`{entry['command']}`" for entry in results.scores)
    return (
        f"{_table(table)}\n\nMade by {commands}; the baselines on a machine that was busy with more. Until a run is "
        "solved, the points of its curves are scores of 100 strings."
    )


def _learns(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    exact = list(summaries.get("default", {}).get("exact", {}))
    table = [
        (
            *("setting", "runs", "learn", "batches, median", "batches, most", "seconds, median"),
            *(f"exact at {int(length):,}" for length in exact),
        ),
        ("published, as published", "6", "4", "1,000-3,000", "3,000", "hours", *("-" for _ in exact)),
    ]
    for name, label in (("published", "published, trained here"), ("default", "default")):
        if name in summaries:
            table.append((label, *_summary(summaries[name]), *(_exact(summaries[name], length) for length in exact)))
    text = (
        "A run has learned when it reverses every validation and every test string exactly. Every seed from 0 up "
        "counts; none is left out, and no run is started again."
    )
    if unsolved := summaries.get("default", {}).get("unsolved_seeds"):
        text += f" Seeds that do not learn by default: {', '.join(map(str, unsolved))}."
    return f"{text}\n\n{_table(table)}"


def _rows(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    return _table(
        [
            ("setting", "runs", "learn", "batches, median", "batches, most", "seconds, median"),
            *((name, *_summary(each)) for name, each in summaries.items()),
        ]
    )


def _summary(summary: Mapping[str, Any]) -> tuple[str, ...]:
    batches, seconds = summary["batches_to_solve"] or {}, summary["seconds_to_solve"] or {}
    return (
        _count(summary["runs"]),
        _count(summary["solved"]),
        _count(batches.get("median")),
        _count(batches.get("max")),
        "-" if not seconds else f"{seconds['median']:.1f}",
    )


def _exact(summary: Mapping[str, Any], length: str) -> str:
    each = summary["exact"].get(length)
    return "-" if each is None else f"{each['runs']:,} of {each['of']:,}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def _share(value: float) -> str:
    """Three decimals, cut rather than rounded: only all is 1.000."""
    return f"{math.floor(value * 1000 + 1e-9) / 1000:.3f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def put_between_markers(text: str, content: str) -> str:
    """A README with its results section replaced.

    Raises:
        StackrevError: The two markers are not there, once each and in order.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in rest or END in after:
        raise StackrevError("the README lacks its markers", hint=f"put {START} and {END} on lines of their own")
    return f"{before}{START}\n{content}\n{END}{after}"


def between_markers(text: str) -> str:
    """A README's results section."""
    return text.partition(START)[2].partition(END)[0].strip()


def tell(out: Path, readme: Path) -> None:
    """Write tables, figures and the README's section from the data."""
    results = read_results(out)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, figure in draw(results):
        names.append(name)
        for format_ in figures.FORMATS:
            _write(folder / f"{name}.{format_}", figures.render(figure, format_))
    _write_json(folder / "versions.json", drawn_with())
    summaries = list(results.summaries().values())
    _write_json(out / "settings.json", summaries)
    if summaries:
        consistency.write_table(out, consistency.tabulate(summaries))
    text = readme.read_text(encoding="utf-8") if readme.exists() else f"{START}\n{END}\n"
    figures_at = Path(os.path.relpath(folder.resolve(), readme.parent.resolve())).as_posix()
    _write(readme, put_between_markers(text, section(results, figures_at, names)).encode())
    print(f"{len(names)} figures in {folder}, and the tables in {readme}", file=sys.stderr)


def drawn_with() -> dict[str, str]:
    """What decides a figure's bytes besides the data."""
    figures.require()
    import matplotlib

    return {"matplotlib": matplotlib.__version__}


def _read_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    _write(path, (json.dumps(value, indent=indent) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.replace(path)


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
