"""Simulate listening in the demo world: plays, item-to-item feedback, and outcomes of new songs.

Exposure: in each 30-day window users play songs with probability ∝ exp(popularity + freshness + own taste + a noisy
recommender's estimate of it); with openness, popularity counts less and freshness more. Outcome: appeal = affinity +
openness · unfamiliarity; completed, then favourited or disliked, are Bernoulli draws whose log-odds grow with appeal.
Unfamiliarity is high for songs that few know, and for all songs in their first two months: they appeal less to users
of low openness even where they fit their taste. Each pair of a user and a new song has one outcome, drawn once, so the
log and truth.parquet agree.

Shapes: U users, S songs, C new songs, N rows, W windows. Times are days since the log's start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from data.arrays import AnyArray, BoolArray, FloatArray, IntArray
from data.world.latent import NEW_DAYS, Songs, Users

WINDOWS = 12
LOG_DAYS = WINDOWS * NEW_DAYS  # the log is one year; the last window is the new releases' month
NEIGHBOURS, UNRELATED = 30, 5  # recommended songs per song: by co-listening, and popular ones at random
COMPLETED_RATE, FAVOURITED_RATE, DISLIKED_RATE = 0.55, 0.10, 0.02  # of all plays; the intercepts are set to meet them
SLOPE = 1.2  # log-odds per unit of appeal
DISCOVERY = 0.8  # appeal per unit of openness on an unknown song


@dataclass
class Plays:
    """One row a play, sorted by time; each (user, song) pair at most once."""

    user_N: IntArray
    song_N: IntArray
    day_N: AnyArray


@dataclass
class Odds:
    """Intercepts of the three outcomes' log-odds."""

    completed: float
    favourited: float  # among completed
    disliked: float  # among not completed


def draw_plays(songs: Songs, users: Users, rng: np.random.Generator) -> Plays:
    """Draw the first play of each (user, song) pair, window by window."""
    chunks = [
        _expose(songs, users, np.arange(start, min(start + 512, len(users))), rng)
        for start in range(0, len(users), 512)  # bounds the (users, songs) matrices
    ]
    user_N, song_N, day_N = (np.concatenate(part) for part in zip(*chunks, strict=True))
    order = np.argsort(day_N, kind="stable")
    user_N, song_N, day_N = user_N[order], song_N[order], day_N[order]
    _, first = np.unique(user_N * len(songs) + song_N, return_index=True)
    first.sort()
    return Plays(user_N[first], song_N[first], day_N[first])


def _expose(songs: Songs, users: Users, chunk_B: IntArray, rng: np.random.Generator) -> tuple[AnyArray, ...]:
    """Draw plays (user, song, day) of a chunk of users, repeats included."""
    open_B1 = users.openness_U[chunk_B, None]
    personal_BS = users.match_UD[chunk_B] @ songs.match_SD.T
    believed_BS = personal_BS + rng.normal(size=personal_BS.shape)
    loyalty_B1 = np.clip(1 - 0.3 * open_B1, 0.2, 2.0)  # weight of popularity
    base_BS = loyalty_B1 * songs.reach_S + 0.6 * personal_BS + 0.5 * believed_BS
    release_S = LOG_DAYS - songs.released_S
    activity_B = np.minimum(users.activity_U[chunk_B], 0.35 * len(songs))
    joined_B = np.clip(LOG_DAYS - users.joined_U[chunk_B], 0, None)
    plays = []
    for window in range(WINDOWS):
        start, end = window * NEW_DAYS, (window + 1) * NEW_DAYS
        released_S = np.clip((end - release_S) / NEW_DAYS, 0, 1)
        logits_BS = (
            base_BS
            + (1.4 + 0.5 * open_B1) * _freshness(songs.released_S, window)
            + np.log(np.maximum(released_S, 1e-30))
        )
        present_B = np.clip(end - np.maximum(start, joined_B), 0, None) / (LOG_DAYS - joined_B)
        row_N = np.repeat(np.arange(len(chunk_B)), rng.poisson(activity_B * present_B))
        song_N = _sample_rows(logits_BS, row_N, rng)
        earliest_N = np.maximum(np.maximum(start, release_S[song_N]), joined_B[row_N])
        plays.append((chunk_B[row_N], song_N, earliest_N + (end - earliest_N) * rng.random(len(row_N))))
    return tuple(np.concatenate(part) for part in zip(*plays, strict=True))


def _freshness(released: IntArray, window: int | AnyArray) -> AnyArray:
    """1 in the window of a song's release, 0.5 in the next, else 0."""
    age = window - (LOG_DAYS - released) // NEW_DAYS
    return np.where(age <= 0, 1.0, np.where(age == 1, 0.5, 0.0))


def _sample_rows(logits_BS: AnyArray, row_N: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw for each n a column from softmax(logits[row_N[n]]), by one search in the concatenated CDFs of all rows."""
    mass_BS = np.exp(logits_BS - logits_BS.max(axis=1, keepdims=True))
    cdf_BS = np.cumsum(mass_BS, axis=1, dtype=np.float64)
    cdf_BS /= cdf_BS[:, -1:]
    at_N = np.searchsorted((cdf_BS + np.arange(len(cdf_BS))[:, None]).ravel(), row_N + rng.random(len(row_N)), "right")
    return np.clip(at_N - row_N * cdf_BS.shape[1], 0, cdf_BS.shape[1] - 1)


def affinity(songs: Songs, users: Users, user_N: IntArray, song_N: IntArray) -> FloatArray:
    """Affinity of user and song: mean about 0, variance about 1 over random pairs."""
    return np.einsum("nd,nd->n", users.match_UD[user_N], songs.match_SD[song_N]) + songs.bias_S[song_N]


def appeal(songs: Songs, users: Users, user_N: IntArray, song_N: IntArray, fresh_N: AnyArray) -> FloatArray:
    """Affinity, plus the effect of the user's openness on songs that they are unlikely to know."""
    unfamiliar_N = 1 - songs.fame_S[song_N] * (1 - 0.7 * fresh_N)
    gain_N = DISCOVERY * users.openness_U[user_N] * unfamiliar_N - users.strictness_U[user_N]
    return affinity(songs, users, user_N, song_N) + gain_N.astype(np.float32)


def calibrate(appeal_N: FloatArray) -> Odds:
    """Intercepts at which plays with these appeals have the rates COMPLETED_RATE, FAVOURITED_RATE, DISLIKED_RATE."""
    completed = _intercept(SLOPE * appeal_N, np.ones_like(appeal_N), COMPLETED_RATE)
    p_N = _sigmoid(SLOPE * appeal_N + completed)
    return Odds(
        completed,
        _intercept(SLOPE * appeal_N, p_N, FAVOURITED_RATE),
        _intercept(-SLOPE * appeal_N, 1 - p_N, DISLIKED_RATE),
    )


def toss(appeal_N: FloatArray, odds: Odds, rng: np.random.Generator) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Draw outcomes of plays with these appeals: completed, favourited (if completed), disliked (if not)."""
    luck_N = rng.random((2, len(appeal_N)))
    completed_N = luck_N[0] < _sigmoid(SLOPE * appeal_N + odds.completed)
    favourited_N = completed_N & (luck_N[1] < _sigmoid(SLOPE * appeal_N + odds.favourited))
    disliked_N = ~completed_N & (luck_N[1] < _sigmoid(-SLOPE * appeal_N + odds.disliked))
    return completed_N, favourited_N, disliked_N


def log_outcomes(
    songs: Songs, users: Users, plays: Plays, rng: np.random.Generator
) -> tuple[pl.DataFrame, Odds, BoolArray]:
    """Draw outcomes of the plays; also the odds, and completed and favourited of every user and new song, (2, U, C)."""
    fresh_N = _freshness(songs.released_S[plays.song_N], plays.day_N // NEW_DAYS)
    appeal_N = appeal(songs, users, plays.user_N, plays.song_N, fresh_N)
    odds = calibrate(appeal_N)
    outcome_3N = np.stack(toss(appeal_N, odds, rng))

    new_C = np.flatnonzero(songs.new_S)
    user_M, song_M = np.repeat(np.arange(len(users)), len(new_C)), np.tile(new_C, len(users))
    met_M = toss(appeal(songs, users, user_M, song_M, np.ones(len(user_M))), odds, rng)
    met_3UC = np.stack(met_M).reshape(3, len(users), len(new_C))
    new_N = songs.new_S[plays.song_N]
    outcome_3N[:, new_N] = met_3UC[:, plays.user_N[new_N], np.searchsorted(new_C, plays.song_N[new_N])]
    frame = pl.DataFrame(dict(zip(("completed", "favourited", "disliked"), outcome_3N, strict=True)))
    return frame, odds, met_3UC[:2]


def draw_feedback(songs: Songs, users: Users, plays: Plays, odds: Odds, rng: np.random.Generator) -> pl.DataFrame:
    """Draw feedback on earlier recommendations, the table i2i_feedback with numbers for ids.

    Recommendations are co-listened songs (cosine) of the time before the last month and random popular songs; a random
    share of the pairs was shown, to listeners of the source.
    """
    old_N = plays.day_N < LOG_DAYS - NEW_DAYS
    user_N, song_N = plays.user_N[old_N], plays.song_N[old_N]
    source_P, target_P = _recommended(songs, user_N, song_N, len(users), rng)
    plays_P = rng.poisson(12 * rng.gamma(1.5, 1 / 1.5, size=len(source_P)))
    source_P, target_P, plays_P = (x[plays_P > 0] for x in (source_P, target_P, plays_P))

    by_song = np.argsort(song_N, kind="stable")
    start_S = np.searchsorted(song_N[by_song], np.arange(len(songs) + 1))
    pair_N = np.repeat(np.arange(len(source_P)), plays_P)
    shown_N = source_P[pair_N]
    pick_N = start_S[shown_N] + (rng.random(len(pair_N)) * np.diff(start_S)[shown_N]).astype(np.int64)
    listener_N = user_N[by_song][pick_N]
    appeal_N = appeal(songs, users, listener_N, target_P[pair_N], np.zeros(len(pair_N)))
    completed_N, favourited_N, _ = toss(appeal_N, odds, rng)
    return pl.DataFrame(
        {
            "source_song_id": source_P,
            "recommended_song_id": target_P,
            "plays": plays_P,
            "completes": np.bincount(pair_N, completed_N, len(source_P)).astype(np.int64),
            "favourites": np.bincount(pair_N, favourited_N, len(source_P)).astype(np.int64),
        }
    )


def _recommended(
    songs: Songs, user_N: IntArray, song_N: IntArray, n_users: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Recommended pairs (source, target) of songs played before the last month, sorted, without self-pairs."""
    played = csr_matrix((np.ones(len(user_N), np.float32), (user_N, song_N)), shape=(n_users, len(songs)))
    count_S = np.asarray(played.sum(0)).ravel()
    known_K = np.flatnonzero(count_S)
    scaled = (played[:, known_K] / np.sqrt(count_S[known_K])).tocsc()
    top = min(NEIGHBOURS, len(known_K) - 1)
    pairs = []
    for start in range(0, len(known_K), 1024):  # bounds the dense block of similarities
        block_BK = (scaled[:, start : start + 1024].T @ scaled).toarray()
        rows_B = np.arange(len(block_BK))
        block_BK[rows_B, start + rows_B] = -1
        near_BN = np.argpartition(-block_BK, top - 1, axis=1)[:, :top]
        positive_BN = np.take_along_axis(block_BK, near_BN, axis=1) > 0
        pairs.append((start + np.repeat(rows_B, top).reshape(near_BN.shape)[positive_BN], near_BN[positive_BN]))
    source_P, target_P = (np.concatenate(part) for part in zip(*pairs, strict=True))
    shown_P = rng.random(len(source_P)) < 0.85
    charts_K = count_S[known_K] / count_S[known_K].sum()
    extra_P = np.repeat(np.arange(len(known_K)), UNRELATED)
    popular_P = rng.choice(len(known_K), size=len(extra_P), p=charts_K)
    key_P = np.concatenate([source_P[shown_P], extra_P]) * len(known_K) + np.concatenate([target_P[shown_P], popular_P])
    source_P, target_P = np.divmod(np.unique(key_P), len(known_K))
    other_P = source_P != target_P
    return known_K[source_P[other_P]], known_K[target_P[other_P]]


def _intercept(logit_N: AnyArray, weight_N: AnyArray, rate: float) -> float:
    """Solve mean(weight · sigmoid(logit + intercept)) = rate for the intercept, by bisection."""
    low, high = -15.0, 15.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if (weight_N * _sigmoid(logit_N + middle)).mean() < rate else (low, middle)
    return (low + high) / 2


def _sigmoid(x: AnyArray) -> AnyArray:
    return np.asarray(1 / (1 + np.exp(-x)))
