"""Doubling writes every symbol twice."""

from stackrev.tasks.doubling import Doubling


def test_every_symbol_is_written_twice():
    assert Doubling().answer([3, 4]) == [3, 3, 4, 4]
    assert Doubling().answer([]) == []
