"""A new song stops being cold: as plays arrive, what its listeners have in common joins what its content says.

Ours, in the article's spirit ("future work"). The behaviour vector of a song is the ridge regression of "did they play
it?" on the users' vectors: unlike their mean, it leaves out what all users share. The fused vector goes over from
content to behaviour with the number of plays n, by n / (n + prior): no play leaves content alone, and there is no count
at which one system hands over to another.

Shapes: C new songs, U users, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.index import unit_rows

Array = NDArray[Any]
RIDGE = 1.0  # in units of the mean eigenvalue of the users' second moments


def ridged_moments(user_UD: Array) -> NDArray[np.float64]:
    """Σ u uᵀ over users, (D, D), and the ridge on its diagonal."""
    return ridged((user_UD.T @ user_UD).astype(np.float64))


def ridged(moment_DD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ u uᵀ over users with the ridge on its diagonal, which is changed in place."""
    ridge = RIDGE * np.trace(moment_DD) / len(moment_DD)
    moment_DD[np.diag_indices(len(moment_DD))] += max(ridge, 1e-12)
    return moment_DD


@dataclass(frozen=True)
class Level:
    """Mean of users' vectors, (D,), and the direction along which a song's scores rise by about 1 for every user."""

    mean_D: Array
    rise_D: Array

    @classmethod
    def of(cls, user_UD: Array, moment_DD: Array | None = None) -> Level:
        """The level of some users; the direction is the ridge regression of 1 on their vectors."""
        moment_DD = ridged_moments(user_UD) if moment_DD is None else moment_DD
        mean_D = user_UD.mean(axis=0, dtype=np.float64)
        rise_D = np.linalg.solve(moment_DD, mean_D)
        return cls(mean_D, rise_D / max(mean_D @ rise_D, 1e-12))

    def kept(self, warm_CD: Array, content_CD: Array) -> NDArray[np.float32]:
        """Warm vectors whose mean score over users is that of their content, (C, D).

        Plays tell who likes a song. How many do, they do not tell where nobody knows who was offered it; without this
        each play, whatever it was, lifted a song over more boundaries.
        """
        lost_C = (content_CD.astype(np.float64) - warm_CD) @ self.mean_D
        return np.where(lost_C[:, None] != 0, warm_CD + lost_C[:, None] * self.rise_D, warm_CD).astype(np.float32)


def warm_vectors(
    content_CD: Array, first_CU: sparse.csr_matrix, user_UD: Array, prior: float, moment_DD: Array | None = None
) -> NDArray[np.float32]:
    """Vectors of songs with so many first listeners, (C, D), each as long as its content vector.

    Args:
        content_CD: vectors that the song encoder made of content.
        first_CU: strength of each user's signal on each new song, above zero; n counts the users of a song.
        user_UD: `retrieval.clusters.user_vectors`, from known songs alone; of the users of `first_CU`.
        prior: plays at which behaviour weighs as much as content; above 0.
        moment_DD: `ridged_moments` of all users, where it is known already; None: of these.
    """
    moment_DD = ridged_moments(user_UD) if moment_DD is None else moment_DD
    behaviour_CD = unit_rows(np.linalg.solve(moment_DD, np.asarray(first_CU @ user_UD, dtype=np.float64).T).T)
    plays_C1 = np.diff(first_CU.indptr)[:, None]
    share_C1 = plays_C1 / (plays_C1 + prior)
    share_C1 = np.where(np.any(behaviour_CD, axis=1, keepdims=True), share_C1, 0)  # listeners of whom nothing is known
    fused_CD = unit_rows((1 - share_C1) * unit_rows(content_CD) + share_C1 * behaviour_CD)
    fused_CD = fused_CD * np.linalg.norm(content_CD, axis=1, keepdims=True)
    return np.where(share_C1 > 0, fused_CD, content_CD).astype(np.float32)  # to the last digit where nothing is known
