"""Recordings searched by words in two languages: labels as the songs have them, and the same translated.

    python -m benchmarks.quality.clip_moodclips data=$FIRSTPLAY_DATA/moodclips out=runs/clip_multilingual seeds=3 \
        towers=[musicnn] "texts=[genres and moods]" "clip=[…,text.model=use-multilingual]"    (docs/results/search.md)
    python -m benchmarks.quality.search_languages clip=runs/clip_multilingual seeds=3

A query is a genre or tag that at least `least=` of a seed's test songs have, or its line in `words=`. All test songs
with a recording stand in the order of their sound alone, of which nothing was trained on; a song is right if it has the
label. Figures are means over queries: the average precision (`map`), and the share of right songs among the first ten
(`P@10`). Writes a JSON file.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import write_json
from benchmarks.quality.clip_moodclips import TOWERS
from benchmarks.quality.text_search import FIRST, figures, labelled
from benchmarks.table import markdown
from configs.errors import UserError
from configs.load import command
from configs.options import at_least, opt
from data.arrays import BoolArray, FloatArray
from data.catalogue import Catalogue
from inference.zeroshot import audio_vectors, label_vectors, run_of

FIGURES = ["queries", "songs", "map", "P@10"]


@dataclass
class SearchLanguagesConfig:
    """Options of this benchmark."""

    clip: str = opt("runs/clip_multilingual", "out= of benchmarks.quality.clip_moodclips")
    tower: str = opt("musicnn", "audio tower of its runs: transformer or musicnn")
    seeds: int = opt(3, "seeds 0 … n−1")
    labels: list[str] = opt(["genres", "tags"], "columns whose values are the queries")
    least: int = opt(4, "test songs that must have a label")
    words: str = opt("benchmarks/quality/labels_zh.tsv", "file of lines: a label, a tab, its translation")
    out: str = opt("runs/search_languages.json", "JSON file to write")


def main(config: SearchLanguagesConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "seeds", "least")
    with open(config.words, encoding="utf-8", newline="") as file:
        translated = dict(csv.reader(file, delimiter="\t"))
    runs = [one_seed(config, Path(config.clip) / f"seed{seed}", translated) for seed in range(config.seeds)]
    write_json(config.out, runs)
    print(markdown("queries in", runs, FIGURES))


def one_seed(config: SearchLanguagesConfig, folder: Path, translated: dict[str, str]) -> list[dict[str, Any]]:
    """Figures of one seed's encoder.

    Raises:
        UserError: it is not there, or a label has no translation.
    """
    made = folder / TOWERS[config.tower][0] / "catalogue"
    if not made.exists():
        raise UserError(f"{made}: not there; run benchmarks.quality.clip_moodclips first")
    catalogue = Catalogue.read(made)
    features = f"{folder}/clip_{config.tower}_0_features"
    sound_SD = audio_vectors(features, catalogue)
    songs = catalogue.rows("cold_test")
    songs = songs[np.isfinite(sound_SD[songs, 0])]
    labels, right_LS = labelled(catalogue, songs, config.labels, config.least)
    if missing := [label for label in labels if label not in translated]:
        raise UserError(f"words={config.words}: no line for {', '.join(missing)}")
    run, cache = run_of(features), catalogue.folder / "text_cache"
    chance = float(right_LS.mean())
    rows: list[dict[str, Any]] = [{"queries in": "chance (share of right songs)", "map": chance, "P@10": chance}]
    for language, words in (("their own words", labels), ("translation", [translated[label] for label in labels])):
        scores_LS = label_vectors(run, words, ["{}"], cache) @ sound_SD[songs].T
        rows.append({"queries in": language, **ranked(scores_LS, right_LS, sound_SD[songs])})
    return [{**row, "queries": len(labels), "songs": len(songs)} for row in rows]


def ranked(scores_LS: FloatArray, right_LS: BoolArray, sound_SD: FloatArray) -> dict[str, float]:
    """Mean average precision and precision among the first ten."""
    first_LK = np.argsort(-scores_LS, axis=1, kind="stable")[:, :FIRST]
    precision = float(np.take_along_axis(right_LS, first_LK, axis=1).mean())
    return {"map": figures(scores_LS, right_LS, sound_SD)["map"], "P@10": precision}


if __name__ == "__main__":
    command(main, SearchLanguagesConfig, __doc__)
