"""What the name of a model means: a packaged checkpoint, a folder, or a model on the Hugging Face Hub.

`find` decides, without the network, in this order:

1. A packaged name, such as `stack-lstm`.
2. A folder that is there.
3. `user/repo` or `user/repo@revision`, a model on the Hub; but not where a folder `user` is there: then `user/repo` is
   taken for a folder in it that is missing.

`hf:user/repo` always means the Hub, and `./name` always a folder.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from stackrev.errors import ModelNotFoundError, did_you_mean
from stackrev.storage.checkpoints import CONFIG

DEFAULT_REVISION = "main"
HUB = "hf:"
"""What begins a name that always means a model on the Hub."""

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REFERENCE = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9_][A-Za-z0-9._/-]{{0,199}}))?")


@dataclass(frozen=True)
class Reference:
    """A model on the Hub.

    Attributes:
        repo: `user/repo`.
        revision: A branch, a tag or a commit.
    """

    repo: str
    revision: str = DEFAULT_REVISION

    def __str__(self) -> str:
        return self.repo if self.revision == DEFAULT_REVISION else f"{self.repo}@{self.revision}"


def packaged_names() -> list[str]:
    """The names of the checkpoints that come with the package, sorted."""
    return sorted(_packaged())


def parse(name: str) -> Reference | None:
    """The model on the Hub that a name stands for, or None if it cannot be one.

    Args:
        name: `user/repo[@revision]`, with or without `hf:` before it.
    """
    name = name.removeprefix(HUB)
    match = _REFERENCE.fullmatch(name)
    if match is None:
        return None
    repo, revision = match["repo"], match["revision"] or DEFAULT_REVISION
    if ".." in name or "--" in repo or repo.endswith(".git"):
        return None
    if any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in revision.split("/")):
        return None
    return Reference(repo, revision)


def find(name: str) -> Path | Reference:
    """What a name means: the folder of a packaged model, a folder, or a model on the Hub, cached or not.

    Args:
        name: A packaged name, a folder, or `[hf:]user/repo[@revision]`.

    Raises:
        ModelNotFoundError: It is none of these; a folder that is missing is said to be missing.
    """
    reference = parse(name)
    if name.startswith(HUB):
        if reference is None:
            raise ModelNotFoundError(
                f"{name!r} is not the name of a model on the Hub", hint=f"write {HUB}user/repo, or ./{HUB}... a folder"
            )
        return reference
    packaged = _packaged()
    if name in packaged:
        return packaged[name]
    folder = Path(name)
    names = ", ".join(sorted(packaged)) or "(none packaged)"
    with contextlib.suppress(OSError, ValueError):
        if name and folder.is_dir():
            return folder
        if folder.is_file():
            raise ModelNotFoundError(f"{name} is a file, and a model is a folder", hint="name the folder it is in")
    if reference is not None and not _is_folder(folder.parent):
        return reference
    if reference is not None:
        raise ModelNotFoundError(
            f"there is no folder {name}", hint=f"{HUB}{name} is the model on the Hub; the packaged names are {names}"
        )
    if _is_path(name):
        raise ModelNotFoundError(f"there is no folder {name}", hint=f"the packaged names are {names}")
    hint = f"{did_you_mean(name, sorted(packaged))}; or give a folder, or user/repo"
    raise ModelNotFoundError(f"there is no model {name!r}", hint=hint)


def resolve(name: str) -> Path:
    """The folder of a packaged name, or `name` itself if that is a folder; see `find`.

    Raises:
        ModelNotFoundError: It is neither.
    """
    found = find(name)
    if isinstance(found, Path):
        return found
    names = ", ".join(packaged_names()) or "(none packaged)"
    raise ModelNotFoundError(f"there is no folder {name}", hint=f"the packaged names are {names}; or give a folder")


def _packaged() -> dict[str, Path]:
    """The packaged checkpoints: inside the package where it was built, beside it in a source tree."""
    package = Path(__file__).resolve().parent.parent
    root = package / "packaged"
    if not root.is_dir():
        root = package.parent / "checkpoints"
        if not (package.parent / "pyproject.toml").is_file():
            return {}
    with contextlib.suppress(OSError):
        return {each.name: each for each in root.iterdir() if (each / CONFIG).is_file()}
    return {}


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return path.is_dir()
    return False


def _is_path(name: str) -> bool:
    """Whether a name is plainly meant as a path, there or not."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/") or "\\" in name
