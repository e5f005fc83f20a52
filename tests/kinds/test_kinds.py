"""Each kind of model has settings of its own, and what older files say is read in its words."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from shapes import shape_of

from stackrev.config import from_dict, settings, to_dict
from stackrev.errors import ConfigError
from stackrev.kinds import KINDS, kind_of
from stackrev.kinds.config import SECTIONS, Config, from_version_1, read_config, settings_of
from stackrev.models import build

GATES = {"gate_stretch", "cell_stretch", "gate_noise", "string_noise", "shared_controls", "push_bias", "pop_bias"}
DECODER = {"decoder_push_bias", "decoder_pop_bias", "push_delay", "forget_bias"}
BOTTOM = {"bottom_push_bias", "bottom_pop_bias", "decoder_bottom_push_bias", "decoder_bottom_pop_bias"}
QUEUE = KINDS["queue-lstm"].model
COMMON = {"kind", "hidden_size", "layers", "initialisation", "vocabulary_size"}


def version_1(kind: str, **changes: Any) -> dict[str, Any]:
    """A configuration as version 1 stored it: the same settings in every kind of model."""
    model = {
        "kind": kind,
        "hidden_size": 256,
        "layers": 2,
        "initialisation": "tuned",
        "stack_width": 48,
        "gate_stretch": 0.05,
        "gate_noise": 1.0,
        "string_noise": 2.0,
        "shared_controls": False,
        "push_bias": 1.5,
        "pop_bias": -1.5,
    }
    return {**to_dict(Config.default(kind)), "model": {**model, **changes}}


def test_each_kind_has_its_own_settings() -> None:
    found = {name: set(settings(kind.configuration)) - COMMON for name, kind in KINDS.items()}
    assert found["rnn"] == found["lstm"] == {"embedding_width"}
    assert found["stack-lstm"] == found["queue-lstm"] == {"stack_width"} | GATES | DECODER
    assert found["deque-lstm"] == {"stack_width"} | GATES | DECODER | BOTTOM
    for name, kind in KINDS.items():
        assert (kind.name, kind.model.kind) == (name, name)
        with pytest.raises(ConfigError, match="kind is 'other'"):
            dataclasses.replace(kind.model, kind="other")


def test_a_kind_learns_by_default_what_it_can() -> None:
    tasks = {name: Config.default(name).data.task for name in KINDS}
    assert tasks.pop("queue-lstm") == tasks.pop("deque-lstm") == "copy"
    assert set(tasks.values()) == {"reversal"}


def test_what_is_tuned_for_a_task_moves_with_it() -> None:
    for name, kind in KINDS.items():
        for task, tuned in kind.tasks.items():
            default, own = Config.default(name, task), Config.default(name)
            found = {**to_dict(default)["model"], **to_dict(default)["training"]}
            assert {each: found[each] for each in tuned} == tuned
            assert default != own.fitted(data=default.data, model=own.model, training=own.training)
            assert own.for_task(task) == default
            assert default.for_task(own.data.task) == own
    given = dataclasses.replace(Config.default("queue-lstm"), model=dataclasses.replace(QUEUE, push_delay=1))
    moved = given.for_task("svo-sov").model
    assert (moved.push_delay, moved.forget_bias) == (1, 1.0)  # type: ignore[attr-defined]


def test_sections_share_no_setting() -> None:
    for name in KINDS:
        config = Config.default(name)
        assert sum(len(settings(type(getattr(config, section)))) for section in SECTIONS) == len(settings_of(config))


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no model 'transformer'") as caught:
        kind_of("transformer")
    assert str(caught.value.hint) == f"the models are {', '.join(KINDS)}"
    with pytest.raises(ConfigError, match=r"config\.model\.kind is 'transformer'") as caught:
        from_dict(Config, {"model": {"kind": "transformer"}})
    assert "rnn, lstm, stack-lstm" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_another_kinds_setting_is_unknown(kind: str) -> None:
    for foreign in ("stack_width", *GATES):
        with pytest.raises(ConfigError, match=f"unknown key '{foreign}'"):
            from_dict(Config, {"model": {"kind": kind, foreign: 1}})
    with pytest.raises(ConfigError, match="unknown key 'embedding_width'"):
        from_dict(Config, {"model": {"embedding_width": 4}})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [5, 300])
def test_the_size_of_the_vocabulary_is_a_number_of_the_configuration(kind: str, vocabulary: int) -> None:
    config = shape_of(kind, hidden_size=4, stack_width=3, vocabulary_size=vocabulary)
    shapes = {name: tuple(each.shape) for name, each in build(config).state_dict().items()}
    assert shapes == config.shapes()
    assert shapes["logits.weight"] == (vocabulary, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_version_1_is_read_in_the_words_of_its_kind(kind: str) -> None:
    read = read_config(json.loads(json.dumps(version_1(kind))), version=1)
    assert read == read_config(version_1(kind))
    width = "embedding_width" if "embedding_width" in settings(KINDS[kind].configuration) else "stack_width"
    expected = shape_of(kind, hidden_size=256, layers=2, stack_width=48)
    assert (read.model, getattr(read.model, width)) == (expected, 48)
    assert read_config(to_dict(read)) == read_config(to_dict(read), version=2) == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stack_width": 0}, "stack_width"),
        ({"stack_width": "64"}, "stack_width"),
        ({"gate_noise": []}, "gate_noise"),
        ({"push_bias": 1e9}, "push_bias"),
        ({"embedding_width": True}, "embedding_width"),
        ({"heads": 8}, "unknown key 'heads'"),
    ],
)
@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_version_1_is_read_as_strictly_as_before(kind: str, changes: dict[str, Any], message: str) -> None:
    raw = version_1(kind, **changes)
    if "embedding_width" in changes:
        del raw["model"]["stack_width"]
    with pytest.raises(ConfigError, match=message):
        read_config(raw, version=1)


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"model": None}, {"model": {"kind": []}}, {"model": {"kind": "transformer"}}]
)
def test_what_is_no_configuration_stays_as_it_is(raw: object) -> None:
    assert from_version_1(raw) == raw
