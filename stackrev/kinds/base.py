"""What a kind of model is, without its module: a configuration of its own, and a line in the table of kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from stackrev.config import Between, Initialisation, Settings, setting
from stackrev.tasks import REVERSAL, vocabulary
from stackrev.training_config import TrainingConfig

if TYPE_CHECKING:
    from stackrev.kernels.cpu.stream import Stream

WIDTHS = (16, 32, 64, 128, 256)
"""The widths that a search tries."""

Shapes = dict[str, tuple[int, ...]]
"""The shape of each tensor, by its name in the model's `state_dict`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """The shape of a model and how its weights start: what every kind has.

    Each kind derives a configuration with settings of its own. `initialisation` "torch" draws every weight as torch's
    own layers do, and "tuned" as the kind learns best. `vocabulary_size` is V, which follows from the task.
    """

    kind: str = setting("", "The kind of model to train.", option=False)
    hidden_size: int = setting(64, "Hidden units of a layer.", low=1, high=4096, search=WIDTHS)
    layers: int = setting(1, "Layers of the encoder and of the decoder.", low=1, high=16, search=Between(1, 4))
    initialisation: Initialisation = setting("tuned", "How weights start.")
    vocabulary_size: int = setting(
        vocabulary.SIZE, "How many ids the model reads and writes.", low=1, high=1_000_000, option=False
    )

    @property
    def input_width(self) -> int:
        """How many numbers a step reads beside the symbol's own: of an embedding, or of a memory."""
        raise NotImplementedError

    @property
    def stretches_cells(self) -> bool:
        """Whether its LSTMs' own gates are stretched, or will be in training; proofs and pages are about others."""
        return False

    @property
    def penalises_cells(self) -> bool:
        """Whether training can add a penalty on its cells to the loss; see `Reverser.hidden_and_cells`."""
        return False

    def shapes(self) -> Shapes:
        """The shape of every tensor of the model's `state_dict`, without making it."""
        raise NotImplementedError

    @property
    def weights(self) -> int:
        """How many numbers are learned."""
        return sum(math.prod(shape) for name, shape in self.shapes().items() if name not in self.buffers())

    def buffers(self) -> Mapping[str, tuple[float, float]]:
        """The tensors of the `state_dict` that are not learned: the least and the greatest value that each may have."""
        return {}

    def check_buffers(self, values: Mapping[str, Iterable[float]]) -> None:
        """Refuse a value that a buffer may not have.

        Args:
            values: All values of each buffer, by its name.

        Raises:
            ValueError: One is out of its range, or not a number.
        """
        for name, (low, high) in self.buffers().items():
            if not all(low <= value <= high for value in values[name]):
                raise ValueError(f"{name} is not between {low:g} and {high:g}")

    def _shared_shapes(self) -> Shapes:
        """The parameters that every kind has: the trained initial state and the read-out."""
        size, symbols = self.hidden_size, self.vocabulary_size
        return {
            "initial_hidden": (self.layers, 1, size),
            "output.weight": (size, size),
            "output.bias": (size,),
            "logits.weight": (symbols, size),
            "logits.bias": (symbols,),
        }


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(ModelConfig):
    """What the RNN and the LSTM have in common: symbols are embedded in `embedding_width` numbers."""

    embedding_width: int = setting(64, "Width of the symbols' embedding.", low=1, high=4096, search=WIDTHS)

    @property
    @override
    def input_width(self) -> int:
        return self.embedding_width

    def _network_shapes(self, rows: int) -> Shapes:
        """The embedding and torch's recurrent layers, whose matrices have so many rows."""
        size, width = self.hidden_size, self.embedding_width
        table: Shapes = {"embedding.weight": (self.vocabulary_size, width)}
        for cell in ("encoder", "decoder"):
            for layer in range(self.layers):
                table[f"{cell}.weight_ih_l{layer}"] = (rows, width if layer == 0 else size)
                table[f"{cell}.weight_hh_l{layer}"] = (rows, size)
                table[f"{cell}.bias_ih_l{layer}"] = (rows,)
                table[f"{cell}.bias_hh_l{layer}"] = (rows,)
        return table


class OpenStream(Protocol):
    """Opens a stream: a model that reads and writes one string of any length in the compiled kernels, without torch."""

    def __call__(self, config: Any, weights: Mapping[str, Any]) -> Stream:
        """Open it.

        Args:
            config: The model's configuration.
            weights: Its parameters by name, as float32 with the buffer protocol.

        Raises:
            NativeError: The kernels are not there.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of model, and where to find its parts. The table of all kinds is `stackrev.kinds.KINDS`.

    Attributes:
        model: Its tuned shape; other shapes are of the same class.
        training: Its tuned training.
        module: Where its module is, as "package.module:Class"; imported when a model is built.
        label: What figures and tables call it.
        colour: Its place in the figures' row of colours.
        summary: What it is, in one sentence, for the model card.
        open_stream: How to run its weights without torch; None if it cannot.
        network: Where its weights are read for a proof, as "package.module:function"; None if no proof is about it.
        task: The task that it learns by default.
        tasks: The settings whose defaults differ for a task, by the task's name.
        page_sizes: From a configuration to the sizes that `page/network.js` runs it with; None if that cannot run it.
    """

    model: ModelConfig
    training: TrainingConfig
    module: str
    label: str
    colour: int
    summary: str
    open_stream: OpenStream | None = None
    network: str | None = None
    task: str = REVERSAL.name
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    page_sizes: Callable[[Any], Mapping[str, float]] | None = None

    @property
    def name(self) -> str:
        """What it is called in configurations and on the command line."""
        return self.model.kind

    @property
    def configuration(self) -> type[ModelConfig]:
        """The class of its configurations."""
        return type(self.model)
