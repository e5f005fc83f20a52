"""What a terminal would act on, or not show, is made visible; what a script or an emoji needs stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import ANY_TEXT

from stackrev.tasks.visible import visible

# Default_Ignorable_Code_Point of DerivedCoreProperties.txt, beside those that are format characters by category.
IGNORABLE = (
    *("\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f", "\u2065", "\u3164"),
    *(chr(code) for code in range(0xFE00, 0xFE10)),
    *("\uffa0", "\ufff0", "\U000e0000", "\U000e0080", "\U000e0100", "\U000e01ef", "\U000e0fff"),
)
# Prepended_Concatenation_Mark of PropList.txt: format characters by category, with a glyph.
DRAWN = {
    *(chr(code) for code in range(0x600, 0x606)),
    *("\u06dd", "\u070f", "\u0890", "\u0891", "\u08e2", "\U000110bd", "\U000110cd"),
}


def test_control_characters_have_pictures():
    assert visible("a\x1b[31m\x00\x7f\x9b\n") == "a␛[31m␀␡‹9B›␊"


def test_what_is_no_character_of_its_own_goes_by_its_code_point():
    assert visible("a\u202eb\u2066\u200e\u2028\ud800") == "a‹202E›b‹2066›‹200E›‹2028›‹D800›"
    assert visible("runs/caf\udce9") == "runs/caf‹xE9›"  # a byte of a file name that is not UTF-8


@pytest.mark.parametrize(
    "text",
    [
        "héllo 👩‍👩‍👧 👩🏽‍🚀 🏳️‍🌈 🏴‍☠️ ❤️‍🔥 👁️‍🗨️",  # joined emoji
        "❤️ ☎︎ ©️ ‼️ 1️⃣ #️⃣ 👍🏽 🇩🇪",  # presentations, keycaps, flags
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "e\u0301\u0323 שָׁלוֹם العربية 한국어 ไทย 日本語 Füße",
        "यरू\u0936\u093e क्ष शक्\u200dति ශ්\u200dරී ලංකා র\u200d্যাব",  # joiners beside a virama
        "می\u200cخواهم",  # between letters that would join
        "יְרוּשָׁלַ\u034fִם",  # between Hebrew points
        "葛\U000e0100 ᠮᠣᠩᠭᠣᠯ\u180b ≨\ufe00",  # variants of what has variants
        "\u0600123 a\u00a0b\u3000c",
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert visible(text) == text


@pytest.mark.parametrize("code", ["Cc", "Cf", "Cs", "Zl", "Zp"])
def test_every_control_format_and_separator_is_visible(code):
    characters = [chr(each) for each in range(0x110000) if unicodedata.category(chr(each)) == code]
    assert characters
    for character in characters:
        for text in (character, f"a{character}b", f"é{character}", f"{character}{character}"):
            assert character in DRAWN or character not in visible(text), f"{ord(character):X}"


@pytest.mark.parametrize("character", IGNORABLE, ids=lambda each: f"{ord(each):X}")
def test_every_ignorable_character_is_visible(character):
    assert all(
        character not in visible(text) for text in (character, f"a{character}b", f"é{character}", "1" + character)
    )


@pytest.mark.parametrize(
    "text",
    [
        "😀\ufe0f\ufe0f",  # more variation selectors than a base can have, a hidden message in each
        "👩\u200d\u200d👧",  # more joiners than join
        "a\u200db",
        "ab\u200c",
        "раypal\u200c",
        "\U0001f3f4\U000e0068\U000e0069\U000e007f",  # tags that make no flag
        "\U000e0068\U000e0069",
        "שלום\u034f",
        "क\u200b",
    ],
)
def test_what_hides_beside_ordinary_text_does_not(text):
    assert visible(text) != text


@given(st.text() | ANY_TEXT)
def test_it_needs_to_be_done_once(text):
    assert visible(visible(text)) == visible(text)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp"])))
def test_nothing_acts_on_a_terminal(text, more):
    shown = visible(text + more + text)
    assert not any(unicodedata.category(each) == "Cc" for each in shown)
    assert not any(
        unicodedata.bidirectional(each) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        for each in shown
    )
