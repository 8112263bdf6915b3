"""Users' margin vectors in Milvus: written by `pipeline.margins`, searched by `pipeline.audience margins=`.

Shapes: C songs, U users, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.fingerprints import of_folder
from artifacts.folders import read_manifest, read_whole, writing
from artifacts.runs import open_run
from artifacts.tracking import made, tracked, used
from configs.errors import UserError
from configs.options import MADE_BY, MARGINS
from configs.targeting import AudienceConfig, MarginsConfig
from data.arrays import AnyArray, FloatArray, IntArray
from data.catalogue import Catalogue
from data.conditions import columns_of, condition, kinds_of
from inference.milvus_folders import collection_of, let_go, make_collection, open_collection, publish_collection
from inference.song_index import QUERIES, WIDEST
from inference.vectors import Boundary, boundary_vectors
from retrieval.audience import Allowed, Audience, Excluded
from retrieval.boundary import above
from retrieval.index import TUNED, Only, choose, exact_neighbours, resolve, tune
from retrieval.milvus import ENTRY, MOST, VECTOR, MilvusIndex
from retrieval.targeting import Songs, Targeting

KIND = MARGINS


@tracked("margins")
def make_margins(config: MarginsConfig, tracking: Any) -> None:
    """Run `pipeline.margins` (its docstring says what it reads and writes)."""
    run = open_run(config.run, "boundary")
    data, features = config.data or run.config["data"], config.features or run.config["features"]
    catalogue, before = Catalogue.read(data), collection_of(Path(config.out), KIND)
    found = boundary_vectors(config.run, songs_to_tune(catalogue, config.seed), data, features)
    vectors, kind = of_users(found), resolve(config.index, catalogue.n_users)
    print(f"index {kind}: {choose(catalogue.n_users)[1] if config.index == 'auto' else 'as asked for'}")
    about = about_users(catalogue)
    manifest: dict[str, Any] = {
        "encoder": run.fingerprint,
        "run": str(run.folder),
        "data": str(data),
        "features": features,
        "made_of": made_of(catalogue, features),
        "index": kind,
        "dim": vectors.shape[1],
    }
    with writing(config.out, KIND, manifest) as folder:
        of = vectors, np.arange(len(vectors)), about, run.fingerprint, folder
        try:
            index, where = make_collection(config, kind, *of)
        except ValueError as error:
            raise UserError(str(error)) from None
        manifest |= where
        manifest["effort"], manifest["recall"] = tuned(index, kind, found, vectors, config.recall)
        about.write_parquet(folder / "users.parquet")
        let_go(index, folder)
    publish_collection(config, manifest, before)
    used(tracking, run.folder, data, features)
    made(tracking, config.out, config.logger.upload)
    print(f"{config.out}: {len(vectors)} users, {vectors.shape[1]} dimensions, {kind}")
    if kind != "Flat":
        most, recall = min(TUNED, len(vectors)), manifest["recall"]
        few = f"; {config.recall:.0%} was wanted, and no effort finds more" if recall < config.recall else ""
        print(f"  finds {recall:.0%} of a song's exact {most} users (effort {manifest['effort']}){few}")


def made_of(catalogue: Catalogue, features: str | None) -> list[str | None]:
    """Fingerprints of what users' vectors are made of beside the run: other plays or features make others."""
    return [of_folder(Path(folder)) if folder else None for folder in (catalogue.folder, features)]


def songs_to_tune(catalogue: Catalogue, seed: int) -> IntArray:
    """A sample of the new songs, which will be looked up; of the known ones where there are none."""
    songs = catalogue.rows("cold") if len(catalogue.rows("cold")) else catalogue.rows("warm")
    return np.sort(np.random.default_rng(seed).permutation(songs)[:QUERIES])


def of_users(boundary: Boundary) -> FloatArray:
    """[u, −⟨u, b⟩] of all users, (U, D + 1)."""
    vectors: FloatArray = np.c_[boundary.user_UD, -boundary.boundary_U]
    return vectors


def of_songs(item_CD: AnyArray) -> FloatArray:
    """[i, 1] of songs, (C, D + 1)."""
    vectors: FloatArray = np.c_[item_CD, np.ones_like(item_CD[:, 0])]
    return vectors


def tuned(index: MilvusIndex, kind: str, boundary: Boundary, vectors: FloatArray, wanted: float) -> tuple[int, float]:
    """Effort and recall of `retrieval.index.tune` on the songs of `boundary`."""
    if kind == "Flat":
        return 0, 1.0
    asked = of_songs(boundary.item_CD)
    return tune(index, kind, asked, exact_neighbours(asked, vectors, min(WIDEST, len(vectors))), wanted)


def about_users(catalogue: Catalogue) -> pl.DataFrame:
    """What conditions may name of users, in the collection."""
    return columns_of(catalogue.users).drop(ENTRY, VECTOR, strict=False)


@dataclass
class MarginsTargeting(Targeting):
    """`Targeting` without users' vectors: those whose boundary a song clears are looked up in a collection.

    `only` are the users who may be reached at all; None: everybody.
    """

    margins: Any = None
    only: Only | None = None

    def above_boundary(self, songs: Songs, budget: int, margin: float = 0.0) -> Audience:
        """The users of each song whose own boundary it clears the furthest.

        Raises:
            UserError: more users are to be looked at than Milvus gives.
        """
        assert songs.item_CD is not None
        pairs = songs.excluded
        here = np.isin(pairs.user, pairs.users, invert=True)
        without = pairs.song[here], pairs.user[here]
        most = budget + int(np.bincount(without[0], minlength=1).max())
        if min(most, self.margins.ntotal) > MOST:
            raise UserError(
                f"margins=: Milvus names at most {MOST:,} users of a song; {most:,} are needed (the budget, four times "
                "that with a cap or exploration, and those who have played the song): lower targeting.budget"
            )
        memory_mb = self.options.memory_mb
        return above(self.margins, of_songs(songs.item_CD), budget, margin, without, memory_mb, self.only)


def by_margins(
    config: AudienceConfig,
    targeting: Targeting,
    catalogue: Catalogue,
    features: str | None,
    boundary: Boundary | None,
    excluded: Excluded,
) -> Targeting:
    """The targeting, with `margins=` one whose users by boundary are looked up in that folder's collection.

    Args:
        config: options of the audience.
        targeting: what else is known.
        catalogue, features: whose users they are, and the folder of what is known of their songs.
        boundary: vectors of the songs.
        excluded: users who must not be reached, those of whom users_where= does not hold among them.

    Raises:
        UserError: not a margins folder, damaged, or of another run or catalogue.
        MilvusError: its Milvus cannot be reached.
    """
    if config.margins is None or boundary is None:
        return targeting
    index = open_margins(Path(config.margins), catalogue, features, boundary.run.fingerprint)
    of = targeting.listening, targeting.song_SD, targeting.search, targeting.options
    return MarginsTargeting(*of, margins=index, only=reachable(about_users(catalogue), excluded, config.users_where))


def open_margins(folder: Path, catalogue: Catalogue, features: str | None, encoder: str) -> MilvusIndex:
    """The collection of a margins folder, if it is of this catalogue, these features and this boundary run; errors as
    `by_margins`."""

    def read() -> tuple[dict[str, Any], pl.DataFrame]:
        manifest = read_manifest(folder, KIND, MADE_BY[KIND])
        try:
            return manifest, pl.read_parquet(folder / "users.parquet", glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{folder} is damaged ({type(error).__name__}): run {MADE_BY[KIND]} again") from None

    manifest, users = read_whole(folder, read)
    if manifest["encoder"] != encoder:
        raise UserError(f"{folder} was made of another boundary run: run {MADE_BY[KIND]} again")
    if not users.equals(about_users(catalogue)) or manifest["made_of"] != made_of(catalogue, features):
        raise UserError(
            f"{folder} was made of other users, plays or features than {catalogue.folder}: run {MADE_BY[KIND]} again"
        )
    index = open_collection(manifest, folder)
    if index.ntotal != len(users):
        raise UserError(f"{folder} is damaged (its collection has {index.ntotal} users): run {MADE_BY[KIND]} again")
    return index


def reachable(about: pl.DataFrame, excluded: Excluded, where: str | None) -> Only | None:
    """The users who are not excluded; in the words of Milvus: for whom a condition holds, but for some by number."""
    if not len(excluded.users):
        return None
    holds, expression = np.ones(len(about), dtype=bool), ""
    if where is not None:
        found = condition(where, kinds_of(about), "users_where")
        holds, expression = about.select(found.rows).to_series().to_numpy(), f"({found.milvus})"
    if len(others := excluded.users[holds[excluded.users]]):
        expression += f"{' and ' * bool(expression)}{ENTRY} not in {others.tolist()}"
    return Only(np.flatnonzero(~Allowed(excluded, len(about)).is_out_U), expression)
