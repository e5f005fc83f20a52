"""The LSTM with a neural queue as encoder and decoder (paper section 3.4, with a queue for the stack of Figure 1c)."""

from __future__ import annotations

from stackrev.kinds.queue_lstm import QueueLSTMConfig
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.structures.queue import QueueState
from stackrev.structures.table import QUEUE


class QueueLSTMReverser(MemoryLSTMReverser[QueueState]):
    """An LSTM encoder and an LSTM decoder that hand over a neural queue."""

    structure = QUEUE
    config: QueueLSTMConfig
