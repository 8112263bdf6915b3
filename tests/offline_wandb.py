"""Reads what an offline W&B run wrote, record by record: what `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEAD, FULL, LAST = 1 << 15, 7, 1, 4  # LevelDB's log format, after seven bytes of W&B's own


def records(path: Path) -> Iterator[Record]:
    """All whole records of a .wandb file."""
    data, at, parts = path.read_bytes(), HEAD, b""
    assert data[:4] == b":W&B"
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:  # too little is left of the block for another head
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEAD])
        parts += data[at + HEAD : at + HEAD + size]
        at += HEAD + size
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""


class OfflineRun:
    """One offline-run-* folder: `id`, `job`, `config`, `history` (a dict a row), `summary`, `used` and `made`
    (artifacts: name → type, digest, files), `media` (files that were logged)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history = folder, []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.used: dict[str, dict[str, Any]] = {}
        self.made: dict[str, dict[str, Any]] = {}
        (path,) = folder.glob("run-*.wandb")
        for record in records(path):
            kind = record.WhichOneof("record_type")
            getattr(self, f"_{kind}", lambda _: None)(getattr(record, kind))
        self.media = {file.relative_to(folder / "files").as_posix() for file in (folder / "files/media").rglob("*.*")}

    def _run(self, run: Any) -> None:
        self.id, self.job, self.project, self.resumes = run.run_id, run.job_type, run.project, run.resume
        self.group, self.name = run.run_group, run.display_name
        self.config |= {one.key: json.loads(one.value_json) for one in run.config.update}

    def _history(self, row: Any) -> None:
        found: dict[str, Any] = {}
        for item in row.item:
            place, (*path, last) = found, list(item.nested_key) or [item.key]
            for key in path:
                place = place.setdefault(key, {})
            place[last] = json.loads(item.value_json)
        self.history.append(found)

    def _summary(self, summary: Any) -> None:
        for one in summary.update:
            self.summary["/".join(one.nested_key) or one.key] = json.loads(one.value_json)

    def _artifact(self, one: Any) -> None:
        if one.type == "run_table":  # which W&B adds for every table
            return
        files = {entry.path: entry.local_path for entry in one.manifest.contents}
        found = {"type": one.type, "digest": one.digest, "files": files}
        (self.used if one.use_after_commit else self.made)[one.name] = found

    def values(self, key: str) -> list[tuple[int, Any]]:
        """(trainer/global_step, value) of every row that has the key."""
        return [(row.get("trainer/global_step", -1), row[key]) for row in self.history if key in row]

    def table(self, key: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of the last table that was logged under a key."""
        (*_, (_, value)) = self.values(key)
        found = json.loads((self.folder / "files" / value["path"]).read_text("utf-8"))
        return found["columns"], found["data"]


def runs_in(folder: Path) -> list[OfflineRun]:
    """The offline runs of a folder, the earliest first."""
    return [OfflineRun(one) for one in sorted((folder / "wandb").glob("offline-run-*"))]
