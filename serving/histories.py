"""Recompute users' vectors from their plays: those that have come in, and before them those that the model knows.

Shapes: N users, T places of a history, D vector size.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data.arrays import FloatArray, IntArray
from datamodules.histories import history_batch
from retrieval.clusters import user_vectors
from serving.encoder import Features, fields

if TYPE_CHECKING:
    from serving.state import State


def follow(state: State, users: IntArray) -> None:
    """Recompute the vectors of users from all their plays."""
    model = state.model
    model.taste_UD[users], model.cat_UD[users] = taste_vectors(state, users)
    model.no_taste_U[users], model.no_cat_U[users] = (~of[users].any(axis=1) for of in (model.taste_UD, model.cat_UD))
    if model.has_boundary:
        model.user_UD[users], model.boundary_U[users] = tower_vectors(state, users)


def taste_vectors(state: State, users: IntArray) -> tuple[FloatArray, FloatArray]:
    """User vectors (N, D) from known songs and all plays so far, without and with the songs' popularity weights."""
    model = state.model
    rows = state.heard(users)
    heard = np.unique(rows.indices)
    listening, vectors = rows[:, heard], model.index.vectors[heard]
    popularity = model.popularity_S[heard]
    return user_vectors(listening, vectors, np.ones_like(popularity)), user_vectors(listening, vectors, popularity)


@torch.inference_mode()
def tower_vectors(state: State, users: IntArray) -> tuple[FloatArray, FloatArray]:
    """Vectors (N, D) and boundary scores (N,) of users by the user tower; the latest plays come first in a history."""
    model, most = state.model, state.model.encoder.history
    known_NT, strength_NT, count_N = model.latest(users, most)
    song_NT, value_NT = np.zeros((len(users), most), dtype=np.int64), np.zeros((len(users), most), dtype=np.float32)
    length_N = np.zeros(len(users), dtype=np.int64)
    for row, user in enumerate(users.tolist()):
        fresh = list(islice((one for one in reversed(state.played[user]) if state.there(one[0])), most))
        rest = min(int(count_N[row]), most - len(fresh))
        song_NT[row, : len(fresh) + rest] = [*(song for song, _ in fresh), *known_NT[row, :rest]]
        value_NT[row, : len(fresh) + rest] = [*(value for _, value in fresh), *strength_NT[row, :rest]]
        length_N[row] = len(fresh) + rest
    mask_NT = np.arange(most) < length_N[:, None]
    batch = history_batch(np.where(mask_NT, song_NT, song_NT[0, 0]), mask_NT, value_NT)
    batch["songs"] = song_fields(state, batch["songs"])
    user_ND, boundary_N = model.encoder.towers.user_vectors(model.profile.gather(users) | batch)
    return user_ND.numpy(), boundary_N.numpy()


def song_fields(state: State, songs: IntArray) -> Any:
    """Gather the fields of songs, known and accepted, for the user tower."""
    model, dims = state.model, state.model.encoder.towers.user.embedding.dense_dims
    known = songs < model.n_songs
    dense: Features = {}
    for name, width in dims.items():
        dense[name] = np.full((len(songs), width), np.nan, dtype=np.float32)
        dense[name][known] = model.dense[name][songs[known]]
        for at in np.flatnonzero(~known):
            dense[name][at] = state.accepted[int(songs[at])].features[name]
    return fields(dense, [state.about(int(song)) for song in songs], dims, model.encoder.item_codes)
