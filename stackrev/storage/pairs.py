"""Files of pairs: JSON Lines with `{"input": "...", "target": "..."}`, to learn from or to be tested on.

A file is read as a whole and kept in memory. A run remembers the checksums of its files: it goes on, and is scored,
with the same pairs or not at all.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stackrev.config import LengthRange
from stackrev.errors import DataError, DataNotFoundError, VocabularyError
from stackrev.storage import files
from stackrev.storage.format import sha
from stackrev.tasks.base import Task
from stackrev.tasks.data import MOST_SYMBOLS, DataConfig, PairsConfig, task_of
from stackrev.tasks.pairs import Ids, Pairs
from stackrev.tasks.vocabulary import Vocabulary

LARGEST = 1 << 28
"""The most bytes that a file of pairs may have."""
_FORM = 'each line must be {"input": "...", "target": "..."}'
_SHARE = 10  # one of so many pairs is held out to validate with, and one to test with
_FILES = ("data", "validation", "test")


class _Pair(NamedTuple):
    """A pair of texts, as characters or words, and its line."""

    source: list[str]
    target: list[str]
    line: int


def complete(config: PairsConfig, *, given: Collection[str] = ()) -> PairsConfig:
    """The settings of pairs with what follows from the files: symbols, lengths and checksums.

    Args:
        config: Names the files.
        given: The names of settings that were chosen, and stay: lengths among them choose pairs.

    Raises:
        DataError: A file cannot be read or is not one of pairs, with its line; or it holds too few.
    """
    if config.data is None:
        raise DataNotFoundError("the task pairs needs pairs", hint="name a file with --data")
    read = {name: _read(path, config) for name in _FILES if (path := getattr(config, name)) is not None}
    pairs, _ = read["data"]
    symbols = sorted({symbol for pair in pairs for side in pair[:2] for symbol in side})
    if len(symbols) > MOST_SYMBOLS:
        raise DataError(
            f"{config.data} has {len(symbols):,} different {config.tokens}, and {MOST_SYMBOLS:,} are the most",
            hint="--tokens chars has fewer" if config.tokens == "words" else "give texts of fewer",
        )
    counts = [(len(pair.source), len(pair.target)) for found, _ in read.values() for pair in found]
    expansion = max(-(-(written - 15) // max(1, taken)) for taken, written in counts)
    config = replace(
        config,
        symbols=tuple(symbols),
        expansion=max(2, expansion),
        checksums={name: checksum for name, (_, checksum) in read.items()},
        lengths=config.lengths if "lengths" in given else _range([*pairs, *read.get("validation", ([], ""))[0]]),
        test_lengths=config.test_lengths if "test_lengths" in given else _range(read.get("test", (pairs, ""))[0]),
    )
    open_task(config)
    return config


def open_task(config: DataConfig) -> Task:
    """The task that a configuration is about; of pairs, with the pairs of its files.

    Raises:
        DataError: A file of pairs cannot be read, or is not what it was; or it holds too few pairs.
    """
    if not isinstance(config, PairsConfig):
        return task_of(config)
    vocabulary = task_of(config).vocabulary
    answers: dict[Ids, Ids] = {}
    sources: dict[str, list[Ids]] = {}
    for name in _FILES:
        if (path := getattr(config, name)) is not None:
            pairs, checksum = _read(path, config)
            if checksum != config.checksums.get(name):
                raise DataError(f"{path} is not the file that it was", hint="put back the file of the run")
            found = _encode(path, pairs, vocabulary)
            sources[name] = list(found)
            answers = {**found, **answers}
    parts = _split(config, sources)
    return Pairs(vocabulary, expansion=config.expansion, answers=answers, **parts)


def read_examples(path: Path, config: PairsConfig) -> tuple[Pairs, list[Ids]]:
    """The pairs of a file, for a model that has learned from another: a task that knows them, and their inputs.

    Raises:
        DataError: The file cannot be read or is not one of pairs, or has symbols that the model does not know.
    """
    vocabulary = task_of(config).vocabulary
    answers = _encode(str(path), _read(str(path), config)[0], vocabulary)
    return Pairs(vocabulary, expansion=config.expansion, answers=answers), list(answers)


def _split(config: PairsConfig, sources: Mapping[str, list[Ids]]) -> dict[str, list[Ids]]:
    """The inputs to learn from, to validate with and to test with."""
    import torch

    own = sources["data"]
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(config.held_out_seed)).tolist()
    left = [own[place] for place in order]
    count = min(config.held_out_samples, max(1, len(own) // _SHARE))
    taken: set[Ids] = set()
    parts: dict[str, list[Ids]] = {}
    for name, lengths in (("test", config.test_lengths), ("validation", config.lengths)):
        found = [each for each in sources.get(name, left) if _within(each, lengths) and each not in taken]
        parts[name] = found[: config.held_out_samples if name in sources else count]
        taken.update(parts[name])
    parts["training"] = [each for each in left if _within(each, config.lengths) and each not in taken]
    for name, found in parts.items():
        if not found:
            raise DataError(
                f"{config.data} leaves no pair for {name}", hint="give more pairs, other lengths, or more files"
            )
    return parts


def _within(source: Ids, lengths: LengthRange) -> bool:
    return lengths.minimum <= len(source) <= lengths.maximum


def _range(pairs: list[_Pair]) -> LengthRange:
    counts = [len(pair.source) for pair in pairs]
    return LengthRange(minimum=min(counts), maximum=max(1, *counts))


def _encode(path: str, pairs: list[_Pair], vocabulary: Vocabulary) -> dict[Ids, Ids]:
    """What is to be written for each input, as ids.

    Raises:
        DataError: A symbol is unknown, or an input has two targets; the message has the line's number.
    """
    answers: dict[Ids, Ids] = {}
    lines: dict[Ids, int] = {}
    for pair in pairs:
        where = f"{path}, line {pair.line}"
        try:
            source, target = (tuple(vocabulary.encode_tokens(side)) for side in pair[:2])
        except VocabularyError as error:
            hint = "a model knows the symbols of the file it learns from, and no others"
            raise DataError(f"{where}: {error.message}", hint=hint) from None
        if answers.setdefault(source, target) != target:
            first = lines[source]
            raise DataError(
                f"{where}: line {first} has another target for the same input", hint="leave one of them out"
            )
        lines.setdefault(source, pair.line)
    return answers


def _read(path: str, config: PairsConfig) -> tuple[list[_Pair], str]:
    """The pairs of a file, and its checksum."""
    with files.raising(DataError, missing=DataNotFoundError):
        data = files.read_bytes(Path(path), LARGEST)
    vocabulary = Vocabulary(0, words=config.tokens == "words")
    pairs = list(_pairs(path, data, vocabulary))
    if not pairs:
        raise DataError(f"{path} holds no pairs", hint=_FORM)
    return pairs, sha(data)


def _pairs(path: str, data: bytes, vocabulary: Vocabulary) -> Iterator[_Pair]:
    data = data.removeprefix(codecs.BOM_UTF8)  # some editors write one
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            pair = json.loads(line.decode())
        except UnicodeDecodeError:
            raise DataError(f"{where}: not UTF-8", hint="convert the file to UTF-8") from None
        except (ValueError, RecursionError):
            raise DataError(f"{where}: not JSON", hint=_FORM) from None
        if not isinstance(pair, dict):
            raise DataError(f"{where}: not an object", hint=_FORM)
        for name in ("input", "target"):
            if not isinstance(pair.get(name), str):
                wrong = "no text" if name in pair else "missing"
                raise DataError(f"{where}: {name!r} is {wrong}", hint=_FORM)
            try:
                pair[name].encode()
            except UnicodeEncodeError:
                raise DataError(f"{where}: {name!r} has half a surrogate pair", hint="encode it as UTF-8") from None
        yield _Pair(vocabulary.split(pair["input"]), vocabulary.split(pair["target"]), number)
