"""Doubling: every symbol of the string twice."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from stackrev.tasks.base import Task


class Doubling(Task):
    """Every symbol of the string twice.

    >>> Doubling().answer([7, 5])
    [7, 7, 5, 5]
    """

    name = "doubling"
    summary = "every symbol of the string twice"

    @override
    def answer(self, string: Sequence[int]) -> list[int]:
        return [symbol for symbol in string for _ in range(2)]
