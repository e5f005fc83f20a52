"""What all models have in common: an encoder, a decoder, a read-out, and how they are saved and shared.

An encoder reads `$` and the string, a decoder reads `|` and then, one by one, the symbols it should have written
(teacher forcing) or has written (decoding), and predicts the next. Shapes:
B rows, at most N symbols a source and M a target, H hidden units, K layers, vocabulary V.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from stackrev.errors import CheckpointError
from stackrev.evaluation.scoring import score_held_out
from stackrev.kinds.base import ModelConfig
from stackrev.kinds.config import Config
from stackrev.models.certification import check_stored
from stackrev.models.initial import blank
from stackrev.models.loading import load
from stackrev.readout import ReadOutWeights, pack, read_out
from stackrev.storage import checkpoints
from stackrev.storage.pairs import open_task
from stackrev.structures.bounds import Controllers
from stackrev.tasks.batches import Batch

State = TypeVar("State")


class Reverser(nn.Module, Generic[State]):
    """What the three models have in common; see the module's docstring.

    There is no export to ONNX: the loop over a text has as many rounds as the text has symbols, and the stack grows
    with them, while an exporter records the rounds of one length. `stackrev.load` runs a model without torch.

    Args:
        config: The model's shape and initialisation.
        generator: Where the initial weights come from; torch's global generator if None.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.output = blank(nn.Linear(size, size, device="meta"))
        self.logits = blank(nn.Linear(size, config.vocabulary_size, device="meta"))

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits under teacher forcing, for the steps that strings have and no others.

        Args:
            batch: B strings.
            generator: Where training noise comes from; torch's global generator if None.

        Returns:
            [sum of batch.target_steps, V], in the order of `pack_targets(batch)`.
        """
        return self.read_out(pack(self.hidden(batch, generator=generator), batch.target_steps))

    def hidden(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """The decoder's hidden states under teacher forcing, [M + 1, B, H]; `forward` without the read-out."""
        state = self.encode(batch.source, batch.steps, generator=generator)
        if batch.order is not None:
            state = self.select(state, batch.order)
        return self.decode(batch.fed, batch.target_steps, state, generator=generator)

    def hidden_and_cells(
        self, batch: Batch, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`hidden`, and the cells [layers, B, H] of the encoder and of the decoder after each string's last step.

        Models have it whose configuration says `penalises_cells`.
        """
        raise NotImplementedError

    def encode(self, source: Tensor, steps: Tensor, *, generator: torch.Generator | None = None) -> State:
        """The state after the encoder has read a batch.

        Args:
            source: [N + 1, B] ids, `$` and the string.
            steps: [B], how many of them each row has, longest first.
            generator: As in `forward`.
        """
        raise NotImplementedError

    def decode(self, fed: Tensor, steps: Tensor, state: State, *, generator: torch.Generator | None = None) -> Tensor:
        """The decoder's hidden states [M + 1, B, H] for the ids [M + 1, B] it is fed."""
        raise NotImplementedError

    def select(self, state: State, rows: Tensor) -> State:
        """The state of some rows, in the order in which `rows` [B] names them."""
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

    def symbol_weights(self) -> list[Tensor]:
        """The matrices that have a row for each symbol that is read, [V, ...]."""
        raise NotImplementedError

    def cell_weights(self) -> list[nn.Parameter]:
        """The weights and biases of the recurrent cells, the encoder's and the decoder's."""
        return [each for name, each in self.named_parameters() if name.startswith(("encoder.", "decoder."))]

    def stretch_cells(self, share: float) -> None:
        """Stretch the cells' gates by this share of the configuration's `cell_stretch`, if they can be stretched."""

    def check_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse what is not a `state_dict` of this model, values of its buffers included.

        Raises:
            ValueError: A tensor is missing or not the model's, has another shape or type, or a buffer is out of range.
        """
        own = self.state_dict()
        if wrong := sorted(own.keys() ^ tensors.keys()):
            raise ValueError(f"{wrong[0]} is {'missing' if wrong[0] in own else 'not of this model'}")
        for name, each in own.items():
            given = tensors[name]
            if (given.shape, given.dtype) != (each.shape, each.dtype):
                raise ValueError(f"{name} is {given.dtype} {[*given.shape]}, not {each.dtype} {[*each.shape]}")
        self.config.check_buffers({name: tensors[name].flatten().tolist() for name in self.config.buffers()})

    def controllers(self) -> Controllers | None:
        """What bounds for strings of every length need (see `structures/bounds.py`); None if there are none for it."""
        return None

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
        name = str(name_or_path) if revision is None else f"{name_or_path}@{revision}"
        model = load(name, cache_dir=cache_dir, token=token, offline=local_files_only).model
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
        from stackrev.storage import hub  # which takes a while to import

        def evaluate(folder: Path) -> Mapping[str, Any]:
            check_stored(folder)
            checkpoint = load(folder)  # what is told is measured on the file that is sent
            data = checkpoint.config.data
            return score_held_out(checkpoint.model, data, open_task(data))

        with tempfile.TemporaryDirectory(prefix="stackrev-") as scratch:
            checkpoints.save(Path(scratch), self.state_dict(), config or Config(model=self.config))
            pushed = hub.push(scratch, repo_id, private=private, token=token, message=commit_message, evaluate=evaluate)
        return pushed.url or ""


def pack_targets(batch: Batch) -> Tensor:
    """The ids that `Reverser.forward` should predict, [sum of batch.target_steps]."""
    return pack(batch.target, batch.target_steps)
