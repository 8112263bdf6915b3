"""Slices of the Million Playlist Dataset, with each quirk of theirs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from configs.errors import UserError
from data.contract.dataset import Dataset
from data.published.files import Found, Reader
from data.published.mpd import read

Made = Callable[[Reader, Path], tuple[Dataset, Found]]


def playlist(pid: int, name: str, tracks: list[str], **more: Any) -> dict[str, Any]:
    """A playlist with all the columns that are published."""
    about = {"num_tracks": len(tracks), "num_albums": 1, "num_followers": 1, "num_edits": 1, "duration_ms": 9}
    rows = [
        {
            "pos": at, "artist_name": f"Artist {uri[0]}", "track_uri": f"spotify:track:{uri}",
            "artist_uri": f"spotify:artist:{uri[0]}", "track_name": f"Song {uri}",
            "album_uri": "spotify:album:1", "duration_ms": 200_000, "album_name": "Album",
        }
        for at, uri in enumerate(tracks)
    ]  # fmt: skip
    fixed = {"name": name, "collaborative": "false", "pid": pid, "modified_at": 1493424000}
    return fixed | about | {"tracks": rows} | more


def write(folder: Path, first: int, playlists: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = {"generated_on": "2017-12-03 08:41:42.057563", "slice": f"{first}-{first + 999}", "version": "v1"}
    path = folder / f"mpd.slice.{first}-{first + 999}.json"
    path.write_text(json.dumps({"info": info, "playlists": playlists}, indent=4))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    data = tmp_path / "mpd" / "data"
    write(data, 10_000, [playlist(10_000, "Rock", ["a1", "b1"], description="what else", collaborative="true")])
    write(data, 0, [playlist(0, " Throw   BACKS ", ["a1", "a2", "a1"]), playlist(1, "rock", [])])
    write(data, 2000, [playlist(2000, "ROCK ", ["b1"])])
    (tmp_path / "mpd" / "challenge_set.json").write_text("{}")
    return tmp_path / "mpd"


def test_playlists_are_users_and_a_track_twice_is_one_play(source: Path, made: Made) -> None:
    data, _ = made(read, source)
    plays = data.plays.with_columns(data.plays["song_id"].str.slice(14)).select("user_id", "song_id").rows()
    assert sorted(plays) == [("0", "a1"), ("0", "a2"), ("10000", "a1"), ("10000", "b1"), ("2000", "b1")]
    assert data.rejected["plays_repeated"]["count"] == 1
    assert data.users["user_id"].to_list() == ["0", "1", "2000", "10000"], "slices in the order of their numbers"


def test_modified_at_is_no_time_of_a_play(source: Path, made: Made) -> None:
    data, _ = made(read, source)
    assert data.plays["played_at"].null_count() == data.plays.height
    assert data.songs["released_at"].null_count() == data.songs.height


def test_names_that_differ_in_case_and_spaces_are_one_and_false_is_a_word(source: Path, made: Made) -> None:
    data, _ = made(read, source)
    assert data.users["name"].to_list() == ["throw backs", "rock", "rock", "rock"]
    assert data.users["collaborative"].to_list() == ["false", "false", "false", "true"]


def test_songs_are_listed_once(source: Path, made: Made) -> None:
    data, _ = made(read, source)
    rows = data.songs.select("title", "artist_id", "artist").rows()
    assert rows == [(f"Song {uri}", f"spotify:artist:{uri[0]}", f"Artist {uri[0]}") for uri in ("a1", "a2", "b1")]


def test_a_track_without_uri_is_named(source: Path, made: Made) -> None:
    wrong = playlist(4000, "x", ["a1", "a2"])
    wrong["tracks"][1]["track_uri"] = None
    write(source / "data", 4000, [wrong])
    _, found = made(read, source)
    assert found.rejected["tracks_without_uri"]["examples"] == ["mpd.slice.4000-4999.json row 2"]


def test_packed_slices_are_read_as_the_others(source: Path, tmp_path: Path) -> None:
    for name in ("whole", "packed"):
        (tmp_path / name).mkdir()
        read(source, tmp_path / name, Found())
        for path in sorted((source / "data").glob("*.json"))[-1:]:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    plays = [pl.read_parquet(tmp_path / name / "plays").sort("user_id", "song_id") for name in ("whole", "packed")]
    assert_frame_equal(*plays)


def test_wrong_files(source: Path, made: Made, tmp_path: Path) -> None:
    (source / "data" / "mpd.slice.2000-2999.json").write_text('{"playlists": [{"pid": 1, ')
    with pytest.raises(UserError, match=r"mpd\.slice\.2000-2999\.json cannot be read"):
        made(read, source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no mpd\.slice"):
        read(tmp_path / "empty", tmp_path / "out", Found())
