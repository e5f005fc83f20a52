"""Train one setting with many seeds, and tell how many of the runs learn.

    python scripts/consistency.py runs/default --seeds 0-99 --exact 10000,1000000:1
    python scripts/consistency.py runs/small --seeds 0-19 --set model.hidden_size=32 --set model.stack_width=32
    python scripts/consistency.py runs/published --setting published --seeds 0-5
    python scripts/consistency.py runs/table --table --seeds 0-19
    python scripts/consistency.py runs/default --rerun 17

A folder holds one setting: `setting.json`, what was run; `seeds.jsonl`, one line a seed with its result and its whole
history; `summary.json`; and the figure. A seed is written down when it is done, so that a run which was stopped, by
whatever means, goes on with the seeds it lacks when the command is given again. Every run takes one thread: its result
depends neither on the number of workers nor on the other runs. `--rerun` trains one stored seed again, from the stored
setting, and says whether it gave the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import hashlib
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackrev.config import LengthRange, from_dict, to_dict
from stackrev.errors import MissingExtraError, StackrevError
from stackrev.kinds import KINDS, kind_of
from stackrev.kinds.config import Config, read_config
from stackrev.tasks import vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from stackrev.models.base import Reverser

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "width 32": {"model.hidden_size": 32, "model.stack_width": 32},
    "width 128": {"model.hidden_size": 128, "model.stack_width": 128},
    "batch 25": {"training.batch_size": 25},
    "batch 100": {"training.batch_size": 100},
    "rate halved": {"training.learning_rate": Config().training.learning_rate / 2},
    "rate doubled": {"training.learning_rate": Config().training.learning_rate * 2},
    "two layers": {"model.layers": 2},
    "three layers": {"model.layers": 3},
    "AdamW": {"training.optimizer": "adamw", "training.weight_decay": 0.01},
    "RMSprop": {"training.optimizer": "rmsprop", "training.learning_rate": 2e-3},
    "SGD": {"training.optimizer": "sgd", "training.learning_rate": 0.5, "training.momentum": 0.9},
    "published": {
        "model.initialisation": "torch",
        "model.gate_stretch": 0.0,
        "model.gate_noise": 0.0,
        "model.string_noise": 0.0,
        "model.push_bias": 0.0,
        "model.pop_bias": 0.0,
        "model.shared_controls": True,
        "training.learning_rate": 1e-3,
        "training.schedule": "constant",
        "training.warmup_batches": 0,
        "training.recurrent_l1": 0.0,
        "training.settle_temperature": 1.0,
        "training.curriculum_start": None,
        "training.mixed_lengths": False,
        "training.batches": 3000,
    },
}
"""Named settings, as changes to the default one of the stack-LSTM."""

TABLE = tuple(SETTINGS)[:8]
"""The rows of the robustness table."""

EXACT_BATCH = 200_000
"""How many symbols may be scored side by side when long strings are tried."""


# What to run


def parse_seeds(text: str) -> list[int]:
    """The seeds of `0-99`, `3` or `0-9,20,30-39`, in order, each once."""
    ranges = [LengthRange.parse(part) for part in text.split(",")]
    return sorted({seed for each in ranges for seed in range(each.minimum, each.maximum + 1)})


def parse_exact(text: str, samples: int) -> dict[int, int]:
    """How many strings to try of each length: `1024,1000000:1` is `samples` of the first and one of the second."""
    pairs = (part.partition(":") for part in text.split(",") if part)
    return {int(length): int(count) if count else samples for length, _, count in pairs}


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """The values of `training.learning_rate=0.004` and the like: JSON where they are, and otherwise strings."""
    overrides = {}
    for text in texts:
        key, _, value = text.partition("=")
        try:
            overrides[key.strip()] = json.loads(value)
        except ValueError:
            overrides[key.strip()] = value
    return overrides


def configure(kind: str, overrides: Mapping[str, Any]) -> Config:
    """The default configuration of a kind of model with some of its values changed.

    Args:
        kind: The kind of model.
        overrides: Values by their dotted names.

    Raises:
        ConfigError: A name is unknown or a value wrong.
    """
    raw = to_dict(Config.default(kind))
    if "model.kind" in overrides:
        raw["model"] = to_dict(kind_of(overrides["model.kind"]).configuration())
    for key, value in overrides.items():
        *path, last = key.split(".")
        place = raw
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return from_dict(Config, raw)


# One seed


def run_seed(raw: dict[str, Any], seed: int, exact: Mapping[int, int], weights: Path | None) -> dict[str, Any]:
    """Train one seed and measure what came of it.

    Args:
        raw: The configuration, as plain JSON values.
        seed: Its seed.
        exact: Of which lengths how many strings are tried, if the run is solved.
        weights: Where to keep the trained model as a checkpoint, if it is to be kept.

    Returns:
        The seed's line of `seeds.jsonl`.
    """
    from stackrev.training.trainer import Trainer

    config = read_config({**raw, "training": {**raw["training"], "seed": seed}})
    trainer = Trainer(config)
    error = None
    try:
        trainer.run()
    except StackrevError as caught:
        error = caught.message
    progress = trainer.progress
    solved = next((line for line in progress.history if line["batch"] == progress.solved_batch), None)
    last = progress.history[-1] if progress.history else None
    result: dict[str, Any] = {
        "seed": seed,
        "solved_batch": progress.solved_batch,
        "solved_seconds": solved and round(solved["seconds"], 2),
        "batches": progress.batch,
        "seconds": round(progress.seconds, 2),
        "validation": last and last["validation"],
        "test": last and last["test"],
        "exact": {},
        "longest_exact": None,
        "weights": digest(trainer.model),
    }
    if error is not None:
        result["error"] = error
    if solved:
        result["exact"] = {str(length): try_length(trainer.model, length, count) for length, count in exact.items()}
        lengths = [int(length) for length, each in result["exact"].items() if each["exact"] == each["samples"]]
        result["longest_exact"] = max(lengths, default=None)
    result["history"] = [_round(line) for line in progress.history]
    if weights is not None:
        from stackrev.storage import checkpoints

        checkpoints.save(weights, trainer.model.state_dict(), config, history=progress.history, scores={})
    return result


def try_length(model: Reverser[Any], length: int, samples: int) -> dict[str, Any]:
    """How a model does on long strings, always the same ones of a length.

    Returns:
        `exact`, how many of the `samples` are reversed exactly; `fine`, their fine accuracy; and with the compiled
        kernels `margin`, the least by which the right symbol's logit exceeded the second best before an error.
    """
    import torch

    from stackrev import kernels
    from stackrev.evaluation.scoring import Scores, correct_symbols
    from stackrev.tasks.batches import make_batch, sample_strings

    generator = torch.Generator().manual_seed(length)
    strings = sample_strings(LengthRange(minimum=length, maximum=length), samples, generator)
    correct: list[int] = []
    margins: list[float] = []
    if model.config.kind == "stack-lstm" and kernels.available():
        stream = model.stream()
        for string in strings:
            symbols = string.tolist()
            stream.reset()
            stream.encode([vocabulary.START, *symbols])
            found = stream.score(vocabulary.SEPARATOR, vocabulary.target_ids(symbols))
            correct.append(found.right)
            margins.append(found.margin)
    else:
        size = max(1, EXACT_BATCH // (length + 1))
        model.eval()
        with torch.inference_mode():
            for start in range(0, samples, size):
                correct += correct_symbols(model, make_batch(strings[start : start + size]))
    scores = Scores(tuple(correct), (length,) * samples)
    result = {"exact": round(scores.coarse * samples), "samples": samples, "fine": round(scores.fine, 6)}
    return {**result, "margin": float(f"{min(margins):.3g}")} if margins else result


def digest(model: Reverser[Any]) -> str:
    """The SHA-256 of a model's weights, in the order of their names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    tensor = tensor.detach().cpu().contiguous()
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def _round(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a history, as short as a figure needs it."""
    return {
        **line,
        "loss": float(f"{line['loss']:.5g}"),
        "learning_rate": float(f"{line['learning_rate']:.5g}"),
        "validation": {**line["validation"], "fine": round(line["validation"]["fine"], 5)},
        "test": {**line["test"], "fine": round(line["test"]["fine"], 5)},
        "seconds": round(line["seconds"], 2),
    }


# Many seeds


def run_seeds(
    raw: dict[str, Any], seeds: Iterable[int], exact: Mapping[int, int], workers: int, weights: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Run seeds in parallel processes of one thread each; yields each one's result as it comes."""
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        pending = {
            executor.submit(run_seed, raw, seed, exact, weights and weights / f"seed-{seed:04}") for seed in seeds
        }
        for future in as_completed(pending):
            yield future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def read_seeds(folder: Path) -> dict[int, dict[str, Any]]:
    """The results in a folder, by seed; a line that a killed run left unfinished does not count."""
    results = {}
    path = folder / "seeds.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            result = json.loads(line)
        except ValueError:
            continue
        results[result["seed"]] = result
    return dict(sorted(results.items()))


def run_folder(
    folder: Path,
    config: Config,
    seeds: Sequence[int],
    exact: Mapping[int, int],
    *,
    name: str,
    workers: int,
    keep_weights: bool = False,
) -> dict[str, Any]:
    """Run what a folder still lacks of a setting's seeds, and write its summary.

    Returns:
        The summary.

    Raises:
        StackrevError: The folder holds another setting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = to_dict(config)
    raw["training"].pop("seed")
    setting = {"name": name, "config": raw, "exact": {str(length): count for length, count in exact.items()}}
    path = folder / "setting.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if read_config(stored["config"]) != read_config(raw) or stored["exact"] != setting["exact"]:
            raise StackrevError(f"{folder} holds runs of another setting", hint="give each setting a folder of its own")
    else:
        _write(path, json.dumps({**setting, "environment": environment()}, indent=2) + "\n")
    results = read_seeds(folder)
    missing = [seed for seed in seeds if seed not in results]
    if len(missing) < len(seeds):
        print(f"{name}: {len(seeds) - len(missing)} of {len(seeds)} seeds are there already", file=sys.stderr)
    lines = folder / "seeds.jsonl"
    _write(lines, "".join(map(_line, results.values())))  # whatever a killed run left unfinished is gone
    start = time.monotonic()
    for count, result in enumerate(
        run_seeds(raw, missing, exact, workers, folder / "weights" if keep_weights else None), 1
    ):
        with lines.open("a", encoding="utf-8") as file:
            file.write(_line(result))
            file.flush()
            os.fsync(file.fileno())
        results[result["seed"]] = result
        left = (time.monotonic() - start) / count * (len(missing) - count)
        print(f"{name} {count}/{len(missing)}, {left:.0f} s left: {describe(result)}", file=sys.stderr, flush=True)
    results = dict(sorted(results.items()))
    _write(lines, "".join(map(_line, results.values())))
    summary = summarise(name, [results[seed] for seed in seeds])
    _write(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def draw(folder: Path, name: str, seeds: Sequence[int]) -> None:
    """Write the consistency figure, if figures can be drawn here."""
    from stackrev import figures

    results = read_seeds(folder)
    histories = [results[seed]["history"] for seed in seeds if results[seed]["history"]]
    try:
        figure = figures.learning.by_seed(histories, title=name)
    except MissingExtraError as error:
        print(f"no figure: {error.message} ({error.hint})", file=sys.stderr)
        return
    for format_ in figures.FORMATS:
        (folder / f"consistency.{format_}").write_bytes(figures.render(figure, format_))


def _line(result: Mapping[str, Any]) -> str:
    return json.dumps(result, separators=(",", ":")) + "\n"


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def environment() -> dict[str, Any]:
    """What, besides the setting, may decide the last bits of a result or how long it takes."""
    import torch

    from stackrev import kernels

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "kernels": kernels.describe(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }


def processor() -> str:
    """The processor's own name for itself; torch picks some of its instructions, and so the last bits, by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


# Telling


def describe(result: Mapping[str, Any]) -> str:
    """One seed's result as a line of text."""
    if result["solved_batch"] is None:
        words = [f"seed {result['seed']}: not solved in {result['batches']} batches ({result['seconds']:.1f} s)"]
    else:
        words = [f"seed {result['seed']}: solved at {result['solved_batch']} ({result['solved_seconds']:.1f} s)"]
    for name in ("validation", "test"):
        if result[name]:
            words.append(f"{name} {result[name]['coarse']:.3f}/{result[name]['fine']:.3f}")
    for length, each in result["exact"].items():
        words.append(f"{int(length):,}: {each['exact']}/{each['samples']}")
    if "error" in result:
        words.append(result["error"])
    return "  ".join(words)


def summarise(name: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of a setting's results.

    Returns:
        `runs`, `solved`, the unsolved seeds, quartiles of batches and of seconds to solve, how many end right, and
        for each length how many runs are exact on every string of it.
    """
    solved = [each for each in results if each["solved_batch"] is not None]
    lengths = sorted({int(length) for each in solved for length in each["exact"]})
    return {
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
        "exact": {
            str(length): {
                "runs": sum(
                    each["exact"][str(length)]["exact"] == each["exact"][str(length)]["samples"] for each in had
                ),
                "of": len(results),
                "samples": max(each["exact"][str(length)]["samples"] for each in had),
                "not_exact_seeds": [
                    each["seed"]
                    for each in had
                    if each["exact"][str(length)]["exact"] < each["exact"][str(length)]["samples"]
                ],
            }
            for length in lengths
            if (had := [each for each in solved if str(length) in each["exact"]])
        },
    }


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
        rows.append(row)
    return rows


def show_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table as aligned text."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([("" if row.get(key) is None else str(row[key])) for key in columns] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as `table.json` and `table.csv`."""
    _write(folder / "table.json", json.dumps(rows, indent=2) + "\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# The commands


def rerun(folder: Path, seed: int) -> bool:
    """Train one stored seed again; whether its weights and its history are the same as before."""
    setting = json.loads((folder / "setting.json").read_text(encoding="utf-8"))
    before = read_seeds(folder).get(seed)
    if before is None:
        raise StackrevError(f"{folder} has no seed {seed}")
    exact = {int(length): count for length, count in setting["exact"].items()}
    (after,) = run_seeds(setting["config"], [seed], exact, 1)
    print(describe(after))
    changed = [
        name
        for name in ("solved_batch", "batches", "validation", "test", "exact", "weights")
        if after[name] != before[name]
    ]
    changed += ["history"] if _timeless(after) != _timeless(before) else []
    if changed:
        print(f"not as stored: {', '.join(changed)}\nstored: {describe(before)}")
        print(f"stored with {setting['environment']}, now {environment()}")
    else:
        print(f"the same as stored: history, scores and weights (SHA-256 {after['weights']})")
    return not changed


def _timeless(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in result["history"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="where the runs are kept, and go on from")
    parser.add_argument("--seeds", default="0-99", help="such as 0-99, or 3,5,10-19")
    parser.add_argument("--kind", choices=KINDS, default="stack-lstm", help="which model's defaults to start from")
    parser.add_argument("--setting", choices=list(SETTINGS), default="default", help="a named setting")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as model.hidden_size=32")
    parser.add_argument("--name", help="what to call the setting")
    parser.add_argument(
        "--exact", default="", metavar="LENGTHS", help="try solved runs on longer strings: 1024,10000:5"
    )
    parser.add_argument("--exact-samples", type=int, default=20, help="how many strings of each such length")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--keep-weights", action="store_true", help="keep each trained model as a checkpoint folder")
    parser.add_argument("--table", action="store_true", help="run all the named settings, one folder each")
    parser.add_argument("--rows", help="which of them, comma-separated")
    parser.add_argument("--rerun", type=int, metavar="SEED", help="train a stored seed again and compare")
    options = parser.parse_args(arguments)
    try:
        if options.rerun is not None:
            return 0 if rerun(options.folder, options.rerun) else 1
        seeds = parse_seeds(options.seeds)
        exact = parse_exact(options.exact, options.exact_samples)
        changes = parse_overrides(options.set)
        names = [options.setting]
        if options.table:
            names = options.rows.split(",") if options.rows else list(TABLE)
        summaries = []
        for name in names:
            if name not in SETTINGS:
                raise StackrevError(f"there is no setting {name!r}", hint=f"the settings are {', '.join(SETTINGS)}")
            folder = options.folder / name.replace(" ", "-") if options.table else options.folder
            title = name if options.table else options.name or " ".join([options.kind, name, *options.set])
            summaries.append(
                run_folder(
                    folder,
                    configure(options.kind, {**SETTINGS[name], **changes}),
                    seeds,
                    exact,
                    name=title,
                    workers=options.workers,
                    keep_weights=options.keep_weights,
                )
            )
            draw(folder, title, seeds)
            if options.table:
                write_table(options.folder, tabulate(summaries))
    except StackrevError as caught:
        print(f"error: {caught.message}" + (f" ({caught.hint})" if caught.hint else ""), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(show_table(tabulate(summaries)))
    if not options.table:
        again = shlex.join(["python", "scripts/consistency.py", str(options.folder), "--rerun", str(seeds[0])])
        print(f"any one seed again, and compared: {again}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
