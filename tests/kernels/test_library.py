"""The library that is loaded: what is missing is said, and one whose structs differ from Python's is refused."""

import ctypes
import platform
from pathlib import Path

import pytest

from stackrev.kernels import available
from stackrev.kernels.cpu import calls, library

needs_kernels = pytest.mark.skipif(not available(), reason="the kernels were not compiled")


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    found = library.find(None)
    assert found.library is None
    assert "compiler" in found.missing
    (tmp_path / f"_baseline{library.SUFFIX}").write_bytes(b"no library")
    assert "does not load" in library.find(None).missing


@needs_kernels
@pytest.mark.skipif(platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="not Linux on x86-64")
def test_the_processor_s_instructions_are_what_the_system_says():
    flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii").partition("\nflags")[2].partition("\n")[0].split())
    wanted = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}
    best = "baseline"
    for name, needed in wanted.items():
        best = name if needed <= flags else best
    assert library.find(None).instructions == best


class Swapped(ctypes.Structure):
    _fields_ = (
        *calls.MemoryCall._fields_[:5],
        ("pop", ctypes.c_void_p),
        ("push", ctypes.c_void_p),
        *calls.MemoryCall._fields_[7:],
    )


class Short(ctypes.Structure):
    _fields_ = calls.MemoryCall._fields_[:-1]


class Long(ctypes.Structure):
    _fields_ = (*calls.MemoryCall._fields_, ("extra", ctypes.c_int64))


class Narrow(ctypes.Structure):
    _fields_ = (("steps", ctypes.c_int32), *calls.MemoryCall._fields_[1:])


class Retyped(ctypes.Structure):
    _fields_ = (("steps", ctypes.c_double), *calls.MemoryCall._fields_[1:])


class Renamed(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int64), *calls.MemoryCall._fields_[1:])


@needs_kernels
@pytest.mark.parametrize("drifted", [Swapped, Short, Long, Narrow, Retyped, Renamed], ids=lambda each: each.__name__)
@pytest.mark.parametrize("place", [0, len(calls.CALLS) - 1])
def test_a_struct_that_has_drifted_is_refused(monkeypatch, drifted, place):
    changed = list(calls.CALLS)
    drifted = type(changed[place].__name__, (ctypes.Structure,), {"_fields_": drifted._fields_})
    changed[place] = drifted
    monkeypatch.setattr(calls, "CALLS", tuple(changed))
    found = library.find(None)
    assert found.library is None
    assert f"another version of stackrev: {drifted.__name__} differs" in found.missing
    assert "install stackrev again" in found.missing


@needs_kernels
def test_a_struct_or_a_constant_that_one_side_lacks_is_refused(monkeypatch):
    for changed in (calls.CALLS[:-1], (*calls.CALLS, Short)):
        monkeypatch.setattr(calls, "CALLS", changed)
        assert library.find(None).library is None
    monkeypatch.undo()
    monkeypatch.setitem(calls._CONSTANTS, "kChunkRows", calls.CHUNK_ROWS + 1)
    assert "kChunkRows differs" in library.find(None).missing
    monkeypatch.undo()
    assert library.find(None).library is not None
