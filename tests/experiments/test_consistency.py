import importlib.util
import json
import sys
from pathlib import Path

import pytest

from stackrev.errors import ConfigError
from stackrev.kinds.config import Config

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {
    "model.hidden_size": 6,
    "model.stack_width": 6,
    "training.batches": 4,
    "training.batch_size": 3,
    "training.check_every": 2,
    "data.held_out_samples": 4,
    "data.lengths": {"minimum": 1, "maximum": 3},
    "data.test_lengths": {"minimum": 4, "maximum": 5},
}


@pytest.fixture(scope="module")
def consistency():
    spec = importlib.util.spec_from_file_location("consistency", ROOT / "scripts" / "consistency.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["consistency"] = module  # so that worker processes' results can be unpickled
    sys.path.insert(0, str(ROOT / "scripts"))
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture
def tiny(consistency):
    return consistency.configure("stack-lstm", CHANGES)


def result(seed, solved=None, exact=None):
    """A seed's line."""
    scores = {"coarse": float(solved is not None), "fine": 1.0 if solved else 0.25, "samples": 10}
    line = {
        "batch": solved or 400,
        "loss": 0.5,
        "learning_rate": 0.01,
        "validation": scores,
        "test": scores,
        "seconds": 2.0,
    }
    return {
        "seed": seed,
        "solved_batch": solved,
        "solved_seconds": solved and solved / 100,
        "batches": 400,
        "seconds": 4.0,
        "validation": scores,
        "test": scores,
        "exact": exact or {},
        "longest_exact": None,
        "weights": "0",
        "history": [line],
    }


def test_seeds_lengths_and_settings_are_read(consistency):
    assert consistency.parse_seeds("3,0-2,2") == [0, 1, 2, 3]
    assert consistency.parse_exact("1024,10000:1", 20) == {1024: 20, 10000: 1}
    found = consistency.parse_overrides(
        ["training.learning_rate=0.004", "model.kind=lstm", "training.settle_batches=null"]
    )
    assert found == {"training.learning_rate": 0.004, "model.kind": "lstm", "training.settle_batches": None}
    assert consistency.configure("stack-lstm", found).training.settle_batches is None
    with pytest.raises(ConfigError, match="unknown key 'widht'"):
        consistency.configure("stack-lstm", {"model.widht": 3})
    with pytest.raises(ConfigError, match="unknown key 'modle'"):
        consistency.configure("stack-lstm", {"modle.width": 3})


def test_every_named_setting_is_one(consistency):
    for name, changes in consistency.SETTINGS.items():
        config = consistency.configure("stack-lstm", changes)
        assert (config == Config()) == (name == "default")
    published = consistency.configure("stack-lstm", consistency.SETTINGS["published"])
    assert published.model.initialisation == "torch"
    assert (published.model.gate_stretch, published.model.gate_noise) == (0, 0)
    assert set(consistency.TABLE) <= set(consistency.SETTINGS)


def test_a_summary_counts(consistency):
    exact = {"1000": {"exact": 20, "samples": 20, "fine": 1.0}}
    short = {"1000": {"exact": 19, "samples": 20, "fine": 0.99}}
    results = [result(0, 100, exact), result(1), result(2, 300, short), result(3, 200, exact)]
    found = consistency.summarise("mine", results)
    assert (found["runs"], found["solved"], found["unsolved_seeds"], found["perfect_at_end"]) == (4, 3, [1], 3)
    assert found["batches_to_solve"] == {"min": 100, "quartile_1": 150, "median": 200, "quartile_3": 250, "max": 300}
    assert found["exact"] == {"1000": {"runs": 2, "of": 4, "samples": 20, "not_exact_seeds": [2]}}
    (row,) = consistency.tabulate([found])
    assert (row["solved"], row["median_batches"], row["exact_1000"]) == (3, 200, 2)
    assert "mine" in consistency.show_table([row])
    nothing = consistency.summarise("none", [result(0)])
    assert nothing["batches_to_solve"] is None
    assert consistency.show_table(consistency.tabulate([nothing]))


def test_a_seed_has_its_whole_history(consistency, tiny):
    raw = json.loads(json.dumps(consistency.to_dict(tiny)))
    first, again, other = (consistency.run_seed(raw, seed, {}, None) for seed in (3, 3, 4))
    assert [line["batch"] for line in first["history"]] == [2, 4]
    assert first["validation"]["samples"] == 4
    assert first["solved_batch"] is None
    assert first["exact"] == {}
    assert consistency._timeless(first) == consistency._timeless(again)
    assert first["weights"] == again["weights"] != other["weights"]


def test_long_strings_are_tried_the_same_with_and_without_kernels(consistency):
    import torch

    from stackrev.kernels import using
    from stackrev.kinds.stack_lstm import StackLSTMConfig
    from stackrev.models import build

    model = build(StackLSTMConfig(hidden_size=6, stack_width=6), torch.Generator().manual_seed(0))
    found = consistency.try_length(model, 9, 3)
    with using("torch"):
        plain = consistency.try_length(model, 9, 3)
    found.pop("margin", None)
    assert plain == found
    assert plain["samples"] == 3


def test_a_folder_goes_on_where_it_was_left(consistency, tiny, tmp_path, capfd):
    def run(seeds, config=tiny):
        return consistency.run_folder(tmp_path / "a", config, seeds, {}, name="tiny", workers=1)

    assert run([0, 1])["runs"] == 2
    before = consistency.read_seeds(tmp_path / "a")
    with (tmp_path / "a" / "seeds.jsonl").open("a") as file:
        file.write('{"seed": 2, "solved_b')
    assert run([0, 1])["runs"] == 2
    assert consistency.read_seeds(tmp_path / "a") == before
    assert "2 of 2 seeds are there already" in capfd.readouterr().err
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert (summary["runs"], summary["solved"]) == (2, 0)
    with pytest.raises(consistency.StackrevError, match="another setting"):
        run([0], Config())
    assert consistency.rerun(tmp_path / "a", 1)
    assert "the same as stored" in capfd.readouterr().out


def test_a_wrong_setting_is_one_line(consistency, tmp_path, capsys):
    assert consistency.main([str(tmp_path / "a"), "--set", "model.widht=3"]) == 1
    assert capsys.readouterr().err.startswith("error: config.model has the unknown key 'widht'")
