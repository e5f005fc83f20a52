"""The model card: a README.md that tells people, and the Hugging Face Hub, what a checkpoint is.

Its text lies in `templates/`. What is filled in may come from a stranger's configuration: characters that a terminal or
a browser would act on are written as escapes.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from stackrev.config import to_dict
from stackrev.errors import CheckpointError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.storage.format import HISTORY, Description, as_unicode, parse_json, results
from stackrev.tasks import REVERSAL
from stackrev.tasks.data import task_of

MARK = "library_name: stackrev"
"""A line that every card has, and that tells a card of ours from somebody's README.md."""


def model_card(name: str, description: Description, history: bytes = b"", *, certified: bool = False) -> str:
    """The README.md of a checkpoint, with the metadata that the Hugging Face Hub reads.

    Args:
        name: What the model is called on the card.
        description: What the card tells.
        history: What history.jsonl holds, for how long training took.
        certified: Whether a certificate lies beside the weights.
    """
    config, name, command = description.config, _plain(name), description.command
    task, argument = task_of(config.data), shlex.quote(name)
    use = f"reverse --model {argument} '$A string to reverse|'" if task is REVERSAL else f"apply --model {argument}"
    measured = dict(results(description.scores))
    entries = [
        _fill("result.yaml", lengths=each, task=task.name, **_of(score, str)) for each, score in measured.items()
    ]
    rows = [
        _fill("row.md", lengths=each, strings=str(score.get("samples", "")), **_of(score, cut))
        for each, score in measured.items()
    ]
    index = _fill("index.yaml", name=json.dumps(name, ensure_ascii=False), results="\n".join(entries))
    trained = _trained(history)
    return _fill(
        "card.md",
        kind=config.model.kind,
        model_index=f"{index}\n" if measured else "",
        name=name,
        summary=KINDS[config.model.kind].summary,
        task=task.name,
        answer=task.summary,
        use=use,
        scores=_fill("scores.md", rows="\n".join(rows)) + "\n\n" if measured else "",
        certified=_fill("certified.md", argument=argument) + "\n\n" if certified else "",
        trained=f"Trained for {trained}.\n\n" if trained else "",
        configuration=json.dumps(_shown(config), indent=2),
        command="" if command is None else f"\nMade by:\n\n    {_plain(command)}\n",
    )


def _shown(config: Config) -> dict[str, Any]:
    """The configuration as the card has it: without a list of all symbols, which may be long."""
    raw = to_dict(config)
    if "symbols" in raw["data"]:
        raw["data"]["symbols"] = f"{len(raw['data']['symbols']):,} {raw['data']['tokens']}, see config.json"
    return raw


def cut(share: float) -> str:
    """A share with four decimals, cut rather than rounded: only all is 1.0000."""
    return f"{math.floor(share * 10_000) / 10_000:.4f}"


def _fill(template: str, **values: str) -> str:
    """A template of `templates/`, without the line feed at its end, and with values in it."""
    text = resources.files("stackrev.storage").joinpath("templates", template).read_text(encoding="utf-8")
    return Template(text.removesuffix("\n")).substitute(values)


def _of(score: Mapping[str, Any], form: Any) -> dict[str, str]:
    return {metric: form(score[metric]) for metric in ("coarse", "fine")}


def _plain(text: str) -> str:
    """A text in one line, with escapes for what is not printable."""
    line = " ".join(as_unicode(text).split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)


def _trained(history: bytes) -> str:
    """How long, by the last line of a history; empty if it does not say."""
    try:
        last = parse_json(HISTORY, history.splitlines()[-1])
        batches, seconds = last["batch"], float(last["seconds"])
    except (CheckpointError, IndexError, KeyError, TypeError, ValueError, OverflowError):
        return ""
    if type(batches) is not int or batches < 0 or not 0 <= seconds < math.inf:
        return ""
    minutes = f" ({seconds / 60:,.0f} minutes)" if seconds >= 120 else ""
    return f"{batches:,} batches in {seconds:,.0f} seconds{minutes}"
