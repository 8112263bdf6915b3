"""Cold-start methods that know who made a song: the mean vector of the artist's known songs, and their listeners.

`artists` numbers the artists of the warm songs (W,) and of the cold ones (C,); −1 is none. A cold song of an artist
without a known song is judged by its content.

Shapes: U users, W warm songs, C cold songs, D content features, E vector size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.quality.item_cold.closed_form import content_knn, regression
from benchmarks.quality.item_cold.neural import factorise
from data.arrays import BoolArray, FloatArray, IntArray
from retrieval.index import unit_rows

Artists = tuple[IntArray, IntArray]
SIZE = 64  # of the vectors of the factorisation

GRIDS: dict[str, list[dict[str, Any]]] = {
    "artist_mean": [{"alpha": alpha, "ridge": ridge} for alpha in (10.0, 30.0) for ridge in (1.0, 10.0, 100.0)],
    "artist_listeners": [{"k": k} for k in (0, 200, 100, 50, 20, 10, 5)],
}


def artist_mean(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    artists: Artists,
    seed: int = 0,
    alpha: float = 10.0,
    ridge: float = 10.0,
    kept: dict[str, Any] | None = None,
) -> FloatArray:
    """A cold song has the mean of its artist's collaborative vectors; (U, C).

    The vectors are those of the warm songs in a weighted factorisation of the plays (`neural.factorise`); songs without
    a play do not count. A song of a new artist has the vector that ridge regression predicts from its content. A user's
    score is the inner product with their own vector of the factorisation.

    Args:
        artists: of the warm songs and of the cold ones.
        seed: of the factorisation.
        alpha: weight of a play in the factorisation, against 1 of a missing one.
        ridge: penalty of the regression.
        kept: what the last calls with the same content solved; in `kept["plays"]` what hangs on the plays alone.
    """
    kept = {} if kept is None else kept
    solved = kept.setdefault("plays", {})
    if alpha not in solved:
        solved[alpha] = factorise(plays_UW, SIZE, alpha, seed)
    user_UE, song_WE = solved[alpha]
    played_W = np.bincount(plays_UW.indices, minlength=plays_UW.shape[1]) > 0
    weight_CW, known_C = of_artist(artists, played_W)
    count_C1 = np.maximum(weight_CW.sum(axis=1), 1)
    by_content = x_CD @ regression(x_WD[played_W], song_WE[played_W], ridge, kept)
    song_CE = np.where(known_C[:, None], (weight_CW @ song_WE) / count_C1, by_content)
    return np.asarray(user_UE @ song_CE.T, dtype=np.float32)


def artist_listeners(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    artists: Artists,
    k: int = 50,
    kept: dict[str, Any] | None = None,
) -> FloatArray:
    """How many known songs of the cold song's artist a user played; (U, C).

    For a song of an artist without a played song it is the sum of the cosines of those of its `k` nearest warm songs
    that the user played. So a song of the same artist and one with the same content weigh alike, 1.

    Args:
        artists: of the warm songs and of the cold ones.
        k: neighbours of a song of a new artist; 0: it scores 0 with every user.
        kept: what the last call with the same content and at least this `k` found.
    """
    played_W = np.bincount(plays_UW.indices, minlength=plays_UW.shape[1]) > 0
    weight_CW, known_C = of_artist(artists, played_W)
    score_UC = np.asarray((weight_CW @ sparse.csr_matrix(plays_UW.T)).toarray().T, dtype=np.float32)
    if k and not known_C.all():
        new_C = ~known_C
        score_UC[:, new_C] = content_knn(plays_UW, unit_rows(x_WD), unit_rows(x_CD[new_C]), k, kept=kept)
    return score_UC


def of_artist(artists: Artists, counts_W: BoolArray) -> tuple[sparse.csr_matrix, BoolArray]:
    """1 where a warm song that counts is of a cold song's artist, (C, W); which cold songs have such a song, (C,)."""
    artist_W, artist_C = artists
    n = int(max(artist_W.max(initial=-1), artist_C.max(initial=-1))) + 1
    warm, cold = np.flatnonzero(counts_W & (artist_W >= 0)), np.flatnonzero(artist_C >= 0)
    by_warm = (np.ones(len(warm), dtype=np.float32), (artist_W[warm], warm))
    by_cold = (np.ones(len(cold), dtype=np.float32), (cold, artist_C[cold]))
    of_AW = sparse.csr_matrix(by_warm, shape=(n, len(artist_W)))
    weight_CW = sparse.csr_matrix(sparse.csr_matrix(by_cold, shape=(len(artist_C), n)) @ of_AW)
    return weight_CW, np.diff(weight_CW.indptr) > 0
