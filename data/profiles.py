"""User profiles: the profile columns of users.parquet as category codes and numbers.

Text and Boolean columns are categories, numeric columns are numbers; other types (lists, dates) are not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from data.arrays import BoolArray, FloatArray, IntArray
from data.contract.columns import TEXT_TYPES
from data.fields import Vocabulary, column_codes, frequent

MIN_USERS = 2  # a category value that fewer training users have counts as unknown


@dataclass
class Profile:
    """Profiles of all users of a catalogue, gathered by row number.

    `codes` (users, categories) as in `data.fields`: 0 none, 1 unknown, 2… vocabulary. `numbers` (users,
    numbers): raw values, NaN where missing; the model standardises them, so that its file holds all it needs.
    `vocabulary` names all columns in use, a number column with an empty list.
    """

    codes: IntArray
    numbers: FloatArray
    vocabulary: Vocabulary

    @property
    def vocab_sizes(self) -> dict[str, int]:
        """Number of codes of each category column, "none" and "unknown" included, in the order of `codes`."""
        return {name: len(values) + 2 for name, values in self.vocabulary.items() if values}

    @property
    def n_numbers(self) -> int:
        """Number columns."""
        return self.numbers.shape[1]

    def gather(self, rows: IntArray, hidden: BoolArray | None = None) -> dict[str, Tensor]:
        """Profiles of some users: `codes` (rows, categories) and `numbers` (rows, numbers).

        Those that the mask `hidden` (rows,) names are empty, as that of a user of whom nothing is known.
        """
        codes, numbers = self.codes[rows], self.numbers[rows]
        if hidden is not None:
            codes[hidden], numbers[hidden] = 0, np.nan
        return {"codes": torch.from_numpy(codes), "numbers": torch.from_numpy(numbers)}

    def number_statistics(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Centre and spread of each number over the given users who have it; 0 and 1 where that says nothing."""
        values = np.ma.masked_invalid(self.numbers[rows].astype(np.float64))
        mean = np.ma.filled(values.mean(axis=0), 0.0)
        scale = np.ma.filled(values.std(axis=0), 0.0)
        return torch.from_numpy(mean).float(), torch.from_numpy(np.where(scale > 0, scale, 1.0)).float()


def read_profile(users: pl.DataFrame, rows: IntArray, vocabulary: Vocabulary | None = None) -> Profile:
    """Turn the users table into codes and numbers, with the `vocabulary` of an earlier run or that of the users `rows`.

    These are the users with training plays: no other user's profile shapes the vocabulary.
    """
    if vocabulary is None:
        vocabulary = build_vocabulary(users[rows])
    users = users.with_columns(pl.lit(None, pl.String).alias(name) for name in vocabulary if name not in users.columns)
    codes = [column_codes(users, name, values)[:, 0] for name, values in vocabulary.items() if values]
    numbers = [_numbers(users[name]) for name, values in vocabulary.items() if not values]
    empty = np.zeros((users.height, 0))
    return Profile(
        np.stack(codes, axis=1) if codes else empty.astype(np.int64),
        np.stack(numbers, axis=1) if numbers else empty.astype(np.float32),
        vocabulary,
    )


def build_vocabulary(users: pl.DataFrame) -> Vocabulary:
    """Columns that can be used: a category's values, most frequent first; an empty list for a number.

    Columns without information are left out: no value at all, or categories that no two users share.
    """
    vocabulary: Vocabulary = {}
    for name, dtype in users.drop("user_id").schema.items():
        if dtype in (*TEXT_TYPES, pl.Boolean):
            if shared := frequent(users[name].cast(pl.String), MIN_USERS):
                vocabulary[name] = shared
        elif dtype.is_numeric() and np.isfinite(_numbers(users[name])).any():
            vocabulary[name] = []
    return vocabulary


def _numbers(column: pl.Series) -> FloatArray:
    values = column.cast(pl.Float32, strict=False).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(values), values, np.nan).astype(np.float32)
