"""Compare the network of `stackrev page`, in a browser, with the compiled kernels; and see whether it trains there.

    python scripts/check_page.py [--model NAME] [--texts 1000] [--seed 0]
    python scripts/check_page.py --train 0 1 2 3 4

Every symbol that is written has to be the same, and every gate within 1e-5. Every network that is trained has to
reverse 200 fresh strings of 65-128 symbols within a minute. Needs chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from agreement import compare, draw
from browser import CHROMIUM, Browser

from stackrev import page
from stackrev.cli.common import DEFAULT_MODEL, find_model

TOLERANCE = 1e-5
LONGEST = 60
"""Seconds within which a network has to learn."""


def main() -> None:
    """Compare, or train, and exit with 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, nargs="+", metavar="SEED")
    asked = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("chromium is not installed")
    folder = find_model(asked.model)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        Browser(Path(temporary) / "profile") as browser,
    ):
        path = Path(temporary) / "page.html"
        path.write_text(page.compose(page.read(folder, asked.model), ""), encoding="utf-8")
        browser.open(path.as_uri())
        if asked.train:
            failed = [seed for seed in asked.train if not learns(browser, seed)]
            sys.exit(f"not within {LONGEST} s: {failed}" if failed else 0)
        found = compare(browser, folder, draw(asked.texts, asked.seed))
    print(
        f"{found.texts:,} texts, {found.symbols:,} symbols written, {found.gates:,} gates ({found.partial:,} partial)"
    )
    print(f"texts with another symbol: {len(found.wrong)}; furthest gate: {found.furthest:.2e}")
    if found.wrong or found.furthest > TOLERANCE:
        sys.exit(f"they differ, first in {found.wrong[:1]}")


def learns(browser: Browser, seed: int) -> bool:
    """Train a network from a seed to its end, and tell whether it had learned in time."""
    browser.ask(f"at('train-seed').value = {seed}; at('train').click()")
    while browser.ask("learning.worker !== null"):
        time.sleep(0.5)
    print(f"seed {seed}: {browser.ask('at(`train-status`).textContent')}", flush=True)
    seconds = browser.ask("learning.result && learning.result.seconds")
    return seconds is not None and seconds <= LONGEST


if __name__ == "__main__":
    main()
