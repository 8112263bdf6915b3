"""Song vectors → FAISS index of the known songs, and the vectors of all songs.

    python -m pipeline.index run=RUN out=INDEX

The index folder holds index.faiss (warm songs), index_songs.npy (their song numbers), vectors.npy (all songs of the
catalogue), songs.parquet (ids) and manifest.json, which ties it to the encoder that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.errors import UserError
from configs.load import command
from configs.schema import IndexConfig
from datamodules.arrays import FloatArray, IntArray
from datamodules.catalogue import Catalogue
from datamodules.folders import read_manifest, writing
from pipeline.runs import open_run
from pipeline.tracking import made, tracked, used
from pipeline.vectors import song_vectors
from retrieval.index import build_index, search, to_cpu

KIND = "index"
MADE_BY = "python -m pipeline.index run=RUN out=INDEX"


@dataclass
class SongIndex:
    """An index folder in memory."""

    manifest: dict[str, Any]
    index: Any
    songs: IntArray
    vectors: FloatArray

    def similar(self, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Scores and song numbers of the k most similar known songs, each (Q, k); −1 where there are fewer."""
        scores, at = search(self.index, vectors, k)
        return scores, np.where(at >= 0, self.songs[at], -1)


@tracked("index")
def main(config: IndexConfig, tracking: Any) -> None:
    """Run the command (see the module's docstring)."""
    import faiss

    run, vectors = song_vectors(config.run, config.data, config.features)
    data = config.data or run.config["data"]
    catalogue = Catalogue.read(data)
    songs = catalogue.rows("warm")
    manifest = {
        "encoder": run.fingerprint,
        "run": str(run.folder),
        "data": str(data),
        "features": config.features or run.config["features"],
        "index": config.index,
        "songs": len(songs),
        "dim": vectors.shape[1],
    }
    with writing(config.out, KIND, manifest) as folder:
        faiss.write_index(to_cpu(build_index(vectors[songs], config.index)), str(folder / "index.faiss"))
        np.save(folder / "index_songs.npy", songs)
        np.save(folder / "vectors.npy", vectors)
        catalogue.songs.select("song_id", "split").write_parquet(folder / "songs.parquet")
    used(tracking, run.folder, data, manifest["features"])
    made(tracking, config.out, config.logger.upload)
    print(
        f"{config.out}: {len(songs)} known songs of {catalogue.n_songs}, {vectors.shape[1]} dimensions, {config.index}"
    )


def open_index(folder: str | Path, catalogue: Catalogue | None = None) -> SongIndex:
    """Read an index folder and check that its encoder is still the one that made it.

    Args:
        folder: the index folder.
        catalogue: the songs that are asked for; None for those of the folder that the index was made from.

    Raises:
        UserError: not an index folder, damaged, its run was trained again since, or other songs or another split.
    """
    import faiss

    folder = Path(folder)
    manifest = read_manifest(folder, KIND, MADE_BY)
    check_same_songs(folder, catalogue or Catalogue.read(manifest["data"]))
    run = open_run(manifest["run"], "i2i")
    if run.fingerprint != manifest["encoder"]:
        raise UserError(f"{folder} was built from another encoder than {run.folder} holds now: run {MADE_BY} again")
    try:
        index = faiss.read_index(str(folder / "index.faiss"))
        songs, vectors = np.load(folder / "index_songs.npy"), np.load(folder / "vectors.npy")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}): run {MADE_BY} again") from None
    return SongIndex(manifest, index, songs, vectors)


def check_same_songs(folder: Path, catalogue: Catalogue) -> None:
    """Raise UserError unless the index was built from these songs in this order, and with the same ones known."""
    try:
        songs = pl.read_parquet(folder / "songs.parquet")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}): run {MADE_BY} again") from None
    if not songs.equals(catalogue.songs.select("song_id", "split")):
        raise UserError(
            f"{folder} was built from other songs, or another split of them, than {catalogue.folder}: "
            f"run {MADE_BY} again"
        )


if __name__ == "__main__":
    command(main, IndexConfig, __doc__)
