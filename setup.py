"""The compiled kernels: one source, compiled for each set of instructions. All else is in pyproject.toml.

kernels/cpu/library.py picks a library when it is imported. Where a compiler is missing, or does not know the
instructions, the install goes on without. The libraries use neither Python's nor torch's headers, so their names and
the wheel's tag speak of the platform alone. scripts/wheels.py compiles the same for every platform.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = "stackrev/kernels/cpu"
SOURCE = f"{FOLDER}/kernel.cpp"
COMMON = ["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
COMMON += ["-ffp-contract=fast"]  # products are added without a rounding between, where the processor can
GCC = ["-fno-tree-loop-distribute-patterns", "-pthread"]
SETS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}


class BuildKernels(build_ext):
    """Libraries for ctypes, not modules of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """The name that library.py looks for, without the tag of a Python."""
        return str(Path(*fullname.split("."))) + (".dll" if os.name == "nt" else ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None but those that the source marks: there is no PyInit function."""
        return []


class PlatformWheel(bdist_wheel):
    """A wheel for every Python on a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-PLATFORM."""
        return "py3", "none", super().get_tag()[2]


if __name__ == "__main__":
    setup(
        cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
        ext_modules=[
            Extension(
                f"stackrev.kernels.cpu._{name}",
                sources=[SOURCE],
                depends=sorted(path.as_posix() for path in Path(FOLDER).glob("*.h")),
                language="c++",
                optional=True,
                extra_compile_args=[*COMMON, *GCC, *flags],
                extra_link_args=["-pthread"],
            )
            for name, flags in SETS.items()
        ],
    )
