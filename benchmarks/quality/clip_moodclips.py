"""Audio-text retrieval on moodclips: five splits by artist, CLIP beside a closed form and chance.

    python -m benchmarks.quality.clip_moodclips data=$FIRSTPLAY_DATA/moodclips out=runs/clip_moodclips seeds=5

For seed s, perm = numpy.random.default_rng(s).permutation(sorted artist ids): clips of the first 20 % of the artists
test, of the next 10 % validate, the others train. A hit is the exact clip, ties rank last; clips whose text another
test clip has too are also reported apart. Two audio towers: our Transformer, which hears nothing but the training
clips, and the packaged musicnn, which others trained on a large tagged collection. `ridge` maps statistics of the
recording (mel_statistics of models/audio_encoder.py), or musicnn's vectors, to the text vectors, its strength chosen on
validation. Finished training is kept in out=. Writes results.json; its
seconds are of training, and of the first musicnn run also of the vectors that all others find.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from omegaconf import MISSING

from artifacts.runs import open_run
from benchmarks.measure import read_json, write_json
from benchmarks.table import markdown
from configs.data import PrepareConfig
from configs.embedding import EmbedConfig
from configs.errors import UserError
from configs.load import command, load
from configs.options import opt
from configs.training import ClipConfig
from data.arrays import AnyArray, FloatArray, IntArray
from data.audio.inputs import FrozenAudio
from data.catalogue import Catalogue, read_features
from data.preparation import prepare
from evaluation.probing import mel_of_songs
from inference.embedding import embed, song_data
from models.pretrained_audio import OWN
from retrieval.index import unit_rows
from retrieval.metrics import own_ranks
from training.tasks import train_clip

TEST, VALIDATION = 0.2, 0.1  # of the artists
RIDGES = tuple(10.0**power for power in range(0, 6))
TEXTS = {"genres and moods": "genres,tags", "with title and artist": "title,artist_id,genres,tags"}
CHOSEN = [  # on the validation clips of seeds 0 to 4 (docs/results/clip.md)
    "trainer.epochs=40", "model.layers=2", "model.dropout=0.2", "optim.weight_decay=0.1",
    "text.variants=8", "objective.temperature=0.4", "objective.freq_mask=0", "objective.time_mask=0",
]  # fmt: skip
TOWERS = {  # what of a recording is kept, and the crops
    "transformer": ("logmel", ["model.crop_seconds=10"]),
    "musicnn": ("samples", ["model.crop_seconds=6", "model.crops=5"]),
}
WAYS = ("text→audio", "audio→text")
COLUMNS = [f"{way} {figure}" for way in WAYS for figure in ("R@1", "R@5", "R@10", "median rank")]


@dataclass
class ClipMoodclipsConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "the moodclips folder")
    out: str = opt("runs/clip_moodclips", "folder for all runs and results.json")
    seeds: int = opt(5, "seeds 0 … n−1 of split and training")
    texts: list[str] = opt(list(TEXTS), "what makes a clip's text")
    towers: list[str] = opt(list(TOWERS), "audio towers")
    clip: list[str] = opt(CHOSEN, "options of train.py clip")


def main(config: ClipMoodclipsConfig) -> None:
    """Run the command (see the module's docstring)."""
    if not (Path(config.data) / "songs.parquet").is_file():
        raise UserError(f"{config.data} has no songs.parquet: give data=… the moodclips folder (docs/data.md)")
    for name, given, known in (("texts", config.texts, TEXTS), ("towers", config.towers, TOWERS)):
        if unknown := set(given) - set(known):
            raise UserError(f"{name}={sorted(unknown)}: choose from {', '.join(known)}")
    out = Path(config.out)
    runs: list[list[dict[str, Any]]] = []
    for seed in range(config.seeds):
        runs.append([])
        for tower in config.towers:
            catalogue = split_by_artist(Path(config.data), out, seed, TOWERS[tower][0])
            runs[-1] += [row for text in config.texts for row in one_text(config, catalogue, seed, text, tower)]
    write_json(out / "results.json", runs)
    print(markdown("method", runs, ["clips", *COLUMNS, "seconds"]))


def split_by_artist(data: Path, out: Path, seed: int, store: str) -> Catalogue:
    """The catalogue of one seed's split, made unless it is there; all seeds share the decoded audio."""
    folder = out / f"seed{seed}" / store
    if not (folder / "catalogue").exists():
        songs = pl.read_parquet(data / "songs.parquet")
        artists = np.random.default_rng(seed).permutation(sorted(set(songs["artist_id"])))
        test, both = round(TEST * len(artists)), round((TEST + VALIDATION) * len(artists))
        part = {name: "cold_test" if at < test else "cold_val" for at, name in enumerate(artists[:both])}
        split = songs["artist_id"].replace_strict(part, default="warm", return_dtype=pl.String).alias("split")
        source = folder / "dataset"
        source.mkdir(parents=True, exist_ok=True)
        audio = pl.lit(f"{data.resolve()}/") + pl.col("audio_path")
        songs.with_columns(split, audio.alias("audio_path")).write_parquet(source / "songs.parquet")
        pl.read_parquet(data / "plays.parquet").write_parquet(source / "plays.parquet")
        made = [f"source={source}", f"out={folder}/catalogue", "split.by=column"]
        kept = [f"audio.store={store}", f"audio.cache={out}/audio_{store}"]
        prepare(load(PrepareConfig, [*made, *kept]))
    return Catalogue.read(folder / "catalogue")


def one_text(
    config: ClipMoodclipsConfig, catalogue: Catalogue, seed: int, text: str, tower: str
) -> list[dict[str, Any]]:
    """Rows of one seed, kind of text and tower: over all test clips, and CLIP's also by shared text."""
    run = catalogue.folder.parents[1] / f"clip_{tower}_{list(TEXTS).index(text)}"
    started = time.monotonic()
    given = [f"data={catalogue.folder}", f"out={run}", f"seed={seed}", f"text.fields=[{TEXTS[text]}]"]
    given += [f"audio.model={tower}", *TOWERS[tower][1], "logger.wandb=off", "trainer.progress=false"]
    train_clip(load(ClipConfig, [*given, *config.clip]))
    # Of a run that was found finished, the time it took when it was trained.
    seconds = max(time.monotonic() - started, read_json(run / "seconds.json") or 0.0)
    write_json(run / "seconds.json", seconds)
    features = run.with_name(f"{run.name}_features")
    embed(load(EmbedConfig, [f"clip={run}", f"data={catalogue.folder}", f"out={features}"]))
    found = read_features(features, catalogue.n_songs)
    measured = measure(catalogue, run, tower)
    rows_of = (catalogue.rows(split) for split in ("warm", "cold_val", "cold_test"))
    warm, validation, test = (rows[np.isfinite(measured[rows, 0])] for rows in rows_of)  # that have a recording
    started = time.monotonic()
    ridge_audio, ridge_text = ridge(measured, np.asarray(found["text"]), warm, validation)
    closed = {**retrieval(ridge_audio[test], ridge_text[test]), "seconds": time.monotonic() - started}
    audio, words = (np.asarray(found[name])[test] for name in ("clip_audio", "clip_text"))
    shared = pl.DataFrame(np.asarray(found["text"])[test]).is_duplicated().to_numpy()
    trained_rows = [("", None), (", text of one clip", ~shared), (", text of several", shared)]
    rows = [{"method": f"{tower}: ridge", **closed}]
    rows += [
        {"method": f"{tower}: firstplay{kind}", **retrieval(audio, words, of), "seconds": seconds}
        for kind, of in trained_rows
    ]
    if tower == config.towers[0]:
        rows.insert(0, {"method": "chance", **chance(len(test)), "seconds": 0.0})
    return [row | {"method": f"{text}: {row['method']}"} for row in rows]


def measure(catalogue: Catalogue, run: Path, tower: str) -> FloatArray:
    """What the closed form hears of each recording, (songs, K): statistics, or the published encoder's vectors."""
    if tower == OWN:
        measured = mel_of_songs(catalogue)
        assert measured is not None
        return measured
    data = song_data(open_run(run, "clip"), EmbedConfig(data=str(catalogue.folder)), catalogue)
    vectors_SCK = FrozenAudio(data.crops, tower, data.inputs, catalogue.folder)[np.arange(catalogue.n_songs)]
    return vectors_SCK.mean(axis=1)


def ridge(
    x_SK: FloatArray, text_SB: FloatArray, train: IntArray, validation: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Unit vectors of all recordings and texts: y ≈ Wx with the strength that does best on validation.

    x is standardised, y a text's vector less the mean, both over the training songs, y scaled to length 1.
    """
    z_SK = (x_SK - x_SK[train].mean(axis=0)) / (x_SK[train].std(axis=0) + 1e-6)
    y_SB = unit_rows(text_SB - text_SB[train].mean(axis=0))
    gram_KK, cross_KB = z_SK[train].T @ z_SK[train], z_SK[train].T @ y_SB[train]
    tried = (
        unit_rows(z_SK @ np.linalg.solve(gram_KK + strength * np.eye(len(gram_KK)), cross_KB)) for strength in RIDGES
    )

    def value(found_SB: FloatArray) -> float:
        figures = retrieval(found_SB[validation], y_SB[validation])
        return sum(figures[f"{way} R@10"] for way in WAYS)

    return max(tried, key=value), y_SB


def retrieval(audio_ND: FloatArray, text_ND: FloatArray, of: AnyArray | None = None) -> dict[str, float]:
    """Figures of both directions among all N clips, of the queries `of` (mask) alone where it is given."""
    kept = np.ones(len(audio_ND), dtype=bool) if of is None else of
    figures: dict[str, float] = {"clips": int(kept.sum())}
    for way, query, item in ((WAYS[0], text_ND, audio_ND), (WAYS[1], audio_ND, text_ND)):
        rank = own_ranks(query, item)[kept]
        figures |= {f"{way} R@{k}": float((rank <= k).mean()) if len(rank) else 0.0 for k in (1, 5, 10)}
        figures[f"{way} median rank"] = float(np.median(rank)) if len(rank) else 0.0
    return figures


def chance(n: int) -> dict[str, float]:
    """What random vectors are expected to find among n clips."""
    figures = {f"{way} R@{k}": min(k, n) / n for way in WAYS for k in (1, 5, 10)}
    return {"clips": n} | figures | {f"{way} median rank": (n + 1) / 2 for way in WAYS}


if __name__ == "__main__":
    command(main, ClipMoodclipsConfig, __doc__)
