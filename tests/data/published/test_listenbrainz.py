"""Dumps of ListenBrainz and Last.fm-1K, with each quirk of theirs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from configs.errors import UserError
from data.contract.dataset import Dataset
from data.published.files import Found, Reader
from data.published.listenbrainz import read

Made = Callable[[Reader, Path], tuple[Dataset, Found]]
MBID, OTHER = "c605c224-245b-4107-b9cd-ab1b2c6adb0a", "0a1b2c3d-0000-4107-b9cd-ab1b2c6adb0a"


def listen(at: int, user: int, artist: str, title: str, **info: Any) -> dict[str, Any]:
    """A listen with what else is published of it."""
    more = {"artist_msid": "m", "artist_mbids": [], "isrc": "US", "duration_ms": 1, "a.b": 1} | info
    track = {"artist_name": artist, "track_name": title, "release_name": "Album", "additional_info": more}
    return {"listened_at": at, "user_id": user, "user_name": f"n{user}", "recording_msid": "r", "track_metadata": track}


def write(path: Path, listens: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in listens)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    folder = tmp_path / "listenbrainz-listens-dump-1-full" / "listens"
    first = [
        listen(1_100_000_000, 1, "Björk", "Jóga", recording_mbid=MBID.upper(), tags=["art pop", "iceland"]),
        listen(1_100_000_200, 2, "BJÖRK", "jóga ", recording_mbid=""),  # the same song, without a recording
    ]
    write(folder / "2005" / "2.listens", first)
    write(folder / "2005" / "10.listens", [listen(1_100_000_400, 2, "Nobody", "Nothing")])
    write(folder / "2006" / "1.listens", [listen(1_100_000_600, 1, "Nobody", "Nothing", recording_mbid=None)])
    return tmp_path


def test_a_song_is_its_recording_also_where_a_listen_does_not_say_so(dump: Path, made: Made) -> None:
    data, _ = made(read, dump)
    assert data.plays.select("user_id", "song_id").rows() == [
        ("1", MBID), ("1", "nobody / nothing"), ("2", MBID), ("2", "nobody / nothing"),
    ]  # fmt: skip
    songs = data.songs.select("song_id", "title", "artist", "artist_id").rows()
    assert songs == [(MBID, "Jóga", "BJÖRK", "björk"), ("nobody / nothing", "Nothing", "Nobody", "nobody")]


def test_the_recording_that_most_listens_have(dump: Path, made: Made) -> None:
    again = [listen(at, 3, "Björk", "Jóga", recording_mbid=OTHER) for at in (1_100_000_700, 1_100_000_800)]
    write(dump / "more" / "1.listens.gz", again)
    data, _ = made(read, dump)
    assert data.plays.filter(user_id="2")["song_id"].to_list() == [OTHER, "nobody / nothing"]


def test_times_are_the_start_in_seconds(dump: Path, made: Made) -> None:
    write(dump / "old" / "1.listens", [listen(0, 3, "A", "B") | {"listened_at": None, "timestamp": 1_100_000_900}])
    data, _ = made(read, dump)
    assert data.plays["played_at"][0] == datetime(2004, 11, 9, 11, 33, 20)
    assert data.plays.filter(user_id="3")["played_at"].dt.epoch("s").to_list() == [1_100_000_900]


def test_tags_are_those_of_the_listeners(dump: Path, made: Made) -> None:
    data, _ = made(read, dump)
    assert data.tag_assignments is not None and data.songs["tags"].null_count() == 2
    assert data.tag_assignments.rows() == [("1", MBID, "art pop"), ("1", MBID, "iceland")]


def test_listens_of_other_types_and_broken_lines(dump: Path, made: Made) -> None:
    """One line that is none must not cost the others."""
    odd = listen(1_100_000_900, 4, "A", "B", tags="rock") | {"user_id": "4", "listened_at": 1_100_000_900.0}
    nameless = listen(1_100_000_900, 4, "", "B")
    tagged = listen(1_100_000_950, 5, "A", "B", tags=["a, b", "c"])
    write(dump / "odd" / "1.listens", [odd, '{"user_id": 1, "track', nameless, "", tagged])
    data, found = made(read, dump)
    assert {key: entry["examples"] for key, entry in found.rejected.items()} == {
        "lines_without_listen": ["1.listens row 2"],
        "listens_without_song": ["1.listens row 3"],
    }
    assert data.plays.filter(pl.col("user_id").is_in(["4", "5"]))["song_id"].to_list() == ["a / b", "a / b"]
    assert data.tag_assignments is not None
    assert data.tag_assignments.filter(user_id="5")["tag"].to_list() == ["a, b", "c"]


def test_full_and_incremental_dumps_overlap(dump: Path, made: Made) -> None:
    write(dump / "incremental" / "1.listens", [listen(1_100_000_400, 2, "Nobody", "Nothing")])
    data, _ = made(read, dump)
    assert data.plays.height == 4 and data.rejected["plays_repeated"]["count"] == 1


def spark(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    columns = {
        "listened_at": pl.Datetime("us"), "user_id": pl.Int32, "artist_name": pl.String, "artist_credit_id": pl.Int64,
        "release_name": pl.String, "release_mbid": pl.String, "recording_name": pl.String, "recording_mbid": pl.String,
        "artist_credit_mbids": pl.List(pl.String),
    }  # fmt: skip
    return pl.DataFrame(rows, schema=columns, orient="row")


def test_the_dump_for_spark(tmp_path: Path, made: Made) -> None:
    """An empty string stands for null; a later dump may have more columns."""
    at = datetime(2020, 1, 2, 3, 4, 5)
    source = tmp_path / "listenbrainz-spark-dump-1-full"
    source.mkdir()
    spark([(at, 7, "Björk", 1, "A", "", "Jóga", MBID, [OTHER])]).write_parquet(source / "2.parquet")
    more = spark([(at, 8, "björk", None, None, None, "Jóga", "", []), (at, 8, "", None, None, None, "x", "", None)])
    more.with_columns(created=pl.lit(1)).write_parquet(source / "10.parquet")
    data, found = made(read, source)
    plays = data.plays.select("user_id", "song_id", "played_at").rows()
    assert plays == [("7", MBID, at), ("8", MBID, at)]
    assert found.rejected["listens_without_song"]["examples"] == ["10.parquet row 2"]
    more.drop("recording_mbid").write_parquet(source / "10.parquet")
    with pytest.raises(UserError, match=r"10\.parquet has no column 'recording_mbid'"):
        read(source, tmp_path, Found())


LASTFM = [
    "user_000001\t2009-05-04T23:08:57Z\tf1b1cf71\tDeep Dish\t\tFuck Me Im Famous",
    f"user_000001\t2009-04-01T14:24:52Z\t\tTowa Tei\t{MBID}\tMind Wall",
    "user_000002\t2009-04-02T14:24:52Z\t\tdeep  dish\t\tfuck me im famous\r",
    "user_000002\t2009-04-02T14:24:52Z\tx\tA\ty\tB\tmore\tthan six",  # a broken row
    "user_000002\t0000-00-00\t\tA\t\tB",
    "user_000002\t2009-04-02T14:24:53Z\t\t\t\tB",
]


def test_lastfm_1k(tmp_path: Path, made: Made) -> None:
    """No header, both ids may be missing, rows are broken; profiles have gaps, and a user may have none."""
    source = tmp_path / "lastfm-dataset-1K"
    source.mkdir()
    (source / "userid-timestamp-artid-artname-traid-traname.tsv").write_text("\n".join(LASTFM) + "\n")
    profiles = "#id\tgender\tage\tcountry\tregistered\nuser_000001\tm\t\tJapan\tAug 13, 2006\nuser_000009\t\t24\t\t\n"
    (source / "userid-profile.tsv.gz").write_bytes(gzip.compress(profiles.encode()))
    data, found = made(read, source)
    assert sorted(data.plays.select("user_id", "song_id").rows()) == [
        ("user_000001", MBID),
        ("user_000001", "deep dish / fuck me im famous"),
        ("user_000002", "deep dish / fuck me im famous"),
    ]
    assert data.users.rows() == [
        ("user_000001", "m", None, "Japan"), ("user_000009", None, 24.0, None), ("user_000002", None, None, None),
    ]  # fmt: skip
    name = "userid-timestamp-artid-artname-traid-traname.tsv"
    assert {key: entry["examples"] for key, entry in found.rejected.items()} == {
        f"{name}_fields": [f"{name} row 4"],
        "listens_without_time": [f"{name} row 5"],
        "listens_without_song": [f"{name} row 6"],
    }


def test_wrong_files(dump: Path, tmp_path: Path) -> None:
    spark([]).write_parquet(dump / "0.parquet")
    with pytest.raises(UserError, match=r"has \*\.listens and \*\.parquet: give one of them"):
        read(dump, tmp_path, Found())
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="has no file of"):
        read(tmp_path / "none", tmp_path, Found())
