"""Why a user is in a ranked audience: the channels that named them, and the features that raised their score most.

Shapes: C new songs, B budget, M channels, T features named, F features, N users of audiences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.audience import Audience
from retrieval.rank_features import PROFILE
from retrieval.ranking import Ranker

Array = NDArray[Any]
TOP = 3
WORDS = {
    "i2i2u_score": "score among listeners of similar songs",
    "i2i2u_rank": "place among listeners of similar songs",
    "taste_score": "nearness of their taste",
    "taste_rank": "place by nearness of taste",
    "cat_score": "nearness to a cluster of taste",
    "cat_rank": "place by nearness to a cluster of taste",
    "boundary_score": "margin over their boundary, as a channel",
    "boundary_rank": "place by margin over their boundary",
    "inner_product": "match of user and song",
    "boundary": "height of their boundary",
    "margin": "margin over their boundary",
    "similar_played": "similar songs that they played",
    "similar_completed": "similar songs that they completed",
    "similar_favourited": "similar songs that they favourited",
    "cosine_max": "similarity of their most similar song",
    "cosine_mean": "mean similarity of their songs",
    "cosine_favourited": "similarity of their most similar favourite",
    "artist_share": "share of their songs by this artist",
    "genres_share": "share of their songs in these genres",
    "language_share": "share of their songs in this language",
    "tags_share": "share of their songs with these tags",
    "activity": "how much they play",
    "recency": "days since their last play",
    "tenure": "days since their first play",
    "openness": "share of their plays on new songs",
    "popularity": "popularity of their songs",
    "focus": "how alike their songs are",
    "completed_share": "share of plays that they completed",
    "favourited_share": "share of plays that they favourited",
    "disliked_share": "share of plays that they disliked",
}  # fmt: skip


def in_words(feature: str) -> str:
    """A feature in plain words."""
    return WORDS.get(feature) or f"profile: {feature.removeprefix(PROFILE)}"


@dataclass(frozen=True)
class RankReasons:
    """Reasons of a ranked audience.

    Args:
        channels: what `rank_CBM` is of.
        rank_CBM: place in each channel's list, from 1; 0 where it does not name the user.
        names: the features.
        feature_CBT: those that raised the score most, first the strongest; −1: no more did, or the model cannot tell.
        value_CBT: their values, NaN where not known.
        raised_CBT: what they added to the score.
    """

    channels: tuple[str, ...]
    rank_CBM: Array
    names: tuple[str, ...]
    feature_CBT: Array
    value_CBT: Array
    raised_CBT: Array


def rank_reasons(ranker: Ranker, found: Audience, top: int = TOP) -> RankReasons:
    """Reasons of the users of an audience that this ranker made."""
    candidates, examples = found.asked.candidates, found.asked.examples
    row, place = np.nonzero(found.users_CB >= 0)
    width = 1 + int(candidates.user_P.max(initial=0))
    at_N = np.searchsorted(candidates.song_P * width + candidates.user_P, row * width + found.users_CB[row, place])
    shape = found.users_CB.shape
    rank_CBM = np.zeros((*shape, len(candidates.channels)), dtype=np.int64)
    rank_NM = candidates.rank_PM[at_N]
    rank_CBM[row, place] = np.where(rank_NM <= candidates.depth, rank_NM, 0)
    feature_CBT = np.full((*shape, top), -1, dtype=np.int64)
    value_CBT, raised_CBT = np.full(feature_CBT.shape, np.nan), np.zeros(feature_CBT.shape)
    if ranker.contributions is not None:
        asked = examples.take(at_N)
        raised_NF = ranker.contributions(asked)
        best_NT = np.argsort(-raised_NF, axis=1, kind="stable")[:, :top]
        raised_NT = np.take_along_axis(raised_NF, best_NT, axis=1)
        rose_NT, k = raised_NT > 0, best_NT.shape[1]
        value_NT = np.take_along_axis(asked.feature_PF, best_NT, axis=1)
        feature_CBT[row, place, :k] = np.where(rose_NT, best_NT, -1)
        value_CBT[row, place, :k] = np.where(rose_NT, value_NT, np.nan)
        raised_CBT[row, place, :k] = np.where(rose_NT, raised_NT, 0)
    return RankReasons(candidates.channels, rank_CBM, examples.names, feature_CBT, value_CBT, raised_CBT)
