"""Training in the page: its derivatives, its network, and that it learns."""

from __future__ import annotations

import time
from importlib import resources

import pytest
import torch
from browser import CHROMIUM, Browser

from stackrev import page
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build
from stackrev.storage import names
from stackrev.tasks.batches import make_batch

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

SMALL = "{ ...RECIPE, hidden: 8, width: 4, symbols: 5, batch: 6 }"
STRINGS = "[[0, 1, 2, 3, 4], [2, 2, 1], [4, 0, 3, 1, 2, 0, 1], []]"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    path = folder / "page.html"
    path.write_text(page.compose(page.read(names.resolve("stack-lstm"), "stack-lstm"), "abc"), encoding="utf-8")
    with Browser(folder / "chromium") as browser:
        browser.open(path.as_uri())
        yield browser
        assert browser.complaints == []


@pytest.fixture
def trainer(opened):
    """The worker's script in the page itself, in float64, so that differences say what derivatives should be."""
    room = resources.files("stackrev.page")
    script = "".join(room.joinpath(name).read_text() for name in ("arithmetic.js", "batch.js", "train.js"))
    opened.ask(
        f"""globalThis.inside = (() => {{ {script.replace("Float32Array", "Float64Array")}
            return {{ Trainer, Batch, Random, RECIPE: {{ ...RECIPE, checkBelow: 9 }}, exported, sample, train }}; }})();
        globalThis.RECIPE = inside.RECIPE;
        globalThis.batchOf = () => new inside.Batch({STRINGS}.map(each => Uint8Array.from(each)));
        globalThis.trainer = new inside.Trainer(3, {SMALL});
        0"""
    )
    return opened


def test_its_derivatives_are_differences(trainer):
    found = trainer.ask(
        """(() => {
            for (let i = 0; i < 12; i++) trainer.learn();
            const batch = batchOf(), loss = () => {
                trainer.random = new inside.Random(9);
                trainer.forward(batch, true);
                trainer.readOut(batch);
                return trainer.loss(batch);
            };
            loss();
            trainer.backward(batch);
            const gradients = trainer.gradients.slice(), step = 1e-5, found = {};
            let start = 0;
            for (const [name, [rows, columns]] of Object.entries(trainer.shapes)) {
                let worst = 0, largest = 0;
                for (let i = start; i < start + rows * columns; i++) {
                    const was = trainer.weights[i];
                    trainer.weights[i] = was + step;
                    const above = loss();
                    trainer.weights[i] = was - step;
                    const difference = (above - loss()) / (2 * step);
                    trainer.weights[i] = was;
                    worst = Math.max(worst, Math.abs(difference - gradients[i]));
                    largest = Math.max(largest, Math.abs(difference));
                }
                found[name] = [worst, largest];
                start += rows * columns;
            }
            return found;
        })()"""
    )
    assert len(found) == 16
    for name, (worst, largest) in found.items():
        assert worst < 1e-8, name
        assert largest > 1e-5, name


def test_its_loss_is_torch_s(trainer):
    shape, weights, loss = trainer.ask(
        """(() => {
            trainer.forward(batchOf(), false);
            trainer.readOut(batchOf());
            const { shape, weights } = inside.exported(trainer);
            for (const name in weights) weights[name] = [...weights[name]];
            return [shape, weights, trainer.loss(batchOf())];
        })()"""
    )
    config = StackLSTMConfig(hidden_size=8, stack_width=4, vocabulary_size=8)
    model = build(config, torch.Generator()).double().eval()
    assert shape == {"hidden": 8, "width": 4, "layers": 1, "vocabulary": 8, "stretch": config.gate_stretch}
    model.load_state_dict(
        {name: torch.tensor(weights[name]).reshape(each.shape) for name, each in model.state_dict().items()}
    )
    assert set(weights) == set(model.state_dict())
    strings = [[0, 1, 2, 3, 4], [2, 2, 1], [4, 0, 3, 1, 2, 0, 1], []]
    batch = make_batch([torch.tensor([3 + each for each in string], dtype=torch.int64) for string in strings])
    with torch.inference_mode():
        logits = model.read_out(model.hidden(batch))
    right = logits.log_softmax(-1).gather(-1, batch.target[..., None])[..., 0]
    inside = torch.arange(len(right))[:, None] < batch.target_steps
    assert -float(right[inside].mean()) == pytest.approx(loss, rel=1e-10)


def test_a_seed_decides(trainer):
    losses = trainer.ask(f"[3, 3, 4].map(seed => new inside.Trainer(seed, {SMALL}).learn().loss)")
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.slow
def test_it_learns_and_is_tried(opened):
    opened.ask("at('train-seed').value = 1; at('train').click()")
    end = time.monotonic() + 600
    while opened.ask("learning.worker !== null"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert "it reverses 200 of 200 new strings of 65 to 128 (1.000)" in opened.ask("at('train-told').textContent")
    points = opened.ask("learning.points.map(each => [each.loss, ...each.push, ...each.pop])")
    first, last = points[0], points[-1]
    assert first[0] > 2.5 > 0.2 > last[0]
    assert last[1:] == pytest.approx([1, 0, 0, 1], abs=0.05)
    assert opened.ask("at('sample-output').textContent === at('sample-wanted').textContent")
    opened.ask("at('train-use').click()")
    opened.ask(
        "at('text').value = 'a new text'; at('text').dispatchEvent(new Event('input')); run.advance(); conclude()"
    )
    assert opened.ask("at('answer').textContent") == "txet wen a"
    assert opened.ask("at('verdict').textContent").startswith("✓ Right")
    assert opened.ask("at('model').textContent") == (
        "At work: the network trained here from seed 1, which knows 26 symbols."
    )
    opened.ask("at('train-leave').click()")
    assert opened.ask("model === packaged && at('model').hidden")


def test_it_can_be_stopped(opened):
    opened.ask("at('train').click()")
    end = time.monotonic() + 60
    while opened.ask("learning.points.length") < 2:
        assert time.monotonic() < end
    opened.ask("at('train-stop').click()")
    assert opened.ask("learning.worker === null && at('train-stop').hidden")
    assert opened.ask("at('train-told').textContent") == "Training has been stopped."
