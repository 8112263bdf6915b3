"""`train.py i2i` as a whole: what it may not know, and odd data that it must bear."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from configs.errors import UserError
from data.catalogue import Catalogue
from tests.callbacks.test_resume import assert_same, states

COLD = 48  # the tiny dataset's last twelve songs come out cold, by their date
ALL_PARTS = ("trainer.epochs=2", "objective.in_batch=true", "objective.bcl_sampling=popularity")


def state(run: Path) -> Any:
    """Weights and optimiser at the end of training: the choice of the best epoch has no part in them."""
    return [states(run)[part] for part in ("state_dict", "optimizer_states")]


def change(dataset: Path, out: Path, touch: pl.Expr, seed: int = 9) -> Path:
    """A copy of the dataset in which content, tags, genres and language of some songs are wildly other ones."""
    shutil.copytree(dataset, out)
    songs, rng = pl.read_parquet(out / "songs.parquet"), np.random.default_rng(seed)
    wild = {
        "language": pl.Series(["xx"] * songs.height),
        "genres": pl.Series([["genre0", "planted"]] * songs.height),
        "tags": pl.Series([["tag0", "tag1", "planted"]] * songs.height),
        "feature_content": pl.Series((1e4 * rng.standard_normal((songs.height, 12))).tolist()),
        "feature_mood": pl.Series((50 + rng.standard_normal((songs.height, 6))).tolist()),
    }
    columns = [pl.when(touch).then(values.alias(name)).otherwise(name).alias(name) for name, values in wild.items()]
    songs.with_row_index("row").with_columns(columns).drop("row").write_parquet(out / "songs.parquet")
    return out


def replay(folder: Path, first: int, last: int, seed: int = 9) -> None:
    """Other listeners for the songs from `first` to `last`: twice as many, and all of them keen."""
    plays, rng = pl.read_parquet(folder / "plays.parquet"), np.random.default_rng(seed)
    number = pl.col("song_id").str.slice(1).cast(pl.Int64)
    mine, rest = plays.filter(number.is_between(first, last)), plays.filter(~number.is_between(first, last))
    mine = pl.concat([mine, mine.with_columns(pl.col("played_at") + timedelta(minutes=1))])
    users = [f"u{user:02d}" for user in rng.integers(0, 80, mine.height)]
    mine = mine.with_columns(pl.Series("user_id", users), pl.lit(True).alias("favourited"))
    pl.concat([rest, mine]).write_parquet(folder / "plays.parquet")


@pytest.fixture(scope="module")
def clean(train_i2i: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The end of a run on the tiny catalogue, with everything switched on."""
    return state(train_i2i(tmp_path_factory.mktemp("clean") / "i2i", *ALL_PARTS))


def test_nothing_of_a_held_out_song_reaches_the_weights(
    clean: Any, dataset: Path, catalogue: Catalogue, prepare: Callable[..., Path],
    train_i2i: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    """Same ids, same split; content, tags and plays of validation and test songs are other ones: bit-identical."""
    replay(change(dataset, tmp_path / "dataset", pl.col("row") >= COLD), COLD, 59)
    other = Catalogue.read(prepare(tmp_path / "dataset", tmp_path / "catalogue"))
    assert other.songs["split"].equals(catalogue.songs["split"]) and (other.rows("cold") == np.arange(COLD, 60)).all()
    assert not other.cold_plays.equals(catalogue.cold_plays) and other.cold_plays.height > catalogue.cold_plays.height
    assert not np.allclose(other.features()["content"][COLD:], catalogue.features()["content"][COLD:])
    assert other.plays.equals(catalogue.plays) and len(other.rows("cold_val"))
    run = train_i2i(tmp_path / "i2i", *ALL_PARTS, f"data={tmp_path / 'catalogue'}")
    assert_same(state(run), clean)


@pytest.mark.parametrize("what", ["content", "plays"])
def test_a_known_song_does_reach_them(
    what: str, clean: Any, dataset: Path, prepare: Callable[..., Path], train_i2i: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    """The control of the test above: the last song before the first new one."""
    change(dataset, tmp_path / "dataset", (pl.col("row") == COLD - 1) & (what == "content"))
    if what == "plays":
        replay(tmp_path / "dataset", COLD - 1, COLD - 1)
    prepare(tmp_path / "dataset", tmp_path / "catalogue")
    run = train_i2i(tmp_path / "i2i", *ALL_PARTS, f"data={tmp_path / 'catalogue'}")
    with pytest.raises(AssertionError):
        assert_same(state(run), clean)


@pytest.mark.parametrize("name", ["plays", "pairs"])
def test_a_planted_song_is_refused_before_anything_is_written(
    name: str, catalogue_folder: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    planted = shutil.copytree(catalogue_folder, tmp_path / "catalogue")
    table = pl.read_parquet(planted / f"{name}.parquet")
    column = {"plays": "song", "pairs": "target"}[name]
    row = table.head(1).with_columns(pl.lit(COLD + 3).cast(table[column].dtype).alias(column))
    pl.concat([row, table]).write_parquet(planted / f"{name}.parquet")
    with pytest.raises(UserError, match=rf"{name}.parquet: 1 rows name a held-out song, the first is 's{COLD + 3}'"):
        train_i2i(tmp_path / "i2i", f"data={planted}", "trainer.epochs=1")
    assert not list((tmp_path / "i2i").rglob("*.ckpt"))


# ----------------------------------------------------------------------------------------------------------- odd data


def songs_of(folder: Path, **columns: Any) -> None:
    """Overwrite columns of a dataset's songs."""
    path = folder / "songs.parquet"
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)


def idle_users(folder: Path) -> None:
    users = pl.read_parquet(folder / "users.parquet")
    more = users.head(5).with_columns(pl.Series("user_id", [f"idle{i}" for i in range(5)]))
    pl.concat([more, users]).write_parquet(folder / "users.parquet")


def with_numbers(folder: Path, width: int, number: Callable[[int, int], float]) -> None:
    """`feature_content` of the given width; song 8 has none."""
    rows = [[number(song, at) for at in range(width)] if song != 8 else None for song in range(60)]
    songs_of(folder, feature_content=pl.Series(rows, dtype=pl.List(pl.Float64)))


ODD: dict[str, Callable[[Path], None]] = {
    "users without a play": idle_users,
    "narrow duplicates": lambda folder: with_numbers(folder, 3, lambda song, at: 1.0 + at),
    "wide duplicates": lambda folder: with_numbers(folder, 20, lambda song, at: 1.0 + at),
    "pairs of equal songs": lambda folder: with_numbers(folder, 20, lambda song, at: float(song // 2 * at % 7)),
    "songs with nothing at all": lambda folder: songs_of(
        folder, **{name: pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(name)
                   for name in ("language", "genres", "tags", "feature_content", "feature_mood")}
    ),
    "huge numbers": lambda folder: with_numbers(folder, 20, lambda song, at: 1e15 * ((song * 7 + at) % 11 - 5)),
    "one value for all": lambda folder: songs_of(
        folder, language=pl.lit("en"), genres=pl.lit(["genre0"]), tags=pl.lit(["tag0"])
    ),
}  # fmt: skip


def check(run: Path, data: Path) -> None:
    """A finished run of finite weights, whose vectors of all songs are finite, and a figure between 0 and 1."""
    from inference.vectors import encode_songs

    assert all(torch.isfinite(value).all() for value in state(run)[0].values())
    _, found = encode_songs(run, str(data))
    assert len(found["vector"]) == 60 and all(np.isfinite(value).all() for value in found.values())
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["finished"] and 0 <= manifest["best"]["val/audience"] <= 1


@pytest.mark.parametrize("name", ODD)
def test_odd_data_are_borne(
    name: str, dataset: Path, prepare: Callable[..., Path], train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(dataset, tmp_path / "dataset")
    ODD[name](tmp_path / "dataset")
    data = prepare(tmp_path / "dataset", tmp_path / "catalogue")
    check(train_i2i(tmp_path / "i2i", f"data={data}", "trainer.epochs=1"), data)


def test_a_missing_number_is_a_missing_vector(
    catalogue_folder: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    """One NaN in a feature file of whatever origin: the run is that in which the whole row is missing."""
    runs = {}
    for name, columns in (("one", slice(3, 4)), ("all", slice(None))):
        data = shutil.copytree(catalogue_folder, tmp_path / name)
        content = np.load(data / "features" / "content.npy")
        content[[10, 11, 50], columns] = np.nan
        np.save(data / "features" / "content.npy", content)
        run = train_i2i(tmp_path / f"i2i_{name}", f"data={data}", "trainer.epochs=1")
        check(run, data)
        runs[name] = state(run)
    assert_same(runs["one"], runs["all"])


@pytest.mark.parametrize(
    "options",
    [
        ["recall_k=500", "recall_users=500"],
        ["objective.candidates=100000", "objective.history=100000"],
        ["objective.negatives=700", "bcl_batch_size=300"],
        ["batch_size=1000000"],
        ["objective.candidates=1", "objective.users=1", "bcl_batch_size=1", "objective.negatives=1", "recall_k=1"],
    ],
    ids=lambda options: options[0],
)
def test_more_than_the_catalogue_has_and_as_little_as_can_be(
    options: list[str], catalogue_folder: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    check(train_i2i(tmp_path / "i2i", "trainer.epochs=1", *options), catalogue_folder)


def test_no_user_with_two_songs(catalogue_folder: Path, train_i2i: Callable[..., Path], tmp_path: Path) -> None:
    """Pairs may come from elsewhere: then histories are refused, and can be switched off."""
    data = shutil.copytree(catalogue_folder, tmp_path / "catalogue")
    plays = pl.read_parquet(data / "plays.parquet").unique("user", keep="first", maintain_order=True)
    plays.write_parquet(data / "plays.parquet")
    with pytest.raises(UserError, match="no user listened to two known songs"):
        train_i2i(tmp_path / "i2i", f"data={data}", "trainer.epochs=1")
    check(train_i2i(tmp_path / "off", f"data={data}", "trainer.epochs=1", "objective.listening_weight=0"), data)
