"""The collaborative teacher against brute force, and the posterior check against naive loops and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from configs.errors import UserError
from datamodules.catalogue import Catalogue
from datamodules.collaborative import (
    Pairs,
    cold_neighbours,
    common_listeners,
    listening_matrix,
    neighbours,
    smoothed_lift,
    split_rows,
    verify_by_feedback,
    verify_by_listeners,
)
from datamodules.positives import by_halves, by_time, keep_good, mine

MINE: dict[str, Any] = {
    "similarity": "cosine",
    "top_k": 5,
    "min_common": 1,
    "posterior": "auto",
    "prior_plays": 5.0,
    "min_lift": 1.0,
    "keep_unobserved": True,
    "seed": 0,
}


def listening(users: int = 40, songs: int = 25, seed: int = 0, share: float = 0.3) -> sparse.csr_matrix:
    """Random strengths 1 … 3, popularity falling with the song number."""
    rng = np.random.default_rng(seed)
    heard = rng.random((users, songs)) < np.linspace(2 * share, 0.02, songs)
    return sparse.csr_matrix(np.where(heard, rng.integers(1, 4, (users, songs)), 0).astype(np.float32))


def listeners(matrix: sparse.csr_matrix) -> list[set[int]]:
    dense = matrix.toarray()
    return [set(np.flatnonzero(dense[:, song]).tolist()) for song in range(dense.shape[1])]


def every_pair(n: int) -> Pairs:
    source, target = np.nonzero(~np.eye(n, dtype=bool))
    return Pairs(source, target, np.zeros(len(source), dtype=np.float32))


def table(pairs: Pairs) -> dict[tuple[int, int], float]:
    found = dict(zip(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True), pairs.similarity, strict=True))
    assert len(found) == len(pairs), "a pair twice"
    return found


def brute_neighbours(cosine: dict[tuple[int, int], float], top_k: int) -> dict[int, list[float]]:
    """The top_k similarities of every source; compared as values, since equal ones may be kept in any order."""
    best: dict[int, list[float]] = {}
    for (source, _), value in cosine.items():
        best.setdefault(source, []).append(value)
    return {source: sorted(values, reverse=True)[:top_k] for source, values in best.items()}


def check_neighbours(found: Pairs, cosine: dict[tuple[int, int], float], top_k: int) -> None:
    got = table(found)
    for pair, value in got.items():
        assert value == pytest.approx(cosine[pair], rel=1e-5), f"{pair} is no allowed pair, or has another similarity"
    expected, kept = brute_neighbours(cosine, top_k), brute_neighbours(got, top_k)
    assert kept.keys() == expected.keys()
    for source, values in expected.items():
        assert kept[source] == pytest.approx(values, rel=1e-5), f"not the {top_k} best of song {source}"


@pytest.mark.parametrize("chunk", [7, 256])
@pytest.mark.parametrize("top_k", [1, 4, 100])
@pytest.mark.parametrize("min_common", [1, 2, 4])
def test_neighbours_against_brute_force_cosine(top_k: int, min_common: int, chunk: int) -> None:
    """The best `top_k` of the pairs that share enough listeners; pairs that do not must not use up places."""
    matrix = listening()
    of = listeners(matrix)
    cosine = {
        (a, b): len(of[a] & of[b]) / np.sqrt(len(of[a]) * len(of[b]))
        for a in range(len(of))
        for b in range(len(of))
        if a != b and len(of[a] & of[b]) >= min_common
    }
    check_neighbours(neighbours(matrix, top_k, min_common, chunk=chunk), cosine, top_k)


def test_a_rare_coincidence_takes_no_place_of_a_real_neighbour() -> None:
    """Song 0 shares one listener each with rare songs 2 … 9 (higher cosine) and two listeners with popular song 1."""
    dense = np.zeros((60, 10), dtype=np.float32)
    dense[:2, 0] = 1
    dense[:60, 1] = 1
    dense[0, 2:] = 1
    found = table(neighbours(sparse.csr_matrix(dense), top_k=3, min_common=2))
    assert set(found) == {(0, 1), (1, 0)}


def test_bm25_against_a_loop() -> None:
    """implicit's BM25 (K1 = 1.2, B = 0.75): Σ over common users of idf(u)² · f(a) · f(b), f falling with popularity."""
    matrix, min_common = listening(users=200), 2
    of, heard = listeners(matrix), matrix.toarray() > 0
    idf = np.log(25) - np.log1p(heard.sum(axis=1))
    length = heard.sum(axis=0) / heard.sum(axis=0).mean()
    f = 2.2 / (1.2 * (0.25 + 0.75 * length) + 1)
    score = {
        (a, b): float(sum(idf[u] ** 2 for u in of[a] & of[b]) * f[a] * f[b])
        for a in range(25)
        for b in range(25)
        if a != b and len(of[a] & of[b]) >= min_common
    }
    check_neighbours(neighbours(matrix, 4, min_common, "bm25"), score, 4)
    assert set(table(neighbours(matrix, 4, 2, "bm25"))) != set(table(neighbours(matrix, 4, 2)))


def test_how_loud_a_listening_is_does_not_change_neighbours() -> None:
    matrix = listening()
    quiet = matrix.copy()
    quiet.data[:] = 1
    assert table(neighbours(matrix, 5, 1)) == table(neighbours(quiet, 5, 1))


def test_nobody_listens() -> None:
    empty = sparse.csr_matrix((5, 7), dtype=np.float32)
    assert len(neighbours(empty, 3, 1)) == 0 and len(cold_neighbours(empty, empty, 3, 1)) == 0
    assert len(common_listeners(empty, empty, every_pair(0))) == 0


@pytest.mark.parametrize("chunk", [7, 200_000])
def test_common_listeners_against_sets(chunk: int) -> None:
    matrix, pairs = listening(), every_pair(25)
    of = listeners(matrix)
    heard = sparse.csc_matrix(matrix, dtype=bool).astype(np.float32)
    expected = [len(of[a] & of[b]) for a, b in zip(pairs.source, pairs.target, strict=True)]
    assert common_listeners(heard, heard, pairs, chunk).tolist() == expected


def test_inputs_stay_as_they_are() -> None:
    matrix = listening()
    for stored in (matrix, sparse.csc_matrix(matrix)):
        before = stored.toarray()
        neighbours(stored, 3, 1)
        cold_neighbours(stored, stored, 3, 1)
        verify_by_listeners(every_pair(25), stored, stored, 5.0)
        assert (stored.toarray() == before).all()


def test_listening_matrix_keeps_the_strongest_signal_and_no_dislike() -> None:
    plays = pl.DataFrame({"user": [0, 0, 0, 1, 2, 2], "song": [1, 1, 2, 1, 0, 0], "strength": [1.0, 3, 2, -1, -1, 2]})
    matrix = listening_matrix(plays, 4, 3)
    assert matrix.toarray().tolist() == [[0, 3, 2], [0, 0, 0], [2, 0, 0], [0, 0, 0]]
    assert matrix.nnz == 3, "a dislike is no stored zero either"


# ------------------------------------------------------------------------------------------ posterior check


def test_smoothed_lift_closed_form() -> None:
    good, shown = np.array([0.0, 3.0, 50.0, 0.0]), np.array([0.0, 10.0, 100.0, 40.0])
    lift = smoothed_lift(good, shown, 0.25, 20.0)
    assert lift == pytest.approx([1.0, (3 + 5) / 30 / 0.25, (50 + 5) / 120 / 0.25, 5 / 60 / 0.25])
    assert smoothed_lift(np.array([3e6]), np.array([1e7]), 0.1, 20.0) == pytest.approx(3.0, rel=1e-4), "data beat prior"


@pytest.mark.parametrize("prior", [0.0, 1.0, 3.0, 20.0, 0.7])
def test_unobserved_pair_has_lift_one_exactly(prior: float) -> None:
    """Not 1 − 1e−16: that would throw away every unobserved pair at min_lift = 1."""
    rates = np.random.default_rng(0).random(500)
    lifts = [float(smoothed_lift(np.zeros(1), np.zeros(1), rate, prior)[0]) for rate in [*rates, 0.0, 1.0]]
    assert set(lifts) == {1.0}


def test_verify_by_feedback_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    rows = [(int(a), int(b), int(n), int(n // 3), int(n // 5)) for a, b, n in rng.integers(0, 12, (150, 3))]
    feedback = pl.DataFrame(rows, schema=["source", "target", "plays", "completes", "favourites"], orient="row")
    feedback = feedback.with_columns(pl.col("source", "target").cast(pl.UInt32))  # as with_row_index gives them
    shown: dict[tuple[int, int], float] = {}
    good: dict[tuple[int, int], float] = {}
    for a, b, plays, completes, favourites in rows:
        shown[a, b] = shown.get((a, b), 0) + plays
        good[a, b] = good.get((a, b), 0) + favourites + 0.5 * completes
    rate = sum(good.values()) / sum(shown.values())
    pairs = every_pair(14).take(rng.permutation(14 * 13))
    lift, seen = verify_by_feedback(pairs, feedback, 20.0)
    for i, pair in enumerate(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)):
        n, g = shown.get(pair, 0), good.get(pair, 0)
        assert seen[i] == n and lift[i] == pytest.approx((g + 20 * rate) / (n + 20) / rate)


def test_verify_by_listeners_against_a_loop_on_held_out_users() -> None:
    """Both windows the same users' listening, as for split_users: co-listening against the target's share."""
    matrix, prior = listening(), 5.0
    pairs, of = every_pair(25), listeners(matrix)
    active = len(set().union(*of))
    lift, shown = verify_by_listeners(pairs, matrix, matrix, prior)
    for i, (a, b) in enumerate(zip(pairs.source, pairs.target, strict=True)):
        share = len(of[b]) / active
        if share == 0:
            assert (lift[i], shown[i]) == (1.0, 0), "no evidence is no evidence against"
        else:
            expected = (len(of[a] & of[b]) + prior * share) / (len(of[a]) * share + prior * share)
            assert lift[i] == pytest.approx(expected, rel=1e-5) and shown[i] == len(of[a])


def test_verify_by_listeners_against_a_loop_on_two_windows() -> None:
    """Only users who could take the target up count: active in the later window, and new to the target."""
    before, after, prior = listening(seed=2), listening(seed=3, share=0.15), 5.0
    fresh = after.toarray() * (before.toarray() == 0)
    fresh[:10] = 0  # a quarter of the users never come back
    after = sparse.csr_matrix(fresh)
    knew, took, pairs = listeners(before), listeners(after), every_pair(25)
    active = set().union(*took)
    lift, shown = verify_by_listeners(pairs, before, after, prior)
    for i, (a, b) in enumerate(zip(pairs.source, pairs.target, strict=True)):
        could = active - knew[b]
        share = len(took[b]) / len(could) if could else 0.0
        if share == 0:
            assert (lift[i], shown[i]) == (1.0, 0)
            continue
        asked = len(knew[a] & could)
        expected = (len(knew[a] & took[b]) + prior * share) / (asked * share + prior * share)
        assert lift[i] == pytest.approx(expected, rel=1e-5) and shown[i] == asked


def test_unrelated_songs_have_lift_one_on_average_in_a_later_window() -> None:
    """Users choose at random, half of them leave, and nobody takes up twice what he knows: no pair is good or bad."""
    rng = np.random.default_rng(0)
    users, songs = 4000, 12
    before = rng.random((users, songs)) < 0.4
    after = (rng.random((users, songs)) < 0.3) & ~before & (np.arange(users) % 2 == 0)[:, None]
    knew, took = (sparse.csr_matrix(window.astype(np.float32)) for window in (before, after))
    lift, _ = verify_by_listeners(every_pair(songs), knew, took, 20.0)
    assert lift.mean() == pytest.approx(1.0, abs=0.03)


def test_cold_neighbours_against_brute_force() -> None:
    is_cold = np.arange(25) < 10
    cold = sparse.csr_matrix(listening(seed=4).toarray() * is_cold)
    warm = sparse.csr_matrix(listening(seed=5).toarray() * ~is_cold)
    a, b = listeners(cold), listeners(warm)
    cosine = {
        (s, t): len(a[s] & b[t]) / np.sqrt(len(a[s]) * len(b[t]))
        for s in range(10)
        for t in range(10, 25)
        if len(a[s] & b[t]) >= 2
    }
    check_neighbours(cold_neighbours(cold, warm, 4, 2), cosine, 4)


def test_split_rows_gives_every_user_to_one_half() -> None:
    matrix = listening()
    first, second = split_rows(matrix, 0)
    assert (first + second != matrix).nnz == 0
    heard = [set(np.flatnonzero(np.diff(half.indptr))) for half in (first, second)]
    assert not heard[0] & heard[1] and min(map(len, heard)) > 5
    assert (split_rows(matrix, 0)[0] != first).nnz == 0 and (split_rows(matrix, 1)[0] != first).nnz > 0
    with pytest.raises(UserError, match="at least two users"):
        split_rows(matrix[:1], 0)


# ------------------------------------------------------------------------------------------ positives.py


def timed_plays(rows: list[tuple[int, int, float]]) -> pl.DataFrame:
    """(user, song, day) → plays."""
    start = datetime(2026, 1, 1)
    return pl.DataFrame(
        {
            "user": [user for user, _, _ in rows],
            "song": [song for _, song, _ in rows],
            "strength": pl.Series([1.0] * len(rows), dtype=pl.Float32),
            "played_at": pl.Series([start + timedelta(days=day) for _, _, day in rows], dtype=pl.Datetime("ms")),
        }
    )


def test_by_time_cuts_at_three_quarters_and_keeps_only_new_songs_later() -> None:
    rng = np.random.default_rng(0)
    days = rng.permutation(80)
    rows = [(int(rng.integers(6)), int(rng.integers(9)), float(day)) for day in days]
    earlier, fresh = by_time(timed_plays(rows), (6, 9))
    ordered = sorted(rows, key=lambda row: row[2])
    known = {(user, song) for user, song, _ in ordered[:60]}
    later = {(user, song) for user, song, _ in ordered[60:]}
    assert set(zip(*(axis.tolist() for axis in earlier.nonzero()), strict=True)) == known
    assert set(zip(*(axis.tolist() for axis in fresh.nonzero()), strict=True)) == later - known


def test_by_halves_mines_on_one_half_and_verifies_on_the_other() -> None:
    matrix = listening(users=120)
    halves = split_rows(matrix, 3)

    def mined(half: sparse.csr_matrix) -> Pairs:
        return neighbours(half, 4, 1)

    expected: dict[tuple[int, int], tuple[float, float, float]] = {}
    for mine_on, check_on in (halves, halves[::-1]):
        pairs = mined(mine_on)
        lift, shown = verify_by_listeners(pairs, check_on, check_on, 5.0)
        for i, pair in enumerate(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)):
            if pair not in expected or shown[i] > expected[pair][2]:
                expected[pair] = (float(pairs.similarity[i]), float(lift[i]), float(shown[i]))
    pairs, lift, shown = by_halves(matrix, mined, 5.0, 3)
    got = dict(zip(table(pairs), zip(pairs.similarity, lift, shown, strict=True), strict=True))
    assert got.keys() == expected.keys()
    for pair, values in expected.items():
        assert got[pair] == pytest.approx(values)


def test_a_pair_that_only_one_half_of_the_users_likes_is_dropped() -> None:
    """Songs 0 and 1 go together for one half alone (a coincidence), songs 2 and 3 for everybody."""
    rng = np.random.default_rng(0)
    dense = (rng.random((400, 6)) < 0.1).astype(np.float32)
    half = np.random.default_rng(7).random(400) < 0.5  # the halves of seed 7
    together, everybody = rng.random((2, 400)) < 0.3
    dense[everybody, 2:4] = 1
    dense[half & together, 0:2] = 1
    dense[~half & together, 0], dense[~half & together, 1] = 1, 0
    pairs, evidence = mine(
        pl.DataFrame(
            {"user": dense.nonzero()[0], "song": dense.nonzero()[1], "strength": dense[dense.nonzero()]}
        ).with_columns(played_at=pl.lit(None, pl.Datetime("ms"))),
        None,
        (400, 6),
        **MINE | {"seed": 7, "top_k": 1},
    )
    assert evidence["posterior"] == "split_users" and evidence["mined"] == evidence["kept"] + evidence["dropped"]
    kept = set(table(pairs))
    assert {(2, 3), (3, 2)} <= kept and not {(0, 1), (1, 0)} & kept


def test_keep_good_rules_and_counts() -> None:
    pairs = every_pair(3)
    lift, shown = np.array([2.0, 1.0, 0.5, 1.0, 3.0, 0.9]), np.array([5, 5, 5, 0, 0, 5])
    kept, evidence = keep_good((pairs, lift, shown), "feedback", 1.0, True)
    assert set(table(kept)) == {(0, 1), (0, 2), (1, 2), (2, 0)}
    assert evidence == {
        "posterior": "feedback", "mined": 6, "observed": 4, "kept": 4, "dropped": 2, "songs_with_a_pair": 3
    }  # fmt: skip
    strict, _ = keep_good((pairs, lift, shown), "feedback", 1.0, False)
    assert set(table(strict)) == {(0, 1), (0, 2)}


def test_mine_takes_the_strongest_evidence_there_is() -> None:
    rng = np.random.default_rng(0)
    plays = timed_plays([(int(rng.integers(30)), int(rng.integers(8)), float(day)) for day in range(300)])
    untimed = plays.with_columns(played_at=pl.lit(None, pl.Datetime("ms")))
    feedback = pl.DataFrame({"source": [0], "target": [1], "plays": [50], "completes": [0], "favourites": [0]})
    shape = (30, 8)
    assert mine(plays, feedback, shape, **MINE)[1]["posterior"] == "feedback"
    assert mine(plays, None, shape, **MINE)[1]["posterior"] == "later_plays"
    assert mine(untimed, None, shape, **MINE)[1]["posterior"] == "split_users"
    everything, evidence = mine(plays, None, shape, **MINE | {"posterior": "none"})
    assert evidence == {"posterior": "none", "mined": len(everything), "kept": len(everything), "dropped": 0}
    for asked, table_, words in (("feedback", plays, "no i2i_feedback"), ("later_plays", untimed, "no played_at")):
        with pytest.raises(UserError, match=words):
            mine(table_, None, shape, **MINE | {"posterior": asked})


def test_bad_feedback_drops_the_pair_and_only_that() -> None:
    rng = np.random.default_rng(0)
    plays = timed_plays([(int(rng.integers(30)), int(rng.integers(8)), float(day)) for day in range(300)])
    feedback = pl.DataFrame(
        {"source": [0, 1], "target": [1, 0], "plays": [90, 90], "completes": [0, 60], "favourites": [0, 40]}
    )
    options = MINE | {"top_k": 20}
    all_pairs = set(table(mine(plays, None, (30, 8), **options | {"posterior": "none"})[0]))
    kept = set(table(mine(plays, feedback, (30, 8), **options)[0]))
    assert all_pairs - kept == {(0, 1)}
    only = set(table(mine(plays, feedback, (30, 8), **options | {"keep_unobserved": False})[0]))
    assert only == {(1, 0)}


# ------------------------------------------------------------------------------------------ no leak from the future


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("posterior", ["none", "auto"])
def test_no_play_after_the_cutoff_or_of_a_cold_song_reaches_training(
    dataset: Path, prepare: Callable[..., Path], tmp_path: Path, posterior: str, feedback: bool
) -> None:
    """Plants the strongest pairs of the dataset: two known songs after the cut-off, a cold song with a known one."""
    songs, plays = pl.read_parquet(dataset / "songs.parquet"), pl.read_parquet(dataset / "plays.parquet")
    after = datetime(2026, 3, 10)
    rows = [(f"u{u:02d}", song, after, True, True) for u in range(80) for song in ("s03", "s01", "s55", "s50")]
    planted = pl.DataFrame(rows, schema=plays.schema, orient="row")
    source = tmp_path / "planted"
    source.mkdir()
    songs.write_parquet(source / "songs.parquet")
    pl.concat([plays, planted]).write_parquet(source / "plays.parquet")
    if feedback:
        pl.DataFrame(
            {
                "source_song_id": ["s55", "s01", "s03"],
                "recommended_song_id": ["s01", "s55", "s01"],
                "plays": [100] * 3,
                "completes": [100] * 3,
                "favourites": [100] * 3,
            }
        ).write_parquet(source / "i2i_feedback.parquet")
    catalogue = Catalogue.read(prepare(source, tmp_path / "catalogue", f"pairs.posterior={posterior}"))
    warm = set(catalogue.rows("warm").tolist())
    assert catalogue.songs["split"][55] == "cold_test" and {1, 3} <= warm and catalogue.songs["split"][50] == "cold_val"

    cutoff = datetime.fromisoformat(catalogue.manifest["split"]["cutoff"])
    assert (catalogue.plays["played_at"] < cutoff).all() and set(catalogue.plays["song"].to_list()) <= warm
    pairs = set(zip(*(side.tolist() for side in catalogue.pairs()), strict=True))
    assert {song for pair in pairs for song in pair} <= warm, "a cold song in a training pair"
    assert not any(3 in pair for pair in pairs), "song 3 was played after the cut-off only"
    assert catalogue.songs["popularity"][3] == 0 and catalogue.songs["popularity"][55] == 0
    source_of, target_of = catalogue.pairs("val_pairs")
    assert set(source_of.tolist()) <= set(catalogue.rows("cold_val").tolist()) and set(target_of.tolist()) <= warm
    assert not (target_of == 3).any(), "the later co-listening is no validation truth either"


def test_removing_the_future_changes_no_training_table(
    dataset: Path, prepare: Callable[..., Path], catalogue: Any, tmp_path: Path
) -> None:
    """The whole training input is a function of the past: without any later or cold play it comes out the same."""
    source = tmp_path / "past"
    source.mkdir()
    for name in ("songs", "users"):
        pl.read_parquet(dataset / f"{name}.parquet").write_parquet(source / f"{name}.parquet")
    cutoff = datetime.fromisoformat(catalogue.manifest["split"]["cutoff"])
    plays = pl.read_parquet(dataset / "plays.parquet")
    early = plays.filter((pl.col("played_at") < cutoff) & (pl.col("song_id") < "s48"))
    one_cold = plays.filter(pl.col("song_id") >= "s48").head(1)
    pl.concat([early, one_cold]).write_parquet(source / "plays.parquet")
    past = Catalogue.read(prepare(source, tmp_path / "catalogue", f"split.cutoff={cutoff.date()}"))
    assert past.plays.equals(catalogue.plays)
    assert past.pairs()[0].tolist() == catalogue.pairs()[0].tolist()
    assert past.pairs()[1].tolist() == catalogue.pairs()[1].tolist()
    assert past.songs["popularity"].equals(catalogue.songs["popularity"])
    assert past.cold_plays.height == 1
