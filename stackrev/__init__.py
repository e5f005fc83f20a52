"""The differentiable neural stack, queue and deque, and the string-reversal experiment that goes with them.

The public names are loaded when they are first asked for, so that `import stackrev` costs nothing and what needs no
torch does not import it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, which takes a while to import
if TYPE_CHECKING:
    from typing import Any

    from stackrev.config import LengthRange
    from stackrev.errors import StackrevError
    from stackrev.evaluation.decoding import greedy
    from stackrev.evaluation.scoring import Scores, score
    from stackrev.kinds.base import ModelConfig
    from stackrev.kinds.config import Config
    from stackrev.kinds.deque_lstm import DequeLSTMConfig
    from stackrev.kinds.lstm import LSTMConfig
    from stackrev.kinds.queue_lstm import QueueLSTMConfig
    from stackrev.kinds.rnn import RNNConfig
    from stackrev.kinds.stack_lstm import StackLSTMConfig
    from stackrev.models.base import Reverser
    from stackrev.models.deque_lstm import DequeLSTMReverser
    from stackrev.models.lstm import LSTMReverser
    from stackrev.models.queue_lstm import QueueLSTMReverser
    from stackrev.models.rnn import RNNReverser
    from stackrev.models.stack_lstm import StackLSTMReverser
    from stackrev.models.texts import TextModel, load, reverse
    from stackrev.structures.deque import DequeState, NeuralDeque, deque_step, neural_deque, neural_deque_torch
    from stackrev.structures.queue import NeuralQueue, QueueState, neural_queue, neural_queue_torch, queue_step
    from stackrev.structures.stack import NeuralStack, StackState, neural_stack, neural_stack_torch, stack_step
    from stackrev.tasks.data import DataConfig
    from stackrev.training.trainer import Trainer, train
    from stackrev.training_config import TrainingConfig

__version__ = "0.1.0"

__all__ = [
    "Config",
    "DataConfig",
    "DequeLSTMConfig",
    "DequeLSTMReverser",
    "DequeState",
    "LSTMConfig",
    "LSTMReverser",
    "LengthRange",
    "ModelConfig",
    "NeuralDeque",
    "NeuralQueue",
    "NeuralStack",
    "QueueLSTMConfig",
    "QueueLSTMReverser",
    "QueueState",
    "RNNConfig",
    "RNNReverser",
    "Reverser",
    "Scores",
    "StackLSTMConfig",
    "StackLSTMReverser",
    "StackState",
    "StackrevError",
    "TextModel",
    "Trainer",
    "TrainingConfig",
    "__version__",
    "deque_step",
    "greedy",
    "load",
    "neural_deque",
    "neural_deque_torch",
    "neural_queue",
    "neural_queue_torch",
    "neural_stack",
    "neural_stack_torch",
    "queue_step",
    "reverse",
    "score",
    "stack_step",
    "train",
]

_ROOMS = {
    "config": ("LengthRange",),
    "training_config": ("TrainingConfig",),
    "errors": ("StackrevError",),
    "evaluation.decoding": ("greedy",),
    "evaluation.scoring": ("Scores", "score"),
    "kinds.base": ("ModelConfig",),
    "kinds.config": ("Config",),
    "kinds.lstm": ("LSTMConfig",),
    "kinds.queue_lstm": ("QueueLSTMConfig",),
    "kinds.deque_lstm": ("DequeLSTMConfig",),
    "kinds.rnn": ("RNNConfig",),
    "kinds.stack_lstm": ("StackLSTMConfig",),
    "models.base": ("Reverser",),
    "models.lstm": ("LSTMReverser",),
    "models.queue_lstm": ("QueueLSTMReverser",),
    "models.deque_lstm": ("DequeLSTMReverser",),
    "models.rnn": ("RNNReverser",),
    "models.stack_lstm": ("StackLSTMReverser",),
    "models.texts": ("TextModel", "load", "reverse"),
    "structures.deque": ("DequeState", "NeuralDeque", "deque_step", "neural_deque", "neural_deque_torch"),
    "structures.queue": ("NeuralQueue", "QueueState", "neural_queue", "neural_queue_torch", "queue_step"),
    "structures.stack": ("NeuralStack", "StackState", "neural_stack", "neural_stack_torch", "stack_step"),
    "tasks.data": ("DataConfig",),
    "training.trainer": ("Trainer", "train"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
