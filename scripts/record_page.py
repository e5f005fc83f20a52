"""Record what `stackrev page` writes for the documentation, as a browser shows it.

    python scripts/record_page.py [TEXT] [--step 28] [--folder docs] [--all]

writes page.png, 1280 by 800 and in light colours; with --all also a telephone's, and both in dark. Needs chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import CHROMIUM, Browser

from stackrev import page
from stackrev.cli.common import DEFAULT_MODEL, find_model

SIZES = ((1280, 800), (390, 844))
SCHEMES = ("light", "dark")


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="A string to reverse")
    parser.add_argument("--step", type=int, default=28)
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("chromium is not installed")
    asked.folder.mkdir(parents=True, exist_ok=True)
    html = page.compose(page.read(find_model(DEFAULT_MODEL), DEFAULT_MODEL), asked.text)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        Browser(Path(temporary) / "profile") as browser,
    ):
        path = Path(temporary) / "page.html"
        path.write_text(html, encoding="utf-8")
        for size in SIZES if asked.all else SIZES[:1]:
            for scheme in SCHEMES if asked.all else SCHEMES[:1]:
                width, height = size
                address = f"{path.as_uri()}#step={asked.step}"
                browser.open(address, width=width, height=height, features={"prefers-color-scheme": scheme})
                while browser.ask("now") != asked.step:
                    time.sleep(0.05)
                name = f"page-{width}x{height}-{scheme}.png" if asked.all else "page.png"
                browser.picture(asked.folder / name)


if __name__ == "__main__":
    main()
