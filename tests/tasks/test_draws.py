"""Strings drawn in pieces are those that are drawn at once."""

from __future__ import annotations

import pytest
import torch

from stackrev.config import LengthRange
from stackrev.tasks.draws import Draw
from stackrev.tasks.strings import sample_strings


@pytest.mark.parametrize("alphabet", [None, [7], [3, 99, 4]])
@pytest.mark.parametrize(("samples", "lengths"), [(1, (5, 5)), (200, (0, 9)), (70_000, (0, 2))])
@pytest.mark.parametrize(("symbols", "strings"), [(10**9, 10**9), (7, 10**9), (10**9, 3), (1, 1)])
def test_pieces_are_the_same_strings(
    samples: int, lengths: tuple[int, int], symbols: int, strings: int, alphabet: list[int] | None
) -> None:
    wanted = LengthRange(minimum=lengths[0], maximum=lengths[1])
    if samples > 1000 and symbols == strings == 1:
        pytest.skip("slow, and tells nothing more")
    generator = torch.Generator().manual_seed(5)
    more = {} if alphabet is None else {"alphabet": alphabet}
    expected = sample_strings(wanted, samples, generator, **more)
    draw = Draw(wanted, samples, 5, alphabet=alphabet)
    pieces = list(draw.pieces(symbols=symbols, strings=strings))
    found = [string for piece in pieces for string in piece]
    assert [len(string) for string in found] == [len(string) for string in expected]
    assert torch.equal(torch.cat(found), torch.cat(expected))
    assert draw.symbols == sum(map(len, expected))
    assert all(len(piece) <= strings and (len(piece) == 1 or sum(map(len, piece)) <= symbols) for piece in pieces)
    again = [string for piece in draw.pieces(symbols=symbols, strings=strings) for string in piece]
    assert torch.equal(torch.cat(again), torch.cat(expected))
