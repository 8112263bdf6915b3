"""Find the audience of new songs, and write it with scores and reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from artifacts.folders import writing
from artifacts.tracking import log_table, made, tracked, used
from configs.errors import UserError
from configs.load import recorded
from configs.targeting import AudienceConfig
from data.arrays import IntArray
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
from inference.song_index import SongIndex, open_index
from inference.targeting import targeting_of
from inference.vectors import Boundary, boundary_vectors
from retrieval.clusters import user_vectors
from retrieval.listening import Listening
from retrieval.warm_up import warm_vectors

KIND = "audience"


@tracked("audience")
def make_audience(config: AudienceConfig, run: Any) -> None:
    """Run `pipeline.audience` (its docstring says what it reads and writes)."""
    index = open_index(config.index)
    catalogue = Catalogue.read(index.manifest["data"])
    new = songs_in_pool(config, catalogue)
    shown = song_to_show(config.show, catalogue, new)
    exclusions = read_exclusions(config.exclude, catalogue, new) if config.exclude else Exclusions()
    first = read_first_plays(config.plays, catalogue, new) if config.plays else None
    lines = [f"exclude={config.exclude}: {exclusions}"] if config.exclude else []
    lines += [str(first)] if first else []
    excluded = without_listeners(exclusions, catalogue, new, first)
    options, listening = config.targeting, listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs)
    index = warmed(index, new, listening, first, options.warm_up)
    boundary = boundary_of(config, index, new, first)
    targeting = targeting_of(index, Listening(listening), options, boundary)
    songs = targeting.songs(index.vectors[new], new, boundary.item_CD if boundary else None, excluded)
    manifest = {
        "options": recorded(config),
        "encoder": index.manifest["encoder"],
        "boundary": boundary and boundary.run.fingerprint,
        "unknown": {column: len(ids) for column, ids in exclusions.unknown.items()} or None,
    }
    with writing(config.out, KIND, manifest) as folder:
        found = targeting.audience(
            songs, config.mode, options.budget, config.gate, options.margin, options.per_user_cap
        )
        table = audience_table(found, targeting.reasons(found.users_CB, songs), catalogue, new, boundary)
        table.write_parquet(folder / "audience.parquet")
        similar_table(songs.similar, catalogue, new).write_parquet(folder / "similar.parquet")
        if songs.item_CD is not None:
            named = targeting.songs_of_users(songs.item_CD, options.songs_per_user, options.margin, songs.excluded)
            recommendation_table(named, catalogue, new).write_parquet(folder / "recommendations.parquet")
            manifest |= {"users_with_a_song": int((named.users_CB >= 0).any(axis=1).sum())}
        reached = found.users_CB >= 0
        manifest |= {"songs": len(new), "users_reached": int(reached.sum())}
        manifest |= {"songs_without_audience": int((~reached.any(axis=1)).sum())}
    used(run, config.index, config.boundary)
    made(run, config.out, config.logger.upload)
    log_table(run, "examples", example_table(table, songs.similar, catalogue, new))
    rows = f"{len(new)} songs, {table.height} (song, user) rows"
    lines.append(f"{config.out}: {rows}, mode {config.mode}, gate {config.gate}")
    print("\n".join([*lines, show(table, songs.similar, catalogue, new, shown)]))


def boundary_of(config: AudienceConfig, index: SongIndex, new: IntArray, first: FirstPlays | None) -> Boundary | None:
    """Vectors of the boundary model, those of new songs warmed by their first plays; None without one."""
    if config.boundary is None:
        return None
    boundary = boundary_vectors(config.boundary, new, index.manifest["data"], index.manifest["features"])
    if first is None:
        return boundary
    items = warm_vectors(boundary.item_CD, first.strength_CU, boundary.user_UD, config.targeting.warm_up)
    return replace(boundary, item_CD=items)


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
    if song_id is None:
        return 0
    if song_id not in ids:
        raise UserError(f"show={song_id}: not among the {len(ids)} new songs, e.g. {', '.join(ids[:3])}")
    return ids.index(song_id)
