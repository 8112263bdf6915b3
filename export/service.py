"""Write one folder with all that the service needs: models, index, listeners, vectors."""

from __future__ import annotations

import shutil
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.fingerprints import of_file, of_values
from artifacts.folders import MANIFEST, read_manifest, write_manifest, writing
from artifacts.remote import FILES, of_files
from artifacts.runs import VOCABULARY, Run, open_run, read_vocabulary
from artifacts.tracking import made, tracked, used
from configs import options
from configs.embedding import TFIDF
from configs.load import as_dict
from configs.serving import ServiceConfig
from configs.targeting import PROMPTS, TargetingConfig
from data.arrays import FloatArray, IntArray
from data.catalogue import AUDIO_STATS, Catalogue, read_features
from data.fields import CATEGORIES, FEATURES, Vocabulary, category_codes, field_values, read_fields
from data.item_pairs.verification import listening_matrix
from data.text import read_as
from data.tfidf import FILE
from evaluation.outcomes import calibration, logged
from export.model import write_model
from inference.ranking import ABOUT, MODEL, check_ranker, keyed_network, open_network, play_log, read_ranker
from inference.song_index import SongIndex, open_index, save
from inference.targeting import targeting_of
from inference.vectors import Boundary, boundary_vectors
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.queries import centre, word_vectors
from retrieval.user_plays import plays_by_user

KIND = "service"
MADE_BY = options.MADE_BY[KIND]
OF_AUDIO = ("audio_shard", "audio_start", "audio_length", "audio_content")  # of what the catalogue has decoded


@tracked("service")
def export_service(config: ServiceConfig, tracking: Any) -> None:
    """Run `pipeline.service` (its docstring says what it reads and writes)."""
    index = open_index(config.index)
    data, features = index.manifest["data"], index.manifest["features"]
    catalogue, encoder = Catalogue.read(data), open_run(index.manifest["run"], "i2i")
    clip, text = made_features(features)
    songs, labels = np.arange(catalogue.n_songs), list(config.labels) or genres(catalogue)
    boundary = boundary_vectors(config.boundary, songs, data, features) if config.boundary else None
    runs = [run for run in (clip, encoder, boundary.run if boundary else None) if run is not None]
    manifest = {
        "clip": clip.fingerprint if clip else None,
        "encoder": encoder.fingerprint,
        "boundary": boundary.run.fingerprint if boundary else None,
        "calibration": boundary and calibration(logged(catalogue), boundary, catalogue.rows("cold_val")),
        "labels": labels if clip else [],
        "text": text,
        "audio": catalogue.manifest["audio"],
        "audio_root": str(Path(catalogue.manifest["source"]).resolve()),
        "targeting": as_dict(config.targeting),
    }
    check_rank(config, manifest)
    with writing(config.out, KIND, manifest) as folder:
        for run in runs:
            (folder / run.task).mkdir()
            write_model(run, catalogue, folder / run.task)
        write_labels(clip, labels, Path(data) / "text_cache", folder)
        if config.rank:
            manifest["ranker"] = write_ranker(Path(config.rank), catalogue, features, folder / "rank")
        shutil.copytree(config.index, folder / "index")
        write_fields(catalogue, features, runs, folder / "features")
        write_words(catalogue, features, runs, folder / "words")
        write_boundary(catalogue.songs, boundary, config.new_users, folder)
        write_tables(roomy := with_room(catalogue, config.new_users), folder)
        write_listening(index, roomy, config.targeting, folder)
        manifest[FILES] = of_files(folder)
    used(tracking, config.index, data, features, config.rank, *(run.folder for run in runs))
    made(tracking, config.out, config.logger.upload)
    sizes = f"{catalogue.n_songs:,} songs, {catalogue.n_users:,} users"
    print(f"{config.out}: {sizes}; new songs are known by {what_is_read(runs)}")
    print(f"  serve it: python -m serving model={config.out} store=STORE")


def check_rank(config: ServiceConfig, manifest: dict[str, Any]) -> None:
    """Refuse a ranker that was fitted with other models or options.

    Raises:
        UserError: it was.
    """
    if config.rank:
        models = manifest["encoder"], manifest["boundary"]
        check_ranker(config.rank, read_ranker(Path(config.rank)), *models, config.targeting)


def write_ranker(rank: Path, catalogue: Catalogue, features: str | None, to: Path) -> str:
    """What a service's ranker is read from, without the run's examples and folds; returns its fingerprint.

    A network is written as the other models are, with what its attention reads of all songs.
    """
    to.mkdir()
    for name in (MANIFEST, ABOUT, VOCABULARY):
        shutil.copy2(rank / name, to)
    model = MODEL["trees"]
    if read_ranker(rank).get("model") == "network":
        write_model(open_network(rank), catalogue, to)
        np.save(to / "keys.npy", keyed_network(rank, catalogue, features)[1])
        model = "model.safetensors"
    else:
        shutil.copy2(rank / model, to)
    return of_values([of_file(to / name) for name in (ABOUT, VOCABULARY, model)])


def what_is_read(runs: list[Run]) -> str:
    """What of a new song these models use, in words."""
    if any(run.task == "clip" for run in runs):
        return "audio and words"
    measured = any(AUDIO_STATS in run.hparams["dense_dims"] for run in runs)
    return "words, tags, tempo and loudness" if measured else "words and tags alone"


def made_features(features: str | None) -> tuple[Run | None, dict[str, Any] | None]:
    """The CLIP run that made the features, and how the vectors of `text` alone were made; None where there is none.

    Of a text model that was fitted to the catalogue, its fingerprint too.
    """
    from inference.zeroshot import run_of

    manifest = read_manifest(features, *FEATURES) if features else {}
    if features is None or "clip" not in manifest:
        text = manifest.get("text")
        if features and text and text["model"] == TFIDF:
            text = text | {"fitted": of_file(Path(features) / FILE)}
        return None, text
    clip = run_of(features)
    prepared = clip.hparams["prepared"]
    return clip, read_as(prepared) if prepared["frozen_text"] else None


def genres(catalogue: Catalogue) -> list[str]:
    """All genres of known songs, the most frequent first: the tags that are guessed if none are named."""
    known = catalogue.songs.filter(pl.col("split") == "warm").select(pl.col("genres").explode().drop_nulls())
    counted = known.group_by("genres").len().sort("len", "genres", descending=[True, False])
    return counted["genres"].head(100).to_list()


def write_labels(clip: Run | None, labels: list[str], cache: Path, folder: Path) -> None:
    """Vectors of the tags that are guessed from sound, if the service hears any."""
    from inference.zeroshot import label_vectors

    if clip is not None:
        np.save(folder / "labels.npy", label_vectors(clip, labels, list(PROMPTS), cache))


def with_room(catalogue: Catalogue, rows: int) -> Catalogue:
    """A catalogue with so many rows more for users who come: without id, profile or plays until then."""
    roomy = copy(catalogue)
    roomy.users = pl.concat([catalogue.users, catalogue.users.clear(rows)])
    return roomy


def write_tables(catalogue: Catalogue, folder: Path) -> None:
    """Songs and users, as a catalogue without audio, and its plays."""
    tables, songs = folder / "catalogue", catalogue.songs
    tables.mkdir()
    songs.drop([name for name in OF_AUDIO if name in songs.columns]).write_parquet(tables / "songs.parquet")
    catalogue.users.write_parquet(tables / "users.parquet")
    write_manifest(tables, "catalogue", {"of": str(catalogue.folder)})
    write_plays(catalogue, folder / "plays")


def write_plays(catalogue: Catalogue, folder: Path) -> None:
    """Training plays by user, an array a column: a service maps them into memory."""
    folder.mkdir()
    for name, array in plays_by_user(play_log(catalogue), catalogue.n_songs).items():
        np.save(folder / f"{name}.npy", array)


def write_boundary(songs: pl.DataFrame, boundary: Boundary | None, new_users: int, folder: Path) -> None:
    """Vectors of the boundary model, if there is one, in rows for users who come with a boundary that no song clears;
    and the codes by which it reads songs."""
    if boundary is None:
        return
    vectors = {
        "items": boundary.item_CD,
        "users": np.pad(boundary.user_UD, ((0, new_users), (0, 0))),
        "boundaries": np.pad(boundary.boundary_U, (0, new_users), constant_values=np.inf),
    }
    for name, array in vectors.items():
        np.save(folder / f"{name}.npy", array)
    write_codes(songs, read_vocabulary(boundary.run.folder), folder / "codes")


def write_codes(songs: pl.DataFrame, vocabulary: Vocabulary, folder: Path) -> None:
    """Codes (songs, MAX_VALUES) of the category fields that the towers read: users' histories ask for them."""
    folder.mkdir()
    values = {name: field_values(songs, name) for name in vocabulary if name in CATEGORIES}
    for name, code_SV in category_codes(values, {name: vocabulary[name] for name in values}).items():
        np.save(folder / f"{name}.npy", code_SV.astype(np.int32))


def write_listening(index: SongIndex, catalogue: Catalogue, options: TargetingConfig, folder: Path) -> None:
    """Who listened to what, by user and by song, and users' tastes (`retrieval.targeting`), as arrays to be mapped."""
    listening = Listening(listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs))
    for name, matrix in {"by_user": listening.known_US, "by_song": listening.known_SU}.items():
        (folder / "listening" / name).mkdir(parents=True)
        for part in ("data", "indices", "indptr"):
            np.save(folder / "listening" / name / f"{part}.npy", getattr(matrix, part))
    targeting = targeting_of(index, listening, options)
    np.save(folder / "tastes.npy", targeting.taste.user_UD)
    np.save(folder / "cat_tastes.npy", targeting.cat_taste.user_UD)


def write_fields(catalogue: Catalogue, features: str | None, runs: list[Run], folder: Path) -> None:
    """Every dense field that a model reads, (songs, width), and the text model where it was fitted."""
    folder.mkdir()
    if features and (model := Path(features) / FILE).exists():
        shutil.copy2(model, folder)
    dense = read_fields(catalogue, features, [], 1, {}).dense
    for name in read_by(runs):
        np.save(folder / f"{name}.npy", dense[name])


def read_by(runs: list[Run]) -> set[str]:
    """Names of the dense fields that models read."""
    return {name for run in runs for name in run.hparams.get("dense_dims", ())}


def write_words(catalogue: Catalogue, features: str | None, runs: list[Run], folder: Path) -> None:
    """What texts are compared with: CLIP's vectors, else the text vectors that a model reads."""
    hears = any(run.task == "clip" for run in runs)
    if features is None or not (hears or "text" in read_by(runs)):
        return
    found = read_features(Path(features), catalogue.n_songs)
    fields = [found[name] for name in (("clip_audio", "clip_text") if hears else ("text",))]
    index_words(fields, catalogue.rows("warm"), folder)


def index_words(fields: list[FloatArray], known: IntArray, folder: Path) -> None:
    """The index of what texts are compared with, of all songs that have any of it, by their numbers, and the known
    songs' centres; `fields` are (songs, width), NaN where a song lacks one."""
    centres = np.stack([centre(field[known]) for field in fields])
    vectors = word_vectors(fields, centres)
    songs = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(songs):
        folder.mkdir()
        np.save(folder / "centres.npy", centres)
        save(build_index(vectors[songs], "auto", songs, devices=()), folder)
