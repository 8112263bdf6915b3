"""The boundary towers on new items, and their union with our song encoder.

Shapes: U users, C cold songs, L lists, N who is ranked in them.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.quality.item_cold.encoders import Ways, dense
from benchmarks.quality.item_cold.folds import Fold
from benchmarks.quality.item_cold.measure import Scores
from data.arrays import FloatArray
from inference.vectors import boundary_vectors
from retrieval import audience as targeting
from retrieval.boundary import margins

BOUNDARY, UNION = "boundary", "firstplay + boundary"


def ways(fold: Fold, run: Path) -> Ways:
    """Songs for users by score; users for songs by score, or by margin over their own boundary."""
    found: Ways = {"score": {}, "margin": {}}
    for part, held in fold.parts.items():
        towers = boundary_vectors(run, held.songs, str(fold.folder), fold.features)
        score_UC = towers.user_UD @ towers.item_CD.T
        found["score"][part] = Scores(score_UC, score_UC)
        margin_CU = margins(towers.item_CD, towers.user_UD, towers.boundary_U)
        found["margin"][part] = Scores(score_UC, margin_CU.T)
    return found


def picked(ways: Ways, chosen: dict[str, str]) -> Scores:
    """Test scores of the ways that `measure.tuned` chose, one for each direction."""
    songs, users = chosen["songs"], chosen["users"].removesuffix(" power=0.0")
    return Scores(ways[songs]["cold_test"].songs, ways[users]["cold_test"].users)


def union(one: Scores, other: Scores) -> Scores:
    """Two methods' scores as one, by reciprocal rank fusion over all songs of a user and all users of a song."""
    return Scores(fused(one.songs, other.songs), fused(one.users.T, other.users.T).T)


def fused(one_LN: FloatArray, other_LN: FloatArray) -> FloatArray:
    """Σ 1 / (60 + rank), the best of a list having rank 1; who has −inf in a list is not in it."""
    n = one_LN.shape[1]
    return dense(targeting.union(targeting.top_users(one_LN, n), targeting.top_users(other_LN, n), n), n)
