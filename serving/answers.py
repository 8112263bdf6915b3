"""What is asked of a state: similar songs, a song's audience, margins and clusters, a user's new songs; and why.

The ways to an audience are those of pipeline.audience, one song at a time, with what has come in since.

Shapes: S songs of the catalogue, U users, K similar songs, B budget, N new songs, D vector size; C = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from data.arrays import AnyArray, BoolArray, FloatArray, IntArray
from retrieval import audience as targeting
from retrieval.audience import Audience, listener_scores, similarity_weights, top_entries, top_users
from retrieval.boundary import margins
from retrieval.clusters import clusters, users_near_centroids, users_near_songs
from retrieval.gate import probability
from retrieval.index import unit_rows
from retrieval.reasons import explain, nearest_heard
from serving.state import State

BINS, STEPS = 40, 21  # of the histogram of margins and of the curve over it
SHOWN_SEEDS = 200  # users in the picture of clusters


@dataclass
class Similar:
    """Known songs like a new one, the nearest first."""

    songs_K: IntArray
    scores_K: FloatArray


@dataclass
class Reached:
    """Users of a song, the best first: numbers, scores, margins (NaN without a boundary), songs that explain each."""

    users_B: IntArray
    scores_B: FloatArray
    margins_B: FloatArray
    because_BT: IntArray
    above: int | None  # users whose boundary the song clears by the asked margin


def similar_songs(state: State, number: int, k: int, among: str = "known") -> Similar:
    """The songs most similar to a song, without itself: of those with listeners, or ("new") of those without."""
    vector_D, _ = state.vectors(number)
    if among == "new":
        scores_K, songs_K = state.similar_new(vector_D, k + 1)
    else:
        scores_K, songs_K = (found[0] for found in state.model.index.similar(vector_D[None], k + 1))
    kept = (songs_K >= 0) & (songs_K != number)
    return Similar(songs_K[kept][:k], scores_K[kept][:k])


def audience(state: State, number: int, mode: str, budget: int, gate: bool, least: float) -> Reached:
    """Users of a song by one of `state.model.modes`; `gate`: only those whose boundary it clears by `least`."""
    model = state.model
    margin_U = margins_of(state, number)
    may_U = np.ones(model.n_users, dtype=bool) if margin_U is None or not gate else margin_U > least
    may_U[list(state.met.get(number, ()))] = False
    if number not in state.pool.row_of:
        may_U[model.met(number)] = False  # in the training, as a song has that came in before this model was made
    budget = min(budget, model.n_users)
    near = similar_songs(state, number, model.targeting.neighbours)
    weights = weights_of(state, near)
    if mode == "boundary":
        assert margin_U is not None
        found = top_users(np.where(may_U & (margin_U > least), margin_U, -np.inf)[None], budget)
    elif mode == "taste":
        near_it = state.vectors(number)[0][None], budget, lambda _: may_U[None]
        found = users_near_songs(model.taste_UD, *near_it, nobody_U=model.no_taste_U)
    elif mode == "i2i2u":
        found = i2i2u(state, weights, budget, may_U)
    else:
        found = cat(state, number, weights, budget, may_U)
        if mode == "union":
            found = targeting.union(i2i2u(state, weights, budget, may_U), found, budget)
    users_B = found.users_CB[0][found.users_CB[0] >= 0].astype(np.int64)
    return Reached(
        users_B,
        found.scores_CB[0][: len(users_B)],
        np.full(len(users_B), np.nan) if margin_U is None else margin_U[users_B],
        reasons(state, number, users_B, near, weights),
        None if margin_U is None else int((margin_U > least).sum()),
    )


def i2i2u(state: State, weights_CS: sparse.csr_matrix, budget: int, may_U: BoolArray | None) -> Audience:
    """The listeners of similar songs, those that have come in since among them."""
    model, near = state.model, weights_CS.indices
    by_song_KU = model.by_song_SU[near] + state.likings(near.tolist())
    score = listener_scores(sparse.csr_matrix(weights_CS.data[None]), sparse.csr_matrix(by_song_KU), model.activity_U)
    if may_U is not None:
        score.data[~may_U[score.indices]] = -np.inf
    return top_entries(score, budget)


def cat(state: State, number: int, weights_CS: sparse.csr_matrix, budget: int, may_U: BoolArray) -> Audience:
    """Users near a cluster of the first of the above."""
    model, options = state.model, state.model.targeting
    seeds = i2i2u(state, weights_CS, min(options.seed_users, model.n_users), None).users_CB
    at = (model.cat_UD, state.vectors(number)[0][None], options.clusters, budget, options.song_weight)
    return users_near_centroids(seeds, *at, lambda _: may_U[None], seed=options.seed, nobody_U=model.no_cat_U)


def weights_of(state: State, near: Similar) -> sparse.csr_matrix:
    """How much each similar song weighs, (1, S), as `inference.similar` has it."""
    model, options = state.model, state.model.targeting
    power = options.similarity_power
    weights = similarity_weights(near.scores_K[None], near.songs_K[None], model.n_songs, power)
    weights.data = weights.data * model.popularity_S[weights.indices]
    return weights


def reasons(state: State, number: int, users_B: IntArray, near: Similar, weights_CS: sparse.csr_matrix) -> IntArray:
    """The similar songs that a user listened to, or else those of his that are nearest to the song, (B, 3)."""
    model = state.model
    heard_BS = state.heard(users_B)
    row_CB = np.arange(len(users_B))[None]
    order = np.argsort(weights_CS.indices)
    weight_K = weights_CS.data[order][np.searchsorted(weights_CS.indices[order], near.songs_K)]
    because = explain(row_CB, near.songs_K[None], weight_K[None], heard_BS)
    without = np.where(because[:, :, 0] < 0, row_CB, -1)
    nearest = nearest_heard(without, state.vectors(number)[0][None], model.index.vectors, heard_BS)
    found: IntArray = np.where(without[:, :, None] >= 0, nearest, because)[0]
    return found


def margins_of(state: State, number: int) -> FloatArray | None:
    """How far the song clears each user's boundary, (U,); None without boundaries."""
    if not state.model.has_boundary:
        return None
    _, item_D = state.vectors(number)
    assert item_D is not None
    found: FloatArray = margins(item_D[None], state.model.user_UD, state.model.boundary_U)[0]
    return found


def margin_curve(state: State, number: int) -> dict[str, Any]:
    """Histogram of a song's margins, and whom each operating point reaches."""
    margin_U = margins_of(state, number)
    assert margin_U is not None
    counts, edges = np.histogram(margin_U, BINS)
    points = np.linspace(edges[0], edges[-1], STEPS)
    reached = 1 - np.searchsorted(np.sort(margin_U), points, side="right") / len(margin_U)
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
    """The seed users of CAT by cluster, in the two directions in which they differ most, and the song among them."""
    model, options = state.model, state.model.targeting
    weights = weights_of(state, similar_songs(state, number, options.neighbours))
    seeds = i2i2u(state, weights, min(max(options.seed_users, SHOWN_SEEDS), model.n_users), None).users_CB[0]
    seeds = seeds[seeds >= 0].astype(np.int64)
    point_PD = model.cat_UD[seeds]
    song_D = unit_rows(state.vectors(number)[0])
    if not len(seeds):
        return {"song": {"x": 0.0, "y": 0.0}, "points": [], "centroids": []}
    draws = np.random.default_rng(options.seed).random((1, options.clusters))
    first = np.arange(len(seeds)) < options.seed_users  # the others go to the nearest cluster
    centre_CKD, size_CK = clusters(point_PD[None], first[None], draws)
    centre_KD = centre_CKD[0][size_CK[0] > 0]
    nearest = np.argmax(point_PD @ unit_rows(centre_KD).T, axis=1)
    middle_D = point_PD.mean(axis=0)
    axes_2D = np.linalg.svd(point_PD - middle_D, full_matrices=False)[2][:2]
    axes_2D = np.pad(axes_2D, ((0, 2 - len(axes_2D)), (0, 0)))
    flat = {name: (at - middle_D) @ axes_2D.T for name, at in (("p", point_PD), ("c", centre_KD), ("s", song_D[None]))}
    genres = [genres_of(state, seeds[nearest == k]) for k in range(len(centre_KD))]
    return {
        "song": dict(zip("xy", flat["s"][0].tolist(), strict=True)),
        "points": [
            {"user_id": model.user_ids[int(user)], "x": x, "y": y, "cluster": int(k)}
            for user, (x, y), k in zip(seeds, flat["p"].tolist(), nearest, strict=True)
        ],
        "centroids": [
            {"x": x, "y": y, "size": int((nearest == k).sum()), "genres": genres[k]}
            for k, (x, y) in enumerate(flat["c"].tolist())
        ],
    }


def genres_of(state: State, users: IntArray) -> list[dict[str, Any]]:
    """The three genres that users listen to most, with their shares of the listening."""
    heard = state.model.listening_US[users].indices
    counted = state.model.songs["genres"].gather(heard).explode().drop_nulls().value_counts(sort=True)
    top = counted.head(3).rows()
    return [{"genre": genre, "share": n / max(1, counted["count"].sum())} for genre, n in top]


def recommendations(state: State, user: int, k: int, least: float) -> tuple[IntArray, FloatArray, IntArray, int]:
    """New songs above a user's boundary by more than `least`: numbers, margins, reasons (K, 3); how many there were."""
    model = state.model
    with state.lock:
        pool = state.pool
        assert pool.item is not None
        margin_N = pool.item[: pool.size] @ model.user_UD[user] - model.boundary_U[user]
        number_N, vector_ND = pool.number[: pool.size].copy(), pool.vector
        met = {song for song, _ in state.played.get(user, ())}
        margin_N[[pool.row_of[song] for song in met if song in pool.row_of]] = -np.inf
        best_K = top_users(np.where(margin_N > least, margin_N, -np.inf)[None], k).users_CB[0]
        rows = best_K[best_K >= 0]
        vector_KD = vector_ND[rows].copy()
    asked: AnyArray = np.zeros((len(rows), 1), dtype=np.int64)
    because = nearest_heard(asked, vector_KD, model.index.vectors, state.heard(np.array([user])))[:, 0]
    return number_N[rows], margin_N[rows], because, len(margin_N)
