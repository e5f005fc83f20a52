"""Texts to draw, and their grapheme clusters by an independent implementation."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st
from pyuegc import EGC

# What attracts its neighbours into a cluster, beside everything else that is assigned: newer Unicode has more. A virama
# is not among it: after what is no consonant, it joins the next consonant for `regex` and for nobody else.
STICKY = "\u0301\u0308\u200d\ufe0f\U0001f3fb\U0001f468\U0001f469\u2764\U0001f1e6\U0001f1e8\u1100\u1161\u11a8\uac00"
STICKY += "\u0915\u0930\u0903\u0e33\u0600\r\n\u05d0\u05b8\u0627\u0651"
CHARACTERS = st.one_of(
    st.sampled_from(STICKY),
    st.characters(exclude_categories=["Cs", "Cn"]).filter(lambda each: unicodedata.category(each) != "Cn"),
)
ANY_TEXT = st.text(CHARACTERS, max_size=40)


def oracle(text: str) -> list[str]:
    return list(text) if text.isascii() else EGC(text)
