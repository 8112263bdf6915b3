"""Music4All and Music4All-Onion as published, with each quirk of theirs."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data.contract.dataset import Dataset
from data.published.files import Found, Reader
from data.published.music4all import read

Made = Callable[[Reader, Path], tuple[Dataset, Found]]
A, B, C = "0009fFIM1eYThaPg", "002Jyd0vN4HyCpqL", "00CH4HJdxQQQbJfu"  # ids have sixteen characters
ONION = {
    "userid_trackid_timestamp.tsv.bz2": f"user_id\ttrack_id\ttimestamp\nuser_1\t{A}\t2008-02-03 04:05:06\n"
    f"user_2\t{A}\t2020-01-01 00:00:00\nuser_2\t{B}\t2020-01-02 00:00:00\n",
    "userid_trackid_count.tsv.bz2": f"user_id\ttrack_id\tcount\nuser_1\t{A}\t12\nuser_2\t{B}\tmany\n",
    "id_lyrics_bert.tsv.bz2": f"id\t0\t1\t2\n{A}\t0.5\t-1\t1e-3\n{C}\t1\t2\t3\n",
    "id_genres_tf-idf.tsv": f"id\thip hop\trock\n{A}\t0.0\t0.7\n",
    "id_tags_dict.tsv": f"id\t(tag, weight)\n{A}\t{{'art pop': 100, \"80's\": 7, 'a \\\"b\\\"': 1}}\n{B}\t{{}}\n",
}
BASE = {
    "id_information.csv": f'id\tartist\tsong\talbum_name\n{A}\tCheryl\tRain on "Me\t3 Words\n{B}\tAC/DC\t\tX\n',
    "id_genres.csv": f"id\tgenres\n{A}\tpop\n{B}\thard rock, rock\n",
    "id_tags.csv": f"id\ttags\n{A}\tpop,female vocalists\n",
    "id_lang.csv": f"id\tlang\n{A}\ten\n{B}\tINTRUMENTAL\n",
    "id_metadata.csv": "id\tspotify_id\tpopularity\trelease\tdanceability\tduration_ms\n"
    f"{A}\t1\t54.0\t2009\t0.6\t1\n{B}\t2\t3.0\t2019\t0.6\t1\n",
    "listening_history.csv": f"user\tsong\ttimestamp\nuser_9\t{A}\t2019-02-20 12:28\n",
}  # fmt: skip


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        data = text.encode()
        (folder / name).write_bytes(bz2.compress(data) if name.endswith(".bz2") else data)
    return folder


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Onion's files, and the base set in a folder of its own below."""
    source = write(tmp_path / "onion", ONION)
    base = write(source / "music4all", BASE)
    for name in ("lyrics", "audios"):
        (base / name).mkdir()
    (base / "lyrics" / f"{A}.txt").write_bytes("Rain on \u2026 me".encode() + b"\xff")
    (base / "audios" / f"{A}.mp3").write_bytes(b"no sound")
    return source


def test_onion_alone(tmp_path: Path, made: Made) -> None:
    data, _ = made(read, write(tmp_path / "onion", ONION))
    assert data.plays.select("user_id", "song_id").rows() == [("user_1", A), ("user_2", A), ("user_2", B)]
    assert data.plays["played_at"][0] == datetime(2008, 2, 3, 4, 5, 6)
    assert data.songs["song_id"].to_list() == [A, B, C], "C has vectors alone"


def test_files_of_vectors_are_features(tmp_path: Path, made: Made) -> None:
    data, _ = made(read, write(tmp_path / "onion", ONION))
    assert set(data.features) == {"lyrics_bert", "genres_tf-idf"}
    np.testing.assert_allclose(data.features["lyrics_bert"][[0, 2]], [[0.5, -1.0, 0.001], [1.0, 2.0, 3.0]], rtol=1e-6)
    assert np.isnan(data.features["lyrics_bert"][1]).all() and np.isnan(data.features["genres_tf-idf"][1:]).all()


def test_columns_of_text_are_left_out(tmp_path: Path, made: Made) -> None:
    more = {"id_essentia.tsv": f"id\tbpm\tkey\tloud\n{A}\t120\tC#\t-1\n{B}\t90\t7\t-2\n"}
    data, found = made(read, write(tmp_path / "onion", ONION | more))
    assert data.features["essentia"][:2].tolist() == [[120, -1], [90, -2]]
    assert "music4all: columns of id_essentia.tsv that are text are left out: key" in found.notes


def test_weighted_tags_are_a_python_dict(tmp_path: Path, made: Made) -> None:
    data, _ = made(read, write(tmp_path / "onion", ONION))
    assert data.songs["tags"].to_list()[0] == ["art pop", "80's", 'a "b"']


def test_csv_files_are_tab_separated_and_lists_are_split_at_commas(both: Path, made: Made) -> None:
    data, _ = made(read, both)
    assert data.songs["title"].to_list() == ['Rain on "Me', None, None]
    assert data.songs["artist_id"].to_list() == ["Cheryl", "AC/DC", None]
    assert data.songs["genres"].to_list() == [["pop"], ["hard rock", "rock"], None]
    assert data.songs["tags"].to_list()[0] == ["pop", "female vocalists"], (
        "not Onion's, which are the same with weights"
    )
    assert data.songs["language"].to_list() == ["en", "INTRUMENTAL", None]
    assert "popularity" not in data.songs.columns


def test_a_release_is_a_year_and_not_after_the_first_play(both: Path, made: Made) -> None:
    data, found = made(read, both)
    assert data.songs["released_at"].to_list() == [datetime(2008, 2, 3, 4, 5, 6), datetime(2019, 1, 1), None]
    assert any("1 have a play before" in note for note in found.notes)


def test_lyrics_and_recordings_are_files_by_id(both: Path, made: Made) -> None:
    data, _ = made(read, both)
    assert data.songs["lyrics"].to_list() == ["Rain on \u2026 me\ufffd", None, None]
    assert data.songs["audio_path"].to_list() == [f"music4all/audios/{A}.mp3", None, None]


def test_the_base_set_has_a_log_of_its_own_to_the_minute(tmp_path: Path, made: Made) -> None:
    data, found = made(read, write(tmp_path / "base", BASE))
    assert data.plays.select("user_id", "played_at").rows() == [("user_9", datetime(2019, 2, 20, 12, 28))]
    assert "music4all: the plays are those of listening_history.csv" in found.notes


def test_counts_where_there_are_no_times(tmp_path: Path, made: Made) -> None:
    source = write(tmp_path / "onion", ONION)
    (source / "userid_trackid_timestamp.tsv.bz2").unlink()
    data, found = made(read, source)
    assert data.plays["play_count"].to_list() == [12]
    assert found.rejected["plays_without_number"]["examples"] == ["userid_trackid_count.tsv.bz2 row 3"]


def test_wrong_files(tmp_path: Path) -> None:
    source = write(tmp_path / "onion", ONION)
    wrong = {"id_lyrics_bert.tsv.bz2": ONION["id_lyrics_bert.tsv.bz2"] + f"{B}\t1\tx\t2\n"}
    with pytest.raises(UserError, match=r"id_lyrics_bert\.tsv\.bz2: rows from 2 on are not 3 numbers each"):
        read(write(source, wrong), tmp_path, Found())
    whole = bz2.compress(ONION["userid_trackid_timestamp.tsv.bz2"].encode())
    (source / "userid_trackid_timestamp.tsv.bz2").write_bytes(whole[:40])
    with pytest.raises(UserError, match=r"timestamp\.tsv\.bz2 cannot be read \(.*: get it again"):
        read(source, tmp_path, Found())
    with pytest.raises(UserError, match=r"timestamp\.tsv has no column 'track_id'"):
        read(write(tmp_path / "b", {"userid_trackid_timestamp.tsv": "user_id\ttrack\n"}), tmp_path, Found())
    with pytest.raises(UserError, match=r"has no userid_trackid_timestamp\.tsv, no listening_history\.tsv, no"):
        read(write(tmp_path / "c", {"id_lang.csv": "id\tlang\n"}), tmp_path, Found())
