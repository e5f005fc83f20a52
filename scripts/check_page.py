"""Compare the network of `stackrev page`, in a browser, with the compiled kernels.

    python scripts/check_page.py [--model NAME] [--texts 1000] [--seed 0]

Every symbol that is written has to be the same, and every gate within 1e-5. Needs chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from agreement import compare, draw
from browser import CHROMIUM, Browser

from stackrev import page
from stackrev.cli.common import DEFAULT_MODEL, find_model

TOLERANCE = 1e-5


def main() -> None:
    """Compare, and exit with 1 if there is a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("chromium is not installed")
    folder = find_model(asked.model)
    with tempfile.TemporaryDirectory() as temporary, Browser(Path(temporary) / "profile") as browser:
        path = Path(temporary) / "page.html"
        path.write_text(page.compose(page.read(folder, asked.model), ""), encoding="utf-8")
        browser.open(path.as_uri())
        found = compare(browser, folder, draw(asked.texts, asked.seed))
    print(
        f"{found.texts:,} texts, {found.symbols:,} symbols written, {found.gates:,} gates ({found.partial:,} partial)"
    )
    print(f"texts with another symbol: {len(found.wrong)}; furthest gate: {found.furthest:.2e}")
    if found.wrong or found.furthest > TOLERANCE:
        sys.exit(f"they differ, first in {found.wrong[:1]}")


if __name__ == "__main__":
    main()
