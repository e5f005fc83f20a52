"""Texts in, texts out: `stackrev.load` and `stackrev.reverse`."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys

import pytest
import regex

import stackrev
from stackrev import kernels
from stackrev.errors import ConfigError, DataError, ModelNotFoundError, VocabularyError
from stackrev.kinds.config import Config
from stackrev.kinds.lstm import LSTMConfig
from stackrev.models import build
from stackrev.models.texts import DEFAULT
from stackrev.storage import names
from stackrev.tasks.data import DataConfig
from stackrev.training_config import TrainingConfig


@pytest.mark.parametrize("text", ["hello", "", "$A string|", "Füße, 日本語, 👩‍👩‍👧!", "a\r\nb"])
def test_a_text_comes_back_reversed_as_a_text(text):
    expected = text[::-1] if text.isascii() else "".join(reversed(regex.findall(r"\X", text)))
    assert stackrev.reverse(text) == expected


def test_a_collection_comes_back_as_a_list():
    model = stackrev.load()
    assert model.reverse(["one", "zwölf", ""]) == ["eno", "flöwz", ""]
    assert model.reverse(("one",)) == stackrev.reverse({"one": 1}) == ["eno"]
    assert model.reverse([]) == []


def test_an_iterator_is_answered_text_by_text():
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield f"text {number}"

    answers = stackrev.reverse(endless())
    assert not isinstance(answers, list)
    assert not taken
    assert [next(answers), next(answers)] == ["0 txet", "1 txet"]
    assert taken == [0, 1]


def test_bad_input_gets_one_line():
    model = stackrev.load(DEFAULT)
    with pytest.raises(DataError, match=r"^reverse takes a str or several, not an int$"):
        model.reverse(5)
    with pytest.raises(DataError, match=r"not a bytes$") as error:
        stackrev.reverse(b"hello")
    assert error.value.hint == "decode bytes first"
    with pytest.raises(DataError, match=r"^text 2 is None, not a str$"):
        model.reverse(["one", None])
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 129)))
    with pytest.raises(VocabularyError, match=r"^text 2: the text has 129 different characters"):
        model.reverse(["one", many])
    answers = model.reverse(iter(["one", many]))
    assert next(answers) == "eno"
    with pytest.raises(VocabularyError, match="text 2"):
        next(answers)
    with pytest.raises(ModelNotFoundError, match="no model 'lstn'"):
        stackrev.load("lstn")


def save(folder, *, task="reversal"):
    config = Config(
        model=LSTMConfig(hidden_size=4, layers=1, embedding_width=3),
        training=TrainingConfig(),
        data=DataConfig(task=task),
    )
    build(config.model).save_pretrained(folder, config=config)


def test_a_folder_that_is_written_anew_is_read_anew(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(names.resolve(DEFAULT), folder)
    assert stackrev.reverse("abc", model=folder) == stackrev.reverse("abc", model=str(folder)) == "cba"
    save(folder)
    assert stackrev.reverse("abc", model=folder) != "cba"


def test_a_model_of_another_task_is_refused(tmp_path):
    save(tmp_path / "model", task="copy")
    with pytest.raises(ConfigError, match="has learned copy, not reversal"):
        stackrev.load(tmp_path / "model")


def test_what_it_was_opened_from_is_there_in_torch():
    model = stackrev.load(DEFAULT)
    assert repr(model) == f"stackrev.load({DEFAULT!r})"
    assert model.checkpoint.config.model.kind == DEFAULT
    assert model.checkpoint is model.checkpoint


@pytest.mark.skipif(not kernels.available(), reason="without compiled kernels torch does it")
def test_one_line_needs_no_torch_where_the_kernels_are():
    code = "import stackrev, sys; print(stackrev.reverse('hello'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "olleh False\n"
