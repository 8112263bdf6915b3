"""Our song encoder in all its variants: trained by `train.py`, scored as `pipeline.audience` would.

Shapes: U users, S songs, W warm songs, C cold songs, D vector size, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.quality.item_cold.closed_form import content_knn
from benchmarks.quality.item_cold.folds import Fold
from benchmarks.quality.item_cold.measure import BUCKETS, Scores
from configs.load import load
from configs.training import I2IConfig
from data.arrays import FloatArray, IntArray
from inference.vectors import encode_songs
from retrieval import audience as targeting
from retrieval.clusters import centroid_scores, user_vectors
from retrieval.index import build_index, search, unit_rows
from retrieval.listening import Listening
from training.tasks import train_i2i

BIAS_WEIGHTS = (0.0, 0.25, 0.5, 1.0)  # weight of the item bias where users look for songs
NEIGHBOURS = 20
NEAREST = (200, 100, 50, 20, 10, 5)  # both ways: K nearest known songs, by plain cosine
LISTENERS_OF, ACTIVITY = (50, 100, 200), (0.25, 0.5)  # songs → users: K nearest known songs, power of activity
CB2CF = "objective.bcl_weight=0"
ARTICLE = (
    "objective.listening_weight=0 objective.pair_weight=1 model.residual=false objective.bcl_weight=0.1 batch_size=512"
)
VARIANTS = {  # method → what differs from `firstplay`
    "firstplay": "",
    "CB2CF": CB2CF,
    "random groups": "objective.grouping=random",
    "no groups": "objective.grouping=none",
    "mask only": "objective.augment=mask",
    "noise only": "objective.augment=noise",
    "masks and noise": "objective.augment=both",
    "embedding-level masks": "objective.augment=embedding",
    "drawn by popularity": "objective.bcl_sampling=popularity",
    "no head g": "objective.contrastive_head=false",
    "λ=0.5": "objective.bcl_weight=0.5",
    "τ=0.5": "objective.temperature=0.5",
    "no pairs": "objective.pair_weight=0",
    "softmax on pairs": "objective.pair_loss=softmax",
    "in-batch negatives": "objective.pair_loss=softmax objective.in_batch=true",
    "no residual embeddings": "model.residual=false",
    "field dropout": "model.field_dropout=0.3",
    "no item bias": "objective.item_bias=false",
    "no posterior check": "pairs.posterior=none",
    "cosine teacher": "pairs.similarity=cosine",
    "BM25 teacher": "pairs.similarity=bm25",
    "IUF teacher": "pairs.similarity=iuf",
    "shrunk teacher": "pairs.shrinkage=10",
    "article": ARTICLE,
    "article, CB2CF": f"{ARTICLE} {CB2CF}",
    "article, random groups": f"{ARTICLE} objective.grouping=random",
    "article, no groups": f"{ARTICLE} objective.grouping=none",
    "article, drawn by popularity": f"{ARTICLE} objective.bcl_sampling=popularity",
    "article, no posterior check": f"{ARTICLE} pairs.posterior=none",
    "article, softmax": f"{ARTICLE} objective.pair_loss=softmax",
}
HIDDEN = ("text", "audio")  # of which new songs may have nothing, in the feature set that has both
WITHOUT = {
    f"{of}, new songs without {lacking}": (of, lacking) for of in ("firstplay", "field dropout") for lacking in HIDDEN
}
AUDIENCES = ("similar songs' listeners", "CAT", "union")  # of firstplay's vectors, songs → users


def train(fold: Fold, fields: list[str], out: Path, seed: int, options: list[str]) -> Path:
    """Train one encoder, unless that is done; the run folder."""
    train_i2i(load(I2IConfig, [*options_of(fold, fields, out, seed), *options]))
    return out


def options_of(fold: Fold, fields: list[str], out: Path, seed: int) -> list[str]:
    """What any training on a fold is told."""
    given = [f"data={fold.folder}", f"out={out}", f"fields.use=[{','.join(fields)}]", f"seed={seed}"]
    given += [f"features={fold.features}"] if fold.features else []
    return [*given, "logger.wandb=off", "trainer.progress=false"]


@dataclass
class Outputs:
    """Vectors (S, D) and item biases (S,) of all songs by a trained encoder, and the scale that puts both on a par."""

    vectors: FloatArray
    item_bias: FloatArray
    scale: float


def outputs(fold: Fold, run: Path, hidden: list[str] | None = None) -> Outputs:
    """Outputs for all songs; new songs lack the `hidden` fields, known ones have theirs."""
    opened, found = encode_songs(run, str(fold.folder), fold.features)
    vectors, item_bias = found["vector"], found["item_bias"]
    if hidden:
        new = np.concatenate([held.songs for held in fold.parts.values()])
        without = encode_songs(run, str(fold.folder), fold.features, hidden)[1]
        vectors[new], item_bias[new] = without["vector"][new], without["item_bias"][new]
    return Outputs(vectors, item_bias, float(opened.weights["logit_scale"].clamp(max=4.6).exp()))


def score(fold: Fold, found: Outputs) -> dict[str, dict[float, Scores]]:
    """Scores of both cold parts, one for each weight of the item bias.

    A user is the mean direction of their songs, as in training: Σ over all known songs they listened to, not only over
    the nearest, which makes I2I2U one inner product.
    """
    vectors, item_bias = found.vectors, found.item_bias
    taste_UD = user_vectors(fold.strength_UW, vectors[fold.known], np.ones(len(fold.known)))
    result = {}
    for part, held in fold.parts.items():
        new_CD = vectors[held.songs]
        users_UC = taste_UD @ unit_rows(new_CD).T
        result[part] = {
            weight: Scores(found.scale * users_UC + weight * item_bias[held.songs], users_UC) for weight in BIAS_WEIGHTS
        }
    return result


@dataclass
class Similar:
    """The nearest known songs of a part's new ones by inner product: scores and positions (C, K), best first."""

    scores: FloatArray
    near: IntArray


def similar_songs(fold: Fold, vectors: FloatArray) -> dict[str, Similar]:
    """One search for the widest K that is asked for, by part."""
    index = build_index(vectors[fold.known])
    widest = min(max(LISTENERS_OF), len(fold.known))
    return {part: Similar(*search(index, vectors[held.songs], widest)) for part, held in fold.parts.items()}


def neighbour_popularity(fold: Fold, similar: Similar) -> dict[str, float]:
    """How popular the nearest known songs of new ones are.

    The mean rank, 0 the least and 1 the most played, and which share of the neighbours comes from each third.
    """
    listeners_W = np.bincount(fold.plays_UW.indices, minlength=len(fold.known))
    rank_W = np.argsort(np.argsort(listeners_W, kind="stable")) / max(1, len(fold.known) - 1)
    near = similar.near[:, :NEIGHBOURS]
    third = np.minimum(rank_W[near] * len(BUCKETS), len(BUCKETS) - 1).astype(np.int64)
    shares = np.bincount(third.ravel(), minlength=len(BUCKETS)) / third.size
    found = {f"neighbours_{bucket}": float(share) for bucket, share in zip(BUCKETS, shares, strict=True)}
    return {"neighbour_popularity": float(rank_W[near].mean())} | found


def nearest(fold: Fold, vectors: FloatArray) -> dict[str, dict[str, Scores]]:
    """Scores by how much a user listened to the K nearest known songs of each new one, by setting and part.

    Taste asks whether a song is like all that somebody listens to; this, whether it is like some of it.
    """
    unit_SD = unit_rows(vectors)
    found: dict[str, dict[str, Scores]] = {f"{k} nearest": {} for k in NEAREST}
    for part, held in fold.parts.items():
        kept: dict[str, Any] = {}
        for k in NEAREST:
            score_UC = content_knn(fold.strength_UW, unit_SD[fold.known], unit_SD[held.songs], k, kept=kept)
            found[f"{k} nearest"][part] = Scores(score_UC, score_UC)
    return found


def listeners(fold: Fold, similar: dict[str, Similar]) -> dict[str, dict[str, FloatArray]]:
    """Songs → users as the article does it, through the K nearest known songs, by setting and part, each (U, C).

    The settings are K and the power of a user's activity; the best of them, of `audiences`, or the taste of `score` is
    chosen on validation. A user who heard none of the K has −inf.
    """
    found: dict[str, dict[str, FloatArray]] = {}
    for neighbours in LISTENERS_OF:
        for part, found_of in similar.items():
            weights = similar_weights(fold, found_of, neighbours)
            score_UC = (fold.strength_UW @ weights.T).toarray()
            for power in ACTIVITY:
                scaled = score_UC * targeting.activity_scale(fold.plays_UW, power)[:, None]
                name = f"listeners of {neighbours}, activity_power={power}"
                found.setdefault(name, {})[part] = np.where(score_UC > 0, scaled, -np.inf).astype(np.float32)
    return found


def similar_weights(fold: Fold, similar: Similar, neighbours: int) -> sparse.csr_matrix:
    """Weight of the nearest known songs of each new one, (C, W), as `pipeline.audience` has it by default."""
    scores_CK, near_CK = similar.scores[:, :neighbours], similar.near[:, :neighbours]
    weights_CK = targeting.similarity_weights(scores_CK, near_CK)
    weights_CK *= targeting.popularity_scale(fold.plays_UW, 0.5)[near_CK]
    return targeting.song_rows(near_CK, weights_CK, len(fold.known))


def audiences(
    fold: Fold, vectors: FloatArray, similar: dict[str, Similar], neighbours: int = 100
) -> dict[str, dict[str, Scores]]:
    """Three more ways from the same vectors to users, by method and part: a user who is not in an audience has −inf.

    "similar songs' listeners" goes through the K nearest known songs, as the article does; CAT and the union are
    `retrieval.clusters` and `retrieval.audience.union` with users' scores
    over the root of their plays, and lists of 200: recall@20 of users → songs is not on a par with full scores.
    """
    known_WD = vectors[fold.known]
    taste_UD = user_vectors(fold.strength_UW, known_WD, np.ones(len(known_WD)))
    scale_U = targeting.activity_scale(fold.plays_UW, 0.5)
    n_users, listening = fold.plays_UW.shape[0], Listening(fold.strength_UW)
    result: dict[str, dict[str, Scores]] = {name: {} for name in AUDIENCES}
    for part, held in fold.parts.items():
        weights = similar_weights(fold, similar[part], neighbours)
        through = targeting.top_entries(targeting.listener_scores(weights, listening, scale_U), 200)
        draws_CK = np.random.default_rng(0).random((len(held.songs), 8))
        score_CU = centroid_scores(through.users_CB[:, :20], taste_UD, vectors[held.songs], draws_CK, 2.0)
        score_CU[:, ~taste_UD.any(axis=1)] = -np.inf
        near = targeting.top_users(score_CU, 200)
        for name, found in zip(AUDIENCES, (through, near, targeting.union(through, near, 200)), strict=True):
            dense_UC = dense(found, n_users).T
            result[name][part] = Scores(dense_UC, dense_UC)
    return result


def dense(found: targeting.Audience, n_users: int) -> FloatArray:
    """Scores of ranked lists as an array, (lists, users): −inf for who is in no list."""
    scores = np.full((len(found.users_CB), n_users), -np.inf, dtype=np.float32)
    row, rank = np.nonzero(found.users_CB >= 0)
    scores[row, found.users_CB[row, rank]] = found.scores_CB[row, rank]
    return scores
