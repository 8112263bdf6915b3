"""Ridge → EASE: a strong closed-form baseline for new songs, of `pipeline.evaluate` and of the item-cold benchmark.

EASE (Steck, WWW 2019, arXiv 1905.03375, eq. 8) learns item-item weights B from the known plays alone; a new song has
none, so its row (or column) of B is predicted from its content by ridge regression.

Shapes: U users, W known songs, C new songs, D content features, N rows of any matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg, sparse

from data.arrays import AnyArray, FloatArray, IntArray
from retrieval.audience import Audience, activity_scale, rank_by_score, slices, songs_at_once
from retrieval.metrics import recall_at_k

Inverse = tuple[Callable[[AnyArray], AnyArray], AnyArray]  # left_NW ↦ left·P (N, W), and the diagonal of P (W,)
Setting = dict[str, Any]

RIDGES, EASES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0), (30.0, 100.0, 300.0)
SETTINGS: list[Setting] = [  # by EASE's penalty: one inverse in memory at a time
    {"ridge": ridge, "ease": ease, "of": of} for ease in EASES for ridge in RIDGES for of in ("rows", "columns")
]
POWERS = (0.0, 0.25, 0.5, 1.0)  # a user's score is divided by (their plays + 1) to this power
DEFAULT: Setting = {"ridge": 1.0, "ease": 100.0, "of": "rows", "power": 0.0}  # where there is nothing to choose by


def choose(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    listeners: tuple[IntArray, IntArray],
    budget: int,
    memory_mb: float = 1024.0,
) -> Setting:
    """The penalties, side of B and power that find most listeners of the validation songs; of equals the first.

    Args:
        plays_UW: plays of known songs, 0/1.
        x_WD: content of the known songs.
        x_CD: content of the validation songs.
        listeners: (place of the song, user) of each held-out listening of theirs.
        budget: users named for a song.
        memory_mb: working memory of the scores.
    """
    best, chosen = -1.0, DEFAULT
    kept: dict[tuple[str, float], Any] = {}
    for setting in SETTINGS if len(listeners[0]) else ():
        for other in [key for key in kept if key[0] == "ease" and key[1] != setting["ease"]]:
            del kept[other]
        map_DW = ease_map(plays_UW, x_WD, **setting, kept=kept)
        for power in POWERS:
            found = audience(plays_UW, map_DW, x_CD, budget, power, memory_mb)
            value = float(recall_at_k(found.users_CB, np.arange(len(x_CD)), *listeners).mean())
            if value > best:
                best, chosen = value, setting | {"power": power}
    return chosen


def audience(
    plays_UW: sparse.csr_matrix,
    map_DW: AnyArray,
    x_CD: FloatArray,
    budget: int,
    power: float,
    memory_mb: float = 1024.0,
) -> Audience:
    """The users with the highest sums of a new song's predicted weights over what they played; some songs at a time."""
    scale_U, map_DW = activity_scale(plays_UW, power), map_DW.astype(np.float32)
    chunk = songs_at_once(memory_mb, plays_UW.shape[0], 8 * map_DW.shape[1])

    def score(rows: slice) -> AnyArray:
        return np.asarray((plays_UW @ (x_CD[rows] @ map_DW).T).T * scale_U, dtype=np.float32)

    return rank_by_score(score, len(x_CD), budget, chunk)


def ridge_to_ease(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    ridge: float = 1.0,
    ease: float = 100.0,
    of: str = "rows",
    kept: dict[tuple[str, float], Any] | None = None,
) -> FloatArray:
    """Scores of `ease_map`, (U, C): a user's is the sum of a new song's predicted weights over what they played."""
    return scores_of(plays_UW, ease_map(plays_UW, x_WD, ridge, ease, of, kept), x_CD)


def ease_map(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    ridge: float = 1.0,
    ease: float = 100.0,
    of: str = "rows",
    kept: dict[tuple[str, float], Any] | None = None,
) -> AnyArray:
    """Coefficients (D, W) that predict a new song's EASE weights b̂ = x·map from its content x.

    map = (XᵀX + ridge·I)⁻¹ XᵀB. B itself is not formed: with P of `ease_inverse`, B[:, j] = −P[:, j] / P[j, j] and 0 on
    the diagonal, thus B = I − P·diag(P)⁻¹.

    Args:
        ridge: penalty of the regression.
        ease: penalty of EASE, in plays.
        of: "rows": what a song's own plays say of others; "columns": what the others' plays say of it.
        kept: what the last calls with the same plays and known content solved, so that a grid solves nothing twice.
    """
    kept = {} if kept is None else kept
    if ("map", ridge) not in kept:
        kept["map", ridge] = ridge_map(x_WD, ridge)
    if ("ease", ease) not in kept:
        kept["ease", ease] = ease_inverse(plays_UW, ease)
    map_DW, (times_p, diagonal_W) = kept["map", ridge], kept["ease", ease]
    if of == "rows":
        return np.asarray(map_DW - times_p(map_DW) / diagonal_W)
    return np.asarray(map_DW - times_p(map_DW / diagonal_W))


def ridge_map(x_WD: FloatArray, ridge: float) -> AnyArray:
    """(XᵀX + ridge·I)⁻¹Xᵀ = Xᵀ(XXᵀ + ridge·I)⁻¹, (D, W), by the smaller of the two systems; float64.

    Times the targets of the known songs (W, …) it gives the coefficients of the features (D, …).
    """
    x = x_WD.astype(np.float64)
    songs, features = x.shape
    if features <= songs:
        return np.asarray(linalg.solve(_plus_diagonal(x.T @ x, ridge), x.T, assume_a="pos", overwrite_a=True))
    return np.asarray(linalg.solve(_plus_diagonal(x @ x.T, ridge), x, assume_a="pos", overwrite_a=True)).T


def ease_inverse(plays_UW: sparse.csr_matrix, ease: float, chunk: int = 1024) -> Inverse:
    """P = (playsᵀ·plays + ease·I)⁻¹ formed as it stands, W × W numbers.

    Or, where there are more songs than users, as (I − playsᵀ(plays·playsᵀ + ease·I)⁻¹plays) / ease (Woodbury), of
    U × U and U × `chunk` numbers.
    """
    plays = sparse.csc_matrix(plays_UW, dtype=np.float64)
    users, songs = plays.shape
    if songs <= users:
        p_WW = np.asarray(linalg.inv(_plus_diagonal((plays.T @ plays).toarray(), ease), overwrite_a=True))
        return (lambda left_NW: np.asarray(left_NW @ p_WW)), np.diag(p_WW).copy()
    factor = linalg.cho_factor(_plus_diagonal((plays @ plays.T).toarray(), ease), overwrite_a=True)

    def times_p(left_NW: AnyArray) -> AnyArray:
        inner_UN = linalg.cho_solve(factor, plays @ left_NW.T)
        return np.asarray(left_NW - (plays.T @ inner_UN).T) / ease

    diagonal_W = np.empty(songs)
    for rows in slices(songs, chunk):
        block = plays[:, rows].toarray()
        diagonal_W[rows] = (1 - (block * linalg.cho_solve(factor, block)).sum(axis=0)) / ease
    return times_p, diagonal_W


def scores_of(plays_UW: sparse.csr_matrix, map_DW: AnyArray, x_CD: FloatArray) -> FloatArray:
    """plays · (x · map)ᵀ, users first: the weights of the new songs on the known ones (C, W) are never formed."""
    return np.asarray((plays_UW @ map_DW.T) @ x_CD.T.astype(np.float64), dtype=np.float32)


def _plus_diagonal(gram: AnyArray, penalty: float) -> AnyArray:
    gram[np.diag_indices_from(gram)] += penalty
    return gram
