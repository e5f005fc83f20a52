"""Finding the compiled library that suits this processor.

One C++ source is compiled once for each set of instructions: `_avx512`, `_avx2` and `_baseline`, which on Arm is NEON.
A wheel brings them; an install from source compiles them. They are plain C libraries, loaded with ctypes, which
releases the GIL during calls. Where no compiler was, they are not there, and everything works in plain torch.

`STACKREV_NATIVE=0` in the environment turns the kernels off; `avx512`, `avx2` or `baseline` asks for one of them, and 1
for the fastest, as does nothing.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import NamedTuple

from stackrev.kernels.cpu import calls

VERSION = 17  # of the functions; `stackrev_version` in kernel.cpp
SUFFIX = ".dll" if os.name == "nt" else ".so"
SETS = ("baseline", "avx2", "avx512")  # by the number that `stackrev_processor` gives
REBUILD = (
    "install stackrev again with a C++17 compiler present, in the folder of its source: "
    "pip install --force-reinstall --no-deps --no-cache-dir ."
)


class Native(NamedTuple):
    """What was found.

    Attributes:
        library: The loaded library; None if there is none.
        instructions: Which set of instructions it uses: one of `SETS`; empty if there is none.
        missing: Why there is none, or why not the fastest, and what to do about it; empty if all is well.
    """

    library: ctypes.CDLL | None
    instructions: str
    missing: str


def find(wanted: str | None) -> Native:
    """Load the fastest library that is there and that the processor can run.

    Args:
        wanted: The value of `STACKREV_NATIVE`; None if it is not set.
    """
    if wanted == "0":
        return Native(None, "", "turned off by STACKREV_NATIVE=0; unset it to get the compiled kernels")
    baseline = _load("baseline")
    if isinstance(baseline, str):
        return Native(None, "", baseline)
    runnable = SETS[: int(baseline.stackrev_processor()) + 1]
    if wanted in SETS:
        runnable = tuple(name for name in runnable if name == wanted)
        if not runnable:
            return Native(None, "", f"STACKREV_NATIVE={wanted}, but this processor does not have it")
    missing = ""
    if wanted not in (None, "", "1", *SETS):
        missing = f"STACKREV_NATIVE={wanted} is none of 0, 1, {', '.join(SETS)}, and counts for nothing"
    for name in reversed(runnable):
        library = baseline if name == "baseline" else _load(name)
        if not isinstance(library, str):
            return Native(library, name, missing)
        missing = missing or library
    return Native(None, "", missing)


def _load(name: str) -> ctypes.CDLL | str:
    """The library for a set of instructions, or why there is none."""
    path = Path(__file__).with_name(f"_{name}{SUFFIX}")
    if not path.exists():
        return f"the {name} kernels were not compiled; {REBUILD}"
    try:
        library = ctypes.CDLL(str(path))
        version = int(library.stackrev_version())
        differs = calls.disagreement(library) if version == VERSION else "the version"
    except (OSError, AttributeError) as error:
        return f"{path.name} does not load ({error}); {REBUILD}"
    if differs:
        return f"{path.name} is of another version of stackrev: {differs} differs; {REBUILD}"
    return library


NATIVE = find(os.environ.get("STACKREV_NATIVE"))


def available() -> bool:
    """Whether the compiled kernels are used."""
    return NATIVE.library is not None


def describe() -> str:
    """One line for people: which kernels are used, or why none are and how to get them."""
    if NATIVE.library is None:
        return f"plain torch: {NATIVE.missing}"
    return f"compiled kernels, {NATIVE.instructions}" + (f": {NATIVE.missing}" if NATIVE.missing else "")
