"""Item-item collaborative filtering and its posterior check: the teacher of the song encoder.

The article: positives are "item pairs of collaborative similarity whose recommendation then had good user feedback".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from configs.errors import UserError
from datamodules.arrays import AnyArray, IntArray


@dataclass
class Pairs:
    """Directed song pairs with their similarity, all arrays of one length."""

    source: IntArray
    target: IntArray
    similarity: AnyArray

    def take(self, keep: AnyArray) -> Pairs:
        """The sub-set chosen by a mask or by positions."""
        return Pairs(self.source[keep], self.target[keep], self.similarity[keep])

    def __len__(self) -> int:
        return len(self.source)

    def frame(self) -> pl.DataFrame:
        """As a table (source, target, similarity)."""
        return pl.DataFrame({"source": self.source, "target": self.target, "similarity": self.similarity})


def listening_matrix(plays: pl.DataFrame, n_users: int, n_songs: int) -> sparse.csr_matrix:
    """(users, songs) matrix: the strongest signal a user gave a song; dislikes are left out."""
    liked = plays.filter(pl.col("strength") > 0).group_by("user", "song").agg(pl.col("strength").max())
    coordinates = (liked["user"].to_numpy(), liked["song"].to_numpy())
    return sparse.csr_matrix((liked["strength"].to_numpy().astype(np.float32), coordinates), shape=(n_users, n_songs))


def neighbours(
    matrix: sparse.csr_matrix,
    top_k: int,
    min_common: int,
    similarity: str = "phi",
    chunk: int = 256,
    shrinkage: float = 0.0,
) -> Pairs:
    """The `top_k` most similar songs of every song, self left out, among those that share enough listeners.

    "cosine" is n_ab / √(n_a n_b). Two popular songs share listeners by chance alone, so by cosine popular songs are
    everybody's neighbours; "phi" (function `phi`) takes that chance away. "iuf" is the cosine in which a common
    listener counts 1 / log(1 + his songs) (inverse user frequency, after Breese et al., UAI 1998). "bm25" discounts
    heavy listeners and popular songs by the weights of `implicit`, whose own search is not used: it fills the K
    places before it can be told that rare songs must share `min_common` listeners.

    Args:
        matrix: (users, songs) listening matrix; only whether an entry is there counts.
        top_k: neighbours kept per song.
        min_common: listeners that a pair must share.
        similarity: "phi", "cosine", "iuf" or "bm25".
        chunk: songs compared with all others at a time: bounds the memory.
        shrinkage: a similarity seen in n common listeners counts n / (n + shrinkage) of itself.
    """
    heard = _heard(matrix).T.tocsr()
    listeners = np.diff(heard.indptr).astype(np.int64)  # products of two pass 2^31
    weighted = _weighted(heard, similarity)
    parts = []
    for at in range(0, heard.shape[0], chunk):
        common = (heard[at : at + chunk] @ heard.T).tocoo()
        enough = common.data >= max(min_common, 1)
        row, target, both = common.row[enough], common.col[enough], common.data[enough]
        source = row.astype(np.int64) + at
        if similarity == "phi":
            value = phi(both, listeners[source], listeners[target], heard.shape[1])
        elif similarity == "cosine":
            value = both
        else:
            score = sparse.csr_matrix(weighted[at : at + chunk] @ weighted.T)
            value = np.asarray(score[row, target]).ravel() if len(row) else both  # scipy cannot look up nothing
        if similarity in ("cosine", "iuf"):
            value = value / np.sqrt(listeners[source] * listeners[target])
        value = value * (both / (both + shrinkage)) if shrinkage else value
        pairs = Pairs(source, target.astype(np.int64), value.astype(np.float32))
        parts.append(_top_k(pairs.take((pairs.source != pairs.target) & (pairs.similarity > 0)), top_k))
    columns = zip(*((part.source, part.target, part.similarity) for part in parts), strict=True)
    return Pairs(*map(np.concatenate, columns))


def _weighted(heard: sparse.csr_matrix, similarity: str) -> sparse.csr_matrix:
    """(songs, users) listening of which two rows' inner product is the similarity, up to popularity."""
    if similarity == "bm25":
        from implicit.nearest_neighbours import bm25_weight

        return sparse.csr_matrix(bm25_weight(heard, K1=1.2, B=0.75))
    if similarity == "iuf":
        songs_of = np.bincount(heard.indices, minlength=heard.shape[1])
        return sparse.csr_matrix(heard @ sparse.diags(np.log1p(np.maximum(songs_of, 1)) ** -0.5))
    return heard


def common_listeners(
    first: sparse.csc_matrix, second: sparse.csc_matrix, pairs: Pairs, chunk: int = 200_000
) -> IntArray:
    """For each pair, the users for whom `first` has the source and `second` the target, `chunk` pairs at a time."""
    counts = [np.empty(0)]
    for at in range(0, len(pairs), chunk):
        source, target = pairs.source[at : at + chunk], pairs.target[at : at + chunk]
        counts.append(np.asarray(first[:, source].multiply(second[:, target]).sum(axis=0)).ravel())
    return np.concatenate(counts).round().astype(np.int64)


def smoothed_lift(good: AnyArray, shown: AnyArray, global_rate: Any, prior: float) -> AnyArray:
    """Rate of good outcomes, shrunk towards the global rate, as a multiple of it.

    (good + prior·r) / (shown + prior) / r with r the global rate: the posterior mean under a Beta prior that is
    worth `prior` observations. A pair that was never shown has lift 1 (exactly, so that it clears `min_lift` 1).
    """
    known = shown + prior > 0
    lift = (good / np.maximum(global_rate, 1e-12) + prior) / np.where(known, shown + prior, 1.0)
    return np.where(known, lift, 1.0)


def verify_by_feedback(pairs: Pairs, feedback: pl.DataFrame, prior: float) -> tuple[AnyArray, AnyArray]:
    """Lift and observations of each pair in `i2i_feedback` (columns source, target, plays, completes, favourites).

    A good outcome is a favourite, or half a good outcome a complete play: the two rates that the article's Q1 names
    are summed so that neither alone decides.
    """
    counts = (
        feedback.group_by("source", "target")
        .agg(pl.col("plays").sum(), (pl.col("favourites") + 0.5 * pl.col("completes")).sum().alias("good"))
        .with_columns(pl.col("source", "target").cast(pl.Int64))
    )
    joined = pairs.frame().join(counts, on=["source", "target"], how="left", maintain_order="left").fill_null(0)
    global_rate = float(counts["good"].sum() / max(counts["plays"].sum(), 1))
    shown = joined["plays"].to_numpy()
    return smoothed_lift(joined["good"].to_numpy(), shown, global_rate, prior), shown


def verify_by_listeners(
    pairs: Pairs, before: sparse.csr_matrix, after: sparse.csr_matrix, prior: float
) -> tuple[AnyArray, AnyArray]:
    """Lift of each pair in listening that was not used to mine it.

    Of the users who knew the source (`before`), how many took up the target (`after`), against the target's own
    share among all users: the check for data without a feedback table. `before` and `after` are an earlier and a later
    window of the same users (`after` without what they knew before), or twice the same matrix of held-out users.

    Only who could take the target up is counted: users seen in `after` who did not know the target before. Else a
    song's old listeners would speak against it. A target that nobody took up is no evidence: lift 1, seen by 0.
    """
    took = _heard(after)
    active_U = np.diff(took.tocsr().indptr) > 0
    knew = sparse.csc_matrix(sparse.diags(active_U.astype(np.float32)) @ _heard(before))
    settled = sparse.csc_matrix(knew - knew.multiply(took))  # no entries where both windows are the same matrix
    could_S = active_U.sum() - np.asarray(settled.sum(axis=0)).ravel()
    share_S = np.asarray(took.sum(axis=0)).ravel() / np.maximum(could_S, 1)
    shown = np.asarray(knew.sum(axis=0)).ravel()[pairs.source] - common_listeners(knew, settled, pairs)
    seen = shown * (share_S[pairs.target] > 0)
    return smoothed_lift(common_listeners(knew, took, pairs), seen, share_S[pairs.target], prior), seen


def cold_neighbours(cold: sparse.csr_matrix, warm: sparse.csr_matrix, top_k: int, min_common: int) -> Pairs:
    """For each cold song (column of `cold`), the warm songs of the same listeners, by phi: the truth of validation.

    Both matrices are (users, songs) over all songs; `cold` holds held-out plays and never reaches training.
    """
    a, b = _heard(cold), _heard(warm)
    common = (a.T @ b).tocoo()
    similarity = phi(common.data, np.diff(a.indptr)[common.row], np.diff(b.indptr)[common.col], a.shape[0])
    pairs = Pairs(common.row.astype(np.int64), common.col.astype(np.int64), similarity.astype(np.float32))
    return _top_k(pairs.take((common.data >= min_common) & (similarity > 0)), top_k)


def phi(both: AnyArray, n_a: AnyArray, n_b: AnyArray, n_users: int) -> AnyArray:
    """Correlation of two songs' 0/1 listener vectors, from how many users listened to both, to a, to b; 0 by chance.

    Counts are whole numbers below 2^53, so that songs which meet exactly as often as by chance come out exactly 0.
    """
    both, n_a, n_b = (np.asarray(count, dtype=np.float64) for count in (both, n_a, n_b))
    spread = np.sqrt(n_a * (n_users - n_a)) * np.sqrt(n_b * (n_users - n_b))
    return np.asarray((n_users * both - n_a * n_b) / np.maximum(spread, 1.0))


def split_rows(matrix: sparse.csr_matrix, seed: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Two matrices of the same shape, each with the listening of one seeded half of the users."""
    half = np.random.default_rng(seed).random(matrix.shape[0]) < 0.5
    if matrix.shape[0] < 2:
        raise UserError("posterior=split_users needs at least two users")
    keep = sparse.diags(half.astype(np.float32))
    other = sparse.diags((~half).astype(np.float32))
    first, second = (keep @ matrix).tocsr(), (other @ matrix).tocsr()
    first.eliminate_zeros(), second.eliminate_zeros()
    return first, second


def _heard(matrix: sparse.csr_matrix) -> sparse.csc_matrix:
    """A copy that says only who heard what: 1 for every entry."""
    heard = sparse.csc_matrix(matrix, dtype=np.float32, copy=True)
    heard.data[:] = 1.0
    return heard


def _top_k(pairs: Pairs, top_k: int) -> Pairs:
    order = np.lexsort((pairs.target, -pairs.similarity, pairs.source))
    source = pairs.source[order]
    first = np.r_[True, source[1:] != source[:-1]] if len(source) else np.empty(0, dtype=bool)
    rank = np.arange(len(source)) - np.maximum.accumulate(np.where(first, np.arange(len(source)), 0))
    return pairs.take(order[rank < top_k])
