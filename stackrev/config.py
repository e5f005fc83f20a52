"""Frozen configurations of data, model and training, read strictly: an unknown key is an error.

Imports no torch, so that the command line can show its defaults without it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from stackrev.errors import ConfigError

ModelKind = Literal["rnn", "lstm", "stack-lstm"]
Initialisation = Literal["tuned", "torch"]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
Schedule = Literal["constant", "cosine", "linear", "step"]
Device = Literal["auto", "cpu", "cuda", "mps"]

KINDS: tuple[ModelKind, ...] = typing.get_args(ModelKind)

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class LengthRange:
    """An inclusive range of string lengths, in symbols; written `65-128`, or `64` for one length."""

    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise ConfigError(
                f"lengths {self.minimum}-{self.maximum} are not a range",
                hint="give the shorter length first, as in 65-128",
            )
        _require(self.maximum <= 10**9, "lengths must be at most 1,000,000,000")

    @classmethod
    def parse(cls, text: str) -> LengthRange:
        """Read `MIN-MAX` or `N`.

        Raises:
            ConfigError: The text is neither.
        """
        first, dash, last = text.strip().partition("-")
        try:
            low = int(first)
            high = int(last) if dash else low
        except ValueError:
            raise ConfigError(
                f"{text!r} is not a range of lengths", hint="write 65-128, or 64 for one length"
            ) from None
        return cls(minimum=low, maximum=high)

    def __str__(self) -> str:
        return str(self.minimum) if self.minimum == self.maximum else f"{self.minimum}-{self.maximum}"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which strings a model learns from and is tested on.

    Training draws from `lengths` for ever; the held-out sets are `held_out_samples` strings each, fixed by
    `held_out_seed`, and are never drawn in training.
    """

    lengths: LengthRange = field(default_factory=lambda: LengthRange(minimum=8, maximum=64))
    test_lengths: LengthRange = field(default_factory=lambda: LengthRange(minimum=65, maximum=128))
    held_out_samples: int = 1000
    held_out_seed: int = 0

    def __post_init__(self) -> None:
        _require(self.lengths.maximum >= 1, "lengths must reach at least 1")
        _require(1 <= self.held_out_samples <= 1_000_000, "held_out_samples must be between 1 and 1,000,000")
        _require(0 <= self.held_out_seed < 2**63, "held_out_seed must be between 0 and 2**63 - 1")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model and how its weights start.

    `stack_width` is M, and in the RNN and the LSTM the width of the symbols' embedding; what is below it concerns the
    stack-LSTM alone. `gate_stretch` is e of
    `clamp((1 + 2e) sigmoid(x) - e, 0, 1)` (0 is the paper's sigmoid); `gate_noise` is the standard deviation of the
    noise added to the gates' pre-activations in training; `shared_controls` makes encoder and decoder work the stack
    through the same projections, as if they were one network: then an encoder that learns to push teaches the decoder
    to, which reads only what it has just pushed, and about one run in ten never learns; `initialisation` "torch" draws
    every weight as torch's own layers do.

    `string_noise` is the standard deviation of noise on the gates in training that stays the same for all steps of a
    string, drawn apart for encoder and decoder. It makes every batch try different ways of working the stack: a decoder
    that pushes little and pops much, for some strings, long before the average decoder does, and is rewarded for it.
    """

    kind: ModelKind = "stack-lstm"
    hidden_size: int = 64
    layers: int = 1
    initialisation: Initialisation = "tuned"
    stack_width: int = 64
    gate_stretch: float = 0.05
    gate_noise: float = 1.0
    string_noise: float = 2.0
    shared_controls: bool = False
    push_bias: float = 1.5
    pop_bias: float = -1.5

    def __post_init__(self) -> None:
        _require(1 <= self.hidden_size <= 4096, "hidden_size must be between 1 and 4,096")
        _require(1 <= self.layers <= 16, "layers must be between 1 and 16")
        _require(1 <= self.stack_width <= 4096, "stack_width must be between 1 and 4,096")
        _require(0.0 <= self.gate_stretch <= 10.0, "gate_stretch must be between 0 and 10")
        _require(0.0 <= self.gate_noise <= 100.0, "gate_noise must be between 0 and 100")
        _require(0.0 <= self.string_noise <= 100.0, "string_noise must be between 0 and 100")
        _require(abs(self.push_bias) <= 100.0, "push_bias must be between -100 and 100")
        _require(abs(self.pop_bias) <= 100.0, "pop_bias must be between -100 and 100")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained.

    A *check* scores the held-out sets every `check_every` batches: 100 strings of each, and all where that matters. A
    run is *solved* at its first check with coarse accuracy 1 on validation and test. It ends `settle_batches` later
    (never, if None), at the first check from then on that is right, or after `batches`.

    Two things make a solved run exact on much longer strings. The loss divides the logits by `settle_temperature`, so
    that they have to differ by more. And `recurrent_l1` is an L1 penalty on the recurrent weights beside the optimizer:
    after each of its steps the absolute weights fall by so much, to 0 at the least (and by less where the schedule has
    lowered the learning rate).

    With `curriculum_start`, strings are at most that long at first, and one symbol longer after every batch
    whose loss is below `curriculum_loss`.
    """

    seed: int = 0
    batches: int = 1000
    batch_size: int = 50
    mixed_lengths: bool = True
    curriculum_start: int | None = 8
    curriculum_loss: float = 1.0
    optimizer: Optimizer = "adam"
    learning_rate: float = 8e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: Schedule = "constant"
    warmup_batches: int = 0
    clip_norm: float = 1.0
    recurrent_l1: float = 0.001
    check_every: int = 50
    settle_batches: int | None = 100
    settle_temperature: float = 3.0
    device: Device = "auto"

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed must be between 0 and 2**63 - 1")
        _require(1 <= self.batches <= 10**9, "batches must be between 1 and 1,000,000,000")
        _require(1 <= self.batch_size <= 100_000, "batch_size must be between 1 and 100,000")
        _require(
            self.curriculum_start is None or 1 <= self.curriculum_start <= 10**9,
            "curriculum_start must be null or between 1 and 1,000,000,000",
        )
        _require(0.0 < self.curriculum_loss <= 100.0, "curriculum_loss must be above 0 and at most 100")
        _require(0.0 < self.learning_rate <= 100.0, "learning_rate must be above 0 and at most 100")
        _require(0.0 <= self.weight_decay <= 100.0, "weight_decay must be between 0 and 100")
        _require(0.0 <= self.momentum < 1.0, "momentum must be at least 0 and below 1")
        _require(self.momentum == 0.0 or self.optimizer in ("sgd", "rmsprop"), "momentum goes with sgd or rmsprop")
        _require(0 <= self.warmup_batches <= self.batches, "warmup_batches must be between 0 and batches")
        _require(self.clip_norm > 0.0, "clip_norm must be above 0 (inf turns clipping off)")
        _require(0.0 <= self.recurrent_l1 <= 100.0, "recurrent_l1 must be between 0 and 100")
        _require(0.0 < self.settle_temperature <= 100.0, "settle_temperature must be above 0 and at most 100")
        _require(1 <= self.check_every <= 10**9, "check_every must be between 1 and 1,000,000,000")
        _require(
            self.settle_batches is None or 0 <= self.settle_batches <= 10**9,
            "settle_batches must be null or between 0 and 1,000,000,000",
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that determines a run: the same Config on the same machine gives the same weights."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def default(cls, kind: ModelKind) -> Config:
        """The tuned setting of each kind of model.

        Raises:
            ConfigError: There is no such kind.
        """
        match kind:
            case "stack-lstm":
                return cls()
            case "lstm":
                return cls(
                    model=ModelConfig(kind="lstm", hidden_size=256, layers=2),
                    training=TrainingConfig(
                        batches=12_000,
                        curriculum_start=4,
                        curriculum_loss=0.3,
                        learning_rate=2e-3,
                        schedule="cosine",
                        recurrent_l1=0.0,
                        check_every=200,
                        settle_batches=300,
                        settle_temperature=1.0,
                    ),
                )
            case "rnn":
                return cls(
                    model=ModelConfig(kind="rnn", hidden_size=512),
                    training=TrainingConfig(
                        batches=20_000,
                        curriculum_start=None,
                        learning_rate=1e-3,
                        warmup_batches=200,
                        schedule="cosine",
                        recurrent_l1=0.0,
                        check_every=200,
                        settle_batches=300,
                        settle_temperature=1.0,
                    ),
                )
            case _:
                raise ConfigError(f"there is no model {kind!r}", hint=f"the models are {', '.join(KINDS)}")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    raw: dict[str, Any] = dataclasses.asdict(config)
    return raw


def from_dict(cls: type[_T], raw: object, *, where: str = "config") -> _T:
    """Read a configuration from plain JSON values, refusing what it does not know.

    Args:
        cls: One of the dataclasses of this module.
        raw: What `json.load` gave.
        where: The path of `raw` in its file, for messages.

    Raises:
        ConfigError: A key is unknown, missing a default or of the wrong type, or a value is out of range.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} must be an object, not {type(raw).__name__}")
    fields = {each.name: each for each in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := [str(key) for key in raw if key not in fields]:
        raise ConfigError(f"{where} has the unknown key {unknown[0]!r}", hint=f"the keys are {', '.join(fields)}")
    hints = typing.get_type_hints(cls)
    values = {name: _read(hints[name], raw[name], f"{where}.{name}") for name in fields if name in raw}
    required = [
        each.name
        for each in fields.values()
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in values]:
        raise ConfigError(f"{where} lacks the key {missing[0]!r}")
    return cls(**values)


def _read(hint: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast("type[Any]", hint), value, where=where)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{where} is {value!r}", hint=f"it must be one of {', '.join(map(str, choices))}")
        return value
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        return None if value is None else _read(inner[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 2**53:
            raise ConfigError(f"{where} is out of range")
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} must be {hint.__name__}, not {type(value).__name__}")
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{where} is not a number")
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
