"""Song by song, the service makes what the pipeline makes of a whole catalogue: both call the same functions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile

from artifacts.folders import read_manifest
from artifacts.runs import open_run
from configs.embedding import EmbedConfig
from configs.serving import ServiceConfig
from configs.targeting import IndexConfig
from configs.training import ClipConfig
from data.audio.recordings import decode, to_steps
from data.audio.statistics import recording_statistics
from data.catalogue import Catalogue, read_features
from data.contract.columns import ABOUT, MAX_VALUES, TEXTS, TIME
from data.fields import UNKNOWN, codes_of, read_fields
from data.play_tables import index_plays, strength
from data.text import read_as
from export.model import write_model
from export.service import KIND, MADE_BY
from inference.vectors import boundary_vectors, encode_songs
from models.processor import has_bfloat16
from pipeline import embed, index, service
from serving.encoder import Content, Encoder, fields
from serving.store import Play
from tests.serving.conftest import QUICK, run
from tests.training.test_clip_towers import published  # noqa: F401 (a fixture)
from training.tasks import train_clip

RATE = 16000  # Hz
MISSING = 0.3  # share of the songs that lack a thing
CLOSE = {"atol": 2e-5, "rtol": 0}


def mixed_songs(songs: pl.DataFrame, vocabulary: Mapping[str, Iterable[str | None]], folder: Path) -> pl.DataFrame:
    """The songs with drawn contents: each thing there or not, values known and unknown, long and short recordings."""
    rng = np.random.default_rng(0)
    words = np.array(["rain", "night", "sea", "雨", "zzyzx", "love,", "fire", "ночь", "1999"])

    def some(make: Callable[[], Any]) -> list[Any]:
        return [make() if rng.random() > MISSING else None for _ in range(songs.height)]

    def text(most: int) -> str:
        return " ".join(rng.choice(words, rng.integers(0, most))) or " "

    def values(name: str) -> list[str | None]:
        among = [*vocabulary.get(name, []), "unheard of", "nor this", None]
        return [among[at] for at in rng.integers(0, len(among), rng.integers(0, 2 * MAX_VALUES))]

    def recording() -> str:
        rate, seconds = (RATE, 44100)[rng.integers(2)], rng.choice([0.3, 0.9, 1.0, 2.5])
        path = folder / f"{rng.integers(2**32)}.wav"
        soundfile.write(path, rng.normal(0, 0.1, (round(rate * seconds), rng.integers(1, 3))), rate)
        return path.name

    one = {name: some(lambda name=name: next(iter(values(name)), None)) for name in ("language", "artist_id")}
    lists = {name: pl.Series(some(lambda name=name: values(name)), dtype=TEXTS) for name in ("genres", "tags")}
    about = {"title": some(lambda: text(6)), "lyrics": some(lambda: text(200)), **one, **lists}
    about |= {"audio_path": some(recording)}
    about |= {"released_at": pl.Series(some(lambda: datetime(rng.integers(2015, 2025), 12, 31, 23)), dtype=TIME)}
    about |= {"split": rng.choice(["warm", "warm", "warm", "cold_val", "cold_test"], songs.height)}
    plain = songs.drop([name for name in songs.columns if name in about or name.startswith("feature_")])
    return plain.with_columns(
        pl.Series(name, values, dtype=(ABOUT | {"released_at": TIME}).get(name, pl.String()))
        for name, values in about.items()
    )


def abouts(songs: pl.DataFrame) -> list[dict[str, Any]]:
    """Words, tags and day of release of songs, as the service keeps them."""
    return songs.select(*ABOUT, pl.col("released_at").dt.strftime("%Y-%m-%d")).to_dicts()


@pytest.fixture(scope="module", params=["logmel", "samples", "published"])
def batch(
    request: pytest.FixtureRequest,
    trained: Path,
    prepare: Callable[..., Path],
    write_dataset: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A service folder, and a catalogue of mixed songs with features by the service's CLIP model.

    That model hears log-mel frames, or makes them of samples, or has a frozen published encoder's vectors of samples
    and reads texts in two windows.
    """
    at = tmp_path_factory.mktemp(request.param)
    shutil.copytree(trained / "service", at / "service")
    source, clip = write_dataset(at / "dataset"), trained / "clip"
    mixed_songs(pl.read_parquet(source / "songs.parquet"), opened(at).song_codes, source).write_parquet(
        source / "songs.parquet"
    )
    store = "logmel" if request.param == "logmel" else "samples"
    prepare(source, at / "catalogue", f"audio.store={store}", "audio.min_seconds=0.2")
    if request.param == "published":
        clip, size = at / "clip", ["model.dim=16", "model.crop_seconds=1", "model.crops=3", "batch_size=16"]
        size += [f"audio.model={request.getfixturevalue('published')}", "text.max_tokens=32", "text.windows=2"]
        run(train_clip, ClipConfig, f"data={at}/catalogue", f"out={clip}", *size, *QUICK)
        shutil.rmtree(at / "service" / "clip")
        (at / "service" / "clip").mkdir()
        write_model(open_run(clip, "clip"), Catalogue.read(at / "catalogue"), at / "service" / "clip")
    run(embed.main, EmbedConfig, f"clip={clip}", f"data={at}/catalogue", f"out={at}/features", "accelerator=cpu")
    return at


def opened(at: Path) -> Encoder:
    """The encoder of a service folder that hears what the catalogue beside it keeps, and reads as its CLIP model."""
    manifest = read_manifest(at / "service", KIND, MADE_BY)
    manifest["text"] = read_as(json.loads((at / "service" / "clip" / "config.json").read_text())["prepared"])
    if (at / "catalogue").exists():
        manifest["audio"] = Catalogue.read(at / "catalogue").manifest["audio"]
    return Encoder(at / "service", manifest)


def test_the_service_encodes_songs_as_the_pipeline_does(trained: Path, batch: Path) -> None:
    encoder, catalogue = opened(batch), Catalogue.read(batch / "catalogue")
    songs, about = catalogue.songs, abouts(catalogue.songs)
    files = [batch / "dataset" / name if name else None for name in songs["audio_path"]]
    waves = [decode(path, RATE, encoder.audio["max_seconds"]) if path else None for path in files]
    contents = [Content(one, wave) for one, wave in zip(about, waves, strict=True)]
    data, features = str(batch / "catalogue"), str(batch / "features")

    expected, found = read_features(batch / "features", songs.height) | catalogue.features(), encoder.features(contents)
    assert found.keys() == expected.keys() == {"clip_audio", "clip_text", "text", "audio_stats"}
    for name, dense in found.items():
        np.testing.assert_allclose(dense, expected[name], err_msg=name, **CLOSE)
        assert 0 < np.isnan(dense[:, 0]).sum() < songs.height / 2, "some songs have none"

    vocabulary = {name: [value for value in codes if value] for name, codes in encoder.song_codes.items()}
    vocabulary["year"] = ["2021", "2017"]
    known = read_fields(catalogue, features, [], 1, vocabulary)
    seen = fields(found, about, {}, encoder.song_codes | {"year": codes_of(vocabulary["year"])})
    assert seen.keys() == known.codes.keys() >= {"genres", "language", "script", "year"}
    for name, codes in known.codes.items():
        np.testing.assert_array_equal(seen[name], codes, err_msg=name)
        assert {0, UNKNOWN if name != "year" else UNKNOWN + 1} <= set(codes.ravel().tolist()), name
    assert (known.codes["genres"] > 0).all(axis=1).any(), "more values than places"

    vectors, items = encoder.vectors(found, about)
    np.testing.assert_allclose(vectors, encode_songs(trained / "i2i", data, features)[1]["vector"], **CLOSE)
    boundary = boundary_vectors(trained / "boundary", np.arange(songs.height), data, features)
    np.testing.assert_allclose(items, boundary.item_CD, **CLOSE)

    alone = [encoder.features([content]) for content in contents[:12]]
    for name in found:
        np.testing.assert_allclose(np.concatenate([one[name] for one in alone]), found[name][:12], **CLOSE)


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
def test_products_may_be_of_half_precision(service_folder: Path) -> None:
    manifest = read_manifest(service_folder, KIND, MADE_BY)
    content = Content({"title": "rain", "lyrics": "the sea at night and the long way home"})
    exact, half = (Encoder(service_folder, manifest, precision) for precision in ("float32", "bfloat16"))
    one, other = (encoder.features([content])["text"][0] for encoder in (exact, half))
    assert 0.999 < one @ other / np.linalg.norm(one) / np.linalg.norm(other) < 1


def test_tf_idf_goes_with_the_service(catalogue_folder: Path, train_i2i: Callable[..., Path], tmp_path: Path) -> None:
    """Features and vectors of songs that are sent in, alone and together, are those of the catalogue's songs."""
    data, features = catalogue_folder, tmp_path / "features"
    told = ["text.model=tfidf", "text.fields=[genres,tags,language]"]
    run(embed.main, EmbedConfig, f"data={data}", f"out={features}", *told)
    i2i = train_i2i(tmp_path / "i2i", f"features={features}", "fields.use=[text,genres]", "trainer.epochs=1")
    run(index.main, IndexConfig, f"run={i2i}", f"out={tmp_path}/index")
    run(service.main, ServiceConfig, f"index={tmp_path}/index", f"out={tmp_path}/service")
    for gone in (features, tmp_path / "index", i2i):
        gone.rename(tmp_path / f"gone_{gone.name}")
    encoder = Encoder(tmp_path / "service", read_manifest(tmp_path / "service", KIND, MADE_BY))
    songs = Catalogue.read(data).songs
    about = abouts(songs)
    expected = np.load(tmp_path / "gone_features" / "text.npy")
    found = encoder.features([Content(one) for one in about])
    np.testing.assert_array_equal(found["text"], expected)
    for at in (0, 7, 8, 59):
        np.testing.assert_array_equal(encoder.features([Content(about[at])])["text"][0], expected[at])
    vectors, items = encoder.vectors(found, about)
    batch = encode_songs(tmp_path / "gone_i2i", str(data), str(tmp_path / "gone_features"))[1]["vector"]
    new = Catalogue.read(data).rows("cold")  # known songs have residual embeddings
    np.testing.assert_allclose(vectors[new], batch[new], **CLOSE)
    assert len(new) == 12 and items is None and not encoder.says_nothing(Content(about[0]))
    encoder.load_text()
    assert encoder.tokenizer is None and encoder.bert is None
    other = read_manifest(tmp_path / "service", KIND, MADE_BY)
    other["text"] = other["text"] | {"fitted": "to other songs"}
    assert Encoder(tmp_path / "service", other).fingerprint != encoder.fingerprint, "stored features are made again"


def test_a_service_without_clip_hears_tempo_and_loudness(trained: Path) -> None:
    manifest = read_manifest(trained / "service", KIND, MADE_BY) | {"clip": None, "labels": [], "text": None}
    encoder, rng = Encoder(trained / "service", manifest), np.random.default_rng(0)
    assert encoder.hears
    contents = [Content({}, rng.normal(0, 0.1, RATE).astype(np.float32)), Content({})]
    assert [encoder.says_nothing(content) for content in contents] == [False, True]
    found = encoder.features(contents)
    assert np.isfinite(found["audio_stats"]).all(axis=1).tolist() == [True, False]
    assert np.isnan(found["clip_audio"]).all() and np.isnan(found["text"]).all()
    steps = [to_steps(contents[0].wave, encoder.audio)]
    np.testing.assert_array_equal(found["audio_stats"][:1], recording_statistics(steps, encoder.audio))


def test_a_play_is_as_strong_as_in_the_training() -> None:
    signals = [False, True]
    plays = [Play("u", "s", completed=c, favourited=f, disliked=d) for c in signals for f in signals for d in signals]
    names = ("user_id", "song_id", "completed", "favourited", "disliked", "played_at")
    table = pl.DataFrame([[getattr(play, name) for name in names] for play in plays], schema=names, orient="row")
    ids = pl.DataFrame({"song_id": ["s"], "user_id": ["u"]})
    table = table.with_columns(pl.col("played_at").fill_null(pl.int_range(pl.len())))
    assert index_plays(table, ids, ids)["strength"].to_list() == [strength(play) for play in plays]
