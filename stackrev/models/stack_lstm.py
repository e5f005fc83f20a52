"""The LSTM with a neural stack as encoder and decoder (paper section 3.4, Figure 1c)."""

from __future__ import annotations

import torch
from typing_extensions import override

from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.structures.bounds import Controllers
from stackrev.structures.stack import StackState
from stackrev.structures.table import STACK
from stackrev.tasks import vocabulary


class StackLSTMReverser(MemoryLSTMReverser[StackState]):
    """An LSTM encoder and an LSTM decoder that hand over a neural stack (paper section 3.4, Figure 1c)."""

    structure = STACK
    config: StackLSTMConfig

    @override
    def controllers(self) -> Controllers | None:
        # Gates without a stretch are never quite open or shut, and the bounds are about cells that have none.
        if not self.config.gate_stretch or self.config.stretches_cells:
            return None
        read, fed = self.encoder.contributions(), self.decoder.contributions()
        symbols = slice(vocabulary.FIRST_SYMBOL, None)
        return Controllers(
            encoder=self._weights_of(self.encoder),
            start=read[[vocabulary.START]],
            symbols=read[symbols],
            decoder=self._weights_of(self.decoder),
            fed=torch.cat([fed[[vocabulary.SEPARATOR]], fed[symbols]]),
            hidden=self.initial_hidden,
            cell=self.initial_cell,
            stretch=self.config.gate_stretch,
        )
