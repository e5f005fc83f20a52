"""Install a wheel where there is no compiler and no source, see that its kernels run, and run the whole suite with it.

    python scripts/test_wheel.py dist/stackrev-0.1.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl
    python scripts/test_wheel.py WHEEL -n 2 -k reverse           what follows is for pytest

Torch and the rest come from the package index, into an environment that is gone afterwards. The tests run in a copy of
this source, from a folder outside it; should they import the package from there all the same, the run fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "dev,plots,search,postgres"
TORCH = "torch==2.13.0"  # what the project is tested with; torch's own checks of operators differ in later ones


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, look, and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument("--packages", type=Path, metavar="FOLDER", help="site-packages to use what is in them, unasked")
    asked, for_pytest = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scripts = install(asked.wheel.resolve(), folder / "environment", asked.packages)
        said = run(scripts / "stackrev", "--version", cwd=folder)
        print(said, end="", flush=True)
        if "compiled kernels" not in said or "plain torch" in said:
            sys.exit("the wheel's kernels are not used")
        if run(scripts / "stackrev", "reverse", "A string to reverse", cwd=folder) != "esrever ot gnirts A\n":
            sys.exit("the wheel does not reverse")
        source = copy(folder / "source")
        command = [scripts / "python", "-m", "pytest", "-c", source / "pyproject.toml", source / "tests", *for_pytest]
        done = subprocess.run(command, cwd=folder, env=environment(scripts), check=False)
        if any(source.joinpath("stackrev").rglob("__pycache__")):
            sys.exit("the tests have imported the source in the place of the wheel")
    return done.returncode


def install(wheel: Path, folder: Path, packages: Path | None) -> Path:
    """An environment with the wheel; the folder of its programs."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    if packages:
        site = run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
        Path(site.strip(), "packages.pth").write_text(f"{packages.resolve()}\n", encoding="utf-8")
    run(
        scripts / "python", "-m", "pip", "install", "--quiet", f"{wheel}[{EXTRAS}]", TORCH, "setuptools>=77", cwd=folder
    )
    return scripts


def copy(folder: Path) -> Path:
    """The files that git has."""
    command = ["git", "-C", ROOT, "ls-files", "-z"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def environment(scripts: Path) -> dict[str, str]:
    """Without a compiler, and with the programs that the wheel brings."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"CC": "false", "CXX": "false", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints."""
    within = environment(Path(command[0]).parent)
    done = subprocess.run(command, cwd=cwd, env=within, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
