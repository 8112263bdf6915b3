"""A song's feature fields as tensors: dense vectors and category codes, missing values included.

A field is a float tensor (songs, dim), a missing row being NaN, or an int64 tensor (songs, values) of category codes,
0 meaning "no (more) value". Vocabularies come from warm songs alone, so that a new song brings no new code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from artifacts.fingerprints import of_file, of_values
from artifacts.folders import read_manifest
from configs import options
from configs.errors import UserError
from data.arrays import FloatArray, IntArray
from data.catalogue import Catalogue, read_features
from data.contract.columns import MAX_VALUES
from data.derived_fields import DERIVED, derived_values, nearest_year, nearest_years
from data.text import folder_state
from data.tfidf import FILE as FITTED
from retrieval.distinct import distinct

CATEGORIES = ("language", "genres", "tags", "artist_id", *DERIVED)
UNKNOWN = 1  # code of a value outside the vocabulary
FEATURES = "features", options.MADE_BY["features"]  # a folder's kind, and its maker

CHUNK = 100_000  # rows encoded at a time, which bounds the memory of their values

Vocabulary = dict[str, list[str]]
Codes = dict[str | None, int]  # of the values of a category field


@dataclass
class SongFields:
    """All fields of all songs of a catalogue, gathered by row number."""

    dense: dict[str, FloatArray]
    codes: dict[str, IntArray]
    vocabulary: Vocabulary

    def gather(self, rows: IntArray) -> dict[str, Tensor]:
        """The fields of some songs, each tensor (rows.shape…, width)."""
        dense = {
            name: torch.from_numpy(np.asarray(array[rows], dtype=np.float32)) for name, array in self.dense.items()
        }
        return dense | {name: torch.from_numpy(array[rows]) for name, array in self.codes.items()}

    def only(self, name: str) -> SongFields:
        """The same songs with one field."""
        dense = {key: array for key, array in self.dense.items() if key == name}
        codes = {key: array for key, array in self.codes.items() if key == name}
        return SongFields(dense, codes, {key: self.vocabulary[key] for key in codes})

    def without(self, names: Sequence[str]) -> SongFields:
        """The same songs with the named fields missing in all of them; the song encoder still expects these fields."""
        dense = {key: np.full_like(array, np.nan) if key in names else array for key, array in self.dense.items()}
        codes = {key: np.zeros_like(array) if key in names else array for key, array in self.codes.items()}
        return SongFields(dense, codes, self.vocabulary)

    @property
    def dense_dims(self) -> dict[str, int]:
        """Width of each dense field."""
        return {name: array.shape[1] for name, array in self.dense.items()}

    @property
    def vocab_sizes(self) -> dict[str, int]:
        """Number of codes of each category field, "none" and "unknown" included."""
        return {name: len(values) + 2 for name, values in self.vocabulary.items()}

    def dense_statistics(self, rows: IntArray) -> dict[str, tuple[Tensor, float]]:
        """Centre (width,) and overall scale of each dense field, over at most 100,000 of the given songs."""
        sample = rows[:: max(1, -(-len(rows) // 100_000))]
        found = {}
        for name, array in self.dense.items():
            values = np.asarray(array[sample], dtype=np.float64)
            values = values[np.isfinite(values).all(axis=1)]
            if len(values):
                scale = float(values.std(axis=0).mean()) or 1.0
                found[name] = (torch.from_numpy(values.mean(axis=0)).float(), scale)
        return found


def read_fields(
    catalogue: Catalogue, features: str | None, use: list[str], min_count: int, vocabulary: Vocabulary | None = None
) -> SongFields:
    """Collect the fields of a catalogue and, if given, of a folder `features` of `pipeline.embed`.

    Args:
        use: names of the fields to keep; empty for all that are there and tell known songs apart.
        min_count: category values on fewer warm songs become "unknown".
        vocabulary: codes of an earlier run, which has these category fields; None builds them from the warm songs.

    Raises:
        UserError: a field that was asked for does not exist, or none is left.
    """
    dense = catalogue.features()
    if features is not None:
        read_manifest(features, *FEATURES)
        check_same_songs(catalogue, Path(features))
        embedded = read_features(Path(features), catalogue.n_songs)
        check_names(catalogue, embedded)
        dense = dense | embedded
    names = [name for name in CATEGORIES if (name not in dense if vocabulary is None else name in {*vocabulary, *use})]
    values = {name: field_values(catalogue.songs, name) for name in names}
    known = [*dense, *(name for name, column in values.items() if column.list.drop_nulls().list.len().sum())]
    if unknown := [name for name in use if name not in known]:
        raise UserError(
            f"fields.use names {unknown}; this catalogue has {known}" + ("" if features else " (no features= folder)")
        )
    chosen = use or known
    dense = {name: dense[name] for name in chosen if name in dense}
    if vocabulary is not None:
        return SongFields(dense, category_codes(values, vocabulary), vocabulary)
    made = build_vocabulary(catalogue, {name: values[name] for name in chosen if name in values}, min_count)
    codes, warm = category_codes(values, made), catalogue.rows("warm")
    codes = {name: found for name, found in codes.items() if use or (found[warm] != found[warm[:1]]).any()}
    if not dense and not codes:
        raise UserError(
            "no field to learn from: give features= (python -m pipeline.embed) or feature_<name> columns or tags"
        )
    return SongFields(dense, codes, {name: made[name] for name in codes})


def check_names(catalogue: Catalogue, made: Iterable[str]) -> None:
    """Raise UserError if vectors that are made of the songs have the name of vectors that the songs came with."""
    if both := sorted({*catalogue.features()} & {*made}):
        raise UserError(
            f"{catalogue.folder} has vectors {', '.join(both)} of its own (feature_{both[0]} of songs.parquet), and "
            "pipeline.embed makes vectors of that name: rename the column and prepare again"
        )


def check_same_songs(catalogue: Catalogue, features: Path) -> None:
    """Raise UserError unless the feature folder was made from the same songs in the same order."""
    path = features / "song_ids.parquet"
    try:
        ids = pl.read_parquet(path, columns=["song_id"], glob=False)["song_id"]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): run python -m pipeline.embed again") from None
    if not ids.equals(catalogue.songs["song_id"]):
        raise UserError(
            f"{features} was made from other songs than {catalogue.folder}: run python -m pipeline.embed again"
        )


def made_with(features: str | None) -> dict[str, str]:
    """`encoder`: what made the vectors of a feature folder, whatever the songs; nothing without a folder.

    Of two catalogues the vectors are of one space where it is the same.
    """
    if features is None:
        return {}
    manifest, fitted = read_manifest(features, *FEATURES), Path(features) / FITTED
    if "encoder" in manifest:
        return {"encoder": manifest["encoder"]}
    text = manifest.get("text", {})
    state = folder_state(text["model"]) if text else ""
    return {"encoder": of_values(text, state, of_file(fitted) if fitted.exists() else None)}


def values_of(songs: pl.DataFrame, name: str) -> pl.Series:
    """A category column as lists of strings (null: no value)."""
    column = songs[name]
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String))
    one = pl.when(pl.col(name).is_null()).then(None).otherwise(pl.concat_list(pl.col(name).cast(pl.String)))
    return songs.select(one.alias(name))[name]


def field_values(songs: pl.DataFrame, name: str) -> pl.Series:
    """A category field of songs, given or derived, as lists of strings (null: no value)."""
    return derived_values(songs, name) if name in DERIVED else values_of(songs, name)


def build_vocabulary(catalogue: Catalogue, fields: dict[str, pl.Series], min_count: int) -> Vocabulary:
    """Values of each category field that occur on at least `min_count` warm songs, most frequent first."""
    warm = catalogue.songs["split"] == "warm"
    return {name: frequent(values.filter(warm).list.unique().explode(), min_count) for name, values in fields.items()}


def extended(earlier: Vocabulary, found: Vocabulary) -> Vocabulary:
    """An earlier vocabulary with the values of `found` that it lacks, at the end; a field without values stays so."""
    return {
        name: values and [*values, *(value for value in found.get(name, ()) if value not in known)]
        for name, values, known in ((name, values, set(values)) for name, values in earlier.items())
    }


def frequent(values: pl.Series, min_count: int) -> list[str]:
    """Values that occur at least `min_count` times, most frequent first, ties in alphabetical order."""
    counted = values.drop_nulls().to_frame("value").group_by("value").len().filter(pl.col("len") >= min_count)
    return counted.sort(["len", "value"], descending=[True, False])["value"].to_list()


def column_codes(table: pl.DataFrame, name: str, vocabulary: Sequence[str]) -> IntArray:
    """Codes (rows, MAX_VALUES) of a category column."""
    return list_codes(values_of(table, name), codes_of(vocabulary))


def category_codes(values: dict[str, pl.Series], vocabulary: Vocabulary) -> dict[str, IntArray]:
    """Codes (songs, MAX_VALUES) of each category field of a vocabulary."""
    return {name: field_codes(name, values[name], codes_of(of)) for name, of in vocabulary.items()}


def field_codes(name: str, values: pl.Series, codes: Codes) -> IntArray:
    """Codes (songs, MAX_VALUES) of the values of a category field; a year is the nearest that has a code."""
    return list_codes(nearest_years(values, codes) if name == "year" else values, codes)


def value_codes(name: str, values: Sequence[Sequence[str | None] | None], codes: Codes) -> IntArray:
    """`field_codes` of a few songs, whose values are no column."""
    return encode([nearest_year(one, codes) for one in values] if name == "year" else values, codes)


def list_codes(values: pl.Series, codes: Codes) -> IntArray:
    """Codes (rows, MAX_VALUES) of lists of values."""
    parts = [encode(values[at : at + CHUNK].to_list(), codes) for at in range(0, len(values), CHUNK)]
    return np.concatenate([np.zeros((0, MAX_VALUES), dtype=np.int64), *parts])


def codes_of(vocabulary: Sequence[str]) -> Codes:
    """The code of each value of a vocabulary, and of no value."""
    return {None: 0} | dict(zip(vocabulary, range(UNKNOWN + 1, UNKNOWN + 1 + len(vocabulary)), strict=True))


def encode(values: Sequence[Sequence[str | None] | None], codes: Codes) -> IntArray:
    """Codes of lists of values, (N, MAX_VALUES): 0 none, 1 unknown, 2… vocabulary.

    Each code once, in ascending order, so that the most frequent values of a long list are kept; "unknown" comes last.
    """
    lists = [one or () for one in values]
    count_N = np.fromiter(map(len, lists), np.int64, len(lists))
    code_R = np.fromiter(map(codes.get, chain.from_iterable(lists), repeat(UNKNOWN)), np.int64, count_N.sum())
    present_R, size = code_R != 0, len(codes) + 1
    row_R, code_R = np.repeat(np.arange(len(lists)), count_N)[present_R], code_R[present_R]
    row_R, order_R = np.divmod(distinct(row_R * size + (code_R - 2) % size), size)  # unknown last
    slot_R = np.arange(len(row_R)) - np.searchsorted(row_R, row_R)
    kept_R = slot_R < MAX_VALUES
    found_NV: IntArray = np.zeros((len(lists), MAX_VALUES), dtype=np.int64)
    found_NV[row_R[kept_R], slot_R[kept_R]] = (order_R[kept_R] + 2) % size
    return found_NV
