"""The reports of bench.sh → one Markdown table: what was done, how fast, and how it stands beside its peer.

python -m benchmarks.speed.speeds runs/bench/small
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import lines
from configs.errors import UserError

Row = tuple[str, str, str, float | None]  # what, ours, its peer, how many times as fast
HEAD = ("what", "ours", "beside", "ours over it")


def main(folder: str) -> None:
    """Print the table of a folder of reports."""
    files = [file for name in READERS if (file := Path(folder) / f"{name}.json").exists()]
    if not files:
        raise UserError(f"{folder} holds no report: sh bench.sh small|full writes them")
    print(lines(HEAD, [row for file in files for row in rows(file.stem, json.loads(file.read_text("utf-8")))]))


def rows(name: str, report: Any) -> list[list[str]]:
    """A report as rows of text; a ratio of 1.0 is level."""
    return [[*words, "–" if ratio is None else f"{ratio:.2f}"] for *words, ratio in READERS[name](report)]


def audience(report: dict[str, Any]) -> Iterator[Row]:
    """I2I2U beside the dense form and beside a join; CAT and the reasons alone; for each size."""
    peers = {"plain": "dense scores and argpartition", "polars": "a join in polars"}
    for row in report["sizes"]:
        seconds = row["seconds"]
        what = f"{report['options']['new']:,} new songs, {row['users']:,} users, {row['entries']:,} distinct plays"
        for name, peer in peers.items():
            theirs = f"{peer} {row[f'{name}_i2i2u_seconds_for_all_songs']:.1f} s"
            yield f"I2I2U, {what}", f"{seconds['i2i2u']:.1f} s", theirs, row[f"{name}_over_ours"]
        yield f"CAT, {what}", f"{seconds['cat']:.1f} s", "–", None
        yield f"reasons, {what}", f"{seconds['reasons']:.1f} s, at most {row['peak_memory_mb']:,} MB", "–", None


def boundary(report: dict[str, Any]) -> Iterator[Row]:
    """Both indexes of the users beside the dense form."""
    o, plain = report["options"], f"dense margins and argpartition {report['plain_seconds_for_all_songs']:.1f} s"
    for kind, ratio in report["plain_over_ours"].items():
        what = f"users above their boundary, {o['new']:,} songs, {o['users']:,} users, {kind}"
        ours = (
            f"{report['seconds'][f'users of songs, {kind}']:.1f} s, {report['share_of_exact_list'][kind]:.1%} of them"
        )
        yield what, ours, plain, ratio


def index(report: dict[str, Any]) -> Iterator[Row]:
    """The chosen index beside FAISS alone."""
    for row in report["sizes"]:
        what = f"similar songs among {row['songs']:,}, {row['kind']}"
        ours = f"{row['queries_per_second']:,.0f} a second, recall@10 {row['recall@10']:.3f}, {row['index_mb']:,} MB"
        yield what, ours, f"FAISS alone {row['faiss_queries_per_second']:,.0f} a second", row["ours_over_faiss"]


def prepare(report: dict[str, Any]) -> Iterator[Row]:
    """Song pairs beside implicit, prepare in bounded memory beside all at once."""
    for name, found in report.items():
        if not name.endswith(" plays"):
            continue
        size = f"{int(name.split()[0]):,} plays"
        for what, ours, peer in (("pairs", "ours", "implicit"), ("prepare", "bounded", "at once")):
            one, other = found[what][ours], found[what][peer]
            mine, theirs = (f"{side['seconds']:.1f} s, {side['peak_memory_mb']:,.0f} MB" for side in (one, other))
            yield f"{what}, {size}", mine, f"{peer} {theirs}", other["seconds"] / one["seconds"]


def overhead(report: dict[str, Any]) -> Iterator[Row]:
    """Training steps beside a bare loop."""
    for task in ("i2i", "boundary"):
        row = report[task]
        ours = f"{row['steps_a_second']:.1f} steps a second, {row['share_of_waiting_for_data']:.1%} of them for data"
        bare = f"bare loop {row['steps_a_second_bare']:.1f}"
        yield f"training {task}", ours, bare, row["ours_over_bare"]


def serve(report: dict[str, Any]) -> Iterator[Row]:
    """The service under the most clients beside its parts in one process."""
    size, most = f"{report['users']:,} users, {report['known_songs']:,} songs", max(report["options"]["clients"])
    for one in report["phases"]:
        if one["clients"] == most:
            p50, p99 = (one["service"][f"p{part}_ms"] for part in (50, 99))
            ours = f"{one['service']['per_second']:.1f} a second, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
            alone = f"without HTTP {one['in_process']['per_second']:.1f} a second"
            yield f"{one['kind']}, {size}, {most} clients", ours, alone, one["service_over_in_process"]


READERS = {
    "audience_scale": audience,
    "boundary_scale": boundary,
    "index_scale": index,
    "prepare_scale": prepare,
    "train_overhead": overhead,
    "serve_load": serve,
}


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        raise SystemExit(0 if len(sys.argv) == 2 else 2)
    try:
        main(sys.argv[1])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
