"""Figures of the report besides audience targeting: audio-text retrieval, genre grouping, song map, boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.arrays import AnyArray, IntArray
from data.catalogue import Catalogue, first_genre, read_features
from inference.vectors import Boundary
from retrieval.audience import slices, songs_at_once
from retrieval.boundary import margins
from retrieval.index import unit_rows
from retrieval.metrics import own_ranks
from retrieval.plane import project

MAP_SONGS = 1000  # sampled songs of each map
MAP_NEIGHBOURS = 5  # neighbours of each song in a map
NEIGHBOURS = 10  # k of the kNN genre vote
CLUSTERED_SONGS = 20_000  # of more songs, a sample is clustered
SAMPLED_PAIRS = 1 << 16  # of more pairs, the histogram's range is from a sample


def audio_text(features: str | None, catalogue: Catalogue, split: str) -> list[dict[str, Any]]:
    """Text→audio and audio→text retrieval of the exact song, over all new songs and over the evaluated split.

    The checkpoint was selected on the validation songs, so the main figure is that of the test split; the pool of all
    new songs is the harder task. Ties rank last.
    """
    if features is None:
        return []
    arrays = read_features(Path(features), catalogue.n_songs)
    if not {"clip_audio", "clip_text"} <= set(arrays):
        return []
    audio, text = np.asarray(arrays["clip_audio"]), np.asarray(arrays["clip_text"])
    both = np.isfinite(audio[:, 0]) & np.isfinite(text[:, 0])
    cold = np.flatnonzero(both & (catalogue.songs["split"] != "warm").to_numpy())
    tested = catalogue.rows(split)
    tested = tested[both[tested]]
    genre = first_genre(catalogue)
    rows = []
    for pool, songs in (("all new songs", cold), (split, tested)):
        if len(songs) > 1:
            for way, query, item in (("text→audio", text, audio), ("audio→text", audio, text)):
                rows.append({"pool": pool, "direction": way, **ranks_summary(query[songs], item[songs], genre[songs])})
    return rows


def ranks_summary(query_QD: AnyArray, item_QD: AnyArray, genre_Q: AnyArray) -> dict[str, Any]:
    """R@1/5/10 and median rank of each query's own item, with chance levels; and R@1 within the query's genre."""
    rank = own_ranks(query_QD, item_QD)
    n, k = len(rank), min(10, len(rank))
    rank_in_genre, size_of_genre = np.empty((2, n), dtype=np.int64)
    for name in np.unique(genre_Q):
        of_genre = np.flatnonzero(genre_Q == name)
        rank_in_genre[of_genre] = own_ranks(query_QD[of_genre], item_QD[of_genre])
        size_of_genre[of_genre] = len(of_genre)
    return {
        "pool_size": n,
        **{f"recall@{cut}": float((rank <= cut).mean()) for cut in (1, 5, 10)},
        "chance_recall@10": k / n,
        "median_rank": float(np.median(rank)),
        "recall@1_within_genre": float((rank_in_genre <= 1).mean()),
        "chance_recall@1_within_genre": float((1 / size_of_genre).mean()),
    }


def genre_grouping(
    spaces: dict[str, AnyArray], catalogue: Catalogue, split: str, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure how song vectors group by genre: kNN accuracy of new songs, and k-means over all songs.

    `knn_genre_accuracy`: share of new songs whose nearest known songs (cosine) vote for their genre. `genre_nmi` and
    `chance_genre_nmi`: see `cluster_agreement`. Songs without a genre are left out.
    """
    genre = first_genre(catalogue)
    tagged, warm, new = np.arange(len(genre)), catalogue.rows("warm"), catalogue.rows(split)
    tagged, warm, new = (rows[genre[rows] != ""] for rows in (tagged, warm, new))
    if not len(warm) or not len(new):
        return []
    names, code = np.unique(genre, return_inverse=True)
    majority = np.bincount(code[warm], minlength=len(names)).argmax()
    rows = [{"space": "most frequent genre", "knn_genre_accuracy": float((code[new] == majority).mean())}]
    for name, vectors in spaces.items():
        unit = unit_rows(vectors)
        nearest = np.argsort(-(unit[new] @ unit[warm].T), axis=1)[:, :NEIGHBOURS]
        votes = (code[warm][nearest][:, :, None] == np.arange(len(names))).sum(axis=1)
        row = {"space": name, "knn_genre_accuracy": float((votes.argmax(axis=1) == code[new]).mean())}
        rows.append(row | cluster_agreement(unit[tagged], code[tagged], seed))
    return rows


def cluster_agreement(vectors_ND: AnyArray, label_N: AnyArray, seed: int, shuffles: int = 20) -> dict[str, float]:
    """Normalised mutual information of labels and as many k-means clusters.

    `genre_nmi` is the mutual information of cluster and label over the mean of their entropies: 1 for equal partitions.
    Small clusters agree by chance: `chance_genre_nmi` is its mean over random permutations of the labels. Empty for a
    single label.
    """
    from sklearn.metrics import normalized_mutual_info_score

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(label_N))[:CLUSTERED_SONGS])
    label_N, n_labels = label_N[chosen], len(np.unique(label_N[chosen]))
    if n_labels < 2:
        return {}
    cluster_N = kmeans(vectors_ND[chosen], n_labels, seed)
    chance = [normalized_mutual_info_score(rng.permutation(label_N), cluster_N) for _ in range(shuffles)]
    return {
        "genre_nmi": float(normalized_mutual_info_score(label_N, cluster_N)),
        "chance_genre_nmi": float(np.mean(chance)),
    }


def kmeans(vectors_ND: AnyArray, k: int, seed: int, starts: int = 5) -> IntArray:
    """Cluster of each row by FAISS k-means, the best of `starts` random starts by its sum of squares."""
    import faiss

    vectors_ND = np.ascontiguousarray(vectors_ND, dtype=np.float32)
    clustering = faiss.Kmeans(
        vectors_ND.shape[1], k, niter=50, nredo=starts, seed=seed,
        min_points_per_centroid=1, max_points_per_centroid=len(vectors_ND),
    )  # fmt: skip
    clustering.train(vectors_ND)
    return np.asarray(clustering.index.search(vectors_ND, 1)[1][:, 0], dtype=np.int64)


def song_map(spaces: dict[str, AnyArray], catalogue: Catalogue, seed: int) -> dict[str, Any]:
    """Project a sample of songs to two dimensions in each vector space; with their genre, title and whether new.

    Known songs come first, in the order in which the report draws them. Each map also has every song's nearest
    neighbours in the sample by cosine, nearest first.
    """
    new = (catalogue.songs["split"] != "warm").to_numpy()
    chosen: IntArray = np.random.default_rng(seed).permutation(catalogue.n_songs)[:MAP_SONGS]
    chosen = chosen[np.lexsort((chosen, new[chosen]))]
    unit = {name: unit_rows(vectors[chosen]) for name, vectors in spaces.items()}
    maps = {name: (project(vectors, seed).T.tolist(), nearest(vectors)) for name, vectors in unit.items()}
    return {
        "genre": first_genre(catalogue)[chosen].tolist(),
        "title": catalogue.songs["title"][chosen].fill_null("").to_list(),
        "new": new[chosen].tolist(),
        "maps": {name: {"x": x, "y": y, "near": near} for name, ((x, y), near) in maps.items()},
    }


def nearest(unit_ND: AnyArray, k: int = MAP_NEIGHBOURS) -> list[list[int]]:
    """Up to k nearest other rows of each row by inner product, nearest first; only those with a positive one."""
    score_NN = unit_ND @ unit_ND.T
    np.fill_diagonal(score_NN, 0)
    near_NK = np.argsort(-score_NN, axis=1, kind="stable")[:, :k]
    alike_NK = np.take_along_axis(score_NN, near_NK, axis=1) > 0
    return [near[alike].tolist() for near, alike in zip(near_NK, alike_NK, strict=True)]


def boundary_summary(open_share_U: AnyArray, catalogue: Catalogue) -> dict[str, Any]:
    """Summarise the users' `open_shares` overall and by the popularity of the songs they listen to."""
    popularity = catalogue.songs["popularity"].gather(catalogue.plays["song"])
    taste = catalogue.plays.select("user", popularity).group_by("user").agg(pl.col("popularity").mean())
    taste = taste.sort("popularity", "user")
    thirds = np.array_split(taste["user"].to_numpy(), 3)
    return {
        "share_of_pairs_above_the_boundary": float(open_share_U.mean()),
        "share_of_users_with_no_new_song": float((open_share_U == 0).mean()),
        "share_of_new_songs_by_taste": {
            name: float(open_share_U[users].mean())
            for name, users in zip(("rare songs", "middle", "popular songs"), thirds, strict=True)
            if len(users)
        },
    }


def boundary_histogram(
    boundary: Boundary, open_share_U: AnyArray, memory_mb: float = 1024.0, bins: int = 60, seed: int = 0
) -> dict[str, Any]:
    """Histograms of the margin ⟨u,i⟩ − ⟨u,b⟩ over (new song, user) pairs, and of the users' `open_shares`.

    The first reaches from quantile .001 of the margins to .999; of more than SAMPLED_PAIRS pairs these are a sample's.
    """
    n_users = len(boundary.user_UD)
    n = len(boundary.item_CD) * n_users
    pair_P = np.arange(n) if n <= SAMPLED_PAIRS else np.random.default_rng(seed).integers(n, size=SAMPLED_PAIRS)
    song_P, user_P = np.divmod(pair_P, n_users)
    score_P = (boundary.item_CD[song_P] * boundary.user_UD[user_P]).sum(axis=1)
    low, high = np.quantile(score_P - boundary.boundary_U[user_P], [0.001, 0.999])
    ends = float(low), float(high)
    count = np.asarray(sum(np.histogram(margin, bins, ends)[0] for margin in margin_parts(boundary, memory_mb)))
    share, share_edge = np.histogram(open_share_U, bins=20, range=(0, 1))
    return {
        "margin_count": count.tolist(),
        "margin_edge": np.linspace(*ends, bins + 1).tolist(),
        "open_count": share.tolist(),
        "open_edge": share_edge.tolist(),
    }


def open_shares(boundary: Boundary, memory_mb: float = 1024.0, threshold: float = 0.0) -> AnyArray:
    """Share of new songs whose margin for each user exceeds a threshold: (U,)."""
    above_U = sum((margin > threshold).sum(axis=0) for margin in margin_parts(boundary, memory_mb))
    return np.asarray(above_U / len(boundary.item_CD))


def margin_parts(boundary: Boundary, memory_mb: float) -> Iterator[AnyArray]:
    """Yield the margins of all pairs, (c, U) for a chunk of c songs at a time."""
    for part in slices(len(boundary.item_CD), songs_at_once(memory_mb, len(boundary.user_UD))):
        yield margins(boundary.item_CD[part], boundary.user_UD, boundary.boundary_U)
