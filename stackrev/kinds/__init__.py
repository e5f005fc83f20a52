"""The kinds of models, without torch: each with a configuration, the shapes of its parameters and its training.

A new kind is a file here with its configuration, a file in `models/` with its module, and a line in this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stackrev.errors import ConfigError
from stackrev.kinds.base import Kind
from stackrev.kinds.deque_lstm import DEQUE_LSTM
from stackrev.kinds.lstm import LSTM
from stackrev.kinds.queue_lstm import QUEUE_LSTM
from stackrev.kinds.rnn import RNN
from stackrev.kinds.stack_lstm import STACK_LSTM

_LISTED = (
    RNN,
    LSTM,
    STACK_LSTM,
    QUEUE_LSTM,
    DEQUE_LSTM,
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _LISTED})
"""Every kind of model by its name."""


def kind_of(name: str) -> Kind:
    """The kind of model that has this name.

    Raises:
        ConfigError: No kind has it.
    """
    if name not in KINDS:
        raise ConfigError(f"there is no model {name!r}", hint=f"the models are {', '.join(KINDS)}")
    return KINDS[name]
