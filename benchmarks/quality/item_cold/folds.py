"""One split of a data set as every method sees it: warm plays, content of warm and cold songs; held-out plays apart.

Shapes: U users, W warm songs, C cold songs of one part, D content features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from artifacts.fingerprints import of_file, of_values
from artifacts.folders import read_manifest
from benchmarks.measure import read_json, write_json
from configs.data import PrepareConfig
from configs.embedding import TFIDF, EmbedConfig
from configs.errors import UserError
from configs.load import as_dict, load
from data.arrays import BoolArray, FloatArray, IntArray
from data.catalogue import Catalogue, held_out_listeners
from data.fields import FEATURES, read_fields
from data.item_pairs.verification import listening_matrix
from data.preparation import prepare
from evaluation.baselines import content_vectors
from inference.embedding import embed

DATA = "data.json"  # in the folder of a seed: fingerprint of the data that its catalogue was made of
LFM2K_SETS = {"text": ["text"], "audio": ["vggish", "whisper"], "text+audio": ["text", "vggish", "whisper"]}


@dataclass
class Held:
    """A cold part: its songs (C,), and the plays that are to be found, as user and position among the songs.

    `known_artist_C` says whose artist has a known song; None where the data have no artists.
    """

    songs: IntArray
    user_of: IntArray
    position_of: IntArray
    known_artist_C: BoolArray | None = None


@dataclass
class Fold:
    """One seed's split. `plays` says who played what, `strength` how strong the signal was.

    `artist_S` numbers the artists of all songs, −1 being none; None where no song has an artist. `texts` are what
    character tf-idf reads, if anything.
    """

    folder: Path
    features: str | None
    catalogue: Catalogue
    plays_UW: sparse.csr_matrix
    strength_UW: sparse.csr_matrix
    known: IntArray
    parts: dict[str, Held]
    artist_S: IntArray | None = None
    texts: list[str | None] | None = None


def format_of(data: Path) -> str:
    """The layout of a data set: hetrec for a zip, lfm2k for its published folder, else the data contract."""
    if data.suffix == ".zip":
        return "hetrec"
    return "lfm2k" if (data / "lfm2k.inter").exists() else "contract"


def make_fold(
    data: Path,
    work: Path,
    seed: int,
    options: list[str],
    text: list[str],
    text_model: str = "minilm",
    earlier: str | None = None,
) -> Fold:
    """Prepare a data set with one seed, unless that is done, and read it.

    Args:
        data: dataset folder or published form.
        work: folder for everything of this seed.
        seed: of the split.
        options: options of `pipeline.prepare`, such as split.by=time or pairs.top_k=50; songs are split at random else.
        text: columns whose text becomes a `text` field (empty: none).
        text_model: that reads it, as `text.model` of pipeline.embed.
        earlier: features of an earlier catalogue, of which songs keep what has not changed.

    Raises:
        UserError: the data or an option cannot be used, or what is in `work` was made otherwise.
    """
    folder = work / "catalogue"
    # Tags depend on the split (those of held-out plays are left out), and so does what is fitted to known songs; other
    # text is the same for every seed.
    features = (work if "tags" in text or text_model == TFIDF else work.parent) / "features"
    given = [f"source={data}", f"out={folder}", f"format={format_of(data)}", f"split.seed={seed}", "split.by=random"]
    config = load(PrepareConfig, [*given, *options])
    if not folder.exists():
        prepare(config)
        write_json(work / DATA, state_of(data))
    if text and not features.exists():
        text_of = [f"text.fields=[{','.join(text)}]", f"text.model={text_model}"]
        text_of += [f"earlier={earlier}"] if earlier else []
        embed(load(EmbedConfig, [f"data={folder}", f"out={features}", *text_of]))
    check_found(Catalogue.read(folder), config, features if text else None, {"fields": text, "model": text_model})
    return read_fold(folder, features if text else None)


def read_fold(folder: Path, features: Path | None) -> Fold:
    """A prepared catalogue, with the vectors of a feature folder, as a fold."""
    catalogue = Catalogue.read(folder)
    listening = listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs)
    known = catalogue.rows("warm")
    strength = sparse.csr_matrix(listening[:, known])
    plays = strength.astype(bool).astype(np.float32)
    artist = artists(catalogue)
    parts = {part: held_out(catalogue, part, artist) for part in ("cold_val", "cold_test")}
    return Fold(folder, str(features) if features else None, catalogue, plays, strength, known, parts, artist)


def artists(catalogue: Catalogue) -> IntArray | None:
    """A number for each song's artist (`artist_id`, the first of several), −1 for none; None where no song has one."""
    column = catalogue.songs["artist_id"].cast(pl.String).replace("", None)
    if column.null_count() == len(column):
        return None
    return (column.rank("dense").cast(pl.Int64).fill_null(0) - 1).to_numpy().astype(np.int64)


def check_found(catalogue: Catalogue, config: PrepareConfig, features: Path | None, text: dict[str, Any]) -> None:
    """Raise UserError unless the catalogue and the features in the work folder are of this data and these options."""
    made = catalogue.manifest
    options = {key: as_dict(config)[key] for key in ("split", "pairs")}
    # An option that did not exist then has its default.
    defaults = as_dict(PrepareConfig(source="", out=""))
    then = {key: defaults[key] | made["options"][key] for key in options}
    if options != then or read_json(catalogue.folder.parent / DATA) != state_of(Path(config.source)):
        raise UserError(f"{catalogue.folder} was made of other data or options: remove it or choose another work=")
    read = read_manifest(features, FEATURES[0], "this command").get("text", {}) if features else text
    if {name: read.get(name) for name in text} != text:
        raise UserError(f"{features} was made of other text: remove it or choose another work=")


def state_of(data: Path) -> str:
    """Fingerprint of all files of a data set, by name."""
    files = sorted(path for path in data.rglob("*") if path.is_file()) if data.is_dir() else [data]
    return of_values([(str(path.relative_to(data)), of_file(path)) for path in files])


def fingerprint(fold: Fold, fields: list[str]) -> str:
    """Changes with the data, the split, the text or the fields that a figure was measured on; not with the seed."""
    made = fold.catalogue.manifest
    split = made["options"]["split"] | {"seed": None}
    text = read_manifest(Path(fold.features), FEATURES[0], "this command").get("text") if fold.features else None
    more: list[Any] = [] if fold.artist_S is None else ["figures by artist"]
    more += [] if fold.texts is None else [fold.texts]
    return of_values(made["source"], made["counts"], split, read_json(fold.folder.parent / DATA), text, fields, *more)


def held_out(catalogue: Catalogue, part: str, artist_S: IntArray | None = None) -> Held:
    """The songs of a cold part that somebody listened to, and who did.

    Raises:
        UserError: nobody did.
    """
    rows = catalogue.rows(part)
    song_of, user_of = held_out_listeners(catalogue, rows)
    if not len(song_of):
        raise UserError(f"{catalogue.folder}: no {part} song has a listener, so nothing can be measured")
    known = None
    if artist_S is not None:  # a song without an artist is of none that is known
        known = np.isin(artist_S[rows], artist_S[catalogue.rows("warm")]) & (artist_S[rows] >= 0)
    return Held(rows, user_of, np.searchsorted(rows, song_of), known)


def feature_sets(data: Path, fold: Fold, wanted: list[str]) -> dict[str, list[str]]:
    """Names of feature sets and the fields of each: "text+audio" of lfm2k, else field names joined by "+".

    Raises:
        UserError: a set names a field that is not there.
    """
    if format_of(data) == "lfm2k":
        known = LFM2K_SETS
    else:
        fields = read_fields(fold.catalogue, fold.features, [], min_count=1)
        names = [*fields.dense, *fields.vocabulary]
        known = {"+".join(names): names} | {name: [name] for name in names}
        known |= {one: one.split("+") for one in wanted if set(one.split("+")) <= set(names)}
    unknown = [one for one in wanted if one not in known]
    if unknown:
        raise UserError(f"features={unknown}: this data has {', '.join(known)} (join fields by +)")
    return {name: known[name] for name in wanted or list(known)}


def content(fold: Fold, fields: list[str], weights: list[float]) -> FloatArray:
    """Content of all songs, (songs, D): every field centred on warm songs, scaled to length 1, times its weight."""
    found = read_fields(fold.catalogue, fold.features, fields, min_count=1)
    blocks = [content_vectors(found.only(name), fold.known) for name in fields]
    blocks = [block * weight for block, weight in zip(blocks, weights, strict=True)]
    return np.concatenate(blocks, axis=1)
