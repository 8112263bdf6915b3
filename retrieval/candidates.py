"""Candidates for ranking: the users whom any channel names for a new song, with each channel's score and rank.

A channel is a mode of `retrieval.targeting`: "i2i2u", "taste", "cat" and, with a boundary model, "boundary", the users
by margin whether or not the song clears it. Its list is cut to a stated depth.

Shapes: C new songs, M channels, P (song, candidate) pairs, L (song, listener) pairs, R pairs that
are both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.audience import Audience
from retrieval.distinct import distinct

Array = NDArray[Any]
CHANNELS = ("i2i2u", "taste", "cat", "boundary")
DEPTHS = (25, 50, 100, 200, 400, 800)  # at which ceilings are told, down to that of the candidates


@dataclass
class Candidates:
    """Candidates of some songs, by song and then by user.

    `song_P` are places of songs, `score_PM` is NaN and `rank_PM` `depth` + 1 where a channel does not name the user.
    Ranks start at 1.
    """

    song_P: Array
    user_P: Array
    score_PM: Array
    rank_PM: Array
    channels: tuple[str, ...]
    depth: int

    def __len__(self) -> int:
        return len(self.song_P)


def merge_channels(found: dict[str, Audience], depth: int) -> Candidates:
    """Candidates from the lists of the same songs by several channels."""
    lists = [np.nonzero(one.users_CB[:, :depth] >= 0) for one in found.values()]
    width = 1 + max((int(one.users_CB.max(initial=-1)) for one in found.values()), default=-1)
    keys = [
        row * width + one.users_CB[row, rank] for one, (row, rank) in zip(found.values(), lists, strict=True)
    ]  # ascending by song, then by user
    key_P = distinct(*keys)
    score_PM = np.full((len(key_P), len(found)), np.nan, dtype=np.float32)
    rank_PM = np.full((len(key_P), len(found)), depth + 1, dtype=np.int32)
    for channel, (one, key, (row, rank)) in enumerate(zip(found.values(), keys, lists, strict=True)):
        at = np.searchsorted(key_P, key)
        score_PM[at, channel], rank_PM[at, channel] = one.scores_CB[row, rank], rank + 1
    song_P, user_P = np.divmod(key_P, max(width, 1))
    return Candidates(song_P, user_P, score_PM, rank_PM, tuple(found), depth)


def ceilings(candidates: Candidates, listeners: tuple[Array, Array]) -> dict[str, dict[str, float]]:
    """Share of the (place of the song, listener) pairs that the lists hold down to some depths, by channel and in all.

    No ranking of the candidates can find more.
    """
    song_L, user_L = listeners
    depths = [*(depth for depth in DEPTHS if depth < candidates.depth), candidates.depth]
    width = 1 + max(int(candidates.user_P.max(initial=-1)), int(user_L.max(initial=-1)))
    key_P, key_L = candidates.song_P * width + candidates.user_P, song_L * width + user_L
    rank_RM = candidates.rank_PM[np.isin(key_P, key_L)]  # of the candidates that are listeners
    best_RM = np.column_stack([rank_RM, rank_RM.min(axis=1, initial=candidates.depth + 1)])
    return {
        name: {str(depth): float((best_R <= depth).sum() / max(1, len(key_L))) for depth in depths}
        for name, best_R in zip((*candidates.channels, "all"), best_RM.T, strict=True)
    }
