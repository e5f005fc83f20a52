"""The LSTM with a neural deque as encoder and decoder (paper section 3.4, with a deque for the stack of Figure 1c)."""

from __future__ import annotations

from stackrev.kinds.deque_lstm import DequeLSTMConfig
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.structures.deque import DequeState
from stackrev.structures.table import DEQUE


class DequeLSTMReverser(MemoryLSTMReverser[DequeState]):
    """An LSTM encoder and an LSTM decoder that hand over a neural deque."""

    structure = DEQUE
    config: DequeLSTMConfig
