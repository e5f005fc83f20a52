"""Tables and figures of the README, from the data in a results folder alone; `reproduce.py` makes the data."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paper

from stackrev import figures
from stackrev.errors import StackrevError
from stackrev.evaluation.traces import Trace
from stackrev.experiments import presets, seeds, tables
from stackrev.kinds.config import Config
from stackrev.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

LONG_SEED = 7
COMPARISONS = {
    "sizes": ("Width of controller and stack", {"width 32": "32", "default": "64", "width 128": "128"}),
    "depths": ("Layers of the controller", {"default": "one", "two layers": "two", "three layers": "three"}),
    "optimisers": ("Optimisers", {"default": "Adam", "AdamW": "AdamW", "RMSprop": "RMSprop", "SGD": "SGD"}),
}


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
        cells: The results of all seeds of the paper's table, by its cells.
    """

    scores: Sequence[Mapping[str, Any]]
    learning: Mapping[str, Any]
    lengths: Mapping[str, Any]
    long: Sequence[Mapping[str, Any]]
    trace: Trace | None
    seeds: Mapping[str, Sequence[Mapping[str, Any]]]
    cells: Mapping[paper.Cell, Sequence[Mapping[str, Any]]]

    def summaries(self) -> dict[str, dict[str, Any]]:
        """The summary of each setting."""
        return {name: tables.summarise(name, results) for name, results in self.seeds.items()}


def read_results(out: Path) -> Results:
    """What a results folder holds; nothing of what has not been run."""
    trace = read_json(out / "trace.json", None)
    folders = {name: out / "seeds" / name.replace(" ", "-") for name in presets.PRESETS}
    found = {name: list(seeds.read_seeds(folder).values()) for name, folder in folders.items()}
    return Results(
        scores=read_json(out / "scores.json", []),
        learning=read_json(out / "learning.json", {}),
        lengths=read_json(out / "lengths.json", {}),
        long=read_json(out / "long.json", {}).get("scores", []),
        trace=trace and Trace(**{name: tuple(x) if isinstance(x, list) else x for name, x in trace["steps"].items()}),
        seeds={name: results for name, results in found.items() if results},
        cells=paper.read_cells(out),
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
        rows = {name: summaries[name] for name in presets.TABLE if name in summaries}
        if len(rows) > 1:
            blocks += ["Other settings, everything else as by default:", _rows(rows)]
        add_figures(*COMPARISONS)
    if results.cells:
        blocks += ["### The paper's other tasks and structures", _paper(results)]
    if not blocks:
        return ""
    blocks.append(
        "All of this comes from `python scripts/reproduce.py`; the data is in `docs/results/`. Tables and figures "
        "alone, from that data: `python scripts/reproduce.py --figures-only`. Any seed again, and compared with what "
        "is stored: `stackrev experiment rerun docs/results/seeds/default 17`."
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
        "That it reverses every string, however long, is proved: `stackrev certify stack-lstm`. Here it is on strings "
        "far longer than the 8-64 symbols it was trained on. A gate is 0 or 1 exactly where its pre-activation is far "
        "enough from 0; the first margin is by how much further out it is, at the step, of all steps of all strings, "
        "where that is least. The second is by how much the right logit exceeds the second best, where that is least. "
        f"`stackrev evaluate --lengths 10000000 --samples 1 --seed {LONG_SEED} --margins` shows beside them what is "
        f"proved for every string, which none of these undercuts.\n\n{_table(table)}"
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
            "proved at every length",
        ),
        ("published, as published", "6", "4", "1,000-3,000", "3,000", "hours", *("-" for _ in exact), "-"),
    ]
    rows = (("published", "published, trained here"), ("plain settling", "without proof"), ("default", "default"))
    for name, label in rows:
        if name in summaries:
            lengths = (_exact(summaries[name], length) for length in exact)
            table.append((label, *_summary(summaries[name]), *lengths, _proved(summaries[name])))
    text = (
        "A run has learned when it reverses every validation and every test string exactly. Every seed from 0 up "
        "counts; none is left out, and no run is started again. A run that has learned settles until a proof for every "
        'length closes (`--settle certified`, the default), or plainly, for a while (`--settle plain`, here "without '
        'proof"). Solved runs were also tried on 20 strings of 10,000 symbols and one of 1,000,000.'
    )
    if runs := _runs_of_each(summaries.get("default", {})):
        text += f" {runs}"
    if unsolved := summaries.get("default", {}).get("unsolved_seeds"):
        text += f" Seeds that do not learn by default: {', '.join(map(str, unsolved))}."
    return f"{text}\n\n{_table(table)}"


def _paper(results: Results) -> str:
    rows = paper.rows(results.cells, results.seeds.get("default", []), results.scores)
    again, of = paper.restarted(results.cells)
    return (
        "Strings of 8-64 symbols are learned and those of 65-128 tested, with the default settings of the model and "
        "the task; every seed from 0 up counts, as many as the table says. A run has learned when every validation and "
        "test string is right, and scores are those at the end of a run. So these strings decide when a run ends and "
        "with which weights. The column of unseen strings counts the runs that answer every one of 1,000 others of "
        "65-128 exactly (`--unseen 65-128:1000`), or are proved to answer every string. A run of the queue-LSTM or the "
        "deque-LSTM "
        "on SVO to SOV, or of the deque-LSTM on gender, starts over with new weights if no check has found half of "
        "both held-out sets right after a number of batches (`--restart-batches`). "
        f"{again} of those {of} runs started over. Batches and seconds count all starts; seconds depend on the "
        "machine (`environment` in each `setting.json`), and compare only roughly. "
        "`stackrev experiment run FOLDER --model queue-lstm --set task=bigram-flip --seeds 0-19 "
        "--exact 10000:20,1000000:1 --unseen 65-128:1000` makes such a row. "
        "Runs that have learned were tried on 20 strings of 10,000 symbols and one of 1,000,000, sentences of the two "
        "grammars included. The LSTM had its 12,000 batches on flipping bigrams, on a CPU; on copying and the "
        "two grammars it had 8,000, on a GPU and with another version of torch; on reversal it and the RNN are the "
        f"packaged models. What a structure cannot do, and why, is in docs/research.md.\n\n{_table(rows)}"
    )


def _rows(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    heads = "setting", "runs", "learn", "batches, median", "batches, most", "seconds, median", "proved at every length"
    return _table([heads, *((name, *_summary(each), _proved(each)) for name, each in summaries.items())])


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
    return _share_of_runs(summary["exact"].get(length))


def _proved(summary: Mapping[str, Any]) -> str:
    return _share_of_runs(summary.get("proof"))


def _share_of_runs(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else f"{found['runs']:,} of {found['of']:,}"


def _runs_of_each(summary: Mapping[str, Any]) -> str:
    """What came of strings of one symbol alone, as a sentence; nothing if they were not tried."""
    found = summary.get("runs_of_each")
    if found is None:
        return ""
    return (
        f"By default {_share_of_runs(found)} are also exact on long strings of one symbol alone, one string for each "
        f"of the {found['samples']} symbols."
    )


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
            files.write(folder / f"{name}.{format_}", figures.render(figure, format_))
    write_json(folder / "versions.json", drawn_with())
    summaries = list(results.summaries().values())
    write_json(out / "settings.json", summaries)
    if summaries:
        tables.write_table(out, tables.tabulate(summaries))
    text = readme.read_text(encoding="utf-8") if readme.exists() else f"{START}\n{END}\n"
    figures_at = Path(os.path.relpath(folder.resolve(), readme.parent.resolve())).as_posix()
    files.write(readme, put_between_markers(text, section(results, figures_at, names)).encode())
    print(f"{len(names)} figures in {folder}, and the tables in {readme}", file=sys.stderr)


def drawn_with() -> dict[str, str]:
    """What decides a figure's bytes besides the data."""
    figures.require()
    import matplotlib

    return {"matplotlib": matplotlib.__version__}


def read_json(path: Path, default: Any) -> Any:
    """What a file of our own holds; the default if it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a value as a file."""
    files.write(path, (json.dumps(value, indent=indent) + "\n").encode())
