"""One file of tensors and texts in safetensors' format, replaced in one rename: the state of a training run, say.

What resumes a run must all be in that file, weights and history included, so that it is a commit point of its own.

It is read in two steps, so that what a stranger's file claims is checked before any memory is taken for it: `opened`
reads the texts and the names, types and shapes of the tensors, and `Stored.read` reads their values.

Imports torch only where tensors are read or written.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stackrev.errors import CheckpointError, MissingFileError
from stackrev.storage import files
from stackrev.storage.format import MEBIBYTE, RawTensor, dump_tensors, parse_json, short

if TYPE_CHECKING:
    from torch import Tensor

MAX_FILE = 768 * MEBIBYTE
MAX_HEADER = 16 * MEBIBYTE

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
_TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
}


@dataclass(frozen=True)
class Entry:
    """What a file says of one of its tensors.

    Attributes:
        dtype: As safetensors calls it, "F32" for float32.
        shape: Its sizes.
        start: Where its values begin, in bytes from the start of the file.
        size: How many bytes they take.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Stored:
    """An open file of tensors whose header has been checked.

    Attributes:
        path: The file.
        texts: Its texts by their names, in ASCII.
        entries: Its tensors by their names; their values make up the rest of the file, without a gap.
    """

    path: Path
    texts: Mapping[str, str]
    entries: Mapping[str, Entry]
    _file: BinaryIO

    def read(self) -> dict[str, Tensor]:
        """The tensors, on the CPU, in the types that they are stored in.

        Raises:
            CheckpointError: The file ends too early.
            OSError: It cannot be read: inside of `opened`, that is a `CheckpointError`, too.
        """
        import torch

        tensors = {}
        for name, entry in self.entries.items():
            data = bytearray(entry.size)
            self._file.seek(entry.start)
            got = self._file.readinto(data)  # type: ignore[attr-defined]
            if got != entry.size:
                raise _damaged(self.path, "it ends too early")
            dtype = getattr(torch, _TORCH[entry.dtype])
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype, device="cpu")
            tensors[name] = flat.reshape(entry.shape)
        return tensors


def save(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write tensors and texts to one file, in one rename.

    Args:
        path: In a folder that is there, and locked where others may write to it.
        tensors: On any device.
        texts: In ASCII.

    Raises:
        CheckpointError: The file cannot be written, or would be too large.
    """
    data = dump_tensors(tensors, texts)
    if len(data) > MAX_FILE or int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise CheckpointError(f"{path} would be larger than can be read again", hint="check less often")
    with files.raising(CheckpointError):
        files.sweep(path)
        files.write(path, data)


def from_raw(weights: Mapping[str, RawTensor]) -> dict[str, Tensor]:
    """Weights as torch has them, float32 and on the CPU, whatever torch's defaults are."""
    import torch

    return {
        name: torch.frombuffer(each.data, dtype=torch.float32).reshape(each.shape).clone()
        for name, each in weights.items()
    }


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Stored]:
    """What `save` wrote.

    Raises:
        CheckpointError: The file is missing, damaged or not safetensors.
    """
    with files.raising(CheckpointError), contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(files.opened(path, MAX_FILE))
        except MissingFileError:
            raise CheckpointError(f"{path.parent} has no {path.name}") from None
        yield Stored(path, *_read_header(path, file), file)


def _read_header(path: Path, file: BinaryIO) -> tuple[dict[str, str], dict[str, Entry]]:
    end = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if end < 8 or length > min(MAX_HEADER, end - 8):
        raise _damaged(path, "its header is cut off")
    data = file.read(length)
    try:
        raw = parse_json(path, data)
    except CheckpointError as error:
        raise _damaged(path, error.message) from None
    if not data.isascii() or not isinstance(raw, dict):
        raise _damaged(path, "its header is not one of ours")
    texts = raw.pop("__metadata__", {})
    if not (isinstance(texts, dict) and all(isinstance(each, str) and each.isascii() for each in texts.values())):
        raise _damaged(path, "its texts are not texts")
    entries = {name: _entry(path, name, each, 8 + length) for name, each in raw.items()}
    place = 8 + length
    for each in sorted(entries.values(), key=lambda each: (each.start, each.size)):
        if each.start != place:
            raise _damaged(path, "its tensors leave gaps or overlap")
        place += each.size
    if place != end:
        raise _damaged(path, f"it has {end:,} bytes, and its tensors end at {place:,}")
    return texts, entries


def _entry(path: Path, name: str, raw: Any, start: int) -> Entry:
    """One line of the header's table, checked; `start` is where values begin."""
    if not (isinstance(raw, dict) and set(raw) == {"dtype", "shape", "data_offsets"}):
        raise _damaged(path, f"the tensor {short(name)} is not described")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not (isinstance(dtype, str) and dtype in _BYTES):
        raise _damaged(path, f"the tensor {short(name)} is of an unknown type")
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2 and len(shape) <= 8):
        raise _damaged(path, f"the tensor {short(name)} has impossible sizes")
    begin, end = offsets
    if end - begin != math.prod(shape) * _BYTES[dtype]:
        raise _damaged(path, f"the tensor {short(name)} has more or fewer values than its shape")
    return Entry(dtype, tuple(shape), start + begin, end - begin)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {short(why, quote=False)}")
