"""Configurations are read strictly: what they do not know, they refuse."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackrev.config import Between, LengthRange, Settings, from_dict, setting, settings, to_dict
from stackrev.errors import ConfigError
from stackrev.kinds import KINDS
from stackrev.kinds.config import Config
from stackrev.kinds.lstm import LSTMConfig
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.tasks.data import DataConfig
from stackrev.training_config import TrainingConfig

SECTIONS: dict[str, Any] = {"data": DataConfig, "model": StackLSTMConfig, "training": TrainingConfig}
FIELDS = [(section, each.name) for section, cls in SECTIONS.items() for each in dataclasses.fields(cls)]


def changed(section: str, key: str, value: object) -> dict[str, Any]:
    """The default configuration as JSON values, with one of them changed."""
    raw = to_dict(Config())
    raw[section][key] = value
    return raw


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str) -> None:
    config = Config.default(kind)
    assert config.model.kind == kind
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_round_trip_of_what_is_not_default() -> None:
    config = Config(
        data=DataConfig(lengths=LengthRange(minimum=0, maximum=3), held_out_seed=2**63 - 1),
        model=LSTMConfig(layers=3, embedding_width=7),
        training=TrainingConfig(settle_batches=None, optimizer="sgd", momentum=0.5, clip_norm=math.inf),
    )
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_what_is_left_out_is_the_default() -> None:
    assert from_dict(Config, {}) == Config()
    read = from_dict(Config, {"model": {"layers": 2}})
    assert read == Config(model=StackLSTMConfig(layers=2))


def test_there_is_no_default_of_an_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="no model 'transformer'") as caught:
        Config.default("transformer")  # type: ignore[arg-type]
    assert all(kind in str(caught.value.hint) for kind in KINDS)


def test_a_configuration_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.layers = 2  # type: ignore[misc]
    assert hash(Config()) == hash(Config())


@pytest.mark.parametrize("section", ["", "data", "model", "training"])
def test_unknown_keys(section: str) -> None:
    raw = to_dict(Config())
    (raw[section] if section else raw)["hiden_size"] = 3
    with pytest.raises(ConfigError, match="unknown key 'hiden_size'") as caught:
        from_dict(Config, raw)
    assert ("hidden_size" in str(caught.value.hint)) == (section == "model")
    assert f"config.{section}".rstrip(".") + " " in caught.value.message


def test_a_missing_key() -> None:
    with pytest.raises(ConfigError, match=r"config\.data\.lengths lacks the key 'maximum'"):
        from_dict(Config, {"data": {"lengths": {"minimum": 3}}})


@pytest.mark.parametrize("raw", [None, 1, "config", [], [["model", {}]]])
def test_not_an_object(raw: object) -> None:
    with pytest.raises(ConfigError, match="config must be an object"):
        from_dict(Config, raw)
    with pytest.raises(ConfigError, match=r"config\.model must be an object"):
        from_dict(Config, {"model": raw})


@pytest.mark.parametrize(("section", "key"), FIELDS)
@pytest.mark.parametrize("value", [[], [1], {"a": 1}, "no such choice", math.nan, 10**400, -(10**400), -1e300])
def test_no_field_takes_nonsense(section: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError):
        from_dict(Config, changed(section, key, value))


@pytest.mark.parametrize(("section", "key"), FIELDS)
def test_a_type_is_taken_at_its_word(section: str, key: str) -> None:
    default = getattr(getattr(Config(), section), key)
    wrong: list[object] = {bool: [0, 1, "true"], int: [True, 1.0, "1"], float: [True, "1.0"], str: [True, 1]}.get(
        type(default), [True]
    )
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"config\.{section}\.{key}"):
            from_dict(Config, changed(section, key, value))


def test_null_is_for_optional_fields_alone() -> None:
    optional = {"curriculum_start", "settle_batches"}
    for section, key in FIELDS:
        if key in optional:
            assert getattr(getattr(from_dict(Config, changed(section, key, None)), section), key) is None
        elif not isinstance(getattr(getattr(Config(), section), key), type(None)):
            with pytest.raises(ConfigError):
                from_dict(Config, changed(section, key, None))


def test_a_whole_number_can_stand_for_a_real_one() -> None:
    rate = from_dict(Config, changed("training", "learning_rate", 1)).training.learning_rate
    assert (rate, type(rate)) == (1.0, float)
    with pytest.raises(ConfigError, match=r"learning_rate is out of range"):
        from_dict(Config, changed("training", "learning_rate", 2**60))


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (StackLSTMConfig, {"hidden_size": 0}, "hidden_size"),
        (StackLSTMConfig, {"layers": 0}, "layers"),
        (StackLSTMConfig, {"stack_width": -1}, "stack_width"),
        (StackLSTMConfig, {"gate_stretch": -0.1}, "gate_stretch"),
        (StackLSTMConfig, {"gate_noise": math.nan}, "gate_noise"),
        (StackLSTMConfig, {"push_bias": math.inf}, "push_bias"),
        (TrainingConfig, {"seed": -1}, "seed"),
        (TrainingConfig, {"seed": 2**63}, "seed"),
        (TrainingConfig, {"batches": 0}, "batches"),
        (TrainingConfig, {"batch_size": 0}, "batch_size"),
        (TrainingConfig, {"learning_rate": 0.0}, "learning_rate"),
        (TrainingConfig, {"learning_rate": math.inf}, "learning_rate"),
        (TrainingConfig, {"momentum": 1.0, "optimizer": "sgd"}, "momentum"),
        (TrainingConfig, {"momentum": 0.5, "optimizer": "adam"}, "sgd or rmsprop"),
        (TrainingConfig, {"batches": 5, "warmup_batches": 6}, "warmup_batches"),
        (TrainingConfig, {"clip_norm": 0.0}, "clip_norm"),
        (TrainingConfig, {"check_every": 0}, "check_every"),
        (TrainingConfig, {"settle_batches": -1}, "settle_batches"),
        (DataConfig, {"held_out_samples": 0}, "held_out_samples"),
        (DataConfig, {"held_out_seed": -1}, "held_out_seed"),
        (DataConfig, {"lengths": LengthRange(minimum=0, maximum=0)}, "lengths"),
    ],
)
def test_ranges(cls: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Settings):
    """Settings of every form."""

    plain: bool = setting(False, "A switch.")
    between: int = setting(3, "A number.", low=1, high=4096, search=(1, 2, 3))
    above: float = setting(0.5, "A share.", above=0, below=1, search=Between(0.1, 0.9))
    least: float = setting(1.0, "A norm.", low=1, range_note="inf for any")
    optional: int | None = setting(None, "A count.", low=0, high=2**63 - 1)
    lengths: LengthRange = setting(LengthRange(minimum=1, maximum=2), "Lengths.", option=False)


def test_a_setting_is_declared_once() -> None:
    found = settings(Example)
    assert list(found) == ["plain", "between", "above", "least", "optional", "lengths"]
    assert [each.type for each in found.values()] == [bool, int, float, float, int, LengthRange]
    assert [name for name, each in found.items() if each.optional] == ["optional"]
    assert [name for name, each in found.items() if not each.option] == ["lengths"]
    assert (found["between"].search, found["above"].search) == ((1, 2, 3), Between(0.1, 0.9))
    assert (found["between"].default, found["between"].help) == (3, "A number.")
    assert found["plain"].range == ""


@pytest.mark.parametrize(
    ("field", "good", "bad", "message"),
    [
        ("between", [1, 4096], [0, 4097, math.nan], "between must be between 1 and 4,096"),
        ("above", [0.001, 0.999], [0.0, 1.0, math.nan], "above must be above 0 and below 1"),
        ("least", [1.0, math.inf], [0.9, -math.inf, math.nan], "least must be at least 1 (inf for any)"),
        ("optional", [None, 0, 2**63 - 1], [-1, 2**63], "optional must be null or between 0 and 2**63 - 1"),
    ],
)
def test_the_range_of_a_setting(field: str, good: list[Any], bad: list[Any], message: str) -> None:
    for value in good:
        assert getattr(Example(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(ConfigError) as caught:
            Example(**{field: value})
        assert caught.value.message == f"{message}, not {value!r}"


def test_choices_are_checked_where_a_configuration_is_made() -> None:
    assert settings(TrainingConfig)["optimizer"].choices == ("adam", "adamw", "rmsprop", "sgd")
    with pytest.raises(ConfigError, match="optimizer is 'adma'") as caught:
        TrainingConfig(optimizer="adma")  # type: ignore[arg-type]
    assert "adamw" in str(caught.value.hint)


@pytest.mark.parametrize("cls", SECTIONS.values())
def test_every_field_is_a_setting_with_a_help_of_one_sentence(cls: Any) -> None:
    assert list(settings(cls)) == [each.name for each in dataclasses.fields(cls)]
    assert all(each.help.endswith(".") and "\n" not in each.help for each in settings(cls).values())


@pytest.mark.parametrize("cls", SECTIONS.values())
def test_a_search_tries_what_a_setting_takes(cls: Any) -> None:
    for each in settings(cls).values():
        space = (each.search.low, each.search.high) if isinstance(each.search, Between) else each.search or ()
        for value in space:
            each.check(value)


@pytest.mark.parametrize("most", [1, 99])
def test_a_warm_up_that_is_longer_than_the_run(most: int) -> None:
    with pytest.raises(ConfigError, match=f"warmup_batches is 100, more than the {most} of batches") as caught:
        TrainingConfig(batches=most, warmup_batches=100)
    assert caught.value.hint == f"give --warmup-batches {most} (warmup_batches={most}) or fewer, or more batches"
    assert TrainingConfig(batches=100, warmup_batches=100).warmup_batches == 100


@pytest.mark.parametrize(
    ("text", "minimum", "maximum"), [("65-128", 65, 128), ("64", 64, 64), (" 0-0 ", 0, 0), ("8 - 64", 8, 64)]
)
def test_lengths_are_read(text: str, minimum: int, maximum: int) -> None:
    assert LengthRange.parse(text) == LengthRange(minimum=minimum, maximum=maximum)


@pytest.mark.parametrize(
    "text", ["", "-", "8-", "-8", "8-64-128", "64-8", "8--64", "eight", "1.5", "8:64", "9" * 5000, "0-" + "9" * 30]
)
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        LengthRange.parse(text)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_lengths_are_written_as_they_are_read(first: int, second: int) -> None:
    lengths = LengthRange(minimum=min(first, second), maximum=max(first, second))
    assert LengthRange.parse(str(lengths)) == lengths
    assert ("-" in str(lengths)) == (first != second)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(FIELDS), json_values)
def test_any_value_is_read_as_it_is_or_refused(field: tuple[str, str], value: object) -> None:
    section, key = field
    raw = changed(section, key, value)
    try:
        config = from_dict(Config, raw)
    except ConfigError as caught:
        error = caught
    else:
        assert to_dict(config) == raw
        return
    assert "\n" not in error.message


def test_reading_a_configuration_imports_no_torch() -> None:
    code = "import sys, stackrev.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
