"""Which of 101 artists has a user played? The published protocol of the interest-boundary paper on HetRec Last.fm-2K.

    python -m benchmarks.quality.uib data=$FIRSTPLAY_DATA/hetrec2011-lastfm-2k.zip out=runs/uib.json

Users with five artists or more. Of each user one artist tests and one validates, drawn by a seeded permutation; each is
ranked among 100 artists that the user never played, drawn uniformly and fixed by the seed; ties count against us.
HIT@1, HIT@10, NDCG@10 and MRR@10, mean over users; as a classifier of those 101, F1 of what is above the boundary (and
of what clears it by the margin that is best on validation). Vectors of 32. Every method keeps the epoch with the best
validation NDCG@10. Published figures: arXiv 2111.11026. Finished rows are kept beside out=: a killed run goes on.

Our towers see an artist's tags and id; tags that a user gave a held-out artist are left out. "content alone" lacks
the id. "+ iALS" adds to a margin the score of iALS, weighted by what is best on validation.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from omegaconf import MISSING
from scipy import sparse
from tqdm import tqdm

from benchmarks.measure import read_json, write_json
from benchmarks.quality.item_cold.__main__ import slug
from benchmarks.quality.item_cold.folds import state_of
from benchmarks.quality.item_cold.neural import factorise
from benchmarks.quality.towers import Judge, best_epoch
from benchmarks.quality.uib import factorisation
from benchmarks.quality.uib.factorisation import Settings
from benchmarks.quality.uib.protocol import Plays, Split, deal, judged, read_plays
from benchmarks.table import markdown, writable
from configs.data import PrepareConfig
from configs.errors import UserError
from configs.load import as_dict, command, load
from configs.options import opt
from configs.training import BoundaryConfig
from data.adapters import read_hetrec
from data.arrays import FloatArray
from data.catalogue import Catalogue
from data.contract.dataset import Dataset
from data.preparation import prepare

DIM = 32
STRENGTHS = (5.0, 20.0, 50.0)  # regularisation of iALS
TAG_ARTISTS = 3  # of which a tag is kept
COLUMNS = ["HIT@1", "HIT@10", "NDCG@10", "MRR@10", "F1", "F1, margin chosen"]
FACTORISED = {  # settings chosen on the validation artists of seed 0
    "BPR-MF, dropout": Settings("bpr", dropout=0.3),
    "BPR-MF, L2": Settings("bpr", l2=0.01),
    "BPR-MF + boundary, L2": Settings("boundary", alpha=2.0, l2=0.02),
    "BCE-MF, L2": Settings("bce", alpha=2.0, l2=0.02),
}
FUSED = "our towers + iALS"
OURS = {"our towers, content alone": ["fields.use=[tags]"], "our towers": [], FUSED: []}
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of an iALS score beside a margin
METHODS = ("popularity", "iALS", *FACTORISED, *OURS)


@dataclass
class UibConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "hetrec2011-lastfm-2k.zip")
    out: str = opt("runs/uib.json", "JSON file to write")
    seeds: int = opt(5, "seeds 0 … n−1 of the split and of training")
    methods: list[str] = opt(list(METHODS), "rows")
    boundary: list[str] = opt(
        [
            "batch_size=512", "fields.min_count=1", "model.field_dim=64", "model.hidden=512", "model.dropout=0.3",
            "objective.sampling=mixed", "objective.negatives=256", "objective.alpha=0.03", "optim.lr=5e-3",
            "trainer.epochs=10",
        ],
        "options of train.py boundary",
    )  # fmt: skip


def main(config: UibConfig) -> None:
    """Run the command (see the module's docstring)."""
    if unknown := sorted(set(config.methods) - set(METHODS)):
        raise UserError(f"methods={unknown}: choose from {', '.join(METHODS)}")
    work = Path(config.out).with_suffix("")
    writable(config.out, work)
    dataset, state = read_hetrec(config.data), state_of(Path(config.data))
    plays = read_plays(dataset)
    print(f"{len(plays.users):,} users, {len(plays.artists):,} artists, {len(plays.pairs):,} listens")
    runs = []
    for seed in tqdm(range(config.seeds), "seeds"):
        split = deal(plays, seed)
        judge = partial(judged, split)
        folder = work / f"seed{seed}"
        rows = []
        for method in tqdm(config.methods, f"seed {seed}", leave=False):
            path, settings = folder / f"{slug(method)}.json", settings_of(config, state, method)
            row = read_json(path) or {}
            if row.get("settings") != settings:  # else a killed run goes on
                found = measure(method, config, dataset, plays, split, judge, seed, folder / state)
                row = {"settings": settings, "row": {"method": method} | found}
                write_json(path, row)
            rows.append(row["row"])
        runs.append(rows)
    write_json(config.out, runs)
    print(markdown("method", runs, COLUMNS))


def settings_of(config: UibConfig, state: str, method: str) -> str:
    """Changes with everything that a row hangs on, but for the seed."""
    ours = [config.boundary, OURS[method], as_dict(BoundaryConfig(data="", out=""))] if method in OURS else None
    return repr([state, FACTORISED.get(method), STRENGTHS, ours])


def measure(
    method: str, config: UibConfig, dataset: Dataset, plays: Plays, split: Split, judge: Judge, seed: int, folder: Path
) -> dict[str, float]:
    """Test figures of one row."""
    n_users, n_artists = len(plays.users), len(plays.artists)
    if method == "popularity":
        listeners = np.bincount(split.train[:, 1], minlength=n_artists).astype(np.float32)
        return judge(listeners[:, None], np.ones((n_users, 1), np.float32), np.zeros(n_users, np.float32))[1]
    if method == "iALS":
        return judge(*ials(plays, split, judge, seed), np.zeros(n_users, np.float32))[1]
    if method in FACTORISED:
        return factorisation.train(split.train, n_users, n_artists, FACTORISED[method], judge, seed)
    catalogue = prepared(dataset, plays, split, folder)
    given = [f"data={folder}/catalogue", f"out={folder}/run", f"seed={seed}", "objective.positives=played"]
    chosen = load(BoundaryConfig, [*given, f"model.dim={DIM}", *config.boundary, *OURS[method]])
    if method != FUSED:
        return best_epoch(chosen, in_order(plays, catalogue, judge), patience=3)
    whole = in_order(plays, catalogue, lambda *vectors: (judge(*vectors)[0], vectors))
    towers = best_epoch(chosen, whole, patience=3)
    return fused(towers, ials(plays, split, judge, seed), judge)


def fused(towers: tuple[FloatArray, ...], factors: tuple[FloatArray, FloatArray], judge: Judge) -> dict[str, float]:
    """Margins plus weighted scores, which are one inner product of vectors put end to end."""
    (item_SD, user_UD, boundary_U), (item_SF, user_UF) = towers, factors
    user = np.hstack([user_UD, user_UF])
    tried = (judge(np.hstack([item_SD, weight * item_SF]), user, boundary_U) for weight in WEIGHTS)
    return max(tried, key=lambda one: one[0])[1]


def ials(plays: Plays, split: Split, judge: Judge, seed: int) -> tuple[FloatArray, FloatArray]:
    """Artists' and users' vectors of the regularisation that is best on validation."""
    shape = len(plays.users), len(plays.artists)
    played = sparse.csr_matrix((np.ones(len(split.train), np.float32), tuple(split.train.T)), shape=shape)
    found = (factorise(played, DIM, 10.0, seed, regularisation) for regularisation in STRENGTHS)
    tried = ((items, users) for users, items in found)
    return max(tried, key=lambda one: judge(one[0], one[1], np.zeros(shape[0], np.float32))[0])


def prepared(dataset: Dataset, plays: Plays, split: Split, folder: Path) -> Catalogue:
    """The training plays as a catalogue: artists by id and tags. An artist whom none of these users played is new."""
    if not (folder / "catalogue").exists():
        (folder / "dataset").mkdir(parents=True, exist_ok=True)
        user, artist = (pl.Series(ids, dtype=pl.String) for ids in (plays.users, plays.artists))
        held = pl.concat([artist.gather(split.val), artist.gather(split.test)])
        held_out = pl.DataFrame({"user_id": pl.concat([user, user]), "song_id": held})
        assert dataset.tag_assignments is not None
        shown = dataset.tag_assignments.join(held_out, on=["user_id", "song_id"], how="anti")
        tags = shown.select("song_id", "tag").unique()
        common = tags.group_by("tag").len().filter(pl.col("len") >= TAG_ARTISTS)
        tags = tags.join(common, on="tag", how="semi").group_by("song_id").agg(tags=pl.col("tag").sort())
        new = pl.int_range(pl.len()).mod(2).replace_strict([0, 1], ["cold_val", "cold_test"])
        songs = dataset.songs.select("song_id", artist_id="song_id").join(tags, on="song_id", how="left")
        warm = pl.col("song_id").is_in(plays.artists)
        songs = songs.with_columns(split=pl.when(warm).then(pl.lit("warm")).otherwise(new))
        songs.write_parquet(folder / "dataset" / "songs.parquet")
        pl.DataFrame({"user_id": user}).write_parquet(folder / "dataset" / "users.parquet")
        rows = {"user_id": user.gather(split.train[:, 0]), "song_id": artist.gather(split.train[:, 1])}
        pl.DataFrame(rows).write_parquet(folder / "dataset" / "plays.parquet")
        given = [f"source={folder}/dataset", f"out={folder}/catalogue", "split.by=column", "pairs.posterior=none"]
        with contextlib.redirect_stdout(io.StringIO()):
            prepare(load(PrepareConfig, given))
    return Catalogue.read(folder / "catalogue")


def in_order(plays: Plays, catalogue: Catalogue, judge: Judge) -> Judge:
    """A judge of vectors that are in the catalogue's order."""
    pairs = ((catalogue.songs["song_id"], plays.artists), (catalogue.users["user_id"], plays.users))
    artist, user = (
        pl.Series(wanted).replace_strict(ids, np.arange(len(ids)), return_dtype=pl.Int64).to_numpy()
        for ids, wanted in pairs
    )
    return lambda item_SD, user_UD, boundary_U: judge(item_SD[artist], user_UD[user], boundary_U[user])


if __name__ == "__main__":
    command(main, UibConfig, __doc__)
