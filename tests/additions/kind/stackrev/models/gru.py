"""The GRU as encoder and decoder."""

from __future__ import annotations

import torch
from stackrev.kinds.gru import GRUConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from typing_extensions import override

from stackrev.models.base import Reverser
from stackrev.models.initial import blank, initialise_linear, initialise_network, recurrent


class GRUReverser(Reverser[Tensor]):
    """Encoder and decoder are GRUs over learned embeddings. The state is h, [K, B, H]."""

    config: GRUConfig

    def __init__(self, config: GRUConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        shape = (config.embedding_width, config.hidden_size, config.layers)
        self.embedding = blank(nn.Embedding(config.vocabulary_size, config.embedding_width, device="meta"))
        self.encoder = blank(nn.GRU(*shape, device="meta"))
        self.decoder = blank(nn.GRU(*shape, device="meta"))
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        with torch.no_grad():
            self.embedding.weight.normal_(0, 1, generator=generator)
            for network in (self.encoder, self.decoder):
                initialise_network(network, generator, orthogonal=False)
            initialise_linear(self.output, generator, xavier=False)
            initialise_linear(self.logits, generator, xavier=False)

    @override
    def encode(self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        h = self.initial_hidden.expand(-1, source.shape[1], -1).contiguous()
        state: Tensor = self.encoder(pack_padded_sequence(self.embedding(source), steps), h)[1]
        return state

    @override
    def decode(self, fed: Tensor, steps: Tensor, state: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        hidden: Tensor = self.decoder(self.embedding(fed), state)[0]
        return hidden

    @override
    def select(self, state: Tensor, rows: Tensor) -> Tensor:
        return state[:, rows]

    @override
    def step(self, symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.decoder(self.embedding(symbols)[None], state)
        return self.read_out(hidden[0]), state

    @override
    def recurrent_weights(self) -> list[nn.Parameter]:
        return recurrent(self.encoder) + recurrent(self.decoder)

    @override
    def symbol_weights(self) -> list[Tensor]:
        return [self.embedding.weight]
