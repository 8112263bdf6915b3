"""Recompute users' vectors from their plays: those that have come in, and before them those that the model knows.

Shapes: N users or songs, T places of a history, D vector size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from data.arrays import FloatArray, IntArray
from data.contract.columns import MAX_VALUES
from data.simple_songs import values_of
from datamodules.histories import history_batch
from serving.encoder import Features, encode_values
from serving.encoder import dense as as_dense
from serving.model import Model
from serving.store import StoredSong

Accepted = Mapping[int, StoredSong]


@torch.inference_mode()
def tower_vectors(
    model: Model, accepted: Accepted, users: IntArray, fresh: Sequence[Sequence[tuple[int, float]]]
) -> tuple[FloatArray, FloatArray]:
    """User vectors (N, D) and boundary scores (N,).

    Args:
        model: what the users had played when it was made.
        accepted: songs that have come in since, by number.
        users: their numbers.
        fresh: (song, strength) of each user's plays that have come in since, the latest first.
    """
    most = model.encoder.history
    known_NT, strength_NT, count_N = model.latest(users, most)
    song_NT, value_NT = np.zeros((len(users), most), dtype=np.int64), np.zeros((len(users), most), dtype=np.float32)
    length_N = np.zeros(len(users), dtype=np.int64)
    for row, plays in enumerate(fresh):
        plays = plays[:most]
        rest = min(int(count_N[row]), most - len(plays))
        song_NT[row, : len(plays) + rest] = [*(song for song, _ in plays), *known_NT[row, :rest]]
        value_NT[row, : len(plays) + rest] = [*(value for _, value in plays), *strength_NT[row, :rest]]
        length_N[row] = len(plays) + rest
    mask_NT = np.arange(most) < length_N[:, None]
    batch = history_batch(np.where(mask_NT, song_NT, song_NT[0, 0]), mask_NT, value_NT)
    batch["songs"] = song_fields(model, accepted, batch["songs"])
    user_ND, boundary_N = model.encoder.towers.user_vectors(model.profile.gather(users) | batch)
    return user_ND.numpy(), boundary_N.numpy()


def song_fields(model: Model, accepted: Accepted, songs: IntArray) -> Any:
    """Gather the fields of songs, known and accepted, for the user tower."""
    dims = model.encoder.towers.user.embedding.dense_dims
    known = songs < model.n_songs
    dense: Features = {}
    for name, width in dims.items():
        dense[name] = np.full((len(songs), width), np.nan, dtype=np.float32)
        dense[name][known] = model.dense[name][songs[known]]
        for at in np.flatnonzero(~known):
            dense[name][at] = accepted[int(songs[at])].features[name]
    return as_dense(dense, dims) | category_codes(model, accepted, songs)


def category_codes(model: Model, accepted: Accepted, songs: IntArray) -> dict[str, torch.Tensor]:
    """Category codes of songs, (N, MAX_VALUES) by field: as the service folder has them, else by what songs say."""
    of = model.encoder.item_codes
    stored = (songs < model.n_songs) & (of.keys() <= model.codes.keys())
    code = {name: np.zeros((len(songs), MAX_VALUES), dtype=np.int64) for name in of}
    for name in of if stored.any() else ():
        code[name][stored] = model.codes[name][songs[stored]]
    if not stored.all():
        others = songs[~stored].tolist()
        about = [model.about(song) if song < model.n_songs else accepted[song].described for song in others]
        for name, computed in encode_values(values_of(about, of), of).items():
            code[name][~stored] = computed
    return {name: torch.from_numpy(one) for name, one in code.items()}
