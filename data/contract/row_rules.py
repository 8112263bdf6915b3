"""Apply the data contract's row rules: unusable rows are skipped, counted and listed by example."""

from __future__ import annotations

import re
from typing import Any
from unicodedata import normalize

import numpy as np
import polars as pl

from configs.errors import UserError

Rejected = dict[str, dict[str, Any]]  # reason → count, up to five examples, description
PREFIX = "feature_"
NAME = re.compile(r"\w[\w .+-]{0,99}")  # of a vector: of its file, too
TAKEN = ("language", "genres", "tags", "artist_id")  # names of fields that are columns


def rejection_table(rejected: Rejected) -> str:
    """Format skipped rows as a plain-text table: count, description, examples."""
    if not rejected:
        return "nothing was skipped"
    width = max(len(entry["what"]) for entry in rejected.values())
    lines = [
        f"{entry['count']:>9}  {entry['what']:<{width}}  e.g. {', '.join(entry['examples'][:3])}"
        for entry in rejected.values()
    ]
    return "\n".join(["  skipped  what", *lines])


def reject(frame: pl.DataFrame, bad: pl.Expr, key: str, what: str, show: list[str], rejected: Rejected) -> pl.DataFrame:
    """Drop rows where `bad` is true, and add their count and examples to `rejected[key]`."""
    mask = frame.select(bad.fill_null(False)).to_series()
    if not mask.any():
        return frame
    names = frame.filter(mask).select(pl.concat_str(pl.col(show).fill_null("null"), separator=" / ")).to_series()
    before = rejected.get(key, {"count": 0, "examples": []})
    examples = list(dict.fromkeys(before["examples"] + names.unique(maintain_order=True).head(5).to_list()))[:5]
    rejected[key] = {"count": before["count"] + int(mask.sum()), "examples": examples, "what": what}
    return frame.filter(~mask)


def other_forms(ids: pl.Series) -> dict[str, str]:
    """Ids in Unicode's forms NFC and NFD, in which they are not → as they are: macOS names files in NFD."""
    beyond = ids.filter(ids.str.contains(r"[^\x00-\x7f]"))
    forms = pl.concat([pl.DataFrame({"form": beyond.str.normalize(name), "id": beyond}) for name in ("NFC", "NFD")])
    forms = forms.filter(~pl.col("form").is_in(ids.implode())).unique("form", keep="first", maintain_order=True)
    return dict(forms.iter_rows())


def usable_feedback(feedback: pl.DataFrame, songs: pl.DataFrame, rejected: Rejected) -> pl.DataFrame:
    """Select rows of i2i_feedback with known songs and consistent counts."""
    pair = ["source_song_id", "recommended_song_id"]
    feedback = feedback.with_columns(pl.col(pair).replace(other_forms(songs["song_id"])))
    known = songs["song_id"].implode()
    unknown = ~(pl.col(pair[0]).is_in(known) & pl.col(pair[1]).is_in(known)).fill_null(False)
    what = "feedback on songs not in songs.parquet"
    feedback = reject(feedback, unknown, "feedback_of_unknown_songs", what, pair, rejected)
    itself = pl.col(pair[0]) == pl.col(pair[1])
    feedback = reject(feedback, itself, "feedback_on_itself", "feedback of a song on itself", pair, rejected)
    plays, completes, favourites = pl.col("plays"), pl.col("completes"), pl.col("favourites")
    possible = (plays >= 0) & completes.is_between(0, plays) & favourites.is_between(0, plays)
    what = "feedback with null or negative counts, or more completes or favourites than plays"
    return reject(feedback, ~possible.fill_null(False), "feedback_impossible", what, pair, rejected)


def usable_tags(tags: pl.DataFrame, songs: pl.DataFrame, rejected: Rejected) -> pl.DataFrame:
    """Select complete tag assignments of known songs (`user_id`, `song_id`, `tag`), each once.

    Users may be unknown: without a play there is nothing that their tags could reveal.
    """
    columns = ["user_id", "song_id", "tag"]
    of_song = pl.col("song_id").replace(other_forms(songs["song_id"]))
    tags = tags.select("user_id", of_song, pl.col("tag").str.strip_chars().replace("", None))
    empty = pl.any_horizontal(pl.col(columns).is_null())
    tags = reject(tags, empty, "tags_incomplete", "tags without user_id, song_id or text", columns, rejected)
    unknown = ~pl.col("song_id").is_in(songs["song_id"].implode())
    what = "tags of songs not in songs.parquet"
    tags = reject(tags, unknown, "tags_of_unknown_songs", what, ["song_id"], rejected)
    again = ~pl.struct(columns).is_first_distinct()
    return reject(tags, again, "tags_repeated", "repeats of a (user, song, tag) (kept once)", columns, rejected)


def note_songs(
    songs: pl.DataFrame, played: int, features: dict[str, np.ndarray], tags: pl.DataFrame | None, notes: list[str]
) -> None:
    """Append notes about songs without content and songs without plays, which are kept."""
    filled = [pl.col("title", "lyrics", "language", "audio_path").str.strip_chars().str.len_chars() > 0]
    filled += [pl.col("genres", "tags").list.drop_nulls().list.len() > 0, pl.col("artist_id").is_not_null()]
    filled += [pl.lit(pl.Series(~np.isnan(vectors[:, 0]))) for vectors in features.values()]
    if tags is not None:
        filled += [pl.col("song_id").is_in(tags["song_id"].implode())]
    if bare := songs.filter(~pl.any_horizontal(expr.fill_null(False) for expr in filled)).height:
        notes.append(f"songs: {bare} have no text, category, audio or feature vector: no model can place them")
    if silent := songs.height - played:
        notes.append(f"songs: {silent} of {songs.height} have no play (they are kept)")


def feature_matrices(
    songs: pl.DataFrame, rejected: Rejected, notes: list[str]
) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """Move the `feature_<name>` columns from `songs` to float32 matrices (songs, dim), NaN for missing vectors.

    Raises:
        UserError: a feature column is not numeric, its vectors differ in length, or its name cannot be a field's, or is
            that of another but for capitals.
    """
    columns = [column for column in songs.columns if column.startswith(PREFIX)]
    files: dict[str, str] = {}
    features = {}
    for column in columns:
        check_name(column)
        other = files.setdefault(normalize("NFC", column).casefold(), column)
        if other != column:  # one file on macOS and Windows
            raise UserError(f"songs.parquet: columns '{other}' and '{column}' differ in case or form alone: rename one")
        if songs[column].null_count() == songs.height:
            notes.append(f"songs.parquet: column {column} is null in every row; left out")
        else:
            features[column.removeprefix(PREFIX)] = _matrix(songs[column], songs["song_id"], rejected, notes)
    return songs.drop(columns), features


def check_name(column: str) -> None:
    """Raise UserError if the name of a feature column cannot be a file's and a field's."""
    name = column.removeprefix(PREFIX)
    if name in TAKEN:
        raise UserError(f"songs.parquet: column '{column}': '{name}' is a column and a field already: rename it")
    if not NAME.fullmatch(name):
        raise UserError(
            f"songs.parquet: column {column[:200]!r}: a vector's name has letters, digits, spaces and _ . + - (at most "
            "100), and begins with a letter, a digit or _: rename it"
        )


def _matrix(column: pl.Series, ids: pl.Series, rejected: Rejected, notes: list[str]) -> np.ndarray:
    inner = getattr(column.dtype, "inner", None)
    if inner is None or not inner.is_numeric():
        raise UserError(f"songs.parquet: column '{column.name}' has type {column.dtype}, wanted: list of numbers")
    vectors = column.cast(pl.List(pl.Float32), strict=False)
    present = vectors.is_not_null()
    lengths = vectors.list.len().filter(present)
    dim = int(lengths[0])
    unequal = lengths != dim
    if dim == 0 or unequal.any():
        at, owners = int(unequal.arg_max() or 0), ids.filter(present)
        raise UserError(
            f"songs.parquet: column '{column.name}' has {lengths[at]} numbers for song {owners[at]} and {dim} for song "
            f"{owners[0]}: vectors of one length are needed (null where there is none)"
        )
    matrix = vectors.list.to_array(dim).to_numpy(writable=True)
    broken = present.to_numpy() & ~np.isfinite(matrix).all(axis=1)
    matrix[broken] = np.nan
    what = f"{column.name}: vectors with null, NaN or infinite numbers (the song is kept without it)"
    named = pl.DataFrame({"song_id": ids, "broken": broken})
    reject(named, pl.col("broken"), f"{column.name}_not_finite", what, ["song_id"], rejected)
    if column.null_count():
        notes.append(f"songs: {column.null_count()} of {len(column)} have no {column.name}")
    return matrix
