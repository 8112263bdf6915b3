"""Users whom the training has not seen: what do their first plays tell the service of the new songs they will like?

    python -m pipeline.world out=runs/world_without_audio audio=false
    python -m benchmarks.quality.new_users data=runs/world_without_audio out=runs/new_users.json

A share of the users, drawn by the seed, is taken out of the data set, and everything is trained without them. Then they
come to the service (`serving.state`), which is shown the first 0, 1, 2, 5, 10, 20 of their plays of known songs, all
before the last play of the training, and all. They are those with 20 such plays or more who liked a new song. recall@20
is that of the new songs of the test that they liked, ranked by margin or by taste; AUC is that of the margins over all
pairs of them and such a song, where the boundary counts. Beside them stand the users of the training who are such too,
by all their plays and their profile, and two lists that are the same for all: the songs that most users of the training
liked, which nobody knows when a song is new, and the latest. A user's boundary is the same for all songs and cannot
change their order, so margins are also taken apart by song: into the mean of all these users' margins, a list that is
the same for all, and what is a user's own beside it. Finished parts are kept in work=.

Shapes: N users, C new songs, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from omegaconf import MISSING
from tqdm import tqdm

from artifacts.folders import writing
from benchmarks.measure import write_json
from benchmarks.quality.listeners import keep_listeners
from benchmarks.table import markdown, writable
from configs.data import PrepareConfig
from configs.load import command, load
from configs.options import opt
from configs.serving import ServiceConfig
from configs.targeting import IndexConfig
from configs.training import BoundaryConfig, I2IConfig
from data.arrays import AnyArray, BoolArray, IntArray
from data.catalogue import Catalogue
from data.preparation import prepare
from export.service import export_service
from inference.song_index import make_index
from retrieval.audience import top_users
from retrieval.index import unit_rows
from retrieval.metrics import auc, recall_at_k
from serving.histories import tower_vectors
from serving.model import Model
from serving.state import State
from serving.store import Play
from training.tasks import train_boundary, train_i2i

SHOWN, K = (0, 1, 2, 5, 10, 20), 20
BEFORE, ALL = "all before the cut-off", "all"
COLUMNS = [*(f"{n} plays" for n in SHOWN), BEFORE, ALL]
RECALL, APART = f"recall@{K}", "margins taken apart"
OF_PARTS = {
    "AUC within a user": "auc_within",
    "AUC within a user, the mean of all": "auc_mean",
    "spread of the mean of all": "spread_mean",
    "spread of a user's own": "spread_own",
}
FIXED = ["fields.use=[genres,tags,artist_id,language]", "trainer.accelerator=cpu", "trainer.progress=false"]
Row = dict[str, float | None]


@dataclass
class NewUsersConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "dataset folder, such as python -m pipeline.world writes")
    out: str = opt("runs/new_users.json", "JSON file to write")
    work: str | None = opt(None, "folder for data sets and runs (default: beside out, without .json)")
    seeds: int = opt(3, "seeds 0 … n−1 of the users who are taken out, and of all training")
    share: float = opt(0.2, "share of the users who are taken out")
    part: Literal["cold_test", "cold_val"] = opt("cold_test", "new songs that are ranked: of the test or of validation")
    i2i: list[str] = opt(["trainer.epochs=5", "batch_size=512"], "further options of train.py i2i")
    boundary: list[str] = opt(["trainer.epochs=5"], "further options of train.py boundary")


def main(config: NewUsersConfig) -> None:
    """Run the command (see the module's docstring)."""
    work = Path(config.work or config.out.removesuffix(".json"))
    writable(config.out, work)
    found = [measured(config, trained(config, work / f"seed{s}", s)) for s in tqdm(range(config.seeds), "seeds")]
    write_json(config.out, found)
    print(f"{config.seeds} seeds; users taken out: {', '.join(str(one['users']) for one in found)}")
    for figure in (RECALL, "AUC", APART):
        print("\n" + markdown(figure, [one[figure] for one in found], COLUMNS))


def trained(config: NewUsersConfig, folder: Path, seed: int) -> Path:
    """The folder of one seed: the data set without some users, and all that is made of it."""
    if not (folder / "dataset").exists():
        with writing(folder / "dataset", "dataset", {"source": "benchmarks.quality.new_users"}) as out:
            keep_listeners(Path(config.data), out, drawn_users(Path(config.data), config.share, seed))
    at = {name: str(folder / name) for name in ("dataset", "catalogue", "i2i", "boundary", "index", "service")}
    more = [f"data={at['catalogue']}", f"seed={seed}", "logger.wandb=off", *FIXED]
    parts: list[tuple[str, Any, type, list[str]]] = [
        ("catalogue", prepare, PrepareConfig, [f"source={at['dataset']}"]),
        ("i2i", train_i2i, I2IConfig, [*more, *config.i2i]),
        ("boundary", train_boundary, BoundaryConfig, [*more, *config.boundary]),
        ("index", make_index, IndexConfig, [f"run={at['i2i']}"]),
        ("service", export_service, ServiceConfig, [f"index={at['index']}", f"boundary={at['boundary']}"]),
    ]
    for name, make, of, options in parts:
        if not (folder / "service").exists():  # the commands go on where they were stopped
            make(load(of, [*options, f"out={at[name]}"]))
    return folder


def drawn_users(data: Path, share: float, seed: int) -> pl.Series:
    """The ids of the users who stay where a share of them, drawn by the seed, is taken out."""
    users = pl.read_parquet(data / "users.parquet")["user_id"].sort()
    is_out = np.random.default_rng(seed).random(len(users)) < share
    return users.filter(pl.Series(~is_out))


def measured(config: NewUsersConfig, folder: Path) -> dict[str, Any]:
    """Both figures of one seed, of every row."""
    model, catalogue = Model(folder / "service"), Catalogue.read(folder / "catalogue")
    songs, last = catalogue.rows(config.part), catalogue.plays["played_at"].max()
    known, tested = plays_of(Path(config.data), model, songs)
    often = known.group_by("user_id").len().filter(pl.col("len") >= SHOWN[-1])["user_id"]
    asked = tested["user_id"].unique().sort()
    asked = asked.filter(asked.is_in(often.implode()))
    is_old = asked.is_in(model.user_ids.implode())
    old, new = asked.filter(is_old), asked.filter(~is_old)
    old_NC, new_NC = (liked(tested, ids, songs) for ids in (old, new))
    rows = np.array([model.user_of[user_id] for user_id in old])
    by_old = {BEFORE: figures(model, songs, rows, old_NC)}  # what the training has seen of them
    by_new = {column: figures(model, songs, at, new_NC) for column, at in arriving(model, known, new, last)}
    lists = {
        "most liked by users of the training": old_NC.sum(axis=0),
        "latest": model.songs["released_at"].cast(pl.Int64).to_numpy()[songs],
    }
    recall: list[dict[str, Any]] = [
        {RECALL: name, "0 plays": recall_of(np.tile(value_C, (len(new), 1)), new_NC)} for name, value_C in lists.items()
    ]
    area: list[dict[str, Any]] = []
    for name, by in {"new users": by_new, "users of the training": by_old}.items():
        recall += [
            {RECALL: f"{name}, by {way}"} | {column: found.get(way) for column, found in by.items()}
            for way in ("margin", "the mean of all margins", "taste")
            if any(way in found for found in by.values())
        ]
        area.append({"AUC": name} | {column: found["AUC"] for column, found in by.items()})
    apart = [
        {APART: name} | {column: found.get(key) for column, found in by_new.items()} for name, key in OF_PARTS.items()
    ]
    about = {"users": len(new), "old_users": len(old), "songs": len(songs)}
    return about | {RECALL: recall, "AUC": area, APART: apart}


def plays_of(data: Path, model: Model, songs: IntArray) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Plays of known songs in the order of time, and plays of some new ones that were not disliked."""
    number = pl.DataFrame({"song_id": model.song_ids, "song": np.arange(model.n_songs)})
    plays = pl.read_parquet(data / "plays.parquet").sort("played_at", "user_id", "song_id")
    plays = plays.join(number, on="song_id", maintain_order="left")
    known, new = (plays.filter(pl.col("song").is_in(of.tolist())) for of in (model.catalogue.rows("warm"), songs))
    return known, new.filter(~pl.col("disliked").fill_null(False))


def liked(tested: pl.DataFrame, ids: pl.Series, songs: IntArray) -> BoolArray:
    """Which new songs each user liked, (N, C)."""
    found = tested.join(pl.DataFrame({"user_id": ids, "row": np.arange(len(ids))}), on="user_id")
    liked_NC = np.zeros((len(ids), len(songs)), dtype=bool)
    liked_NC[found["row"].to_numpy(), np.searchsorted(songs, found["song"].to_numpy())] = True
    return liked_NC


def arriving(model: Model, known: pl.DataFrame, new: pl.Series, last: Any) -> Iterator[tuple[str, IntArray]]:
    """New users' rows, each time that they have played more; `last` is when the training's last play was."""
    state, free = State(model), np.array([model.n_users])
    assert model.n_rows - model.n_users >= len(new)
    model.user_UD[free], model.boundary_U[free] = tower_vectors(model, {}, free, [()])  # of who has played nothing
    yield COLUMNS[0], np.repeat(free, len(new))
    plays = known.filter(pl.col("user_id").is_in(new.implode()))
    plays = plays.with_columns(place=pl.int_range(pl.len()).over("user_id"))
    names = ["user_id", "song_id", "played_at", "completed", "favourited", "disliked"]
    place, is_before = pl.col("place"), pl.col("played_at") <= last
    parts = [place.is_between(*between, closed="left") for between in pairwise(SHOWN)]
    parts += [(place >= SHOWN[-1]) & is_before, (place >= SHOWN[-1]) & ~is_before]
    for column, part in zip(COLUMNS[1:], parts, strict=True):
        state.add_plays([Play(**one) for one in plays.filter(part).select(names).iter_rows(named=True)])
        yield column, np.array([state.user(user_id) for user_id in new])


def figures(model: Model, songs: IntArray, rows: IntArray, liked_NC: BoolArray) -> Row:
    """recall@K by margin and by taste, the AUC of margins, and these taken apart, of users by row."""
    margin_NC = model.user_UD[rows] @ model.item_SD[songs].T - model.boundary_U[rows, None]
    taste_NC = model.targeting.taste.user_UD[rows] @ unit_rows(np.asarray(model.index.vectors[songs])).T
    taste = recall_of(taste_NC, liked_NC) if taste_NC.any() else None
    found = {"margin": recall_of(margin_NC, liked_NC), "AUC": auc(margin_NC.ravel(), liked_NC.ravel())}
    return found | {"taste": taste} | taken_apart(margin_NC, liked_NC)


def taken_apart(margin_NC: AnyArray, liked_NC: BoolArray) -> dict[str, float]:
    """Figures within a user: of their margins, of the mean of all users' margins, and how far each spreads over songs.

    What is a user's own is their margin less that mean; by how much it is higher for all songs is no part of it.
    """
    mean_NC = np.broadcast_to(margin_NC.mean(axis=0), margin_NC.shape)
    return {
        "the mean of all margins": recall_of(mean_NC, liked_NC),
        "auc_within": auc_within(margin_NC, liked_NC),
        "auc_mean": auc_within(mean_NC, liked_NC),
        "spread_mean": float(mean_NC[0].std()),
        "spread_own": float((margin_NC - mean_NC).std(axis=1).mean()),
    }


def auc_within(score_NC: AnyArray, liked_NC: BoolArray) -> float:
    """Mean over users of the chance that a song which they liked stands above one that they did not."""
    return float(np.mean([auc(score_C, liked_C) for score_C, liked_C in zip(score_NC, liked_NC, strict=True)]))


def recall_of(score_NC: AnyArray, liked_NC: BoolArray) -> float:
    """recall@K of the songs that users liked."""
    top_NK = top_users(score_NC.astype(np.float32), K).users_CB
    return float(recall_at_k(top_NK, np.arange(len(top_NK)), *np.nonzero(liked_NC)).mean())


if __name__ == "__main__":
    command(main, NewUsersConfig, __doc__)
