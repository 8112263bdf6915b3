"""The boundary towers on new items, and their union with our song encoder.

Shapes: U users, C cold songs.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.quality.item_cold.encoders import dense, options_of
from benchmarks.quality.item_cold.folds import Fold
from benchmarks.quality.item_cold.measure import Scores
from configs.load import load
from configs.training import BoundaryConfig
from data.arrays import FloatArray
from inference.vectors import boundary_vectors
from retrieval import audience as targeting
from retrieval.audience import top_users
from retrieval.boundary import margins
from training.tasks import train_boundary

BOUNDARY, UNION = "boundary", "firstplay + boundary"
Ways = dict[str, dict[str, Scores]]  # way of scoring → part → scores


def train(fold: Fold, fields: list[str], out: Path, seed: int, options: list[str]) -> Path:
    """Train the three towers, unless that is done; the run folder."""
    train_boundary(load(BoundaryConfig, [*options_of(fold, fields, out, seed), *options]))
    return out


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


def picked(ways: Ways, chosen: dict[str, str]) -> dict[str, Scores]:
    """The ways that `measure.tuned` chose, one for each direction, as one."""
    songs, users = ways[chosen["songs"]], ways[chosen["users"].removesuffix(" power=0.0")]
    return {part: Scores(songs[part].songs, users[part].users) for part in songs}


def union(one: dict[str, Scores], other: dict[str, Scores]) -> dict[str, Scores]:
    """Two methods' scores as one, by reciprocal rank fusion over all songs of a user and all users of a song."""
    return {
        part: Scores(
            fused(one[part].songs, other[part].songs, axis=1), fused(one[part].users, other[part].users, axis=0)
        )
        for part in one
    }


def fused(one_UC: FloatArray, other_UC: FloatArray, axis: int) -> FloatArray:
    """Σ 1 / (60 + rank), the best having rank 1; who has −inf in a list is not in it."""
    one, other = (score if axis == 1 else score.T for score in (one_UC, other_UC))
    n = one.shape[1]
    found = dense(targeting.union(top_users(one, n), top_users(other, n), n), n)
    return found if axis == 1 else found.T
