"""Our song encoder in all its variants: trained by `train.py`, scored as `pipeline.audience` would.

Shapes: U users, S songs, W warm songs, C cold songs of a part, D vector size, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.quality.item_cold.closed_form import content_knn
from benchmarks.quality.item_cold.folds import Fold
from benchmarks.quality.item_cold.measure import BUCKETS, OVERLAPS, USERS, Scores
from configs.targeting import TargetingConfig
from data.arrays import FloatArray, IntArray
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from inference.vectors import encode_songs
from retrieval import audience as targeting
from retrieval.clusters import user_vectors
from retrieval.index import build_index, search, unit_rows
from retrieval.listening import Listening
from retrieval.metrics import overlap

BIAS_WEIGHTS = (0.0, 0.25, 0.5, 1.0)  # weight of the item bias where users look for songs
NEIGHBOURS = 20
NEAREST = (200, 100, 50, 20, 10, 5)  # both ways: K nearest known songs, by plain cosine
LISTENERS_OF, ACTIVITY = (50, 100, 200), (0.25, 0.5)  # songs → users: K nearest known songs, power of activity
CB2CF = "objective.bcl_weight=0"
ARTICLE = (
    "objective.listening_weight=0 objective.pair_weight=1 model.residual=false objective.bcl_weight=0.1 batch_size=512"
)
ANCHORED = "objective.views=anchored"
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
    "article, CB2CF, no posterior check": f"{ARTICLE} {CB2CF} pairs.posterior=none",
    "article, random groups": f"{ARTICLE} objective.grouping=random",
    "article, no groups": f"{ARTICLE} objective.grouping=none",
    "article, drawn by popularity": f"{ARTICLE} objective.bcl_sampling=popularity",
    "article, no posterior check": f"{ARTICLE} pairs.posterior=none",
    "article, softmax": f"{ARTICLE} objective.pair_loss=softmax",
    "article, anchored": f"{ARTICLE} {ANCHORED}",
    "article, anchored, random groups": f"{ARTICLE} {ANCHORED} objective.grouping=random",
    "anchored": ANCHORED,
}
PARTS = (  # the article's loss, with and without each part
    "article, anchored",
    "article, CB2CF",
    "article",
    "article, anchored, random groups",
    "article, CB2CF, no posterior check",
)
SETTINGS = {  # method → settings, of which the validation songs of the first seed choose one for all seeds
    "article, tuned": [
        VARIANTS["article"],
        VARIANTS["article, anchored"],
        *(f"{VARIANTS['article, anchored']} objective.bcl_weight={weight}" for weight in (0.03, 0.3)),
    ],
    "article, tuned with dropout": [
        VARIANTS["article, anchored"],
        f"{VARIANTS['article, anchored']} objective.bcl_weight=0.3",
        *(f"{VARIANTS['article, anchored']} model.dropout={rate}" for rate in (0.5, 0.7)),
    ],
    "article, CB2CF, tuned": [
        VARIANTS["article, CB2CF"],  # dropout as the set's options have it
        *(f"{VARIANTS['article, CB2CF']} model.dropout={rate}" for rate in (0.1, 0.5, 0.7)),
    ],
}
UNTUNED = ("firstplay, untuned", "firstplay, search")  # the defaults of train.py, none of our options; and a search
HIDDEN = ("text", "audio")  # of which new songs may have nothing, in the feature set that has both
WITHOUT = {
    f"{of}, new songs without {lacking}": (of, lacking) for of in ("firstplay", "field dropout") for lacking in HIDDEN
}
AUDIENCES = ("similar songs' listeners", "CAT", "union", "union with taste")  # of firstplay's vectors, songs → users
TASTE = "taste"

Ways = dict[str, dict[str, Scores]]  # way of scoring → part → scores
Similar = tuple[FloatArray, IntArray]  # inner products and positions (C, K) of the nearest known songs, best first


@dataclass
class Outputs:
    """Vectors (S, D) and item biases (S,) of all songs by a trained encoder, and the scale that puts both on a par."""

    vectors: FloatArray
    item_bias: FloatArray
    scale: float


def run_name(setting: str) -> str:
    """Name of a setting's run: that of the variant that it is, or of its place in the first grid that has it."""
    variants = (variant for variant, of in VARIANTS.items() if of == setting)
    grids = (f"{method} {given.index(setting)}" for method, given in SETTINGS.items() if setting in given)
    return next(variants, None) or next(grids)


def outputs(fold: Fold, run: Path, hidden: list[str] | None = None) -> Outputs:
    """Outputs for all songs; new songs lack the `hidden` fields, known ones have theirs."""
    opened, found = encode_songs(run, str(fold.folder), fold.features)
    vectors, item_bias = found["vector"], found["item_bias"]
    if hidden:
        new = np.concatenate([held.songs for held in fold.parts.values()])
        without = encode_songs(run, str(fold.folder), fold.features, hidden)[1]
        vectors[new], item_bias[new] = without["vector"][new], without["item_bias"][new]
    return Outputs(vectors, item_bias, float(opened.weights["logit_scale"].clamp(max=4.6).exp()))


def ways(fold: Fold, found: Outputs) -> Ways:
    """All ways from an encoder's outputs to scores."""
    by_part = {}
    for part, held in fold.parts.items():
        taste = score(fold, found, held.songs)
        similar = similar_songs(fold, found.vectors, held.songs)
        to_users = listeners(fold, similar) | audiences(fold, found.vectors, held.songs)
        by_part[part] = {f"taste, item bias={weight}": one for weight, one in taste.items()}
        by_part[part] |= nearest(fold, found.vectors, held.songs)
        by_part[part] |= {way: Scores(taste[0.0].songs, score_UC) for way, score_UC in to_users.items()}
    return {way: {part: of_part[way] for part, of_part in by_part.items()} for way in by_part["cold_val"]}


def score(fold: Fold, found: Outputs, songs: IntArray) -> dict[float, Scores]:
    """Scores of new songs, one for each weight of the item bias.

    A user is the mean direction of their songs, as in training: Σ over all known songs they listened to, not only over
    the nearest, which makes I2I2U one inner product.
    """
    users_UC = tastes(fold, found.vectors) @ unit_rows(found.vectors[songs]).T
    return {
        weight: Scores(found.scale * users_UC + weight * found.item_bias[songs], users_UC) for weight in BIAS_WEIGHTS
    }


def tastes(fold: Fold, vectors: FloatArray) -> FloatArray:
    """Mean direction of each user's songs, (U, D)."""
    return user_vectors(fold.strength_UW, vectors[fold.known], np.ones(len(fold.known)))


def similar_songs(fold: Fold, vectors: FloatArray, songs: IntArray) -> Similar:
    """One search for the widest K that is asked for."""
    return search(build_index(vectors[fold.known]), vectors[songs], min(max(LISTENERS_OF), len(fold.known)))


def neighbour_popularity(fold: Fold, similar: Similar) -> dict[str, float]:
    """How popular the nearest known songs of new ones are.

    The mean rank, 0 the least and 1 the most played, and which share of the neighbours comes from each third.
    """
    listeners_W = np.bincount(fold.plays_UW.indices, minlength=len(fold.known))
    rank_W = np.argsort(np.argsort(listeners_W, kind="stable")) / max(1, len(fold.known) - 1)
    near = similar[1][:, :NEIGHBOURS]
    third = np.minimum(rank_W[near] * len(BUCKETS), len(BUCKETS) - 1).astype(np.int64)
    shares = np.bincount(third.ravel(), minlength=len(BUCKETS)) / third.size
    found = {f"neighbours_{bucket}": float(share) for bucket, share in zip(BUCKETS, shares, strict=True)}
    return {"neighbour_popularity": float(rank_W[near].mean())} | found


def effective_rank(vectors_SD: FloatArray) -> float:
    """exp of the entropy of the principal components' shares of the variance (Roy and Vetterli, 2007)."""
    share = np.square(np.linalg.svd(vectors_SD - vectors_SD.mean(axis=0), compute_uv=False))
    share = share[share > 0] / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def nearest(fold: Fold, vectors: FloatArray, songs: IntArray) -> dict[str, Scores]:
    """Scores by how much a user listened to the K nearest known songs of each new one.

    Taste asks whether a song is like all that somebody listens to; this, whether it is like some of it.
    """
    unit_SD, kept = unit_rows(vectors), dict[str, Any]()
    found = {}
    for k in NEAREST:
        score_UC = content_knn(fold.strength_UW, unit_SD[fold.known], unit_SD[songs], k, kept=kept)
        found[f"{k} nearest"] = Scores(score_UC, score_UC)
    return found


def listeners(fold: Fold, similar: Similar) -> dict[str, FloatArray]:
    """Songs → users as the article does it, through the K nearest known songs, each (U, C).

    The settings are K and the power of a user's activity; the best of them, of `audiences`, or the taste of `score` is
    chosen on validation. A user who heard none of the K has −inf.
    """
    found: dict[str, FloatArray] = {}
    for neighbours in LISTENERS_OF:
        score_UC = (fold.strength_UW @ similar_weights(fold, similar, neighbours).T).toarray()
        for power in ACTIVITY:
            scaled = score_UC * targeting.activity_scale(fold.plays_UW, power)[:, None]
            name = f"listeners of {neighbours}, activity_power={power}"
            found[name] = np.where(score_UC > 0, scaled, -np.inf).astype(np.float32)
    return found


def similar_weights(fold: Fold, similar: Similar, neighbours: int) -> sparse.csr_matrix:
    """Weight of the nearest known songs of each new one, (C, W), as `pipeline.audience` has it by default."""
    scores_CK, near_CK = (one[:, :neighbours] for one in similar)
    weights_CK = targeting.similarity_weights(scores_CK, near_CK)
    weights_CK *= targeting.popularity_scale(fold.plays_UW, 0.5)[near_CK]
    return targeting.song_rows(near_CK, weights_CK, len(fold.known))


def audiences(fold: Fold, vectors: FloatArray, songs: IntArray, neighbours: int = 100) -> dict[str, FloatArray]:
    """Four more ways from the same vectors to users, by method, each (U, C): −inf for who is not in an audience.

    "similar songs' listeners" goes through the K nearest known songs, as the article does. Lists are of 200: recall@20
    of users → songs is not on a par with full scores.
    """
    lists = audience_lists(fold, vectors, songs, 200, neighbours)
    return {name: dense(lists[name], fold.plays_UW.shape[0]).T for name in AUDIENCES}


def audience_lists(
    fold: Fold, vectors: FloatArray, songs: IntArray, budget: int, neighbours: int = 100
) -> dict[str, targeting.Audience]:
    """Audiences of new songs as `pipeline.audience` finds them, with users' scores over the root of their plays."""
    known_WD = vectors[fold.known]
    index = SongIndex({}, build_index(known_WD), np.arange(len(known_WD)), known_WD)
    options = TargetingConfig(neighbours=neighbours, activity_power=0.5)
    of_fold = targeting_of(index, Listening(fold.strength_UW), options)
    asked = of_fold.songs(vectors[songs], np.full(len(songs), len(known_WD)))  # new: none is a known song
    through, near, taste = (of_fold.audience(asked, mode, budget) for mode in ("i2i2u", "cat", "taste"))
    lists = through, near, *(targeting.union(through, other, budget) for other in (near, taste))
    return dict(zip(AUDIENCES, lists, strict=True)) | {TASTE: taste}


def overlaps(fold: Fold, vectors: FloatArray, songs: IntArray) -> dict[str, float]:
    """Mean share of CAT's first 50 users that each of two other modes names too."""
    lists = audience_lists(fold, vectors, songs, USERS)
    through, near = AUDIENCES[:2]
    shares = (overlap(lists[near].users_CB, lists[other].users_CB) for other in (TASTE, through))
    return dict(zip(OVERLAPS, shares, strict=True))


def dense(found: targeting.Audience, n_users: int) -> FloatArray:
    """Scores of ranked lists as an array, (lists, users): −inf for who is in no list."""
    scores = np.full((len(found.users_CB), n_users), -np.inf, dtype=np.float32)
    row, rank = np.nonzero(found.users_CB >= 0)
    scores[row, found.users_CB[row, rank]] = found.scores_CB[row, rank]
    return scores
