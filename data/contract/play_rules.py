"""What the data contract says about plays, checked in parts: a log beyond memory lies in a folder aside meanwhile.

Each row is judged on its own where it is read, a chunk of rows at a time. What needs all plays of a user (repeats, the
order of time) is judged in parts, each a range of users. A table that fits is one chunk and one part, in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from data.contract.row_rules import Rejected, reject

PAIR = ["user_id", "song_id"]
# A row is named by the first rule that it breaks. In SQL, since two engines read them; `_song` and `_user` are null
# where the tables of songs and users have no such row. Releases count by day: few dates carry an hour, plays do.
ROW_RULES = [
    ("plays_without_id", "user_id IS NULL OR song_id IS NULL", "plays without user_id or song_id", PAIR),
    ("plays_of_unknown_songs", "_song IS NULL", "plays of songs not in songs.parquet", ["song_id"]),
    ("plays_of_unknown_users", "_user IS NULL", "plays of users not in users.parquet", ["user_id"]),
    (
        "plays_before_release",
        "CAST(played_at AS DATE) < CAST(_released_at AS DATE)",
        "plays dated before the song's release",
        PAIR,
    ),
    ("plays_without_count", "play_count <= 0", "plays with play_count of zero or less", PAIR),
    ("plays_contradictory", "favourited AND disliked", "plays both favourited and disliked", PAIR),
]
REPEATED = ("plays_repeated", "exact repeats of another row of plays (kept once)")
WORKING = 6  # times what a chunk of rows takes while it is checked


@dataclass
class Plays:
    """Usable plays, a part for each range of users, by user and time in it where there are times."""

    found: int  # rows read
    parts: list[pl.LazyFrame] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)  # rows: kept, undated, out of order, (user, song) that repeat


def usable_plays(
    plays: list[pl.LazyFrame],
    songs: pl.DataFrame,
    users: pl.DataFrame | None,
    rejected: Rejected,
    memory_gb: float = 0.0,
    aside: Path | None = None,
) -> Plays:
    """The plays that mean something: known song, known user, possible date, count and marks; repeats kept once.

    Args:
        plays: with the contract's columns, lazily, in pieces.
        songs: the songs (`song_id`, `released_at`).
        users: the users (`user_id`), None where the plays say who they are.
        rejected: what is skipped is added here.
        memory_gb: memory that a chunk or a part may take, 0 for all at once.
        aside: where the parts are written; needed with memory_gb.
    """
    log = pl.concat(plays)
    found = log.select(pl.len()).collect().item()
    rows = rows_at_once(log, memory_gb) if memory_gb else max(found, 1)
    part_of = users_in_parts(log, users, rows) if found > rows else None
    chunks: dict[int, list[pl.LazyFrame]] = defaultdict(list)
    for at, chunk in in_chunks(plays, rows):
        chunk = usable_rows(chunk, songs, users, rejected)
        if part_of is None:
            chunks[0].append(chunk.lazy())
            continue
        parts = chunk.join(part_of, on="user_id", how="left", maintain_order="left").partition_by("_part", as_dict=True)
        for (part,), frame in parts.items():
            chunks[part].append(spill(frame.drop("_part"), aside, f"chunk-{part}-{at}"))
    for key, *_ in ROW_RULES:  # in their order, whichever chunk met them first
        if key in rejected:
            rejected[key] = rejected.pop(key)
    return by_users(found, [chunks[part] for part in sorted(chunks)], rejected, aside)


def in_chunks(plays: list[pl.LazyFrame], rows: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Where each chunk begins in the log, and its rows, with `_row`, their place in it.

    A chunk is of one piece: a slice of their union would read all that lies before it.
    """
    before = 0
    for piece in plays:
        found = piece.select(pl.len()).collect().item()
        for start in range(0, found, rows):
            at = before + start
            chunk = piece.slice(start, rows).collect().with_row_index("_row")
            yield at, chunk.with_columns(pl.col("_row").cast(pl.Int64) + at)
        before += found


def rows_at_once(plays: pl.LazyFrame, memory_gb: float) -> int:
    """Rows of a chunk or part that are checked within the memory, from what the first ones take."""
    some = plays.head(50_000).collect()
    return max(1000, int(memory_gb * 1e9 / WORKING * some.height / max(some.estimated_size(), 1)))


def users_in_parts(plays: pl.LazyFrame, users: pl.DataFrame | None, rows: int) -> pl.DataFrame:
    """`user_id` and `_part`: ranges of the users' order with some `rows` plays each."""
    counts = plays.group_by("user_id").agg(pl.len().alias("_plays")).collect(engine="streaming").drop_nulls("user_id")
    if users is None:
        counts = counts.sort("user_id")
    else:
        counts = users.select("user_id").join(counts, on="user_id", how="inner", maintain_order="left")
    return counts.select("user_id", _part=(pl.col("_plays").cum_sum() - pl.col("_plays")) // rows)


def usable_rows(
    plays: pl.DataFrame, songs: pl.DataFrame, users: pl.DataFrame | None, rejected: Rejected
) -> pl.DataFrame:
    """The rows that break none of ROW_RULES."""
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


def by_users(found: int, parts: list[list[pl.LazyFrame]], rejected: Rejected, aside: Path | None) -> Plays:
    """Each part without repeats and in time order; parts are dropped from the list as they are done."""
    done, named, repeated = Plays(found), [], 0
    while parts:
        plays = pl.concat(parts.pop(0)).collect()
        again = ~plays.select(pl.struct(pl.exclude("_row")).is_first_distinct()).to_series()
        repeated += int(again.sum())
        named.append(plays.filter(again).select("_row", *PAIR).unique(PAIR, keep="first", maintain_order=True).head(5))
        plays = plays.filter(~again).drop("_row")
        done.odd += oddities(plays)
        if plays["played_at"].null_count() < plays.height:
            plays = plays.sort("user_id", "played_at", maintain_order=True)
        done.parts.append(spill(plays, aside if parts or done.parts else None, f"usable-{len(done.parts)}"))
    if repeated:
        reject(pl.concat(named).sort("_row"), pl.col("_row") >= 0, *REPEATED, PAIR, rejected)
        rejected[REPEATED[0]]["count"] = repeated
    return done


def oddities(plays: pl.DataFrame) -> Counter[str]:
    """Counts of what is unusual in a part, in the order in which its plays were written."""
    back = (pl.col("played_at").diff().over("user_id") < pl.duration()).sum()
    once = pl.struct(PAIR).n_unique()
    row = plays.select(kept=pl.len(), undated=pl.col("played_at").null_count(), back=back, repeats=pl.len() - once)
    return Counter(row.row(0, named=True))


def note_times(odd: Counter[str], notes: list[str]) -> None:
    """What was odd about the times."""
    if odd["undated"] == odd["kept"]:
        if odd["repeats"]:
            notes.append(
                f"plays: {odd['repeats']} rows repeat a (user, song) pair with other values, and there are no times"
            )
        return
    if odd["back"]:
        notes.append(f"plays: {odd['back']} rows were not in time order; sorted by user and time")
    if odd["undated"]:
        notes.append(f"plays: {odd['undated']} rows have no played_at")


def spill(frame: pl.DataFrame, aside: Path | None, name: str) -> pl.LazyFrame:
    """The table lazily: from a file in the folder aside, or from memory where there is none."""
    if aside is None:
        return frame.lazy()
    frame.write_parquet(aside / f"{name}.parquet")
    return pl.scan_parquet(aside / f"{name}.parquet", glob=False)
