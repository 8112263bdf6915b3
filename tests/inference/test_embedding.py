"""Text vectors without a CLIP run; test_songs.py has the command with one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from configs.embedding import EmbedTextConfig
from configs.errors import UserError
from configs.training import TextConfig
from data.catalogue import Catalogue
from data.fields import read_fields
from data.text import song_texts
from data.tfidf import FILE, fit, load_tfidf
from datamodules.clip import ClipDataModule
from models.text_encoder import TextEncoder, load_tokenizer
from tests.commands import run

BARE = 8  # the song of the tiny dataset without any field


@pytest.fixture(scope="module")
def data(catalogue_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of its own, since the vectors are cached in it."""
    return Path(shutil.copytree(catalogue_folder, tmp_path_factory.mktemp("embed") / "catalogue"))


def embed(data: Path, out: Path, *options: str) -> Path:
    run("embed", f"data={data}", f"out={out}", *options)
    return out


def test_text_vectors_without_a_clip_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = embed(data, tmp_path / "features", "text.fields=[genres,tags]", "text.max_tokens=6")
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "song_ids.parquet", "text.npy"]
    vectors = np.load(out / "text.npy")
    songs = pl.read_parquet(data / "songs.parquet")
    encoder, tokenizer = TextEncoder("minilm"), load_tokenizer("minilm")
    for song, (genres, tags) in enumerate(songs.select("genres", "tags").iter_rows()):
        if song == BARE:
            assert np.isnan(vectors[song]).all()
            continue
        text = "\n".join([", ".join(genres), ", ".join(tags)])
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=6)["input_ids"]])
        with torch.inference_mode():
            alone = encoder(ids, torch.ones_like(ids))[0].numpy()
        np.testing.assert_allclose(vectors[song], alone, atol=1e-5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["songs_with"] == {"text": len(vectors) - 1} and manifest["unknown_words"] == 0.0
    assert manifest["text"] == {"model": "minilm", "fields": ["genres", "tags"], "max_tokens": 6, "windows": 1}
    assert "1 songs without text; 0.0% of words and characters unknown to minilm" in capsys.readouterr().out


def test_the_vectors_are_those_that_the_song_encoder_reads_and_the_song_data_caches(data: Path, tmp_path: Path) -> None:
    out = embed(data, tmp_path / "features", "text.fields=[tags,language]")
    vectors = np.load(out / "text.npy")
    fields = read_fields(Catalogue.read(data), str(out), ["text", "tags"], 1)
    np.testing.assert_array_equal(fields.dense["text"], vectors)
    cached = sorted((data / "text_cache").iterdir())
    songs = ClipDataModule(data, text_fields=["tags", "language"])
    songs.setup("predict")
    assert np.array_equal(songs.text_vectors[0], vectors, equal_nan=True)
    assert sorted((data / "text_cache").iterdir()) == cached, "nothing was computed again"
    again = np.load(embed(data, tmp_path / "features", "text.fields=[tags,language]") / "text.npy")
    assert np.array_equal(again, vectors, equal_nan=True)


def test_tf_idf_is_fitted_to_known_songs_and_kept_beside_its_vectors(data: Path, tmp_path: Path) -> None:
    told = ["text.model=tfidf", "text.fields=[genres,tags]"]
    out = embed(data, tmp_path / "features", *told)
    assert sorted(one.name for one in out.iterdir()) == sorted([FILE, "manifest.json", "song_ids.parquet", "text.npy"])
    manifest, vectors = json.loads((out / "manifest.json").read_text()), np.load(out / "text.npy")
    assert manifest["text"]["model"] == "tfidf" and "unknown_words" not in manifest
    assert manifest["songs_with"] == {"text": len(vectors) - 1} and np.isnan(vectors[BARE]).all()
    catalogue = Catalogue.read(data)
    texts = song_texts(catalogue.songs, ["genres", "tags"])
    model = fit([texts[song] for song in catalogue.rows("warm")])
    np.testing.assert_array_equal(vectors, model.vectors(texts))
    np.testing.assert_array_equal(vectors, load_tfidf(out).vectors(texts))
    other = Path(shutil.copytree(data, tmp_path / "other"))
    cold = catalogue.rows("cold")
    songs = catalogue.songs.with_columns(
        pl.when(pl.int_range(pl.len()).is_in(cold.tolist())).then(["genre0"]).otherwise("genres").alias("genres")
    )
    songs.write_parquet(other / "songs.parquet")
    assert (songs["genres"] != catalogue.songs["genres"]).sum() > 3
    changed = np.load(embed(other, tmp_path / "again", *told) / "text.npy")
    np.testing.assert_array_equal(changed[catalogue.rows("warm")], vectors[catalogue.rows("warm")])
    assert not np.array_equal(changed[cold], vectors[cold])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["text.fields=[title]"], ["no song has any text in title", "text.fields"]),
        (["text.fields=[tags,artists]"], ["text.fields: artists", "title, lyrics", "genres"]),
        (["text.fields=[popularity]"], ["text.fields: popularity"]),
        (["text.fields=[]"], ["text.fields: empty"]),
        (["text.fields=[tags]", "text.max_tokens=2"], ["text.max_tokens=2", "at least 3"]),
        (["text.fields=[tags]", "text.model=./nowhere"], ["nowhere", "text.model"]),
        (["text.fields=[title]", "text.model=tfidf"], ["no song has any text in title"]),
        (["clip=somewhere", "text.fields=[tags]"], ["text.*", "somewhere", "leave"]),
    ],
)
def test_what_cannot_be_embedded_is_one_line(data: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        embed(data, tmp_path / "features", *options)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_clip_does_not_take_tf_idf() -> None:
    with pytest.raises(UserError, match="CLIP reads tokens"):
        TextConfig(model="tfidf")


def test_the_defaults_are_those_of_training() -> None:
    training = dataclasses.asdict(TextConfig())
    assert dataclasses.asdict(EmbedTextConfig()).items() <= training.items()
