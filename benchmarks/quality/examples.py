"""Songs "like these, not those": what disliked examples are worth in a search, and which weight they should have.

    python -m benchmarks.quality.examples data=$FIRSTPLAY_DATA/emotify clip=RUN out=runs/examples_emotify.json
    python -m benchmarks.quality.examples --config configs/item_cold/netease.yaml \
        data=$FIRSTPLAY_DATA/netease_playlists out=runs/examples_netease.json

A listener names L liked and N disliked songs; the query is `retrieval.queries.example_vector`, as in POST /search. With
data that have dislikes, both are drawn from a listener's marks, by net sign, and the rest of them is ranked. With data
that have none, a listener (a playlist) names L of their songs, is shown what is nearest to these, and dislikes the
first N that are not theirs; all songs but these and the examples are ranked. Right are the listener's other songs.

Half of the listeners choose the weight, the other half reports. Who is asked is nobody whose plays the vectors have
learnt from: the first half asks vectors that one and the other half of it has trained, the second half those of the
first. Beside the encoder's vectors stand untrained ones of content. Figures are means over listeners, of all draws;
intervals are 95 % over listeners (Student's t), of differences paired. Finished parts are kept in work=.

Shapes: N listeners, Q searches of one, W weights, S songs, C candidates, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from omegaconf import MISSING
from tqdm import tqdm

from artifacts.folders import writing
from benchmarks.measure import half_interval, write_json
from benchmarks.quality.examples_table import tables
from benchmarks.quality.listeners import keep_listeners
from benchmarks.table import writable
from configs.data import PrepareConfig
from configs.embedding import EmbedConfig
from configs.errors import UserError
from configs.load import command, load
from configs.options import at_least, opt
from configs.training import I2IConfig
from data.arrays import BoolArray, FloatArray, IntArray
from data.catalogue import Catalogue
from data.fields import read_fields
from data.preparation import prepare
from evaluation.baselines import content_vectors
from inference.embedding import embed
from inference.vectors import encode_songs
from retrieval.index import unit_rows
from retrieval.metrics import auc, ndcg_at_k
from retrieval.queries import DISLIKED, example_vector
from training.tasks import train_i2i

COUNTS, K = (1, 2, 5), 20
CELLS = [(liked, disliked) for liked in COUNTS for disliked in COUNTS]
WEIGHTS = sorted({0.0, DISLIKED, 0.25, 0.5, 0.75, 1.0})  # 0 is the first: without dislikes
NDCG = f"NDCG@{K}"


@dataclass
class ExamplesConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "dataset folder in the data contract")
    out: str = opt("runs/examples.json", "JSON file to write")
    work: str | None = opt(None, "folder for data sets and runs (default: beside out, without .json)")
    seed: int = opt(0, "seed of the halves, the draws and all training")
    draws: int = opt(20, "draws of examples from a listener's songs")
    clip: str | None = opt(None, "run folder of train.py clip that hears the recordings")
    prepare: list[str] = opt([], "options of pipeline.prepare")
    text: list[str] = opt([], "columns whose text becomes a field (without clip=)")
    features: list[str] = opt([], "fields to use, joined by + (empty: all)")
    i2i: list[str] = opt([], "options of train.py i2i")


@dataclass
class Listener:
    """Songs that a listener likes and dislikes, by number."""

    liked: IntArray
    disliked: IntArray


def main(config: ExamplesConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "draws")
    work = Path(config.work or config.out.removesuffix(".json"))
    writable(config.out, work)
    marks = marks_of(Path(config.data))
    listeners = np.random.default_rng(config.seed).permutation(marks["user_id"].unique().sort().to_numpy())
    first, second = np.array_split(listeners, 2)
    one, other = np.array_split(first, 2)
    asked = {"one": (one, other), "other": (other, one), "second": (first, second)}
    found: dict[str, list[dict[str, FloatArray]]] = {}
    for name, (kept, asks) in asked.items():
        spaces, song_ids = vectors_of(config, work, name, kept)
        people = listeners_of(marks, asks, song_ids)
        for space, vectors_SD in spaces.items():
            found.setdefault(space, []).append(measured(vectors_SD, people, config.draws, config.seed))
    report = {
        "weights": WEIGHTS,
        "spaces": {space: summary(parts[:2], parts[2]) for space, parts in found.items()},
    }
    write_json(config.out, report)
    print(tables(report))


def marks_of(data: Path) -> pl.DataFrame:
    """What each listener likes and dislikes: `user_id`, `song_id`, `net` above or below 0.

    With a column `disliked`, by the net sign of favourites and dislikes; ties and plays without either are left out.
    """
    plays = pl.read_parquet(data / "plays.parquet")
    net = pl.lit(1)
    if "disliked" in plays.columns:
        up, down = (pl.col(name).fill_null(False).cast(pl.Int32) for name in ("favourited", "disliked"))
        net = up - down
    marks = plays.with_columns(net=net).group_by("user_id", "song_id").agg(pl.col("net").sum())
    return marks.filter(pl.col("net") != 0).sort("user_id", "song_id")


def listeners_of(marks: pl.DataFrame, user_ids: Any, song_ids: pl.Series) -> list[Listener]:
    """Marks of some listeners, by song number."""
    number = pl.DataFrame({"song_id": song_ids}).with_row_index("song")
    people = marks.join(number, on="song_id").partition_by("user_id", as_dict=True)
    found = [people[(user_id,)].sort("song") for user_id in user_ids if (user_id,) in people]
    of = [(one["song"].to_numpy().astype(np.int64), one["net"].to_numpy() > 0) for one in found]
    return [Listener(song[liked], song[~liked]) for song, liked in of]


def vectors_of(config: ExamplesConfig, work: Path, name: str, kept: Any) -> tuple[dict[str, FloatArray], pl.Series]:
    """Song vectors (S, D) that the plays of some listeners have trained, those of content alone, and the songs' ids."""
    folder, features = work / name, work / "features"
    if not (folder / "dataset").exists():
        with writing(folder / "dataset", "dataset", {"source": "benchmarks.quality.examples"}) as out:
            keep_listeners(Path(config.data), out, kept)
    if not (folder / "catalogue").exists():
        hears = ["audio.store=samples", f"audio.cache={work}/audio"] if config.clip else []
        given = [f"source={folder}/dataset", f"out={folder}/catalogue", "split.by=random", *hears, *config.prepare]
        prepare(load(PrepareConfig, given))
    if (config.clip or config.text) and not features.exists():  # all catalogues have the same songs
        how = f"clip={config.clip}" if config.clip else f"text.fields=[{','.join(config.text)}]"
        embed(load(EmbedConfig, [f"data={folder}/catalogue", f"out={features}", how]))
    fields = [field for one in config.features for field in one.split("+")]
    catalogue, has_features = Catalogue.read(folder / "catalogue"), features.exists()
    options = [
        f"data={catalogue.folder}",
        f"out={folder}/i2i",
        f"seed={config.seed}",
        f"fields.use=[{','.join(fields)}]",
    ]
    options += [f"features={features}"] if has_features else []
    train_i2i(load(I2IConfig, [*options, "trainer.progress=false", "logger.wandb=off", *config.i2i]))
    content = read_fields(catalogue, str(features) if has_features else None, fields, min_count=1)
    trained = encode_songs(folder / "i2i")[1]["vector"]
    spaces = {"encoder": trained, "content": unit_rows(content_vectors(content, catalogue.rows("warm")))}
    return spaces, catalogue.songs["song_id"]


def measured(vectors_SD: FloatArray, people: list[Listener], draws: int, seed: int) -> dict[str, FloatArray]:
    """Each figure of each listener, (N, cells, W), mean over draws; NaN where they have too few songs."""
    told = any(len(one.disliked) for one in people)
    found = {
        figure: np.full((len(people), len(CELLS), len(WEIGHTS)), np.nan)
        for figure in (["AUC", NDCG] if told else [NDCG])
    }
    for row, one in enumerate(tqdm(people, "listeners", leave=False)):
        for at, (liked, disliked) in enumerate(CELLS):
            if len(one.liked) <= liked or (told and len(one.disliked) <= disliked):
                continue
            rng = np.random.default_rng((seed, row, at))
            each = [searched(vectors_SD, one, liked, disliked, told, rng) for _ in range(draws)]
            for figure in found:
                found[figure][row, at] = np.mean([one_draw[figure] for one_draw in each], axis=0)
    return found


def searched(
    vectors_SD: FloatArray, one: Listener, liked: int, disliked: int, told: bool, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Figures (W,) of one search by examples, with each weight."""
    examples = rng.choice(one.liked, liked, replace=False)
    right_S, ranked_S = np.zeros((2, len(vectors_SD)), dtype=bool)
    right_S[np.setdiff1d(one.liked, examples)] = True
    if told:
        those = rng.choice(one.disliked, disliked, replace=False)
        ranked_S[one.liked] = ranked_S[one.disliked] = True
    else:
        score_S = vectors_SD @ example_vector(vectors_SD[examples], vectors_SD[:0])
        score_S[right_S] = score_S[examples] = -np.inf
        those = np.argpartition(-score_S, disliked)[:disliked]
        ranked_S[:] = True
    ranked_S[examples] = ranked_S[those] = False
    query_WD = np.stack([example_vector(vectors_SD[examples], vectors_SD[those], weight) for weight in WEIGHTS])
    score_WC, right_C = (query_WD @ vectors_SD.T)[:, ranked_S], right_S[ranked_S]
    figures = {NDCG: np.array([ndcg(score_C, right_C) for score_C in score_WC])}
    return figures | ({"AUC": np.array([auc(score_C, right_C) for score_C in score_WC])} if told else {})


def ndcg(score_C: FloatArray, right_C: BoolArray) -> float:
    """NDCG@K of one ranking; there is something right."""
    k = min(K, len(score_C))
    top = np.argpartition(-score_C, k - 1)[:k]
    top = top[np.argsort(-score_C[top], kind="stable")]
    items = np.flatnonzero(right_C)
    return float(ndcg_at_k(top[None], np.zeros(1, dtype=np.int64), np.zeros_like(items), items)[0])


def summary(choosing: list[dict[str, FloatArray]], report: dict[str, FloatArray]) -> dict[str, Any]:
    """Of each figure: means of the half that chooses, the weight that it chooses, and rows of the half that reports.

    A weight is chosen by the mean over cells, so that each has its say, however few listeners have the songs for it.

    Raises:
        UserError: a half has fewer than two listeners for every cell.
    """
    found = {}
    for figure, report_NCW in report.items():
        choose_NCW = np.concatenate([part[figure] for part in choosing])
        counts_2C = [(~np.isnan(half_NCW[:, :, 0])).sum(axis=0) for half_NCW in (choose_NCW, report_NCW)]
        cells = np.flatnonzero(np.min(counts_2C, axis=0) >= 2)
        if not len(cells):
            raise UserError("too few listeners have songs enough to name some as examples and look for others")
        mean_W = np.nanmean(choose_NCW[:, cells], axis=0).mean(axis=0)
        has_N = ~np.isnan(report_NCW[:, cells, 0]).all(axis=1)
        each_NW = np.nanmean(report_NCW[has_N][:, cells], axis=1)
        rows = [row(report_NCW[:, at], *CELLS[at]) for at in cells]
        found[figure] = {
            "listeners": int((~np.isnan(choose_NCW[:, cells, 0])).any(axis=1).sum()),
            "choosing": mean_W.tolist(),
            "chosen": WEIGHTS[int(mean_W.argmax())],
            "rows": [*rows, row(each_NW, "all", "all")],
            "more_than_default": difference(each_NW, WEIGHTS.index(DISLIKED)),
        }
    return found


def row(value_NW: FloatArray, liked: int | str, disliked: int | str) -> dict[str, Any]:
    """One row of the report: the figure without dislikes, and what each weight adds to it."""
    value_NW = value_NW[~np.isnan(value_NW).any(axis=1)]
    without, half = interval(value_NW[:, 0])
    about = {"liked": liked, "disliked": disliked, "listeners": len(value_NW)}
    return about | {"without": without, "without_ci95": half, "more": difference(value_NW, 0)}


def difference(value_NW: FloatArray, to: int) -> list[tuple[float, float]]:
    """How much more each weight gives than the one at `to`, and half of its 95 % interval, paired by listener."""
    return [interval(value_N - value_NW[:, to]) for value_N in value_NW.T]


def interval(value_N: FloatArray) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student's t)."""
    return float(value_N.mean()), half_interval(value_N)


if __name__ == "__main__":
    command(main, ExamplesConfig, __doc__)
