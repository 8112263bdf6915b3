"""Read Yambda (Yandex Music, 2025) as published: the Parquet files of flat/50m, flat/500m or flat/5b.

Listens, likes and dislikes become plays; the vectors of the recordings are the feature `audio`. No date of release is
published: a song is released at its first event. What was listened to from the recommendations says how well the song
before it recommends.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from configs.errors import UserError
from data.published.files import Found, pieces, scan

KINDS = {"listen": "listens", "like": "likes", "dislike": "dislikes", "unlike": "unlikes", "undislike": "undislikes"}
EVENT = {"uid": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64, "is_organic": pl.Int8}
RATIO = {"played_ratio_pct": pl.Float32}
KEY = ["uid", "item_id"]
COMPLETE = 50  # per cent: the authors' Listen+; more than 100 is a song that was rewound
SESSION = 1800  # seconds that a song may lie before what was recommended after it
LIKED = 600  # seconds after a play in which a like belongs to it
BATCH = 1_000_000  # listens
MOST = 2_000_000  # pairs of songs with feedback that are kept
VECTORS = ("normalized_embed", "embed")
PAIR = ["source_song_id", "recommended_song_id"]


def read(source: Path, folder: Path, found: Found) -> None:
    """Write a dataset folder from `source`, a folder of one size, or above one.

    Raises:
        UserError: a file is missing or does not have the published form.
    """
    at = size_folder(source)
    events = events_in(at)
    likes = standing(events, "like", "unlike", found)
    dislikes = standing(events, "dislike", "undislike", found)
    listens = events["listen"]
    logs = {"completed": listens, "favourited": likes, "disliked": dislikes}
    who = {"user_id": pl.col("uid"), "song_id": pl.col("item_id"), "played_at": _time()}
    what = {"completed": pl.col("played_ratio_pct") >= COMPLETE, "favourited": pl.lit(True), "disliked": pl.lit(True)}
    for number, (flag, log) in enumerate(logs.items()):
        if log is not None:
            flags = {name: value if name == flag else pl.lit(None, pl.Boolean) for name, value in what.items()}
            log.select(**who, **flags).sink_parquet(folder / "plays" / f"{number}-{flag}.parquet")
    found.notes += [
        f"yambda: completed is a played_ratio_pct of {COMPLETE} or more; likes and dislikes are rows of their own",
        "yambda: released_at is the first event of a song among these users; times count from 1970-01-01, an arbitrary "
        "start",
    ]
    songs_of(source, at, folder, found).write_parquet(folder / "songs.parquet")
    pairs = feedback(listens, likes, found)
    if pairs.height:
        found.notes.append(f"yambda: is_organic tells of {pairs.height} pairs of songs how the second did")
        pairs.write_parquet(folder / "i2i_feedback.parquet")


def size_folder(source: Path) -> Path:
    """The folder of the log.

    Raises:
        UserError: there is none, or more than one.
    """
    places = [source, *sorted(source.glob("flat/*")), *sorted(source.glob("*"))]
    logs = ("listens.parquet", "multi_event.parquet")
    with_log = [place for place in places if any((place / name).is_file() for name in logs)]
    if not with_log:
        raise UserError(f"{source} has no listens.parquet: give the folder of a size of Yambda, such as flat/50m")
    if with_log[0] != source and len(with_log) > 1:
        raise UserError(f"{source} has several sizes of Yambda: give one of them, such as {with_log[0]}")
    return with_log[0]


def events_in(at: Path) -> dict[str, pl.LazyFrame]:
    """The events of each kind that there are: from a file for each, or from the one of all."""
    if (at / "listens.parquet").is_file():
        files = {kind: at / f"{name}.parquet" for kind, name in KINDS.items()}
        return {
            kind: scan(path, EVENT | (RATIO if kind == "listen" else {}))
            for kind, path in files.items()
            if path.is_file()
        }
    log = scan(at / "multi_event.parquet", EVENT | RATIO | {"event_type": pl.String})
    return {kind: log.filter(pl.col("event_type") == kind).drop("event_type") for kind in KINDS}


def standing(events: dict[str, pl.LazyFrame], kind: str, taken_back: str, found: Found) -> pl.LazyFrame | None:
    """Likes (or dislikes) without those that the user took back later."""
    given, undone = events.get(kind), events.get(taken_back)
    if given is None:
        found.notes.append(f"yambda: there is no {KINDS[kind]}.parquet")
        return None
    if undone is None:
        return given
    last = undone.group_by(KEY).agg(_back=pl.col("timestamp").max())
    marked = given.join(last, on=KEY, how="left", maintain_order="left")
    gone = (pl.col("_back") >= pl.col("timestamp")).fill_null(False)
    names = pl.format("{} / {}", *KEY).head(5).implode()
    number, examples = marked.filter(gone).select(pl.len(), names).collect(engine="streaming").row(0)
    if number:
        what = f"{KINDS[kind]} that the user took back later"
        found.rejected[f"{kind}_taken_back"] = {"count": number, "examples": list(examples), "what": what}
    return marked.filter(~gone).drop("_back")


def songs_of(source: Path, at: Path, folder: Path, found: Found) -> pl.DataFrame:
    """The songs of the log, with their first event, their artist (of several the lowest number) and their vector."""
    first = pieces(folder / "plays").group_by("song_id").agg(released_at=pl.col("played_at").min())
    songs = first.drop_nulls("song_id").collect(engine="streaming").sort("song_id")
    if artists := _shared(source, at, "artist_item_mapping"):
        pairs = scan(artists, {"item_id": pl.Int64, "artist_id": pl.Int64}).rename({"item_id": "song_id"})
        of_song = pairs.group_by("song_id").agg(pl.col("artist_id").min(), _artists=pl.col("artist_id").n_unique())
        songs = songs.lazy().join(of_song, on="song_id", how="left", maintain_order="left").collect(engine="streaming")
        if several := songs.select((pl.col("_artists") > 1).sum()).item():
            found.notes.append(f"yambda: {several} songs have several artists; artist_id is the lowest")
        songs = songs.drop("_artists")
    if vectors := _shared(source, at, "embeddings"):
        names = pl.scan_parquet(vectors, glob=False).collect_schema().names()
        name = next((name for name in VECTORS if name in names), VECTORS[0])
        table = scan(vectors, {"item_id": pl.Int64, name: pl.List(pl.Float32)})
        table = table.rename({"item_id": "song_id", name: "feature_audio"})
        known = table.join(songs.lazy().select("song_id"), on="song_id", how="semi").collect(engine="streaming")
        songs = songs.join(known.unique("song_id"), on="song_id", how="left", maintain_order="left")
    return songs


def _shared(source: Path, at: Path, name: str) -> Path | None:
    """A file that all sizes share: beside the log, or above it."""
    places = [at, *at.parents[:2], source]
    return next((place / f"{name}.parquet" for place in places if (place / f"{name}.parquet").is_file()), None)


def feedback(listens: pl.LazyFrame, likes: pl.LazyFrame | None, found: Found) -> pl.DataFrame:
    """How songs did that were listened to from the recommendations (`is_organic` 0), by the song before them.

    That is the last song that the user had chosen themselves, at most SESSION seconds before. Users are read a batch
    at a time, since their listens stand together.
    """
    parts: list[pl.DataFrame] = []
    rest = pl.DataFrame(schema=EVENT | RATIO)
    for batch in listens.collect_batches(chunk_size=BATCH, maintain_order=True, engine="streaming"):
        whole = pl.concat([rest, batch])
        if not whole["uid"].is_sorted():
            found.notes.append("yambda: listens are not sorted by user, so is_organic is not used")
            return pl.DataFrame()
        last = pl.col("uid") == pl.col("uid").last()
        rest = whole.filter(last)
        parts = added(parts, pairs_in(whole.filter(~last), likes))
    pairs = pl.concat(added(parts, pairs_in(rest, likes))).group_by(PAIR).sum().sort(PAIR)
    if pairs.height > MOST:
        least = pairs["plays"].top_k(MOST + 1).min() + 1
        found.notes.append(f"yambda: i2i feedback of pairs with at least {least} plays is kept")
        pairs = pairs.filter(pl.col("plays") >= least)
    return pairs


def added(parts: list[pl.DataFrame], pairs: pl.DataFrame) -> list[pl.DataFrame]:
    """Add counts to earlier ones, which are summed up when they are many."""
    parts = [*parts, pairs]
    if sum(part.height for part in parts) > 2 * MOST:
        return [pl.concat(parts).group_by(PAIR).sum()]
    return parts


def pairs_in(listens: pl.DataFrame, likes: pl.LazyFrame | None) -> pl.DataFrame:
    """Plays, complete plays and favourites of each pair among the listens of some users."""
    chosen = pl.col("is_organic") != 0
    before = pl.when(chosen).then("item_id").forward_fill().over("uid")
    since = pl.col("timestamp") - pl.when(chosen).then("timestamp").forward_fill().over("uid")
    listens = listens.sort("uid", "timestamp", maintain_order=True).with_columns(_before=before, _since=since)
    near = ~chosen & (pl.col("_since") <= SESSION) & (pl.col("_before") != pl.col("item_id"))
    offered = listens.filter(near).sort("timestamp").with_columns(_liked=pl.lit(None, pl.Int64))
    if likes is not None and offered.height:
        of_users = likes.filter(pl.col("uid").is_between(offered["uid"].min(), offered["uid"].max()))
        given = of_users.select(*KEY, "timestamp", _liked="timestamp").sort("timestamp").collect(engine="streaming")
        offered = offered.drop("_liked").join_asof(
            given, on="timestamp", by=KEY, strategy="forward", tolerance=LIKED, check_sortedness=False
        )
    return offered.group_by(source_song_id="_before", recommended_song_id="item_id").agg(
        plays=pl.len().cast(pl.Int64),
        completes=(pl.col("played_ratio_pct") >= COMPLETE).sum().cast(pl.Int64),
        favourites=pl.col("_liked").is_not_null().sum().cast(pl.Int64),
    )


def _time() -> pl.Expr:
    return (pl.col("timestamp") * 1000).cast(pl.Datetime("ms"))
