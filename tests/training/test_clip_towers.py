"""The CLIP commands with every kind of audio tower, on recordings that say what their titles say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
import transformers as hf

from artifacts.runs import open_run
from configs.embedding import EmbedConfig
from configs.errors import UserError
from configs.load import load
from configs.serving import ExportConfig
from configs.training import ClipConfig
from data.audio import inputs as audio_inputs
from data.audio import vectors as audio_vectors
from data.audio.crops import CropReader
from data.catalogue import Catalogue, read_features
from export import model as export
from pipeline import embed
from tests.tiny_models import tiny_wav2vec2
from training.tasks import train_clip

RATE, SONGS, HEARD = 16000, 150, 120
PITCH = {"low": 200, "middle": 700, "high": 2500}  # Hz: what a title calls a tone


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 songs with titles, 120 of them with a tone of two seconds; users play what they find."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    kinds = rng.choice(list(PITCH), SONGS)
    files: list[str | None] = [None] * SONGS
    for row in range(HEARD):
        time = np.arange(2 * RATE) / RATE
        wave = 0.3 * np.sin(2 * np.pi * PITCH[kinds[row]] * rng.uniform(0.9, 1.1) * time)
        files[row] = f"{row}.flac"
        soundfile.write(folder / f"{row}.flac", wave + rng.normal(0, 0.02, len(time)), RATE)
    titles = [f"a {kind} note number {row % 7}" for row, kind in enumerate(kinds)]
    songs = {"song_id": [f"s{row:03d}" for row in range(SONGS)], "title": titles}
    pl.DataFrame(songs | {"audio_path": pl.Series(files, dtype=pl.String)}).write_parquet(folder / "songs.parquet")
    played = [(f"u{user}", f"s{song:03d}") for user in range(40) for song in rng.choice(SONGS, 30, replace=False)]
    pl.DataFrame(played, schema=["user_id", "song_id"], orient="row").write_parquet(folder / "plays.parquet")
    return folder


@pytest.fixture(scope="module")
def catalogues(source: Path, tmp_path_factory: pytest.TempPathFactory, prepare: Callable[..., Path]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("catalogues")
    options = ("split.by=random", "split.cold_share=0.4")
    stores = ("logmel", "samples", "files")
    return {store: prepare(source, folder / store, f"audio.store={store}", *options) for store in stores}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_wav2vec2(tmp_path_factory.mktemp("wav2vec2"))


def train(catalogue: Path, out: Path, *options: str) -> Path:
    small = ["model.width=32", "model.layers=1", "model.dim=16", "model.crop_seconds=1", "model.crops=2"]
    few = ["trainer.epochs=20", "trainer.progress=false", "trainer.accelerator=cpu", "logger.wandb=off"]
    given = [f"data={catalogue}", f"out={out}", "text.fields=[title]", "batch_size=36", "optim.lr=3e-3", *small, *few]
    train_clip(load(ClipConfig, [*given, *options]))
    return out


def right_kind(run: Path, catalogue: Path, out: Path) -> float:
    """How often the nearest title of a held-out recording names its kind of tone."""
    embed.main(load(EmbedConfig, [f"clip={run}", f"data={catalogue}", f"out={out}", "accelerator=cpu"]))
    opened = Catalogue.read(catalogue)
    found = read_features(out, opened.n_songs)
    cold = opened.rows("cold")
    cold = cold[np.isfinite(found["clip_audio"][cold, 0])]
    kind = opened.songs["title"].str.split(" ").list.get(1).to_numpy()
    nearest = (found["clip_audio"][cold] @ found["clip_text"].T).argmax(axis=1)
    heard = np.flatnonzero(opened.songs["audio_length"].to_numpy())
    assert np.isfinite(found["clip_audio"]).all(axis=1).nonzero()[0].tolist() == heard.tolist()
    return float((kind[nearest] == kind[cold]).mean())


@pytest.mark.parametrize(
    ("store", "options"),
    [
        ("samples", ["objective.gain_db=6", "objective.noise_db=20"]),
        ("files", ["objective.loss=siglip"]),
        ("samples", ["audio.model=published"]),
        (
            "files",
            [
                "audio.model=published",
                "audio.frozen=false",
                "audio.lr_scale=0.5",
                "objective.micro_batch=16",
                "trainer.epochs=8",
            ],
        ),
    ],
)
def test_every_tower_learns_which_title_a_recording_has(
    catalogues: dict[str, Path], published: str, tmp_path: Path, store: str, options: list[str]
) -> None:
    given = [option.replace("published", published) for option in options]
    run = train(catalogues[store], tmp_path / "run", *given)
    assert right_kind(run, catalogues[store], tmp_path / "features") > 0.6, "by chance a third"
    export.export_model(load(ExportConfig, [f"run={run}", f"out={tmp_path}/export"]))
    model, config = export.load(tmp_path / "export")
    frozen = "audio.model=published" in options and "audio.frozen=false" not in options
    assert not any(name.startswith("audio_encoder") for name in model.state_dict()) if frozen else True
    assert ("dict(pooled=" in (tmp_path / "export" / "README.md").read_text("utf-8")) == frozen
    assert config["model"]["audio"]["model"] == (published if "published" in str(options) else "transformer")


@pytest.mark.parametrize("store", ["logmel", "samples", "files"])
def test_songs_that_are_as_they_were_keep_their_vectors(
    source: Path, prepare: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    music = Path(shutil.copytree(source, tmp_path / "music"))
    songs = pl.read_parquet(music / "songs.parquet")
    options = (f"audio.store={store}", f"audio.cache={tmp_path}/cache", "split.by=random", "split.cold_share=0.4")
    songs.head(140).write_parquet(music / "songs.parquet")
    yesterday = prepare(music, tmp_path / "yesterday", *options)
    run = train(yesterday, tmp_path / "run", "trainer.epochs=1")
    embedded(run, yesterday, tmp_path / "yesterdays")
    # ten songs come, one has another recording of the same length, one another title, one none any more
    shutil.copy(music / "4.flac", music / "3.flac")
    row = pl.int_range(pl.len())
    titles = pl.when(row == 9).then(pl.lit("other")).otherwise("title").alias("title")
    paths = pl.when(row != 20).then("audio_path").alias("audio_path")
    songs.with_columns(titles, paths).reverse().write_parquet(music / "songs.parquet")
    today = prepare(music, tmp_path / "today", *options)
    heard: list[int] = []
    monkeypatch.setattr(CropReader, "fixed", lambda self, rows: (heard.extend(rows), fixed(self, rows))[1])
    kept = embedded(run, today, tmp_path / "kept", f"earlier={tmp_path}/yesterdays")
    assert len(heard) == 13
    anew = embedded(run, today, tmp_path / "anew")
    assert kept.keys() == anew.keys() == {"clip_audio", "clip_text", "text"} and len(heard) == 13 + SONGS
    for name, array in anew.items():
        np.testing.assert_array_equal(kept[name], array, err_msg=name)
    again = embedded(run, today, tmp_path / "again", f"earlier={tmp_path}/kept")
    assert len(heard) == 13 + SONGS, "nothing is new, nothing is heard"
    np.testing.assert_array_equal(again["clip_audio"], anew["clip_audio"])
    table = pl.read_parquet(today / "songs.parquet")
    table.with_columns(pl.lit(None, pl.Int64).alias("audio_content")).write_parquet(today / "songs.parquet")
    with pytest.raises(UserError, match="119 recordings have no checksum"):
        embedded(run, today, tmp_path / "again", f"earlier={tmp_path}/kept")


def test_a_recording_that_was_away_is_embedded_when_it_is_back(
    source: Path, prepare: Callable[..., Path], tmp_path: Path
) -> None:
    """With audio.store=files a song whose file is away when it is embedded has no vector of it that day."""
    music = Path(shutil.copytree(source, tmp_path / "music"))
    catalogue = prepare(music, tmp_path / "catalogue", "audio.store=files", "split.by=random", "split.cold_share=0.4")
    run = train(catalogue, tmp_path / "run", "trainer.epochs=1")
    (music / "7.flac").rename(tmp_path / "away")
    without = embedded(run, catalogue, tmp_path / "yesterdays")["clip_audio"]
    assert np.isnan(without[7]).all() and np.isfinite(without[8]).all()
    (tmp_path / "away").rename(music / "7.flac")
    kept = embedded(run, catalogue, tmp_path / "kept", f"earlier={tmp_path}/yesterdays")["clip_audio"]
    np.testing.assert_array_equal(kept, embedded(run, catalogue, tmp_path / "anew")["clip_audio"])
    assert np.isfinite(kept[7]).all()


fixed = CropReader.fixed


def embedded(run: Path, catalogue: Path, out: Path, *options: str) -> dict[str, Any]:
    given = [f"clip={run}", f"data={catalogue}", f"out={out}", "accelerator=cpu", *options]
    embed.main(load(EmbedConfig, given))
    return {name: np.asarray(one) for name, one in read_features(out, Catalogue.read(catalogue).n_songs).items()}


def test_training_on_starts_with_the_weights_of_the_run(catalogues: dict[str, Path], tmp_path: Path) -> None:
    run = train(catalogues["logmel"], tmp_path / "run", "trainer.epochs=1")
    still = [f"start={run}", "trainer.epochs=1", "optim.lr=1e-12"]
    on = train(catalogues["logmel"], tmp_path / "on", *still)
    torch.testing.assert_close(open_run(on, "clip").weights, open_run(run, "clip").weights, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match=r"a model of other options: model\.width: 32 → 16$"):
        train(catalogues["logmel"], tmp_path / "other", *still, "model.width=16")
    with pytest.raises(UserError, match=r"reads other inputs than .* has: prepared\.crop_seconds: 1\.0 → 2\.0$"):
        train(catalogues["logmel"], tmp_path / "other", *still, "model.crop_seconds=2")


def test_what_was_trained_on_frames_hears_samples_too(catalogues: dict[str, Path], tmp_path: Path) -> None:
    run = train(catalogues["logmel"], tmp_path / "run", "trainer.epochs=2")
    found = {}
    for store in catalogues:
        out = tmp_path / store
        embed.main(load(EmbedConfig, [f"clip={run}", f"data={catalogues[store]}", f"out={out}", "accelerator=cpu"]))
        opened = Catalogue.read(catalogues[store])
        order = np.argsort(opened.songs["song_id"].to_numpy())
        found[store] = np.asarray(read_features(out, opened.n_songs)["clip_audio"])[order]
    np.testing.assert_array_equal(found["samples"], found["files"])
    small = [f"clip={run}", f"data={catalogues['samples']}", f"out={tmp_path}/small", "batch_size=7"]
    embed.main(load(EmbedConfig, [*small, "accelerator=cpu"]))
    again = np.asarray(read_features(tmp_path / "small", SONGS)["clip_audio"])
    kept = np.asarray(read_features(tmp_path / "samples", SONGS)["clip_audio"])
    np.testing.assert_array_equal(again, kept, err_msg="whatever the batch, to the last bit")
    heard = np.isfinite(found["samples"][:, 0])
    likeness = (found["samples"] * found["logmel"]).sum(axis=1)[heard]
    assert heard.sum() == HEARD and likeness.min() > 0.99, "a crop's ends differ, nothing else"


def test_vectors_of_a_frozen_encoder_are_kept(
    catalogues: dict[str, Path], published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue.read(catalogues["samples"])

    cache = Path(shutil.copytree(f"{catalogues['samples']}_audio", tmp_path / "kept"))
    shutil.rmtree(cache / "vectors", ignore_errors=True)

    def vectors(crops: int = 2, songs: slice = slice(None)) -> np.ndarray:
        reader = CropReader(catalogue, 1.0, crops)
        assert reader.shards is not None
        reader.shards.folder = cache
        reader.shard, reader.start, reader.length = (
            column[songs] for column in (reader.shard, reader.start, reader.length)
        )
        inputs = audio_inputs.audio_inputs(published, reader.audio, 1.0)
        return audio_inputs.FrozenAudio(reader, published, inputs, tmp_path)[np.arange(len(reader.length))]

    first = vectors()
    heard = catalogue.songs["audio_length"].to_numpy() > 0
    assert first.shape == (SONGS, 2, 24) and (np.isfinite(first).all(axis=(1, 2)) == heard).all()
    assert len(vectors(crops=3)[0]) == 3 and len(list((cache / "vectors").iterdir())) == 2
    monkeypatch.setattr(audio_vectors, "RECORDINGS", 7)
    shutil.rmtree(cache / "vectors")
    np.testing.assert_array_equal(vectors(), first, err_msg="whatever the batch")

    hurt = next((cache / "vectors").iterdir())
    hurt.write_bytes(hurt.read_bytes()[:500])
    np.testing.assert_array_equal(vectors(), first, err_msg="a file that was cut short is computed again")

    def never(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(audio_vectors, "compute", never)
    np.testing.assert_array_equal(vectors(), first)
    np.testing.assert_array_equal(
        vectors(songs=slice(90, 20, -3)), first[90:20:-3], err_msg="another catalogue's songs"
    )
    config = Path(published) / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")  # other files under the same name
    with pytest.raises(AssertionError, match="computed again"):
        vectors()


@pytest.mark.parametrize(
    ("store", "options", "says"),
    [
        ("logmel", ["audio.model=published"], "prepare the catalogue with audio.store=samples"),
        ("logmel", ["objective.noise_db=10"], "prepare the catalogue with audio.store=samples"),
        ("samples", ["audio.model=no/such/folder"], r"audio model 'no/such/folder' cannot be loaded.*audio.model"),
        ("samples", ["audio.model=published", "audio.last_layers=1"], "is not trained"),
        ("samples", ["audio.model=published", "audio.frozen=false", "audio.last_layers=9"], "last_layers=9"),
        ("samples", ["objective.gain_db=-1"], "gain_db=-1"),
        ("samples", ["audio.model=published", "objective.gain_db=3"], "others make their own input"),
        ("samples", ["audio.lora_rank=4", "audio.frozen=false"], "are of published encoders"),
        ("samples", ["model.crop_seconds=0.02"], "model.crop_seconds=0.02 is shorter than a window"),
    ],
)
def test_what_does_not_go_together_is_told(
    catalogues: dict[str, Path], published: str, tmp_path: Path, store: str, options: list[str], says: str
) -> None:
    given = [option.replace("published", published) for option in options]
    with pytest.raises(UserError, match=says):
        train(catalogues[store], tmp_path / "run", *given)
    assert not (tmp_path / "run").exists()


def test_a_crop_longer_than_an_encoder_hears_is_refused(catalogues: dict[str, Path], tmp_path: Path) -> None:
    heads = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    hf.ASTModel(hf.ASTConfig(max_length=90, num_mel_bins=32, **heads)).save_pretrained(tmp_path / "ast")
    hf.ASTFeatureExtractor(max_length=90, num_mel_bins=32).save_pretrained(tmp_path / "ast")
    with pytest.raises(UserError, match=r"model.crop_seconds=1: .*ast hears at most 0.915 s at once"):
        train(catalogues["samples"], tmp_path / "run", f"audio.model={tmp_path}/ast")
