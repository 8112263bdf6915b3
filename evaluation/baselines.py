"""What FirstPlay is measured against in the same run: random users, the most active users, content neighbours."""

from __future__ import annotations

import numpy as np

from data.arrays import FloatArray, IntArray
from data.fields import SongFields
from inference.song_index import SongIndex
from inference.spark_audience import unweighted
from retrieval.audience import Audience, song_rows, top_users
from retrieval.index import unit_rows
from retrieval.songs import Similar, Songs
from retrieval.targeting import Targeting

SKETCH = 64  # dimensions of a category field's random projection


def random_users(n_new: int, n_users: int, budget: int, seed: int) -> Audience:
    """For each new song, `budget` users drawn without repetition."""
    return top_users(np.random.default_rng(seed).random((n_new, n_users)), budget)


def most_active_users(songs_U: IntArray, n_new: int, budget: int) -> Audience:
    """The users with the most known songs, the same list for every song."""
    one = top_users(songs_U[None, :].astype(np.float64), budget)
    return Audience(np.repeat(one.users_CB, n_new, axis=0), np.repeat(one.scores_CB, n_new, axis=0))


def content_knn(content: SongIndex, targeting: Targeting, new: IntArray, budget: int, k: int = 100) -> Audience:
    """Item kNN on untrained content, with none of our weighting.

    A user's score is the sum of the cosines of those of the k most similar known songs they listened to.
    With F fields of length 1 the inner product is F times their mean cosine, which ranks alike; negative ones are zero.
    Of `targeting` the listening counts, each signal as 1.
    """
    scores, positions = content.similar(content.vectors[new], k)
    positions = np.where(scores > 0, positions, -1)
    weights_CS = song_rows(positions, scores, targeting.listening.known_US.shape[1])
    songs = Songs(content.vectors[new], Similar(positions, scores, scores, weights_CS))
    return unweighted(targeting).listeners(songs, budget)


def content_vectors(fields: SongFields, warm: IntArray, seed: int = 0) -> FloatArray:
    """Untrained song vectors from the same fields as the encoder sees, for content kNN, (songs, D).

    Each dense field is centred on the warm songs and each song's row scaled to length 1; a category field is the sum
    of fixed random vectors, one a value, scaled likewise; a missing field is zero. Fields weigh the same.
    """
    parts = []
    for array in fields.dense.values():
        values = np.asarray(array, dtype=np.float32)
        known = np.asarray(np.isfinite(values).all(axis=1, keepdims=True))
        seen = warm[known[warm, 0]]
        values = np.where(known, values - (values[seen].mean(axis=0) if len(seen) else 0.0), 0.0)
        parts.append(values)
    rng = np.random.default_rng(seed)
    for name, codes in fields.codes.items():
        table = rng.standard_normal((fields.vocab_sizes[name], SKETCH), dtype=np.float32)
        table[:2] = 0  # no value, unknown value
        parts.append(table[codes].sum(axis=1))
    scaled = [unit_rows(part) for part in parts]
    return np.concatenate(scaled, axis=1).astype(np.float32)
