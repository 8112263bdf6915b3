"""Rewrite the tables in README.md, docs/data.md and docs/results/ from the measurements in docs/results/data/.

    python -m benchmarks.tables

A table stands between two marks, and FILE.json is in docs/results/data/:

    <!-- table: FILE.json NAME -->
    <!-- /table -->

| FILE.json is written by          | NAME                                                    |
|----------------------------------|---------------------------------------------------------|
| pipeline.evaluate (metrics.json) | methods, outcomes, search or genres                     |
| benchmarks.quality.item_cold     | comparison, buckets or artists, then a feature set, and |
|                                  | maybe `against` and a method: `buckets text against X`  |
| bench.sh                         | speed, then the report's name: `speed index_scale`      |
| benchmarks.speed.formats         | formats                                                 |
| benchmarks.quality.examples      | examples, then vectors and figure: `examples encoder    |
|                                  | AUC`                                                    |
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.quality import examples_table
from benchmarks.quality.item_cold import table as item_cold
from benchmarks.speed import formats, speeds
from configs.errors import UserError

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- table: (\S+) (.+?) -->\n)(.*?)(<!-- /table -->)", re.S)


def main(root: Path = ROOT) -> None:
    """Rewrite every page whose tables differ from the measurements."""
    for page in pages(root):
        text = page.read_text("utf-8")
        written = filled(text, root / "docs" / "results" / "data")
        if written != text:
            page.write_text(written, "utf-8")
            print(f"{page.relative_to(root)}: rewritten")


def pages(root: Path) -> list[Path]:
    """The pages that may hold tables."""
    return [root / "README.md", root / "docs" / "data.md", *sorted((root / "docs" / "results").glob("*.md"))]


def filled(page: str, data: Path) -> str:
    """The page with the table of each block made anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{rendered(data / block[2], block[3])}\n{block[5]}", page)


def rendered(file: Path, name: str) -> str:
    """One table as Markdown.

    Raises:
        UserError: no such file, or it holds no such table.
    """
    if not file.is_file():
        raise UserError(f"table: {file.name} {name}: docs/results/data has no {file.name}")
    found: Any = json.loads(file.read_text("utf-8"))
    kind, _, part = name.partition(" ")
    if kind == "speed" and part in speeds.READERS:
        return table.lines(speeds.HEAD, speeds.rows(part, found))
    if kind == "formats" and "formats" in found:
        return table.lines(formats.HEAD, formats.rows(found))
    if kind == "examples" and "spaces" in found and part in examples_table.names(found):
        return examples_table.table(found, part)
    of_item_cold = {"comparison": item_cold.comparison, "buckets": item_cold.buckets, "artists": item_cold.artists}
    if kind in of_item_cold and isinstance(found, list):
        features, _, reference = part.partition(" against ")
        rows = [row for row in found if row["features"] == features]
        if rows and (kind != "artists" or "songs_known_artist" in rows[0]):
            rows = item_cold.against(rows, reference) if reference else rows
            return of_item_cold[kind](rows, reference or "firstplay")
    elif isinstance(found, dict) and "audience" in found and name in (named := table.sections([found])):
        return named[name]
    raise UserError(f"table: {file.name} {name}: {file.name} holds no such table")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(__doc__)
        raise SystemExit(0 if sys.argv[1] in ("-h", "--help") else 2)
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
