"""As plays arrive: who will listen next to a song that 0, 1, 2, 5, 10 or 20 users have played?

    python -m benchmarks.quality.warm_up --config configs/item_cold/lfm2k.yaml \
        data=$FIRSTPLAY_DATA/lfm2k out=runs/warm_up.json

Options, splits and `firstplay` are those of benchmarks.quality.item_cold (with its work= nothing is trained anew).
New songs with 25 held-out listeners or more; the first 20, in a seeded order, are revealed step by step, the others
are to be found among all users but the first 20: recall@50, so that a column differs from the next by what is known
alone. Rows: content alone; behaviour alone (`retrieval.warm_up`); content up to so many plays and behaviour from
there on; item kNN of co-listening alone; and both fused. The count and the prior are chosen on the validation songs.

Shapes: U users, C new songs, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.measure import write_json
from benchmarks.quality.item_cold import encoders
from benchmarks.quality.item_cold.__main__ import ItemColdConfig, tasks, trained
from benchmarks.quality.item_cold.folds import Fold, Held
from benchmarks.table import markdown
from configs.errors import UserError
from configs.load import command
from configs.targeting import TargetingConfig
from data.arrays import FloatArray, IntArray
from retrieval.audience import top_users
from retrieval.index import unit_rows
from retrieval.metrics import recall_at_k
from retrieval.warm_up import warm_vectors

SHOWN, MINIMUM, K = (0, 1, 2, 5, 10, 20), 5, 50
PRIORS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
DEFAULT = TargetingConfig().warm_up
COUNTS = (1, 2, 5, 10, 20)
NEVER, AT_ONCE = 1e12, 1e-12  # priors

Scorer = Callable[[sparse.csr_matrix], FloatArray]  # first plays (C, U) → scores (C, U)


@dataclass
class Songs:
    """The songs of a part that enough users heard: their vectors, and in which order they were heard."""

    content_CD: FloatArray
    song: IntArray
    user: IntArray
    place: IntArray  # 0 for a song's first listener


def main(config: ItemColdConfig) -> None:
    """Run the command (see the module's docstring)."""
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for task in tasks(config):
        run, fold = trained(task, "firstplay")
        found.setdefault(task.name, []).append(measure(fold, encoders.outputs(fold, run).vectors, task.seed))
    write_json(config.out, found)
    for name, runs in found.items():
        songs = [run[0]["songs"] for run in runs]
        print(f"\n{Path(config.data).stem}, {name}, {len(runs)} seeds, {min(songs)} to {max(songs)} songs\n")
        print(markdown("recall@50 of the next listeners", runs, [f"{n} plays" for n in SHOWN]))


def measure(fold: Fold, vectors: FloatArray, seed: int) -> list[dict[str, Any]]:
    """All rows of one seed."""
    user_UD = encoders.tastes(fold, vectors)
    parts = {part: songs_of(held, vectors, seed) for part, held in fold.parts.items()}

    def by_prior(part: str, prior: float) -> list[float]:
        songs = parts[part]

        def score(first_CU: sparse.csr_matrix) -> FloatArray:  # as mode=taste ranks: ⟨u, i⟩ with the fused direction
            return unit_rows(warm_vectors(songs.content_CD, first_CU, user_UD, prior)) @ user_UD.T

        return recalls(songs, len(user_UD), score)

    priors = {NEVER, AT_ONCE, *PRIORS, DEFAULT}
    val, test = ({prior: by_prior(part, prior) for prior in priors} for part in ("cold_val", "cold_test"))
    prior = max(PRIORS, key=lambda one: sum(val[one]))
    count = max(COUNTS, key=lambda one: sum(switched(val, one)))
    knn = recalls(parts["cold_test"], len(user_UD), lambda first: co_listening(first, fold.plays_UW))
    rows: dict[str, Sequence[float | None]] = {
        "content alone": test[NEVER],
        "behaviour alone": [None, *test[AT_ONCE][1:]],
        "item kNN of co-listening": knn,
        "content, then behaviour": switched(test, count),
        "fused": test[prior],
        f"fused, default prior ({DEFAULT:g})": test[DEFAULT],
    }
    chosen = {"fused": prior, "content, then behaviour": count}
    songs = len(np.unique(parts["cold_test"].song))
    return [
        {"method": name, "recall@50 of the next listeners": name, "songs": songs, "chosen": chosen.get(name)}
        | {f"{n} plays": value for n, value in zip(SHOWN, values, strict=True)}
        for name, values in rows.items()
    ]


def songs_of(held: Held, vectors: FloatArray, seed: int) -> Songs:
    """Songs with enough listeners, these in a seeded order."""
    order = np.random.default_rng(seed).permutation(len(held.user_of))
    order = order[np.argsort(held.position_of[order], kind="stable")]
    song, user = held.position_of[order], held.user_of[order]
    place = np.arange(len(song)) - np.searchsorted(song, song)
    enough = np.flatnonzero(np.bincount(song, minlength=len(held.songs)) >= SHOWN[-1] + MINIMUM)
    if not len(enough):
        raise UserError(f"no new song has {SHOWN[-1] + MINIMUM} listeners, so nothing can be revealed")
    kept = np.isin(song, enough)
    return Songs(vectors[held.songs[enough]], np.searchsorted(enough, song[kept]), user[kept], place[kept])


def recalls(songs: Songs, n_users: int, score_of: Scorer) -> list[float]:
    """Recall@50 of the listeners after the first 20, when so many of these are known."""
    shape = (len(songs.content_CD), n_users)
    revealed, later = songs.place < SHOWN[-1], songs.place >= SHOWN[-1]
    found = []
    for n in SHOWN:
        known = songs.place < n
        pairs = (np.ones(known.sum(), dtype=np.float32), (songs.song[known], songs.user[known]))
        score_CU = score_of(sparse.csr_matrix(pairs, shape=shape))
        score_CU[songs.song[revealed], songs.user[revealed]] = -np.inf
        top = top_users(score_CU, K).users_CB
        found.append(float(recall_at_k(top, np.arange(shape[0]), songs.song[later], songs.user[later]).mean()))
    return found


def co_listening(first_CU: sparse.csr_matrix, plays_UW: sparse.csr_matrix) -> FloatArray:
    """Item kNN over all known songs: Σ of the cosines, by who listened, of the songs that a user played."""
    length_C = np.sqrt(np.diff(first_CU.indptr))
    length_W = np.sqrt(np.bincount(plays_UW.indices, minlength=plays_UW.shape[1]))
    cosine_CW = (first_CU @ plays_UW).toarray() / np.maximum(length_C[:, None] * length_W, 1e-12)
    return np.asarray((plays_UW @ cosine_CW.T).T, dtype=np.float32)


def switched(of_prior: dict[float, list[float]], count: int) -> list[float]:
    """Content below so many plays, behaviour from there on."""
    return [of_prior[NEVER if n < count else AT_ONCE][at] for at, n in enumerate(SHOWN)]


if __name__ == "__main__":
    command(main, ItemColdConfig, __doc__)
