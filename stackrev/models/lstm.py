"""The LSTM as encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from typing_extensions import override

from stackrev.kinds.lstm import LSTMConfig
from stackrev.models.base import Reverser
from stackrev.models.initial import blank, initialise_linear, initialise_network, recurrent


class LSTMReverser(Reverser[tuple[Tensor, Tensor]]):
    """Encoder and decoder are LSTMs over learned embeddings. The state is h and c, [K, B, H] each."""

    config: LSTMConfig

    def __init__(self, config: LSTMConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        shape = (config.embedding_width, config.hidden_size, config.layers)
        self.embedding = blank(nn.Embedding(config.vocabulary_size, config.embedding_width, device="meta"))
        self.encoder = blank(nn.LSTM(*shape, device="meta"))
        self.decoder = blank(nn.LSTM(*shape, device="meta"))
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self.initial_cell = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self._initialise(generator)

    @override
    def encode(
        self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        batch = source.shape[1]
        h, c = (each.expand(-1, batch, -1).contiguous() for each in (self.initial_hidden, self.initial_cell))
        state: tuple[Tensor, Tensor]
        _, state = self.encoder(pack_padded_sequence(self.embedding(source), steps), (h, c))
        return state

    @override
    def decode(
        self, fed: Tensor, steps: Tensor, state: tuple[Tensor, Tensor], *, generator: torch.Generator | None = None
    ) -> Tensor:
        hidden: Tensor = self.decoder(self.embedding(fed), state)[0]
        return hidden

    @override
    def select(self, state: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state
        return h[:, rows], c[:, rows]

    @override
    def step(self, symbols: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, state = self.decoder(self.embedding(symbols)[None], state)
        return self.read_out(hidden[0]), state

    @override
    def recurrent_weights(self) -> list[nn.Parameter]:
        return recurrent(self.encoder) + recurrent(self.decoder)

    @override
    def symbol_weights(self) -> list[Tensor]:
        return [self.embedding.weight]

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        """Torch's own initial values, or "tuned" ones: orthogonal recurrent matrices, and forget gates biased open."""
        tuned, size = self.config.initialisation == "tuned", self.config.hidden_size
        self.embedding.weight.normal_(0, 1, generator=generator)
        for network in (self.encoder, self.decoder):
            initialise_network(network, generator, orthogonal=tuned)
            if tuned:
                for layer in range(self.config.layers):
                    getattr(network, f"bias_ih_l{layer}")[size : 2 * size] = 1.0
        initialise_linear(self.output, generator, xavier=tuned)
        initialise_linear(self.logits, generator, xavier=False)
