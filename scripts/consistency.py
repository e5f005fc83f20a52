"""Train one setting with many seeds, or every named one: `stackrev experiment`, with the figure and the table.

    python scripts/consistency.py runs/default --seeds 0-99 --exact 10000,1000000:1
    python scripts/consistency.py runs/table --table --seeds 0-19
    python scripts/consistency.py runs/default --rerun 17

`stackrev experiment run`, `rerun` and `table` do the same for one setting at a time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stackrev import cli, figures
from stackrev.errors import MissingExtraError, StackrevError
from stackrev.experiments import presets, seeds, tables
from stackrev.experiments.setting import read_setting
from stackrev.storage import files


def draw(folder: Path) -> None:
    """Write the consistency figure, if figures can be drawn here."""
    histories = [each["history"] for each in seeds.read_seeds(folder).values() if each["history"]]
    try:
        figure = figures.learning.by_seed(histories, title=read_setting(folder).name)
    except MissingExtraError as error:
        print(f"no figure: {error.message} ({error.hint})", file=sys.stderr)
        return
    for format_ in figures.FORMATS:
        files.write(folder / f"consistency.{format_}", figures.render(figure, format_))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="where the runs are kept, and go on from")
    parser.add_argument("--seeds", default="0-99", help="such as 0-99, or 3,5,10-19")
    parser.add_argument("--setting", choices=list(presets.PRESETS), default="default", help="a named setting")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as hidden_size=32")
    parser.add_argument("--exact", default="", metavar="LENGTHS", help="try solved runs on longer strings: 10000:20")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--table", action="store_true", help="run the named settings, one folder each")
    parser.add_argument("--rows", help="which of them, comma-separated")
    parser.add_argument("--rerun", metavar="SEED", help="train a stored seed again and compare")
    options = parser.parse_args(arguments)
    if options.rerun is not None:
        return cli.main(["experiment", "rerun", str(options.folder), options.rerun])
    names = [options.setting]
    if options.table:
        names = options.rows.split(",") if options.rows else list(presets.TABLE)
    folders = []
    for name in names:
        folder = options.folder / name.replace(" ", "-") if options.table else options.folder
        command = ["experiment", "run", str(folder), "--seeds", options.seeds, "--workers", str(options.workers)]
        command += ["--setting", name, *(["--name", name] if options.table else [])]
        command += [part for each in options.set for part in ("--set", each)]
        if code := cli.main([*command, *(["--exact", options.exact] if options.exact else [])]):
            return code
        folders.append(folder)
        draw(folder)
    if options.table:
        results = [(read_setting(each).name, list(seeds.read_seeds(each).values())) for each in folders]
        tables.write_table(options.folder, tables.tabulate([tables.summarise(*each) for each in results]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackrevError as caught:
        print(f"error: {caught.message}" + (f" ({caught.hint})" if caught.hint else ""), file=sys.stderr)
        sys.exit(1)
