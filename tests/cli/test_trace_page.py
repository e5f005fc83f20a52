"""The trace's page: what is in the file, and how it works in a real browser, by slider, keys and ear."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import shutil
import subprocess
import time
from html.parser import HTMLParser
from random import Random

import pytest
from handmade import handmade_reverser
from test_trace import long_trace

from stackrev.cli import trace as shown
from stackrev.evaluation.traces import Trace, trace
from stackrev.structures.columns import FAINT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
TEXT = "hé</script><!--日 & \u2028"
WRITTEN = "\u2028 & 日--!<>tpircs/<éh&"


@pytest.fixture(scope="module")
def page() -> str:
    return shown.page(trace(handmade_reverser(), TEXT))


def test_the_file_needs_nothing_but_itself(page):
    addresses = re.findall(r"(?:https?:)?//[\w.]+", page)
    assert set(addresses) <= {"http://www.w3.org"}  # the name of SVG, which nobody fetches
    assert "default-src 'none'" in page
    assert not re.search(r"<(link|img|iframe)\b|\bsrc=|@import|url\(", page)


def test_no_text_breaks_out_of_the_script(page):
    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.append(tag)

    Parser().feed(page)
    assert found.count("script") == 1
    data = re.search(r"const run = (.*);\n", page)
    run = json.loads(data[1])
    assert run["text"] == TEXT
    assert run["written"] == WRITTEN
    assert len(run["fed"]) == len(run["push"]) == 2 * len(TEXT) + 2


class Browser:
    """Chromium at the other end of a pipe: its DevTools protocol, an object at a time."""

    def __init__(self, folder) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        command = [
            "bash",
            "-c",
            shell,
            "bash",
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._count, self._session = b"", 0, None

    def call(self, method: str, **params) -> dict:
        self._count += 1
        request = {"id": self._count, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        end = time.monotonic() + 120
        while time.monotonic() < end:
            *messages, self._rest = self._rest.split(b"\0")
            for place, message in enumerate(messages):
                answer = json.loads(message)
                if answer.get("id") == self._count:
                    self._rest = b"\0".join([*messages[place + 1 :], self._rest])
                    assert "error" not in answer, answer
                    return answer["result"]
            if select.select([self._read], [], [], 5)[0]:
                piece = os.read(self._read, 1 << 20)
                assert piece, "the browser is gone"
                self._rest += piece
        raise TimeoutError(method)

    def open(self, address: str) -> None:
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.navigate", url=address)
        end = time.monotonic() + 60
        while self.ask("document.readyState + (window.location.href != 'about:blank')") != "completetrue":
            assert time.monotonic() < end
            time.sleep(0.05)

    def ask(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    running = Browser(tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


@pytest.fixture
def opened(browser, page, tmp_path):
    path = tmp_path / "trace.html"
    path.write_text(page, encoding="utf-8")
    browser.open(path.as_uri())
    return browser


STEPS = 2 * len(TEXT) + 2
COUNT = "document.getElementById('count').textContent"


def test_keys_step_through_the_run(opened):
    assert opened.ask(COUNT) == f"1 / {STEPS}"
    for key, code, place in (
        ("ArrowRight", 39, 2), ("ArrowRight", 39, 3), ("ArrowLeft", 37, 2), ("End", 35, STEPS),
        ("ArrowRight", 39, STEPS), ("Home", 36, 1), ("ArrowLeft", 37, 1), ("PageDown", 34, 1), ("PageUp", 33, 11),
    ):  # fmt: skip
        opened.press(key, code)
        assert opened.ask(COUNT) == f"{place} / {STEPS}", key
    opened.ask("document.getElementById('slider').focus()")
    opened.press("ArrowRight", 39)
    assert opened.ask(COUNT) == f"12 / {STEPS}"


def test_slider_and_buttons_do_too(opened):
    opened.ask("slider.value = 5; slider.dispatchEvent(new Event('input'))")
    assert opened.ask(COUNT) == f"5 / {STEPS}"
    opened.ask("document.getElementById('forth').click()")
    assert opened.ask(COUNT) == f"6 / {STEPS}"
    opened.ask("document.getElementById('play').click()")
    end = time.monotonic() + 30
    while opened.ask(COUNT) == f"6 / {STEPS}":
        assert time.monotonic() < end
        time.sleep(0.1)
    opened.press("Home", 36)
    assert opened.ask("document.getElementById('play').getAttribute('aria-pressed')") == "false"


def test_the_column_is_to_scale(opened):
    opened.ask("show(4)")
    rects = opened.ask(
        "[...document.querySelectorAll('rect')].map(each => [+each.getAttribute('y'), +each.getAttribute('height'),"
        " +each.dataset.strength])"
    )
    assert len(rects) == 4
    units = {round(height / strength, 6) for _, height, strength in rects}
    assert len(units) == 1
    for (upper, height, _), (lower, _, _) in itertools.pairwise(rects):
        assert upper + height == pytest.approx(lower)
    assert opened.ask("document.querySelectorAll('rect + text, rect ~ text').length") >= 4


def test_the_page_works_out_the_column_as_we_do(browser, tmp_path):
    random = Random(0)
    gates = [[random.choice([0, 1, 0.003, random.random()]) for _ in range(80)] for _ in range(2)]
    marks = tuple("x" * 80)
    found = Trace(marks, marks[40:], *(tuple(map(float, each)) for each in gates), stored=marks, reads=marks)
    path = tmp_path / "trace.html"
    path.write_text(shown.page(found), encoding="utf-8")
    browser.open(path.as_uri())
    columns = found.columns()
    for step in range(80):
        theirs = browser.ask(f"[...elements({step})].map(each => [each.step, each.bottom, each.strength, each.read])")
        ours = [each for each in columns.elements(step) if each.strength >= FAINT]
        assert theirs == [[each.step + 1, each.bottom, each.strength, each.read] for each in ours]
        assert browser.ask(f"height[{step}]") == columns.heights[step]


def test_of_a_tall_column_only_what_is_seen_is_drawn(browser, tmp_path):
    path = tmp_path / "trace.html"
    path.write_text(shown.page(long_trace(2_000)), encoding="utf-8")
    browser.open(path.as_uri())
    rects = "document.querySelectorAll('rect').length"
    assert browser.ask("show(2001); " + rects) < 200
    assert browser.ask("document.getElementById('column-title').textContent").endswith("with 2001 elements")
    first = "document.querySelector('rect + text').textContent"
    assert browser.ask(first) == "b"
    # scrolled to its lower end, the column shows what was pushed first
    bottom = "document.querySelector('figure').scrollTop = 1e9; paint(); [...document.querySelectorAll('rect + text')]"
    assert browser.ask(f"{bottom}.at(-1).textContent") == "&"
    assert browser.ask(rects) < 200
    opened = browser.ask("show(3); document.querySelector('#input .now').textContent")
    assert opened == "b"
    assert browser.ask("document.querySelectorAll('#input .done').length") == 2
    assert browser.ask("show(4002); document.querySelectorAll('#input .done').length") == 2001


def test_a_screen_reader_is_told(opened):
    opened.ask("show(3)")
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    told = {(each["role"]["value"], each.get("name", {}).get("value")) for each in nodes if not each["ignored"]}
    assert ("slider", "Step") in told
    assert ("button", "Step forward") in told
    assert any(role == "image" and name.startswith("A column of height 3.00") for role, name in told if name)
    slider = "document.getElementById('slider')"
    assert opened.ask(f"{slider}.getAttribute('aria-valuetext')") == "step 3, reads é"
    statuses = [each for each in nodes if not each["ignored"] and each["role"]["value"] == "status"]
    properties = [{each["name"]: each["value"].get("value") for each in node["properties"]} for node in statuses]
    assert any(each.get("live") == "polite" for each in properties)
    text = opened.ask("document.getElementById('status').textContent")
    assert text.startswith(f"Step 3 of {STEPS}: the network reads é, pops 0.00, pushes 1.00.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(opened, scheme):
    opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    colours = opened.ask("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    back, ink = (sum(map(int, re.findall(r"\d+", each)[:3])) for each in colours)
    assert (back > 600 and ink < 150) if scheme == "light" else (back < 150 and ink > 600)


def test_it_fits_a_telephone(opened):
    metrics = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    opened.call("Emulation.setDeviceMetricsOverride", **metrics)
    assert opened.ask("document.documentElement.scrollWidth") <= 360
    opened.call("Emulation.clearDeviceMetricsOverride")
