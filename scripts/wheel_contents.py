"""What goes into a wheel beside Python: checked libraries, and the list of what they are made of. For wheels.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lief

FOLDER = "stackrev/kernels/cpu"
KERNELS = Path(__file__).resolve().parent.parent / FOLDER
EXPORT = re.compile(r"^ *STACKREV_EXPORT .*?\b(stackrev_[\w#]+)\(", re.MULTILINE)
EXPORT_STRUCTURE = re.compile(r"^STACKREV_EXPORT_STRUCTURE\((\w+), \w+, (\w+)\)", re.MULTILINE)

SYSTEM = {
    "linux-gnu": re.compile(r"lib(c|m|dl|pthread|rt)\.so\.\d|ld-linux-[\w-]+\.so\.\d"),
    "linux-musl": re.compile(r"libc\.so"),
    "macos": re.compile(r"/usr/lib/libSystem\.B\.dylib"),
    "windows-gnu": re.compile(r"(KERNEL32|ntdll)\.dll|api-ms-win-crt-[\w-]+\.dll", re.IGNORECASE),
}
"""What a library may need, by the system in its triple: what every machine has."""
LINKERS = {"_mh_dylib_header", "__dso_handle"}
"""What Zig's linker for macOS exports by itself, from every library: places in the file, which no program looks up."""
GLIBC = (2, 17)
MACOS = (11, 0)


def needs(library: Any) -> list[str]:
    """The libraries that one is loaded with."""
    if isinstance(library, lief.PE.Binary):
        return sorted(each.name for each in library.imports)
    if isinstance(library, lief.MachO.Binary):
        return sorted(each.name for each in library.libraries if each.command != lief.MachO.LoadCommand.TYPE.ID_DYLIB)
    return sorted(map(str, library.libraries))


def versions(library: Any) -> list[str]:
    """The versions of symbols, or the version of the system, that a library needs."""
    if isinstance(library, lief.ELF.Binary):
        wanted = library.symbols_version_requirement
        return sorted({version.name for each in wanted for version in each.get_auxiliary_symbols()})
    if isinstance(library, lief.MachO.Binary):
        minimum = library.build_version.minos if library.build_version else library.version_min.version
        return [f"macOS {minimum[0]}.{minimum[1]}"]
    return []


def exports(library: Any) -> set[str]:
    """The functions that a library offers."""
    if isinstance(library, lief.PE.Binary):
        return {each.name for each in library.get_export().entries}
    names = {str(each.name) for each in library.exported_symbols if each.name}
    return {name.removeprefix("_") for name in names} - LINKERS if isinstance(library, lief.MachO.Binary) else names


def functions() -> set[str]:
    """The functions that a library should offer: those that the source marks, by themselves or in its macro."""
    source = (KERNELS / "kernel.cpp").read_text(encoding="utf-8")
    found = EXPORT.findall(source)
    made = [name for name in found if "##" in name]
    return set(found).difference(made) | {
        name.replace("##name##", structure).replace("##S", number)
        for name in made
        for structure, number in EXPORT_STRUCTURE.findall(source)
    }


def describe(path: Path) -> str:
    """A library's size, needs and versions, in a line."""
    library = parse(path)
    sizes = f"{path.stat().st_size:,} bytes, {len(exports(library))} functions"
    return f"{sizes}; needs {', '.join(needs(library))}; {', '.join(versions(library)) or 'no versions'}"


def refuse(path: Path, triple: str) -> str:
    """Why a library must not be shipped; empty if it may."""
    library = parse(path)
    system = next(pattern for name, pattern in SYSTEM.items() if name in triple)
    if extra := [each for each in needs(library) if not system.fullmatch(each)]:
        return f"it needs {', '.join(extra)}"
    for version in versions(library):
        kind, *numbers = re.findall(r"[A-Za-z]+|\d+", version)
        most = {"GLIBC": GLIBC, "macOS": MACOS}.get(kind, (0,))
        if tuple(map(int, numbers[:2])) > most:
            return f"it needs {version}"
    if "aarch64-macos" in triple and not library.has_code_signature:
        return "it is not signed, and so does not load"
    if differing := exports(library) ^ functions():
        return f"what it exports differs from the source: {', '.join(sorted(differing)[:5])}"
    return ""


def parse(path: Path) -> Any:
    """A library, whatever system it is for."""
    lief.logging.disable()  # it remarks on what Zig leaves empty
    library = lief.parse(str(path))
    assert library is not None, f"{path} is no library"
    return library


def pack(pure: Path, folder: Path, platform: str, libraries: Mapping[str, Path]) -> Path:
    """A platform's wheel: a wheel without libraries, the libraries, and the list of what they are made of."""
    name, version = pure.name.split("-")[:2]
    made = folder / f"{name}-{version}-py3-none-{platform}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(pure) as opened:
        date = opened.infolist()[0].date_time
        files = {each: opened.read(each) for each in opened.namelist() if not each.endswith("/")}
    stray = [each for each in files if each.endswith((".so", ".dll", ".dylib"))]
    assert not stray, f"{pure.name} has libraries already: {stray}"
    tags = "".join(f"Tag: py3-none-{each}\n" for each in platform.split("."))
    files[f"{info}/WHEEL"] = re.sub(rb"(Tag: .*\n)+", tags.encode(), files[f"{info}/WHEEL"])
    del files[f"{info}/RECORD"]
    files |= {f"{FOLDER}/{path.name}": path.read_bytes() for path in libraries.values()}
    files[f"{info}/sboms/stackrev.cdx.json"] = bill_of_materials(version, files)
    record = [f"{path},sha256={digest(data)},{len(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, date)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(entry, data)
    return made


def digest(data: bytes) -> str:
    """As RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def bill_of_materials(version: str, files: Mapping[str, bytes]) -> bytes:
    """What the libraries are made of, in the form of CycloneDX; PEP 770 says where it lies in a wheel."""
    from importlib import metadata

    zig = metadata.version("ziglang")
    llvm = "Apache-2.0 WITH LLVM-exception"
    parts = (("libc++", llvm), ("libc++abi", llvm), ("libunwind", llvm), ("compiler_rt of Zig", "MIT"))
    components: list[dict[str, Any]] = [
        {
            "type": "file",
            "name": path,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}],
            "licenses": [{"license": {"id": "MIT"}}],
        }
        for path, data in sorted(files.items())
        if path.startswith(f"{FOLDER}/_") and path.endswith((".so", ".dll"))
    ]
    components += [
        {
            "type": "library",
            "name": name,
            "version": f"as in ziglang {zig}",
            "licenses": [{"expression": licence}],
            "description": "linked into each of the libraries above",
        }
        for name, licence in parts
    ]
    tool = {"type": "application", "name": "ziglang", "version": zig, "purl": f"pkg:pypi/ziglang@{zig}"}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [tool]},
            "component": {
                "type": "library",
                "name": "stackrev",
                "version": version,
                "purl": f"pkg:pypi/stackrev@{version}",
                "licenses": [{"license": {"id": "MIT"}}],
            },
        },
        "components": components,
    }
    return json.dumps(bill, indent=2).encode() + b"\n"
