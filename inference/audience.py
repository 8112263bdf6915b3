"""Find the audience of new songs, and write it with scores and reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl

from artifacts.folders import scratch, writing
from artifacts.tracking import log_table, made, tracked, used
from configs.errors import UserError
from configs.load import recorded
from configs.targeting import AudienceConfig, EvaluateConfig, TargetingConfig
from data.arrays import IntArray
from data.catalogue import Catalogue
from data.item_pairs.verification import listening_matrix
from inference.filters import (
    FirstPlays,
    left_out,
    read_first_plays,
    songs_in_pool,
    without_listeners,
)
from inference.margins import by_margins
from inference.ranking import open_ranker, song_facts
from inference.song_index import SongIndex, open_index, restricted
from inference.spark_audience import (
    SparkListening,
    SparkTargeting,
    listening_in_spark,
    plays_of,
    read_plays,
    targeting_in_spark,
)
from inference.targeting import targeting_of
from inference.vectors import Boundary, boundary_vectors
from retrieval.allocation import Exploration
from retrieval.audience import Audience, Excluded
from retrieval.clusters import user_vectors
from retrieval.distinct import distinct
from retrieval.listening import Listening
from retrieval.rank_reasons import RankReasons, in_words, rank_reasons
from retrieval.ranking import Ranker
from retrieval.songs import Similar, Songs
from retrieval.targeting import Targeting
from retrieval.warm_up import Level, ridged, ridged_moments, warm_vectors

KIND = "audience"
SHOWN = 10  # users and similar songs in the printed table
EXAMPLES, EXAMPLE_USERS = 20, 5  # new songs of the table of examples, and users of each


@tracked("audience")
def make_audience(config: AudienceConfig, run: Any) -> None:
    """Run `pipeline.audience` (its docstring says what it reads and writes)."""
    index = open_index(config.index)
    catalogue = Catalogue.read(index.manifest["data"])
    new = songs_in_pool(config, catalogue)
    shown = song_to_show(config.show, catalogue, new)
    exclusions, lines = left_out(config, catalogue, new)
    first = read_first_plays(config.plays, catalogue, new) if config.plays else None
    lines += [str(first)] if first else []
    options, listening = config.targeting, listening_of(config, catalogue)
    excluded = without_their_listeners(exclusions, listening, catalogue, new, first)
    index = warmed(restricted(index, catalogue.songs, config.where), new, listening, first, options.warm_up)
    boundary = boundary_of(config, index, new, first)
    ranker = ranker_of(config, catalogue, index, boundary, listening)
    items, facts = boundary.item_CD if boundary else None, song_facts(ranker.source, catalogue, new) if ranker else None
    manifest = {
        "options": recorded(config),
        "encoder": index.manifest["encoder"],
        "boundary": boundary and boundary.run.fingerprint,
        "unknown": {column: len(ids) for column, ids in exclusions.unknown.items()} or None,
    }
    with scratch(config.out) as aside, writing(config.out, KIND, manifest) as folder:
        targeting = targeting_for(listening, index, options, boundary, ranker, aside)
        targeting = by_margins(config, targeting, catalogue, index.manifest["features"], boundary, excluded)
        songs = targeting.songs(index.vectors[new], new, items, excluded, facts)
        limits = options.budget, config.gate, options.margin, options.per_user_cap
        found = targeting.audience(songs, config.mode, *limits, exploration_of(options, catalogue, new))
        table = audience_table(found, targeting.reasons(found.users_CB, songs), catalogue, new, boundary, ranker)
        table.write_parquet(folder / "audience.parquet")
        similar_table(songs.similar, catalogue, new).write_parquet(folder / "similar.parquet")
        if boundary is not None and config.margins is None:
            recommended = recommendations(targeting, songs, options, catalogue, new, aside)
            recommended.sink_parquet(folder / "recommendations.parquet")
            manifest |= {"users_with_a_song": recommended.select(pl.col("user_id").n_unique()).collect().item()}
        manifest |= reached(found)
    used(run, config.index, config.boundary, config.rank)
    made(run, config.out, config.logger.upload)
    log_table(run, "examples", example_table(table, songs.similar, catalogue, new))
    rows = f"{len(new)} songs, {table.height} (song, user) rows"
    lines.append(f"{config.out}: {rows}, mode {config.mode}, gate {config.gate}")
    print("\n".join([*lines, show(table, songs.similar, catalogue, new, shown)]))


def listening_of(config: AudienceConfig | EvaluateConfig, catalogue: Catalogue) -> Listening:
    """The listening of all users, where the engine has it."""
    if config.engine == "local":
        return Listening(listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs))
    return listening_in_spark(*read_plays(config.spark, catalogue, ranked=config.rank is not None), catalogue)


def without_their_listeners(
    exclusions: Excluded, listening: Listening, catalogue: Catalogue, new: IntArray, first: FirstPlays | None
) -> Excluded:
    """Whom songs must not go to, also because they have played them."""
    if isinstance(listening, SparkListening):
        plays = plays_of(listening.plays, np.intersect1d(new, catalogue.rows("warm")))
    else:
        plays = catalogue.plays
    return without_listeners(exclusions, plays, new, first)


def ranker_of(
    config: AudienceConfig | EvaluateConfig,
    catalogue: Catalogue,
    index: SongIndex,
    boundary: Boundary | None,
    listening: Listening,
) -> Ranker | None:
    """The ranker, where there is one; its features are made from plays where these are."""
    if config.rank is None:
        return None
    log = listening.plays if isinstance(listening, SparkListening) else None
    return open_ranker(config.rank, catalogue, index, boundary, config.targeting, log)


def targeting_for(
    listening: Listening,
    index: SongIndex,
    options: TargetingConfig,
    boundary: Boundary | None,
    ranker: Ranker | None,
    aside: Path,
) -> Targeting:
    """Targeting where the listening is; `aside` is for what Spark's workers read."""
    if isinstance(listening, SparkListening):
        return targeting_in_spark(index, listening, options, boundary, aside, ranker)
    return targeting_of(index, listening, options, boundary, ranker)


def reached(found: Audience) -> dict[str, int]:
    """How many songs and users the manifest counts."""
    reached_CB = found.users_CB >= 0
    without = int((~reached_CB.any(axis=1)).sum())
    return {"songs": len(reached_CB), "users_reached": int(reached_CB.sum()), "songs_without_audience": without}


def boundary_of(config: AudienceConfig, index: SongIndex, new: IntArray, first: FirstPlays | None) -> Boundary | None:
    """Vectors of the boundary model, those of new songs warmed by their first plays; None without one."""
    if config.boundary is None:
        return None
    of = index.manifest["data"], index.manifest["features"]
    boundary = boundary_vectors(config.boundary, new, *of, users=config.margins is None)
    if first is None:
        return boundary
    moment_DD = ridged_moments(boundary.user_UD)
    plays = first.strength_CU, boundary.user_UD, config.targeting.warm_up, moment_DD
    items = warm_vectors(boundary.item_CD, *plays)
    return replace(boundary, item_CD=Level.of(boundary.user_UD, moment_DD).kept(items, boundary.item_CD))


def exploration_of(options: TargetingConfig, catalogue: Catalogue, new: IntArray) -> Exploration | None:
    """What is drawn at random; songs are named by their ids, so that a draw does not change with the catalogue."""
    if not options.exploration:
        return None
    ids = catalogue.songs["song_id"].gather(new).to_list()
    return Exploration(options.exploration, options.seed, np.array([crc32(one.encode()) for one in ids]))


def warmed(index: SongIndex, new: IntArray, listening: Listening, first: FirstPlays | None, prior: float) -> SongIndex:
    """The index with vectors of new songs that go over from content to behaviour as their plays arrive."""
    if first is None:
        return index
    vectors, one_S, strength_CU = np.array(index.vectors), np.ones(len(index.vectors)), first.strength_CU
    if isinstance(listening, SparkListening):
        users_N = distinct(strength_CU.indices)
        moment_DD = ridged(listening.moments(vectors))
        strength_CU, heard_US = strength_CU[:, users_N], listening.heard(users_N)
    else:
        heard_US, moment_DD = listening.known_US, None
    vectors[new] = warm_vectors(vectors[new], strength_CU, user_vectors(heard_US, vectors, one_S), prior, moment_DD)
    return replace(index, vectors=vectors)


def song_to_show(song_id: str | None, catalogue: Catalogue, new: IntArray) -> int:
    """Position among the new songs of the one to print, the first by default.

    Raises:
        UserError: it is not a new song.
    """
    ids = catalogue.songs["song_id"].gather(new).to_list()
    if song_id is None:
        return 0
    if song_id not in ids:
        raise UserError(f"show={song_id}: not among the {len(ids)} new songs, e.g. {', '.join(ids[:3])}")
    return ids.index(song_id)


def audience_table(
    audience: Audience,
    because_CBT: IntArray,
    catalogue: Catalogue,
    new: IntArray,
    boundary: Boundary | None,
    ranker: Ranker | None = None,
) -> pl.DataFrame:
    """One row a (new song, user): rank, score, margin over the user's boundary, and the songs that explain it.

    With exploration also whether the user was drawn at random, and the chance with which they were chosen; of a ranked
    audience also who named them, and what raised their score.
    """
    row, rank = np.nonzero(audience.users_CB >= 0)
    user = audience.users_CB[row, rank]
    reason = because_CBT[row, rank]
    margin: Any = [None] * len(row)
    if boundary is not None:  # without users' vectors scores are what Milvus made of them
        margin = boundary.margin(row, user) if len(boundary.user_UD) else audience.scores_CB[row, rank]
    ids = catalogue.songs["song_id"]
    named = [ids.gather(pl.Series(np.maximum(one, 0))).set(pl.Series(one < 0), None) for one in reason.T]
    because = pl.DataFrame([one.alias(str(place)) for place, one in enumerate(named)]).select(
        pl.concat_list(pl.all()).list.drop_nulls().alias("because")
    )
    table = pl.DataFrame(
        {
            "song_id": ids.gather(new[row]),
            "user_id": catalogue.users["user_id"].gather(user),
            "rank": rank + 1,
            "score": audience.scores_CB[row, rank],
            "margin": pl.Series("margin", margin, dtype=pl.Float32),
            "because": because["because"],
        }
    )
    columns = {"explored": audience.explored_CB, "propensity": audience.propensity_CB}
    table = table.with_columns(**{name: pl.Series(of[row, rank]) for name, of in columns.items() if of is not None})
    if ranker is None or audience.asked is None:
        return table
    return table.hstack(reason_columns(rank_reasons(ranker, audience), audience, ids))


def reason_columns(reasons: RankReasons, found: Audience, ids: pl.Series) -> list[pl.Series]:
    """Columns of a ranked audience: the channels that named a user, the features that raised their score most, and of a
    network the songs of their history that it looked at most."""
    row, rank = np.nonzero(found.users_CB >= 0)
    ranks = pl.DataFrame(reasons.rank_CBM[row, rank], schema=list(reasons.channels), orient="row")
    named = [
        pl.when(pl.col(name) > 0).then(pl.struct(pl.lit(name).alias("channel"), pl.col(name).alias("rank")))
        for name in reasons.channels
    ]
    words = pl.DataFrame({"feature": reasons.names, "words": [in_words(name) for name in reasons.names]})
    raised = []
    for place in range(reasons.feature_CBT.shape[2]):
        feature = reasons.feature_CBT[row, rank, place]
        value, by = reasons.value_CBT[row, rank, place], reasons.raised_CBT[row, rank, place]
        one = words[np.maximum(feature, 0)].with_columns(
            pl.Series("value", value).fill_nan(None), by=by, there=feature >= 0
        )
        raised.append(one.select(pl.when("there").then(pl.struct("feature", "words", "value", "by"))))
    attended = []
    if reasons.song_CBT is not None and reasons.share_CBT is not None:
        for song, share in zip(reasons.song_CBT[row, rank].T, reasons.share_CBT[row, rank].T, strict=True):
            one = pl.DataFrame({"song_id": ids.gather(np.maximum(song, 0)), "share": share, "there": song >= 0})
            attended.append(one.select(pl.when("there").then(pl.struct("song_id", "share"))))
    return [
        ranks.select(pl.concat_list(named).list.drop_nulls().alias("named_by"))["named_by"],
        *(listed(of, name) for of, name in ((raised, "raised_by"), (attended, "attended_to")) if of),
    ]


def listed(columns: list[pl.DataFrame], name: str) -> pl.Series:
    """Columns, of one each, as one of lists, without what is null in them."""
    whole = pl.concat([one.rename({one.columns[0]: str(at)}) for at, one in enumerate(columns)], how="horizontal")
    return whole.select(pl.concat_list(pl.all()).list.drop_nulls().alias(name))[name]


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


def recommendations(
    targeting: Targeting, songs: Songs, options: TargetingConfig, catalogue: Catalogue, new: IntArray, aside: Path
) -> pl.LazyFrame:
    """One row a (user, new song above their boundary): rank and margin."""
    if isinstance(targeting, SparkTargeting):
        found = targeting.recommend(songs, options.songs_per_user, options.margin, aside)
    else:
        assert songs.item_CD is not None
        named = targeting.songs_of_users(songs.item_CD, options.songs_per_user, options.margin, songs.excluded)
        user, rank = np.nonzero(named.users_CB >= 0)
        song, margin = named.users_CB[user, rank], named.scores_CB[user, rank]
        found = pl.LazyFrame({"user": user, "song": song, "rank": rank + 1, "margin": margin})
    user_ids = catalogue.users.lazy().select("user_id", user=pl.int_range(pl.len()))
    song_ids = catalogue.songs[new].lazy().select("song_id", song=pl.int_range(pl.len()))
    found = found.join(user_ids, on="user", maintain_order="left").join(song_ids, on="song", maintain_order="left")
    return found.select("user_id", "song_id", "rank", "margin")


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
