"""Clustering-based audience targeting (CAT, arXiv 2308.02844): "cluster the audience representations into a few
cluster centroids, then locate target audiences by relevance between audience representations and the centroids".

The paper leaves open what represents a user, how many clusters there are and what relevance is. Here: a user is the
mean direction of the known songs that they listened to, the points are a song's first I2I2U users, their number says
how many clusters there are, relevance is the inner product with the best centroid. Centroids are scaled to length 1, or
else a tight cluster would beat a loose one whatever the user. The new song's own direction may be added to each.
Vectorised over songs.

Shapes: C new songs, S known songs, U users, P points of a song, K clusters, B budget, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.audience import slices
from retrieval.index import unit_rows

Array = NDArray[Any]
BLOCK = 16_384  # users whose vectors a processor's cache may hold
CODES, LARGEST = 2048, 127  # users whose codes are made numbers at a time; the largest code
USERS_PER_CLUSTER, FEWEST, MOST = 25, 2, 16  # clusters by the size of the audience


def user_vectors(
    listening_US: sparse.csr_matrix, song_SD: Array, weight_S: Array, chunk: int = 50_000
) -> NDArray[np.float32]:
    """Each user's taste, (U, D): the mean of their songs' vectors, scaled to length 1; zero for a user without a play.

    Args:
        listening_US: strength of each user's signal on each known song (favourite 3, complete 2, play 1).
        song_SD: song vectors.
        weight_S: a further factor of each song, e.g. `retrieval.audience.popularity_scale`.
        chunk: users at a time: bounds the copies of `listening_US`.
    """
    weighted_SD = song_SD.astype(np.float32) * weight_S[:, None].astype(np.float32)
    user_UD = np.zeros((listening_US.shape[0], song_SD.shape[1]), dtype=np.float32)
    for rows in slices(len(user_UD), chunk):
        user_UD[rows] = unit_rows(listening_US[rows] @ weighted_SD)
    return user_UD


class Tastes:
    """Users' vectors, (U, D), and whose are zero, (U,): who has no taste is near no song.

    `coded`, each number is kept in a byte too, times a scale of the user's: all users are scored by these, and the
    vectors themselves, which then can stay on the disk that they are mapped from, are read for the best users alone.
    """

    def __init__(self, user_UD: Array, coded: bool = False) -> None:
        self.user_UD: Array = user_UD
        self.empty_U: Array = np.zeros(len(user_UD), dtype=bool)
        self.code_UD: Array | None = np.empty(user_UD.shape, dtype=np.int8) if coded else None
        self.scale_U: Array = np.zeros(len(user_UD), dtype=np.float32)
        for users in slices(len(user_UD), BLOCK):
            self._note(users, user_UD[users])

    def replace(self, users_N: Array, user_ND: Array) -> None:
        """Overwrite some users' vectors."""
        self.user_UD[users_N] = user_ND
        self._note(users_N, user_ND)

    def _note(self, users: Array | slice, user_ND: Array) -> None:
        """Who of some users has no taste; and their codes."""
        largest_N = np.abs(user_ND).max(axis=1, initial=0)
        self.empty_U[users], self.scale_U[users] = largest_N == 0, largest_N / LARGEST
        if self.code_UD is not None:
            self.code_UD[users] = np.rint(user_ND / np.maximum(self.scale_U[users], 1e-30)[:, None])

    def scores(self, score: Callable[[Array], Array], users: slice | Array) -> Array:
        """`score` of the vectors (u, D) of some users, (C, u): where they are coded, nearly so, a block at a time."""
        if self.code_UD is None:
            return score(self.user_UD[users])
        if isinstance(users, slice):
            blocks: list[Any] = [
                slice(users.start + at.start, users.start + at.stop) for at in slices(users.stop - users.start, CODES)
            ]
        else:
            blocks = [users[at] for at in slices(len(users), CODES)]
        found = [score(self.code_UD[block].astype(np.float32)) * self.scale_U[block] for block in blocks]
        return np.concatenate(found, axis=1)


def cluster_counts(present_CP: Array) -> Array:
    """Clusters by the size of each song's audience, (C,): one for every 25 users, from 2 to 16."""
    return np.clip(present_CP.sum(axis=1) // USERS_PER_CLUSTER, FEWEST, MOST)


def clusters(
    points_CPD: Array, present_CP: Array, draws_CK: Array, steps: int = 10, count_C: Array | None = None
) -> tuple[Array, Array]:
    """k-means of every song's points at once (Lloyd, k-means++ starts): centroids (C, K, D) and cluster sizes (C, K).

    A cluster that has no point (beyond the song's count, fewer points than clusters, or equal points) has size 0 and
    takes the centroid of the song's largest cluster, so that a maximum over centroids does not see it. Without a point
    all centroids are zero.

    Args:
        points_CPD: vectors.
        present_CP: which of them there are.
        draws_CK: a uniform number in [0, 1) for each start: the only randomness.
        steps: Lloyd steps.
        count_C: clusters of each song, at most K; None: K.
    """
    number_K = np.arange(draws_CK.shape[1])
    asked_CK = number_K < (number_K.size if count_C is None else count_C[:, None])
    centre_CKD = starts(points_CPD, present_CP, draws_CK)
    for _ in range(steps):
        centre_CKD, size_CK = lloyd_step(points_CPD, present_CP, centre_CKD, asked_CK)
    largest_C1 = size_CK.argmax(axis=1)[:, None]
    used = np.where(size_CK > 0, number_K, largest_C1)
    return np.take_along_axis(centre_CKD, used[:, :, None], axis=1), size_CK


def starts(points_CPD: Array, present_CP: Array, draws_CK: Array) -> Array:
    """k-means++ (Arthur and Vassilvitskii, 2007): each start is a point drawn by its squared distance to the nearest
    earlier start, (C, K, D); where no point is left that is no start already, the first start again."""
    song = np.arange(len(points_CPD))
    centre_CKD = np.zeros((*draws_CK.shape, points_CPD.shape[2]), dtype=np.float32)
    far_CP = present_CP.astype(np.float64)
    for k, draw_C in enumerate(draws_CK.T):
        reach_CP = far_CP.cumsum(axis=1)
        total_C = reach_CP[:, -1]
        drawn = (reach_CP > (draw_C * total_C)[:, None]).argmax(axis=1)
        centre_CKD[:, k] = np.where((total_C > 0)[:, None], points_CPD[song, drawn], centre_CKD[:, 0])
        distance = np.square(points_CPD - centre_CKD[:, k, None]).sum(axis=2)
        far_CP = np.where(present_CP, distance if k == 0 else np.minimum(far_CP, distance), 0.0)
    return centre_CKD


def lloyd_step(
    points_CPD: Array, present_CP: Array, centre_CKD: Array, asked_CK: Array | bool = True
) -> tuple[Array, Array]:
    """Points go to the nearest centroid (ties: the first), centroids to the mean of their points; sizes are of before.

    A centroid without a point stays where it is. One that is not asked for gets none.
    """
    half_CK = np.where(asked_CK, np.square(centre_CKD).sum(axis=2) / 2, np.float32(np.inf))
    nearest_CP = (points_CPD @ centre_CKD.transpose(0, 2, 1) - half_CK[:, None]).argmax(axis=2)
    member_CPK = (nearest_CP[:, :, None] == np.arange(centre_CKD.shape[1])) & present_CP[:, :, None]
    size_CK = member_CPK.sum(axis=1)
    total_CKD = member_CPK.transpose(0, 2, 1).astype(np.float32) @ points_CPD
    mean_CKD = total_CKD / np.maximum(size_CK, 1)[:, :, None]
    return np.where(size_CK[:, :, None] > 0, mean_CKD, centre_CKD), size_CK


def audience_clusters(seeds_CP: Array, user_UD: Array, count: int = 0, seed: int = 0) -> tuple[Array, Array]:
    """Clusters of each song's seed users: centroids (C, K, D) and sizes (C, K), 0 for a cluster that there is not.

    Args:
        seeds_CP: users whose vectors are clustered, e.g. the first of the I2I2U audience; −1 where fewer.
        user_UD: `user_vectors`; a user whose vector is zero is no point.
        count: clusters of a song; 0: by the size of its audience.
        seed: of the k-means starts. A song's clusters do not depend on the other songs.
    """
    points_CPD = user_UD[seeds_CP]
    present_CP = (seeds_CP >= 0) & points_CPD.any(axis=2)
    count_C = np.full(len(seeds_CP), count) if count else cluster_counts(present_CP)
    most = int(count_C.max(initial=1))
    draws_CK = np.broadcast_to(np.random.default_rng(seed).random(most), (len(seeds_CP), most))
    return clusters(points_CPD, present_CP, draws_CK, count_C=count_C)


def centroids(
    seeds_CP: Array, user_UD: Array, new_CD: Array, count: int = 0, seed: int = 0, song_weight: float = 0.0
) -> tuple[Array, Array]:
    """Directions that CAT looks for users in, c/‖c‖ + song_weight · i/‖i‖ for centroid c of song i: (C, K, D).

    Args:
        seeds_CP: as in `audience_clusters`.
        user_UD: likewise.
        new_CD: vectors of the new songs.
        count: likewise.
        seed: likewise.
        song_weight: weight of the new song's own direction beside a centroid; 0 is the paper's method.

    Returns:
        The directions, and which songs have any, (C,): one without a point has none.
    """
    centre_CKD, size_CK = audience_clusters(seeds_CP, user_UD, count, seed)
    some_C = np.asarray(size_CK.any(axis=1))
    return unit_rows(centre_CKD) + song_weight * unit_rows(new_CD)[:, None], some_C


def relevance(centre_CKD: Array, user_UD: Array) -> Array:
    """CAT: score(u) = max over k of ⟨u, direction k⟩, (C, U); users' vectors come from memory once, not k times."""
    best_CU = np.empty((len(centre_CKD), len(user_UD)), dtype=np.result_type(centre_CKD, user_UD))
    for users in slices(len(user_UD), BLOCK):
        block_DU, best = user_UD[users].T, best_CU[:, users]
        best[:] = centre_CKD[:, 0] @ block_DU
        for k in range(1, centre_CKD.shape[1]):
            np.maximum(best, centre_CKD[:, k] @ block_DU, out=best)
    return best_CU
