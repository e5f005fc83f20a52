"""Measure the errors of sigmoid and tanh over every float32 number, and write them into the proof's constants.

    python scripts/measure_activations.py             all 2^32 numbers: some minutes
    python scripts/measure_activations.py --share 64  every 64th block of them, and nothing is written

Compares the compiled kernels, with each set of instructions that this processor has, and torch's own functions with
float64. Errors are absolute, in units of 2^-24, the unit roundoff of float32. Writes `docs/results/activations.json`,
and `stackrev/evaluation/certificate/constants.py` with the least powers of two that no error exceeds.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stackrev.errors import NativeError
from stackrev.kernels.cpu.activations import activation
from stackrev.kernels.cpu.library import SETS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "activations.json"
CONSTANTS = ROOT / "stackrev" / "evaluation" / "certificate" / "constants.py"
BLOCK = 1 << 20
UNIT = 2.0**-24

Numbers = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]
REFERENCES: dict[str, Callable[[Exact], Exact]] = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh}
TEMPLATE = '''"""The greatest errors of the activations, in units of 2^-24, as powers of two that none exceeds.

Written by scripts/measure_activations.py, which has compared every float32 number; docs/results/activations.json has
the errors themselves.
"""

SIGMOID_ERROR = {sigmoid}
TANH_ERROR = {tanh}
'''


def implementations() -> dict[str, dict[str, Callable[[Numbers], Numbers]]]:
    """The functions to be measured, by implementation and name."""

    def compiled(instructions: str, name: Any, flush: bool) -> Callable[[Numbers], Numbers]:
        return lambda x: np.frombuffer(activation(name, x, instructions=instructions, flush=flush), dtype=np.float32)

    found: dict[str, dict[str, Callable[[Numbers], Numbers]]] = {
        "torch": {
            "sigmoid": lambda x: torch.sigmoid(torch.from_numpy(x)).numpy(),
            "tanh": lambda x: torch.tanh(torch.from_numpy(x)).numpy(),
        }
    }
    for instructions in SETS:
        for flush in (False, True):
            functions = {name: compiled(instructions, name, flush) for name in REFERENCES}
            try:
                functions["tanh"](np.zeros(1, dtype=np.float32))
            except NativeError:
                continue
            found[f"compiled, {instructions}{', flushing' if flush else ''}"] = functions
    return found


def measure(first: int, functions: dict[str, dict[str, Callable[[Numbers], Numbers]]]) -> dict[str, dict[str, float]]:
    """The greatest errors over the numbers whose bits start a block."""
    x = np.arange(first, first + BLOCK, dtype=np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    worst = {implementation: dict.fromkeys(REFERENCES, 0.0) for implementation in functions}
    if not x.size:
        return worst
    with np.errstate(over="ignore", under="ignore"):
        exact = {name: reference(x.astype(np.float64)) for name, reference in REFERENCES.items()}
        for implementation, named in functions.items():
            for name, function in named.items():
                error = np.abs(function(x).astype(np.float64) - exact[name]).max() / UNIT
                worst[implementation][name] = float("inf") if np.isnan(error) else float(error)
    return worst


def power_of_two(error: float) -> float:
    """The least power of two that is no less."""
    return float(2.0 ** np.ceil(np.log2(error)))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=int, default=1, help="measure one block in so many")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    functions = implementations()
    worst = {implementation: dict.fromkeys(REFERENCES, 0.0) for implementation in functions}
    firsts = range(0, 1 << 32, BLOCK * options.share)
    with ThreadPoolExecutor(options.threads) as pool:
        for done, found in enumerate(pool.map(lambda first: measure(first, functions), firsts), start=1):
            for implementation, errors in found.items():
                for name, error in errors.items():
                    worst[implementation][name] = max(worst[implementation][name], error)
            if done % 64 == 0:
                print(f"\r{done / len(firsts):4.0%}", end="", flush=True)
    print()
    for implementation, errors in worst.items():
        print(f"{implementation}: " + ", ".join(f"{name} {error:.3f}" for name, error in errors.items()))
    if options.share == 1:
        facts = {
            "unit": "2^-24",
            "numbers": "all of float32",
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        RESULTS.write_text(json.dumps({**facts, "errors": worst}, indent=2) + "\n", encoding="utf-8")
        bounds = {name: power_of_two(max(errors[name] for errors in worst.values())) for name in REFERENCES}
        CONSTANTS.write_text(TEMPLATE.format(**bounds), encoding="utf-8")


if __name__ == "__main__":
    main()
