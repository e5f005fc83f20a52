"""Ids and the characters they stand for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackrev.errors import VocabularyError
from stackrev.tasks import vocabulary

ascii_text = st.text(st.characters(max_codepoint=127))


def test_a_known_string() -> None:
    assert vocabulary.encode("A$") == [68, 39]
    assert vocabulary.source_ids([68, 39]) == [0, 68, 39, 1]
    assert vocabulary.target_ids([68, 39]) == [39, 68, 2]
    assert vocabulary.decode([0, 68, 39, 1]) == "$A$|"
    assert vocabulary.decode([39, 68, 2]) == "$A&"


def test_there_are_131_ids() -> None:
    assert vocabulary.SIZE == 131
    text = "".join(map(chr, range(128)))
    assert vocabulary.encode(text) == list(range(3, 131))
    assert vocabulary.decode(range(131)) == "$|&" + text


def test_a_marker_inside_a_string_is_an_ordinary_character() -> None:
    for character, marker in zip("$|&", (vocabulary.START, vocabulary.SEPARATOR, vocabulary.END), strict=True):
        (symbol,) = vocabulary.encode(character)
        assert symbol != marker
        assert vocabulary.decode([symbol]) == vocabulary.decode([marker]) == character


@given(ascii_text)
def test_round_trip(text: str) -> None:
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode(vocabulary.source_ids(ids)) == f"${text}|"
    assert vocabulary.decode(vocabulary.target_ids(ids)) == f"{text[::-1]}&"


def test_a_character_outside() -> None:
    with pytest.raises(VocabularyError, match="character 3, 'é', is not ASCII"):
        vocabulary.encode("caé€")


@given(st.text(), st.characters(min_codepoint=128), st.text())
def test_no_character_outside_gets_by(before: str, outside: str, after: str) -> None:
    with pytest.raises(VocabularyError, match="is not ASCII"):
        vocabulary.encode(before + outside + after)


@pytest.mark.parametrize("outside", [-1, 131, 10**9])
def test_an_id_outside(outside: int) -> None:
    with pytest.raises(VocabularyError, match=f"no symbol {outside}"):
        vocabulary.decode([5, outside])


def test_it_imports_no_torch() -> None:
    code = "import sys, stackrev.tasks.vocabulary; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
