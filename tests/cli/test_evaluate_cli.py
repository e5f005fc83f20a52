"""`stackrev evaluate` and `stackrev generate-data`: the same strings, measured and written down."""

from __future__ import annotations

import json

import pytest
from command_line import TINY

from stackrev.cli import common


class TestEvaluate:
    def test_the_table(self, stackrev):
        result = stackrev("evaluate", "--samples", "20")
        assert result.code == 0
        assert [line.split() for line in result.out.splitlines()] == [
            ["model", "lengths", "strings", "coarse", "fine"],
            ["stack-lstm", "65-128", "20", "1.0000", "1.0000"],
        ]

    def test_json_has_one_object_a_model(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--output", str(tmp_path / "tiny"))
        result = stackrev(
            "evaluate", "--lengths", "1-3", "--samples", "20", "--seed", "5", "--by-length", "--json",
            "--model", "stack-lstm", "--model", str(tmp_path / "tiny"),
        )  # fmt: skip
        good, bad = result.json
        assert good.keys() == {"model", "lengths", "samples", "seed", "coarse", "fine", "by_length"}
        assert (good["model"], good["lengths"], good["samples"], good["seed"]) == ("stack-lstm", "1-3", 20, 5)
        assert sum(each["samples"] for each in good["by_length"]) == 20
        assert [each["length"] for each in good["by_length"]] == [1, 2, 3]
        assert bad["model"] == str(tmp_path / "tiny")
        assert bad["coarse"] < 1
        assert "by_length" not in stackrev("evaluate", "--samples", "1", "--json").json[0]

    def test_margins(self, stackrev, tmp_path):
        arguments = "evaluate", "--lengths", "1-9", "--samples", "20", "--margins"
        result = stackrev(*arguments, "--json").json[0]
        names = ["encoder_push", "encoder_pop", "decoder_push", "decoder_pop", "logits"]
        assert list(result["margins"]) == names
        assert 0 < min(result["proved_margins"].values())
        assert all(result["proved_margins"][name] <= result["margins"][name] for name in names)
        table = stackrev(*arguments).out.split("\n\n")[1].splitlines()
        assert table[0].split()[0] == "margins"
        for name, line in (("margins", table[1]), ("proved_margins", table[2])):
            shown = line.split()[-5:]
            assert [float(each) for each in shown] == pytest.approx(list(result[name].values()), abs=0.001)
        assert table[1].startswith("stack-lstm ")
        assert table[2].startswith("stack-lstm, proved ")
        untrained = str(tmp_path / "tiny")
        stackrev("train", *TINY, "--gate-stretch", "0", "--settle", "plain", "--output", untrained)
        result = stackrev(*arguments, "--model", untrained, "--json").json[0]
        assert result["margins"]["encoder_push"] is None  # never exactly 0 or 1
        assert result["proved_margins"] is None
        assert " - " in stackrev(*arguments, "--model", untrained).out

    def test_only_a_stack_has_margins(self, stackrev, tmp_path):
        rnn = str(tmp_path / "rnn")
        assert stackrev("train", *TINY, "--model", "rnn", "--output", rnn).code == 0
        result = stackrev("evaluate", "--margins", "--model", "stack-lstm", "--model", rnn)
        assert (result.code, result.out) == (2, "")
        assert "has no stack" in result.err

    def test_it_draws_what_generate_data_writes(self, stackrev, tmp_path):
        stackrev("train", *TINY, "--output", str(tmp_path / "tiny"))
        asked = ["--lengths", "1-6", "--samples", "30", "--seed", "3"]
        stackrev("generate-data", *asked, "-o", str(tmp_path / "data.jsonl"))
        common_ = ["--model", str(tmp_path / "tiny"), "--json", "--by-length"]
        drawn = stackrev("evaluate", *asked, *common_).json[0]
        read = stackrev("evaluate", "--data", str(tmp_path / "data.jsonl"), *common_).json[0]
        assert (read.pop("seed"), drawn.pop("seed")) == (None, 3)
        assert read == drawn

    def test_lengths_and_samples_choose_from_a_data_file(self, stackrev, tmp_path):
        path = tmp_path / "data.jsonl"
        stackrev("generate-data", "--lengths", "1-6", "--samples", "60", "-o", str(path))
        result = stackrev("evaluate", "--data", str(path), "--lengths", "2-4", "--samples", "5", "--json").json[0]
        assert (result["lengths"], result["samples"]) == ("2-4", 5)
        assert stackrev("evaluate", "--data", str(path), "--lengths", "99").code == 2

    def test_a_damaged_data_file_is_one_line(self, stackrev, tmp_path):
        path = tmp_path / "data.jsonl"
        path.write_text('{"input": "$ab|", "target": "ab&"}\n')
        result = stackrev("evaluate", "--data", str(path))
        assert (result.code, result.out) == (1, "")
        assert "line 1: the target is not the string reversed" in result.err

    def test_only_all_is_shown_as_one(self):
        assert common.share(0.99999) == "0.9999"
        assert common.share(1.0) == "1.0000"


class TestGenerateData:
    def test_lines(self, stackrev):
        result = stackrev("generate-data", "--lengths", "3-5", "--samples", "40", "--alphabet", "abca")
        examples = [json.loads(line) for line in result.out.splitlines()]
        assert len(examples) == 40
        assert {len(each["input"]) for each in examples} == {5, 6, 7}
        assert all(each["target"] == each["input"][-2:0:-1] + "&" for each in examples)
        assert set("".join(each["input"][1:-1] for each in examples)) == set("abc")

    def test_the_seed_decides(self, stackrev):
        first, again, other = (stackrev("generate-data", "--seed", seed, "--samples", "5").out for seed in "112")
        assert first == again != other

    def test_a_file_is_written_whole_and_noted_on_stderr(self, stackrev, tmp_path):
        path = tmp_path / "data.jsonl"
        result = stackrev("generate-data", "--samples", "3", "-o", str(path))
        assert (result.code, result.out) == (0, "")
        assert result.err == f"note: wrote 3 strings to {path}\n"
        assert len(path.read_text().splitlines()) == 3
        assert stackrev("generate-data", "--samples", "3", "--quiet", "-o", str(path)).err == ""
        assert stackrev("generate-data", "--samples", "3", "-o", "-").out == path.read_text()
