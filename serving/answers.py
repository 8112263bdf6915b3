"""Answers from a state: similar songs, a song's audience, margins and clusters, a user's new songs; and why.

Audiences are those of `retrieval.targeting`, one song at a time, with what has come in since.

Shapes: S songs of the catalogue, U users, K similar songs, B budget, N new songs, D vector size; C = 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.arrays import FloatArray, IntArray
from data.conditions import ConditionError
from inference.ranking import facts_of, song_facts
from inference.song_index import entries_where
from retrieval.audience import Excluded
from retrieval.boundary import margins
from retrieval.clusters import audience_clusters
from retrieval.distinct import distinct
from retrieval.gate import probability
from retrieval.index import unit_rows
from retrieval.rank_reasons import RankReasons
from retrieval.songs import SongFacts, Songs
from retrieval.targeting import Mode
from serving.refusals import Refused, no_condition
from serving.state import State

BINS, STEPS = 40, 21  # of the histogram of margins and of the curve over it


@dataclass
class Reached:
    """Users of a song, the best first: numbers, scores, margins (NaN without a boundary), songs that explain each."""

    users_B: IntArray
    scores_B: FloatArray
    margins_B: FloatArray
    because_BT: IntArray
    reasons: RankReasons | None  # of the mode "rank"
    users: int  # who could be reached: those who have not opted out, and for whom the condition holds
    above: int | None  # of these, those whose boundary the song clears by the asked margin


def similar_songs(
    state: State, number: int, k: int, among: str = "known", of: Songs | None = None, where: str | None = None
) -> tuple[IntArray, FloatArray]:
    """The K songs most similar to a song, without itself, and their scores, the nearest first.

    Of those with listeners, or ("new") of those without. `of` is the song as `song_of` makes it, where it is made: its
    neighbours need not be searched for again. `where`: of those with listeners, for which this condition holds.

    Raises:
        ConditionError: it is no condition.
        Refused: the index cannot be searched in part.
    """
    if of is not None and of.similar.positions_CK.shape[1] >= k:
        scores_K, songs_K = of.similar.scores_CK[0], of.similar.positions_CK[0]
    elif among == "new":
        scores_K, songs_K = state.similar_new(state.vectors(number)[0], k + 1)
    elif where is not None:
        index = state.model.index
        part = replace(index, only=entries_where(index, state.model.said, where))
        try:
            scores_K, songs_K = (found[0] for found in part.similar(state.vectors(number)[0][None], k + 1))
        except ValueError as error:  # PCA before Flat
            raise Refused(409, str(error)) from None
    else:
        vector_1D, number_1 = state.vectors(number)[0][None], np.array([number])
        scores_K, songs_K = (found[0] for found in state.model.targeting.similar(vector_1D, number_1, k))
    kept = (songs_K >= 0) & (songs_K != number)
    return songs_K[kept][:k], scores_K[kept][:k]


def song_of(state: State, number: int, users_where: str | None = None) -> Songs:
    """A song as `retrieval.targeting` takes it. Left out are those who have met it, in the training or since, who have
    opted out, and for whom a condition (`data.conditions`) does not hold.

    Raises:
        Refused: the condition is none.
    """
    model = state.model
    vector_D, item_D = state.vectors(number)
    met = set(state.met.get(number, ()))
    if number not in state.pool.row_of:  # as a song has that came in before this model was made
        met.update(model.plays_of(number)[1].tolist())
    user = np.array(sorted(met), dtype=np.int64)
    item_CD = None if item_D is None else item_D[None]
    excluded = Excluded(left_out(state, users_where), np.zeros_like(user), user)
    return model.targeting.songs(vector_D[None], np.array([number]), item_CD, excluded)


def left_out(state: State, users_where: str | None) -> IntArray:
    """Users who have opted out, and those for whom a condition, if there is one, does not hold.

    Raises:
        Refused: it is none.
    """
    if users_where is None:
        return state.opted_out
    try:
        outside = state.model.users_outside(users_where)
    except ConditionError as error:
        raise no_condition(error) from None
    return distinct(state.opted_out, outside)


def facts(state: State, number: int) -> SongFacts | None:
    """What a ranker asks of a song: of one that came in, what was told of it."""
    model = state.model
    if model.targeting.ranker is None:
        return None
    source = model.targeting.ranker.source
    if number < model.n_songs:
        return song_facts(source, model.catalogue, np.array([number]))
    found, stored = facts_of(source, state.about(number)), state.stored(number)
    if not model.targeting.ranker.history or stored is None:
        return found
    features = {name: values[None] for name, values in stored.features.items()}
    content = model.encoder.of_song(features, [stored.described])  # a network reads what the song encoder does
    return replace(found, number_C=np.array([model.n_songs]), content=content)


def audience(
    state: State, number: int, mode: Mode, budget: int, gate: bool, margin: float, of: Songs | None = None
) -> Reached:
    """Users of a song by one of `state.model.modes`; `gate`: only those whose boundary it clears by `margin`. `of` as
    in `similar_songs`: it says who is left out."""
    targeting, songs = state.model.targeting, of or song_of(state, number)
    songs.margin_CU = targeting.margins(songs) if state.model.has_boundary else None
    songs.facts = facts(state, number) if mode == "rank" else None
    found = targeting.audience(songs, mode, budget, gate, margin)
    n = int((found.users_CB >= 0).sum())
    users_1B, margin_CU = found.users_CB[:, :n], songs.margin_CU
    out = songs.excluded.users  # each once
    return Reached(
        users_1B[0],
        found.scores_CB[0, :n],
        np.full(n, np.nan) if margin_CU is None else margin_CU[0, users_1B[0]],
        targeting.reasons(users_1B, songs)[0],
        targeting.rank_reasons(found) if mode == "rank" else None,
        state.n_users - int((out < state.n_users).sum()),
        None if margin_CU is None else int((margin_CU > margin).sum() - (margin_CU[0, out] > margin).sum()),
    )


def margin_curve(state: State, number: int) -> dict[str, Any]:
    """Histogram of a song's margins, and whom each operating point reaches, of users who have not opted out."""
    _, item_D = state.vectors(number)
    assert item_D is not None
    margin_U = np.delete(margins(item_D[None], state.model.user_UD, state.model.boundary_U)[0], state.opted_out)
    margin_U = margin_U[np.isfinite(margin_U)]  # without rows of nobody
    counts, edges = np.histogram(margin_U, BINS)
    points = np.linspace(edges[0], edges[-1], STEPS)
    reached = 1 - np.searchsorted(np.sort(margin_U), points, side="right") / max(1, len(margin_U))
    fitted = state.model.manifest["calibration"]
    liked: list[Any] = probability(points, tuple(fitted)).tolist() if fitted else [None] * STEPS
    rows = zip(points.tolist(), reached.tolist(), liked, strict=True)
    return {
        "users": len(margin_U),
        "above": int((margin_U > 0).sum()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "calibration": fitted,
        "curve": [{"margin": margin, "reached": share, "liked": chance} for margin, share, chance in rows],
    }


def cluster_picture(state: State, number: int) -> dict[str, Any]:
    """The seed users of CAT by cluster, in the two directions in which they differ most, and the song among them.

    Who has opted out is counted in the clusters, but no point.
    """
    model, options, songs = state.model, state.model.options, song_of(state, number)
    user_UD, seeds = model.targeting.cat_taste.user_UD, model.targeting.seed_users(songs)[0]
    seeds = seeds[seeds >= 0]
    point_PD = user_UD[seeds]
    song_D = unit_rows(songs.vector_CD[0])
    if not len(seeds):
        return {"song": {"x": 0.0, "y": 0.0}, "points": [], "centroids": []}
    centre_CKD, size_CK = audience_clusters(seeds[None], user_UD, options.clusters, options.seed)
    centre_KD = centre_CKD[0][size_CK[0] > 0]
    nearest = np.argmax(point_PD @ unit_rows(centre_KD).T, axis=1)
    middle_D = point_PD.mean(axis=0)
    axes_2D = np.linalg.svd(point_PD - middle_D, full_matrices=False)[2][:2]
    axes_2D = np.pad(axes_2D, ((0, 2 - len(axes_2D)), (0, 0)))
    flat = {name: (at - middle_D) @ axes_2D.T for name, at in (("p", point_PD), ("c", centre_KD), ("s", song_D[None]))}
    is_out_P = np.isin(seeds, state.opted_out)
    genres = [genres_of(state, seeds[nearest == k]) for k in range(len(centre_KD))]
    return {
        "song": dict(zip("xy", flat["s"][0].tolist(), strict=True)),
        "points": [
            {"user_id": state.user_id(int(user)), "x": x, "y": y, "cluster": int(k)}
            for user, (x, y), k, is_out in zip(seeds, flat["p"].tolist(), nearest, is_out_P, strict=True)
            if not is_out
        ],
        "centroids": [
            {"x": x, "y": y, "size": int((nearest == k).sum()), "genres": genres[k]}
            for k, (x, y) in enumerate(flat["c"].tolist())
        ],
    }


def genres_of(state: State, users: IntArray) -> list[dict[str, Any]]:
    """The three genres that users listen to most, with their shares of the listening."""
    heard = state.model.listening.heard(users).indices
    counted = state.model.songs["genres"].gather(heard).explode().drop_nulls().value_counts(sort=True)
    top = counted.head(3).rows()
    return [{"genre": genre, "share": n / max(1, counted["count"].sum())} for genre, n in top]


def recommendations(state: State, user: int, k: int, margin: float) -> tuple[IntArray, FloatArray, IntArray, int]:
    """New songs above a user's boundary by more than `margin`: numbers, margins, reasons (K, 3); and of how many. None
    for who has opted out."""
    targeting, pool, users = state.model.targeting, state.pool, np.array([user])
    with state.lock:
        assert pool.item is not None
        met = {pool.row_of[song] for song, _ in state.played.get(user, ()) if song in pool.row_of}
        song = np.array(sorted(met), dtype=np.int64)
        excluded = Excluded(np.flatnonzero(state.is_out_U[users]), song, np.zeros_like(song))
        found = targeting.songs_of_users(pool.item[: pool.size], k, margin, excluded, users)
        kept = found.users_CB[0] >= 0
        rows, margin_K, size = found.users_CB[0][kept], found.scores_CB[0][kept], pool.size
        number_K, vector_KD = pool.number[rows].copy(), pool.vector[rows].copy()
    return number_K, margin_K, targeting.nearest_of(user, vector_KD), size
