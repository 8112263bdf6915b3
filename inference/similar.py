"""The similar known songs of each new song, and how much each weighs: what I2I2U starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from configs.targeting import TargetingConfig
from data.arrays import AnyArray, FloatArray, IntArray
from inference.song_index import SongIndex
from retrieval import audience as targeting


@dataclass
class Similar:
    """Similar known songs of each new song, and the listening they bring in."""

    positions_CK: IntArray
    scores_CK: FloatArray
    weights_CK: AnyArray
    weights_CS: sparse.csr_matrix


def find_similar(index: SongIndex, new: IntArray, listening: sparse.csr_matrix, options: TargetingConfig) -> Similar:
    """Look the new songs up in the index; a neighbour weighs its similarity, less the more popular it is."""
    known = bool(np.isin(new, index.songs).any())  # songs of the long tail, which would find themselves
    scores, positions = index.similar(index.vectors[new], options.neighbours + known)
    if known:
        scores, positions = without_itself(scores, positions, new)
    weights = targeting.similarity_weights(scores, positions, listening.shape[1], options.similarity_power)
    weights = weights.multiply(targeting.popularity_scale(listening, options.popularity_power)).tocsr()
    row = np.arange(len(new))[:, None]
    dense = np.where(positions >= 0, np.asarray(weights[row, np.maximum(positions, 0)].todense()), 0.0)
    return Similar(positions, scores, dense, weights)


def without_itself(scores_CK: FloatArray, positions_CK: IntArray, songs: IntArray) -> tuple[FloatArray, IntArray]:
    """Neighbours of each song but itself, one fewer; of a song that is not among its neighbours the last one goes."""
    own = positions_CK == songs[:, None]
    own[~own.any(axis=1), -1] = True
    shape = len(songs), positions_CK.shape[1] - 1
    return scores_CK[~own].reshape(shape), positions_CK[~own].reshape(shape)
