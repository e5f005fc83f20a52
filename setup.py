"""The compiled kernels: one source, compiled for each set of instructions. All else is in pyproject.toml.

kernels/cpu/library.py picks a library when it is imported. Where a compiler is missing, or does not know the
instructions, the install goes on without.
"""

from pathlib import Path

from setuptools import Extension, setup

FOLDER = "stackrev/kernels/cpu"
COMMON = ["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fno-tree-loop-distribute-patterns"]
SETS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}

setup(
    ext_modules=[
        Extension(
            f"stackrev.kernels.cpu._{name}",
            sources=[f"{FOLDER}/kernel.cpp"],
            depends=sorted(path.as_posix() for path in Path(FOLDER).glob("*.h")),
            language="c++",
            optional=True,
            extra_compile_args=[*COMMON, "-fvisibility=hidden", "-pthread", *flags],
            extra_link_args=["-pthread"],
        )
        for name, flags in SETS.items()
    ]
)
