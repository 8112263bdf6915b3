"""Read published data sets into the data contract: Last.fm-2K multimodal and HetRec 2011 Last.fm-2K.

Both are artist-level: an artist takes the place of a song. They go through the same checks as a user's own
tables (`contract.validate`). docs/data.md names their sources.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl

from configs.errors import UserError
from data.contract.dataset import Dataset, validate
from data.contract.row_rules import PREFIX

LFM2K_FEATURES = {"vggish": "vggish.npy", "whisper": "whisper.npy", "text": "all-MiniLM-L6-v2.npy"}
LFM2K_TABLES = {
    "lfm2k.inter": ("userID", "itemID", "x_label"),
    "lfm2k_og.inter": ("userID", "itemID"),
    "lfm2k_song.tsv": ("artistID", "name_artist"),
    "lfm2k_text.tsv": ("artistID", "text"),
}
HETREC_TABLES = {
    "artists.dat": ("id", "name"),
    "user_artists.dat": ("userID", "artistID", "weight"),
    "user_taggedartists.dat": ("userID", "artistID", "tagID"),
    "tags.dat": ("tagID", "tagValue"),
}


def read_lfm2k(folder: str | Path) -> Dataset:
    """Read Last.fm-2K multimodal as published (Zenodo 15403972): song_id = `itemID` = row of the vectors.

    Features: vggish (128, audio), whisper (512, audio), text (384, MiniLM vectors of the listeners' tags). Every
    interaction counts as a play, whatever its `x_label`.

    Raises:
        UserError: a file is missing or does not have the published form.
    """
    folder = Path(folder)
    inter, original, names, texts = (_table(folder, *table) for table in LFM2K_TABLES.items())
    if inter.height != original.height:
        raise UserError(f"{folder}: lfm2k.inter and lfm2k_og.inter differ in length: they must match line by line")
    # The two interaction files list the same pairs with new and with original ids: together they are the id map.
    ids = pl.DataFrame({"itemID": inter["itemID"], "artistID": original["itemID"]}).unique().sort("itemID")
    if not np.array_equal(ids["itemID"], np.arange(ids.height)):
        raise UserError(
            f"{folder}: lfm2k.inter and lfm2k_og.inter give no one-to-one map of itemID 0 … {ids.height - 1}"
        )
    songs = (
        ids.join(names.unique("artistID", keep="first", maintain_order=True), "artistID", "left", maintain_order="left")
        .join(texts.unique("artistID", keep="first", maintain_order=True), "artistID", "left", maintain_order="left")
        .select(
            song_id="itemID",
            title="name_artist",
            tags=pl.col("text").str.split(","),
            lastfm_artist_id="artistID",
            **{f"{PREFIX}{name}": _vectors(folder / file, ids.height) for name, file in LFM2K_FEATURES.items()},
        )
    )
    plays = inter.select(user_id="userID", song_id="itemID", x_label="x_label")
    dataset = validate(
        folder, {"songs": songs, "plays": plays, "users": plays.select(pl.col("user_id").unique().sort())}
    )
    dataset.notes += [
        "lfm2k: songs are artists; every x_label counts as a play",
        "lfm2k: tags and the text vectors come from the same listeners as the plays: also report audio features alone",
    ]
    return dataset


def read_hetrec(source: str | Path) -> Dataset:
    """Read HetRec 2011 Last.fm-2K as published, a zip or its unpacked folder: song_id = artist id, play_count = weight.

    Tags go into `tag_assignments` with their users, so that those of held-out (user, artist) pairs can be dropped once
    the split is known. Listening counts cover a user's top fifty artists only; they may have tagged others.

    Raises:
        UserError: a file is missing or does not have the published form.
    """
    source = Path(source)
    artists, listens, tagged, names = (_table(source, *table) for table in HETREC_TABLES.items())
    plays = listens.select(user_id="userID", song_id="artistID", play_count="weight")
    tables = {
        "songs": artists.select(song_id="id", title=pl.col("name").cast(pl.String)),
        "plays": plays,
        "users": plays.select(pl.col("user_id").unique().sort()),
        "tags": tagged.join(names, "tagID", "left", maintain_order="left").select(
            user_id="userID", song_id="artistID", tag=pl.col("tagValue").cast(pl.String)
        ),
    }
    dataset = validate(source, tables)
    dataset.notes += [
        "hetrec: songs are artists; play_count is the listening count, there are no times",
        "hetrec: tags are those of its listeners, without those that held-out (user, artist) pairs gave",
    ]
    return dataset


def _table(source: Path, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read columns of a tab-separated file in a folder or zip; ids and counts are integers."""
    data = _read(source, name)
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError:
        content = data.decode("cp1252", errors="replace")  # encoding of HetRec's tags
    try:
        # The HetRec files have bare quotation marks inside names; the lfm2k ones quote by the usual rule.
        frame = pl.read_csv(
            io.StringIO(content),
            separator="\t",
            quote_char=None if name.endswith(".dat") else '"',
            infer_schema_length=None,
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{source}: {name} is not tab-separated text ({str(error).splitlines()[0]})") from None
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise UserError(f"{source}: {name} has no column '{missing[0]}': it is not the published file")
    return frame.select(columns)


def _read(source: Path, name: str) -> bytes:
    if not source.exists():
        raise UserError(f"not found: {source}")
    try:
        if source.is_dir():
            return (source / name).read_bytes()
        with zipfile.ZipFile(source) as archive:
            return archive.read(name)
    except (FileNotFoundError, KeyError):
        raise UserError(f"{source} has no {name}: give the data set as published (see docs/data.md)") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{source} cannot be read ({error}): give the published zip or its unpacked folder") from None


def _vectors(path: Path, rows: int) -> pl.Series:
    try:
        vectors = np.load(io.BytesIO(_read(path.parent, path.name)))
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a NumPy array ({error})") from None
    if vectors.ndim != 2 or len(vectors) != rows:
        raise UserError(f"{path} has shape {vectors.shape}, wanted one row for each of the {rows} items")
    return pl.Series(vectors.astype(np.float32))
