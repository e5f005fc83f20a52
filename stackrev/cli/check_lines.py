"""A training run's checks as lines of columns: as many columns as the terminal has room for, under a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stackrev.cli.common import share
from stackrev.tasks.data import DataConfig, PairsConfig
from stackrev.training.certified import Closing
from stackrev.training.events import CheckEvent

GAP = 2


class Column(NamedTuple):
    """A column of a check's line.

    Attributes:
        group: What the head has above its name, and above those of its neighbours of the same group.
        name: What the head calls it.
        rank: Columns of the highest rank are left out first where there is no room.
        value: What is in it.
    """

    group: str
    name: str
    rank: int
    value: str

    @property
    def width(self) -> int:
        """How many columns of a terminal it takes."""
        return max(len(self.name), len(self.value), _LEAST.get(self.name, 6))


_RESTARTS = "starting over: less than half of the strings are right"
_LEAST = {"batch": 7, "boxes": 6}


class CheckLines:
    """The lines of a run's checks. The head comes again whenever the columns are others.

    Args:
        data: The run's data, for the lengths of the strings that are scored.
    """

    def __init__(self, data: DataConfig | PairsConfig) -> None:
        self._data = data
        self._head: list[str] = []

    def lines(self, event: CheckEvent, speed: float, width: int | None) -> list[str]:
        """What to print for a check.

        Args:
            event: The check.
            speed: Batches a second.
            width: How many columns there are; None for as many as it takes.
        """
        columns = _fitting(self._columns(event, speed), width)
        head, before = _head(columns), self._head
        self._head = head
        lines = [_joined([each.value.rjust(each.width) for each in columns])]
        if event.restarts:
            lines.append(_RESTARTS if width is None or width >= len(_RESTARTS) else _RESTARTS.split(":")[0])
        return lines if head == before else [*head, *lines]

    def _columns(self, event: CheckEvent, speed: float) -> list[Column]:
        found = [Column("", "batch", 0, f"{event.batch:,}"), Column("", "loss", 0, f"{event.loss:.4f}")]
        scored = ((str(self._data.lengths), event.validation, 1), (str(self._data.test_lengths), event.test, 0))
        for lengths, scores, rank in scored:
            found += [
                Column(lengths, "coarse", 5 + rank, share(scores.coarse)),
                Column(lengths, "fine", 1 + rank, share(scores.fine)),
            ]
        found.append(Column("", "batch/s", 4, f"{speed:.1f}"))
        return found if event.closing is None else [*found, *_proof(event.closing)]


def _proof(closing: Closing) -> list[Column]:
    """How near the run is to a proof: how wide the boxes are, as a share of what it takes, and the margins in them."""
    boxes = "closed" if closing.closed else f"{min(1.0, closing.scale):.1%}"
    return [
        Column("proof", "boxes", 3, boxes),
        Column("proof", "gates", 7, f"{closing.gates:+.1f}"),
        Column("proof", "logits", 7, f"{closing.logits:+.1f}"),
    ]


def _fitting(columns: list[Column], width: int | None) -> list[Column]:
    """The columns for which there is room; the first two stay wherever it is."""
    while width is not None and len(columns) > 2 and max(map(len, _head(columns))) > width:
        last = max(each.rank for each in columns)
        columns = [each for each in columns if each.rank < last]
    return columns


def _head(columns: Sequence[Column]) -> list[str]:
    """Two lines: the groups, each at the right end of its columns, and the names."""
    groups, end = "", 0
    for place, each in enumerate(columns):
        end += each.width + GAP * (place > 0)
        if each.group and (place + 1 == len(columns) or columns[place + 1].group != each.group):
            groups = f"{groups}{each.group.rjust(end - len(groups))}"
    return [groups, _joined([each.name.rjust(each.width) for each in columns])]


def _joined(cells: Sequence[str]) -> str:
    return (" " * GAP).join(cells)
