"""The LSTM with a neural stack as encoder and decoder (paper section 3.4, Figure 1c).

Shapes: B rows, T steps, H hidden units, K layers, stack width M, vocabulary V.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from stackrev.evaluation.capabilities import Gates, Record
from stackrev.kernels.cpu.stream import Stream
from stackrev.kinds.stack_lstm import StackLSTMConfig, open_stream
from stackrev.models.base import Reverser
from stackrev.models.initial import initialise_linear
from stackrev.structures.bounds import Controllers
from stackrev.structures.recurrence import MemoryLSTMOutput, MemoryLSTMState, MemoryLSTMWeights, memory_lstm
from stackrev.structures.stack import StackState
from stackrev.tasks import vocabulary
from stackrev.tasks.batches import Batch


class Controls(nn.Module):
    """From a hidden state to the stack's controls: the columns of [H, 2 + M] are push, pop, value (section 3.4)."""

    def __init__(self, config: StackLSTMConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size, 2 + config.stack_width))
        self.bias = nn.Parameter(torch.empty(2 + config.stack_width))


class StackLSTMCell(nn.Module):
    """The LSTM of an encoder or a decoder: what its symbols contribute, and what it carries from step to step."""

    def __init__(self, config: StackLSTMConfig) -> None:
        super().__init__()
        size, layers = config.hidden_size, config.layers
        self.symbols = nn.Parameter(torch.empty(config.vocabulary_size, 4 * size))
        inputs = [config.stack_width] + [size] * (layers - 1)
        self.recurrent = nn.ParameterList([torch.empty(each + size, 4 * size) for each in inputs])
        self.bias = nn.ParameterList([torch.empty(4 * size) for _ in range(layers)])

    def contributions(self) -> Tensor:
        """What each symbol adds to the first layer's pre-activations: W_x x + b, [V, 4H]."""
        total: Tensor = self.symbols + self.bias[0]
        return total


class StackLSTMReverser(Reverser[MemoryLSTMState[StackState]]):
    """An LSTM encoder and an LSTM decoder that hand over a neural stack (paper section 3.4, Figure 1c)."""

    config: StackLSTMConfig

    def __init__(self, config: StackLSTMConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.encoder = StackLSTMCell(config)
        self.decoder = StackLSTMCell(config)
        self.controls = Controls(config)
        if not config.shared_controls:
            self.decoder_controls = Controls(config)
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self.initial_cell = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self._initialise(generator)

    def initial_state(self, batch: int) -> MemoryLSTMState[StackState]:
        """The trained h_0 and c_0 for `batch` rows, with an empty read and an empty stack."""
        h, c = (each.expand(-1, batch, -1) for each in (self.initial_hidden, self.initial_cell))
        width = self.config.stack_width
        return MemoryLSTMState(h, c, h.new_zeros(batch, width), StackState.empty(batch, width, like=h))

    @override
    def encode(
        self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None
    ) -> MemoryLSTMState[StackState]:
        return self.run(self.encoder, source, steps, self.initial_state(source.shape[1]), generator).state

    @override
    def decode(
        self,
        fed: Tensor,
        steps: Tensor,
        state: MemoryLSTMState[StackState],
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.run(self.decoder, fed, steps, state, generator).hidden

    @override
    def select(self, state: MemoryLSTMState[StackState], rows: Tensor) -> MemoryLSTMState[StackState]:
        stack = state.memory
        chosen = StackState(stack.values[:, rows], stack.bottoms[:, rows], stack.tops[:, rows], stack.height[rows])
        return MemoryLSTMState(state.hidden[:, rows], state.cell[:, rows], state.read[rows], chosen)

    @override
    def step(self, symbols: Tensor, state: MemoryLSTMState[StackState]) -> tuple[Tensor, MemoryLSTMState[StackState]]:
        out = self.run(self.decoder, symbols[None], torch.ones_like(symbols, device="cpu"), state)
        return self.read_out(out.hidden[0]), out.state

    def run(
        self,
        cell: StackLSTMCell,
        ids: Tensor,
        steps: Tensor,
        state: MemoryLSTMState[StackState],
        generator: torch.Generator | None = None,
    ) -> MemoryLSTMOutput[StackState]:
        """Run the encoder or the decoder over ids [T, B]; see `memory_lstm`. In training, the gates are noisy."""
        noise = self._noise(ids, generator) if self.training else None
        inputs, weights = cell.contributions(), self._weights_of(cell)
        return memory_lstm(inputs, steps, state, weights, stretch=self.config.gate_stretch, noise=noise, ids=ids)

    def _weights_of(self, cell: StackLSTMCell) -> MemoryLSTMWeights:
        """The weights inside the recurrence of the encoder or the decoder."""
        controls = self.controls_of(cell)
        return MemoryLSTMWeights(tuple(cell.recurrent), tuple(cell.bias[1:]), controls.weight, controls.bias)

    @override
    def controllers(self) -> Controllers | None:
        if not self.config.gate_stretch:
            return None  # such gates are never quite open or shut
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

    def _noise(self, ids: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Training noise for the gates' pre-activations, [T, B, 2]: a part for each step and one for each string."""
        gate, string = self.config.gate_noise, self.config.string_noise
        if not gate and not string:
            return None
        steps, batch = ids.shape
        each_step = torch.randn(steps, batch, 2, generator=generator)
        each_string = torch.randn(1, batch, 2, generator=generator)
        return (gate * each_step + string * each_string).to(ids.device)

    def controls_of(self, cell: StackLSTMCell) -> Controls:
        """The projections through which the encoder or the decoder works the stack."""
        if cell is self.decoder and not self.config.shared_controls:
            return self.decoder_controls
        return self.controls

    def stream(self) -> Stream:
        """The model as it stands, run by the compiled kernels on one string of any length; see `Stream`.

        Raises:
            NativeError: The kernels are not there.
        """
        return open_stream(self.config, {name: _bytes(parameter) for name, parameter in self.state_dict().items()})

    @property
    def saturation(self) -> float:
        """How far a gate's pre-activation must be from 0 for the gate to be 0 or 1; see `HasMargins`."""
        stretch = self.config.gate_stretch
        return math.log((1 + stretch) / stretch) if stretch else math.inf

    def gates(self, batch: Batch) -> Gates:
        """The gates' pre-activations under teacher forcing; see `HasMargins`."""
        encoded = self.run(self.encoder, batch.source, batch.steps, self.initial_state(len(batch.steps)))
        state = encoded.state if batch.order is None else self.select(encoded.state, batch.order)
        decoded = self.run(self.decoder, batch.fed, batch.target_steps, state)
        encoder, decoder = (
            out.hidden @ controls.weight[:, :2] + controls.bias[:2]
            for out, controls in (
                (encoded, self.controls_of(self.encoder)),
                (decoded, self.controls_of(self.decoder)),
            )
        )
        return Gates(encoder, decoder, decoded.hidden)

    def record(self, source: Sequence[int], fed: Sequence[int]) -> Record:
        """What happens on the stack over ids of one string; see `CanTrace`."""
        device = self.initial_hidden.device

        def steps(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
            return torch.tensor(ids, device=device)[:, None], torch.tensor([len(ids)], device="cpu")

        encoded = self.run(self.encoder, *steps(source), self.initial_state(1))
        decoded = self.run(self.decoder, *steps(fed), encoded.state)
        push = [*encoded.push[:, 0].tolist(), *decoded.push[:, 0].tolist()]
        pop = [*encoded.pop[:, 0].tolist(), *decoded.pop[:, 0].tolist()]
        return Record(push, pop, decoded.state.memory.values[:, 0], encoded.state)

    def answers(self, reads: Tensor, state: MemoryLSTMState[StackState]) -> list[int]:
        """What the decoder would write first for each of the reads [N, M], if it began in a state; see `CanTrace`."""
        count, width = reads.shape
        h, c = (each.expand(-1, count, -1) for each in (state.hidden, state.cell))
        asked = MemoryLSTMState(h, c, reads, StackState.empty(count, width, like=reads))
        symbols = torch.full((count,), vocabulary.SEPARATOR, device=reads.device)
        said: list[int] = self.step(symbols, asked)[0].argmax(-1).tolist()
        return said

    @override
    def recurrent_weights(self) -> list[nn.Parameter]:
        return [*self.encoder.recurrent, *self.decoder.recurrent]

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        config = self.config
        tuned = config.initialisation == "tuned"
        bound = 1 / math.sqrt(config.hidden_size)
        for cell in (self.encoder, self.decoder):
            for parameter in cell.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
            if tuned:
                cell.symbols.normal_(0, 0.5, generator=generator)
        for controls in {id(each): each for each in map(self.controls_of, (self.encoder, self.decoder))}.values():
            gates, value = controls.weight[:, :2], controls.weight[:, 2:]
            controls.bias.zero_()
            if tuned:
                gates.normal_(0, math.sqrt(2 / (config.hidden_size + 1)), generator=generator)
                value.normal_(0, math.sqrt(2 / (config.hidden_size + config.stack_width)), generator=generator)
                controls.bias[0], controls.bias[1] = config.push_bias, config.pop_bias
            else:
                controls.weight.uniform_(-bound, bound, generator=generator)
        initialise_linear(self.output, generator, xavier=tuned)
        initialise_linear(self.logits, generator, xavier=False)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu", torch.float32).contiguous()
    return ctypes.string_at(flat.data_ptr(), 4 * flat.numel())
