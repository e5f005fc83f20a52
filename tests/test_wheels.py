"""Wheels are packed as installers expect, and a library that needs too much is refused."""

import base64
import csv
import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from stackrev import kernels
from stackrev.kernels.cpu import library

pytest.importorskip("lief")
SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def contents(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import wheel_contents

    return wheel_contents


def test_a_wheel_holds_its_libraries_its_tags_its_record_and_its_parts(contents, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.17.0")
    pure = tmp_path / "stackrev-0.1.0-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(pure, "w") as opened:
        opened.writestr("stackrev/__init__.py", "")
        opened.writestr("stackrev-0.1.0.dist-info/WHEEL", "Root-Is-Purelib: false\nTag: py3-none-linux_x86_64\n")
        opened.writestr("stackrev-0.1.0.dist-info/RECORD", "")
    kernel = tmp_path / "_baseline.so"
    kernel.write_bytes(b"a library")
    made = contents.pack(pure, tmp_path, "manylinux_2_17_x86_64.manylinux2014_x86_64", {"baseline": kernel})
    assert made.name == "stackrev-0.1.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    with zipfile.ZipFile(made) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    info = "stackrev-0.1.0.dist-info"
    assert files["stackrev/kernels/cpu/_baseline.so"] == b"a library"
    tags = [line for line in files[f"{info}/WHEEL"].decode().splitlines() if line.startswith("Tag")]
    assert tags == ["Tag: py3-none-manylinux_2_17_x86_64", "Tag: py3-none-manylinux2014_x86_64"]
    rows = list(csv.reader(files[f"{info}/RECORD"].decode().splitlines()))
    assert {row[0] for row in rows} == set(files)
    for path, digest, size in rows:
        if path != f"{info}/RECORD":
            wanted = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={wanted}", len(files[path]))
    bill = json.loads(files[f"{info}/sboms/stackrev.cdx.json"])
    assert bill["components"][0]["name"] == "stackrev/kernels/cpu/_baseline.so"
    assert {"libc++", "libc++abi"} <= {each["name"] for each in bill["components"]}


@pytest.mark.skipif(not kernels.available(), reason="the kernels were not compiled")
def test_a_library_that_needs_more_than_the_system_is_refused(contents):
    mine = Path(library.__file__).with_name(f"_baseline{library.SUFFIX}")
    needed = " ".join(contents.needs(contents.parse(mine)))  # GCC does not link libstdc++ in, a wheel's compiler does
    assert ("libstdc++" in needed) == ("libstdc++" in contents.refuse(mine, "x86_64-linux-gnu.2.17"))
    assert "libc" in contents.refuse(mine, "x86_64-macos.11.0")
    assert contents.functions() <= contents.exports(contents.parse(mine))
