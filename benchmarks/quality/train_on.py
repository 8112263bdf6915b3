"""Training on from an earlier run (`start=`) beside training anew: what the next new songs' listeners are found by.

    python -m pipeline.world out=runs/world_without_audio audio=false
    python -m benchmarks.quality.train_on data=runs/world_without_audio out=runs/train_on.json \
        cutoffs=[2026-05-25,2026-06-01,2026-07-15]

Each of the cutoffs but the last is a day on which a catalogue is prepared: songs released before it are known, those
from there to the next cutoff are new. Rows are measured on the new songs of the last catalogue, with the plays before
it: the encoder of the first catalogue as it was; one trained anew; and for each of `settings` one that was trained on
from catalogue to catalogue. Users and songs meet by taste; validation songs choose the weight of the item bias.
Seconds are processor seconds of the last training. Finished runs are kept in work=.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from tqdm import tqdm

from benchmarks.measure import read_json, write_json
from benchmarks.quality.item_cold import encoders
from benchmarks.quality.item_cold.__main__ import best_way, options_of
from benchmarks.quality.item_cold.folds import Fold, make_fold
from benchmarks.quality.item_cold.measure import TO_SONGS, TO_USERS, row
from benchmarks.table import lines, writable
from configs.errors import UserError
from configs.load import command, load
from configs.options import at_least, opt
from configs.training import I2IConfig
from training.tasks import train_i2i

ANEW, EARLIER = "anew", "the first run as it was"
FIGURES = {TO_SONGS: "Recall@20", TO_USERS: "songs→users R@50"}


@dataclass
class TrainOnConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "dataset folder with days of release")
    cutoffs: list[str] = opt(MISSING, "days of the catalogues, YYYY-MM-DD, and the end of the last one's new songs")
    out: str = opt("runs/train_on.json", "JSON file to write")
    work: str | None = opt(None, "folder for catalogues and runs (default: beside out, without .json)")
    seeds: int = opt(3, "seeds 0 … n−1 of all training; the split is by date")
    prepare: list[str] = opt([], "options of pipeline.prepare, such as pairs.top_k=50")
    text: list[str] = opt(["title", "lyrics"], "columns whose text makes a field `text`")
    fields: list[str] = opt([], "fields to use (empty: all)")
    i2i: list[str] = opt([], "options of train.py i2i, for all rows")
    settings: list[str] = opt(["trainer.epochs=1"], "options of training on, a row each; in one text, with spaces")


def main(config: TrainOnConfig) -> None:
    """Run the command (see the module's docstring).

    Raises:
        UserError: there is no second catalogue.
    """
    at_least(config, 1, "seeds")
    if len(config.cutoffs) < 3:
        raise UserError(f"cutoffs={config.cutoffs}: name two days and the end of the last one's new songs, or more")
    work = Path(config.work or config.out.removesuffix(".json"))
    writable(config.out, work)
    folds: list[Fold] = []
    for days in pairwise(config.cutoffs):
        folds.append(fold_of(config, work, *days, folds[-1].features if folds else None))
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in tqdm(range(config.seeds), desc="seeds"):
        for name, figures in measured(config, folds, seed).items():
            runs.setdefault(name, []).append(figures)
    reference = runs[ANEW]
    rows = [{"method": name} | row(found, None if name == ANEW else reference) for name, found in runs.items()]
    write_json(config.out, {"catalogues": [fold.catalogue.manifest["counts"] for fold in folds], "rows": rows})
    print(table(rows))


def fold_of(config: TrainOnConfig, work: Path, cutoff: str, until: str, earlier: str | None) -> Fold:
    """The catalogue of a day, prepared unless that is done; its songs keep `earlier` vectors of their texts."""
    options = ["split.by=time", f"split.cutoff={cutoff}", f"split.until={until}", *config.prepare]
    folder = work / cutoff / "prepared"
    return make_fold(Path(config.data), folder, 0, options, list(config.text), earlier=earlier)


def measured(config: TrainOnConfig, folds: list[Fold], seed: int) -> dict[str, dict[str, float]]:
    """Figures of all rows of one seed."""
    last = folds[-1]
    first, took = trained(config, folds[0], "full", seed, [])
    found = {EARLIER: figures_of(last, first) | {"seconds": took}}
    run, took = trained(config, last, "full", seed, [])
    found[ANEW] = figures_of(last, run) | {"seconds": took}
    for number, setting in enumerate(config.settings):
        run = first
        for fold in folds[1:]:
            run, took = trained(config, fold, f"on_{number}", seed, [f"start={run}", *setting.split()])
        found[f"trained on, {setting}"] = figures_of(last, run) | {"seconds": took}
    return found


def trained(config: TrainOnConfig, fold: Fold, name: str, seed: int, more: list[str]) -> tuple[Path, float]:
    """The run folder of a training, and the processor seconds that it took."""
    run = fold.folder.parents[1] / "runs" / str(seed) / name
    kept = run.with_suffix(".json")
    began = time.process_time()
    train_i2i(load(I2IConfig, [*options_of(fold, list(config.fields), seed, run), *config.i2i, *more]))
    if not kept.exists():
        write_json(kept, {"seconds": time.process_time() - began})
    return run, float((read_json(kept) or {})["seconds"])


def figures_of(fold: Fold, run: Path) -> dict[str, float]:
    """Test figures of an encoder on a catalogue that need not be its own."""
    found = encoders.outputs(fold, run)
    scores = {part: encoders.score(fold, found, held.songs) for part, held in fold.parts.items()}
    ways: Any = {f"{weight}": {part: of[weight] for part, of in scores.items()} for weight in scores["cold_test"]}
    return best_way(fold, ways)[0]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean ± standard deviation over the seeds, and how much more than trained anew (95 % interval)."""
    body = []
    for one in rows:
        cells = [f"{one[key]:.3f} ± {one[f'{key}_std']:.3f}" for key in FIGURES]
        more = [
            f"{-one[f'{key}_less']:+.3f} ± {one.get(f'{key}_less_ci95', 0):.3f}" if f"{key}_less" in one else "–"
            for key in FIGURES
        ]
        body.append([one["method"], *cells, *more, f"{one['seconds']:.0f}"])
    head = ["encoder", *FIGURES.values(), *(f"{name}, more than {ANEW}" for name in FIGURES.values()), "seconds"]
    return lines(head, body)


if __name__ == "__main__":
    command(main, TrainOnConfig, __doc__)
