"""A service folder of any size, of generated songs and listeners: the files that pipeline.service writes, but for
training. Weights are random, of the demo's sizes; songs' and items' vectors are what these weights make of features
around genre centres, so that genres stay apart; users are the mean of what they heard.

Shapes: S songs, the new ones last, U users, D vector size, W width of a feature.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import torch
from scipy import sparse
from tqdm import tqdm

from artifacts.fingerprints import of_values
from artifacts.folders import write_json, write_manifest, writing
from artifacts.runs import VOCABULARY
from benchmarks.speed.audience_scale import GENRES, listening_of
from configs.data import AudioConfig
from configs.ranking import RankConfig, TreesConfig
from configs.targeting import IndexConfig, TargetingConfig
from configs.training import BoundaryConfig, ClipConfig, I2IConfig, I2IModelConfig
from data.arrays import FloatArray
from data.catalogue import Catalogue
from data.fields import column_codes
from export.model import CLASSES, model_class, write_weights
from export.service import KIND, index_words, write_codes, write_listening, write_plays
from inference.ranking import ABOUT, MODEL, RUN, like
from inference.song_index import KIND as INDEX
from inference.song_index import built, read_index, tuned, write_songs
from models.pretrained_audio import OWN
from retrieval.audience import slices
from retrieval.clusters import user_vectors
from retrieval.gate import probability
from retrieval.index import to_cpu, unit_rows
from retrieval.rank_features import FEATURES
from retrieval.ranking import LABELS, Examples
from training.rank_trees import fit_trees

CHUNK, SAMPLE = 20_000, 200  # songs or users at a time; new songs by which boundaries are set
OPEN = 0.05  # share of the new songs that is above a user's boundary
FIRST_MS, YEAR_MS = 1_750_000_000_000, 365 * 24 * 3600 * 1000  # the first play; new songs come a year later
RANKED = 20, 500  # songs and candidates of each to which the ranker is fitted
DIM = I2IModelConfig().dim
DENSE = {"clip_audio": 128, "clip_text": 128}
TEXTS = 1000  # different titles and lyrics
WORDS = np.array(["rain", "night", "love", "road", "home", "fire", "river", "dance", "blue", "heart", "star", "dust"])
COUNTRIES = [f"country {number}" for number in range(10)]
SONG_VOCABULARY = {
    "language": ["en", "zh"],
    "genres": [f"genre {number}" for number in range(GENRES)],
    "artist_id": [f"artist {number}" for number in range(1000)],
}


@contextmanager
def folder_to_serve(
    work: Path, model: str | None, users: int, songs: int, new: int, plays: int, seed: int, dim: int = DIM
) -> Iterator[Path]:
    """The service folder `model`, or one that is generated in `work`, which is emptied at the start and at the end."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        folder = Path(model or work / "service")
        if model is None:
            write_world(folder, users, songs, new, plays, seed, dim)
        yield folder
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_world(out: Path, users: int, songs: int, new: int, plays: int, seed: int, dim: int = DIM) -> None:
    """Write the folder, song vectors of `dim` numbers; fewer plays than asked for where a user played a song twice."""
    rng, models = np.random.default_rng(seed), random_models(seed, dim)
    manifest = {
        **{of: of_values(of, users, songs, new, plays, seed, dim) for of in ("clip", "encoder", "boundary", "ranker")},
        "calibration": [0.5, 0.0],
        "labels": SONG_VOCABULARY["genres"],
        "text": {"model": "minilm", "fields": ["title", "lyrics"], "max_tokens": 128, "windows": 1},
        "audio": asdict(AudioConfig()),
        "audio_root": "",
        "targeting": asdict(TargetingConfig()),
    }
    with writing(out, KIND, manifest) as folder:
        for task, (model, config) in models.items():
            (folder / task).mkdir()
            write_weights(model.state_dict(), config, folder / task)
        table, listening = song_table(songs, new, rng), listening_of(users, songs, new, plays, rng)
        write_catalogue(folder / "catalogue", table, listening, rng)
        (folder / "features").mkdir()
        for field, width in DENSE.items():
            np.save(folder / "features" / f"{field}.npy", around_genres(songs + new, width, rng))
        write_codes(table, SONG_VOCABULARY, folder / "codes")
        np.save(folder / "labels.npy", around_genres(GENRES, DENSE["clip_audio"], rng))
        vectors, items = encoded(folder, table, models)
        write_users(folder, listening, items, new)
        write_index(folder / "index", vectors, str(manifest["encoder"]), seed)
        index, _ = read_index(folder / "index")
        catalogue = Catalogue.read(folder / "catalogue")
        write_listening(index, catalogue, TargetingConfig(), folder)
        write_plays(catalogue, folder / "plays")
        fields: list[FloatArray] = [np.load(folder / "features" / f"{field}.npy", mmap_mode="r") for field in DENSE]
        index_words(fields, catalogue.rows("warm"), folder / "words")
        (folder / "catalogue" / "plays.parquet").unlink()
        write_ranker(folder / "rank", manifest, seed)


def random_models(seed: int, dim: int) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Models by task, in evaluation mode, and what their config.json says."""
    clip, i2i, boundary, audio = ClipConfig(), I2IConfig(), BoundaryConfig(), AudioConfig()
    sizes = {name: len(values) + 2 for name, values in SONG_VOCABULARY.items()}
    front = {name: getattr(audio, name) for name in ("sample_rate", "n_mels", "win_length", "hop_length")}
    hears = {name: getattr(clip.model, name) for name in ("width", "layers", "heads")}
    of_songs = {"dense_dims": DENSE, "vocab_sizes": sizes, "block": i2i.fields.block}
    widths = ("field_dim", "hidden", "dim", "dropout")
    vectors = {name: getattr(i2i.model, name) for name in (*widths, "normalise", "input_dropout")} | {"dim": dim}
    towers = {name: getattr(boundary.model, name) for name in (*widths, "prior_plays")}
    given: dict[str, dict[str, Any]] = {
        "clip": {"front": front, "audio": {"model": OWN, "frozen": True, "dim": 0, **hears},
                 "text": {"model": "minilm", "frozen": True, "dim": 384}, "dim": DENSE["clip_audio"],
                 "dropout": clip.model.dropout, "temperature": clip.objective.temperature},
        "i2i": of_songs | vectors,
        "boundary": of_songs | towers | {"profile_sizes": {"country": len(COUNTRIES) + 2}, "n_numbers": 0},
    }  # fmt: skip
    common = {
        "vocabulary": {"songs": SONG_VOCABULARY, "users": {"country": COUNTRIES}},
        "prepared": {"text_model": "minilm", "text_fields": ["title", "lyrics"], "max_tokens": 128, "windows": 1,
                     "frozen_text": True, "audio_model": OWN, "frozen_audio": True,
                     "crop_seconds": clip.model.crop_seconds, "crops": clip.model.crops},
        "trained_with": {"model": {"history": boundary.model.history}},
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models: dict[str, Any] = {task: model_class(task)(**given[task]).eval() for task in given}
    return {
        task: (model, {"task": task, "class": CLASSES[task], "model": given[task], **common})
        for task, model in models.items()
    }


def song_table(songs: int, new: int, rng: np.random.Generator) -> pl.DataFrame:
    """songs.parquet of a catalogue, the new songs last."""
    n = songs + new
    number = np.arange(n)
    words = {"title": 3, "lyrics": 40}
    texts = {
        name: pl.Series([" ".join(line) for line in WORDS[rng.integers(0, len(WORDS), (TEXTS, size))]])
        for name, size in words.items()
    }
    one_of = {name: pl.Series(values) for name, values in SONG_VOCABULARY.items()}
    return pl.DataFrame({
        "song_id": ids("s", n),
        **{name: texts[name].gather(rng.integers(0, TEXTS, n)) for name in words},
        "language": one_of["language"].gather(rng.integers(0, len(one_of["language"]), n)),
        "genres": one_of["genres"].gather(number % GENRES).reshape((n, 1)).cast(pl.List(pl.String)),
        "tags": pl.Series([None], dtype=pl.List(pl.String)).gather(np.zeros(n, dtype=np.int64)),
        "artist_id": one_of["artist_id"].gather(rng.integers(0, len(one_of["artist_id"]), n)),
        "released_at": pl.Series(FIRST_MS + np.where(number < songs, -YEAR_MS, YEAR_MS)).cast(pl.Datetime("ms")),
        "split": pl.Series(["cold_test", "warm"]).gather((number < songs).astype(np.int64)),
    })  # fmt: skip


def ids(prefix: str, n: int) -> pl.Series:
    """Ids such as s17."""
    return pl.select(pl.format(f"{prefix}{{}}", pl.int_range(n))).to_series()


def write_catalogue(folder: Path, songs: pl.DataFrame, listening: sparse.csr_matrix, rng: np.random.Generator) -> None:
    """songs, users and plays; a user's plays are in random order, spread over a year."""
    folder.mkdir()
    songs.write_parquet(folder / "songs.parquet")
    n_users = listening.shape[0]
    country = pl.Series(COUNTRIES).gather(rng.integers(0, len(COUNTRIES), n_users))
    pl.DataFrame({"user_id": ids("u", n_users), "country": country}).write_parquet(folder / "users.parquet")
    user = np.repeat(np.arange(n_users, dtype=np.int32), np.diff(listening.indptr))
    when = rng.integers(0, YEAR_MS, listening.nnz)
    order = np.lexsort((when, user))
    pl.DataFrame({
        "user": user[order],
        "song": listening.indices[order].astype(np.int32),
        "strength": listening.data[order],
        "completed": listening.data[order] >= 2,
        "favourited": listening.data[order] >= 3,
        "played_at": pl.Series(FIRST_MS + when[order]).cast(pl.Datetime("ms")),
    }).write_parquet(folder / "plays.parquet")  # fmt: skip
    write_manifest(folder, "catalogue", {"of": "generated"})


def around_genres(n: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Unit vectors (n, W) around the centre of each one's genre."""
    vectors = rng.standard_normal((n, width), dtype=np.float32)
    centre = rng.standard_normal((GENRES, width), dtype=np.float32)
    for rows in slices(n, CHUNK):
        vectors[rows] = unit_rows(vectors[rows] + centre[np.arange(rows.start, rows.stop) % GENRES])
    return vectors


@torch.inference_mode()
def encoded(folder: Path, songs: pl.DataFrame, models: dict[str, tuple[Any, Any]]) -> tuple[FloatArray, FloatArray]:
    """Song vectors and item vectors of all songs, each (S, D), as `serving.encoder` makes them."""
    dense = {name: np.load(folder / "features" / f"{name}.npy", mmap_mode="r") for name in DENSE}
    vectors, items = [], []
    for rows in tqdm(list(slices(songs.height, CHUNK)), "vectors of songs"):
        given = {name: torch.from_numpy(np.array(dense[name][rows])) for name in DENSE}
        for name, values in SONG_VOCABULARY.items():
            given[name] = torch.from_numpy(column_codes(songs[rows], name, values))
        vectors.append(models["i2i"][0](given).numpy())
        items.append(models["boundary"][0].item(given).numpy())
    return np.concatenate(vectors), np.concatenate(items)


def write_users(folder: Path, listening: sparse.csr_matrix, items: FloatArray, new: int) -> None:
    """Items' vectors, users' (the mean of what they heard) and boundaries, above which a user has OPEN of new songs."""
    users = user_vectors(listening, items, np.ones(len(items)))
    sample = items[-new:][:SAMPLE]
    boundary = np.empty(len(users), dtype=np.float32)
    for rows in tqdm(list(slices(len(users), CHUNK)), "boundaries of users"):
        boundary[rows] = np.quantile(users[rows] @ sample.T, 1 - OPEN, axis=1)
    np.save(folder / "items.npy", items)
    np.save(folder / "users.npy", users)
    np.save(folder / "boundaries.npy", boundary)


def write_index(folder: Path, vectors: FloatArray, encoder: str, seed: int) -> None:
    """The index of the known songs, as `pipeline.index` builds and tunes it."""
    folder.mkdir()
    config, catalogue = IndexConfig(seed=seed), Catalogue.read(folder.parent / "catalogue")
    index, entries, manifest = built(config, catalogue, vectors, encoder, folder)
    manifest |= {"encoder": encoder, "songs": len(catalogue.rows("warm")), "dim": vectors.shape[1]}
    manifest["effort"], manifest["recall"] = tuned(index, entries, vectors, manifest["index"], config)
    faiss.write_index(to_cpu(index), str(folder / "index.faiss"))
    write_songs(folder, catalogue, vectors, entries)
    write_manifest(folder, INDEX, manifest)


def write_ranker(folder: Path, manifest: dict[str, Any], seed: int) -> None:
    """A ranker's trees, fitted to drawn features by which users listened: their shape costs what real ones cost."""
    folder.mkdir()
    rng, (songs, users) = np.random.default_rng(seed), RANKED
    song_P, user_P = np.divmod(np.arange(songs * users), users)
    feature_PF = rng.standard_normal((len(song_P), len(FEATURES)), dtype=np.float32)
    label_PL = np.zeros((len(song_P), len(LABELS)), dtype=np.float32)
    label_PL[:, 0] = rng.random(len(song_P)) < probability(feature_PF.sum(axis=1) / 2 - 3)
    options = TreesConfig(rounds=100, parts=2)
    found = fit_trees(Examples(song_P, user_P, feature_PF, FEATURES, label_PL=label_PL), options, seed)
    (folder / MODEL["trees"]).write_bytes(found.model)
    models = {name: manifest[name] for name in ("encoder", "boundary")}
    sizes = {name: getattr(RankConfig, name) for name in ("depth", "new_days")}
    about = {**models, **sizes, "targeting": like(TargetingConfig()), "features": found.names, **found.about}
    write_json(folder / ABOUT, about)
    write_json(folder / VOCABULARY, {"users": {}, "songs": {}})
    write_manifest(folder, RUN, {"finished": True})
