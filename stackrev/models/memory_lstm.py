"""An LSTM with a stack, a queue or a deque as encoder and decoder (paper section 3.4, Figure 1c).

Shapes: B rows, T steps, H hidden units, K layers, a memory of width M with E ends (a deque has 2), vocabulary V.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from stackrev.evaluation.capabilities import Gates, Record
from stackrev.kernels.cpu.stream import Stream
from stackrev.kinds.memory_lstm import MemoryLSTMConfig, open_stream
from stackrev.models.base import Reverser
from stackrev.models.initial import initialise_linear
from stackrev.structures.recurrence import MemoryLSTMOutput, MemoryLSTMState, MemoryLSTMWeights, memory_lstm
from stackrev.structures.table import MemoryState, Structure, without_gone
from stackrev.tasks import vocabulary
from stackrev.tasks.batches import Batch

S = TypeVar("S", bound=MemoryState)
_DROP_EVERY = 256  # elements after which a step drops those that have been popped
_CLOCK_WEIGHT = 60.0  # of the push gate on the unit that `push_delay` makes a clock


class Controls(nn.Module):
    """From a hidden state to the memory's controls, [H, 2E + E M] (section 3.4).

    The columns are push and pop of each end, then the value of each end.
    """

    def __init__(self, config: MemoryLSTMConfig) -> None:
        super().__init__()
        columns = 2 * config.ends + config.input_width
        self.weight = nn.Parameter(torch.empty(config.hidden_size, columns))
        self.bias = nn.Parameter(torch.empty(columns))


class MemoryLSTMCell(nn.Module):
    """The LSTM of an encoder or a decoder: what its symbols contribute, and what it carries from step to step."""

    def __init__(self, config: MemoryLSTMConfig) -> None:
        super().__init__()
        size, layers = config.hidden_size, config.layers
        self.symbols = nn.Parameter(torch.empty(config.vocabulary_size, 4 * size))
        inputs = [config.input_width] + [size] * (layers - 1)
        self.recurrent = nn.ParameterList([torch.empty(each + size, 4 * size) for each in inputs])
        self.bias = nn.ParameterList([torch.empty(4 * size) for _ in range(layers)])

    def contributions(self) -> Tensor:
        """What each symbol adds to the first layer's pre-activations: W_x x + b, [V, 4H]."""
        total: Tensor = self.symbols + self.bias[0]
        return total


class MemoryLSTMReverser(Reverser[MemoryLSTMState[S]], Generic[S]):
    """An LSTM encoder and an LSTM decoder that hand over a memory; each kind of memory is a class of its own.

    Attributes:
        structure: The memory, which the class sets.
        cell_stretch: How far the LSTMs' own gates are stretched now, [1]; None if they never are.
    """

    structure: ClassVar[Structure]
    config: MemoryLSTMConfig

    def __init__(self, config: MemoryLSTMConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.encoder = MemoryLSTMCell(config)
        self.decoder = MemoryLSTMCell(config)
        self.controls = Controls(config)
        if not config.shared_controls:
            self.decoder_controls = Controls(config)
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self.initial_cell = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self.cell_stretch: Tensor | None
        self.register_buffer("cell_stretch", torch.full((1,), config.cell_stretch) if config.stretches_cells else None)
        self._initialise(generator)

    def initial_state(self, batch: int) -> MemoryLSTMState[S]:
        """The trained h_0 and c_0 for `batch` rows, with an empty read and an empty memory."""
        h, c = (each.expand(-1, batch, -1) for each in (self.initial_hidden, self.initial_cell))
        return MemoryLSTMState(h, c, h.new_zeros(batch, self.config.input_width), self._empty(batch, h))

    def _empty(self, batch: int, like: Tensor) -> S:
        memory: S = self.structure.state.empty(batch, self.config.stack_width, like=like)  # type: ignore[assignment]
        return memory

    @override
    def encode(self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None) -> MemoryLSTMState[S]:
        return self.run(self.encoder, source, steps, self.initial_state(source.shape[1]), generator).state

    @override
    def decode(
        self, fed: Tensor, steps: Tensor, state: MemoryLSTMState[S], *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.run(self.decoder, fed, steps, state, generator).hidden

    @override
    def hidden(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        return self._run_both(batch, generator)[1].hidden

    @override
    def hidden_and_cells(
        self, batch: Batch, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        encoded, decoded = self._run_both(batch, generator)
        return decoded.hidden, (encoded.state.cell, decoded.state.cell)

    def _run_both(
        self, batch: Batch, generator: torch.Generator | None = None
    ) -> tuple[MemoryLSTMOutput[S], MemoryLSTMOutput[S]]:
        """Run the encoder, and from there the decoder under teacher forcing."""
        encoded = self.run(self.encoder, batch.source, batch.steps, self.initial_state(len(batch.steps)), generator)
        state = encoded.state if batch.order is None else self.select(encoded.state, batch.order)
        return encoded, self.run(self.decoder, batch.fed, batch.target_steps, state, generator)

    @override
    def select(self, state: MemoryLSTMState[S], rows: Tensor) -> MemoryLSTMState[S]:
        values, bottoms, tops, *ends = state.memory
        chosen = values[:, rows], bottoms[:, rows], tops[:, rows], *(each[rows] for each in ends)
        memory = type(state.memory)(*chosen)
        return MemoryLSTMState(state.hidden[:, rows], state.cell[:, rows], state.read[rows], memory)

    @override
    def step(self, symbols: Tensor, state: MemoryLSTMState[S]) -> tuple[Tensor, MemoryLSTMState[S]]:
        out = self.run(self.decoder, symbols[None], torch.ones_like(symbols, device="cpu"), state)
        state = out.state
        if self.structure.advance is not None and state.memory.bottoms.shape[0] % _DROP_EVERY < self.config.ends:
            state = state._replace(memory=without_gone(state.memory))
        return self.read_out(out.hidden[0]), state

    def run(
        self,
        cell: MemoryLSTMCell,
        ids: Tensor,
        steps: Tensor,
        state: MemoryLSTMState[S],
        generator: torch.Generator | None = None,
    ) -> MemoryLSTMOutput[S]:
        """Run the encoder or the decoder over ids [T, B]; see `memory_lstm`. In training, the gates are noisy."""
        noise = self._noise(ids, generator) if self.training else None
        inputs, weights = cell.contributions(), self._weights_of(cell)
        cell_stretch = 0.0 if self.cell_stretch is None else float(self.cell_stretch)
        stretches = {"stretch": self.config.gate_stretch, "cell_stretch": cell_stretch}
        return memory_lstm(inputs, steps, state, weights, **stretches, noise=noise, ids=ids)

    def _weights_of(self, cell: MemoryLSTMCell) -> MemoryLSTMWeights:
        """The weights inside the recurrence of the encoder or the decoder."""
        controls = self.controls_of(cell)
        return MemoryLSTMWeights(tuple(cell.recurrent), tuple(cell.bias[1:]), controls.weight, controls.bias)

    def _noise(self, ids: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Training noise for the gates' pre-activations, [T, B, 2E]: a part for each step and one for each string."""
        gate, string, gates = self.config.gate_noise, self.config.string_noise, 2 * self.config.ends
        if not gate and not string:
            return None
        steps, batch = ids.shape
        each_step = torch.randn(steps, batch, gates, generator=generator)
        each_string = torch.randn(1, batch, gates, generator=generator)
        return (gate * each_step + string * each_string).to(ids.device)

    def controls_of(self, cell: MemoryLSTMCell) -> Controls:
        """The projections through which the encoder or the decoder works the memory."""
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
        encoded, decoded = self._run_both(batch)
        count = 2 * self.config.ends
        encoder, decoder = (
            out.hidden @ controls.weight[:, :count] + controls.bias[:count]
            for out, controls in (
                (encoded, self.controls_of(self.encoder)),
                (decoded, self.controls_of(self.decoder)),
            )
        )
        return Gates(encoder, decoder, decoded.hidden)

    def record(self, source: Sequence[int], fed: Sequence[int]) -> Record:
        """What happens in the memory over ids of one string; see `CanTrace`."""
        device = self.initial_hidden.device

        def steps(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
            return torch.tensor(ids, device=device)[:, None], torch.tensor([len(ids)], device="cpu")

        encoded = self.run(self.encoder, *steps(source), self.initial_state(1))
        decoded = self.run(self.decoder, *steps(fed), encoded.state)
        push, pop = (torch.cat(pair)[:, 0] for pair in ((encoded.push, decoded.push), (encoded.pop, decoded.pop)))
        (top_push, *bottom_push), (top_pop, *bottom_pop) = (
            each.view(len(each), self.config.ends).T.tolist() for each in (push, pop)
        )
        return Record(
            *(top_push, top_pop, decoded.state.memory.values[:, 0], encoded.state, self.structure.name),
            *(*bottom_push, *bottom_pop),
        )

    def answers(self, reads: Tensor, state: MemoryLSTMState[S]) -> list[int]:
        """What the decoder would write first for each of the reads [N, E M], if it began in a state; see `CanTrace`."""
        count = reads.shape[0]
        h, c = (each.expand(-1, count, -1) for each in (state.hidden, state.cell))
        asked = MemoryLSTMState(h, c, reads, self._empty(count, reads))
        symbols = torch.full((count,), vocabulary.SEPARATOR, device=reads.device)
        said: list[int] = self.step(symbols, asked)[0].argmax(-1).tolist()
        return said

    @override
    @torch.no_grad()
    def stretch_cells(self, share: float) -> None:
        if self.cell_stretch is not None:
            self.cell_stretch.fill_(share * self.config.cell_stretch)

    @override
    def recurrent_weights(self) -> list[nn.Parameter]:
        return [*self.encoder.recurrent, *self.decoder.recurrent]

    @override
    def symbol_weights(self) -> list[Tensor]:
        return [self.encoder.symbols, self.decoder.symbols]

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        config, count, size = self.config, 2 * self.config.ends, self.config.hidden_size
        tuned = config.initialisation == "tuned"
        bound = 1 / math.sqrt(size)
        for cell in (self.encoder, self.decoder):
            for parameter in cell.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
            if tuned:
                cell.symbols.normal_(0, 0.5, generator=generator)
        biases = {self.controls_of(self.decoder): config.decoder_biases} | {
            self.controls_of(self.encoder): config.encoder_biases
        }
        for controls in dict.fromkeys(map(self.controls_of, (self.encoder, self.decoder))):
            gates, value = controls.weight[:, :count], controls.weight[:, count:]
            controls.bias.zero_()
            if tuned:
                gates.normal_(0, math.sqrt(2 / (size + 1)), generator=generator)
                value.normal_(0, math.sqrt(2 / (size + config.stack_width)), generator=generator)
                for place, bias in enumerate(biases[controls]):
                    controls.bias[place] = bias
            else:
                controls.weight.uniform_(-bound, bound, generator=generator)
        if tuned and config.forget_bias:
            for cell in (self.encoder, self.decoder):
                for bias in cell.bias:
                    bias[size : 2 * size] += config.forget_bias
        if tuned and config.push_delay and size > 1:  # one unit alone would see nothing else
            self._delay_pushes(config.push_delay)
        initialise_linear(self.output, generator, xavier=tuned)
        initialise_linear(self.logits, generator, xavier=False)

    @torch.no_grad()
    def _delay_pushes(self, steps: int) -> None:
        """Make a unit of the encoder a clock, and let it alone keep the push gate at the top shut for so many steps.

        The unit's input is 0 and its forget gate 1/4, so that its cell shrinks to a quarter with every step. It begins
        so that the push gate's pre-activation is `_CLOCK_WEIGHT / 8` lower than its bias in the last of the steps, and
        a fourth of that in the next.
        """
        size, encoder = self.config.hidden_size, self.encoder
        for gate in range(4):
            column = gate * size
            if self.config.layers == 1:
                encoder.symbols[:, column] = 0
            encoder.recurrent[-1][:, column] = 0
            encoder.bias[-1][column] = 0
        encoder.bias[-1][size] = -math.log(3)
        self.initial_cell[-1, 0, 0] = -(4.0 ** (steps - 1))
        self.controls.weight[:, 0] = 0
        self.controls.weight[0, 0] = _CLOCK_WEIGHT


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu", torch.float32).contiguous()
    return ctypes.string_at(flat.data_ptr(), 4 * flat.numel())
