"""Build the release: a source archive, and a wheel with compiled kernels for each platform, on one Linux machine.

    python scripts/wheels.py                      everything, into dist/
    python scripts/wheels.py win_amd64            the source archive and the wheels whose platform has this in its name

The kernels need no headers of Python or torch, so a wheel serves every Python on its platform. The compiler is Zig's
clang, which brings the C libraries of all platforms along and links libc++ into the library. It and the other tools
come from the package index into an environment of their own, build/tools. Every library is checked before it is
packed: what it needs from the system, in which version, and that it exports the kernels' functions alone.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "build" / "tools"
REQUIRED = ("ziglang==0.17.*", "build>=1.2", "lief>=0.16", "setuptools>=77", "auditwheel>=6.2", "delvewheel>=1.10")
AUDITORS = {"manylinux": "auditwheel", "win_": "delvewheel"}


@cache
def setup() -> dict[str, Any]:
    """The table of instruction sets and the compiler's options, which the install from source uses too."""
    return runpy.run_path(str(ROOT / "setup.py"))


class Target(NamedTuple):
    """A platform.

    Attributes:
        platform: The last part of the wheel's name.
        triple: What Zig calls it, with the oldest system that is served.
        suffix: Of the libraries.
    """

    platform: str
    triple: str
    suffix: str = ".so"

    @property
    def instructions(self) -> dict[str, list[str]]:
        """For each library's name, the compiler's options. On Arm there is the baseline alone, which has NEON."""
        sets: dict[str, list[str]] = setup()["SETS"]
        return sets if self.triple.startswith("x86_64") else {"baseline": sets["baseline"]}


TARGETS = (
    Target("manylinux_2_17_x86_64.manylinux2014_x86_64", "x86_64-linux-gnu.2.17"),
    Target("manylinux_2_17_aarch64.manylinux2014_aarch64", "aarch64-linux-gnu.2.17"),
    Target("musllinux_1_2_x86_64", "x86_64-linux-musl"),
    Target("macosx_11_0_x86_64", "x86_64-macos.11.0"),
    Target("macosx_11_0_arm64", "aarch64-macos.11.0"),
    Target("win_amd64", "x86_64-windows-gnu", ".dll"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build what is asked for, and list it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "platforms", nargs="*", metavar="PLATFORM", help="part of a platform's name; all if none is given"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers that run at once")
    asked = parser.parse_args(arguments)
    targets = [
        each for each in TARGETS if not asked.platforms or any(part in each.platform for part in asked.platforms)
    ]
    if not targets:
        parser.error(f"no such platform; there are {', '.join(each.platform for each in TARGETS)}")
    inside_tools(sys.argv[1:] if arguments is None else arguments)
    from wheel_contents import functions, pack

    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        archive, pure = build(Path(scratch))
        made = [Path(shutil.copy(archive, asked.output))]
        for target, libraries in compile_all(targets, Path(scratch), asked.jobs):
            for name, path in libraries.items():
                check(target, name, path)
            made.append(pack(pure, asked.output, target.platform, libraries))
            verdict(made[-1])
    print(
        f"Each library exports these {len(functions())} functions, and nothing else: {', '.join(sorted(functions()))}"
    )
    for path in made:
        print(f"{path.stat().st_size:>12,} bytes  {path.name}")


def check(target: Target, name: str, path: Path) -> None:
    """Describe a library, and end the build if it must not be shipped."""
    from wheel_contents import describe, refuse

    print(f"{target.platform} {name}: {describe(path)}", flush=True)
    if wrong := refuse(path, target.triple):
        sys.exit(f"{target.platform} {name}: {wrong}")


def verdict(wheel: Path) -> None:
    """What the platform's own tool says of a wheel, if it runs here: not that of macOS, nor auditwheel for musl."""
    tool = next((tool for part, tool in AUDITORS.items() if part in wheel.name), None)
    if tool:
        done = subprocess.run([sys.executable, "-m", tool, "show", wheel], capture_output=True, text=True, check=False)
        said = " ".join(done.stdout.split())
        print(f"{tool}: {said}", flush=True)
        if done.returncode or done.stderr:
            sys.exit(f"{wheel.name} does not pass {tool}:\n{done.stderr}")


def inside_tools(arguments: Sequence[str]) -> None:
    """Go on in the environment of the tools."""
    if Path(sys.prefix) != TOOLS:
        sys.exit(subprocess.run([make_tools(), __file__, *arguments], check=False).returncode)


def make_tools() -> Path:
    """The Python of the environment of the tools, which is made if it is not there."""
    python = TOOLS / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(TOOLS, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIRED], check=True)
    return python


def build(folder: Path) -> tuple[Path, Path]:
    """The source archive, and a wheel that is made of it without a compiler, and so without kernels."""
    environment = os.environ | {"CC": "false", "CXX": "false", "SOURCE_DATE_EPOCH": str(commit_time())}
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    (archive,), (pure,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return archive, pure


def commit_time() -> int:
    """When the last commit was made, so that the same commit gives the same bytes; a fixed day outside of a clone."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return int(found or 1_577_836_800)


def compile_all(targets: Sequence[Target], folder: Path, jobs: int) -> Iterator[tuple[Target, dict[str, Path]]]:
    """Each target's libraries by name, as soon as they are there."""
    pool = ThreadPoolExecutor(jobs)
    try:
        begun = {
            target: {name: pool.submit(compile_one, target, name, folder) for name in target.instructions}
            for target in targets
        }
        for target, libraries in begun.items():
            yield target, {name: future.result() for name, future in libraries.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def compile_one(target: Target, name: str, folder: Path) -> Path:
    """One library. The instruction set is for the kernels alone: libc++ is linked in as every processor runs it."""
    path = folder / target.platform / f"_{name}{target.suffix}"
    path.parent.mkdir(exist_ok=True)
    kernels = path.with_suffix(".o")
    options = [*setup()["COMMON"], *target.instructions[name], "-fPIC"]
    run_compiler(target, *options, "-c", str(ROOT / setup()["SOURCE"]), "-o", str(kernels))
    options = ["-shared", "-s"]
    if "linux" in target.triple:
        exports = path.with_suffix(".map")
        exports.write_text("{ global: stackrev_*; local: *; };\n", encoding="ascii")  # nothing of libc++ inside
        options.append(f"-Wl,--version-script={exports}")
    if "macos" in target.triple:  # where Zig's linker has no such list, but for these operators all else is hidden
        options += ["-std=c++17", "-fvisibility=hidden", "-fvisibility-global-new-delete=force-hidden"]
        options.append("-D_LIBCPP_DISABLE_VISIBILITY_ANNOTATIONS")
        options.append(str(ROOT / "scripts" / "macos_new_delete.cpp"))
    run_compiler(target, *options, str(kernels), "-o", str(path))
    return path


def run_compiler(target: Target, *options: str) -> None:
    """Zig's clang, whose complaint ends the build."""
    command = [sys.executable, "-m", "ziglang", "c++", "-target", target.triple, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{target.platform} does not compile, by {' '.join(command)}:\n{done.stderr}")


if __name__ == "__main__":
    main()
