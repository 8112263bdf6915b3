"""Boosted trees (LightGBM) on the features of candidates: grouped by song, graded by what listeners did.

Shapes: P (song, user) pairs, G songs, F features, B budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from configs.ranking import TreesConfig
from data.arrays import AnyArray, FloatArray, IntArray
from inference.ranking import import_lightgbm
from retrieval.audience import ranked
from retrieval.ranking import LABELS, Examples


@dataclass
class Fitted:
    """A model as LightGBM's text, its features, the number of trees, and scores of pairs by trees that did not see
    their song, (P,)."""

    model: str
    names: tuple[str, ...]
    rounds: int
    apart_P: FloatArray


def fit_trees(examples: Examples, options: TreesConfig, seed: int) -> Fitted:
    """Fit trees to labelled candidates; how many comes from songs that are left out in turn.

    Raises:
        UserError: LightGBM is not installed, or the trees split nowhere: all users would be worth the same.
    """
    lightgbm = import_lightgbm()
    names = informative(examples)
    grade_P, songs = grades(examples), len(examples.sizes_G)
    target_P = targets(grade_P, options)
    part_G = np.random.default_rng(seed).permutation(songs) % options.parts
    part_P, apart_P, counts = part_G[examples.group_P], np.zeros(len(examples), dtype=np.float32), []
    parts = [part for part in range(options.parts) if grade_P[part_P == part].any() and grade_P[part_P != part].any()]
    for part in parts:
        learned, left = (dataset(examples, names, target_P, at) for at in (part_P != part, part_P == part))
        stop = lightgbm.early_stopping(options.patience, verbose=False)
        booster = lightgbm.train(
            parameters(options, seed), learned, options.rounds, valid_sets=[left], callbacks=[stop]
        )
        counts.append(booster.best_iteration)
        apart_P[part_P == part] = booster.predict(
            examples.columns(names)[part_P == part], num_iteration=booster.best_iteration
        )
    rounds = max(1, int(np.median(counts))) if counts else 1
    whole = dataset(examples, names, target_P, np.ones(len(examples), dtype=bool))
    booster = lightgbm.train(parameters(options, seed), whole, rounds)
    if len(np.unique(booster.predict(examples.columns(names)))) < 2:
        raise UserError(
            f"trees.min_leaf={options.min_leaf}: by {len(examples)} candidates, of whom {np.count_nonzero(grade_P)} "
            "listened, no feature tells who listens: give more songs (folds=), a larger depth, or a smaller min_leaf"
        )
    return Fitted(booster.model_to_string(), names, rounds, apart_P)


def informative(examples: Examples) -> tuple[str, ...]:
    """Features that are not the same everywhere."""
    values = examples.feature_PF
    same = (values == values[:1]) | (np.isnan(values) & np.isnan(values[:1]))
    return tuple(name for name, one in zip(examples.names, same.all(axis=0), strict=True) if not one)


def grades(examples: Examples) -> IntArray:
    """3 for a favourite, 2 for a complete play, 1 for a play, 0 otherwise, (P,)."""
    assert examples.label_PL is not None
    played, completed, favourited = (examples.label_PL[:, LABELS.index(name)] == 1 for name in LABELS[:3])
    disliked = examples.label_PL[:, LABELS.index("disliked")] == 1
    return np.select([disliked, favourited, completed, played], [0, 3, 2, 1], 0)


def targets(grade_P: IntArray, options: TreesConfig) -> AnyArray:
    """What trees learn of a pair: its grade as a number from 0 to 3, or as a share of the highest grade's worth."""
    if options.objective == "lambdarank":
        return grade_P
    return np.array([0.0, *options.grades])[grade_P] / options.grades[-1]


def dataset(examples: Examples, names: tuple[str, ...], target_P: AnyArray, at: AnyArray) -> Any:
    """Some examples, whole songs, as LightGBM takes them: without names, of which it refuses some characters."""
    lightgbm = import_lightgbm()
    kept = examples.take(at)
    codes = [place for place, name in enumerate(names) if name in kept.codes]
    return lightgbm.Dataset(
        kept.columns(names), target_P[at], group=kept.sizes_G, categorical_feature=codes, free_raw_data=True
    )


def parameters(options: TreesConfig, seed: int) -> dict[str, Any]:
    """LightGBM's options; songs left out are judged by the loss, or by NDCG@50 of LambdaMART."""
    lambdarank = {
        "metric": "ndcg",
        "eval_at": [50],
        "label_gain": [0.0, *options.grades],
        "lambdarank_truncation_level": options.truncation,
    }
    return (lambdarank if options.objective == "lambdarank" else {}) | {
        "objective": options.objective,
        "learning_rate": options.lr,
        "num_leaves": options.leaves,
        "min_data_in_leaf": options.min_leaf,
        "feature_fraction": options.columns,
        "lambda_l2": options.l2,
        "num_threads": torch.get_num_threads(),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def reached(examples: Examples, score_P: AnyArray, budget: int) -> dict[str, float]:
    """Listeners found among the first `budget` of each song by a score, and their favourite and completion rates."""
    assert examples.label_PL is not None
    group_P = examples.group_P
    kept = np.flatnonzero(np.isfinite(score_P))
    top = ranked(group_P[kept], kept, score_P[kept], len(examples.sizes_G), budget).users_CB
    label = examples.label_PL[top[top >= 0]]
    played = label[label[:, 0] == 1]
    rates = {
        f"{name}_rate": float(np.nanmean(played[:, LABELS.index(column)]))
        if np.isfinite(played[:, LABELS.index(column)]).any()
        else float("nan")
        for name, column in (("favourite", "favourited"), ("completion", "completed"))
    }
    return {"found": float(len(played)), **rates}
