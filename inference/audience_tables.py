"""What `pipeline.audience` writes and shows: the tables of its folder and one song's page on the screen."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from data.arrays import IntArray
from data.catalogue import Catalogue
from inference.vectors import Boundary
from retrieval.audience import Audience
from retrieval.targeting import Similar

SHOWN = 10  # users and similar songs in the printed table
EXAMPLES, EXAMPLE_USERS = 20, 5  # new songs of the table of examples, and users of each


def audience_table(
    audience: Audience, because_CBT: IntArray, catalogue: Catalogue, new: IntArray, boundary: Boundary | None
) -> pl.DataFrame:
    """One row a (new song, user): rank, score, margin over the user's boundary, and the songs that explain it."""
    row, rank = np.nonzero(audience.users_CB >= 0)
    user = audience.users_CB[row, rank]
    reason = because_CBT[row, rank]
    margin: Any = [None] * len(row) if boundary is None else boundary.margin(row, user)
    ids = catalogue.songs["song_id"]
    named = [ids.gather(pl.Series(np.maximum(one, 0))).set(pl.Series(one < 0), None) for one in reason.T]
    because = pl.DataFrame([one.alias(str(place)) for place, one in enumerate(named)]).select(
        pl.concat_list(pl.all()).list.drop_nulls().alias("because")
    )
    return pl.DataFrame(
        {
            "song_id": ids.gather(new[row]),
            "user_id": catalogue.users["user_id"].gather(user),
            "rank": rank + 1,
            "score": audience.scores_CB[row, rank],
            "margin": pl.Series("margin", margin, dtype=pl.Float32),
            "because": because["because"],
        }
    )


def similar_table(similar: Similar, catalogue: Catalogue, new: IntArray) -> pl.DataFrame:
    """One row a (new song, similar known song)."""
    row, rank = np.nonzero(similar.positions_CK >= 0)
    ids = catalogue.songs["song_id"]
    return pl.DataFrame(
        {
            "song_id": ids.gather(new[row]),
            "similar_song_id": ids.gather(similar.positions_CK[row, rank]),
            "similarity": similar.scores_CK[row, rank],
        }
    )


def recommendation_table(songs: Audience, catalogue: Catalogue, new: IntArray) -> pl.DataFrame:
    """One row a (user, new song above their boundary): rank and margin."""
    row, rank = np.nonzero(songs.users_CB >= 0)
    return pl.DataFrame(
        {
            "user_id": catalogue.users["user_id"].gather(row),
            "song_id": catalogue.songs["song_id"].gather(new[songs.users_CB[row, rank]]),
            "rank": rank + 1,
            "margin": songs.scores_CB[row, rank],
        }
    )


def example_table(table: pl.DataFrame, similar: Similar, catalogue: Catalogue, new: IntArray) -> pl.DataFrame:
    """First listeners of a few new songs, evenly spaced, with words for ids: what resembles the song, and why they."""
    named, genres = pl.coalesce("title", "song_id").alias("title"), pl.col("genres").list.join("/")
    songs = catalogue.songs.select("song_id", named, genres)
    chosen = np.unique(np.linspace(0, len(new) - 1, EXAMPLES).round().astype(np.int64))
    title = songs["title"]
    near = [title.gather(row[row >= 0][:EXAMPLE_USERS]).str.join("; ")[0] for row in similar.positions_CK[chosen]]
    about = songs[new[chosen]].with_columns(pl.Series("similar", near, dtype=pl.String))
    users = table.filter(pl.col("rank") <= EXAMPLE_USERS)
    titles = songs.select(pl.col("song_id").alias("because"), pl.col("title").alias("heard"))
    rows = about.join(users, on="song_id", maintain_order="left").with_row_index("row")
    heard = rows.select("row", "because").explode("because").join(titles, on="because", maintain_order="left")
    said = heard.group_by("row").agg(pl.col("heard").str.join("; ").alias("because"))
    rows = rows.drop("because").join(said, on="row", how="left", maintain_order="left")
    return rows.select("song_id", "title", "genres", "similar", "rank", "user_id", "score", "margin", "because")


def show(table: pl.DataFrame, similar: Similar, catalogue: Catalogue, new: IntArray, at: int) -> str:
    """A readable page about the new song at position `at`: what it resembles and whom it goes to."""
    song_id = catalogue.songs["song_id"][int(new[at])]
    label = catalogue.songs.select(
        pl.concat_str(
            pl.col("title").fill_null("(no title)"),
            pl.lit(" · "),
            pl.col("artist_id").fill_null("?"),
            pl.lit(" · "),
            pl.col("genres").list.join("/").fill_null("?"),
        )
    ).to_series()
    shown = table.filter(pl.col("song_id") == song_id).head(SHOWN)
    heard = catalogue.songs.filter(pl.col("song_id").is_in(shown["because"].explode().implode()))
    titles = dict(heard.select("song_id", pl.col("title").fill_null("(no title)")).iter_rows())
    lines = [f"\nnew song {song_id}: {label[int(new[at])]}", "  similar known songs:"]
    near = similar.positions_CK[at][:SHOWN]
    lines += [
        f"    {score:8.3f}  {label[int(song)]}"
        for song, score in zip(near, similar.scores_CK[at], strict=False)
        if song >= 0
    ]
    lines.append("  first listeners (user, score, because of):")
    for user, score, because in shown.select("user_id", "score", "because").iter_rows():
        lines.append(f"    {user:<12} {score:8.3f}  {'; '.join(titles[one] for one in because)}")
    return "\n".join(lines)
