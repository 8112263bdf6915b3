"""Linear probing: predict a label from frozen song vectors, tested on held-out songs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from artifacts.folders import write_json
from configs.errors import UserError
from configs.targeting import ProbeConfig
from data.arrays import AnyArray, FloatArray, IntArray
from data.audio.crops import CropReader
from data.catalogue import Catalogue, read_features
from data.fields import check_same_songs
from data.split import artists
from datamodules.clip import FRAME_OPTIONS
from inference.zeroshot import own_labels
from models.audio_encoder import mel_statistics
from models.audio_front import AudioFront

SONGS = 64  # per batch
STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # C of the logistic regression, chosen by validation


def probe_features(config: ProbeConfig) -> None:
    """Run `pipeline.probe` (its docstring says what it reads and writes)."""
    catalogue = Catalogue.read(config.data)
    own = own_labels(catalogue, config.column)
    spaces = spaces_of(catalogue, config)
    usable = np.array([bool(labels) for labels in own])
    for vectors in spaces.values():
        usable &= np.isfinite(vectors).all(axis=1)
    songs = np.flatnonzero(usable)
    label = np.array([own[song][0] for song in songs])
    _, counts = np.unique(label, return_counts=True)
    if len(songs) < 2 * config.folds or len(counts) < 2:
        raise UserError(
            f"{len(songs)} songs have every vector and a label, {len(counts)} labels among them: too few for "
            f"folds={config.folds} (at least 2, with two songs each, and two labels)"
        )
    artist = artists(catalogue.songs).to_numpy()[songs]
    rows: list[dict[str, Any]] = [{"space": "most frequent label", "accuracy": float(counts.max() / len(label))}]
    for name, vectors in tqdm(spaces.items(), desc="probe"):
        try:
            scores = probe(vectors[songs], label, artist, config.folds, config.seed)
        except ValueError as error:
            raise UserError(
                f"{config.column}: folds={config.folds} that share no artist cannot be made of {len(songs)} songs by "
                f"{len(np.unique(artist))} artists with {len(counts)} labels ({str(error).splitlines()[0]})"
            ) from None
        rows.append({"space": name, "accuracy": float(np.mean(scores)), "folds": scores})
    if config.out:
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(config.out), {"column": config.column, "songs": len(songs), "rows": rows})
    print(f"{config.column} of {len(songs):,} songs, {len(counts)} labels, {config.folds} folds")
    for row in rows:
        spread = f" ± {np.std(row['folds'], ddof=1):.3f} over folds" if "folds" in row else ""
        print(f"  {row['space']:<24} {row['accuracy']:.3f}{spread}")


def spaces_of(catalogue: Catalogue, config: ProbeConfig) -> dict[str, FloatArray]:
    """Select the vectors to probe: those of `use`, and `mel statistics` if there are recordings.

    Raises:
        UserError: a name is unknown, or the vectors are of other songs.
    """
    features = read_features(Path(config.features), catalogue.n_songs) if config.features else {}
    features |= catalogue.features()
    unknown = [name for name in config.use if name not in features]
    if unknown:
        raise UserError(f"use={unknown}: there are {', '.join(features) or 'no vectors; give features='}")
    if config.features:
        check_same_songs(catalogue, Path(config.features))
    spaces = {name: np.asarray(features[name]) for name in config.use}
    measured = mel_of_songs(catalogue)
    return spaces if measured is None else spaces | {"mel statistics": measured}


def mel_of_songs(catalogue: Catalogue) -> FloatArray | None:
    """`mel_statistics` of whole recordings, (songs, statistics × bands); NaN without audio; None if no song has any."""
    audio = catalogue.manifest["audio"]
    whole = CropReader(catalogue, None, crops=1)
    heard = np.flatnonzero(whole.length)
    if not len(heard):
        return None
    front = AudioFront(**{name: audio[name] for name in FRAME_OPTIONS}).eval()
    parts = []
    for at in tqdm(range(0, len(heard), SONGS), desc="mel statistics"):
        crops = {name: values[:, 0] for name, values in whole.fixed(heard[at : at + SONGS]).items()}
        logmel, frames = front(crops)
        missing = (frames == 0).unsqueeze(1)  # an unreadable file
        parts.append(mel_statistics(logmel, frames).flatten(1).masked_fill(missing, torch.nan))
    measured = torch.cat(parts).numpy()
    statistics = np.full((catalogue.n_songs, measured.shape[1]), np.nan, dtype=np.float32)
    statistics[heard] = measured
    return statistics


def probe(x_ND: FloatArray, label_N: AnyArray, group_N: AnyArray, folds: int, seed: int) -> list[float]:
    """Cross-validated accuracy of a logistic regression, by fold; folds share no group (artist)."""
    outer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    scores = []
    for train, test in outer.split(x_ND, label_N, group_N):
        inner: Any = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
        splits: list[tuple[IntArray, IntArray]] = list(inner.split(x_ND[train], label_N[train], group_N[train]))
        model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=STRENGTHS, cv=splits, max_iter=2000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (ConvergenceWarning, FutureWarning))
            model.fit(x_ND[train], label_N[train])
        scores.append(float(model.score(x_ND[test], label_N[test])))
    return scores
