"""Checkpoints: a folder that describes itself; no crash can spoil it, and it is read as if it came from a stranger.

A checkpoint folder holds

    config.json         format and version, configuration, scores, command, SHA-256 of the two files below
    model.safetensors   the weights, float32
    history.jsonl       one JSON object a line for each thing that happened in training
    README.md           the model card, generated from config.json and the history's last line

**Writing.** The one commit point is the replacement of config.json. New weights and history are first written and
synced under names of their own (`.model.safetensors.new`), then config.json, which carries their checksums, replaces
the old one in a single rename, then the new files take their places. A reader takes, of the two names, the file that
has the checksum in config.json. So whenever the writer dies there is one complete checkpoint, the old one or the new
one, and never a mixture; the next `save` puts the names right. README.md is derived from these and carries no
checksum: after a crash it may be one save behind.

**Training state** (`save_tensors`) is one file replaced in one rename. What resumes a run must all be in that file,
weights and history included, so that it is a commit point of its own: write it first, then `save`, and resume from it
alone. A run killed in between then continues from where it was, and its next `save` brings the checkpoint up to date.

**Reading.** Files are checked for kind and size before they are read, and sizes follow from the configuration before
any memory is taken; every weight the configuration calls for must be there, with its shape, in float32, finite, and
nothing else. Only the files named above are ever opened. Pickle is never read.

Imports torch only where a model is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from stackrev.config import Config, LengthRange, ModelConfig, from_dict, to_dict
from stackrev.errors import CheckpointError, ConfigError
from stackrev.tasks import vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stackrev.models.reversers import Reverser

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
HISTORY = "history.jsonl"
FILES = (WEIGHTS, CONFIG, CARD, HISTORY)

FORMAT = "stackrev"
VERSION = 1

_MEBIBYTE = 2**20
_MAX_CONFIG = _MEBIBYTE
_MAX_HEADER = _MEBIBYTE
_MAX_WEIGHTS = 192 * _MEBIBYTE
_MAX_HISTORY = 16 * _MEBIBYTE
_MAX_TENSORS = 768 * _MEBIBYTE

LIMITS = {WEIGHTS: 8 + _MAX_HEADER + _MAX_WEIGHTS, CONFIG: _MAX_CONFIG, CARD: _MEBIBYTE, HISTORY: _MAX_HISTORY}
"""The most bytes that each file of a checkpoint may have."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
_SCORED = ("coarse", "fine")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        name: What it was asked for as.
        folder: Where it lies.
        config: The run that made it.
        scores: Measured results: for each range of lengths, such as "65-128", an object with `coarse`, `fine`,
            `samples` and `seed`.
        model: In evaluation mode.
    """

    name: str
    folder: Path
    config: Config
    scores: Mapping[str, Any]
    model: Reverser[Any]


class RawTensor(NamedTuple):
    """A tensor without torch.

    Attributes:
        shape: Its sizes.
        dtype: "F32", always: what safetensors calls float32.
        data: Its values, row by row, little-endian.
    """

    shape: tuple[int, ...]
    dtype: str
    data: bytearray


@dataclass(frozen=True)
class Description:
    """What config.json says.

    Attributes:
        config: The run that made the checkpoint.
        scores: As in `Checkpoint`.
        command: The command that made it, where it is known.
        checksums: The SHA-256 of each other file, in hexadecimal.
    """

    config: Config
    scores: Mapping[str, Any]
    command: str | None
    checksums: Mapping[str, str]


@dataclass(frozen=True)
class Verification:
    """What `verify` has checked.

    Attributes:
        folder: The checkpoint.
        checksums: The SHA-256 of each file, as recorded and as found.
        parameters: How many weights there are, all finite.
    """

    folder: Path
    checksums: Mapping[str, str]
    parameters: int


def load(folder: Path, *, name: str | None = None, device: str | torch.device = "cpu") -> Checkpoint:
    """Load a model from its file, strictly.

    Args:
        folder: A checkpoint folder.
        name: What to call it; the folder's name if None.
        device: Where the model goes.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours.
    """
    import torch

    from stackrev.models.reversers import build

    folder = Path(folder)
    description, weights = _read_checkpoint(folder)
    # Every initial value is about to be overwritten: draw the cheapest ones, and none from the global generator.
    shape = description.config.model
    model = build(replace(shape, initialisation="torch"), torch.Generator())
    model.config = shape
    model.load_state_dict(
        {key: torch.frombuffer(each.data, dtype=torch.float32).reshape(each.shape) for key, each in weights.items()}
    )
    return Checkpoint(
        name=name or folder.resolve().name,
        folder=folder,
        config=description.config,
        scores=description.scores,
        model=model.to(device).eval(),
    )


def load_config(folder: Path) -> tuple[Config, Mapping[str, Any]]:
    """The configuration and the scores of a checkpoint, without its weights and without torch.

    Raises:
        CheckpointError: config.json is missing, damaged or not one of ours.
    """
    description = describe(folder)
    return description.config, description.scores


def describe(folder: Path) -> Description:
    """All that config.json says.

    Raises:
        CheckpointError: It is missing, damaged or not one of ours.
    """
    path = Path(folder) / CONFIG
    raw = _parse_json(path, _read_file(path, _MAX_CONFIG))
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a stackrev checkpoint", hint="other architectures cannot be loaded")
    version = raw.get("version")
    if type(version) is not int or version != VERSION:
        raise CheckpointError(
            f"{path} has version {_short(version)}, and this stackrev reads version {VERSION}",
            hint="upgrade stackrev, or save the checkpoint again with this one",
        )
    if unknown := [key for key in raw if key not in ("format", "version", "config", "scores", "command", "sha256")]:
        raise CheckpointError(f"{path} has the unknown key {_short(unknown[0])}")
    try:
        config = from_dict(Config, raw.get("config"))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {_short(error.message, quote=False)}", hint=error.hint) from error
    scores, command, checksums = raw.get("scores", {}), raw.get("command"), raw.get("sha256")
    if not isinstance(scores, dict):
        raise CheckpointError(f"{path}: scores must be an object")
    if not (command is None or isinstance(command, str)):
        raise CheckpointError(f"{path}: command must be a string")
    if not (
        isinstance(checksums, dict) and set(checksums) == {WEIGHTS, HISTORY} and all(map(_is_sha, checksums.values()))
    ):
        raise CheckpointError(f"{path} lacks the SHA-256 of {WEIGHTS} and {HISTORY}")
    return Description(config, scores, command, checksums)


def read_weights(folder: Path) -> tuple[Config, dict[str, RawTensor]]:
    """The configuration and the weights of a checkpoint without torch, checked as strictly as by `load`.

    Returns:
        The configuration, and the tensors by their names in the model's `state_dict`, in the order of `shapes`.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged or not one of ours.
    """
    description, weights = _read_checkpoint(Path(folder))
    return description.config, weights


def read_history(folder: Path) -> list[dict[str, Any]]:
    """What happened in training, oldest first.

    Raises:
        CheckpointError: The checkpoint is incomplete or damaged.
    """
    folder = Path(folder)
    for description in _attempts(folder):
        data = _matching(folder, HISTORY, description.checksums[HISTORY], _MAX_HISTORY)
        if data is not None:
            break
    else:
        raise CheckpointError(f"{folder / HISTORY} does not have the checksum in {CONFIG}", hint=_AGAIN)
    records = [_parse_json(folder / HISTORY, line) for line in data.splitlines()]
    if not all(isinstance(each, dict) for each in records):
        raise CheckpointError(f"{folder / HISTORY} has a line that is not an object")
    return records


def verify(folder: Path) -> Verification:
    """Check everything about a checkpoint: checksums of all files, a strict load, finite weights.

    Raises:
        CheckpointError: Something is wrong.
    """
    folder = Path(folder)
    read_history(folder)
    checkpoint = load(folder)
    parameters = sum(each.numel() for each in checkpoint.model.parameters())
    return Verification(folder, describe(folder).checksums, parameters)


def save(
    folder: Path,
    model: Reverser[Any],
    config: Config,
    *,
    scores: Mapping[str, Any] | None = None,
    history: Iterable[Mapping[str, Any]] = (),
    command: str | None = None,
) -> None:
    """Write a checkpoint, so that a crash at any moment leaves the folder's earlier one or this one.

    Args:
        folder: Where; made if need be. Files of other names in it are left alone.
        model: On any device, in float32.
        config: The run that made it; its `model` must be the model's own.
        scores: As in `Checkpoint`.
        history: What happened in training, oldest first, as JSON objects.
        command: The command that made it.

    Raises:
        CheckpointError: The weights are not finite or not float32, or the folder cannot be written.
    """
    import torch
    from safetensors.torch import save as serialize

    if model.config != config.model:
        raise CheckpointError("the model and the configuration to be saved with it differ")
    state = {key: each.detach().cpu().contiguous() for key, each in model.state_dict().items()}
    if any(each.dtype != torch.float32 for each in state.values()):
        raise CheckpointError("a checkpoint holds float32 weights, and the model has others", hint="save model.float()")
    if not all(bool(torch.isfinite(each).all()) for each in state.values()):
        raise CheckpointError("the model's weights are not finite", hint="train with a lower learning rate")
    if 4 * sum(each.numel() for each in state.values()) > _MAX_WEIGHTS:
        raise CheckpointError(f"the model has more than {_MAX_WEIGHTS // _MEBIBYTE} MiB of weights")
    staged = {
        WEIGHTS: serialize(state, metadata={"format": "pt"}),
        HISTORY: "".join(json.dumps(dict(each)) + "\n" for each in history).encode(),
    }
    if len(staged[HISTORY]) > _MAX_HISTORY:
        raise CheckpointError(f"the history is longer than {_MAX_HISTORY // _MEBIBYTE} MiB")
    if command is not None:
        command = command.encode("utf-8", "backslashreplace").decode()
    checksums = {name: _sha(data) for name, data in staged.items()}
    _commit(Path(folder), staged, Description(config, dict(scores or {}), command, checksums))


def save_scores(folder: Path, scores: Mapping[str, Any], *, name: str | None = None) -> None:
    """Record measured results in a checkpoint and on its card, and leave the rest as it is.

    Args:
        folder: A checkpoint folder.
        scores: As in `Checkpoint`; they replace what was recorded for the same lengths.
        name: What the card calls the model; the folder's name if None.

    Raises:
        CheckpointError: The checkpoint cannot be read or written.
    """
    old = describe(folder)
    _commit(Path(folder), {}, replace(old, scores={**old.scores, **scores}), name)


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint without its scores, every other file byte for byte but for the card, which is made anew.

    Args:
        source: A checkpoint folder.
        target: Another; made if need be.

    Raises:
        CheckpointError: The checkpoint is damaged, or the copy cannot be written.
    """
    source = Path(source)
    for description in _attempts(source):
        contents = {
            name: _matching(source, name, checksum, LIMITS[name]) for name, checksum in description.checksums.items()
        }
        found = {name: data for name, data in contents.items() if data is not None}
        if len(found) == len(contents):
            _commit(Path(target), found, replace(description, scores={}))
            return
    verify(source)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts to one safetensors file, in one rename.

    Raises:
        CheckpointError: The file cannot be written.
    """
    from safetensors.torch import save as serialize

    path = Path(path)
    data = serialize({key: each.detach().cpu().contiguous() for key, each in tensors.items()}, metadata=dict(metadata))
    if len(data) > _MAX_TENSORS:
        raise CheckpointError(f"{path} would be larger than {_MAX_TENSORS // _MEBIBYTE} MiB")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save_tensors` wrote.

    Raises:
        CheckpointError: The file is missing, damaged or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    with _opened(path, _MAX_TENSORS):
        pass
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {_short(str(error), quote=False)}") from error


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the `state_dict` of the model that `config` describes, without making it."""
    size, layers, width, symbols = config.hidden_size, config.layers, config.stack_width, vocabulary.SIZE
    initial = (layers, 1, size)
    table: dict[str, tuple[int, ...]] = {"initial_hidden": initial}
    if config.kind != "rnn":
        table["initial_cell"] = initial
    if config.kind == "stack-lstm":
        for cell in ("encoder", "decoder"):
            table[f"{cell}.symbols"] = (symbols, 4 * size)
            for layer in range(layers):
                table[f"{cell}.recurrent.{layer}"] = ((width if layer == 0 else size) + size, 4 * size)
                table[f"{cell}.bias.{layer}"] = (4 * size,)
        for controls in ("controls",) if config.shared_controls else ("controls", "decoder_controls"):
            table[f"{controls}.weight"] = (size, 2 + width)
            table[f"{controls}.bias"] = (2 + width,)
    else:
        rows = size if config.kind == "rnn" else 4 * size
        table["embedding.weight"] = (symbols, width)
        for cell in ("encoder", "decoder"):
            for layer in range(layers):
                table[f"{cell}.weight_ih_l{layer}"] = (rows, width if layer == 0 else size)
                table[f"{cell}.weight_hh_l{layer}"] = (rows, size)
                table[f"{cell}.bias_ih_l{layer}"] = (rows,)
                table[f"{cell}.bias_hh_l{layer}"] = (rows,)
    table["output.weight"], table["output.bias"] = (size, size), (size,)
    table["logits.weight"], table["logits.bias"] = (symbols, size), (symbols,)
    return table


def model_card(name: str, description: Description, history: bytes = b"") -> str:
    """The README.md of a checkpoint, with the metadata that the Hugging Face Hub reads.

    Args:
        name: What the model is called on the card.
        description: What the card tells.
        history: What history.jsonl holds, for how long training took.
    """
    config = description.config
    measured = dict(results(description.scores))
    lines = [
        "---",
        "license: mit",
        "library_name: stackrev",
        "pipeline_tag: text-generation",
        "tags:",
        *(
            f"- {tag}"
            for tag in ("stackrev", config.model.kind, "neural-stack", "string-reversal", "sequence-to-sequence")
        ),
    ]
    if measured:
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
    for lengths, score in measured.items():
        lines += [
            "  - task:",
            "      type: text-generation",
            "      name: String reversal",
            "    dataset:",
            "      type: stackrev-reversal",
            f"      name: Random strings of {lengths} symbols",
            f"      config: {json.dumps(lengths)}",
            "      split: test",
            "    metrics:",
            *(
                line
                for metric in _SCORED
                for line in (
                    f"    - type: {metric}",
                    f"      name: {metric.title()} accuracy",
                    f"      value: {score[metric]}",
                )
            ),
        ]
    lines += [
        "---",
        "",
        f"# {name}",
        "",
        _KINDS[config.model.kind],
        "It reads `$`, a string and `|`, and is trained to write the string reversed and `&`.",
        "",
        "    pip install stackrev",
        f"    stackrev reverse --model {name} '$A string to reverse|'",
        "",
    ]
    if measured:
        lines += ["| lengths | strings | coarse | fine |", "|---|---|---|---|"]
        lines += [
            f"| {lengths} | {score.get('samples', '')} | {_cut(score['coarse'])} | {_cut(score['fine'])} |"
            for lengths, score in measured.items()
        ]
        lines += [
            "",
            "Coarse: the share of strings whose whole output, end marker included and nothing after it, is right.",
            "Fine: the mean share of the output that is right before the first error.",
            "",
        ]
    if trained := _trained(history):
        lines += [f"Trained for {trained}.", ""]
    lines += ["## Configuration", "", "```json", json.dumps(to_dict(config), indent=2), "```", ""]
    if description.command is not None:
        lines += ["Made by:", "", f"    {' '.join(description.command.split())}", ""]
    return "\n".join(lines)


def _trained(history: bytes) -> str:
    """How long, by the last line of a history; empty if it does not say."""
    try:
        last = json.loads(history.splitlines()[-1])
        batches, seconds = int(last["batch"]), float(last["seconds"])
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return ""
    if not 0 <= seconds < math.inf:
        return ""
    minutes = f" ({seconds / 60:,.0f} minutes)" if seconds >= 120 else ""
    return f"{batches:,} batches in {seconds:,.0f} seconds{minutes}"


def results(scores: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The scores that have the form that `Checkpoint` describes, each with its range of lengths, as recorded."""
    for lengths, score in scores.items():
        if not (isinstance(score, Mapping) and all(_is_share(score.get(metric)) for metric in _SCORED)):
            continue
        if type(score.get("samples", 0)) is not int:
            continue
        with contextlib.suppress(ConfigError):
            yield str(LengthRange.parse(lengths)), score


_KINDS = {
    "stack-lstm": "An LSTM with a differentiable neural stack (Grefenstette et al. 2015, arXiv 1506.02516).",
    "lstm": "An LSTM, as a baseline for the neural stack of Grefenstette et al. 2015 (arXiv 1506.02516).",
    "rnn": "An Elman RNN, as a baseline for the neural stack of Grefenstette et al. 2015 (arXiv 1506.02516).",
}

_AGAIN = "fetch or copy the checkpoint again"


def _cut(share: float) -> str:
    """Four decimals, cut rather than rounded: only all is 1.0000."""
    return f"{math.floor(share * 10_000) / 10_000:.4f}"


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _is_sha(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _short(value: object, *, quote: bool = True, limit: int = 120) -> str:
    """A value for a one-line message."""
    text = repr(value) if quote else " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _read_checkpoint(folder: Path) -> tuple[Description, dict[str, RawTensor]]:
    for description in _attempts(folder):
        expected = shapes(description.config.model)
        size = 4 * sum(map(math.prod, expected.values()))
        if size > _MAX_WEIGHTS:
            raise CheckpointError(
                f"{folder / CONFIG} calls for {size // _MEBIBYTE} MiB of weights",
                hint=f"at most {_MAX_WEIGHTS // _MEBIBYTE} MiB can be loaded",
            )
        data = _matching(folder, WEIGHTS, description.checksums[WEIGHTS], 8 + _MAX_HEADER + size)
        if data is not None:
            return description, _parse_weights(folder / WEIGHTS, data, expected)
    raise CheckpointError(_mismatch(folder / WEIGHTS, size), hint=_AGAIN)


def _attempts(folder: Path) -> Iterator[Description]:
    """What config.json says, again each time it has changed since: its writer may be at work."""
    previous = None
    for _ in range(10):
        description = describe(folder)
        if description == previous:
            return
        previous = description
        yield description


def _matching(folder: Path, name: str, checksum: str, limit: int) -> bytes | None:
    """The contents of a file, or of the one that is about to take its place, whichever has the checksum."""
    path = folder / name
    # In this order: a writer may rename the second to the first in between.
    with contextlib.suppress(CheckpointError):
        data = _read_file(_staged(path), limit)
        if _sha(data) == checksum:
            return data
    data = _read_file(path, limit)
    return data if _sha(data) == checksum else None


def _mismatch(path: Path, expected: int) -> str:
    """Why a weights file has the wrong checksum."""
    with _opened(path, 2**63) as file:
        start = file.read(8)
        size = os.fstat(file.fileno()).st_size
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"):
        return f"{path} is a pickle, which is never read"
    if size < expected + 8:
        return f"{path} is truncated: it has {size:,} bytes, and its weights alone take {expected:,}"
    return f"{path} does not have the checksum in {CONFIG}"


def _parse_weights(path: Path, data: bytes, expected: Mapping[str, tuple[int, ...]]) -> dict[str, RawTensor]:
    from safetensors import SafetensorError, deserialize

    if int.from_bytes(data[:8], "little") > _MAX_HEADER:
        raise CheckpointError(f"{path} is not a safetensors file")
    try:
        contents = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {_short(str(error), quote=False)}") from error
    found = {name: RawTensor(tuple(each["shape"]), each["dtype"], each["data"]) for name, each in contents}
    if missing := sorted(set(expected) - set(found)):
        raise CheckpointError(f"{path} lacks the tensor {missing[0]!r} ({len(missing)} missing)")
    if unknown := sorted(set(found) - set(expected)):
        raise CheckpointError(f"{path} has the unknown tensor {_short(unknown[0])} ({len(unknown)} unknown)")
    for name, shape in expected.items():
        tensor = found[name]
        if tensor.dtype != "F32":
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, not F32")
        if tensor.shape != shape:
            raise CheckpointError(f"{path}: {name} has the shape {_short(list(tensor.shape))}, not {list(shape)}")
        # A sum of float32 cannot overflow in float64, so it is finite exactly if every term is.
        if not math.isfinite(sum(memoryview(tensor.data).cast("f"))):
            raise CheckpointError(f"{path}: {name} has values that are not finite")
    return {name: found[name] for name in expected}


def _parse_json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {_short(str(error), quote=False)}", hint=_AGAIN) from error


def _read_file(path: Path, limit: int) -> bytes:
    with _opened(path, limit) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise CheckpointError(f"{path} is larger than {limit:,} bytes")
    return data


@contextlib.contextmanager
def _opened(path: Path, limit: int) -> Iterator[BinaryIO]:
    """A file open for reading, known to be a regular one of at most `limit` bytes."""
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path} is not a regular file")
        if status.st_size > limit:
            raise CheckpointError(f"{path} has {status.st_size:,} bytes, which is more than it can need")
        yield file


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a named pipe must not hang the program."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _missing(path: Path) -> CheckpointError:
    folder = path.parent
    if not folder.is_dir():
        return CheckpointError(f"there is no folder {folder}")
    pickles: list[str] = []
    with contextlib.suppress(OSError):
        pickles = sorted(each.name for each in folder.iterdir() if each.suffix in _PICKLES)
    if path.name in (WEIGHTS, CONFIG) and pickles:
        return CheckpointError(
            f"{folder} has no {path.name} but {_short(pickles[0])}",
            hint="pickled weights are never read: only safetensors",
        )
    return CheckpointError(f"{folder} has no {path.name}", hint="a checkpoint is a folder made by stackrev train")


def _commit(folder: Path, staged: Mapping[str, bytes], description: Description, name: str | None = None) -> None:
    raw = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(description.config),
        "scores": description.scores,
        "command": description.command,
        "sha256": dict(description.checksums),
    }
    contents = (json.dumps(raw, indent=2) + "\n").encode()
    if len(contents) > _MAX_CONFIG:
        raise CheckpointError(f"{CONFIG} would be larger than {_MAX_CONFIG // _MEBIBYTE} MiB")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _settle(folder)
        for each, data in staged.items():
            _write(_staged(folder / each), data)
        _sync_folder(folder)
        _replace(folder / CONFIG, contents)
        for each in staged:
            _staged(folder / each).replace(folder / each)
        history = staged.get(HISTORY)
        if history is None:
            with contextlib.suppress(CheckpointError):
                history = _matching(folder, HISTORY, description.checksums[HISTORY], _MAX_HISTORY)
        _replace(folder / CARD, model_card(name or folder.resolve().name, description, history or b"").encode())


def _settle(folder: Path) -> None:
    """Finish what a writer that died after its commit point left undone."""
    if any(_staged(folder / name).exists() for name in (WEIGHTS, HISTORY)) and (folder / CONFIG).exists():
        try:
            checksums = describe(folder).checksums
        except CheckpointError:
            return
        for name, checksum in checksums.items():
            staged = _staged(folder / name)
            if staged.is_file() and _sha(staged.read_bytes()) == checksum:
                staged.replace(folder / name)


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _replace(path: Path, data: bytes) -> None:
    """Give a file new contents in one rename, on disk before this returns."""
    staged = _staged(path)
    _write(staged, data)
    staged.replace(path)
    _sync_folder(path.parent)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Not every system can open a folder; where it cannot, its renames are as durable as they get.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            f"{path} cannot be written: {reason}", hint="choose another folder, or make room"
        ) from error
