"""What are contrastive views worth when most of the catalogue has no plays? A simulation on the built-in world.

    python -m pipeline.world out=runs/world_without_audio audio=false
    python -m benchmarks.quality.unplayed data=runs/world_without_audio out=runs/unplayed.json

For each share of the known songs, all plays of that many songs are taken away, drawn by the seed; these songs stay in
the catalogue. The teacher is phi, which knows no popularity, or the cosine, which is led by it. The article's encoder
(BPR on pairs, no residual embeddings) is trained without views, with complementary and with anchored ones. Each has
three settings, of which validation songs choose: of the views' weight λ, or without views of the dropout. New songs are
a tenth of the songs, drawn by the seed, and another tenth validates. Finished runs are kept in work=.
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
from benchmarks.measure import read_json, write_json
from benchmarks.quality.item_cold import encoders
from benchmarks.quality.item_cold.__main__ import options_of, slug
from benchmarks.quality.item_cold.folds import Fold, feature_sets, make_fold
from benchmarks.quality.item_cold.measure import TO_SONGS, TO_USERS, row, to_users, tuned
from benchmarks.table import lines, writable
from configs.load import command, load
from configs.options import opt
from configs.training import I2IConfig
from data.arrays import FloatArray
from training.tasks import train_i2i

DROPOUTS, WEIGHTS = (0.1, 0.3, 0.5), (0.03, 0.1, 0.3)
NONE = "no views"
VIEWS = {
    view: [f"objective.views={view} objective.bcl_weight={w}" for w in WEIGHTS]
    for view in ("complementary", "anchored")
}
METHODS = {NONE: [f"objective.bcl_weight=0 model.dropout={rate}" for rate in DROPOUTS]} | VIEWS
FIGURES = {
    TO_SONGS: "Recall@20",
    TO_USERS: "songs→users R@50",
    f"{TO_USERS}_rare": "rare third",
    "effective_rank": "effective rank",
    "neighbour_popularity": "neighbours' popularity",
}


@dataclass
class UnplayedConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "dataset folder, such as python -m pipeline.world writes")
    out: str = opt("runs/unplayed.json", "JSON file to write")
    work: str | None = opt(None, "folder for data sets and runs (default: beside out, without .json)")
    seeds: int = opt(3, "seeds 0 … n−1 of the songs that are new, those without plays, and of all training")
    shares: list[float] = opt([0.0, 0.5, 0.8, 0.95], "shares of the known songs whose plays are taken away")
    teachers: list[str] = opt(["phi", "cosine"], "collaborative similarities that make the pairs")
    text: list[str] = opt(["title", "lyrics"], "columns whose text makes a field")
    i2i: list[str] = opt(["trainer.epochs=10", "batch_size=512"], "further options of train.py i2i, for all methods")


def main(config: UnplayedConfig) -> None:
    """Run the command (see the module's docstring)."""
    work = Path(config.work or config.out.removesuffix(".json"))
    writable(config.out, work)
    cases = [(teacher, share) for teacher in config.teachers for share in config.shares]
    rows = []
    for teacher, share in tqdm(cases, desc="shares"):
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
        for seed in range(config.seeds):
            fold = fold_of(config, work, teacher, share, seed)
            for name in METHODS:
                runs[name].append(measured(config, fold, name, seed))
        rows += [
            {"teacher": teacher, "share": share, "method": name} | row(found, None if name == NONE else runs[NONE])
            for name, found in runs.items()
        ]
    write_json(config.out, rows)
    print(table(rows))


def fold_of(config: UnplayedConfig, work: Path, teacher: str, share: float, seed: int) -> Fold:
    """The data of one case, prepared."""
    source = work / f"without_{share:g}_seed{seed}"
    if not source.exists():
        with writing(source, "dataset", {"source": "benchmarks.quality.unplayed", "without_plays": share}) as folder:
            take_plays_away(Path(config.data), folder, share, seed)
    options = ["split.by=column", f"pairs.similarity={teacher}"]
    return make_fold(source, work / f"{teacher}_{source.name}", seed, options, list(config.text))


def take_plays_away(data: Path, out: Path, share: float, seed: int) -> None:
    """Write the data set with a `split` of a tenth new songs for each part, and known songs without their plays."""
    rng = np.random.default_rng(seed)
    songs = pl.read_parquet(data / "songs.parquet")
    part = np.array(["warm"] * songs.height, dtype=object)
    cold = rng.permutation(songs.height)[: songs.height // 5]
    part[cold[::2]], part[cold[1::2]] = "cold_test", "cold_val"
    silent = rng.random(songs.height) < share
    songs.with_columns(split=pl.Series(part.tolist())).write_parquet(out / "songs.parquet")
    taken = songs["song_id"].filter(pl.Series(silent & (part == "warm")))
    plays = pl.scan_parquet(data / "plays.parquet").filter(~pl.col("song_id").is_in(taken.implode()))
    plays.sink_parquet(out / "plays.parquet")
    if (data / "users.parquet").exists():
        pl.read_parquet(data / "users.parquet").write_parquet(out / "users.parquet")


def measured(config: UnplayedConfig, fold: Fold, name: str, seed: int) -> dict[str, float]:
    """Test figures of a method in the setting that finds most listeners of validation songs."""
    path = fold.folder.parent / f"{slug(name)}.json"
    found: dict[str, Any] | None = read_json(path)
    if found is None:
        fields = next(iter(feature_sets(Path(config.data), fold, []).values()))
        best = -1.0
        for number, setting in enumerate(METHODS[name]):
            run = fold.folder.parent / "runs" / f"{slug(name)}_{number}"
            options = [*encoders.ARTICLE.split(), *config.i2i, *setting.split()]
            train_i2i(load(I2IConfig, [*options_of(fold, fields, seed, run), *options]))
            outputs = encoders.outputs(fold, run)
            ways = encoders.ways(fold, outputs)
            val = [to_users(way["cold_val"].users, fold.parts["cold_val"], fold.plays_UW, 0.0) for way in ways.values()]
            if (value := max(one[TO_USERS] for one in val)) > best:
                best, found = value, figures_of(fold, outputs.vectors, ways) | {"setting": setting}
        write_json(path, found)
    return {key: value for key, value in (found or {}).items() if isinstance(value, int | float)}


def figures_of(fold: Fold, vectors: FloatArray, ways: encoders.Ways) -> dict[str, Any]:
    """Test figures by the way of scoring that is best on validation, and what the vectors are like."""
    figures, chosen = tuned([(way, way) for way in ways], (0.0,), ways.__getitem__, fold.parts, fold.plays_UW)
    similar = encoders.similar_songs(fold, vectors, fold.parts["cold_test"].songs)
    shape = {"effective_rank": encoders.effective_rank(vectors[fold.known])}
    return figures | encoders.neighbour_popularity(fold, similar) | shape | {"chosen": chosen}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean ± standard deviation over the seeds, and the difference to the encoder without views."""
    body = []
    for one in rows:
        cells = [f"{one[key]:.3f} ± {one[f'{key}_std']:.3f}" for key in FIGURES]
        less = (
            f"{-one[f'{TO_USERS}_less']:+.3f} ± {one.get(f'{TO_USERS}_less_ci95', 0):.3f}"
            if one["method"] != NONE
            else ""
        )
        body.append([one["teacher"], f"{one['share']:.0%}", one["method"], *cells, less])
    return lines(["teacher", "without plays", "method", *FIGURES.values(), "R@50 more (95 %)"], body)


if __name__ == "__main__":
    command(main, UnplayedConfig, __doc__)
