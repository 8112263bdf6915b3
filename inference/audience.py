"""Find the audience of new songs, and write it with scores and reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from artifacts.folders import writing
from artifacts.tracking import log_table, made, tracked, used
from configs.checks import check_options
from configs.errors import UserError
from configs.load import recorded
from configs.targeting import AudienceConfig, TargetingConfig
from data.arrays import BoolArray, FloatArray, IntArray
from data.catalogue import Catalogue
from data.item_pairs.verification import listening_matrix
from inference.audience_tables import audience_table, example_table, recommendation_table, show, similar_table
from inference.filters import (
    Exclusions,
    FirstPlays,
    read_exclusions,
    read_first_plays,
    songs_in_pool,
    without_listeners,
)
from inference.similar import Similar, find_similar
from inference.song_index import SongIndex, open_index
from inference.vectors import Boundary, boundary_vectors
from retrieval import audience as targeting
from retrieval.audience import Audience
from retrieval.boundary import NO_PAIRS, margins, songs_above, users_above
from retrieval.clusters import user_vectors, users_near_centroids, users_near_songs
from retrieval.warm_up import warm_vectors

KIND = "audience"
CHOICES = 4  # with a cap per user, lists are made so many times longer, so that a song has a next choice


@tracked("audience")
def make_audience(config: AudienceConfig, run: Any) -> None:
    """Run `pipeline.audience` (its docstring says what it reads and writes)."""
    index = open_index(check_options(config))
    catalogue = Catalogue.read(index.manifest["data"])
    new = songs_in_pool(config, catalogue)
    shown = song_to_show(config.show, catalogue, new)
    excluded = read_exclusions(config.exclude, catalogue, new) if config.exclude else None
    told = f"exclude={config.exclude}: {excluded}\n" if excluded else ""
    first = read_first_plays(config.plays, catalogue, new) if config.plays else None
    told += f"{first}\n" if first else ""
    excluded = without_listeners(excluded, catalogue, new, first)
    listening = listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs)
    index = warmed(index, new, listening, first, config.targeting.warm_up)
    similar = find_similar(index, new, listening, config.targeting)
    boundary = (
        boundary_vectors(config.boundary, new, index.manifest["data"], index.manifest["features"])
        if config.boundary
        else None
    )
    if boundary is not None and first is not None:
        prior = config.targeting.warm_up
        items = warm_vectors(boundary.item_CD, first.strength_CU, boundary.user_UD, prior)
        boundary = replace(boundary, item_CD=items)
    manifest = {
        "options": recorded(config),
        "encoder": index.manifest["encoder"],
        "boundary": boundary and boundary.run.fingerprint,
        "unknown": excluded and {column: len(ids) for column, ids in excluded.unknown.items()},
    }
    with writing(config.out, KIND, manifest) as folder:
        audience = find_audience(similar, listening, config, boundary, index.vectors, new, excluded)
        vectors = index.vectors if config.mode in ("taste", "cat", "union") else None
        table = audience_table(audience, similar, listening, catalogue, new, boundary, vectors)
        table.write_parquet(folder / "audience.parquet")
        similar_table(similar, catalogue, new).write_parquet(folder / "similar.parquet")
        if boundary is not None:
            songs = songs_of_users(boundary, excluded, config.targeting)
            recommendation_table(songs, catalogue, new).write_parquet(folder / "recommendations.parquet")
            manifest |= {"users_with_a_song": int((songs.users_CB >= 0).any(axis=1).sum())}
        reached = int((audience.users_CB >= 0).sum())
        manifest |= {
            "songs": len(new),
            "users_reached": reached,
            "songs_without_audience": int((audience.users_CB < 0).all(axis=1).sum()),
        }
    used(run, config.index, config.boundary)
    made(run, config.out, config.logger.upload)
    log_table(run, "examples", example_table(table, similar, catalogue, new))
    print(f"{told}{config.out}: {len(new)} songs, {reached} (song, user) rows, mode {config.mode}, gate {config.gate}")
    print(show(table, similar, catalogue, new, shown))


def warmed(
    index: SongIndex, new: IntArray, listening: sparse.csr_matrix, first: FirstPlays | None, prior: float
) -> SongIndex:
    """The index with vectors of new songs that go over from content to behaviour as their plays arrive."""
    if first is None:
        return index
    vectors = np.array(index.vectors)
    users = user_vectors(listening, vectors, np.ones(len(vectors)))
    vectors[new] = warm_vectors(vectors[new], first.strength_CU, users, prior)
    return replace(index, vectors=vectors)


def song_to_show(song_id: str | None, catalogue: Catalogue, new: IntArray) -> int:
    """Position among the new songs of the one to print, the first by default.

    Raises:
        UserError: it is not a new song.
    """
    ids = catalogue.songs["song_id"].gather(new).to_list()
    if song_id is not None and song_id not in ids:
        raise UserError(f"show={song_id}: not among the {len(ids)} new songs, e.g. {', '.join(ids[:3])}")
    return ids.index(song_id) if song_id is not None else 0


def find_audience(
    similar: Similar,
    listening: sparse.csr_matrix,
    config: AudienceConfig,
    boundary: Boundary | None,
    vectors: FloatArray,
    new: IntArray,
    excluded: Exclusions | None = None,
) -> Audience:
    """Users of each new song by the chosen mode, gated, without the excluded, and at most so often a user."""
    options = config.targeting
    budget = min(options.budget, listening.shape[0])
    depth = min(CHOICES * budget, listening.shape[0]) if options.per_user_cap else budget
    allowed = allowed_users(boundary if config.gate else None, excluded, options.margin)
    if config.mode == "boundary":
        assert boundary is not None
        found = users_of_songs(boundary, excluded, options, depth)
    elif config.mode == "taste":
        found = taste(listening, vectors, new, options, depth, allowed)
    elif config.mode == "i2i2u":
        found = i2i2u(similar, listening, options, depth, allowed)
    else:
        found = cat(similar, listening, vectors, new, options, depth, allowed)
        if config.mode == "union":
            found = targeting.union(i2i2u(similar, listening, options, depth, allowed), found, depth)
    return targeting.cap_users(found, options.per_user_cap, budget) if options.per_user_cap else found


def i2i2u(
    similar: Similar, listening: sparse.csr_matrix, options: TargetingConfig, budget: int, allowed: Any = None
) -> Audience:
    """The listeners of similar songs."""
    scale = targeting.activity_scale(listening, options.activity_power)
    chunk = targeting.songs_at_once(options.memory_mb, listening.shape[0])
    return targeting.listeners_of_similar(similar.weights_CS, listening, scale, budget, allowed, chunk)


def cat(
    similar: Similar,
    listening: sparse.csr_matrix,
    vectors: FloatArray,
    new: IntArray,
    options: TargetingConfig,
    budget: int,
    allowed: Any = None,
) -> Audience:
    """Users whose taste is near a cluster of the I2I2U users; who may not be reached may still tell about taste."""
    seeds = i2i2u(similar, listening, options, min(options.seed_users, listening.shape[0])).users_CB
    users = user_vectors(listening, vectors, targeting.popularity_scale(listening, options.popularity_power))
    points = 4 * seeds.shape[1] * users.shape[1] * users.itemsize  # of a song, and their copies
    chunk = targeting.songs_at_once(options.memory_mb, listening.shape[0], extra=points)
    return users_near_centroids(
        seeds, users, vectors[new], options.clusters, budget, options.song_weight, allowed, chunk, options.seed
    )


def taste(
    listening: sparse.csr_matrix,
    vectors: FloatArray,
    new: IntArray,
    options: TargetingConfig,
    budget: int,
    allowed: Any = None,
) -> Audience:
    """Users whose mean direction is nearest to the song: the similarities of all their songs, not of K neighbours."""
    users = user_vectors(listening, vectors, np.ones(len(vectors)))
    chunk = targeting.songs_at_once(options.memory_mb, listening.shape[0])
    return users_near_songs(users, vectors[new], budget, allowed, chunk)


def users_of_songs(boundary: Boundary, excluded: Exclusions | None, options: TargetingConfig, budget: int) -> Audience:
    """The users of each new song who clear their own boundary the furthest."""
    users, without = None, NO_PAIRS
    if excluded is not None:
        users = np.setdiff1d(np.arange(len(boundary.user_UD)), excluded.users)
        without = excluded.song, excluded.user
    parts = (boundary.item_CD, boundary.user_UD, boundary.boundary_U)
    return users_above(*parts, budget, options.margin, users, without, options.users_index, options.memory_mb)


def songs_of_users(boundary: Boundary, excluded: Exclusions | None, options: TargetingConfig) -> Audience:
    """The new songs of each user that clear his boundary the furthest, `users_CB` being song places, (U, songs)."""
    without = NO_PAIRS if excluded is None else (excluded.song, excluded.user)
    k = min(options.songs_per_user, len(boundary.item_CD))
    parts = (boundary.item_CD, boundary.user_UD, boundary.boundary_U)
    found = songs_above(*parts, k, options.margin, without, options.memory_mb)
    if excluded is not None:
        found.users_CB[excluded.users] = -1
    return found


def allowed_users(boundary: Boundary | None, excluded: Exclusions | None, least: float = 0.0) -> Any:
    """A function of a slice of new songs → (rows, U) mask: gated, where there is a boundary, and not excluded."""
    if boundary is None:
        return excluded and excluded.allowed

    def allowed(rows: slice) -> BoolArray:
        clears: BoolArray = margins(boundary.item_CD[rows], boundary.user_UD, boundary.boundary_U) > least
        return clears if excluded is None else clears & excluded.allowed(rows)

    return allowed
