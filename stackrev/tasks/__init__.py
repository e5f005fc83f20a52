"""What is learned: tasks, symbols, strings, batches and targets. Imports no torch.

A new task is a file here and a line in this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stackrev.tasks.base import Task
from stackrev.tasks.bigram_flip import BigramFlip
from stackrev.tasks.copy import Copy
from stackrev.tasks.gender import Gender
from stackrev.tasks.reversal import Reversal
from stackrev.tasks.svo_sov import SvoSov

REVERSAL = Reversal()
_LISTED: tuple[Task, ...] = (
    REVERSAL,
    Copy(),
    BigramFlip(),
    SvoSov(),
    Gender(),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _LISTED})
"""Every task by its name."""
