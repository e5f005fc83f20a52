"""A library for another processor or system in the place of this one's: its calls are made by an emulated process."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch

from stackrev.kernels.cpu import (
    activations,
    library,
    ops,  # noqa: F401  which lends torch's threads to the library that is there when it is imported
    readout,
    recurrence,
    stream,
    stream_arrays,
    stream_batch,
)


class Block(NamedTuple):
    """Memory that a call reads or writes: what keeps it alive, and where there are pointers in it."""

    owner: object
    address: int
    size: int
    pointers: Sequence[int] = ()


class RemoteLibrary:
    """Stands for a loaded library. What a call points to is copied to the process, and what it makes of it back.

    Args:
        command: How to start `library_server.cpp`, compiled for the other system, with its library.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._functions: dict[str, RemoteFunction] = {}
        self._noted: dict[int, Block] = {}

    def __getattr__(self, name: str) -> RemoteFunction:
        if not name.startswith("stackrev_"):
            raise AttributeError(name)
        return self._functions.setdefault(name, RemoteFunction(self, name))

    @property
    def calls(self) -> Counter[str]:
        """How often each function has been called."""
        return Counter({name: function.calls for name, function in self._functions.items()})

    def note(self, block: Block) -> None:
        """Keep a block for the next call, which may have its address."""
        if block.size:
            self._noted[block.address] = block

    def call(self, name: str, arguments: Sequence[object]) -> int:
        if self._process.poll() is not None and name == "stackrev_stream_free":
            return 0  # with its process
        values = [number for each in arguments for number in self._value(each)]
        blocks = list(self._noted.values())
        self._noted.clear()
        request = [numbers(len(name)), name.encode(), numbers(len(arguments), *values, len(blocks))]
        for each in blocks:
            request += [numbers(each.address, each.size, len(each.pointers), *each.pointers)]
            request += [ctypes.string_at(each.address, each.size)]
        self._write(b"".join(request))
        (result,) = struct.unpack("<Q", self._read(8))
        for each in blocks:
            data = self._read(each.size)
            if not each.pointers:
                ctypes.memmove(each.address, data, each.size)
        return result

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _value(self, argument: object) -> tuple[int, int]:
        """An argument's 64 bits, and whether it is a pointer."""
        if hasattr(argument, "_obj"):  # what ctypes.byref gives
            pointed = argument._obj
            at = ctypes.addressof(pointed)
            self.note(Block(pointed, at, ctypes.sizeof(pointed), tuple(pointers_in(type(pointed)))))
            return at, 1
        if isinstance(argument, ctypes.c_void_p):
            return argument.value or 0, 1
        return int(getattr(argument, "value", argument)) % 2**64, 0

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise RuntimeError(self._process.communicate()[1].decode(errors="replace"))
        return data


class RemoteFunction:
    """One of its functions, declared as ctypes has it."""

    def __init__(self, remote: RemoteLibrary, name: str) -> None:
        self._remote, self._name = remote, name
        self.calls = 0
        self.restype: object = ctypes.c_int
        self.argtypes: list[object] = []

    def __call__(self, *arguments: object) -> int | None:
        self.calls += 1
        result = self._remote.call(self._name, arguments)
        if self.restype is ctypes.c_void_p:
            return result or None
        return ctypes.c_int(result & 0xFFFFFFFF).value if self.restype else None


def pointers_in(kind: type) -> Iterator[int]:
    """The offsets of pointers in a struct or an array of them."""
    if issubclass(kind, ctypes.Structure):
        for name, field, *_ in kind._fields_:
            yield from (getattr(kind, name).offset + inside for inside in pointers_in(field))
    elif issubclass(kind, ctypes.Array) and kind._type_ is ctypes.c_void_p:
        yield from range(0, ctypes.sizeof(kind), 8)
    elif kind is ctypes.c_void_p:
        yield 0


def numbers(*each: int) -> bytes:
    return struct.pack(f"<{len(each)}Q", *each)


@contextmanager
def kernels_of(remote: RemoteLibrary) -> Iterator[None]:
    """Operators and streams call the remote library. What they take the address of is noted for the next call."""
    address_of, data_ptr, native = ctypes.addressof, torch.Tensor.data_ptr, library.Native(remote, "remote", "")

    def noted_address(memory: ctypes.Structure | ctypes.Array) -> int:
        at = address_of(memory)
        remote.note(Block(memory, at, ctypes.sizeof(memory), tuple(pointers_in(type(memory)))))
        return at

    def noted_tensor(tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        remote.note(Block(storage, storage.data_ptr(), storage.nbytes()))
        return data_ptr(tensor)

    def noted_array(held: array) -> ctypes.c_void_p:
        at, count = held.buffer_info()
        remote.note(Block(held, at, count * held.itemsize))
        return ctypes.c_void_p(at)

    class NotedArray(array):
        def buffer_info(self) -> tuple[int, int]:
            at, count = super().buffer_info()
            remote.note(Block(self, at, count * self.itemsize))
            return at, count

    changes: list[tuple[object, str, object]] = [(each, "NATIVE", native) for each in (library, stream)]
    changes += [(each, "array", NotedArray) for each in (activations, stream_batch)]
    changes += [(torch.Tensor, "data_ptr", noted_tensor), (stream, "_address", noted_array)]
    changes += [(each, "ctypes", Noting(noted_address)) for each in (stream_arrays, readout, recurrence)]
    with pytest.MonkeyPatch.context() as patch:
        for change in changes:
            patch.setattr(*change)
        yield


class Noting:
    """The module ctypes, with another `addressof`."""

    def __init__(self, addressof: Callable[..., int]) -> None:
        self.addressof = addressof

    def __getattr__(self, name: str) -> object:
        return getattr(ctypes, name)
