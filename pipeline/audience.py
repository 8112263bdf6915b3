"""New songs → ranked users, each with a score and the songs that explain it.

    python -m pipeline.audience mode=i2i2u index=INDEX out=AUDIENCE
    python -m pipeline.audience mode=boundary index=INDEX boundary=RUN out=AUDIENCE

Writes audience.parquet (song_id, user_id, rank, score, margin, because), similar.parquet (song_id, similar_song_id,
similarity) and prints one song's audience as a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from configs.errors import UserError
from configs.load import as_dict, command
from configs.schema import AudienceConfig, TargetingConfig
from datamodules.arrays import AnyArray, FloatArray, IntArray
from datamodules.catalogue import Catalogue
from datamodules.collaborative import listening_matrix
from datamodules.folders import writing
from pipeline.index import SongIndex, open_index
from pipeline.vectors import Boundary, boundary_vectors
from retrieval import audience as targeting
from retrieval.audience import Audience

KIND = "audience"
SHOWN = 10  # users and similar songs in the printed table


@dataclass
class Similar:
    """Similar known songs of each new song, and the listening they bring in."""

    positions_CK: IntArray
    scores_CK: FloatArray
    weights_CK: AnyArray
    weights_CS: sparse.csr_matrix


def main(config: AudienceConfig) -> None:
    """Run the command (see the module's docstring)."""
    if config.index is None:
        raise UserError("missing option: index=… (python -m pipeline.index): the similar songs come from it")
    if config.boundary is None and (config.mode == "boundary" or config.gate):
        raise UserError("missing option: boundary=… (python train.py boundary …): the users' boundaries come from it")
    check_targeting(config.targeting)
    index = open_index(config.index)
    catalogue = Catalogue.read(index.manifest["data"])
    new = catalogue.rows(config.split)
    if not len(new):
        raise UserError(f"split={config.split}: {catalogue.folder} has no such songs")
    shown = song_to_show(config.show, catalogue, new)
    listening = listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs)
    similar = find_similar(index, new, listening, config.targeting)
    boundary = (
        boundary_vectors(config.boundary, new, index.manifest["data"], index.manifest["features"])
        if config.boundary
        else None
    )
    manifest = {
        "options": as_dict(config),
        "encoder": index.manifest["encoder"],
        "boundary": boundary and boundary.run.fingerprint,
    }
    with writing(config.out, KIND, manifest) as folder:
        audience = find_audience(similar, listening, config, boundary)
        table = audience_table(audience, similar, listening, catalogue, new, boundary)
        table.write_parquet(folder / "audience.parquet")
        similar_table(similar, catalogue, new).write_parquet(folder / "similar.parquet")
        reached = int((audience.users_CB >= 0).sum())
        manifest |= {
            "songs": len(new),
            "users_reached": reached,
            "songs_without_audience": int((audience.users_CB < 0).all(axis=1).sum()),
        }
    print(f"{config.out}: {len(new)} new songs, {reached} (song, user) rows, mode {config.mode}, gate {config.gate}")
    print(show(table, similar, catalogue, new, shown))


def check_targeting(options: TargetingConfig) -> None:
    """Raise UserError for an audience of nobody."""
    if options.neighbours < 1 or options.budget < 1:
        raise UserError(
            f"targeting.neighbours={options.neighbours} and targeting.budget={options.budget}: both must be at least 1"
        )


def song_to_show(song_id: str | None, catalogue: Catalogue, new: IntArray) -> int:
    """Position among the new songs of the one to print, the first by default.

    Raises:
        UserError: it is not a new song.
    """
    ids = catalogue.songs["song_id"].gather(new).to_list()
    if song_id is not None and song_id not in ids:
        raise UserError(f"show={song_id}: not among the {len(ids)} new songs, e.g. {', '.join(ids[:3])}")
    return ids.index(song_id) if song_id is not None else 0


def find_similar(index: SongIndex, new: IntArray, listening: sparse.csr_matrix, options: TargetingConfig) -> Similar:
    """Look the new songs up in the index; a neighbour weighs its similarity, less the more popular it is."""
    scores, positions = index.similar(index.vectors[new], options.neighbours)
    weights = targeting.similarity_weights(scores, positions, listening.shape[1], options.similarity_power)
    weights = weights.multiply(targeting.popularity_scale(listening, options.popularity_power)).tocsr()
    row = np.arange(len(new))[:, None]
    dense = np.where(positions >= 0, np.asarray(weights[row, np.maximum(positions, 0)].todense()), 0.0)
    return Similar(positions, scores, dense, weights)


def find_audience(
    similar: Similar, listening: sparse.csr_matrix, config: AudienceConfig, boundary: Boundary | None
) -> Audience:
    """Users of each new song by the chosen mode."""
    budget = min(config.targeting.budget, listening.shape[0])

    def margin(rows: slice) -> AnyArray:
        assert boundary is not None
        return targeting.margins(boundary.item_CD[rows], boundary.user_UD, boundary.boundary_U)

    if config.mode == "boundary":
        return targeting.rank_by_score(lambda rows: positive_only(margin(rows)), len(similar.positions_CK), budget)
    scale = targeting.activity_scale(listening, config.targeting.activity_power)
    allowed = (lambda rows: margin(rows) > 0) if config.gate else None
    return targeting.listeners_of_similar(similar.weights_CS, listening, scale, budget, allowed)


def positive_only(margin_CU: AnyArray) -> AnyArray:
    """Margins, −inf where the song does not clear the user's boundary."""
    return np.where(margin_CU > 0, margin_CU, -np.inf)


def audience_table(
    audience: Audience,
    similar: Similar,
    listening: sparse.csr_matrix,
    catalogue: Catalogue,
    new: IntArray,
    boundary: Boundary | None,
) -> pl.DataFrame:
    """One row a (new song, user): rank, score, margin over the user's boundary, and the songs that explain it."""
    row, rank = np.nonzero(audience.users_CB >= 0)
    user = audience.users_CB[row, rank]
    reasons = targeting.explain(audience.users_CB, similar.positions_CK, similar.weights_CK, listening)[row, rank]
    margin: Any = None
    if boundary is not None:
        margin = (boundary.item_CD[row] * boundary.user_UD[user]).sum(axis=1) - boundary.boundary_U[user]
    ids = catalogue.songs["song_id"]
    named = [ids.gather(pl.Series(np.maximum(one, 0))).set(pl.Series(one < 0), None) for one in reasons.T]
    because = pl.DataFrame([one.alias(str(place)) for place, one in enumerate(named)]).select(
        pl.concat_list(pl.all()).list.drop_nulls().alias("because")
    )
    return pl.DataFrame(
        {
            "song_id": ids.gather(new[row]),
            "user_id": catalogue.users["user_id"].gather(user),
            "rank": rank + 1,
            "score": audience.scores_CB[row, rank],
            "margin": pl.Series("margin", margin if margin is not None else [None] * len(row), dtype=pl.Float32),
            "because": because["because"],
        }
    )


def similar_table(similar: Similar, catalogue: Catalogue, new: IntArray) -> pl.DataFrame:
    """One row a (new song, similar known song)."""
    row, rank = np.nonzero(similar.positions_CK >= 0)
    ids = catalogue.songs["song_id"]
    return pl.DataFrame(
        {
            "song_id": ids.gather(new[row]),
            "similar_song_id": ids.gather(similar.positions_CK[row, rank]),
            "similarity": similar.scores_CK[row, rank],
        }
    )


def show(table: pl.DataFrame, similar: Similar, catalogue: Catalogue, new: IntArray, at: int) -> str:
    """A readable page about the new song at position `at`: what it resembles and whom it goes to."""
    song_id = catalogue.songs["song_id"][int(new[at])]
    label = catalogue.songs.select(
        pl.concat_str(
            pl.col("title").fill_null("(no title)"),
            pl.lit(" · "),
            pl.col("artist_id").fill_null("?"),
            pl.lit(" · "),
            pl.col("genres").list.join("/").fill_null("?"),
        )
    ).to_series()
    of_id = dict(zip(catalogue.songs["song_id"], label, strict=True))
    lines = [f"\nnew song {song_id}: {label[int(new[at])]}", "  similar known songs:"]
    near = similar.positions_CK[at][:SHOWN]
    lines += [
        f"    {score:8.3f}  {label[int(song)]}"
        for song, score in zip(near, similar.scores_CK[at], strict=False)
        if song >= 0
    ]
    lines.append("  first listeners (user, score, because of):")
    for user, score, because in (
        table.filter(pl.col("song_id") == song_id).select("user_id", "score", "because").head(SHOWN).iter_rows()
    ):
        lines.append(f"    {user:<12} {score:8.3f}  {'; '.join(of_id[one].split(' · ')[0] for one in because)}")
    return "\n".join(lines)


if __name__ == "__main__":
    command(main, AudienceConfig, __doc__)
