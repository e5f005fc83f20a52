"""Texts in, texts out: `stackrev.load` and `stackrev.reverse`.

A model whose kind runs in the compiled kernels reverses texts without torch where these are. A text may be in any
script: see `tasks/text.py` for how its characters become symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, overload

from stackrev.errors import DataError, VocabularyError
from stackrev.kinds.config import Config
from stackrev.models.loading import open_decoder, require_task
from stackrev.storage import names
from stackrev.storage.checkpoints import CONFIG
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.tasks.text import Bound, bind

if TYPE_CHECKING:
    from stackrev.evaluation.decoding import Decoder
    from stackrev.models.loading import Checkpoint

DEFAULT: str = Config().model.kind
"""The packaged model that is used where none is named."""


class TextModel:
    """A model that reverses texts; `stackrev.load` opens one.

    Attributes:
        name: What it was asked for as.
        folder: Where it lies.
    """

    def __init__(self, name: str, folder: Path, decoder: Decoder) -> None:
        self.name, self.folder = name, folder
        self._decoder = decoder

    @overload
    def reverse(self, texts: str) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def reverse(self, texts: Iterator[str]) -> Iterator[str]: ...  # type: ignore[overload-overlap]
    @overload
    def reverse(self, texts: Iterable[str]) -> list[str]: ...
    def reverse(self, texts: str | Iterable[str]) -> str | Iterator[str] | list[str]:
        """Let the network reverse texts; what it writes is given as it is, right or wrong.

        Args:
            texts: A text; or a list, or any other collection, of texts; or an iterator of them, such as an open file or
                a generator. A text may have up to 128 different characters, in any script.

        Returns:
            A text for a text, a list for a collection. For an iterator an iterator, which takes a text when it is asked
            for the next reversal, and so works on a stream that has no end.

        Raises:
            DataError: What is given is not text.
            VocabularyError: A text has more than 128 different characters, or half a surrogate pair. Of a collection
                nothing is reversed then; an iterator raises it when it comes to that text.
        """
        if isinstance(texts, str):
            (text,) = self._write([bind(texts)])
            return text
        if isinstance(texts, bytes | bytearray) or not isinstance(texts, Iterable):
            raise DataError(f"reverse takes a str or several, not {_a(texts)}", hint="decode bytes first")
        bound = (_bind(number, text) for number, text in enumerate(texts, start=1))
        if isinstance(texts, Iterator):
            return (text for each in bound for text in self._write([each]))
        return list(self._write(list(bound)))

    def _write(self, texts: list[Bound]) -> Iterator[str]:
        for bound, ids in zip(texts, self._decoder.write([each.ids for each in texts]), strict=True):
            yield bound.show(ids[:-1] if ids[-1:] == [vocabulary.END] else ids)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The same model in torch, with the run that made it and its scores; loaded when it is first asked for."""
        from stackrev.models.loading import load

        return load(self.folder, name=self.name)

    def __repr__(self) -> str:
        return f"stackrev.load({self.name!r})"


def load(name: str | Path = DEFAULT, *, offline: bool = False, cache_dir: Path | None = None) -> TextModel:
    """Open a model that reverses texts.

    Args:
        name: A packaged model (`stack-lstm`, `lstm`, `rnn`), a folder, or `[hf:]user/repo[@revision]` on the Hugging
            Face Hub.
        offline: Whether to use the Hub's cache alone, never the network.
        cache_dir: The Hub's cache, if it is not the standard one.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
        ConfigError: It has learned something else than to reverse.
        HubError: It had to be fetched from the Hub, and could not be.
    """
    folder = name if isinstance(name, Path) else names.find(name)
    if not isinstance(folder, Path):
        from stackrev.storage import hub  # which takes a while to import

        folder = hub.resolve(str(name), offline=offline, cache_dir=cache_dir)
    require_task(folder, REVERSAL, name=str(name))
    return TextModel(str(name), folder, _decoder(folder, _version(folder)))


@overload
def reverse(texts: str, *, model: str | Path = DEFAULT) -> str: ...  # type: ignore[overload-overlap]
@overload
def reverse(texts: Iterator[str], *, model: str | Path = DEFAULT) -> Iterator[str]: ...  # type: ignore[overload-overlap]
@overload
def reverse(texts: Iterable[str], *, model: str | Path = DEFAULT) -> list[str]: ...
def reverse(texts: str | Iterable[str], *, model: str | Path = DEFAULT) -> str | Iterator[str] | list[str]:
    """Let a network reverse a text, or several.

    Example:
        >>> stackrev.reverse("hello")
        'olleh'
        >>> stackrev.reverse(["one", "zwölf"])
        ['eno', 'flöwz']

    Args:
        texts: See `TextModel.reverse`.
        model: See `load`.

    Returns:
        A text for a text, a list for a collection, an iterator for an iterator.
    """
    return load(model).reverse(texts)


@lru_cache(maxsize=4)
def _decoder(folder: Path, version: tuple[int, ...]) -> Decoder:
    """The decoder of a checkpoint, opened once for each of its versions."""
    return open_decoder(folder)


def _version(folder: Path) -> tuple[int, ...]:
    """What changes whenever a checkpoint is written: its config.json is replaced last."""
    found = (folder / CONFIG).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _bind(number: int, text: object) -> Bound:
    if not isinstance(text, str):
        raise DataError(f"text {number} is {_a(text)}, not a str")
    try:
        return bind(text)
    except VocabularyError as error:
        raise VocabularyError(f"text {number}: {error.message}", hint=error.hint) from None


def _a(value: object) -> str:
    """A value by its type, for a message."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
