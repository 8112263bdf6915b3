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
        song_CBT: songs of the history that a network looked at most, first the most; −1: no more. None: no network.
        share_CBT: their shares of its attention.
    """

    channels: tuple[str, ...]
    rank_CBM: Array
    names: tuple[str, ...]
    feature_CBT: Array
    value_CBT: Array
    raised_CBT: Array
    song_CBT: Array | None = None
    share_CBT: Array | None = None


def rank_reasons(ranker: Ranker, found: Audience, top: int = TOP) -> RankReasons:
    """Reasons of the users of an audience that this ranker made."""
    candidates, examples = found.asked.candidates, found.asked.examples
    row, place = np.nonzero(found.users_CB >= 0)
    width = 1 + int(candidates.user_P.max(initial=0))
    at_N = np.searchsorted(candidates.song_P * width + candidates.user_P, row * width + found.users_CB[row, place])

    def spread(values_NT: Array, nothing: Any) -> Array:
        spread_CBT = np.full((*found.users_CB.shape, values_NT.shape[1]), nothing, dtype=values_NT.dtype)
        spread_CBT[row, place] = values_NT
        return spread_CBT

    asked, rank_NM = examples.take(at_N), candidates.rank_PM[at_N]
    rank_CBM = spread(np.where(rank_NM <= candidates.depth, rank_NM, 0).astype(np.int64), 0)
    raised_NF = ranker.contributions(asked) if ranker.contributions else np.zeros((len(asked), 0))
    feature_NT, raised_NT = largest(raised_NF, top)
    value_NT = named(asked.feature_PF.astype(np.float64), feature_NT, np.nan)
    of_features = spread(feature_NT, -1), spread(value_NT, np.nan), spread(raised_NT, 0.0)
    if ranker.attention is None:
        return RankReasons(candidates.channels, rank_CBM, examples.names, *of_features)
    place_NT, share_NT = largest(ranker.attention(asked), top)
    song_NT = named(asked.histories.song_RT[asked.histories.row_P], place_NT, -1)
    of_songs = spread(song_NT, -1), spread(share_NT, 0.0)
    return RankReasons(candidates.channels, rank_CBM, examples.names, *of_features, *of_songs)


def largest(value_NF: Array, top: int) -> tuple[Array, Array]:
    """Places of the largest values above 0 of each row, −1 where there are fewer, and these, each (N, T)."""
    best_NT = np.full((len(value_NF), top), -1)
    k = min(top, value_NF.shape[1])
    best_NT[:, :k] = np.argsort(-value_NF, axis=1, kind="stable")[:, :k]
    best_NT[named(value_NF, best_NT, 0) <= 0] = -1
    return best_NT, named(value_NF, best_NT, 0)


def named(value_NF: Array, place_NT: Array, nothing: Any) -> Array:
    """Values at some places of each row, (N, T); `nothing` at −1."""
    if not value_NF.shape[1]:
        return np.full(place_NT.shape, nothing, dtype=value_NF.dtype)
    return np.where(place_NT >= 0, np.take_along_axis(value_NF, np.maximum(place_NT, 0), axis=1), nothing)
