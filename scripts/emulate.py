"""Test wheels for other machines on this Linux machine: their kernels against torch, and commands without torch.

    python scripts/emulate.py                     arm, musl and windows; their wheels are built first
    python scripts/emulate.py arm
    python scripts/emulate.py --wheels dist       with wheels that are there

    arm       Linux on Arm in qemu, with Debian's Python:   apt-get install qemu-user
    musl      Linux with musl in the place of glibc
    windows   Windows in wine:                              apt-get install wine wine64

Debian's or Ubuntu's packages are needed, those for Arm too: `dpkg --add-architecture arm64 && apt-get update`. Nothing
is installed. Everything is unpacked in build/emulated, and tests/kernels/test_emulated.py is run on it, by the Python
that runs this.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from wheels import ROOT, TARGETS, Target, make_tools

FOLDER = ROOT / "build" / "emulated"
SERVER = ROOT / "tests" / "kernels" / "library_server.cpp"
KERNELS = "stackrev/kernels/cpu"
PLATFORMS = {"arm": "manylinux_2_17_aarch64", "musl": "musllinux_1_2_x86_64", "windows": "win_amd64"}
TOOLS = {"arm": ("qemu-aarch64", "apt-get", "dpkg"), "musl": ("apt-get", "dpkg"), "windows": ("wine",)}
LIBRARIES = ("libc6", "libgcc-s1", "libexpat1", "libffi8", "zlib1g")
NEEDED = ("typer", "rich", "regex", "safetensors", "typing-extensions")  # without torch, as docs/release.md has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare build/emulated, and run the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platforms", nargs="*", choices=[[], *PLATFORMS], metavar="PLATFORM")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="where the wheels are")
    asked = parser.parse_args(arguments)
    names = asked.platforms or list(PLATFORMS)
    if missing := [tool for name in names for tool in TOOLS[name] if not shutil.which(tool)]:
        parser.error(f"{', '.join(missing)} cannot be found")
    shutil.rmtree(FOLDER, ignore_errors=True)
    wheels = asked.wheels or build(names)
    libraries: dict[str, list[str]] = {}
    programs: dict[str, list[str]] = {}
    for name in names:
        (wheel,) = wheels.glob(f"*{PLATFORMS[name]}*.whl")
        target = next(each for each in TARGETS if PLATFORMS[name] in each.platform)
        found, program = PREPARE[name](wheel, FOLDER / name, target)
        libraries |= {f"{name} {library}": command for library, command in found.items()}
        if program:
            programs[name] = program
    commands = json.dumps({"libraries": libraries, "programs": programs}, indent=2)
    (FOLDER / "commands.json").write_text(commands, encoding="utf-8")
    tests = [sys.executable, "-m", "pytest", "-s", "tests/kernels/test_emulated.py"]
    environment = os.environ | {"STACKREV_EMULATED": str(FOLDER)}
    return subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode


def build(names: Sequence[str]) -> Path:
    """A folder with the wheels of this source."""
    folder = FOLDER / "wheels"
    command = [sys.executable, ROOT / "scripts" / "wheels.py", *(PLATFORMS[name] for name in names), "--output", folder]
    subprocess.run(command, check=True)
    return folder


def serve(wheel: Path, folder: Path, target: Target, *start: str) -> dict[str, list[str]]:
    """The commands that offer the calls of each library that this processor runs; `start` comes first in them."""
    server = folder / ("server.exe" if target.suffix == ".dll" else "server")
    command = [make_tools(), "-m", "ziglang", "c++", "-target", target.triple, "-std=c++17", "-O1", "-s"]
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([*command, *(["-dynamic"] if "musl" in target.triple else []), SERVER, "-o", server], check=True)
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder / "wheel")
    here = Path("/proc/cpuinfo").read_text(encoding="ascii")
    libraries = {name: folder / "wheel" / KERNELS / f"_{name}{target.suffix}" for name in target.instructions}
    return {
        name: [*start, str(server), str(path)]
        for name, path in libraries.items()
        if name == "baseline" or name.replace("avx512", "avx512vl") in here
    }


def arm(wheel: Path, folder: Path, target: Target) -> tuple[dict[str, list[str]], list[str]]:
    """The library in qemu, and the command in an emulated Python."""
    root, site = folder / "root", folder / "site"
    depends = ["apt-cache", "depends", "python3-minimal:arm64"]
    said = subprocess.run(depends, capture_output=True, text=True, check=True).stdout
    found = re.search(r"python(3\.\d+)-minimal", said)
    if not found:
        sys.exit("apt-get knows no packages for Arm: dpkg --add-architecture arm64 && apt-get update")
    python = f"python{found[1]}"
    packages = (*LIBRARIES, f"lib{python}-minimal", f"lib{python}-stdlib", f"{python}-minimal")
    unpack(root, *(f"{each}:arm64" for each in packages))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site, "--only-binary=:all:"]
    pip += ["--python-version", found[1], "--implementation", "cp"]
    pip += ["--platform", PLATFORMS["arm"], "--platform", "manylinux_2_28_aarch64"]
    subprocess.run([*pip, *NEEDED], check=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    emulator = ["qemu-aarch64", "-L", str(root)]
    program = [*emulator, "-E", f"PYTHONPATH={site}", str(root / "usr" / "bin" / python)]
    # -P: nothing of this source is imported, where the tests run
    return serve(wheel, folder, target, *emulator), [*program, "-P", "-m", "stackrev"]


def musl(wheel: Path, folder: Path, target: Target) -> tuple[dict[str, list[str]], list[str]]:
    """The library with musl's loader."""
    unpack(folder / "root", "musl")
    (loader,) = folder.glob("root/lib/ld-musl-*.so.1")
    return serve(wheel, folder, target, str(loader.resolve() if loader.exists() else loader)), []


def windows(wheel: Path, folder: Path, target: Target) -> tuple[dict[str, list[str]], list[str]]:
    """The library in wine."""
    wine = ["env", f"WINEPREFIX={folder / 'prefix'}", "WINEDEBUG=-all", "wine"]
    return serve(wheel, folder, target, *wine), []


def unpack(root: Path, *packages: str) -> None:
    """The files of Debian's packages."""
    downloads = root.with_name("packages")
    downloads.mkdir(parents=True)
    root.mkdir()
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages]
    subprocess.run(command, cwd=downloads, check=True)
    for package in downloads.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)


PREPARE = {"arm": arm, "musl": musl, "windows": windows}

if __name__ == "__main__":
    sys.exit(main())
