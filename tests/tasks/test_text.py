"""Any text as symbols, against an independent implementation of grapheme clusters."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import ANY_TEXT, oracle

from stackrev.errors import VocabularyError
from stackrev.tasks import text as texts
from stackrev.tasks import vocabulary


@given(ANY_TEXT)
def test_a_text_is_its_clusters_and_comes_back(text):
    bound = texts.bind(text)
    assert bound.clusters(bound.ids) == oracle(text)
    assert bound.show(bound.ids) == text
    assert bound.show(bound.ids[::-1]) == "".join(reversed(oracle(text)))
    assert all(vocabulary.FIRST_SYMBOL <= each < vocabulary.SIZE for each in bound.ids)


@given(ANY_TEXT)
def test_one_symbol_a_cluster_and_one_cluster_a_symbol(text):
    bound = texts.bind(text)
    pairs = set(zip(bound.ids, oracle(text), strict=True))
    assert len(pairs) == len({symbol for symbol, _ in pairs}) == len({cluster for _, cluster in pairs})
    for symbol, cluster in pairs:
        if len(cluster) == 1 and cluster.isascii():
            assert symbol == vocabulary.encode(cluster)[0]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_code_by_code(text):
    bound = texts.bind(text)
    assert list(bound.ids) == vocabulary.encode(text)
    assert not bound.glyphs
    assert bound.show(bound.ids[::-1]) == text[::-1]


@pytest.mark.parametrize(
    ("text", "reversed_"),
    [
        ("héllo", "olléh"),
        ("he\u0301llo", "olle\u0301h"),
        ("日本語", "語本日"),
        ("👩‍👩‍👧🇩🇪👍🏽a", "a👍🏽🇩🇪👩‍👩‍👧"),
        ("שָׁלוֹם", "םוֹלשָׁ"),
        ("क्षि!", "!क्षि"),
        ("a\r\nb", "b\n\ra"),
        ("a\r\né", "é\r\na"),
        ("$é|&", "&|é$"),
        ("é\u0301\u0301", "é\u0301\u0301"),
        ("", ""),
    ],
)
def test_known_texts(text, reversed_):
    bound = texts.bind(text)
    assert bound.show(bound.ids[::-1]) == reversed_


def test_128_clusters_fit_and_129_do_not():
    text = "".join(map(chr, range(0x4E00, 0x4E80)))
    assert len(set(texts.bind(text).ids)) == 128
    mixed = "".join(map(chr, range(100))) + "".join(map(chr, range(0x4E00, 0x4E1C)))
    assert texts.bind(mixed).clusters(texts.bind(mixed).ids) == oracle(mixed)
    with pytest.raises(VocabularyError, match="the text has 129 different characters, and the network has 128 symbols"):
        texts.bind(text + "a")


def test_a_symbol_that_is_bound_to_nothing_is_its_own_character():
    bound = texts.bind("é")
    free = next(each for each in vocabulary.encode("xyz") if each not in bound.glyphs)
    assert bound.show([*bound.ids, free, vocabulary.END]) == "é" + vocabulary.decode([free]) + "&"


def test_half_a_surrogate_pair():
    with pytest.raises(VocabularyError, match=r"U\+D800"):
        texts.bind("a\ud800")


def test_it_imports_no_torch_and_regex_only_when_needed():
    code = (
        "import sys; from stackrev.tasks import text; text.bind('abc'); assert 'regex' not in sys.modules; "
        "text.bind('é'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
