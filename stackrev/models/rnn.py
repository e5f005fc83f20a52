"""The Elman network as encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from typing_extensions import override

from stackrev.kinds.rnn import RNNConfig
from stackrev.models.base import Reverser
from stackrev.models.initial import blank, initialise_linear, initialise_network, recurrent


class RNNReverser(Reverser[Tensor]):
    """Encoder and decoder are Elman networks with tanh units over learned embeddings. The state is h, [K, B, H]."""

    config: RNNConfig

    def __init__(self, config: RNNConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        shape = (config.embedding_width, config.hidden_size, config.layers)
        self.embedding = blank(nn.Embedding(config.vocabulary_size, config.embedding_width, device="meta"))
        self.encoder = blank(nn.RNN(*shape, device="meta"))
        self.decoder = blank(nn.RNN(*shape, device="meta"))
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self._initialise(generator)

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

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        """Torch's own initial values, or "tuned" ones.

        Tuned, recurrent matrices are orthogonal, symbols come in small, so that the units start out nearly linear, and
        the decoder's recurrent matrices are the transposes of the encoder's: what the one has rotated away the other
        rotates back.
        """
        tuned = self.config.initialisation == "tuned"
        self.embedding.weight.normal_(0, 0.1 if tuned else 1, generator=generator)
        for network in (self.encoder, self.decoder):
            initialise_network(network, generator, orthogonal=tuned)
        if tuned:
            for encoding, decoding in zip(recurrent(self.encoder), recurrent(self.decoder), strict=True):
                decoding.copy_(encoding.T)
            for layer in range(self.config.layers):
                for network in (self.encoder, self.decoder):
                    for name in (f"bias_ih_l{layer}", f"bias_hh_l{layer}"):
                        getattr(network, name).zero_()
        initialise_linear(self.output, generator, xavier=tuned)
        initialise_linear(self.logits, generator, xavier=False)
