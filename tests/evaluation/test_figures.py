"""Grouping by genre: k-means and its NMI against loops and closed forms, and the maps' data."""

from __future__ import annotations

from collections import Counter
from math import log
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.load import load
from configs.targeting import EvaluateConfig
from data.catalogue import Catalogue
from data.fields import read_fields
from evaluation import baselines, figures
from evaluation import evaluation as evaluate
from inference.song_index import SongIndex
from inference.vectors import Boundary
from retrieval.index import build_index, unit_rows


@pytest.mark.parametrize("vectors", [np.ones((40, 5)), np.zeros((40, 5)), np.full((40, 5), np.nan), np.ones((40, 1))])
def test_what_has_nothing_to_spread_is_not_projected(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn is not asked: vectors that are all equal would end this process."""
    from sklearn import manifold

    def asked(**_: Any) -> Any:
        raise AssertionError("t-SNE")

    monkeypatch.setattr(manifold, "TSNE", asked)
    rounded = vectors * (1 + 1e-8 * np.arange(40)[:, None])
    np.testing.assert_array_equal(figures.project(rounded, 0), np.pad(rounded, ((0, 0), (0, 1)))[:, :2])
    vectors[::2] += 1
    if vectors.shape[1] > 1 and np.isfinite(vectors).all():
        with pytest.raises(AssertionError, match="t-SNE"):
            figures.project(vectors, 0)


def toy(songs: dict[str, Any], **tables: Any) -> Any:
    """A catalogue in memory."""
    n = len(next(iter(songs.values())))
    frame = pl.DataFrame({"song_id": [f"s{i}" for i in range(n)], **songs})
    split = frame["split"].to_numpy() if "split" in songs else np.full(n, "warm")
    return SimpleNamespace(songs=frame, n_songs=n, rows=lambda name: np.flatnonzero(split == name), **tables)


def blobs(n: int, k: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around k directions at right angles, and the direction of each; lengths are random."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % k
    points = np.eye(k, 2 * k)[label] + noise * rng.standard_normal((n, 2 * k))
    return unit_rows(points * rng.uniform(0.1, 9, (n, 1))), label


def naive_nmi(one: list[Any], other: list[Any]) -> float:
    n, a, b, both = len(one), Counter(one), Counter(other), Counter(zip(one, other, strict=True))
    shared = sum(c / n * log(c * n / (a[x] * b[y])) for (x, y), c in both.items())
    entropy = sum(-c / n * log(c / n) for count in (a, b) for c in count.values()) / 2
    return shared / entropy


@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_the_nmi_of_clusters_and_labels(seed: int) -> None:
    points, label = blobs(200, 5, 0.6, seed)
    result = figures.cluster_agreement(points, label, seed)
    cluster = figures.kmeans(points, 5, seed).tolist()
    assert result["genre_nmi"] == pytest.approx(naive_nmi(label.tolist(), cluster)) and 0.1 < result["genre_nmi"] < 0.9
    assert result == figures.cluster_agreement(points, label, seed), "seeded"
    rng = np.random.default_rng(99)
    chance = np.mean([naive_nmi(rng.permutation(label).tolist(), cluster) for _ in range(200)])
    assert result["chance_genre_nmi"] == pytest.approx(chance, rel=0.25)


def test_agreement_is_one_for_the_same_partition_and_chance_for_another() -> None:
    points, label = blobs(400, 4, 0.02)
    assert figures.cluster_agreement(points, label, 0)["genre_nmi"] == pytest.approx(1)
    crossed = figures.cluster_agreement(points, np.arange(400) // 4 % 4, 0)
    assert crossed["genre_nmi"] == pytest.approx(0, abs=1e-6) and 0 < crossed["chance_genre_nmi"] < 0.03
    few = figures.cluster_agreement(*blobs(24, 8, 0.02), 0)
    assert few["chance_genre_nmi"] > 0.4, "of many small clusters chance is high, and told"
    assert figures.cluster_agreement(points, np.zeros(400), 0) == {}, "one genre: nothing to group"


def test_agreement_of_a_large_catalogue_is_that_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "CLUSTERED_SONGS", 60)
    points, label = blobs(300, 3, 0.7)
    chosen = np.sort(np.random.default_rng(5).permutation(300)[:60])
    cluster = figures.kmeans(points[chosen], 3, 5).tolist()
    result = figures.cluster_agreement(points, label, 5)["genre_nmi"]
    assert result == pytest.approx(naive_nmi(label[chosen].tolist(), cluster))


def test_kmeans_keeps_the_best_of_its_starts() -> None:
    points, _ = blobs(240, 12, 0.02)

    def squares(seed: int, starts: int) -> float:
        cluster = figures.kmeans(points, 12, seed, starts)
        return sum(float(points[cluster == c].var(axis=0).sum()) * int((cluster == c).sum()) for c in set(cluster))

    one, best = (np.array([squares(seed, starts) for seed in range(6)]) for starts in (1, 5))
    assert (best <= one + 1e-3).all() and best.sum() < 0.9 * one.sum()
    default = figures.kmeans(points, 12, 0)
    assert (default == figures.kmeans(points, 12, 0, 5)).all()


def test_kmeans_of_as_many_clusters_as_points_and_of_equal_points() -> None:
    assert sorted(figures.kmeans(np.eye(5), 5, 0)) == [0, 1, 2, 3, 4]
    assert figures.kmeans(np.zeros((6, 3)), 2, 0).shape == (6,)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_against_sorting_ties_last(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, item = rng.integers(-2, 3, (2, 40, 5))
    genre = rng.integers(0, 4, 40).astype(str)
    score = query @ item.T
    rank = [sum(score[q] >= score[q, q]) for q in range(40)]
    within = [sum((score[q] >= score[q, q]) & (genre == genre[q])) for q in range(40)]
    row = figures.ranks_summary(query, item, genre)
    for k in (1, 5, 10):
        assert row[f"recall@{k}"] == np.mean([one <= k for one in rank])
    assert (row["median_rank"], row["pool_size"], row["chance_recall@10"]) == (np.median(rank), 40, 0.25)
    assert row["recall@1_within_genre"] == np.mean([one == 1 for one in within])
    assert row["chance_recall@1_within_genre"] == pytest.approx(np.mean([1 / sum(genre == one) for one in genre]))


def test_genre_grouping_is_the_vote_of_the_ten_nearest_known_songs() -> None:
    rng = np.random.default_rng(0)
    genre = rng.choice(["folk", "rock", "techno"], 80, p=[0.5, 0.3, 0.2]).tolist()
    split = np.where(np.arange(80) < 60, "warm", "cold_test").tolist()
    vectors = np.array([{"folk": 0, "rock": 1, "techno": 2}[g] for g in genre])[:, None] == np.arange(3)
    vectors = (vectors + 0.6 * rng.standard_normal((80, 3))) * rng.uniform(0.1, 9, (80, 1))  # length must not matter
    genre[7] = genre[70] = None
    catalogue = toy({"split": split, "genres": [[g, "other"] if g else None for g in genre]})
    plain, ours = figures.genre_grouping({"ours": vectors}, catalogue, "cold_test", 7)
    kept = np.setdiff1d(np.arange(80), [7, 70])
    agreement = figures.cluster_agreement(unit_rows(vectors[kept]), np.array(genre, dtype=str)[kept], 7)
    assert {key: ours[key] for key in agreement} == pytest.approx(agreement) and len(agreement) == 2
    assert set(plain) == {"space", "knn_genre_accuracy"}
    warm = [i for i in range(60) if genre[i]]
    new = [i for i in range(60, 80) if genre[i]]
    most = max(("folk", "rock", "techno"), key=[genre[i] for i in warm].count)
    assert plain["knn_genre_accuracy"] == pytest.approx(np.mean([genre[i] == most for i in new]))
    right = []
    for i in new:
        cosine = {j: vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]) for j in warm}
        near = [genre[j] for j in sorted(cosine, key=lambda j: -cosine[j])[:10]]
        right.append(min(("folk", "rock", "techno"), key=lambda g: (-near.count(g), g)) == genre[i])
    assert ours["knn_genre_accuracy"] == pytest.approx(np.mean(right)) and 0.5 < np.mean(right) < 1
    assert figures.genre_grouping({}, toy({"split": ["warm", "cold_test"], "genres": [None, ["a"]]}), "cold_test") == []


def test_boundary_summary_and_histogram_count_pairs() -> None:
    rng = np.random.default_rng(0)
    item, user, edge = rng.standard_normal((7, 3)), rng.standard_normal((9, 3)), rng.standard_normal(9)
    edge[4] = 99  # open to nothing
    plays = {"user": np.repeat(np.arange(9, dtype=np.int32), 2), "song": rng.integers(0, 6, 18).astype(np.int32)}
    catalogue = toy({"popularity": [1, 5, 9, 2, 7, 3]}, plays=pl.DataFrame(plays))
    boundary: Any = Boundary(None, item, user, edge)  # type: ignore[arg-type]
    open_CU = np.array([[item[c] @ user[u] > edge[u] for u in range(9)] for c in range(7)])
    shares = figures.open_shares(boundary)
    result = figures.boundary_summary(shares, catalogue)
    assert result["share_of_pairs_above_the_boundary"] == pytest.approx(open_CU.mean())
    assert result["share_of_users_with_no_new_song"] == pytest.approx((~open_CU.any(axis=0)).mean())
    taste = [
        np.mean([catalogue.songs["popularity"][int(s)] for s in plays["song"][plays["user"] == u]]) for u in range(9)
    ]
    ordered = sorted(range(9), key=lambda u: (taste[u], u))
    for place, share in enumerate(result["share_of_new_songs_by_taste"].values()):
        assert share == pytest.approx(open_CU[:, ordered[3 * place : 3 * place + 3]].mean())
    drawn = figures.boundary_histogram(boundary, shares)
    assert sum(drawn["open_count"]) == 9 and 55 <= sum(drawn["margin_count"]) <= 63
    margin = [[item[c] @ user[u] - edge[u] for u in range(9)] for c in range(7)]
    ends = {"bins": 60, "range": tuple(np.quantile(margin, [0.001, 0.999]))}
    np.testing.assert_allclose(drawn["margin_edge"], np.histogram(margin, **ends)[1])
    assert drawn["margin_count"] == np.histogram(margin, bins=drawn["margin_edge"])[0].tolist()
    cleared_CU = np.array([[item[c] @ user[u] - edge[u] > 0.7 for u in range(9)] for c in range(7)])
    np.testing.assert_allclose(figures.open_shares(boundary, threshold=0.7), cleared_CU.mean(axis=0))
    assert (cleared_CU != open_CU).any()
    little = 1e-6  # one song at a time
    assert figures.boundary_summary(figures.open_shares(boundary, little), catalogue) == result
    assert figures.boundary_histogram(boundary, shares, little) == drawn


def test_the_ends_of_a_large_histogram_are_a_sample_s(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    boundary: Any = Boundary(None, rng.normal(size=(80, 3)), rng.normal(size=(900, 3)), rng.normal(size=900))  # type: ignore[arg-type]
    shares = figures.open_shares(boundary)
    sampled = figures.boundary_histogram(boundary, shares)
    assert figures.SAMPLED_PAIRS < 80 * 900
    monkeypatch.setattr(figures, "SAMPLED_PAIRS", 80 * 900)
    whole = figures.boundary_histogram(boundary, shares)
    np.testing.assert_allclose(sampled["margin_edge"], whole["margin_edge"], atol=0.5)
    assert sampled["margin_edge"] != whole["margin_edge"] and sampled["open_count"] == whole["open_count"]
    assert abs(sum(sampled["margin_count"]) - sum(whole["margin_count"])) < 0.002 * 80 * 900


def test_map_shows_the_same_songs_in_every_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAP_SONGS", 60)
    points, label = blobs(90, 3, 0.05)
    noise = np.random.default_rng(0).standard_normal((90, 4))
    columns = {"genres": [[f"g{one}"] for one in label], "title": [f"t{i}" for i in range(90)]}
    catalogue = toy(columns | {"split": ["warm", "warm", "cold_val"] * 30})
    drawn = figures.song_map({"ours": points, "noise": noise}, catalogue, 0)
    shown = [int(title[1:]) for title in drawn["title"]]
    assert len(set(shown)) == 60 and drawn["genre"] == [f"g{label[i]}" for i in shown]
    assert drawn["new"] == [i % 3 == 2 for i in shown] == sorted(drawn["new"]), "new ones are drawn above known ones"
    assert list(drawn["maps"]) == ["ours", "noise"]
    same = {name: nearest_has_same_genre(xy, drawn["genre"]) for name, xy in drawn["maps"].items()}
    assert abs(np.corrcoef(drawn["maps"]["noise"]["x"], drawn["maps"]["noise"]["y"])[0, 1]) < 0.9, "two dimensions"
    assert same["ours"] > 0.95 and same["noise"] < 0.7, "near in the map is near in the space"
    for name, vectors in (("ours", points), ("noise", noise)):
        unit = unit_rows(vectors[shown])
        for song, result in enumerate(drawn["maps"][name]["near"]):
            cosine = {other: float(unit[song] @ unit[other]) for other in range(60) if other != song}
            assert result == sorted((o for o in cosine if cosine[o] > 0), key=lambda o: -cosine[o])[:5]


def test_a_song_without_any_field_is_near_to_nothing() -> None:
    assert figures.nearest(np.array([[1.0, 0], [0, 0], [0.6, 0.8]])) == [[2], [], [0]]
    assert figures.nearest(np.ones((1, 2))) == [[]]


def nearest_has_same_genre(xy: dict[str, list[float]], genre: list[str]) -> float:
    at = np.stack([xy["x"], xy["y"]], axis=1)
    away = np.linalg.norm(at[:, None] - at, axis=2) + np.where(np.eye(len(at)), np.inf, 0)
    return float(np.mean([genre[i] == genre[j] for i, j in enumerate(away.argmin(axis=1))]))


@pytest.mark.parametrize("n", [1, 7, 11])
def test_few_songs_have_a_place_too(n: int) -> None:
    xy = figures.project(np.random.default_rng(0).standard_normal((n, 1 if n < 11 else 5)), 0)
    assert xy.shape == (n, 2) and np.isfinite(xy).all()


def test_content_without_the_genre_does_not_know_it(catalogue: Catalogue, catalogue_folder: Any) -> None:
    warm, vectors = catalogue.rows("warm"), np.eye(catalogue.n_songs, 4, dtype=np.float32)
    index = SongIndex({}, build_index(vectors[warm]), warm, vectors)
    config = load(EvaluateConfig, [f"data={catalogue_folder}", "index=i", "out=o"])
    spaces = evaluate.songs_in_space(config, catalogue, {"FirstPlay": index})
    assert list(spaces) == ["content, no genre", "content, genre included", "FirstPlay"]
    fields = read_fields(catalogue, None, [], min_count=1)
    assert set(fields.codes) == {"genres", "language", "tags"}
    widths = [spaces[name].shape[1] for name in spaces]
    assert widths[1] - widths[0] == baselines.SKETCH, "one field fewer"
    turned = catalogue.songs.with_columns(pl.col("genres").reverse())
    other = Catalogue(catalogue.folder, catalogue.manifest)
    other.songs = turned
    again = evaluate.songs_in_space(config, other, {"FirstPlay": index})
    assert (again["content, no genre"] == spaces["content, no genre"]).all()
    assert (again["content, genre included"] != spaces["content, genre included"]).any()
