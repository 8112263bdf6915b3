"""Fingerprints of content: equal for equal tables and files, whatever they are called, wherever and whenever written.

They tie folders together: prepared again from the same data, a catalogue is the one that a run was trained on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from artifacts.folders import MANIFEST

CONTENT = "content"  # of a manifest: the fingerprint of what its folder holds
ROWS = 200_000  # of a table that are hashed at a time


def of_values(*values: Any) -> str:
    """Fingerprint of strings, numbers and containers of them."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def of_file(path: Path) -> str:
    """Fingerprint of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def of_table(path: Path, leave_out: tuple[str, ...] = ()) -> str:
    """Fingerprint of the rows of a Parquet file in their order, however they are encoded; some columns left out.

    Stable within a version of Polars.
    """
    import polars as pl  # here: an export is loaded without it

    rows = pl.scan_parquet(path, glob=False).drop(leave_out, strict=False)
    digest = hashlib.sha256(repr(list(rows.collect_schema().items())).encode())
    for part in rows.collect_batches(chunk_size=ROWS, maintain_order=True):
        digest.update(part.hash_rows().to_numpy().tobytes())
    return digest.hexdigest()[:16]


def of_folder(folder: Path) -> str | None:
    """The fingerprint that a folder's manifest records, or of the manifest as it is where it records none.

    The latter is how folders made by earlier versions stay what they were. None: there is no manifest.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        recorded = json.loads(manifest).get(CONTENT)
    except (ValueError, AttributeError):  # damaged: whoever reads the folder says so
        recorded = None
    return str(recorded or hashlib.sha256(manifest).hexdigest()[:16])
