"""Cold-start methods without training: two controls, neighbours by content, and two ridge regressions, of which
`ridge_to_ease` is `evaluation.ease`.

Every method is `method(plays_UW, x_WD, x_CD, **options) -> score_UC`, of plays (0/1) and content: float32, higher is
better, read along its rows (songs for a user) and along its columns (users for a song). None of them sees a play of a
cold song. A song without content (a row of zeros) scores 0 with every user, except in the two controls, which look at
no content.

Shapes: U users, W warm songs, C cold songs, D content features, K neighbours, N rows of any matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg, sparse

from data.arrays import AnyArray, FloatArray
from evaluation.ease import RIDGES, SETTINGS, ridge_map, scores_of
from evaluation.ease import ridge_to_ease as ridge_to_ease
from retrieval.audience import rank_by_score, song_rows

GRIDS: dict[str, list[dict[str, Any]]] = {
    "random_scores": [{}],
    "most_active": [{}],
    "content_knn": [{"k": k} for k in (200, 100, 50, 20, 10, 5)],
    "ridge_to_users": [{"ridge": ridge} for ridge in RIDGES],
    "ridge_to_ease": SETTINGS,
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

    Similarity is the inner product; content may be sparse. Negative ones count 0; of equally near songs the lower
    number comes first.

    Args:
        k: neighbours; more than W means all of them.
        chunk: cold songs compared at a time.
        kept: what the last call with the same content and at least this `k` found, so that a grid searches once.
    """
    kept = {} if kept is None else kept
    if kept.get("k", 0) < k:
        kept |= {"k": k, "found": rank_by_score(lambda rows: dense(x_CD[rows] @ x_WD.T), x_CD.shape[0], k, chunk)}
    nearest = kept["found"]  # of columns, whatever they are
    weight_CK = np.maximum(nearest.scores_CB[:, :k], 0).astype(np.float32)
    weight_CW = song_rows(nearest.users_CB[:, :k], weight_CK, x_WD.shape[0])
    return np.asarray((weight_CW @ sparse.csr_matrix(plays_UW.T)).toarray().T)


def dense(found: Any) -> AnyArray:
    """An array, also of a sparse matrix."""
    return np.asarray(found.toarray() if sparse.issparse(found) else found)


def ridge_to_users(plays_UW: sparse.csr_matrix, x_WD: FloatArray, x_CD: FloatArray, ridge: float = 10.0) -> FloatArray:
    """Ridge regression from a song's content to its vector of listeners, read off for the cold songs; (U, C)."""
    return scores_of(plays_UW, ridge_map(x_WD, ridge), x_CD)


def regression(x_WD: FloatArray, target_WE: FloatArray, ridge: float, kept: dict[str, Any]) -> FloatArray:
    """Coefficients (D, E) of ridge regression from content to few targets, (XᵀX + ridge·I)⁻¹XᵀT.

    `kept` holds what the last call with the same content solved, so that a grid forms XᵀX once.
    """
    songs, features = x_WD.shape
    if features > songs:
        return np.asarray(ridge_map(x_WD, ridge) @ target_WE, dtype=np.float32)
    if "gram" not in kept:
        kept["gram"] = (x_WD.T @ x_WD).astype(np.float64)
    right_DE = (x_WD.T @ target_WE).astype(np.float64)
    penalised = kept["gram"] + ridge * np.eye(features)
    return np.asarray(linalg.solve(penalised, right_DE, assume_a="pos"), dtype=np.float32)
