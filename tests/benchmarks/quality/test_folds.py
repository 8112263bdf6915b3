"""A fold against the dataset's own tables, read here once more, and against the published protocol on lfm2k."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.item_cold.__main__ import fixed, modality_weights
from benchmarks.quality.item_cold.closed_form import content_knn
from benchmarks.quality.item_cold.folds import LFM2K_SETS, Fold, content, feature_sets, format_of, make_fold
from benchmarks.quality.item_cold.methods import FIXED
from benchmarks.quality.item_cold.neural import semco
from configs.errors import UserError
from data.fields import read_fields
from evaluation.baselines import content_vectors

LFM2K = Path(os.environ.get("FIRSTPLAY_DATA", "not set")) / "lfm2k"
needs_lfm2k = pytest.mark.skipif(not LFM2K.exists(), reason="needs lfm2k in $FIRSTPLAY_DATA")


@pytest.fixture(scope="module")
def fold(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Fold:
    """Seed 3 of the tiny dataset, split at random."""
    return make_fold(dataset, tmp_path_factory.mktemp("folds") / "seed3", 3, [], [])


def check_split(fold: Fold, n_songs: int, seed: int) -> None:
    """The reference protocol: of numpy's permutation, a tenth tests, the next tenth validates."""
    order = np.random.default_rng(seed).permutation(n_songs)
    cold = round(0.2 * n_songs)
    assert fold.parts["cold_test"].songs.tolist() == sorted(order[: cold // 2])
    assert fold.parts["cold_val"].songs.tolist() == sorted(order[cold // 2 : cold])
    assert fold.known.tolist() == sorted(order[cold:])


def test_a_fold_has_every_play_once_in_its_part(fold: Fold, dataset: Path) -> None:
    check_split(fold, 60, 3)
    plays = pl.read_parquet(dataset / "plays.parquet")
    heard = np.zeros((80, 60), dtype=bool)
    for user, song in plays.select("user_id", "song_id").iter_rows():
        heard[int(user[1:]), int(song[1:])] = True
    np.testing.assert_array_equal(fold.plays_UW.toarray(), heard[:, fold.known].astype(np.float32))
    for held in fold.parts.values():
        pairs = list(zip(held.user_of.tolist(), held.songs[held.position_of].tolist(), strict=True))
        assert len(pairs) == len(set(pairs)) > 100
        assert set(pairs) == {(u, s) for u, s in zip(*np.nonzero(heard), strict=True) if s in held.songs}


def test_known_artists_are_those_with_a_known_song(write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """Artists by a loop over the table; no artist, and "", are nobody's name."""
    source = write_dataset(tmp_path / "data")
    songs = pl.read_parquet(source / "songs.parquet")
    name = [None if i % 11 == 4 else "" if i % 11 == 5 else f"a{i if i % 3 else i % 30}" for i in range(60)]
    songs.with_columns(artist_id=pl.Series(name)).write_parquet(source / "songs.parquet")
    fold = make_fold(source, tmp_path / "seed3", 3, [], [])
    warm = {name[i] for i in fold.known} - {None, ""}
    assert fold.artist_S is not None
    for i in range(60):
        assert (fold.artist_S[i] == -1) == (name[i] in (None, ""))
        for j in range(60):
            assert name[i] in (None, "") or (fold.artist_S[i] == fold.artist_S[j]) == (name[i] == name[j])
    kinds = set()
    for held in fold.parts.values():
        assert held.known_artist_C is not None
        assert held.known_artist_C.tolist() == [name[song] in warm for song in held.songs]
        kinds |= {
            (bool(of), name[song] in (None, "")) for of, song in zip(held.known_artist_C, held.songs, strict=True)
        }
    assert kinds == {(True, False), (False, False), (False, True)}


def test_what_is_there_is_read_and_not_made_again(fold: Fold, dataset: Path) -> None:
    made = (fold.folder / "manifest.json").stat().st_mtime_ns
    again = make_fold(dataset, fold.folder.parent, 3, [], [])
    assert (fold.folder / "manifest.json").stat().st_mtime_ns == made
    assert (again.plays_UW != fold.plays_UW).nnz == 0 and fold.features is None
    assert fold.artist_S is None and all(held.known_artist_C is None for held in fold.parts.values())


def test_the_same_data_elsewhere_is_the_same(fold: Fold, dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "copy")
    assert make_fold(tmp_path / "copy", fold.folder.parent, 3, [], []).folder == fold.folder


@pytest.mark.parametrize(
    ("seed", "options"),
    [(4, []), (3, ["split.by=time"]), (3, ["split.until=2026-01-01"]), (3, ["pairs.posterior=none"])],
)
def test_a_fold_made_otherwise_is_refused(fold: Fold, dataset: Path, seed: int, options: list[str]) -> None:
    with pytest.raises(UserError, match="made of other data or options: remove it or choose another work="):
        make_fold(dataset, fold.folder.parent, seed, options, [])


def test_a_fold_of_other_data_is_refused(fold: Fold, write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="made of other data or options"):
        make_fold(write_dataset(tmp_path / "data", seed=1), fold.folder.parent, 3, [], [])


def test_text_of_any_split_is_embedded_once_but_tags_for_each(dataset: Path, tmp_path: Path) -> None:
    one = make_fold(dataset, tmp_path / "a" / "seed0", 0, [], ["language"])
    assert one.features == str(tmp_path / "a" / "features")
    other = make_fold(dataset, tmp_path / "a" / "seed1", 1, [], ["language"])
    assert other.features == one.features
    assert "text" in feature_sets(dataset, one, [])
    with pytest.raises(UserError, match="made of other text"):
        make_fold(dataset, tmp_path / "a" / "seed0", 0, [], ["genres"])
    with pytest.raises(UserError, match="made of other text"):
        make_fold(dataset, tmp_path / "a" / "seed0", 0, [], ["language"], "another")
    fitted = [make_fold(dataset, tmp_path / "c" / f"seed{seed}", seed, [], ["language"], "tfidf") for seed in (0, 1)]
    assert [Path(str(fold.features)).parent.name for fold in fitted] == ["seed0", "seed1"], "to known songs"
    tags = make_fold(dataset, tmp_path / "b" / "seed0", 0, [], ["tags"])
    assert tags.features == str(tmp_path / "b" / "seed0" / "features")
    text = content(tags, ["text"], [1.0])
    same = text[0] @ text[[6, 12, 18]].T  # song 0 and others of its taste with as many tags
    assert (np.abs(text).sum(axis=1) > 0).sum() == 59 and same.min() > (text[0] @ text[[1, 2, 5]].T).max()


@pytest.mark.parametrize("part", ["cold_val", "cold_test"])
def test_a_part_without_a_listener_is_refused(write_dataset: Callable[..., Path], tmp_path: Path, part: str) -> None:
    source = write_dataset(tmp_path / "data")
    order = np.random.default_rng(0).permutation(60)
    gone = [f"s{song:02d}" for song in (order[6:12] if part == "cold_val" else order[:6])]
    plays = pl.read_parquet(source / "plays.parquet").filter(~pl.col("song_id").is_in(gone))
    plays.write_parquet(source / "plays.parquet")
    with pytest.raises(UserError, match=f"no {part} song has a listener, so nothing can be measured"):
        make_fold(source, tmp_path / "seed0", 0, [], [])


def test_content_is_weighted_field_by_field(fold: Fold) -> None:
    """Each field is `evaluation.baselines.content_vectors` of it, centred on the known songs."""
    fields = read_fields(fold.catalogue, None, ["content", "genres"], min_count=1)
    blocks = [content_vectors(fields.only(name), fold.known) for name in ("content", "genres")]
    expected = np.concatenate([blocks[0], 0.3 * blocks[1]], axis=1)
    np.testing.assert_allclose(content(fold, ["content", "genres"], [1.0, 0.3]), expected, atol=1e-6)
    assert not expected[8].any() and expected[5].any()  # song 5 has the second field only


def test_modality_weights() -> None:
    assert modality_weights(1, content_knn) == [[1.0]]
    assert modality_weights(2, content_knn) == [[1.0, 1.0], [1.0, 0.3], [0.3, 1.0]]
    assert len(modality_weights(3, content_knn)) == 4 and modality_weights(3, semco) == [[1.0, 1.0, 1.0]]


def test_feature_sets_of_a_dataset(fold: Fold, dataset: Path) -> None:
    names = ["content", "mood", "language", "genres", "tags"]
    found = feature_sets(dataset, fold, [])
    assert found == {"+".join(names): names} | {name: [name] for name in names}
    assert next(iter(found)) == "+".join(names)
    assert feature_sets(dataset, fold, ["tags+content", "mood"]) == {
        "tags+content": ["tags", "content"],
        "mood": ["mood"],
    }
    with pytest.raises(UserError, match=r"features=\['lyrics', 'mood\+text'\]: this data has content\+mood"):
        feature_sets(dataset, fold, ["lyrics", "mood", "mood+text"])


def test_layouts_and_their_feature_sets(fold: Fold, dataset: Path, tmp_path: Path) -> None:
    assert format_of(dataset) == "contract" and format_of(tmp_path / "hetrec2011-lastfm-2k.zip") == "hetrec"
    (tmp_path / "lfm2k.inter").touch()
    assert format_of(tmp_path) == "lfm2k"
    assert feature_sets(tmp_path, fold, []) == LFM2K_SETS
    assert feature_sets(tmp_path, fold, ["audio"]) == {"audio": ["vggish", "whisper"]}
    with pytest.raises(UserError, match=r"features=\['vggish'\]: this data has text, audio, text\+audio"):
        feature_sets(tmp_path, fold, ["vggish"])


def test_a_hetrec_zip_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    heard = [(user, artist) for user in range(30) for artist in range(40) if rng.random() < 0.4]
    tables = {
        "artists.dat": ["id\tname\turl\tpictureURL", *(f"{a}\tArtist {a}\tu\tp" for a in range(40))],
        "user_artists.dat": ["userID\tartistID\tweight", *(f"{u}\t{a}\t{rng.integers(1, 99)}" for u, a in heard)],
        "user_taggedartists.dat": [
            "userID\tartistID\ttagID\tday\tmonth\tyear", *(f"{a % 7}\t{a}\t{a % 3}\t1\t1\t2009" for a in range(40)),
        ],
        "tags.dat": ["tagID\ttagValue", "0\trock", "1\tjazz", "2\tfolk"],
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "hetrec2011-lastfm-2k.zip", "w") as archive:
        for name, lines in tables.items():
            archive.writestr(name, "\n".join(lines) + "\n")
    fold = make_fold(tmp_path / "hetrec2011-lastfm-2k.zip", tmp_path / "seed1", 1, [], [])
    check_split(fold, 40, 1)
    held = sum(len(part.user_of) for part in fold.parts.values())
    assert fold.plays_UW.nnz + held == len(heard) and fold.plays_UW.max() == 1
    assert feature_sets(tmp_path / "hetrec2011-lastfm-2k.zip", fold, []) == {"tags": ["tags"]}


@pytest.mark.slow
@needs_lfm2k
def test_the_reference_split_and_figures_on_lfm2k(tmp_path: Path) -> None:
    """Five seeds; recall@20, NDCG@20 and songs → users recall@50 as measured before by a program of its own."""
    wanted = {
        ("text", "ridge(1) to EASE rows"): (0.755, 0.518, 0.314),
        ("audio", "ridge(10) to EASE rows"): (0.438, 0.253, 0.147),
        ("text", "content kNN (20)"): (0.701, 0.475, 0.319),
    }
    keys = ("recall@20", "ndcg@20", "songs_to_users_recall@50")
    found: dict[tuple[str, str], list[list[float]]] = {one: [] for one in wanted}
    for seed in range(5):
        fold = make_fold(LFM2K, tmp_path / f"seed{seed}", seed, [], [])
        order = np.random.default_rng(seed).permutation(1425)
        assert fold.parts["cold_test"].songs.tolist() == sorted(order[:142])
        assert fold.parts["cold_val"].songs.tolist() == sorted(order[142:285])
        for features, method in wanted:
            figures, chosen = fixed(fold, LFM2K_SETS[features], *FIXED[method], seed)
            assert chosen == {}
            found[features, method].append([figures[key] for key in keys])
        shutil.rmtree(tmp_path / f"seed{seed}")
    for one, figures in wanted.items():
        assert np.mean(found[one], axis=0) == pytest.approx(figures, abs=0.01), one
