"""The figures of the report beside audience targeting: audio-text retrieval, genre grouping, song map, boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datamodules.arrays import AnyArray, IntArray
from datamodules.catalogue import Catalogue, read_features
from pipeline.vectors import Boundary

MAP_SONGS = 2000  # songs drawn in the map
NEIGHBOURS = 10  # of the genre vote


def first_genre(catalogue: Catalogue) -> AnyArray:
    """The first genre of each song, "" where none."""
    return catalogue.songs["genres"].list.first().fill_null("").to_numpy()


def audio_text(features: str | None, catalogue: Catalogue, split: str) -> list[dict[str, Any]]:
    """Text→audio and audio→text retrieval of the exact song, over all new songs and over the evaluated split.

    The checkpoint was chosen on the validation songs, so the figure that counts is the test split's; the pool of all
    new songs is the harder search. Ties rank last.
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
    """R@1/10 and median rank of the row's own item, beside chance; and R@1 among items of the query's own genre."""
    score = query_QD @ item_QD.T
    own = score.diagonal()[:, None]
    rank = (score >= own).sum(axis=1)
    same = genre_Q[:, None] == genre_Q[None, :]
    rank_in_genre, size_of_genre = ((score >= own) & same).sum(axis=1), same.sum(axis=1)
    n, k = len(score), min(10, len(score))
    return {
        "pool_size": n,
        "recall@1": float((rank <= 1).mean()),
        "recall@10": float((rank <= 10).mean()),
        "chance_recall@10": k / n,
        "median_rank": float(np.median(rank)),
        "recall@1_within_genre": float((rank_in_genre <= 1).mean()),
        "chance_recall@1_within_genre": float((1 / size_of_genre).mean()),
    }


def genre_grouping(spaces: dict[str, AnyArray], catalogue: Catalogue, split: str) -> list[dict[str, Any]]:
    """How well new songs sit among known songs of their genre: majority vote of the nearest known songs (cosine)."""
    genre = first_genre(catalogue)
    warm, new = catalogue.rows("warm"), catalogue.rows(split)
    warm, new = warm[genre[warm] != ""], new[genre[new] != ""]
    if not len(warm) or not len(new):
        return []
    names, code = np.unique(genre, return_inverse=True)
    majority = np.bincount(code[warm], minlength=len(names)).argmax()
    rows = [{"space": "most frequent genre", "knn_genre_accuracy": float((code[new] == majority).mean())}]
    for name, vectors in spaces.items():
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        nearest = np.argsort(-(unit[new] @ unit[warm].T), axis=1)[:, :NEIGHBOURS]
        votes = (code[warm][nearest][:, :, None] == np.arange(len(names))).sum(axis=1)
        rows.append({"space": name, "knn_genre_accuracy": float((votes.argmax(axis=1) == code[new]).mean())})
    return rows


def song_map(vectors: AnyArray, catalogue: Catalogue, seed: int) -> dict[str, Any]:
    """Song vectors in two dimensions (t-SNE of a sample), with genre, title and whether the song is new."""
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(seed)
    chosen: IntArray = np.sort(rng.permutation(catalogue.n_songs)[:MAP_SONGS])
    sample = vectors[chosen] / np.maximum(np.linalg.norm(vectors[chosen], axis=1, keepdims=True), 1e-9)
    if len(chosen) > 10:
        xy = TSNE(perplexity=min(30, len(chosen) // 4), init="pca", random_state=seed, max_iter=500).fit_transform(
            sample
        )
    else:
        xy = sample[:, :2]
    songs = catalogue.songs[chosen]
    return {
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
        "genre": first_genre(catalogue)[chosen].tolist(),
        "title": songs["title"].fill_null("").to_list(),
        "new": (songs["split"] != "warm").to_list(),
    }


def boundary_summary(boundary: Boundary, catalogue: Catalogue) -> dict[str, Any]:
    """How open users are to the new songs, all in all and by how popular the songs they listen to are."""
    open_share_U = (boundary.item_CD @ boundary.user_UD.T > boundary.boundary_U).mean(axis=0)
    taste = (
        catalogue.plays.join(
            catalogue.songs.select("popularity").with_row_index("song").cast({"song": pl.Int32}), on="song"
        )
        .group_by("user")
        .agg(pl.col("popularity").mean())
        .sort("popularity", "user")
    )
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


def boundary_histogram(boundary: Boundary, bins: int = 60) -> dict[str, Any]:
    """Histograms of the margin ⟨u,i⟩ − ⟨u,b⟩ over (new song, user) pairs, and of the users' share of songs above it."""
    margin = boundary.item_CD @ boundary.user_UD.T - boundary.boundary_U
    low, high = np.quantile(margin, [0.001, 0.999])
    count, edge = np.histogram(margin, bins=bins, range=(float(low), float(high)))
    share, share_edge = np.histogram((margin > 0).mean(axis=0), bins=20, range=(0, 1))
    return {
        "margin_count": count.tolist(),
        "margin_edge": edge.tolist(),
        "open_count": share.tolist(),
        "open_edge": share_edge.tolist(),
    }
