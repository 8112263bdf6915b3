"""Which songs get an audience (new ones, since a date, the long tail), and whom they must not or need not reach."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from configs.load import load
from configs.targeting import AudienceConfig
from data.catalogue import Catalogue
from inference.filters import read_exclusions, read_first_plays, songs_in_pool, without_listeners
from retrieval.audience import Allowed, Excluded
from tests.commands import run
from tests.serving import test_remote as store

address, upload = store.address, store.upload


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
    with pytest.raises(UserError, match="since=2090"):
        pool(catalogue, "since=2090-01-01")


def test_listeners_of_a_known_song_are_left_out(catalogue: Catalogue) -> None:
    songs = pool(catalogue, "split=cold_test", "long_tail=15")
    given = Excluded(np.array([3]), np.array([0, 2]), np.array([5, 7]))
    for before in (Excluded(), given):
        found = without_listeners(before, catalogue.plays, songs)
        assert (np.diff(found.song) >= 0).all()
        allowed = allowed_of(found, len(songs), catalogue.n_users)
        for row, song in enumerate(songs):
            heard = set(catalogue.plays.filter(pl.col("song") == int(song))["user"].to_list())
            also = {3} | {user for at, user in ((0, 5), (2, 7)) if at == row} if before else set()
            assert set(np.flatnonzero(~allowed[row]).tolist()) == heard | also
    assert not without_listeners(Excluded(), catalogue.plays, catalogue.rows("cold"))


def allowed_of(excluded: Excluded, songs: int, users: int) -> np.ndarray:
    """Who may be reached by which song, song by song."""
    score = np.zeros((songs, users), dtype=np.float32)
    for song in range(songs):
        Allowed(excluded, users).cut(score[song : song + 1], slice(song, song + 1), slice(0, users))
    return np.isfinite(score)


NEW = np.array([1, 3, 4])


def five_songs() -> Any:
    """Five songs, s1, s3 and s4 of them new; six users, one of them with a number for a name."""
    users = pl.DataFrame({"user_id": ["u0", "u1", "u2", "7", "u4", "u5"]})
    return SimpleNamespace(
        songs=pl.DataFrame({"song_id": [f"s{i}" for i in range(5)]}), users=users, n_users=6, n_songs=5
    )


def masked(path: Path, rows: slice = slice(0, 3)) -> list[list[int]]:
    """Users that are left out of each new song."""
    mask = allowed_of(read_exclusions(str(path), five_songs(), NEW), len(NEW), 6)
    return [np.flatnonzero(~row).tolist() for row in mask[rows]]


def test_exclusions_of_every_song_and_of_one(tmp_path: Path) -> None:
    path = tmp_path / "no.parquet"
    pl.DataFrame(
        {
            "user_id": ["u2", "u5", "u5", "u0", "u1", "u4", "u4", "u2"],
            "song_id": [None, "s4", "s4", "s1", "s0", "s1", "s4", "s4"],
            "why": [[1]] * 8,
        }
    ).write_parquet(path)
    assert masked(path) == [[0, 2, 4], [2], [2, 4, 5]], "s0 is known: no audience is looked for"
    assert masked(path, slice(1, 3)) == [[2], [2, 4, 5]] and masked(path, slice(2, 3)) == [[2, 4, 5]]
    excluded = read_exclusions(str(path), five_songs(), NEW)
    assert str(excluded) == "users left out: 1 of every song, 5 of one song"


@pytest.mark.parametrize(
    ("ids", "kind", "users"),
    [
        ([7, 7], pl.Int64, [3]),
        ([7.0, 7.0], pl.Float64, [3]),
        (["7"], pl.Categorical, [3]),
        ([], pl.String, []),
        ([], pl.Null, []),
    ],
)
def test_exclusions_without_a_song_column(ids: list[Any], kind: Any, users: list[int], tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ids}, schema={"user_id": kind}).write_parquet(tmp_path / "no.parquet")
    assert masked(tmp_path / "no.parquet") == [users] * 3


def test_unknown_ids_of_exclusions_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "no.parquet"
    users = ["u1", "x1", "x2", "x1", "x3", "x4", "u2"]
    pl.DataFrame({"user_id": users, "song_id": [None, None, "s1", "s1", "gone", "s1", "gone"]}).write_parquet(path)
    excluded = read_exclusions(str(path), five_songs(), NEW)
    assert excluded.unknown == {"user_id": ["x1", "x2", "x3", "x4"], "song_id": ["gone"]}
    unknown = "; user_id not in the catalogue: 4 (x1, x2, x3, …); song_id not in the catalogue: 1 (gone)"
    assert str(excluded).endswith(unknown)
    assert masked(path) == [[1]] * 3, "a row of a song that there is not is no row of every song"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"user": ["u1"]}, ["user_id", "it has: user"]),
        ({"user_id": [1.5]}, ["user_id", "Float64", "text or integer"]),
        ({"user_id": ["u1"], "song_id": [[1]]}, ["song_id", "List", "text or integer"]),
        ({"user_id": ["u1", None]}, ["user_id", "null in 1 rows"]),
    ],
)
def test_exclusions_that_cannot_be_read(table: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "no.parquet")
    with pytest.raises(UserError) as caught:
        read_exclusions(str(tmp_path / "no.parquet"), five_songs(), NEW)
    assert all(word in str(caught.value) for word in [*words, "no.parquet"]) and "\n" not in str(caught.value)


def test_exclusions_without_a_file_or_a_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_exclusions(str(tmp_path / "absent.parquet"), five_songs(), NEW)
    (tmp_path / "text.parquet").write_text("user_id\nu1\n")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_exclusions(str(tmp_path / "text.parquet"), five_songs(), NEW)


def test_exclusions_and_first_plays_are_read_from_an_object_store(
    catalogue: Catalogue, upload: Callable[[Path, str], str], tmp_path: Path
) -> None:
    new, folder = catalogue.rows("cold"), tmp_path / "given"
    folder.mkdir()
    first_plays(catalogue, folder / "p.parquet")
    (folder / "text.parquet").write_text("user_id\n")
    at, query = upload(folder, "given").split("?")

    def both(where: str) -> tuple[Any, ...]:
        plays, excluded = read_first_plays(where, catalogue, new), read_exclusions(where, catalogue, new)
        return plays.strength_CU.toarray().tolist(), *map(str, (plays, excluded, excluded.song, excluded.user))

    assert both(f"{at}/p.parquet?{query}") == both(str(folder / "p.parquet"))
    for name, message in {"absent": "no such file", "text": "cannot be read as Parquet"}.items():
        with pytest.raises(UserError, match=rf"plays=s3://.*/{name}\.parquet.*{message}"):
            read_first_plays(f"{at}/{name}.parquet?{query}", catalogue, new)
    with pytest.raises(UserError, match=r"s3://nobody/p\.parquet.* cannot be read"):
        read_exclusions("s3://nobody/p.parquet?endpoint_override=127.0.0.1:9&scheme=http", catalogue, new)


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
