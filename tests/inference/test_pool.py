"""Which songs get an audience: new ones, since a date, and the long tail with all that follows from it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from configs.load import load
from configs.targeting import AudienceConfig
from data.catalogue import Catalogue
from inference.filters import read_first_plays, songs_in_pool, without_listeners
from retrieval.audience import Excluded
from tests.commands import run


def pool(catalogue: Catalogue, *options: str) -> np.ndarray:
    return songs_in_pool(load(AudienceConfig, ["out=o", "index=i", *options]), catalogue)


def test_new_songs_since_a_date_and_the_long_tail(catalogue: Catalogue) -> None:
    cold = catalogue.rows("cold")
    assert pool(catalogue, "split=cold").tolist() == cold.tolist()
    released = catalogue.songs["released_at"].to_list()
    day = sorted(released)[-4]
    expected = [row for row in cold if released[row] >= day]
    assert pool(catalogue, "split=cold", f"since={day:%Y-%m-%d}").tolist() == expected and len(expected) == 4
    plays = catalogue.songs["popularity"].to_list()
    warm = catalogue.rows("warm")
    few = sorted(plays[row] for row in warm)[5]
    tail = {int(row) for row in warm if plays[row] <= few}
    found = pool(catalogue, "split=cold_test", f"long_tail={few}")
    assert set(found.tolist()) == tail | set(catalogue.rows("cold_test").tolist()) and 6 <= len(tail) < 20
    assert (np.diff(found) > 0).all()
    for wrong in ("since=2026-13-01", "since=yesterday", f"since={datetime(2090, 1, 1):%Y-%m-%d}"):
        with pytest.raises(UserError, match="since="):
            pool(catalogue, wrong)


def test_listeners_of_a_known_song_are_left_out(catalogue: Catalogue) -> None:
    songs = pool(catalogue, "split=cold_test", "long_tail=15")
    given = Excluded(np.array([3]), np.array([0, 2]), np.array([5, 7]))
    for before in (Excluded(), given):
        found = without_listeners(before, catalogue, songs)
        assert (np.diff(found.song) >= 0).all()
        allowed = np.ones((len(songs), catalogue.n_users), dtype=bool)
        found.cut(allowed, slice(0, len(songs)))
        for row, song in enumerate(songs):
            heard = set(catalogue.plays.filter(pl.col("song") == int(song))["user"].to_list())
            also = {3} | {user for at, user in ((0, 5), (2, 7)) if at == row} if before else set()
            assert set(np.flatnonzero(~allowed[row]).tolist()) == heard | also
    assert not without_listeners(Excluded(), catalogue, catalogue.rows("cold"))


@pytest.fixture(scope="module")
def index_folder(i2i_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pool") / "index"
    run("index", f"run={i2i_run}", f"out={out}")
    return out


@pytest.mark.parametrize("mode", ["i2i2u", "cat", "union", "taste"])
def test_the_long_tail_has_an_audience_beside_the_new_and_changes_none(
    mode: str, index_folder: Path, catalogue: Catalogue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor do first plays of a song of it: its vector is part of what users are, and stays as it is."""
    songs, users = catalogue.songs, catalogue.users["user_id"]
    tail = songs.filter((pl.col("split") == "warm") & (pl.col("popularity") <= 15))["song_id"]
    cold = songs.filter(pl.col("split") != "warm")["song_id"]
    pl.DataFrame({"user_id": users[:10], "song_id": [tail[0]] * 10}).write_parquet(tmp_path / "p.parquet")
    tables: dict[str, pl.DataFrame] = {}
    for name, options in (("new", []), ("both", ["long_tail=15"]), ("played", [f"plays={tmp_path}/p.parquet"])):
        more = ["long_tail=15", *options] if name == "played" else options
        given = [f"index={index_folder}", f"out={tmp_path}/{name}", f"mode={mode}", "split=cold", *more]
        run("audience", *given, "targeting.budget=20")
        tables[name] = pl.read_parquet(tmp_path / name / "audience.parquet")
    both, played = tables["both"], tables["played"]
    assert len(tail) and set(both["song_id"]) == set(cold) | set(tail)
    of_new = both.filter(pl.col("song_id").is_in(cold.implode()))
    assert of_new.drop("score").equals(tables["new"].drop("score"))
    heard = catalogue.plays.select(
        song_id=songs["song_id"].gather(catalogue.plays["song"]), user_id=users.gather(catalogue.plays["user"])
    )
    assert both.join(heard, on=["song_id", "user_id"], how="inner").is_empty()
    similar = pl.read_parquet(tmp_path / "both" / "similar.parquet")
    assert similar.filter(pl.col("song_id") == pl.col("similar_song_id")).is_empty()
    assert f"{len(cold) + len(tail)} songs, " in capsys.readouterr().out
    others = [one.filter(pl.col("song_id") != tail[0]) for one in (both, played)]
    assert others[0].equals(others[1])
    after = played.filter(pl.col("song_id") == tail[0])
    assert after.height and not set(after["user_id"]) & set(users[:10])


def first_plays(catalogue: Catalogue, path: Path, **columns: Any) -> Path:
    """Three listeners of the first new song, one of whom disliked it, and one of the second."""
    songs, users = catalogue.songs["song_id"].gather(catalogue.rows("cold")), catalogue.users["user_id"]
    table = {
        "user_id": [users[1], users[4], users[9], users[4], "nobody"],
        "song_id": [songs[0], songs[0], songs[0], songs[1], songs[0]],
        "favourited": [True, False, False, None, None],
        "disliked": [False, False, True, None, None],
    } | columns
    pl.DataFrame(table).write_parquet(path)
    return path


def test_first_plays_are_read(catalogue: Catalogue, tmp_path: Path) -> None:
    new = catalogue.rows("cold")
    found = read_first_plays(str(first_plays(catalogue, tmp_path / "p.parquet")), catalogue, new)
    dense = found.strength_CU.toarray()
    assert dense.shape == (len(new), catalogue.n_users)
    assert {(int(c), int(u), float(dense[c, u])) for c, u in zip(*np.nonzero(dense), strict=True)} == {
        (0, 1, 3.0), (0, 4, 1.0), (1, 4, 1.0),
    }  # fmt: skip
    assert sorted(zip(found.song.tolist(), found.user.tolist(), strict=True)) == [(0, 1), (0, 4), (0, 9), (1, 4)]
    assert "4 (song, user) pairs, 2 songs warm up" in str(found) and "nobody" in str(found)
    bare = first_plays(catalogue, tmp_path / "bare.parquet")
    pl.read_parquet(bare).select("user_id", "song_id").write_parquet(bare)
    assert read_first_plays(str(bare), catalogue, new).strength_CU.nnz == 4
    pl.read_parquet(bare).clear().write_parquet(bare)  # a first day is nothing to complain about
    found = read_first_plays(str(bare), catalogue, new)
    assert found.strength_CU.nnz == 0 and not len(found.song) and "0 songs warm up" in str(found)
    of_known = first_plays(catalogue, tmp_path / "known.parquet", song_id=[catalogue.songs["song_id"][0]] * 5)
    found = read_first_plays(str(of_known), catalogue, new)
    assert found.strength_CU.nnz == 0 and "5 rows of songs outside the pool are not looked at" in str(found)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"song_id": [[1]] * 5}, r"plays=.*p\.parquet: wanted: columns user_id and song_id"),
        ({"disliked": ["yes"] * 5}, r"plays=.*p\.parquet: .*column 'disliked' has type String"),
    ],
)
def test_first_plays_that_cannot_be_read(
    columns: dict[str, Any], message: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    path = first_plays(catalogue, tmp_path / "p.parquet", **columns)
    with pytest.raises(UserError, match=message):
        read_first_plays(str(path), catalogue, catalogue.rows("cold"))


def test_whoever_met_a_song_is_left_out_however_odd_the_row(catalogue: Catalogue, tmp_path: Path) -> None:
    """Played before its release, liked and disliked at once: no taste can be read from it, but they know the song."""
    new, users = catalogue.rows("cold"), catalogue.users["user_id"]
    song = catalogue.songs["song_id"][int(new[0])]
    plays = {"user_id": [users[1], users[2], users[3]], "song_id": [song] * 3}
    early = [datetime(1990, 1, 1), datetime(2090, 1, 1), datetime(2090, 1, 1)]
    flags = {"favourited": [True, True, True], "disliked": [False, True, False]}
    pl.DataFrame(plays | {"played_at": early} | flags).write_parquet(tmp_path / "p.parquet")
    found = read_first_plays(str(tmp_path / "p.parquet"), catalogue, new)
    assert found.user.tolist() == [1, 2, 3] and found.strength_CU.indices.tolist() == [3]


@pytest.mark.parametrize("mode", ["taste", "i2i2u", "boundary"])
def test_the_command_warms_songs_up(
    mode: str, index_folder: Path, boundary_run: Path, catalogue: Catalogue, tmp_path: Path, capsys: Any
) -> None:
    """Songs with plays move towards their listeners, who are left out; songs without stay as they were."""
    plays = first_plays(catalogue, tmp_path / "p.parquet")
    given = [f"index={index_folder}", f"boundary={boundary_run}", f"mode={mode}", "split=cold"]
    given += [f"targeting.budget={catalogue.n_users}", "targeting.margin=-1e9", "targeting.warm_up=0.5"]
    tables = {}
    for name, more in (("cold", []), ("warm", [f"plays={plays}"])):
        run("audience", *given, f"out={tmp_path}/{name}", *more)
        tables[name] = {song: one.sort("rank") for (song,), one in
                        pl.read_parquet(tmp_path / name / "audience.parquet").group_by("song_id")}  # fmt: skip
    assert "2 songs warm up" in capsys.readouterr().out
    first, second, *others = catalogue.songs["song_id"].gather(catalogue.rows("cold"))
    users = catalogue.users["user_id"]
    for song in others:
        assert tables["warm"][song].drop("score", "margin").equals(tables["cold"][song].drop("score", "margin"))
    for song, heard in ((first, {users[1], users[4], users[9]}), (second, {users[4]})):
        before, after = (tables[name][song]["user_id"].to_list() for name in ("cold", "warm"))
        assert not heard & set(after) and (mode == "i2i2u" or set(before) - set(after) == heard)
        assert [one for one in before if one in after] != after, "another order"
    of_users = pl.read_parquet(tmp_path / "warm" / "recommendations.parquet")
    assert of_users.filter((pl.col("user_id") == users[4]) & pl.col("song_id").is_in([first, second])).is_empty()
