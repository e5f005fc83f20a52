"""What the files of a checkpoint say: from bytes to checked values, and back. No disk is touched here.

    config.json         format and version, configuration, scores, command, SHA-256 of the two files below
    model.safetensors   the weights, float32
    history.jsonl       one JSON object a line for each thing that happened in training
    README.md           the model card, generated from config.json and the history's last line

Everything is read as if it came from a stranger. Sizes follow from the configuration before any memory is taken; every
weight that the configuration calls for must be there, with its shape, in float32, finite and in its range, and nothing
else. Pickle is never read.

Imports torch only where tensors are written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from stackrev.config import LengthRange, to_dict
from stackrev.errors import CheckpointError, ConfigError
from stackrev.kinds.base import ModelConfig
from stackrev.kinds.config import VERSION, Config, read_config

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
HISTORY = "history.jsonl"
CERTIFICATE = "certificate.safetensors"
FILES = (WEIGHTS, CONFIG, CARD, HISTORY)
"""What every checkpoint has."""
ALL_FILES = (*FILES, CERTIFICATE)
"""What a checkpoint may have."""

FORMAT = "stackrev"

MEBIBYTE = 2**20
MAX_HEADER = MEBIBYTE
MAX_WEIGHTS = 192 * MEBIBYTE

LIMITS = {
    WEIGHTS: 8 + MAX_HEADER + MAX_WEIGHTS,
    CONFIG: MEBIBYTE,
    CARD: MEBIBYTE,
    HISTORY: 16 * MEBIBYTE,
    CERTIFICATE: 16 * MEBIBYTE,
}
"""The most bytes that each file of a checkpoint may have."""

AGAIN = "fetch or copy the checkpoint again"
"""What to do about a file that is damaged."""

_SCORED = ("coarse", "fine")
_DEEPEST = 32  # how far JSON may be nested: far more than anything here is
_MOST_VALUES = 2**20  # how many values JSON may have: what takes two bytes in a file takes a hundred in memory


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
        scores: Measured results: for each range of lengths, such as "65-128", an object with `coarse`, `fine`,
            `samples` and `seed`.
        command: The command that made it, where it is known.
        checksums: The SHA-256 of each other file, in hexadecimal.
    """

    config: Config
    scores: Mapping[str, Any]
    command: str | None
    checksums: Mapping[str, str]


# config.json.


def parse_description(where: object, data: bytes) -> Description:
    """Read config.json.

    Args:
        where: Its path, for messages.
        data: What it holds.

    Raises:
        CheckpointError: It is damaged or not one of ours.
    """
    raw = parse_json(where, data)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise CheckpointError(f"{where} is not a stackrev checkpoint", hint="other architectures cannot be loaded")
    version = raw.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{where} has version {short(version)}, and this stackrev reads versions 1 to {VERSION}",
            hint="upgrade stackrev, or save the checkpoint again with this one",
        )
    if unknown := [key for key in raw if key not in ("format", "version", "config", "scores", "command", "sha256")]:
        raise CheckpointError(f"{where} has the unknown key {short(unknown[0])}")
    try:
        config = read_config(raw.get("config"), version=version)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {short(error.message, quote=False)}", hint=error.hint) from error
    scores, command, checksums = raw.get("scores", {}), raw.get("command"), raw.get("sha256")
    if not isinstance(scores, dict):
        raise CheckpointError(f"{where}: scores must be an object")
    if not (command is None or isinstance(command, str)):
        raise CheckpointError(f"{where}: command must be a string")
    if not (
        isinstance(checksums, dict) and set(checksums) == {WEIGHTS, HISTORY} and all(map(_is_sha, checksums.values()))
    ):
        raise CheckpointError(f"{where} lacks the SHA-256 of {WEIGHTS} and {HISTORY}")
    return Description(config, scores, command, checksums)


def dump_description(description: Description) -> bytes:
    """What config.json is to hold.

    Raises:
        CheckpointError: It would be too large.
    """
    raw = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(description.config),
        "scores": description.scores,
        "command": description.command,
        "sha256": dict(description.checksums),
    }
    data = (json.dumps(raw, indent=2) + "\n").encode()
    if len(data) > LIMITS[CONFIG]:
        raise CheckpointError(f"{CONFIG} would be larger than {LIMITS[CONFIG] // MEBIBYTE} MiB")
    return data


def results(scores: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The scores that have the form that `Description` tells of, each with its range of lengths, as recorded."""
    for lengths, score in scores.items():
        if not (isinstance(score, Mapping) and all(_is_share(score.get(metric)) for metric in _SCORED)):
            continue
        if type(score.get("samples", 0)) is not int:
            continue
        with contextlib.suppress(ConfigError):
            yield str(LengthRange.parse(lengths)), score


# model.safetensors.


def size_of(where: object, config: ModelConfig) -> int:
    """How many bytes the weights that a configuration calls for take.

    Args:
        where: The path of the configuration, for messages.
        config: The model's.

    Raises:
        CheckpointError: More than can be loaded.
    """
    size = 4 * sum(map(math.prod, config.shapes().values()))
    if size > MAX_WEIGHTS:
        raise CheckpointError(
            f"{where} calls for {size // MEBIBYTE} MiB of weights",
            hint=f"at most {MAX_WEIGHTS // MEBIBYTE} MiB can be loaded",
        )
    return size


def parse_weights(where: object, data: bytes, config: ModelConfig) -> dict[str, RawTensor]:
    """Read model.safetensors.

    Args:
        where: Its path, for messages.
        data: What it holds.
        config: What it must fit.

    Returns:
        The tensors by their names, in the order of the configuration's `shapes`.

    Raises:
        CheckpointError: It is damaged, or does not hold exactly the weights that the configuration calls for.
    """
    from safetensors import SafetensorError, deserialize

    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise CheckpointError(f"{where} is not a safetensors file")
    try:
        contents = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(f"{where} is not a safetensors file: {short(str(error), quote=False)}") from error
    found = {name: RawTensor(tuple(each["shape"]), each["dtype"], each["data"]) for name, each in contents}
    expected = config.shapes()
    _compare(f"{where}", {name: each.shape for name, each in found.items()}, expected)
    for name in expected:
        tensor = found[name]
        if tensor.dtype != "F32":
            raise CheckpointError(f"{where}: {name} is {tensor.dtype}, not F32")
        # A sum of float32 cannot overflow in float64, so it is finite exactly if every term is.
        if not math.isfinite(sum(memoryview(tensor.data).cast("f"))):
            raise CheckpointError(f"{where}: {name} has values that are not finite")
    _check_buffers(where, {name: memoryview(found[name].data).cast("f") for name in config.buffers()}, config)
    return {name: found[name] for name in expected}


def dump_weights(tensors: Mapping[str, Tensor], config: ModelConfig) -> bytes:
    """What model.safetensors is to hold.

    Args:
        tensors: A model's `state_dict`, on any device. Tied weights, which share their memory, are written apart.
        config: What they must fit.

    Raises:
        CheckpointError: They do not fit, or are not finite or not float32.
    """
    import torch

    size_of("the configuration", config)
    _compare("the model", {name: tuple(each.shape) for name, each in tensors.items()}, config.shapes())
    if any(each.dtype != torch.float32 for each in tensors.values()):
        raise CheckpointError("a checkpoint holds float32 weights, and the model has others", hint="save model.float()")
    if any(each.is_meta for each in tensors.values()):
        raise CheckpointError("the model is on the meta device, where weights have no values")
    if not all(bool(torch.isfinite(each).all()) for each in tensors.values()):
        raise CheckpointError("the model's weights are not finite", hint="train with a lower learning rate")
    _check_buffers("the model", {name: tensors[name].flatten().tolist() for name in config.buffers()}, config)
    return dump_tensors(tensors, {"format": "pt"})


def _check_buffers(where: object, values: Mapping[str, Iterable[float]], config: ModelConfig) -> None:
    try:
        config.check_buffers(values)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None


def dump_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors and texts as safetensors has them; the values alone count, not what memory they share."""
    from safetensors.torch import save

    apart: dict[str, Tensor] = {}
    taken = set()
    for name, tensor in tensors.items():
        each = tensor.detach().cpu().resolve_neg().contiguous()
        memory = each.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() > each.nbytes:
            each = each.clone()
        taken.add(each.untyped_storage().data_ptr())
        apart[name] = each
    return save(apart, metadata=dict(metadata))


def _compare(whose: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Make sure that tensors have the names and shapes that a configuration calls for, and that there are no others."""
    if missing := sorted(set(expected) - set(found)):
        raise CheckpointError(f"{whose} lacks the tensor {missing[0]!r} ({len(missing)} missing)")
    if unknown := sorted(set(found) - set(expected)):
        raise CheckpointError(f"{whose} has the unknown tensor {short(unknown[0])} ({len(unknown)} unknown)")
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(f"{whose}: {name} has the shape {short(list(found[name]))}, not {list(shape)}")


# history.jsonl.


def parse_history(where: object, data: bytes) -> list[dict[str, Any]]:
    """Read history.jsonl.

    Args:
        where: Its path, for messages.
        data: What it holds.

    Raises:
        CheckpointError: A line is not a JSON object.
    """
    _require_few_values(where, data)
    records = [parse_json(where, line) for line in data.splitlines()]
    if not all(isinstance(record, dict) for record in records):
        raise CheckpointError(f"{where} has a line that is not an object")
    return records


def dump_history(records: Iterable[Mapping[str, Any]]) -> bytes:
    """What history.jsonl is to hold.

    Raises:
        CheckpointError: It would be too large.
    """
    data = "".join(json.dumps(dict(record)) + "\n" for record in records).encode()
    if len(data) > LIMITS[HISTORY]:
        raise CheckpointError(f"the history is longer than {LIMITS[HISTORY] // MEBIBYTE} MiB")
    return data


# What these share.


def parse_json(where: object, data: bytes) -> Any:
    """Read a stranger's JSON.

    Args:
        where: Its path, for messages.
        data: What it holds, in UTF-8.

    Raises:
        CheckpointError: It is not JSON, is nested too deeply or too large, or has a text that is not Unicode: half of a
            character.
    """
    _require_few_values(where, data)
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not JSON: {short(str(error), quote=False)}", hint=AGAIN) from error
    if b"\\u" in data:  # the one way to write half of a character
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            raise CheckpointError(f"{where} has a text that is not Unicode", hint=AGAIN) from None
    if data.count(b"[") + data.count(b"{") > _DEEPEST and _is_deep(value):
        raise CheckpointError(f"{where} is nested too deeply", hint=AGAIN)
    return value


def _require_few_values(where: object, data: bytes) -> None:
    if sum(map(data.count, (b"[", b"{", b",", b"\n"))) > _MOST_VALUES:
        raise CheckpointError(f"{where} has more than {_MOST_VALUES:,} values", hint=AGAIN)


def as_unicode(text: str) -> str:
    """A text with escapes for what is not Unicode, such as bytes of a file's name that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def sha(data: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def short(value: object, *, quote: bool = True, limit: int = 120) -> str:
    """A value for a one-line message."""
    text = repr(value) if quote else " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _is_sha(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
