"""Three sequence-to-sequence models that learn to reverse strings, behind one interface.

An encoder reads `$` and the string, a decoder reads `|` and then, one by one, the symbols it should have written
(teacher forcing) or has written (decoding), and predicts the next. Shapes: B rows, at most N symbols a string, H hidden
units, K layers, stack width M, vocabulary V.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from typing_extensions import override

from stackrev.config import Config, ModelConfig
from stackrev.errors import CheckpointError
from stackrev.kernels.cpu.stream import Stream
from stackrev.readout import ReadOutWeights, pack, read_out
from stackrev.structures.recurrence import StackLSTMOutput, StackLSTMState, StackLSTMWeights, stack_lstm
from stackrev.structures.stack import StackState
from stackrev.tasks import vocabulary
from stackrev.tasks.batches import Batch

State = TypeVar("State")
Module = TypeVar("Module", bound=nn.Module)


class Reverser(nn.Module, Generic[State]):
    """What the three models have in common; see the module's docstring.

    Args:
        config: The model's shape and initialisation.
        generator: Where the initial weights come from; torch's global generator if None.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.output = _blank(nn.Linear(size, size, device="meta"))
        self.logits = _blank(nn.Linear(size, vocabulary.SIZE, device="meta"))

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits under teacher forcing, for the steps that strings have and no others.

        Args:
            batch: B strings.
            generator: Where training noise comes from; torch's global generator if None.

        Returns:
            [sum of batch.steps, V], in the order of `pack_targets(batch)`.
        """
        return self.read_out(pack(self.hidden(batch, generator=generator), batch.steps))

    def hidden(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """The decoder's hidden states under teacher forcing, [N + 1, B, H]; `forward` without the read-out."""
        state = self.encode(batch.source, batch.steps, generator=generator)
        return self.decode(batch.fed, batch.steps, state, generator=generator)

    def encode(self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None) -> State:
        """The state after the encoder has read a batch.

        Args:
            source: [N + 1, B] ids, `$` and the string.
            steps: [B], how many of them each row has, longest first.
            generator: As in `forward`.
        """
        raise NotImplementedError

    def decode(self, fed: Tensor, steps: Tensor, state: State, *, generator: torch.Generator | None = None) -> Tensor:
        """The decoder's hidden states [N + 1, B, H] for the ids [N + 1, B] it is fed."""
        raise NotImplementedError

    def step(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the decoder.

        Args:
            symbols: [B] ids, `|` first and then what was written last.
            state: The state before.

        Returns:
            Logits [B, V] and the state after.
        """
        raise NotImplementedError

    def read_out(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., H]: o = tanh(W_o h + b_o), then a linear layer."""
        return read_out(hidden, self.read_out_weights)

    @property
    def read_out_weights(self) -> ReadOutWeights:
        """What `readout.py` needs of the model."""
        return ReadOutWeights(self.output.weight, self.output.bias, self.logits.weight, self.logits.bias)

    def recurrent_weights(self) -> list[nn.Parameter]:
        """The matrices that carry state from step to step."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """A packaged model, one in a folder, or one of the Hugging Face Hub, in evaluation mode; see `hub.resolve`.

        Raises:
            CheckpointError: There is no such model, it is damaged, or it is of another class.
            HubError: The Hub refused, failed or could not be reached.
        """
        from stackrev.storage import checkpoints, hub

        name = str(name_or_path) if revision is None else f"{name_or_path}@{revision}"
        folder = hub.resolve(name, cache_dir=cache_dir, token=token, offline=local_files_only)
        model = checkpoints.load(folder, name=name).model
        if not isinstance(model, cls):
            raise CheckpointError(f"{name_or_path} holds a {type(model).__name__}, not a {cls.__name__}")
        return model

    def save_pretrained(self, folder: str | Path, *, config: Config | None = None) -> None:
        """Save the model as a checkpoint; see `checkpoints.save`.

        Args:
            folder: Where.
            config: The run that made the model; its own shape and default training if None.

        Raises:
            CheckpointError: It cannot be saved.
        """
        from stackrev.storage import checkpoints

        config = config or Config(model=self.config)
        if config.model != self.config:
            raise CheckpointError("the model and the configuration to be saved with it differ")
        checkpoints.save(Path(folder), self.state_dict(), config)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: Config | None = None,
        private: bool = False,
        token: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Share the model on the Hugging Face Hub, with a card that tells what it scores; see `hub.push`.

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: It cannot be saved.
            HubError: The Hub refused, failed or could not be reached.
        """
        from stackrev.evaluation.scoring import score_held_out
        from stackrev.storage import checkpoints, hub

        def evaluate(folder: Path) -> Mapping[str, Any]:
            checkpoint = checkpoints.load(folder)  # what is told is measured on the file that is sent
            return score_held_out(checkpoint.model, checkpoint.config.data)

        with tempfile.TemporaryDirectory(prefix="stackrev-") as scratch:
            checkpoints.save(Path(scratch), self.state_dict(), config or Config(model=self.config))
            pushed = hub.push(scratch, repo_id, private=private, token=token, message=commit_message, evaluate=evaluate)
        return pushed.url or ""


def pack_targets(batch: Batch) -> Tensor:
    """The ids that `Reverser.forward` should predict, [sum of batch.steps]."""
    return pack(batch.target, batch.steps)


class RNNReverser(Reverser[Tensor]):
    """Encoder and decoder are Elman networks with tanh units over learned embeddings. The state is h, [K, B, H]."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        shape = (config.stack_width, config.hidden_size, config.layers)
        self.embedding = _blank(nn.Embedding(vocabulary.SIZE, config.stack_width, device="meta"))
        self.encoder = _blank(nn.RNN(*shape, device="meta"))
        self.decoder = _blank(nn.RNN(*shape, device="meta"))
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        _initialise_baseline(self, generator)

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
    def step(self, symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.decoder(self.embedding(symbols)[None], state)
        return self.read_out(hidden[0]), state

    @override
    def recurrent_weights(self) -> list[nn.Parameter]:
        return _recurrent(self.encoder) + _recurrent(self.decoder)


class LSTMReverser(Reverser[tuple[Tensor, Tensor]]):
    """Encoder and decoder are LSTMs over learned embeddings. The state is h and c, [K, B, H] each."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        shape = (config.stack_width, config.hidden_size, config.layers)
        self.embedding = _blank(nn.Embedding(vocabulary.SIZE, config.stack_width, device="meta"))
        self.encoder = _blank(nn.LSTM(*shape, device="meta"))
        self.decoder = _blank(nn.LSTM(*shape, device="meta"))
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self.initial_cell = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        _initialise_baseline(self, generator)

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
    def step(self, symbols: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, state = self.decoder(self.embedding(symbols)[None], state)
        return self.read_out(hidden[0]), state

    @override
    def recurrent_weights(self) -> list[nn.Parameter]:
        return _recurrent(self.encoder) + _recurrent(self.decoder)


class Controls(nn.Module):
    """From a hidden state to the stack's controls: the columns of [H, 2 + M] are push, pop, value (section 3.4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size, 2 + config.stack_width))
        self.bias = nn.Parameter(torch.empty(2 + config.stack_width))


class StackLSTMCell(nn.Module):
    """The LSTM of an encoder or a decoder: what its symbols contribute, and what it carries from step to step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, layers = config.hidden_size, config.layers
        self.symbols = nn.Parameter(torch.empty(vocabulary.SIZE, 4 * size))
        inputs = [config.stack_width] + [size] * (layers - 1)
        self.recurrent = nn.ParameterList([torch.empty(each + size, 4 * size) for each in inputs])
        self.bias = nn.ParameterList([torch.empty(4 * size) for _ in range(layers)])

    def contributions(self) -> Tensor:
        """What each symbol adds to the first layer's pre-activations: W_x x + b, [V, 4H]."""
        total: Tensor = self.symbols + self.bias[0]
        return total


class StackLSTMReverser(Reverser[StackLSTMState]):
    """An LSTM encoder and an LSTM decoder that hand over a neural stack (paper section 3.4, Figure 1c)."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.encoder = StackLSTMCell(config)
        self.decoder = StackLSTMCell(config)
        self.controls = Controls(config)
        if not config.shared_controls:
            self.decoder_controls = Controls(config)
        self.initial_hidden = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self.initial_cell = nn.Parameter(torch.zeros(config.layers, 1, config.hidden_size))
        self._initialise(generator)

    def initial_state(self, batch: int) -> StackLSTMState:
        """The trained h_0 and c_0 for `batch` rows, with an empty read and an empty stack."""
        h, c = (each.expand(-1, batch, -1) for each in (self.initial_hidden, self.initial_cell))
        width = self.config.stack_width
        return StackLSTMState(h, c, h.new_zeros(batch, width), StackState.empty(batch, width, like=h))

    @override
    def encode(self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None) -> StackLSTMState:
        return self.run(self.encoder, source, steps, self.initial_state(source.shape[1]), generator).state

    @override
    def decode(
        self, fed: Tensor, steps: Tensor, state: StackLSTMState, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.run(self.decoder, fed, steps, state, generator).hidden

    @override
    def step(self, symbols: Tensor, state: StackLSTMState) -> tuple[Tensor, StackLSTMState]:
        out = self.run(self.decoder, symbols[None], torch.ones_like(symbols, device="cpu"), state)
        return self.read_out(out.hidden[0]), out.state

    def run(
        self,
        cell: StackLSTMCell,
        ids: Tensor,
        steps: Tensor,
        state: StackLSTMState,
        generator: torch.Generator | None = None,
    ) -> StackLSTMOutput:
        """Run the encoder or the decoder over ids [T, B]; see `stack_lstm`. In training, the gates are noisy."""
        noise = self._noise(ids, generator) if self.training else None
        controls = self.controls_of(cell)
        weights = StackLSTMWeights(tuple(cell.recurrent), tuple(cell.bias[1:]), controls.weight, controls.bias)
        stretch = self.config.gate_stretch
        return stack_lstm(cell.contributions(), steps, state, weights, stretch=stretch, noise=noise, ids=ids)

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
        config = self.config
        weights = {name: _bytes(parameter) for name, parameter in self.state_dict().items()}
        return Stream(
            weights,
            hidden=config.hidden_size,
            width=config.stack_width,
            layers=config.layers,
            stretch=config.gate_stretch,
        )

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
        _initialise_linear(self.output, generator, xavier=tuned)
        _initialise_linear(self.logits, generator, xavier=False)


def build(config: ModelConfig, generator: torch.Generator | None = None) -> Reverser[Any]:
    """The model that a configuration describes, with initial weights drawn from `generator`."""
    kinds: dict[str, type[Reverser[Any]]] = {
        "rnn": RNNReverser,
        "lstm": LSTMReverser,
        "stack-lstm": StackLSTMReverser,
    }
    return kinds[config.kind](config, generator)


def _blank(module: Module) -> Module:
    """A module from the meta device, with memory but no values: made so that no global generator is drawn from.

    `to_empty` does the same, and imports torch's symbolic shapes for it.
    """
    for each in module.modules():
        for name, parameter in list(each.named_parameters(recurse=False)):
            setattr(each, name, nn.Parameter(torch.empty(parameter.shape)))
    return module


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu", torch.float32).contiguous()
    return ctypes.string_at(flat.data_ptr(), 4 * flat.numel())


def _recurrent(module: nn.RNNBase) -> list[nn.Parameter]:
    return [getattr(module, f"weight_hh_l{layer}") for layer in range(module.num_layers)]


@torch.no_grad()
def _initialise_linear(layer: nn.Linear, generator: torch.Generator | None, *, xavier: bool) -> None:
    if xavier:
        nn.init.xavier_normal_(layer.weight, generator=generator)
        layer.bias.zero_()
    else:
        bound = 1 / math.sqrt(layer.in_features)
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def _initialise_baseline(model: RNNReverser | LSTMReverser, generator: torch.Generator | None) -> None:
    """Torch's own initial values, or "tuned" ones.

    Tuned, recurrent matrices are orthogonal and an LSTM's forget gates are biased open. An Elman network's symbols come
    in small, so that its units start out nearly linear, and the decoder's recurrent matrices are the transposes of the
    encoder's: what the one has rotated away the other rotates back.
    """
    config = model.config
    bound = 1 / math.sqrt(config.hidden_size)
    tuned = config.initialisation == "tuned"
    linear = tuned and isinstance(model, RNNReverser)
    model.embedding.weight.normal_(0, 0.1 if linear else 1, generator=generator)
    for network in (model.encoder, model.decoder):
        for parameter in network.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
        if tuned:
            for matrix in _recurrent(network):
                for gate in torch.split(matrix, config.hidden_size):
                    nn.init.orthogonal_(gate, generator=generator)
            if isinstance(network, nn.LSTM):
                for layer in range(config.layers):
                    getattr(network, f"bias_ih_l{layer}")[config.hidden_size : 2 * config.hidden_size] = 1.0
    if linear:
        for encoding, decoding in zip(_recurrent(model.encoder), _recurrent(model.decoder), strict=True):
            decoding.copy_(encoding.T)
        for layer in range(config.layers):
            for network in (model.encoder, model.decoder):
                for name in (f"bias_ih_l{layer}", f"bias_hh_l{layer}"):
                    getattr(network, name).zero_()
    _initialise_linear(model.output, generator, xavier=tuned)
    _initialise_linear(model.logits, generator, xavier=False)
