"""Features of candidates against a loop over pairs, and that nothing later than a song is told of a user."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from retrieval.allocation import rank_values, share_out
from retrieval.audience import Excluded
from retrieval.candidates import CHANNELS, ceilings
from retrieval.gate import probability
from retrieval.play_log import PlayLog
from retrieval.rank_features import FEATURES, FIELDS, FeatureSource, KnownSongs
from retrieval.ranking import Examples, Ranker
from retrieval.songs import SongFacts, Songs
from retrieval.targeting import Targeting
from tests.retrieval.test_targeting import NEW, SONGS, USERS, asked, world

DEPTH, NEW_DAYS = 12, 10.0
VALUES = dict(zip(FIELDS, (12, 5, 2, 6), strict=True))  # of each field


def source(targeting: Targeting, heard: np.ndarray, seed: int = 0, dated: bool = True, **more: Any) -> FeatureSource:
    """A log in which some songs are played more than once, flags are known of most plays, and some have no time."""
    rng = np.random.default_rng(seed)
    user, song = np.nonzero(heard)
    twice = rng.integers(0, len(user), len(user) // 4)
    strength = np.r_[heard[user, song], -np.ones(len(twice))]  # played, and disliked later on
    user, song = np.r_[user, user[twice]], np.r_[song, song[twice]]
    day = np.where(rng.random(len(user)) < (0.9 if dated else 0.0), rng.uniform(0, 100, len(user)).round(), np.nan)
    flags = [np.where(rng.random(len(user)) < 0.8, rng.random(len(user)) < 0.5, np.nan) for _ in range(3)]
    order = np.argsort(day, kind="stable")
    log = PlayLog(user[order], song[order], day[order], strength[order], *(flag[order] for flag in flags), USERS)
    released = np.where(rng.random(SONGS) < 0.8, rng.uniform(-20, 90, SONGS), np.nan)
    fields = {name: weights(rng, n) for name, n in VALUES.items()}
    return FeatureSource(log, KnownSongs(released, fields), {"age": np.arange(USERS) / 2.0}, (), NEW_DAYS, 64, **more)


def weights(rng: np.random.Generator, values: int) -> sparse.csr_matrix:
    has = rng.random((SONGS, values)) < 1.5 / values
    return sparse.csr_matrix(has / np.maximum(has.sum(axis=1, keepdims=True), 1), dtype=np.float32)


def with_facts(targeting: Targeting, of: FeatureSource, day_C: np.ndarray) -> Songs:
    songs = asked(targeting)
    fields = {name: matrix[NEW] for name, matrix in of.songs.fields.items()}
    songs.facts = SongFacts(fields, day_C)
    return songs


def by_loop(targeting: Targeting, songs: Songs, of: FeatureSource, day: float, c: int, u: int) -> dict[str, float]:
    """Features of a pair but for those of channels."""
    log, known = of.log, of.songs
    assert songs.item_CD is not None and targeting.user_UD is not None and targeting.boundary_U is not None
    counts = [n for n in range(len(log.day_N)) if not log.dated or log.day_N[n] < day]
    mine = [n for n in counts if log.user_N[n] == u]
    strength: dict[int, float] = {}
    for n in mine:
        if log.strength_N[n] > 0:
            strength[log.song_N[n]] = max(strength.get(log.song_N[n], 0), log.strength_N[n])
    near = set(songs.similar.positions_CK[c]) & set(strength)
    unit = targeting.song_SD / np.linalg.norm(targeting.song_SD, axis=1, keepdims=True)
    cosine = {s: float(unit[s] @ unit[NEW[c]]) for s in strength}
    loved = [one for s, one in cosine.items() if strength[s] == 3]
    nan = float("nan")
    inner = float(songs.item_CD[c] @ targeting.user_UD[u])
    found = {
        "inner_product": inner,
        "boundary": targeting.boundary_U[u],
        "margin": inner - targeting.boundary_U[u],
        "similar_played": len(near),
        "similar_completed": sum(strength[s] >= 2 for s in near),
        "similar_favourited": sum(strength[s] >= 3 for s in near),
        "cosine_max": max(cosine.values(), default=nan),
        "cosine_mean": np.mean(list(cosine.values())) if cosine else nan,
        "cosine_favourited": max(loved, default=nan),
        "activity": np.log1p(len(mine)),
        "focus": np.linalg.norm(np.mean([unit[s] for s in strength], axis=0)) if strength else nan,
        "profile_age": u / 2,
    }
    for name in FIELDS:
        values = known.fields[name].toarray()
        own = values[NEW[c]]
        shares = (values[list(strength)] if strength else np.zeros((0, values.shape[1]))).sum(axis=0)
        found[f"{name}_share"] = own @ shares / max(1, len(strength)) if own.any() else nan
    listeners = np.zeros(SONGS)
    for s in range(SONGS):
        listeners[s] = len({log.user_N[n] for n in counts if log.song_N[n] == s and log.strength_N[n] > 0})
    found["popularity"] = np.mean([np.log1p(listeners[s]) for s in strength]) if strength else nan
    times, last = [log.day_N[n] for n in mine if log.day_N[n] == log.day_N[n]], np.nanmax([*log.day_N[counts], -1])
    found["recency"], found["tenure"] = (last - max(times), last - min(times)) if times else (nan, nan)
    ages = [log.day_N[n] - known.released_S[log.song_N[n]] for n in mine]
    found["openness"] = mean([age < NEW_DAYS for age in ages if age == age])
    for name in ("completed", "favourited", "disliked"):
        flags = getattr(log, f"{name}_N")
        found[f"{name}_share"] = mean([flags[n] for n in mine if flags[n] == flags[n]])
    return found


def mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


@pytest.mark.parametrize(("dated", "memory_mb"), [(True, 64), (True, 1e-3), (False, 64)])
def test_features_against_a_loop(dated: bool, memory_mb: float) -> None:
    targeting, heard = world()
    of = replace(source(targeting, heard, dated=dated), memory_mb=memory_mb)
    day_C = np.repeat([30.0, 64.0, 1000.0], [3, 4, 3])
    songs = with_facts(targeting, of, day_C)
    candidates = targeting.candidates(songs, DEPTH)
    feature_PF = of.features(targeting, songs, candidates)
    assert feature_PF.shape == (len(candidates), len(of.names)) and of.names[: len(FEATURES)] == FEATURES
    for row, (c, u) in enumerate(zip(candidates.song_P, candidates.user_P, strict=True)):
        found = dict(zip(of.names, feature_PF[row], strict=True))
        expected = by_loop(targeting, songs, of, day_C[c], c, u)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
        assert {name for name in found if not name.endswith(("_score", "_rank"))} == set(expected)


def test_candidates_are_the_union_of_the_channels_and_obey_exclusions() -> None:
    targeting, _ = world()
    songs = asked(targeting)
    candidates = targeting.candidates(songs, DEPTH)
    lists = {mode: targeting.audience(songs, mode, DEPTH, margin=-np.inf) for mode in CHANNELS}  # type: ignore[arg-type]
    expected: dict[tuple[int, int], dict[str, tuple[float, int]]] = {}
    for mode, c, rank in product(CHANNELS, range(len(NEW)), range(DEPTH)):
        if (user := int(lists[mode].users_CB[c, rank])) >= 0:
            expected.setdefault((c, user), {})[mode] = float(lists[mode].scores_CB[c, rank]), rank + 1
    assert list(zip(candidates.song_P, candidates.user_P, strict=True)) == sorted(expected)
    for row, pair in enumerate(sorted(expected)):
        for channel, mode in enumerate(candidates.channels):
            score, rank = expected[pair].get(mode, (float("nan"), DEPTH + 1))
            np.testing.assert_equal(
                (candidates.score_PM[row, channel], candidates.rank_PM[row, channel]), (np.float32(score), rank)
            )
    excluded = set(zip(songs.excluded.song.tolist(), songs.excluded.user.tolist(), strict=True))
    assert not excluded & set(expected) and not set(songs.excluded.users) & set(candidates.user_P)


def test_without_a_boundary_there_is_one_channel_fewer() -> None:
    targeting, _ = world()
    bare = replace(targeting, user_UD=None, boundary_U=None)
    assert bare.candidates(bare.songs(bare.song_SD[NEW], NEW), DEPTH).channels == ("i2i2u", "taste", "cat")


def test_ceilings_against_a_loop() -> None:
    targeting, _ = world()
    candidates = targeting.candidates(asked(targeting), 60)
    rng = np.random.default_rng(2)
    song_L, user_L = np.unique(rng.integers(0, (len(NEW), USERS), (90, 2)), axis=0).T
    found = ceilings(candidates, (song_L, user_L))
    pairs = zip(candidates.song_P.tolist(), candidates.user_P.tolist(), strict=True)
    rank = dict(zip(pairs, candidates.rank_PM, strict=True))
    assert list(found) == [*candidates.channels, "all"] and list(found["all"]) == ["25", "50", "60"]
    for depth in (25, 50, 60):
        rows = [rank.get((int(c), int(u)), np.full(4, 61)) <= depth for c, u in zip(song_L, user_L, strict=True)]
        np.testing.assert_allclose([found[name][str(depth)] for name in candidates.channels], np.mean(rows, axis=0))
        assert found["all"][str(depth)] == pytest.approx(np.mean(np.any(rows, axis=1)))
    assert found["all"]["60"] > found["i2i2u"]["60"] > found["i2i2u"]["25"] > 0


def test_a_later_play_changes_no_feature() -> None:
    """Whoever counted it would have the answer to what is asked."""
    targeting, heard = world()
    of = source(targeting, heard)
    songs = with_facts(targeting, of, np.full(len(NEW), 50.0))
    candidates = targeting.candidates(songs, DEPTH)
    before = of.features(targeting, songs, candidates)
    first = int(of.log.earlier(np.array([50.0]))[0])
    other = {name: getattr(of.log, name).copy() for name in ("user_N", "song_N", "strength_N", "favourited_N")}
    for values in other.values():
        values[first:] = values[first:][::-1]
    changed = replace(of, log=replace(of.log, **other))
    np.testing.assert_array_equal(changed.features(targeting, songs, candidates), before)
    songs.facts = replace(songs.facts, before_C=songs.facts.before_C + 40)  # type: ignore[type-var,union-attr]
    assert not np.array_equal(changed.features(targeting, songs, candidates), before, equal_nan=True)


def test_a_play_on_the_day_itself_is_not_earlier_and_an_undated_one_may_be_later() -> None:
    nothing = np.zeros(4)
    log = PlayLog(nothing, nothing, np.array([1.0, 2.0, 2.5, np.nan]), nothing, nothing, nothing, nothing, 1)
    assert log.earlier(np.array([0.0, 1.0, 2.0, 2.1, 9.0, np.nan])).tolist() == [0, 0, 1, 2, 3, 4]
    undated = replace(log, day_N=np.full(4, np.nan))
    assert undated.earlier(np.array([0.0, np.nan])).tolist() == [4, 4]


@pytest.mark.parametrize("gate", [False, True])
def test_the_ranked_mode_orders_the_candidates(gate: bool) -> None:
    targeting, heard = world()
    of = source(targeting, heard)
    songs = with_facts(targeting, of, np.full(len(NEW), 60.0))

    def score(examples: Examples) -> np.ndarray:
        return examples.columns(("cosine_mean",))[:, 0]

    targeting = replace(targeting, ranker=Ranker(score, of, DEPTH))
    found = targeting.audience(songs, "rank", 9, gate, 0.1)
    candidates = targeting.candidates(songs, DEPTH, gate, 0.1)
    value_P = of.features(targeting, songs, candidates)[:, of.names.index("cosine_mean")]
    for c in range(len(NEW)):
        at = np.flatnonzero((candidates.song_P == c) & np.isfinite(value_P))
        best = at[np.argsort(-value_P[at], kind="stable")][:9]
        np.testing.assert_array_equal(found.users_CB[c, : len(best)], candidates.user_P[best])
    if gate:
        row, rank = np.nonzero(found.users_CB >= 0)
        assert (targeting.margins(songs)[row, found.users_CB[row, rank]] > 0.1).all()


@pytest.mark.parametrize("logits", [False, True])
def test_under_a_cap_log_odds_count_as_chances_and_other_scores_by_rank(logits: bool) -> None:
    targeting, heard = world()
    of = source(targeting, heard)
    songs = with_facts(targeting, of, np.full(len(NEW), 60.0))
    ranker = Ranker(lambda asked: 40 * asked.columns(("cosine_mean",))[:, 0] - 5, of, DEPTH, logits)
    targeting = replace(targeting, ranker=ranker)
    found, free = (targeting.audience(songs, "rank", budget, cap=cap) for budget, cap in ((3, 1), (12, 0)))
    wanted = [share_out(free, value_CB, 3, 1, None) for value_CB in (rank_values(free), probability(free.scores_CB))]
    assert not np.array_equal(wanted[0].users_CB, wanted[1].users_CB)
    np.testing.assert_array_equal(found.users_CB, wanted[logits].users_CB)


def test_one_song_is_ranked_as_among_many() -> None:
    targeting, heard = world()
    of = source(targeting, heard)
    targeting = replace(targeting, ranker=Ranker(lambda asked: asked.columns(("taste_rank",))[:, 0], of, DEPTH))
    songs = with_facts(targeting, of, np.full(len(NEW), 60.0))
    songs.excluded = Excluded()
    together = targeting.audience(songs, "rank", 9)
    alone = targeting.songs(targeting.song_SD[NEW[3:4]], NEW[3:4], songs.item_CD[3:4])  # type: ignore[index]
    assert songs.facts is not None
    alone.facts = SongFacts({name: of_CV[3:4] for name, of_CV in songs.facts.fields.items()}, songs.facts.before_C[3:4])
    np.testing.assert_array_equal(targeting.audience(alone, "rank", 9).users_CB[0], together.users_CB[3])
