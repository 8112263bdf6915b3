"""pipeline.embed earlier=: songs that are as they were keep their vectors, all others are embedded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from artifacts.fingerprints import CONTENT
from configs.errors import UserError
from inference import earlier, embedding
from tests.commands import run

FIELDS = "text.fields=[genres,tags]"


@pytest.fixture(scope="module")
def yesterday(catalogue_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue whose second half of songs is not there yet, and its features."""
    folder = Path(shutil.copytree(catalogue_folder, tmp_path_factory.mktemp("earlier") / "yesterday"))
    change(folder, lambda songs: songs.head(songs.height // 2))
    embed(folder, folder.parent / "yesterdays")
    return folder


def change(folder: Path, how: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change the songs of a catalogue, whose own vectors go, and its fingerprint."""
    shutil.rmtree(folder / "features", ignore_errors=True)
    how(pl.read_parquet(folder / "songs.parquet")).write_parquet(folder / "songs.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[CONTENT] = f"{manifest[CONTENT]}*"
    (folder / "manifest.json").write_text(json.dumps(manifest))


def embed(data: Path, out: Path, *options: str) -> np.ndarray:
    run("embed", f"data={data}", f"out={out}", FIELDS, *options)
    vectors: np.ndarray = np.load(out / "text.npy")
    return vectors


def test_only_new_and_changed_songs_are_embedded(
    yesterday: Path,
    catalogue_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    today = Path(shutil.copytree(catalogue_folder, tmp_path / "today"))
    half = pl.read_parquet(yesterday / "songs.parquet").height
    tagged = pl.when(pl.int_range(pl.len()) == 2).then(["other"]).otherwise("tags").alias("tags")
    titled = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("other")).otherwise("title").alias("title")
    change(today, lambda songs: songs.with_columns(tagged, titled).filter(pl.int_range(pl.len()) != 5).reverse())
    songs = pl.read_parquet(today / "songs.parquet").height
    monkeypatch.setattr(earlier, "STEP", 7)
    read: list[int] = []

    def counting(texts: list[str | None], *how: object) -> np.ndarray:
        read.append(len(texts))
        found: np.ndarray = text_vectors(texts, *how)
        return found

    text_vectors = embedding.text_vectors
    monkeypatch.setattr(embedding, "text_vectors", counting)
    kept = embed(today, tmp_path / "kept", f"earlier={yesterday.parent}/yesterdays")
    # one is gone, of one the tags have changed; the title is nothing that is read
    assert read == [songs - (half - 2)]
    assert f"{half - 2:,} songs are as they were" in capsys.readouterr().out
    assert np.array_equal(kept, embed(today, tmp_path / "anew"), equal_nan=True)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("kept", "anew")]
    assert manifests[0] == manifests[1] and read[1] == songs
    again = embed(today, tmp_path / "again", f"earlier={tmp_path}/kept")
    assert np.array_equal(kept, again, equal_nan=True) and len(read) == 2, "nothing is new: no text was read"


def test_a_chain_of_days_ends_where_the_last_day_alone_does(yesterday: Path, tmp_path: Path) -> None:
    days = [yesterday]
    for day in range(2):
        days.append(Path(shutil.copytree(yesterday, tmp_path / f"day{day}")))
        lists = pl.when(pl.int_range(pl.len()) % 3 == day).then([f"tag{day}"]).otherwise("tags").alias("tags")
        change(days[-1], lambda songs, lists=lists: songs.with_columns(lists))
        embed(days[-1], tmp_path / f"features{day}", f"earlier={days[-2].parent}/{['yesterdays', 'features0'][day]}")
    assert np.array_equal(np.load(tmp_path / "features1/text.npy"), embed(days[2], tmp_path / "anew"), equal_nan=True)


def test_vectors_of_ones_own_beside_them_are_not_taken_along(
    yesterday: Path, catalogue_folder: Path, tmp_path: Path
) -> None:
    """The new songs have none."""
    features = Path(shutil.copytree(yesterday.parent / "yesterdays", tmp_path / "features"))
    np.save(features / "mood.npy", np.ones((pl.read_parquet(yesterday / "songs.parquet").height, 3), np.float32))
    embed(Path(shutil.copytree(catalogue_folder, tmp_path / "today")), tmp_path / "out", f"earlier={features}")
    assert [path.name for path in (tmp_path / "out").glob("*.npy")] == ["text.npy"]


def test_what_cannot_be_kept_is_one_line(yesterday: Path, tmp_path: Path) -> None:
    features = yesterday.parent / "yesterdays"
    lacking = Path(shutil.copytree(features, tmp_path / "lacking"))
    (lacking / "text.npy").unlink()
    cases = [
        (yesterday, [f"earlier={features}", "text.fields=[tags]"], "another encoder"),
        (yesterday, [f"earlier={features}", "text.windows=2"], "another encoder"),
        (yesterday, [f"earlier={features}", "text.model=tfidf"], "fitted to each catalogue anew"),
        (yesterday, [f"earlier={yesterday}"], "not a features folder"),
        (yesterday, [f"earlier={tmp_path}/nowhere"], "nowhere"),
        (yesterday, [f"earlier={lacking}"], "lacking lacks text: leave earlier= out"),
    ]
    moved = Path(shutil.copytree(yesterday, tmp_path / "moved"))
    stale = Path(shutil.copytree(features, tmp_path / "stale"))
    manifest = json.loads((stale / "manifest.json").read_text())
    (stale / "manifest.json").write_text(json.dumps(manifest | {"data": str(moved)}))
    change(moved, lambda songs: songs.reverse())
    cases += [(yesterday, [f"earlier={stale}"], f"its catalogue {moved} has changed since")]
    for data, options, words in cases:
        with pytest.raises(UserError) as error:
            run("embed", f"data={data}", f"out={tmp_path}/out", FIELDS, *options)
        assert words in str(error.value) and "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
    shutil.rmtree(moved)
    with pytest.raises(UserError, match="moved"):
        run("embed", f"data={yesterday}", f"out={tmp_path}/out", FIELDS, f"earlier={stale}")


def test_vectors_of_texts_that_were_read_otherwise_are_refused(
    yesterday: Path, catalogue_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "READING", embedding.READING - 1)
    embed(yesterday, tmp_path / "yesterdays")
    monkeypatch.undo()
    today = Path(shutil.copytree(catalogue_folder, tmp_path / "today"))
    with pytest.raises(UserError, match="was made by another encoder, by a version that read texts otherwise"):
        embed(today, tmp_path / "out", f"earlier={tmp_path}/yesterdays")
