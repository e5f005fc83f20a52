"""What is built can be installed and works: from a source archive and a wheel, and editable, without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest
import torch

from stackrev.storage import names

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("stackrev", "checkpoints", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in")
WHERE = (
    "import stackrev; from stackrev.storage import names; print(stackrev.__file__); print(names.resolve('stack-lstm'))"
)


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"CC": "false", "CXX": "false"}  # a compiler that fails is none
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def fresh_environment(folder: Path) -> Path:
    """The scripts of a new environment, which finds torch and the rest where this one has them."""
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for each in (*Path(sysconfig.get_path("purelib")).iterdir(), *Path(torch.__file__).parents[1].iterdir()):
        # no install of this package is seen through it, be it editable, by .pth files, or a wheel
        if "stackrev" not in each.name and each.suffix != ".pth" and not (dependencies / each.name).exists():
            (dependencies / each.name).symlink_to(each)
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return Path(sysconfig.get_path("scripts", vars=paths))


def install(scripts: Path, *what: str | Path, cwd: Path) -> None:
    run(
        *(sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"),
        *("--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall", *what),
        cwd=cwd,
    )


def check(scripts: Path, *, inside: Path, cwd: Path) -> None:
    module, model = map(Path, run(scripts / "python", "-c", WHERE, cwd=cwd).splitlines())
    assert module.is_relative_to(inside)
    assert model.is_relative_to(inside)
    for command in ([scripts / "stackrev"], [scripts / "python", "-m", "stackrev"]):
        assert run(*command, "reverse", "$A string to reverse|", cwd=cwd) == "esrever ot gnirts A&\n"
    for name in names.packaged_names():
        assert run(scripts / "stackrev", "models", "verify", name, cwd=cwd)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what the build reads, so that nothing is built in this folder."""
    folder = tmp_path_factory.mktemp("source") / "stackrev"
    folder.mkdir()
    leave = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=leave)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    return folder


def test_the_wheel_of_the_source_archive(source, tmp_path):
    build = "import setuptools.build_meta as build, sys; print(build.build_sdist(sys.argv[1]))"
    archive = tmp_path / run(sys.executable, "-c", build, tmp_path, cwd=source).splitlines()[-1]
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[-1] for name in opened.getnames()}
    shipped = {f"{path.relative_to(source)}" for path in source.rglob("*") if path.suffix in (".py", ".cpp", ".h")}
    assert shipped <= names, "the source archive lacks sources"

    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "-w", tmp_path, archive, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    scripts = fresh_environment(tmp_path / "environment")
    install(scripts, wheel, cwd=tmp_path)
    check(scripts, inside=tmp_path / "environment", cwd=tmp_path)
    (package,) = (tmp_path / "environment").rglob("stackrev/__init__.py")
    assert (package.parent / "py.typed").exists()


def test_an_editable_install(source, tmp_path):
    scripts = fresh_environment(tmp_path / "environment")
    install(scripts, "-e", source, cwd=tmp_path)
    check(scripts, inside=source, cwd=tmp_path)
