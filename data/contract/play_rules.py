"""Check plays against the data contract, in parts: a log larger than memory is kept in a folder aside meanwhile.

Rules about single rows are applied to chunks of rows as they are read. Rules that need all plays of a user (repeats,
time order) are applied to parts, each a range of users. A table that fits into memory is one chunk and one part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from data.arrays import IntArray
from data.contract.columns import COLUMNS, PAIR
from data.contract.row_rules import Rejected, other_forms, reject

# A day of release is that of some place, and times are UTC: a day begins up to 14 hours before UTC's.
BEFORE_RELEASE = "CAST(played_at AS DATE) < CAST(_released_at AS DATE) - INTERVAL '1 day'"
# A row is reported under the first rule that it breaks. In SQL, which polars and Spark both run; `_song` and `_user`
# are null for unknown songs and users. Releases are compared by day: most release dates have no hour.
ROW_RULES = [
    ("plays_without_id", "user_id IS NULL OR song_id IS NULL", "plays without user_id or song_id", PAIR),
    ("plays_of_unknown_songs", "_song IS NULL", "plays of songs not in songs.parquet", ["song_id"]),
    ("plays_of_unknown_users", "_user IS NULL", "plays of users not in users.parquet", ["user_id"]),
    ("plays_before_release", BEFORE_RELEASE, "plays dated more than a day before the song's release", PAIR),
    ("plays_without_count", "play_count <= 0", "plays with play_count of zero or less", PAIR),
    ("plays_contradictory", "favourited AND disliked", "plays both favourited and disliked", PAIR),
]
REPEATED = ("plays_repeated", "repeats of another row of plays (kept once)")
USED = list(COLUMNS["plays"])
WORKING = 6  # peak memory of checking a chunk, as a multiple of the chunk's size


@dataclass
class Plays:
    """Usable plays, one part for each range of users, sorted by user and time if plays have times."""

    found: int  # rows read
    parts: list[pl.LazyFrame] = field(default_factory=list)
    odd: Counter[str] = field(
        default_factory=Counter
    )  # rows kept, undated, back in time, repeats of a (user, song), told twice


def usable_plays(
    plays: list[pl.LazyFrame],
    songs: pl.DataFrame,
    users: pl.DataFrame | None,
    rejected: Rejected,
    memory_gb: float = 0.0,
    aside: Path | None = None,
    repeats: str = "rows",
) -> Plays:
    """Select valid plays: known song and user, plausible date, count and flags; repeats are kept once.

    Args:
        plays: pieces of the log, with the contract's columns.
        songs, users: with `song_id` and `released_at`, with `user_id`; None: the users of the plays.
        rejected: counts and examples of skipped rows are added here.
        memory_gb: memory for a chunk or a part, 0: all at once.
        aside: folder where parts are written; needed with memory_gb.
        repeats: equal "rows", or "plays": rows that are equal in the columns that are used.
    """
    log = pl.concat(plays)
    found = log.select(pl.len()).collect().item()
    rows = rows_at_once(log, memory_gb) if memory_gb else max(found, 1)
    part_of = users_in_parts(log, users, rows) if found > rows else None
    chunks: dict[int, list[pl.LazyFrame]] = defaultdict(list)
    forms = other_forms(songs["song_id"])
    for at, chunk in in_chunks(plays, rows):
        chunk = usable_rows(chunk.with_columns(pl.col("song_id").replace(forms)), songs, users, rejected)
        if part_of is None:
            chunks[0].append(chunk.lazy())
            continue
        parts = chunk.join(part_of, on="user_id", how="left", maintain_order="left").partition_by("_part", as_dict=True)
        for (part,), frame in parts.items():
            chunks[part].append(spill(frame.drop("_part"), aside, f"chunk-{part}-{at}"))
    for key, *_ in ROW_RULES:  # in their order, whichever chunk met them first
        if key in rejected:
            rejected[key] = rejected.pop(key)
    return by_users(found, [chunks[part] for part in sorted(chunks)], rejected, aside, repeats)


def in_chunks(plays: list[pl.LazyFrame], rows: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the position of each chunk in the log and its rows, with their positions `_row`.

    Chunks do not span pieces: slicing the union of all pieces would read everything before the slice.
    """
    before = 0
    for piece in plays:
        height = piece.select(pl.len()).collect().item()
        for start in range(0, height, rows):
            at = before + start
            chunk = piece.slice(start, rows).collect().with_row_index("_row")
            yield at, chunk.with_columns(pl.col("_row").cast(pl.Int64) + at)
        before += height


def rows_at_once(plays: pl.LazyFrame, memory_gb: float) -> int:
    """Number of rows that can be checked within the memory, estimated from the size of the first rows."""
    sample = plays.head(50_000).collect()
    return max(1000, int(memory_gb * 1e9 / WORKING * sample.height / max(sample.estimated_size(), 1)))


def users_in_parts(plays: pl.LazyFrame, users: pl.DataFrame | None, rows: int) -> pl.DataFrame:
    """Assign users, in order, to parts (`user_id`, `_part`) of about `rows` plays each."""
    counts = plays.group_by("user_id").agg(pl.len().alias("_plays")).collect(engine="streaming").drop_nulls("user_id")
    if users is None:
        counts = counts.sort("user_id")
    else:
        counts = users.select("user_id").join(counts, on="user_id", how="inner", maintain_order="left")
    return counts.select("user_id", _part=(pl.col("_plays").cum_sum() - pl.col("_plays")) // rows)


def usable_rows(
    plays: pl.DataFrame, songs: pl.DataFrame, users: pl.DataFrame | None, rejected: Rejected
) -> pl.DataFrame:
    """Select the rows that break none of ROW_RULES."""
    of_song = songs.select("song_id", _released_at="released_at", _song=pl.lit(True))
    plays = plays.join(of_song, on="song_id", how="left", maintain_order="left")
    if users is None:
        plays = plays.with_columns(_user=pl.lit(True))
    else:
        of_user = users.select("user_id", _user=pl.lit(True))
        plays = plays.join(of_user, on="user_id", how="left", maintain_order="left")
    for key, rule, what, show in ROW_RULES:
        plays = reject(plays, pl.sql_expr(rule), key, what, show, rejected)
    return plays.drop("_released_at", "_song", "_user")


def by_users(
    found: int, parts: list[list[pl.LazyFrame]], rejected: Rejected, aside: Path | None, repeats: str = "rows"
) -> Plays:
    """Drop repeats from each part and sort it by user and time; consumes `parts` to free memory."""
    done, named, repeated = Plays(found), [], 0
    while parts:
        plays = pl.concat(parts.pop(0)).collect()
        again = told_again(plays.select(USED) if repeats == "plays" else plays.drop("_row"))
        repeated += int(again.sum())
        named.append(plays.filter(again).select("_row", *PAIR).unique(PAIR, keep="first", maintain_order=True).head(5))
        plays = plays.filter(~again).drop("_row")
        user_N = numbered(plays["user_id"])
        done.odd += oddities(plays, user_N)
        if plays["played_at"].null_count() < plays.height:
            plays = plays[np.lexsort((moments(plays), user_N))]
        done.parts.append(spill(plays, aside if parts or done.parts else None, f"usable-{len(done.parts)}"))
    if repeated:
        reject(pl.concat(named).sort("_row"), pl.col("_row") >= 0, *REPEATED, PAIR, rejected)
        rejected[REPEATED[0]]["count"] = repeated
    return done


def told_again(plays: pl.DataFrame) -> pl.Series:
    """Whether a row is equal to an earlier one; only rows are compared whose used columns hash to the same number."""
    again_N = plays.select(USED).hash_rows().is_duplicated().to_numpy().copy()
    alike = plays.filter(again_N).select(pl.struct(pl.all()).is_first_distinct()).to_series()
    again_N[again_N] = ~alike.to_numpy()
    return pl.Series(again_N, dtype=pl.Boolean)


def numbered(user_id: pl.Series) -> IntArray:
    """The place of each id among the different ones in order: numbers sort ten times as fast as text."""
    return user_id.cast(pl.Enum(user_id.unique().sort())).to_physical().cast(pl.Int64).to_numpy()


def moments(plays: pl.DataFrame) -> IntArray:
    """Times of plays as numbers, those without one first."""
    return plays["played_at"].to_physical().fill_null(np.iinfo(np.int64).min).to_numpy()


def oddities(plays: pl.DataFrame, user_N: IntArray) -> Counter[str]:
    """Count undated, unordered and repeated plays of a part, whose rows are in the order of the log.

    Repeats of a (user, song) pair are counted where no play has a time. Plays that are told twice are dated, and equal
    in all columns that are used.
    """
    dated_N = plays["played_at"].is_not_null().to_numpy()
    undated, repeats, twice = int((~dated_N).sum()), 0, 0
    if undated == plays.height:
        repeats = plays.height - plays.select(PAIR).n_unique()
    if not set(plays.columns) <= set(USED):  # else such rows were dropped as repeats
        twice = int(told_again(plays.select(USED).filter(dated_N)).sum())
    by_user = np.argsort(user_N, kind="stable")
    user_N, moment_N, dated_N = user_N[by_user], moments(plays)[by_user], dated_N[by_user]
    back_N = (moment_N[1:] < moment_N[:-1]) & (user_N[1:] == user_N[:-1]) & dated_N[1:] & dated_N[:-1]
    return Counter(kept=plays.height, undated=undated, back=int(back_N.sum()), repeats=repeats, twice=twice)


def note_times(odd: Counter[str], notes: list[str]) -> None:
    """Append notes about missing or unordered times."""
    timeless = odd["undated"] == odd["kept"]
    if timeless and odd["repeats"]:
        notes.append(
            f"plays: {odd['repeats']} rows repeat a (user, song) pair with other values, and there are no times"
        )
    if odd["twice"]:
        notes.append(
            f"plays: {odd['twice']} rows are equal to another, time and all, but for columns that are not used: if the "
            "log may tell a play twice, repeats=plays keeps it once"
        )
    if odd["back"]:
        notes.append(f"plays: {odd['back']} rows were not in time order; sorted by user and time")
    if odd["undated"] and not timeless:
        notes.append(f"plays: {odd['undated']} rows have no played_at")


def spill(frame: pl.DataFrame, aside: Path | None, name: str) -> pl.LazyFrame:
    """Return a lazy view of the table, after writing it to the folder aside if one is given."""
    if aside is None:
        return frame.lazy()
    frame.write_parquet(aside / f"{name}.parquet")
    return pl.scan_parquet(aside / f"{name}.parquet", glob=False)
