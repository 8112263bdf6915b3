"""Feature fields: codes and vectors of every song, with vocabularies from warm songs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from artifacts.folders import write_manifest
from configs.embedding import EmbedConfig
from configs.errors import UserError
from configs.load import load
from data import fields as fields_module
from data.catalogue import Catalogue, read_features
from data.contract.columns import MAX_VALUES
from data.contract.row_rules import TAKEN
from data.derived_fields import DERIVED
from data.fields import (
    CATEGORIES,
    UNKNOWN,
    build_vocabulary,
    codes_of,
    column_codes,
    encode,
    read_fields,
    values_of,
)
from inference.embedding import embed


def small(folder: Path, **columns: Any) -> Catalogue:
    """A catalogue of six songs, the last two cold."""
    base: dict[str, Any] = {
        "song_id": list("abcdef"),
        "split": ["warm"] * 4 + ["cold_val", "cold_test"],
        "language": pl.Series([None] * 6, dtype=pl.String),
        "genres": pl.Series([None] * 6, dtype=pl.List(pl.String)),
        "tags": pl.Series([None] * 6, dtype=pl.List(pl.String)),
        "artist_id": pl.Series([None] * 6, dtype=pl.String),
    }
    (folder / "features").mkdir(parents=True)
    pl.DataFrame(base | columns).write_parquet(folder / "songs.parquet")
    write_manifest(folder, "catalogue", {})
    return Catalogue.read(folder)


def test_vectors_of_the_users_own_are_not_replaced(tmp_path: Path) -> None:
    """Neither where a folder of features is read, nor where it would be made: a second name is refused."""
    catalogue = small(tmp_path / "catalogue", title=["x"] * 6, lyrics=pl.Series([None] * 6, dtype=pl.String))
    np.save(catalogue.folder / "features" / "text.npy", np.ones((6, 2), np.float32))
    made = tmp_path / "features"
    made.mkdir()
    catalogue.songs.select("song_id").write_parquet(made / "song_ids.parquet")
    write_manifest(made, "features", {})
    np.save(made / "other.npy", np.zeros((6, 3), np.float32))
    assert read_fields(catalogue, str(made), ["text", "other"], 1).dense_dims == {"text": 2, "other": 3}
    np.save(made / "text.npy", np.zeros((6, 3), np.float32))
    with pytest.raises(UserError, match=r"has vectors text of its own \(feature_text of songs.parquet\)"):
        read_fields(catalogue, str(made), [], 1)
    config = load(EmbedConfig, [f"data={catalogue.folder}", f"out={tmp_path}/out", "text.fields=[title]"])
    with pytest.raises(UserError, match="has vectors text of its own"):
        embed(config)


def test_lists_that_are_all_empty_are_no_field(tmp_path: Path) -> None:
    catalogue = small(tmp_path, genres=pl.Series([[]] * 6, dtype=pl.List(pl.String)), tags=[["x"], ["y"], *[[]] * 4])
    with pytest.raises(UserError, match=r"fields.use names \['genres'\]; this catalogue has \['tags'\]"):
        read_fields(catalogue, None, ["genres"], 1)


GENRES = [["rock", "pop"], ["rock"], ["pop", "rock", "jazz", "jazz"], None, ["new", "rock"], ["new"]]


def test_no_vector_has_the_name_of_a_column_that_is_a_field() -> None:
    assert set(TAKEN) == set(CATEGORIES) - set(DERIVED)


def test_vocabulary_counts_warm_songs_only(tmp_path: Path) -> None:
    catalogue = small(tmp_path, genres=GENRES)
    genres = {"genres": catalogue.songs["genres"]}
    assert build_vocabulary(catalogue, genres, 1) == {"genres": ["rock", "pop", "jazz"]}, "most frequent first"
    assert build_vocabulary(catalogue, genres, 2) == {"genres": ["rock", "pop"]}, "twice in one song is one song"


def test_codes_against_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a table that is encoded some rows at a time, and of one without rows."""
    rng = np.random.default_rng(0)
    vocabulary = [f"v{i}" for i in rng.permutation(16)]
    songs: list[Any] = [[f"v{j}" for j in rng.integers(0, 20, rng.integers(0, 16))] for _ in range(80)]
    songs = [[*song, None] if rng.random() < 0.8 else None for song in songs]
    expected = []
    for song in songs:
        known = sorted({vocabulary.index(value) + 2 for value in song or [] if value in vocabulary})
        unknown = [UNKNOWN] if any(value and value not in vocabulary for value in song or []) else []
        expected.append([*known, *unknown, *[0] * MAX_VALUES][:MAX_VALUES])
    assert encode(songs, codes_of(vocabulary)).tolist() == expected
    table = pl.DataFrame({"tags": pl.Series(songs, dtype=pl.List(pl.String))})
    monkeypatch.setattr(fields_module, "CHUNK", 7)
    assert column_codes(table, "tags", vocabulary).tolist() == expected
    assert column_codes(table[:0], "tags", vocabulary).shape == (0, MAX_VALUES) == encode([], {}).shape


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pl.Series(["en", None, "zh"]), [["en"], None, ["zh"]]),
        (pl.Series([1, None, 2]), [["1"], None, ["2"]]),
        (pl.Series([["a", "b"], None, []], dtype=pl.List(pl.String)), [["a", "b"], None, []]),
        (pl.Series(["a", "b", None], dtype=pl.Categorical), [["a"], ["b"], None]),
    ],
)
def test_text_and_list_columns_become_lists(column: pl.Series, expected: list[Any]) -> None:
    assert values_of(pl.DataFrame({"x": column}), "x").to_list() == expected


def test_an_earlier_vocabulary_is_kept(tmp_path: Path) -> None:
    catalogue = small(tmp_path, genres=GENRES)
    fields = read_fields(catalogue, None, [], 1, {"genres": ["jazz", "gone"]})
    assert fields.vocab_sizes == {"genres": 4}
    assert fields.codes["genres"][2].tolist()[:3] == [2, UNKNOWN, 0]


def test_the_tiny_catalogue(catalogue: Any) -> None:
    fields = read_fields(catalogue, None, [], 2)
    assert fields.dense_dims == {"content": 12, "mood": 6}
    assert set(fields.vocabulary) == {"language", "genres", "tags"}, "artist_id is null in every row"
    rows = np.array([[8, 5], [0, 7]])
    got = fields.gather(rows)
    assert got["content"].shape == (2, 2, 12) and got["genres"].shape == (2, 2, MAX_VALUES)
    assert got["content"].dtype == torch.float32 and got["tags"].dtype == torch.int64
    assert torch.isnan(got["content"][0]).all() and torch.isfinite(got["content"][1]).all()
    assert torch.isnan(got["mood"][0, 0]).all() and torch.isfinite(got["mood"][0, 1]).all()
    assert not got["tags"][0, 0].any() and got["tags"][1, 1].count_nonzero() == 2
    source = pl.read_parquet(catalogue.manifest["source"] + "/songs.parquet")["feature_content"]
    assert np.allclose(got["content"][1, 1], source[7], atol=1e-6)


def test_only_the_asked_fields(catalogue: Any) -> None:
    fields = read_fields(catalogue, None, ["mood", "tags"], 2)
    assert (list(fields.dense), list(fields.codes)) == (["mood"], ["tags"])
    assert set(fields.gather(np.arange(3))) == {"mood", "tags"}


@pytest.mark.parametrize("name", ["mood", "tags"])
def test_one_field_of_all(catalogue: Any, name: str) -> None:
    """Its values and codes are those of the whole; the whole is left as it was."""
    fields = read_fields(catalogue, None, [], 2)
    one, rows = fields.only(name), np.arange(60)
    assert [*one.dense, *one.codes] == [name] and one.dense_dims | one.vocab_sizes == {
        name: (fields.dense_dims | fields.vocab_sizes)[name]
    }
    assert list(one.gather(rows)) == [name]
    np.testing.assert_array_equal(one.gather(rows)[name], fields.gather(rows)[name])
    assert len(fields.gather(rows)) == 5


def features_folder(folder: Path, catalogue: Catalogue, **arrays: np.ndarray) -> Path:
    folder.mkdir()
    catalogue.songs.select("song_id").write_parquet(folder / "song_ids.parquet")
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    write_manifest(folder, "features", {})
    return folder


def test_feature_folder_adds_fields(tmp_path: Path) -> None:
    catalogue = small(tmp_path / "c", genres=GENRES)
    vectors = np.arange(18, dtype=np.float32).reshape(6, 3)
    folder = features_folder(tmp_path / "f", catalogue, clip_audio=vectors)
    fields = read_fields(catalogue, str(folder), [], 1)
    assert fields.dense_dims == {"clip_audio": 3}
    assert fields.gather(np.array([4, 1]))["clip_audio"].tolist() == vectors[[4, 1]].tolist()


def test_unknown_field_names_what_there_is(catalogue: Any) -> None:
    with pytest.raises(UserError, match=r"clip_audio.*content.*mood.*no features= folder"):
        read_fields(catalogue, None, ["clip_audio"], 2)


def test_no_field_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no field to learn from"):
        read_fields(small(tmp_path), None, [], 2)


@pytest.mark.parametrize("shape", [(5, 3), (6,)])
def test_features_of_another_catalogue(tmp_path: Path, shape: tuple[int, ...]) -> None:
    catalogue = small(tmp_path / "c", genres=GENRES)
    folder = features_folder(tmp_path / "f", catalogue, clip_audio=np.zeros(shape, np.float32))
    with pytest.raises(UserError, match=r"expected \(6, dim\)"):
        read_fields(catalogue, str(folder), [], 1)


def test_damaged_or_foreign_feature_folders(tmp_path: Path, catalogue_folder: Path) -> None:
    catalogue = small(tmp_path / "c", genres=GENRES)
    folder = features_folder(tmp_path / "f", catalogue)
    (folder / "clip_audio.npy").write_bytes(b"\x93NUMPY not really")
    with pytest.raises(UserError, match=r"clip_audio\.npy: not a readable array"):
        read_fields(catalogue, str(folder), [], 1)
    with pytest.raises(UserError, match="catalogue folder, not a features folder"):
        read_fields(catalogue, str(catalogue_folder), [], 1)
    other = features_folder(tmp_path / "g", Catalogue.read(catalogue_folder))
    with pytest.raises(UserError, match="other songs"):
        read_fields(catalogue, str(other), [], 1)
    (tmp_path / "h").mkdir()
    np.save(tmp_path / "h" / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a readable array"):
        read_features(tmp_path / "h", 1)


def test_catalogue_folder_errors(tmp_path: Path, catalogue_folder: Path) -> None:
    with pytest.raises(UserError, match=r"folder not found.*pipeline\.prepare"):
        Catalogue.read(tmp_path / "absent")
    (tmp_path / "songs.parquet").write_bytes(b"PAR1 nonsense")
    write_manifest(tmp_path, "catalogue", {})
    with pytest.raises(UserError, match=r"songs\.parquet: cannot be read.*pipeline\.prepare") as caught:
        _ = Catalogue.read(tmp_path).songs
    assert "\n" not in str(caught.value)
    assert Catalogue.read(catalogue_folder).audio_shards() is None
