"""`stackrev certify`: what is proved, what is not and why, and the certificate beside the weights."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from handmade import CONFIG, handmade_reverser
from safetensors.numpy import load, save

from stackrev import cli
from stackrev.errors import CheckpointError
from stackrev.kinds.config import Config
from stackrev.models import build
from stackrev.models.certification import check_stored
from stackrev.storage import checkpoints
from stackrev.storage.certificates import CERTIFICATE, read_certificate, write_certificate

CHECKER = Path(__file__).resolve().parents[2] / "scripts" / "check_certificate.py"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handmade")
    handmade_reverser().save_pretrained(folder, config=Config(model=CONFIG))
    assert cli.main(["certify", str(folder), "--write", "--quiet"]) == 0
    return folder


@pytest.fixture
def folder(original, tmp_path):
    for path in original.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def certify(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = cli.main(["certify", *map(str, arguments)])
        return code, capsys.readouterr()

    return run


def broken(folder, alter):
    """A checkpoint whose model has been altered."""
    model = handmade_reverser()
    with torch.no_grad():
        alter(model)
    model.save_pretrained(folder, config=Config(model=CONFIG))
    return folder


def test_what_is_proved_is_said_in_one_sentence(certify, folder):
    code, printed = certify(folder)
    assert code == 0
    assert "proved. It reverses every string of up to 2^53 - 2 symbols exactly." in printed.out
    assert checkpoints.describe(folder).checksums[checkpoints.WEIGHTS] in printed.out
    assert printed.err == ""


def test_json(certify, folder):
    code, printed = certify(folder, "--json")
    (record,) = json.loads(printed.out)
    assert code == 0
    assert record["proved"]
    assert record["failed"] == []
    assert record["margins"]["encoder_push"] > 40
    assert record["unit_roundoff"] > 2**-20
    assert record["counterexample"] is None


def test_a_model_that_errs_is_not_proved_and_shown_to_err(certify, tmp_path):
    def swap(model):
        model.logits.weight[[40, 41]] = model.logits.weight[[41, 40]]

    code, printed = certify(broken(tmp_path, swap), "--write")
    assert code == 1
    assert "not proved. In a decoder step that is fed" in printed.out
    assert "another logit may exceed the right one" in printed.out
    assert "It gets '%' wrong: it writes '&&', and not '%&', from symbol 1 on." in printed.out
    assert not (tmp_path / CERTIFICATE).exists()


def test_a_gate_that_is_not_sure_to_open_is_named(certify, tmp_path):
    def leak(model):
        model.controls.bias[0] -= 45.0

    code, printed = certify(broken(tmp_path, leak))
    assert code == 1
    assert "an encoder step that reads" in printed.out
    assert "the encoder's push gate may be below 1: 2." in printed.out


@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_models_without_a_stack_are_shown_to_err(certify, name):
    code, printed = certify(name, "--json")
    (record,) = json.loads(printed.out)
    assert code == 1
    assert not record["proved"]
    found = record["counterexample"]
    assert found["written"] != found["wanted"]
    assert found["wanted"] == found["string"][::-1] + "&"
    assert len(found["string"]) <= 64


def test_stretched_cells_are_not_what_the_proof_is_about(certify, tmp_path):
    config = Config(model=dataclasses.replace(CONFIG, cell_stretch=0.1))
    build(config.model, torch.Generator().manual_seed(0)).save_pretrained(tmp_path, config=config)
    code, printed = certify(tmp_path)
    assert code == 1
    assert "whose LSTMs' own gates are not stretched; this is another." in " ".join(printed.out.split())


def test_several_models_fail_if_one_does(certify, folder, tmp_path):
    code, printed = certify(folder, "lstm", "--json")
    assert code == 1
    assert [each["proved"] for each in json.loads(printed.out)] == [True, False]


def test_a_model_that_is_not_there_is_an_error(certify):
    code, printed = certify("no/such/folder")
    assert code == 2
    assert printed.err.startswith("error: ")


def test_a_model_of_another_task_is_not_said_to_reverse_wrongly(certify, folder):
    raw = json.loads((folder / "config.json").read_text())
    raw["config"]["data"]["task"] = "copy"
    (folder / "config.json").write_text(json.dumps(raw))
    code, printed = certify(folder)
    assert (code, printed.out) == (1, "")
    assert "has learned copy, and the proof is about reversal" in printed.err
    with pytest.raises(CheckpointError, match="that none can be about"):
        check_stored(folder)


class TestStored:
    def test_it_is_checked_before_it_is_believed(self, folder):
        assert check_stored(folder).proved

    def test_there_may_be_none(self, folder):
        (folder / CERTIFICATE).unlink()
        assert check_stored(folder) is None

    def test_of_other_weights(self, folder):
        certificate = (folder / CERTIFICATE).read_bytes()
        broken(folder, lambda model: model.logits.bias.add_(0.001))
        (folder / CERTIFICATE).write_bytes(certificate)
        with pytest.raises(CheckpointError, match="about other weights"):
            check_stored(folder)

    @pytest.mark.parametrize("end", ["lower", "upper"])
    def test_boxes_that_were_shrunk(self, folder, end):
        certificate = read_certificate(folder)
        boxes = dict(certificate.boxes)
        boxes[f"decoder.hidden.{end}"] = boxes[f"decoder.hidden.{end}"] * 0.99
        write_certificate(folder, certificate.__class__(certificate.weights, certificate.unit, boxes))
        with pytest.raises(CheckpointError, match="proves nothing"):
            check_stored(folder)

    def test_boxes_of_another_shape(self, folder):
        certificate = read_certificate(folder)
        boxes = {name: ends[:, :-1] for name, ends in certificate.boxes.items()}
        write_certificate(folder, certificate.__class__(certificate.weights, certificate.unit, boxes))
        with pytest.raises(CheckpointError, match="has the shape"):
            check_stored(folder)


@pytest.mark.skipif(find_spec("flint") is None, reason="needs python-flint")
class TestIndependentChecker:
    def check(self, folder):
        return subprocess.run([sys.executable, CHECKER, folder], capture_output=True, text=True, check=False)

    @pytest.mark.slow
    def test_it_agrees(self, folder):
        done = self.check(folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("proved: ")

    def test_it_shares_no_code(self):
        assert "stackrev" not in [
            line.split()[1].partition(".")[0]
            for line in CHECKER.read_text().splitlines()
            if line.startswith(("import ", "from "))
        ]
        assert len(CHECKER.read_text().splitlines()) < 300

    @pytest.mark.parametrize("end", ["encoder.hidden.lower", "encoder.cell.upper", "decoder.hidden.upper"])
    def test_it_refuses_a_box_that_was_shrunk(self, folder, end):
        certificate = read_certificate(folder)
        boxes = {**certificate.boxes, end: certificate.boxes[end] * 0.9}
        write_certificate(folder, certificate.__class__(certificate.weights, certificate.unit, boxes))
        done = self.check(folder)
        assert done.returncode == 1
        assert "not proved: " in done.stdout

    def test_it_refuses_stretched_cells(self, folder):
        path = folder / "config.json"
        whole = json.loads(path.read_text(encoding="utf-8"))
        whole["config"]["model"]["cell_stretch"] = 0.1
        path.write_text(json.dumps(whole), encoding="utf-8")
        done = self.check(folder)
        assert done.returncode == 2
        assert "usual gates" in done.stderr

    def test_it_refuses_damage(self, folder):
        path = folder / CERTIFICATE
        path.write_bytes(save({**load(path.read_bytes())}))
        assert self.check(folder).returncode == 1
        path.write_bytes(path.read_bytes()[:-8])
        assert self.check(folder).returncode == 2
        path.unlink()
        assert self.check(folder).returncode == 2

    def test_it_refuses_a_weight_that_was_moved(self, folder):
        path = folder / checkpoints.WEIGHTS
        weights = {name: values.copy() for name, values in load(path.read_bytes()).items()}
        weights["logits.bias"][7] += 1
        path.write_bytes(save(weights, metadata={"format": "pt"}))
        done = self.check(folder)
        assert done.returncode == 1
        assert "about other weights" in done.stdout


class TestTold:
    """What `models` and a model's card tell of a certificate, after checking it."""

    @pytest.fixture
    def models(self, capsys):
        def run(*arguments):
            capsys.readouterr()
            code = cli.main(["models", *map(str, arguments)])
            return code, capsys.readouterr()

        return run

    def test_info_and_verify(self, models, folder):
        assert json.loads(models("info", folder, "--json")[1].out)["proved"] == "at every length, by its certificate"
        code, printed = models("verify", folder)
        assert code == 0
        assert "its certificate proves that it reverses every string" in printed.out

    def test_a_certificate_that_proves_nothing_is_not_believed(self, models, folder):
        certificate = read_certificate(folder)
        boxes = {name: ends * 0.9 for name, ends in certificate.boxes.items()}
        write_certificate(folder, certificate.__class__(certificate.weights, certificate.unit, boxes))
        assert "proves nothing" in json.loads(models("info", folder, "--json")[1].out)["proved"]
        code, printed = models("verify", folder)
        assert code == 1
        assert "proves nothing" in printed.err
        code, printed = models("push", folder, "user/repo", "--dry-run")
        assert code == 1
        assert "proves nothing" in printed.err

    def test_push_sends_it_and_the_card_tells(self, models, folder):
        code, printed = models("push", folder, "user/repo", "--dry-run")
        assert code == 0
        assert f"{CERTIFICATE}: " in printed.out
        assert "every string of every length" in printed.out

    def test_a_copy_takes_it_along_and_leaves_one_of_other_weights(self, folder, tmp_path):
        checkpoints.copy(folder, tmp_path / "copy")
        assert check_stored(tmp_path / "copy").proved
        certificate = read_certificate(folder)
        write_certificate(folder, certificate.__class__("0" * 64, certificate.unit, certificate.boxes))
        checkpoints.copy(folder, tmp_path / "other")
        assert read_certificate(tmp_path / "other") is None
