"""Cold-start methods without training: two controls, neighbours by content, and two ridge regressions.

Every method is `method(plays_UW, x_WD, x_CD, **options) -> score_UC`, of plays (0/1) and content: float32, higher is
better, read along its rows (songs for a user) and along its columns (users for a song). None of them sees a play of a
cold song. A song without content (a row of zeros) scores 0 with every user, except in the two controls, which look at
no content.

Shapes: U users, W warm songs, C cold songs, D content features, K neighbours, N rows of any matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg, sparse

from data.arrays import AnyArray, FloatArray
from retrieval.audience import rank_by_score, slices, song_rows

Inverse = tuple[Callable[[AnyArray], AnyArray], AnyArray]  # left_NW ↦ left·P (N, W), and the diagonal of P (W,)

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
GRIDS: dict[str, list[dict[str, Any]]] = {
    "random_scores": [{}],
    "most_active": [{}],
    "content_knn": [{"k": k} for k in (200, 100, 50, 20, 10, 5)],
    "ridge_to_users": [{"ridge": ridge} for ridge in RIDGES],
    "ridge_to_ease": [
        {"ridge": ridge, "ease": ease, "of": of}
        for ridge in RIDGES
        for ease in (30.0, 100.0, 300.0)
        for of in ("rows", "columns")
    ],
}


def random_scores(plays_UW: sparse.csr_matrix, x_WD: FloatArray, x_CD: FloatArray, seed: int = 0) -> FloatArray:
    """Control: a number in [0, 1) for every user and cold song, drawn from `seed`; (U, C)."""
    return np.random.default_rng(seed).random((plays_UW.shape[0], len(x_CD)), dtype=np.float32)


def most_active(plays_UW: sparse.csr_matrix, x_WD: FloatArray, x_CD: FloatArray) -> FloatArray:
    """Control: how many warm songs the user played, the same for every cold song; (U, C).

    All songs tie for a user, so that this says something about songs → users only.
    """
    return np.repeat(np.diff(plays_UW.indptr)[:, None], len(x_CD), axis=1).astype(np.float32)


def content_knn(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    k: int = 50,
    chunk: int = 256,
    kept: dict[str, Any] | None = None,
) -> FloatArray:
    """Sum of the similarities of those of the cold song's `k` nearest warm songs that the user played; (U, C).

    Similarity is the inner product. Negative ones count 0; of equally near songs the lower number comes first.

    Args:
        k: neighbours; more than W means all of them.
        chunk: cold songs compared at a time.
        kept: what the last call with the same content and at least this `k` found, so that a grid searches once.
    """
    kept = {} if kept is None else kept
    if kept.get("k", 0) < k:
        kept |= {"k": k, "found": rank_by_score(lambda rows: x_CD[rows] @ x_WD.T, len(x_CD), k, chunk)}
    nearest = kept["found"]  # of columns, whatever they are
    weight_CK = np.maximum(nearest.scores_CB[:, :k], 0).astype(np.float32)
    weight_CW = song_rows(nearest.users_CB[:, :k], weight_CK, len(x_WD))
    return np.asarray((weight_CW @ sparse.csr_matrix(plays_UW.T)).toarray().T)


def ridge_to_users(plays_UW: sparse.csr_matrix, x_WD: FloatArray, x_CD: FloatArray, ridge: float = 10.0) -> FloatArray:
    """Ridge regression from a song's content to its vector of listeners, read off for the cold songs; (U, C)."""
    return _scores(plays_UW, ridge_map(x_WD, ridge), x_CD)


def ridge_to_ease(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    ridge: float = 1.0,
    ease: float = 100.0,
    of: str = "rows",
    kept: dict[tuple[str, float], Any] | None = None,
) -> FloatArray:
    """Ridge regression from content to the song's weights in EASE; a user scores the sum over what they played; (U, C).

    EASE (Steck, WWW 2019, arXiv 1905.03375, eq. 8) learns item-item weights B from the warm plays alone; a cold song
    has none, so its row (or column) of B is predicted from its content: b̂ = x (XᵀX + ridge·I)⁻¹ XᵀB. B itself is not
    formed: with P of `ease_inverse`, B[:, j] = −P[:, j] / P[j, j] and 0 on the diagonal, thus B = I − P·diag(P)⁻¹.

    Args:
        ridge: penalty of the regression.
        ease: penalty of EASE, in plays.
        of: "rows": what a song's own plays say of others; "columns": what the others' plays say of it.
        kept: what the last calls with the same plays and warm content solved, so that a grid solves nothing twice.
    """
    kept = {} if kept is None else kept
    if ("map", ridge) not in kept:
        kept["map", ridge] = ridge_map(x_WD, ridge)
    if ("ease", ease) not in kept:
        kept["ease", ease] = ease_inverse(plays_UW, ease)
    map_DW, (times_p, diagonal_W) = kept["map", ridge], kept["ease", ease]
    if of == "rows":
        return _scores(plays_UW, map_DW - times_p(map_DW) / diagonal_W, x_CD)
    return _scores(plays_UW, map_DW - times_p(map_DW / diagonal_W), x_CD)


def ridge_map(x_WD: FloatArray, ridge: float) -> AnyArray:
    """(XᵀX + ridge·I)⁻¹Xᵀ = Xᵀ(XXᵀ + ridge·I)⁻¹, (D, W), by the smaller of the two systems; float64.

    Times the targets of the warm songs (W, …) it gives the coefficients of the features (D, …).
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


def _scores(plays_UW: sparse.csr_matrix, map_DW: AnyArray, x_CD: FloatArray) -> FloatArray:
    """plays · (x · map)ᵀ, users first: the weights of the cold songs on the warm ones (C, W) are never formed."""
    return np.asarray((plays_UW @ map_DW.T) @ x_CD.T.astype(np.float64), dtype=np.float32)


def _plus_diagonal(gram: AnyArray, penalty: float) -> AnyArray:
    gram[np.diag_indices_from(gram)] += penalty
    return gram
