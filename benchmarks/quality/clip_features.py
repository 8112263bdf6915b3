"""What audio vectors are worth for the audience of new songs: moodclips' listeners, by what describes the songs.

    python -m benchmarks.quality.clip_moodclips data=$FIRSTPLAY_DATA/moodclips out=runs/clip_moodclips seeds=5
    python -m benchmarks.quality.clip_features clip=runs/clip_moodclips out=runs/clip_features.json seeds=5

On the catalogues, splits and encoders that the first command left: songs described by mel statistics, by their text
(genres and moods through BERT), by musicnn's own vectors, or by what CLIP made of them. For each description the
closed forms of benchmarks/quality/item_cold, tuned on validation songs, and the song encoder `firstplay`; users → songs
and songs → users as there. "less than text" is paired by seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.folders import read_manifest
from artifacts.runs import open_run
from benchmarks.measure import write_json
from benchmarks.quality.clip_moodclips import TOWERS, measure
from benchmarks.quality.item_cold.__main__ import ItemColdConfig, Task, measure_all
from benchmarks.quality.item_cold.folds import read_fold
from benchmarks.quality.item_cold.measure import TO_SONGS, TO_USERS, numbers, row
from benchmarks.quality.item_cold.table import cell, less
from benchmarks.table import lines
from configs.errors import UserError
from configs.load import command
from configs.options import opt
from data.catalogue import Catalogue, read_features
from inference.embedding import KIND as FEATURES
from inference.embedding import write_features
from models.pretrained_audio import OWN

SETS = {  # description → feature vectors
    "text": ["text"],
    "mel statistics": ["mel"],
    "musicnn": ["musicnn"],
    "CLIP audio, transformer": ["audio_transformer"],
    "CLIP audio, musicnn": ["audio_musicnn"],
    "text + CLIP audio, transformer": ["text", "audio_transformer"],
    "text + CLIP audio, musicnn": ["text", "audio_musicnn"],
    "CLIP audio + CLIP text, musicnn": ["audio_musicnn", "text_musicnn"],
}
METHODS = ("content kNN, tuned", "ridge to EASE, tuned", "firstplay")
FIGURES = {TO_SONGS: "Recall@20", "ndcg@20": "NDCG@20", TO_USERS: "songs→users R@50"}


@dataclass
class FeaturesConfig:
    """Options of this benchmark."""

    clip: str = opt("runs/clip_moodclips", "out= of benchmarks.quality.clip_moodclips, with both towers")
    out: str = opt("runs/clip_features.json", "JSON file to write")
    seeds: int = opt(5, "seeds 0 … n−1")
    i2i: list[str] = opt(["trainer.epochs=20", "batch_size=256"], "options of train.py i2i")


def main(config: FeaturesConfig) -> None:
    """Run the command (see the module's docstring)."""
    work = Path(config.out).with_suffix("")
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in SETS}
    for seed in range(config.seeds):
        clip = Path(config.clip) / f"seed{seed}"
        if missing := [tower for tower in TOWERS if not (clip / f"clip_{tower}_0_features").exists()]:
            raise UserError(
                f"{clip} has no encoder of {', '.join(missing)}: run benchmarks.quality.clip_moodclips first"
            )
        features = work / f"seed{seed}" / "features"
        made = {tower: open_run(clip / f"clip_{tower}_0", "clip").fingerprint for tower in TOWERS}
        if not features.exists():
            describe(clip, features, made)
        if read_manifest(features, FEATURES, "this command")["encoders"] != made:
            raise UserError(f"{features} was made by other encoders: remove {work}")
        fold = read_fold(clip / "logmel" / "catalogue", features)
        options = ItemColdConfig(i2i=config.i2i)
        for name, fields in SETS.items():
            for method, figures in measure_all(Task(options, fold, work, name, fields, seed), list(METHODS)):
                found[name].setdefault(method, []).append(figures)
    reference = {method: [numbers(run) for run in runs] for method, runs in found["text"].items()}
    rows = [
        {"method": method, "features": name}
        | row([numbers(run) for run in runs], reference[method] if name != "text" else None)
        for name, of_set in found.items()
        for method, runs in of_set.items()
    ]
    write_json(config.out, rows)
    print("\n\n".join(table(rows, method) for method in METHODS))


def describe(clip: Path, out: Path, encoders: dict[str, str]) -> None:
    """One feature folder with every description of a seed's songs."""
    catalogues = {tower: Catalogue.read(clip / store / "catalogue") for tower, (store, _) in TOWERS.items()}
    ids = [catalogue.songs["song_id"] for catalogue in catalogues.values()]
    assert all(ids[0].equals(one) for one in ids), "the towers' catalogues are of the same songs"
    arrays = {"mel": measure(catalogues[OWN], clip / f"clip_{OWN}_0", OWN)}
    for tower, catalogue in catalogues.items():
        made = read_features(clip / f"clip_{tower}_0_features", catalogue.n_songs)
        arrays |= {f"{name}_{tower}": np.asarray(made[f"clip_{name}"]) for name in ("audio", "text")}
        arrays["text"] = np.asarray(made["text"])
        if tower != OWN:
            arrays[tower] = measure(catalogue, clip / f"clip_{tower}_0", tower)
    write_features(out, arrays, catalogues[OWN], {"encoders": encoders})


def table(rows: list[dict[str, Any]], method: str) -> str:
    """One method's Markdown table, a line for each description."""
    head = [method, *FIGURES.values(), "less than text: R@20", "NDCG@20", "R@50"]
    body = [
        [one["features"], *(cell(one, key) for key in FIGURES), *(less(one, key) for key in FIGURES)]
        for one in rows
        if one["method"] == method
    ]
    return lines(head, body)


if __name__ == "__main__":
    command(main, FeaturesConfig, __doc__)
