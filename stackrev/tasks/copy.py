"""Copy: the string as it is."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from stackrev.tasks.base import Task


class Copy(Task):
    """The string as it is. A stack cannot do it in one pass; a queue can.

    >>> Copy().answer([7, 5, 9])
    [7, 5, 9]
    """

    name = "copy"
    summary = "the string as it is"

    @override
    def answer(self, string: Sequence[int]) -> list[int]:
        return list(string)
