"""Data files: what is written is read, and what cannot be an example is named by its line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.storage import examples
from stackrev.tasks import vocabulary


def string(text: str) -> Tensor:
    return torch.tensor(vocabulary.encode(text), dtype=torch.int64)


def read(path: Path, symbols: int = 1000, strings: int = 1000, **more: Any) -> list[Tensor]:
    return [each for piece in examples.read(path, symbols=symbols, strings=strings, **more) for each in piece]


def test_a_data_file_by_hand() -> None:
    written = b"".join(examples.lines([string('a"b'), string("")])).decode()
    assert written == '{"input": "$a\\"b|", "target": "b\\"a&"}\n{"input": "$|", "target": "&"}\n'


@given(st.lists(st.text(st.characters(max_codepoint=127)), min_size=1, max_size=5))
def test_a_data_file_holds_its_strings(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("data") / "strings.jsonl"
    examples.save(path, map(string, texts))
    assert [vocabulary.decode(each.tolist()) for each in read(path)] == texts
    assert [json.loads(line)["input"][1:-1] for line in path.read_bytes().split(b"\n")[:-1]] == texts


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "strings.jsonl"
    examples.save(path, [string("old")])
    with pytest.raises(RuntimeError, match="half-way"):
        examples.save(path, failing())
    assert [each.tolist() for each in read(path)] == [vocabulary.encode("old")]
    assert list(tmp_path.iterdir()) == [path]


def failing():
    yield string("new")
    raise RuntimeError("half-way")


def test_a_saved_file_has_the_modes_of_any_other(tmp_path: Path) -> None:
    path, plain = tmp_path / "strings.jsonl", tmp_path / "plain"
    examples.save(path, [string("a")])
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be written: No such file"):
        examples.save(tmp_path / "nowhere" / "strings.jsonl", [string("a")])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"cannot be written|not a regular file"):
        examples.save(tmp_path / "folder", [string("a")])
    assert os.listdir(tmp_path) == ["folder"]  # noqa: PTH208


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nowhere"):
        read(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match=r"cannot be read|not a regular file"):
        read(tmp_path)


GOOD = b'{"input": "$ab|", "target": "ba&"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json", "not an example"),
        (b"[1, 2]", "not an example"),
        (b"3", "not an example"),
        (b"null", "not an example"),
        (b'{"input": "$ab|"}', "not an example"),
        (b'{"input": "$ab|", "target": 3}', "not an example"),
        (b'{"input": ["$", "|"], "target": "&"}', "not an example"),
        (b"\xff\xfe", "not an example"),
        (b"[" * 100_000, "not an example"),
        (b'{"input": "ab|", "target": "ba&"}', "does not run from"),
        (b'{"input": "$ab", "target": "ba&"}', "does not run from"),
        (b'{"input": "$", "target": "&"}', "does not run from"),
        (b'{"input": "", "target": "&"}', "does not run from"),
        (b'{"input": "$ab|", "target": "ab&"}', "not the string reversed"),
        (b'{"input": "$ab|", "target": "ba"}', "not the string reversed"),
        (b'{"input": "$ab|", "target": "ba&&"}', "not the string reversed"),
        ('{"input": "$é|", "target": "é&"}'.encode(), "'é', is not ASCII"),
        (b'{"input": "$\\ud800|", "target": "\\ud800&"}', "is not ASCII"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "strings.jsonl"
    path.write_bytes(b"\n".join([GOOD, b"", line, GOOD]))
    with pytest.raises(DataError, match=f"strings.jsonl, line 3: .*{message}") as caught:
        read(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_blank_lines_and_other_keys_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "strings.jsonl"
    path.write_bytes(b'\r\n{"input": "$|", "target": "&", "note": 1}\r\n  \r\n' + GOOD)
    assert [each.tolist() for each in read(path)] == [[], vocabulary.encode("ab")]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_examples(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "strings.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="holds no examples"):
        read(path)


@pytest.mark.parametrize(("symbols", "strings", "sizes"), [(5, 9, [2, 1, 2]), (100, 2, [2, 2, 1]), (1, 1, [1] * 5)])
def test_a_file_is_read_in_pieces(tmp_path: Path, symbols: int, strings: int, sizes: list[int]) -> None:
    path = tmp_path / "strings.jsonl"
    texts = ["ab", "abc", "abcdefgh", "", "a"]
    examples.save(path, map(string, texts))
    pieces = list(examples.read(path, symbols=symbols, strings=strings))
    assert [len(piece) for piece in pieces] == sizes
    assert [vocabulary.decode(each.tolist()) for piece in pieces for each in piece] == texts
    chosen = read(path, symbols, strings, lengths=LengthRange(minimum=1, maximum=3), most=2)
    assert [len(each) for each in chosen] == [2, 3]
    assert read(path, lengths=LengthRange(minimum=5, maximum=6)) == []


def test_a_line_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LONGEST_LINE", 100)
    path = tmp_path / "strings.jsonl"
    path.write_bytes(GOOD + b"\n" + b" " * 100 + GOOD)
    with pytest.raises(DataError, match="line 2: it has more than 100 bytes"):
        read(path)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null"), tmp_path):
        with pytest.raises(DataError, match=r"not a regular file|cannot be read"):
            read(path)
