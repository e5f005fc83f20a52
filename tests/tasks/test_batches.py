"""Batches, held-out sets and data files."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stackrev.config import LengthRange
from stackrev.errors import DataError
from stackrev.tasks import vocabulary
from stackrev.tasks.batches import Batch, HeldOut, held_out, make_batch, sample_batch
from stackrev.tasks.data import DataConfig
from stackrev.tasks.strings import sample_strings

SHORT = LengthRange(minimum=0, maximum=9)


def string(text: str) -> Tensor:
    return torch.tensor(vocabulary.encode(text), dtype=torch.int64)


def strings_of(batch: Batch) -> list[list[int]]:
    """The strings of a batch, after a check that its four parts belong together."""
    found = []
    for source, fed, target, steps in zip(*(each.T.tolist() for each in batch[:3]), batch.steps.tolist(), strict=True):
        ids = source[1:steps]
        assert source[:steps] == [vocabulary.START, *ids]
        assert fed[:steps] == [vocabulary.SEPARATOR, *reversed(ids)]
        assert target[:steps] == vocabulary.target_ids(ids)
        assert {*source[steps:], *fed[steps:], *target[steps:]} <= {vocabulary.END}
        found.append(ids)
    return found


def test_a_batch_by_hand() -> None:
    batch = make_batch([string("b"), string("xyz"), string("")])
    x, y, z, b = vocabulary.encode("xyzb")
    start, separator, end = vocabulary.START, vocabulary.SEPARATOR, vocabulary.END
    assert batch.source.T.tolist() == [[start, x, y, z], [start, b, end, end], [start, end, end, end]]
    assert batch.fed.T.tolist() == [[separator, z, y, x], [separator, b, end, end], [separator, end, end, end]]
    assert batch.target.T.tolist() == [[z, y, x, end], [b, end, end, end], [end, end, end, end]]
    assert batch.steps.tolist() == [4, 2, 1]


def test_strings_of_one_length_keep_their_order() -> None:
    batch = make_batch([string("b"), string("ab"), string("a"), string("c")])
    assert strings_of(batch) == [vocabulary.encode(each) for each in ("ab", "b", "a", "c")]


def test_a_batch_of_empty_strings() -> None:
    assert strings_of(make_batch([string(""), string("")])) == [[], []]


def key(ids: list[int]) -> bytes:
    (found,) = HeldOut([torch.tensor(ids, dtype=torch.int64)], []).keys
    return found


@given(st.lists(st.lists(st.integers(3, 130), max_size=9), min_size=1, max_size=6))
def test_a_batch_holds_its_strings(strings: list[list[int]]) -> None:
    batch = make_batch([torch.tensor(each, dtype=torch.int64) for each in strings])
    assert strings_of(batch) == sorted(strings, key=len, reverse=True)
    assert batch.order is None
    assert {each.dtype for each in batch if each is not None} == {torch.int64}


def test_a_batch_moves_but_for_its_steps() -> None:
    moved = make_batch([string("ab")]).to("meta")
    assert [each.device.type for each in moved[:5]] == ["meta", "meta", "meta", "cpu", "cpu"]
    assert moved.order is None


def test_sampled_strings(generator: torch.Generator) -> None:
    strings = sample_strings(LengthRange(minimum=2, maximum=4), 2000, generator)
    lengths = torch.tensor([len(each) for each in strings])
    counts = lengths.bincount(minlength=5).tolist()
    assert counts[:2] == [0, 0]
    assert all(500 < count < 834 for count in counts[2:])  # each about a third
    symbols = torch.cat(strings).bincount(minlength=vocabulary.SIZE)
    assert not symbols[:3].any()
    assert int(symbols[3:].min()) > 10
    assert len(symbols) == vocabulary.SIZE
    assert sample_strings(SHORT, 0, generator) == []


def test_an_alphabet_of_ones_own(generator: torch.Generator) -> None:
    strings = sample_strings(SHORT, 100, generator, alphabet=[5, 7])
    assert {symbol for each in strings for symbol in each.tolist()} == {5, 7}


@pytest.mark.parametrize("mixed", [True, False])
def test_a_sampled_batch(mixed: bool, generator: torch.Generator) -> None:
    seen = set()
    for _ in range(50):
        batch = sample_batch(SHORT, 8, generator, mixed_lengths=mixed)
        lengths = [len(each) for each in strings_of(batch)]
        assert len(lengths) == 8
        assert lengths == sorted(lengths, reverse=True)
        assert len(batch.source) == max(lengths) + 1
        assert mixed or len(set(lengths)) == 1
        seen.update(lengths)
    assert seen == set(range(10))


def test_sampled_symbols_are_all_of_ascii(generator: torch.Generator) -> None:
    batch = sample_batch(LengthRange(minimum=64, maximum=64), 50, generator)
    assert set(batch.source[1:].flatten().tolist()) == set(range(3, 131))


def test_draws_come_from_the_generator_alone() -> None:
    def draw(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        batch = sample_batch(SHORT, 4, generator)
        again = sample_batch(SHORT, 4, generator, mixed_lengths=False)
        return [*batch[:5], *sample_strings(SHORT, 4, generator), *again[:5]]

    before = torch.get_rng_state()
    first, again, other = draw(1), draw(1), draw(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("mixed", [True, False])
def test_excluded_strings_are_not_drawn(mixed: bool, generator: torch.Generator) -> None:
    one = LengthRange(minimum=0, maximum=1)
    allowed = {key([symbol]) for symbol in range(3, 8)} | ({key([])} if not mixed else set())
    excluded = frozenset({key([]), *(key([symbol]) for symbol in range(3, 131))} - allowed)
    drawn = set()
    for _ in range(20):
        batch = sample_batch(one, 4, generator, mixed_lengths=mixed, excluded=excluded)
        found = [key(each) for each in strings_of(batch)]
        assert len(found) == 4
        assert mixed or len(set(map(len, found))) == 1
        drawn.update(found)
    assert drawn == allowed


def test_an_exclusion_that_does_not_bite_changes_nothing() -> None:
    free, held = (
        sample_batch(SHORT, 4, torch.Generator().manual_seed(3), excluded=excluded)
        for excluded in (frozenset[bytes](), frozenset({b"no such string"}))
    )
    assert all(torch.equal(a, b) for a, b in zip(free[:5], held[:5], strict=True))


def test_a_length_of_which_all_is_held_out_gives_way_to_another(generator: torch.Generator) -> None:
    one = LengthRange(minimum=0, maximum=1)
    for _ in range(10):
        batch = sample_batch(one, 8, generator, mixed_lengths=False, excluded=frozenset({key([])}))
        assert [len(each) for each in strings_of(batch)] == [1] * 8


def test_nothing_left_to_draw(generator: torch.Generator) -> None:
    excluded = frozenset(key([symbol]) for symbol in range(3, 131))
    with pytest.raises(DataError, match="every string of length 1 is held out"):
        sample_batch(LengthRange(minimum=1, maximum=1), 2, generator, excluded=excluded)


def test_held_out_sets_are_fixed_by_their_seed() -> None:
    config = DataConfig(held_out_samples=20)
    first, again = held_out(config), held_out(config)
    other = held_out(DataConfig(held_out_samples=20, held_out_seed=1))
    for name in ("validation", "test"):
        here, there, elsewhere = (getattr(each, name) for each in (first, again, other))
        assert len(here) == 20
        assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(here, elsewhere, strict=True))


def test_held_out_sets_have_their_own_lengths_and_strings() -> None:
    ranges = LengthRange(minimum=3, maximum=5), LengthRange(minimum=6, maximum=8)
    sets = held_out(DataConfig(lengths=ranges[0], test_lengths=ranges[1], held_out_samples=60))
    for strings, lengths in zip(sets, ranges, strict=True):
        assert {len(each) for each in strings} == set(range(lengths.minimum, lengths.maximum + 1))
    same = LengthRange(minimum=5, maximum=5)
    sets = held_out(DataConfig(lengths=same, test_lengths=same, held_out_samples=60))
    assert not any(torch.equal(a, b) for a in sets.validation for b in sets.test)


def test_held_out_keys_are_what_training_excludes(generator: torch.Generator) -> None:
    config = DataConfig(lengths=LengthRange(minimum=1, maximum=1), held_out_samples=100)
    sets = held_out(config)
    assert sets.keys == {key(each.tolist()) for each in (*sets.validation, *sets.test)}
    batch = sample_batch(config.lengths, 500, generator, excluded=sets.keys)
    held = {tuple(each.tolist()) for each in sets.validation}
    assert held.isdisjoint(map(tuple, strings_of(batch)))


def test_what_memory_cannot_hold_is_refused_at_once(generator):
    huge = LengthRange(minimum=1, maximum=10**9)
    with pytest.raises(DataError, match="too many"):
        held_out(DataConfig(test_lengths=huge))
    with pytest.raises(DataError, match="too many"):
        held_out(DataConfig(lengths=LengthRange(minimum=1, maximum=1000), held_out_samples=1_000_000))
    with pytest.raises(DataError, match="too large"):
        sample_batch(huge, 50, generator)
