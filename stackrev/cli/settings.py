"""The settings of a run as options: one for each field of the configuration, under its own name."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stackrev.cli.common import DEFAULT_MODEL, with_default
from stackrev.config import Device, Initialisation, LengthRange, Optimizer, Schedule
from stackrev.errors import ConfigError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config, settings_of

NONE = "none"
_SECTIONS = ("data", "model", "training")


def _setting(field: str, help_: str, *names: str, **more: Any) -> Any:
    """An option for a field of the configuration; its help tells the default of each kind of model."""
    defaults: dict[str, list[str]] = {}
    for kind in KINDS:
        if field in (settings := _settings(Config.default(kind))):
            defaults.setdefault(_text(settings[field]), []).append(kind)
    by_kind = [f"{value} for {' and '.join(kinds)}" for value, kinds in defaults.items()]
    shown = next(iter(defaults)) if len(defaults) == 1 else ", ".join(by_kind)
    return typer.Option(*names or [_option(field)], help=with_default(help_, shown), **more)


def _switch(field: str) -> str:
    return f"{_option(field)}/--no-{_option(field)[2:]}"


def _option(field: str) -> str:
    return "--model" if field == "kind" else "--" + field.replace("_", "-")


def _text(value: object) -> str:
    """A value as it is written on a command line."""
    match value:
        case None:
            return NONE
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}" if float(f"{value:g}") == value else repr(value)
        case _:
            return str(value)


def _settings(config: Config) -> dict[str, Any]:
    """Every field of a configuration that is an option; no two sections have one of the same name."""
    return {
        name: getattr(getattr(config, section), name)
        for name, (section, each) in settings_of(config).items()
        if each.option
    }


def _count_or_none(text: str) -> int | str:
    if text == NONE:
        return text
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor {NONE!r}") from None


_RANGE: dict[str, Any] = {"metavar": "MIN-MAX", "parser": LengthRange.parse}
_OPTIONAL: dict[str, Any] = {"metavar": f"<int|{NONE}>", "parser": _count_or_none}

if TYPE_CHECKING:
    _KindName = str
else:
    _KindName = Literal[tuple(KINDS)]

Kind = Annotated[
    _KindName | None, typer.Option("--model", help=with_default("The kind of model to train.", DEFAULT_MODEL))
]
Seed = Annotated[int | None, _setting("seed", "Decides initial weights, batches and noise.")]
Batches = Annotated[int | None, _setting("batches", "How many batches to train for at most.")]
BatchSize = Annotated[int | None, _setting("batch_size", "Strings in a batch.")]
MixedLengths = Annotated[
    bool | None, _setting("mixed_lengths", "Whether lengths differ in a batch.", _switch("mixed_lengths"))
]
CurriculumStart = Annotated[
    str | None, _setting("curriculum_start", "Begin with strings at most so long; none for no curriculum.", **_OPTIONAL)
]
CurriculumLoss = Annotated[
    float | None, _setting("curriculum_loss", "Allow one symbol more after each batch with a loss below this.")
]
OptimizerName = Annotated[Optimizer | None, _setting("optimizer", "The optimiser.")]
LearningRate = Annotated[float | None, _setting("learning_rate", "The learning rate.")]
WeightDecay = Annotated[float | None, _setting("weight_decay", "The optimiser's weight decay.")]
Momentum = Annotated[float | None, _setting("momentum", "The momentum of sgd and rmsprop.")]
ScheduleName = Annotated[Schedule | None, _setting("schedule", "How the learning rate falls.")]
WarmupBatches = Annotated[int | None, _setting("warmup_batches", "Over how many batches it first rises.")]
ClipNorm = Annotated[float | None, _setting("clip_norm", "The largest norm of a gradient; inf for any.")]
RecurrentL1 = Annotated[
    float | None, _setting("recurrent_l1", "By how much recurrent weights shrink after each batch, once solved.")
]
CheckEvery = Annotated[int | None, _setting("check_every", "Batches between two checks on held-out strings.")]
SettleBatches = Annotated[
    str | None,
    _setting(
        "settle_batches",
        "Batches to train on once all held-out strings are right; none to do all batches.",
        **_OPTIONAL,
    ),
]
SettleTemperature = Annotated[
    float | None, _setting("settle_temperature", "What the loss divides the logits by, once solved.")
]
DeviceName = Annotated[Device | None, _setting("device", "Where to compute.")]
HiddenSize = Annotated[int | None, _setting("hidden_size", "Hidden units of a layer.")]
Layers = Annotated[int | None, _setting("layers", "Layers of the encoder and of the decoder.")]
InitialisationName = Annotated[Initialisation | None, _setting("initialisation", "How weights start.")]
StackWidth = Annotated[int | None, _setting("stack_width", "Width of the values on the stack.")]
EmbeddingWidth = Annotated[int | None, _setting("embedding_width", "Width of the symbols' embedding, in lstm and rnn.")]
GateStretch = Annotated[float | None, _setting("gate_stretch", "How far push and pop gates reach past 0 and 1.")]
GateNoise = Annotated[float | None, _setting("gate_noise", "Noise on these gates in training.")]
StringNoise = Annotated[float | None, _setting("string_noise", "Noise on them that stays for a whole string.")]
SharedControls = Annotated[
    bool | None,
    _setting("shared_controls", "Whether encoder and decoder work the stack alike.", _switch("shared_controls")),
]
PushBias = Annotated[float | None, _setting("push_bias", "The initial bias of the push gate.")]
PopBias = Annotated[float | None, _setting("pop_bias", "The initial bias of the pop gate.")]
Lengths = Annotated[LengthRange | None, _setting("lengths", "Lengths to train on and to validate with.", **_RANGE)]
TestLengths = Annotated[LengthRange | None, _setting("test_lengths", "Lengths to test with.", **_RANGE)]
HeldOutSamples = Annotated[int | None, _setting("held_out_samples", "Strings in the validation and in the test set.")]
HeldOutSeed = Annotated[int | None, _setting("held_out_seed", "The seed that these are drawn with.")]


_ALL = {name for kind in KINDS for name in settings_of(Config.default(kind))}


def configure(base: Config, options: Mapping[str, Any]) -> Config:
    """A configuration with the options that were given.

    Args:
        base: What holds where no option was given.
        options: The command's parameters by name; those that are None, or no settings, are passed over.

    Raises:
        ConfigError: A value is out of range, or the kind of model has no such setting.
    """
    given = {name: None if value == NONE else value for name, value in options.items() if value is not None}
    if foreign := [name for name in given if name in _ALL and name not in settings_of(base)]:
        raise ConfigError(f"the model {base.model.kind} has no {_option(foreign[0])}", hint="leave it out")
    sections = {}
    for section in _SECTIONS:
        old = getattr(base, section)
        sections[section] = dataclasses.replace(old, **{name: given[name] for name in vars(old) if name in given})
    return Config(**sections)


def command_line(config: Config, *, threads: int | None = None) -> str:
    """The shortest `stackrev train` that trains a configuration, on so many threads if it matters."""
    defaults = _settings(Config.default(config.model.kind))
    words = ["stackrev", "train", "--model", config.model.kind, "--seed", str(config.training.seed)]
    for field, value in _settings(config).items():
        if field in ("kind", "seed") or value == defaults[field]:
            continue
        if isinstance(value, bool):
            words.append(_switch(field).split("/")[0 if value else 1])
        else:
            words += [_option(field), _text(value)]
    if threads is not None:
        words += ["--threads", str(threads)]
    return shlex.join(words)
