"""Build, update and read index folders: the index of the known songs, and the vectors of all songs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.folders import read_manifest, read_whole, writing
from artifacts.runs import open_run
from artifacts.tracking import made, tracked, used
from configs import options
from configs.errors import UserError
from configs.targeting import IndexConfig
from data.arrays import FloatArray, IntArray
from data.catalogue import Catalogue
from data.conditions import IN_MILVUS, condition, kinds_of
from inference.milvus_folders import (
    WHERE,
    collection_of,
    copy_collection,
    let_go,
    make_collection,
    open_collection,
    place,
    publish_collection,
)
from inference.milvus_songs import about_songs, change_collection, values_changed
from inference.vectors import encode_songs
from retrieval.index import (
    TUNED,
    Only,
    add,
    build_index,
    choose,
    exact_neighbours,
    remove,
    resolve,
    search,
    to_cpu,
    to_gpu,
    tune,
)
from retrieval.milvus import MilvusIndex

KIND = "index"
MADE_BY = options.MADE_BY[KIND]
QUERIES, WIDEST = 200, 1000  # new songs (known ones, where there are none), and neighbours that are looked up of each
SAME = 1e-5  # numbers of a vector that differ by less come of other batches, not of other content


@dataclass
class SongIndex:
    """An index folder in memory. `songs` gives the song number of an entry of the index, −1 where it was removed.

    `only` says which entries `similar` may find, None: all.
    """

    manifest: dict[str, Any]
    index: Any
    songs: IntArray
    vectors: FloatArray
    only: Only | None = None

    def similar(self, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Scores and song numbers of the k most similar known songs, each (Q, k); −1 where there are fewer."""
        scores, at = search(self.index, vectors, k, self.only)
        known = (at >= 0) & (at < len(self.songs))  # a collection of Milvus may have been updated meanwhile
        songs = np.where(known, self.songs[np.where(known, at, 0)], -1)
        scores[songs < 0] = -np.inf
        return scores, songs


@tracked("index")
def make_index(config: IndexConfig, tracking: Any) -> None:
    """Run `pipeline.index` (its docstring says what it reads and writes)."""
    run, found = encode_songs(config.run, config.data, config.features)
    vectors = found["vector"]
    data = config.data or run.config["data"]
    catalogue, before = Catalogue.read(data), collection_of(Path(config.out), KIND)
    manifest: dict[str, Any] = {}
    with writing(config.out, KIND, manifest) as folder:
        index, entries, about = (updated if config.update else built)(
            config, catalogue, vectors, run.fingerprint, folder
        )
        manifest |= about | {
            "encoder": run.fingerprint,
            "run": str(run.folder),
            "data": str(data),
            "features": config.features or run.config["features"],
            "songs": int((entries >= 0).sum()),
            "dim": vectors.shape[1],
        }
        try:
            manifest["effort"], manifest["recall"] = tuned(index, entries, vectors, manifest["index"], config)
            save(index, folder)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"index={config.index} cannot be used here ({reason}): choose another kind") from None
        write_songs(folder, catalogue, vectors, entries, about_songs(catalogue.songs) if "uri" in about else None)
    if "uri" in manifest:
        publish_collection(config, manifest, before)
    used(tracking, run.folder, data, manifest["features"])
    made(tracking, config.out, config.logger.upload)
    print(summary(config.out, manifest, catalogue.n_songs, config.recall))


def save(index: Any, folder: Path) -> None:
    """Write an index of FAISS; let go of one of Milvus in the folder, which has written itself.

    Raises:
        RuntimeError: a kind that can be written only.
    """
    import faiss

    if isinstance(index, MilvusIndex):
        let_go(index, folder)
        return
    faiss.write_index(to_cpu(index), str(folder / "index.faiss"))
    read_faiss(folder, mapped=True)


def write_songs(
    folder: Path, catalogue: Catalogue, vectors: FloatArray, entries: IntArray, about: pl.DataFrame | None = None
) -> None:
    """What an index folder holds beside the index: vectors of all songs, their ids, and which entry each is; and what
    is said `about` them elsewhere."""
    np.save(folder / "vectors.npy", vectors)
    table = catalogue.songs.select("song_id", "split").with_columns(pl.Series("entry", entries).replace(-1, None))
    if about is not None:
        table = table.hstack(about.drop("song_id", "split", strict=False))
    table.write_parquet(folder / "songs.parquet")


def built(
    config: IndexConfig, catalogue: Catalogue, vectors: FloatArray, encoder: str, folder: Path
) -> tuple[Any, IntArray, dict[str, Any]]:
    """A new index, the entry of every song in it (−1: none), and what the manifest says of it."""
    songs = catalogue.rows("warm")
    entries = np.full(catalogue.n_songs, -1)
    entries[songs] = np.arange(len(songs))
    where: dict[str, Any] = {}
    kind = resolve(config.index, len(songs))
    try:
        if config.engine == "milvus":
            about = about_songs(catalogue.songs)[songs]
            index, where = make_collection(config, kind, vectors[songs], entries[songs], about, encoder, folder)
        else:
            index = build_index(vectors[songs], config.index, entries[songs], all_gpus(), config.seed)
    except ValueError as error:
        raise UserError(str(error)) from None
    reason = choose(len(songs))[1] if config.index == "auto" else "as asked for"
    print(f"index {kind}: {reason}")
    return index, entries, {"index": kind, "version": 1, "learned_from": len(songs), "entries": len(songs)} | where


def updated(
    config: IndexConfig, catalogue: Catalogue, vectors: FloatArray, encoder: str, folder: Path
) -> tuple[Any, IntArray, dict[str, Any]]:
    """The index that is there, made the catalogue's: as `built`.

    Raises:
        UserError: it is of another encoder, or of a kind that cannot be changed, or is to be of another kind.
    """
    out = Path(config.out)
    check_update(config, read_manifest(out, KIND, MADE_BY), encoder)
    old, before = read_index(out, mapped=False, copy_to=folder)
    before = before.with_row_index("old").select("song_id", "old", "entry")
    found = catalogue.songs.select("song_id", "split").join(before, on="song_id", how="left", maintain_order="left")
    entries, rows = (found[name].fill_null(-1).to_numpy().astype(np.int64).copy() for name in ("entry", "old"))
    warm = (found["split"] == "warm").to_numpy()
    stays, new = warm & (entries >= 0), warm & (entries < 0)
    other = stays.copy()
    other[stays] = ~np.isclose(vectors[stays], old.vectors[rows[stays]], rtol=0, atol=SAME).all(axis=1)
    same = stays & ~other
    vectors[same] = old.vectors[rows[same]]  # what the index holds, or small changes would add up
    gone = np.setdiff1d(before["entry"].drop_nulls().to_numpy(), entries[stays])
    n = old.manifest["entries"]
    entries[new], entries[~warm] = np.arange(n, n + new.sum()), -1
    if isinstance(old.index, MilvusIndex):
        about = about_songs(catalogue.songs)
        other |= stays & values_changed(out, old.manifest, about, rows)
        change_collection(old.index, n, vectors, entries, new | other, gone, about)
    else:
        try:
            remove(old.index, np.concatenate([gone, entries[other]]))
        except ValueError as error:
            raise UserError(f"{config.out}: {error}") from None
        add(old.index, vectors[new | other], entries[new | other])
    manifest = {key: old.manifest[key] for key in ("index", "learned_from", *WHERE) if key in old.manifest}
    manifest |= {"version": old.manifest["version"] + 1, "entries": n + int(new.sum())}
    return old.index, entries, manifest | {"added": int(new.sum()), "replaced": int(other.sum()), "removed": len(gone)}


def check_update(config: IndexConfig, there: dict[str, Any], encoder: str) -> None:
    """Raise UserError if the index that is there, by its manifest, cannot become what the options say."""
    if config.index not in ("auto", there["index"]):
        raise UserError(f"{config.out} is {there['index']}: to make it {config.index} build it anew")
    engine = there.get("engine", "faiss")
    if config.engine != engine or (config.uri and place(config.uri) != there.get("uri")):
        at = f" uri={there['uri']}" if "/" in there.get("uri", "") else ""
        raise UserError(f"{config.out} is of engine={engine}{at}: say so, or build it anew without update=true")
    if there["encoder"] != encoder:
        raise UserError(
            f"{config.out} holds the vectors of another encoder than {config.run}: build it anew, without update=true"
        )


def tuned(index: Any, entries: IntArray, vectors: FloatArray, kind: str, config: IndexConfig) -> tuple[int, float]:
    """Effort and recall of `retrieval.index.tune` on a sample of the new songs: they are what will be looked up."""
    known, new = np.flatnonzero(entries >= 0), np.flatnonzero(entries < 0)
    asked = np.random.default_rng(config.seed).permutation(new if len(new) else known)[:QUERIES]
    if kind == "Flat":
        return 0, 1.0
    exact = exact_neighbours(vectors[asked], vectors[known], min(WIDEST, len(known)))
    return tune(index, kind, vectors[asked], entries[known][exact], config.recall)


def summary(out: str, manifest: dict[str, Any], n_songs: int, wanted: float) -> str:
    """What the screen shows at the end."""
    changes = ", ".join(f"{key} {manifest[key]}" for key in ("added", "replaced", "removed") if key in manifest)
    lines = [f"{out}: {manifest['songs']} known songs of {n_songs}, {manifest['dim']} dimensions, {manifest['index']}"]
    if manifest["index"] != "Flat":
        k = min(TUNED, manifest["songs"])
        lines.append(f"  finds {manifest['recall']:.0%} of the exact {k} (effort {manifest['effort']})")
    if manifest["recall"] < wanted:
        lines.append(f"  note: {wanted:.0%} was wanted: the codes are too coarse, or the sample too small")
    if changes:
        lines.append(f"  version {manifest['version']}: {changes}; learned from {manifest['learned_from']} songs")
    return "\n".join(lines)


def open_index(folder: str | Path, catalogue: Catalogue | None = None) -> SongIndex:
    """Read an index folder and check that its encoder is still the one that made it.

    Vectors and index are mapped into memory: what is not looked at is not read, and processes share it.

    Args:
        folder: the index folder.
        catalogue: the songs that are asked for; None for those of the folder that the index was made from.

    Raises:
        UserError: not an index folder, damaged, its run was trained again since, or other songs or another split.
    """
    folder = Path(folder)
    found, songs = read_index(folder)
    catalogue = catalogue or Catalogue.read(found.manifest["data"])
    if not songs.drop("entry").equals(catalogue.songs.select("song_id", "split")):  # in this order
        raise UserError(
            f"{folder} was built from other songs, or another split of them, than {catalogue.folder}: "
            f"run {MADE_BY} again"
        )
    run = open_run(found.manifest["run"], "i2i")
    if run.fingerprint != found.manifest["encoder"]:
        raise UserError(f"{folder} was built from another encoder than {run.folder} holds now: run {MADE_BY} again")
    found.index = to_gpu(found.index, all_gpus())
    return found


def restricted(index: SongIndex, songs: pl.DataFrame, where: str | None) -> SongIndex:
    """The index with those known songs alone for which a condition holds (`data.conditions`); None: with all of them.

    Raises:
        UserError: it is none, or holds for no known song.
    """
    if where is None:
        return index
    only = entries_where(index, about_songs(songs), where)
    if not len(only.numbers):
        raise UserError(f"where={where}: no known song is so")
    if index.manifest["index"] == "Flat" and not isinstance(index.index, MilvusIndex):
        # FAISS compares selected vectors one by one, but all of an index of their own at once
        vectors = index.vectors[index.songs[only.numbers]]
        return replace(index, index=build_index(vectors, "Flat", only.numbers, all_gpus()))
    return replace(index, only=only)


def kinds_asked(index: SongIndex, about: pl.DataFrame) -> dict[str, str]:
    """Kinds of the columns that a condition may name, by a table of `about_songs`: in Milvus, the collection's."""
    kinds, columns = kinds_of(about), index.manifest.get("columns")
    if columns is None:
        return kinds
    return {name: kind for name, kind in kinds.items() if columns.get(name) == IN_MILVUS.get(kind, kind)}


def entries_where(index: SongIndex, about: pl.DataFrame, where: str) -> Only:
    """The entries of known songs for which a condition holds, by a table of `about_songs` of all songs.

    Raises:
        UserError: it is none.
    """
    found = condition(where, kinds_asked(index, about))
    holds = about.select(found.rows).to_series().to_numpy()
    return Only(np.flatnonzero((index.songs >= 0) & holds[index.songs]), found.milvus)


def read_index(folder: Path, mapped: bool = True, copy_to: Path | None = None) -> tuple[SongIndex, pl.DataFrame]:
    """An index folder as it is, and `song_id`, `split` and `entry` of its songs.

    Args:
        folder: the index folder.
        mapped: whether its files are mapped into memory, and not read.
        copy_to: another folder, where a copy is opened of what would change together with the folder.

    Raises:
        UserError: not an index folder, or damaged.
        MilvusError: its Milvus cannot be reached.
    """
    return read_whole(folder, lambda: read_files(folder, mapped, copy_to))


def read_files(folder: Path, mapped: bool, copy_to: Path | None = None) -> tuple[SongIndex, pl.DataFrame]:
    """As `read_index`; of two versions where the folder is being replaced."""
    manifest = read_manifest(folder, KIND, MADE_BY)
    in_milvus = manifest.get("engine") == "milvus"
    try:
        table = pl.read_parquet(folder / "songs.parquet", columns=["song_id", "split", "entry"], glob=False)
        entry = table["entry"]
        index = None if in_milvus else read_faiss(folder, mapped)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r" if mapped else None)
        songs = np.full(manifest["entries"], -1)
        songs[entry.drop_nulls().to_numpy()] = np.flatnonzero(entry.is_not_null())
        if (entry.count() if index is None else index.ntotal, len(vectors)) != (entry.count(), len(entry)):
            raise ValueError("its files do not belong together")
        if in_milvus and copy_to is not None:
            manifest = copy_collection(manifest, folder, copy_to)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}): run {MADE_BY} again") from None
    if in_milvus:
        index = open_collection(manifest, copy_to or folder)
    return SongIndex(manifest, index, songs, vectors), table


def read_faiss(folder: Path, mapped: bool) -> Any:
    """The FAISS index of an index folder, in memory or mapped into it; RuntimeError where FAISS cannot read it."""
    import faiss

    return faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP_IFC if mapped else 0)


def all_gpus() -> range:
    """Numbers of the GPUs that an index is divided among."""
    import faiss

    return range(faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0)
