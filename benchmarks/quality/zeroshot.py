"""Genres of recordings from a source that the audio encoder never met: zero-shot, and by a linear probe.

    python -m benchmarks.quality.clip_moodclips data=$FIRSTPLAY_DATA/moodclips out=runs/clip_moodclips seeds=5
    python -m benchmarks.quality.zeroshot data=$FIRSTPLAY_DATA/emotify clip=runs/clip_moodclips seeds=5 \
        out=runs/zeroshot

Each of the encoders that the first command trained on moodclips alone names the genres of emotify's 400 recordings
(classical, electronic, pop, rock), from words (pipeline/zeroshot.py) and by logistic regression on its vectors, in five
folds (pipeline/probe.py); beside it the same regression on statistics of the recordings, and chance. `data=` may be any
dataset folder with recordings and one genre a song. Writes results_<tower>.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from artifacts.runs import open_run
from benchmarks.measure import write_json
from benchmarks.quality.clip_moodclips import TOWERS
from benchmarks.table import markdown
from configs.data import PrepareConfig
from configs.embedding import EmbedConfig
from configs.errors import UserError
from configs.load import command, load
from configs.options import opt
from configs.targeting import PROMPTS
from data.arrays import FloatArray
from data.catalogue import Catalogue
from data.preparation import prepare
from data.split import artists
from evaluation.probing import mel_of_songs, probe
from inference.embedding import embed
from inference.zeroshot import accuracy, audio_vectors, label_vectors, own_labels

FOLDS = 5


@dataclass
class BenchmarkConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "dataset folder with recordings and genres, unknown to the encoders")
    clip: str = opt("runs/clip_moodclips", "out= of benchmarks.quality.clip_moodclips")
    tower: str = opt("transformer", "audio tower of the encoders: transformer or musicnn")
    out: str = opt("runs/zeroshot", "folder for the catalogue and results.json")
    seeds: int = opt(5, "seeds 0 … n−1")
    column: str = opt("genres", "column of labels")
    prompts: list[str] = opt(PROMPTS, "ways to write a label")


def main(config: BenchmarkConfig) -> None:
    """Run the command (see the module's docstring)."""
    out = Path(config.out)
    runs = [Path(config.clip) / f"seed{seed}" / f"clip_{config.tower}_0" for seed in range(config.seeds)]
    if missing := [str(run) for run in runs if not (run / "manifest.json").exists()]:
        raise UserError(f"not trained yet: {', '.join(missing)}; run benchmarks.quality.clip_moodclips first")
    store = TOWERS[config.tower][0]
    if not (out / store).exists():
        given = [f"source={config.data}", f"out={out}/{store}", "split.by=random", f"audio.store={store}"]
        prepare(load(PrepareConfig, given))
    catalogue = Catalogue.read(out / store)
    own = own_labels(catalogue, config.column)
    measured = mel_of_songs(catalogue)
    if measured is None:
        raise UserError(f"{config.data}: no song has a recording")
    usable = np.flatnonzero(np.isfinite(measured[:, 0]) & np.array([bool(one) for one in own]))
    rows = [one_run(config, run, catalogue, own, usable, measured, seed) for seed, run in enumerate(runs)]
    write_json(out / f"results_{config.tower}.json", rows)
    print(f"{len(usable)} songs, {len({label for one in own for label in one})} labels, {len(runs)} encoders")
    print(markdown("method", rows, ["accuracy"]))


def one_run(
    config: BenchmarkConfig, path: Path, catalogue: Catalogue, own: Any, usable: Any, measured: Any, seed: int
) -> list[dict[str, Any]]:
    """Rows of one encoder."""
    features = Path(config.out) / f"features_{config.tower}_{seed}"
    embed(load(EmbedConfig, [f"clip={path}", f"data={catalogue.folder}", f"out={features}"]))
    audio = audio_vectors(str(features), catalogue)[usable]
    labels = sorted({label for one in own for label in one})
    words = label_vectors(open_run(path, "clip"), labels, list(config.prompts), catalogue.folder / "text_cache")
    found = accuracy((audio @ words.T).argmax(axis=1), usable, own, labels)
    label = np.array([own[song][0] for song in usable])
    artist = artists(catalogue.songs).to_numpy()[usable]

    def probed(vectors: FloatArray) -> float:
        return float(np.mean(probe(vectors, label, artist, FOLDS, seed)))

    return [
        {"method": "chance", "accuracy": found["chance"]},
        {"method": "most frequent label", "accuracy": found["most_frequent"]},
        {"method": "zero-shot", "accuracy": found["accuracy"]},
        {"method": "linear probe", "accuracy": probed(audio)},
        {"method": "probe of mel statistics", "accuracy": probed(measured[usable])},
    ]


if __name__ == "__main__":
    command(main, BenchmarkConfig, __doc__)
