"""Boosted trees (LightGBM) on the features of candidates: grouped by song, graded by what listeners did.

Shapes: P (song, user) pairs, G songs, F features, B budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from configs.ranking import GRADES, TreesConfig
from data.arrays import AnyArray, FloatArray, IntArray
from inference.ranking import import_lightgbm
from retrieval.audience import ranked
from retrieval.ranking import LABELS, Examples, grade_shares, grades


@dataclass
class Fitted:
    """A model as its file holds it, its features, and scores of pairs by models that did not see their song, (P,).

    `rounds` are trees, or epochs; `about` is what else is to be told of the model.
    """

    model: bytes
    names: tuple[str, ...]
    rounds: int
    apart_P: FloatArray
    about: dict[str, Any]


def fit_trees(examples: Examples, options: TreesConfig, seed: int, worth: Sequence[float] = GRADES) -> Fitted:
    """Fit trees to labelled candidates of some `worth` by grade; how many trees comes from songs left out in turn.

    Raises:
        UserError: LightGBM is not installed, or the trees split nowhere: all users would be worth the same.
    """
    lightgbm = import_lightgbm()
    names = informative(examples)
    grade_P = grades(examples)
    target_P = grade_P if options.objective == "lambdarank" else grade_shares(examples, worth)
    part_G, parts = left_out(examples, options.parts, seed)
    part_P, apart_P, counts = part_G[examples.group_P], np.zeros(len(examples), dtype=np.float32), []
    for part in parts:
        learned, left = (dataset(examples, names, target_P, at) for at in (part_P != part, part_P == part))
        stop = lightgbm.early_stopping(options.patience, verbose=False)
        booster = lightgbm.train(
            parameters(options, worth, seed), learned, options.rounds, valid_sets=[left], callbacks=[stop]
        )
        counts.append(booster.best_iteration)
        apart_P[part_P == part] = booster.predict(
            examples.columns(names)[part_P == part], num_iteration=booster.best_iteration
        )
    rounds = max(1, int(np.median(counts))) if counts else 1
    whole = dataset(examples, names, target_P, np.ones(len(examples), dtype=bool))
    booster = lightgbm.train(parameters(options, worth, seed), whole, rounds)
    if len(np.unique(booster.predict(examples.columns(names)))) < 2:
        raise UserError(
            f"trees.min_leaf={options.min_leaf}: by {len(examples)} candidates, of whom {np.count_nonzero(grade_P)} "
            "listened, no feature tells who listens: give more songs (folds=), a larger depth, or a smaller min_leaf"
        )
    about = {"trees": rounds, "objective": options.objective}
    return Fitted(booster.model_to_string().encode(), names, rounds, apart_P, about)


def left_out(examples: Examples, parts: int, seed: int) -> tuple[IntArray, list[int]]:
    """Cut songs into parts at random, (G,), and name those parts that have listeners, as the others have."""
    part_G = np.random.default_rng(seed).permutation(len(examples.sizes_G)) % parts
    part_P, heard_P = part_G[examples.group_P], grades(examples) > 0
    return part_G, [one for one in range(parts) if heard_P[part_P == one].any() and heard_P[part_P != one].any()]


def informative(examples: Examples) -> tuple[str, ...]:
    """Features that are not the same everywhere."""
    values = examples.feature_PF
    same = (values == values[:1]) | (np.isnan(values) & np.isnan(values[:1]))
    return tuple(name for name, one in zip(examples.names, same.all(axis=0), strict=True) if not one)


def dataset(examples: Examples, names: tuple[str, ...], target_P: AnyArray, at: AnyArray) -> Any:
    """Some examples, whole songs, as LightGBM takes them: without names, of which it refuses some characters."""
    lightgbm = import_lightgbm()
    kept = examples.take(at)
    codes = [place for place, name in enumerate(names) if name in kept.codes]
    return lightgbm.Dataset(
        kept.columns(names), target_P[at], group=kept.sizes_G, categorical_feature=codes, free_raw_data=True
    )


def parameters(options: TreesConfig, worth: Sequence[float], seed: int) -> dict[str, Any]:
    """LightGBM's options; songs left out are judged by the loss, or by NDCG@50 of LambdaMART."""
    lambdarank = {
        "metric": "ndcg",
        "eval_at": [50],
        "label_gain": [0.0, *worth],
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
