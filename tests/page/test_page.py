"""The page: what is in the file, and how it works in a real browser, by slider, keys and ear."""

from __future__ import annotations

import itertools
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest
import torch
from agreement import compare, draw
from browser import CHROMIUM, Browser
from handmade import handmade_reverser

from stackrev import kernels, page
from stackrev.errors import ConfigError
from stackrev.kinds.config import Config
from stackrev.kinds.rnn import RNNConfig
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import build
from stackrev.models.certification import certify_run
from stackrev.page.compose import Contents
from stackrev.storage import checkpoints, names
from stackrev.structures.columns import FAINT, Columns
from stackrev.tasks import text as texts
from stackrev.tasks.data import DataConfig

TEXT = "hé</script><!--日 & \u2028"
STEPS = 2 * len(TEXT) + 2
FINISH = "run.advance(); conclude(); show(wish ?? now);"  # rather than in slices between frames
COUNT = "document.getElementById('count').textContent"
STATUS = "document.getElementById('status').textContent"
browsing = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def saved(folder: Path, model) -> Path:
    checkpoints.save(folder, model.state_dict(), Config(model=model.config))
    return folder


@pytest.fixture(scope="module")
def handmade(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("handmade"), handmade_reverser())


@pytest.fixture(scope="module")
def contents(handmade) -> Contents:
    return page.read(handmade, "<b>handmade</b>")


@pytest.fixture(scope="module")
def written(contents, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page.compose(contents, TEXT), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def opened(browser, written):
    browser.open(written.as_uri())
    browser.ask(FINISH)
    yield browser
    assert browser.complaints == []


def scripts(html: str) -> list[str]:
    found, inside = [], []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.append(tag)
            if tag == "script":
                inside.append("")

        def handle_data(self, data):
            if found and found[-1] == "script":
                inside[-1] += data

    Parser().feed(html)
    assert found.count("script") == 6
    assert "b" not in found[found.index("script") :]
    return inside


class TestFile:
    def test_it_needs_nothing_but_itself(self, written):
        html = written.read_text()
        assert not re.search(r"(?:https?:)?//[\w.]+\.\w", html)
        assert "default-src 'none'" in html
        assert not re.search(r"<(link|img|iframe)\b|\bsrc=|@import|url\(", html)
        assert "/*PUT" not in html

    def test_nothing_breaks_out_of_the_script(self, written):
        data = json.loads(scripts(written.read_text())[0])
        assert (data["text"], data["name"]) == (TEXT, "<b>handmade</b>")

    def test_the_packaged_model_s_is_small(self):
        contents = page.read(names.resolve("stack-lstm"), "stack-lstm")
        assert len(page.compose(contents, "")) < 1_500_000
        assert len(contents.values) == 4 * sum(torch.Size(shape).numel() for _, shape in contents.weights)

    def test_what_has_no_page(self, tmp_path):
        saved(tmp_path / "rnn", build(RNNConfig(hidden_size=4, embedding_width=4), torch.Generator()))
        with pytest.raises(ConfigError, match="no stack to show"):
            page.read(tmp_path / "rnn", "x")
        model = build(StackLSTMConfig(hidden_size=4, stack_width=4), torch.Generator())
        checkpoints.save(
            tmp_path / "copy", model.state_dict(), Config(model=model.config, data=DataConfig(task="copy"))
        )
        with pytest.raises(ConfigError, match="has learned copy"):
            page.read(tmp_path / "copy", "x")

    def test_the_margins_are_those_of_a_proof(self, contents, tmp_path):
        assert contents.margins is None
        folder = saved(tmp_path, handmade_reverser())
        proof = certify_run(folder)
        found = page.read(folder, "x").margins
        assert proof.proved
        assert found is not None
        assert found["logits"] > 0
        path = folder / "certificate.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x40")
        assert page.read(folder, "x").margins is None


@browsing
class TestNetwork:
    @pytest.mark.skipif(not kernels.available(), reason="the kernels were not compiled")
    @pytest.mark.slow
    def test_it_does_what_the_kernels_do(self, browser, tmp_path):
        random = StackLSTMConfig(hidden_size=12, stack_width=5, layers=2, gate_stretch=0.05)
        shared = StackLSTMConfig(hidden_size=7, stack_width=9, gate_stretch=0.0, shared_controls=True)
        for name, folder in (
            ("packaged", names.resolve("stack-lstm")),
            ("two layers", saved(tmp_path / "two", build(random, torch.Generator().manual_seed(1)))),
            ("shared", saved(tmp_path / "shared", build(shared, torch.Generator().manual_seed(2)))),
        ):
            path = tmp_path / "page.html"
            path.write_text(page.compose(page.read(folder, name), ""), encoding="utf-8")
            browser.open(path.as_uri())
            found = compare(browser, folder, draw(40, seed=3))
            assert (found.texts, found.wrong) == (40, [])
            assert found.furthest < 1e-5
            assert name == "packaged" or found.partial > found.gates / 2

    def test_its_column_is_ours(self, opened):
        random = Random(0)
        push, pop = ([random.choice([0, 1, 0.003, random.random()]) for _ in range(80)] for _ in range(2))
        opened.ask(
            "globalThis.column80 = new Run(packaged.network, []);"
            f"{json.dumps(list(zip(push, pop, strict=True)))}.forEach(each => column80.column(...each))"
        )
        columns = Columns(push, pop)
        for step in range(80):
            theirs = opened.ask(
                f"[...column80.elements({step}, FAINT)].map(each => [each.step, each.bottom, each.strength, each.read])"
            )
            ours = [each for each in columns.elements(step) if each.strength >= FAINT]
            assert theirs == [[each.step, each.bottom, each.strength, each.read] for each in ours]
            assert opened.ask(f"column80.height.at({step})") == columns.heights[step]

    def test_it_cuts_a_text_as_we_do(self, opened):
        for text in ("", "a\r\nb", "é\r\n👩‍👩‍👧🇩🇪", "$|&", "e\u0301\u0000\x7f", "".join(map(chr, range(128)))):
            assert opened.ask(f"bind({json.dumps(text)}, 128).ids") == list(texts.bind(text).ids)

    def test_texts_that_it_refuses(self, opened):
        many = "".join(map(chr, range(0x4E00, 0x4E00 + 129)))
        for text, message in ((many, "129 different characters"), ("\ud800", "half a surrogate pair")):
            opened.ask(f"text = {json.dumps(text)}; begin()")
            assert message in opened.ask("document.getElementById('refused').textContent")
        opened.ask("text = 'abc'; begin()")
        assert opened.ask("document.getElementById('refused').hidden")
        # fewer symbols than ASCII has are given out as characters come
        assert opened.ask("bind('zebra', 5).ids") == [3, 4, 5, 6, 7]


@browsing
class TestView:
    def test_it_shows_the_answer_and_whether_it_is_right(self, opened):
        assert opened.ask("document.getElementById('answer').textContent") == TEXT[::-1]
        assert opened.ask("document.getElementById('verdict').textContent").startswith(
            f"✓ Right: all {len(TEXT)} symbols"
        )

    def test_keys_step_through_the_run(self, opened):
        assert opened.ask(COUNT) == f"{len(TEXT) + 1} / {STEPS}"
        opened.ask("show(1)")
        for key, code, place in (
            ("ArrowLeft", 37, 1), ("ArrowRight", 39, 2), ("ArrowRight", 39, 3), ("ArrowLeft", 37, 2),
        ):  # fmt: skip
            opened.press(key, code)
            assert opened.ask(COUNT) == f"{place} / {STEPS}", key
        opened.ask("document.getElementById('slider').focus()")
        for key, code, place in (("ArrowRight", 39, 3), ("End", 35, STEPS), ("ArrowRight", 39, STEPS), ("Home", 36, 1)):
            opened.press(key, code)
            assert opened.ask(COUNT) == f"{place} / {STEPS}", key
        opened.ask("document.getElementById('text').focus()")
        opened.press("ArrowRight", 39)
        assert opened.ask(COUNT) == f"1 / {STEPS}"

    def test_slider_and_buttons_do_too(self, opened):
        opened.ask("slider.value = 5; slider.dispatchEvent(new Event('input'))")
        assert opened.ask(COUNT) == f"5 / {STEPS}"
        opened.ask("document.getElementById('forth').click()")
        assert opened.ask(COUNT) == f"6 / {STEPS}"
        opened.ask("document.getElementById('play').click()")
        end = time.monotonic() + 30
        while opened.ask(COUNT) == f"6 / {STEPS}":
            assert time.monotonic() < end
            time.sleep(0.1)
        opened.press("ArrowLeft", 37)
        assert opened.ask("document.getElementById('play').getAttribute('aria-pressed')") == "false"

    @pytest.mark.parametrize("width", [390, 1280])
    def test_nothing_moves_while_it_plays(self, opened, width):
        opened.resize(width, 800)
        places = (
            "['play', 'slider', 'status', 'column', 'push', 'pop', 'says', 'held', 'keys'].map(id => "
            "Object.values(document.getElementById(id).getBoundingClientRect().toJSON()).slice(0, 2).join())"
        )
        found = {json.dumps(opened.ask(f"show({step}); {places}")) for step in range(1, STEPS + 1)}
        assert len(found) == 1

    def test_the_column_is_to_scale(self, opened):
        opened.ask("show(4)")
        boxes = opened.ask(
            "[...document.querySelectorAll('#liquid > div')].map(each => [each.getBoundingClientRect().top,"
            " each.getBoundingClientRect().height, +each.dataset.strength])"
        )
        assert len(boxes) == 4
        assert len({round(height / strength, 3) for _, height, strength in boxes}) == 1
        for (upper, height, _), (lower, _, _) in itertools.pairwise(sorted(boxes)):
            assert upper + height == pytest.approx(lower, abs=0.01)

    def test_what_is_drained_is_named(self, opened):
        opened.ask(f"{FINISH}; show(run.reading + 3)")
        written = opened.ask("mark(bound, run.written[2])")
        assert opened.ask("document.getElementById('drained').textContent") in ("", f"{written} drained 1.00")
        assert opened.ask("lost(run.reading + 2, run.height.at(run.reading + 2))") == written
        assert opened.ask("lost(1, run.height.at(1))") == ""

    def test_a_gate_that_is_held_breaks_the_reversal(self, opened):
        opened.ask("document.querySelector('[name=hold-pop][value=shut]').click();" + FINISH)
        assert opened.ask("run.written.length") == len(TEXT) + 1
        assert opened.ask("[...new Set(run.written)].length") == 1  # what is on top, again and again
        assert opened.ask("document.getElementById('verdict').textContent").startswith("✗ Wrong from symbol 2 on")
        assert opened.ask("document.querySelector('#answer .wrong').textContent") == "‹2028›"
        opened.ask("show(run.steps)")
        assert opened.ask("document.querySelectorAll('#writes .off').length") > 5
        assert "the network wants 1.00" in opened.ask("document.getElementById('pop-own').textContent")
        assert opened.ask("location.hash").endswith("&pop=shut")
        opened.ask("document.querySelector('[name=hold-pop][value=free]').click()")
        opened.ask("document.querySelector('[name=hold-push][value=shut]').click();" + FINISH)
        assert opened.ask("Math.max(...run.height.all)") == 0

    def test_a_link_carries_text_and_gates(self, browser, written):
        browser.open(written.as_uri() + "#text=a%26b%2Bc%20d+%E0&pop=half&push=wrong&step=3")
        assert browser.ask("text") == TEXT  # no UTF-8
        browser.open(written.as_uri() + "#text=a%26b%2Bc%20d+&pop=half&push=wrong&step=3")
        assert browser.ask("[text, document.getElementById('text').value]") == ["a&b+c d+"] * 2
        assert browser.ask(FINISH + "[held.push, held.pop, now]") == ["free", "half", 3]
        browser.ask("document.getElementById('text').value = 'ü#'")
        browser.ask("document.getElementById('text').dispatchEvent(new Event('input'))")
        assert browser.ask("location.hash") == "#text=%C3%BC%23&pop=half"
        browser.ask("location.hash = '#text=%3Cimg%20src=x%20onerror=broken()%3E'")
        end = time.monotonic() + 30
        while browser.ask("text") != "<img src=x onerror=broken()>":
            assert time.monotonic() < end
        assert browser.ask("document.querySelectorAll('img').length") == 0
        assert browser.complaints == []

    def test_a_long_text_is_drawn_where_it_is_seen(self, opened):
        opened.ask("text = 'ab'.repeat(2500); begin(); run.advance(); conclude(); show(run.reading)")
        assert opened.ask("document.querySelectorAll('*').length") < 600
        assert opened.ask(COUNT) == "5001 / 10002"
        assert (
            opened.ask("document.getElementById('column').getAttribute('aria-label')") == "A column of height 5001.00"
        )
        assert "more below" in opened.ask("document.getElementById('deeper').textContent")
        assert opened.ask("document.querySelector('#reads .now').textContent") == "b"
        assert opened.ask("show(7500); document.querySelector('#writes .now').textContent") in "ab"
        assert opened.ask("document.querySelectorAll('*').length") < 600

    def test_a_screen_reader_is_told(self, opened):
        opened.ask("show(3)")
        nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
        shown = [each for each in nodes if not each["ignored"]]
        told = {(each["role"]["value"], each.get("name", {}).get("value")) for each in shown}
        for role, name in (
            ("slider", "Step"), ("button", "Step forward"), ("textbox", "Your text"), ("radio", "half"),
            ("image", "A column of height 3.00"), ("group", "Push 1.00"),
        ):  # fmt: skip
            assert (role, name) in told
        assert opened.ask("document.getElementById('slider').getAttribute('aria-valuetext')") == "step 3, reads é"
        assert opened.ask(STATUS).startswith(f"Step 3 of {STEPS}: the network reads “é”, pops 0.00 and pushes 1.00.")
        live = "document.getElementById('status').getAttribute('aria-live')"
        assert opened.ask(live) == "polite"
        opened.ask("play(true)")
        assert opened.ask(live) == "off"
        opened.ask("play(false)")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_light_and_dark_can_be_read(self, opened, scheme):
        opened.prefer({"prefers-color-scheme": scheme})
        style = "getComputedStyle(document.body)"
        back, ink = (
            sum(map(int, re.findall(r"\d+", each)[:3]))
            for each in opened.ask(f"[{style}.backgroundColor, {style}.color]")
        )
        assert (back > 600 and ink < 150) if scheme == "light" else (back < 150 and ink > 600)

    def test_motion_is_only_for_those_who_want_it(self, opened):
        opened.ask("go(4); go(5)")
        shown = "getComputedStyle(document.querySelector('#liquid > div')).transitionDuration"
        assert opened.ask(shown) == "0.16s, 0.16s"
        opened.prefer({"prefers-reduced-motion": "reduce"})
        assert opened.ask(shown) == "0s"

    @pytest.mark.parametrize("width", [320, 390, 700, 1280])
    def test_it_fits_its_window(self, opened, width):
        opened.resize(width, 844)
        opened.ask("document.querySelectorAll('details').forEach(each => each.open = true); training.hidden = false")
        assert opened.ask("document.documentElement.scrollWidth") <= width
