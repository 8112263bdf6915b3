"""RecBole's atomic files, with each quirk of theirs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data.contract.dataset import Dataset
from data.published.files import Found, Reader
from data.published.recbole import read

Made = Callable[[Reader, Path], tuple[Dataset, Found]]
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
FILES = {
    "songs.inter": INTER + "u1\t007\t5\t978300760.0\nu2\t007\t3\t978302109\nu2\ts9\t1\t978302110\n",
    "songs.item": "item_id:token\ttitle:token_seq\trelease_year:token\tgenre:token_seq\tmood:token\temb:float_seq\n"
    "007\tToy \"Story\"\t1995\thip hop  jazz\tcalm\t0.5 -1e-3\nunheard\tJumanji\t\t\t\t1 2\n",
    "songs.user": "user_id:token\tage:float\tgender:token\tfriends:token_seq\nu1\t31\tf\tu2 u3\n",
    "songs.kg": "head_id:token\trelation_id:token\ttail_id:token\nm.1\tr\tm.2\n",
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def test_ids_are_tokens_and_times_are_float_seconds(source: Path, made: Made) -> None:
    data, found = made(read, source)
    assert data.plays.select("user_id", "song_id").rows() == [("u1", "007"), ("u2", "007"), ("u2", "s9")]
    assert data.plays["played_at"][0] == datetime(2000, 12, 31, 22, 12, 40)
    assert any("rating of the interactions not used" in note for note in found.notes)


def test_sequences_are_split_at_blanks_but_a_title_is_text(source: Path, made: Made) -> None:
    data, _ = made(read, source)
    assert data.songs["title"].to_list() == ['Toy "Story"', "Jumanji", None]
    assert data.songs["genres"].to_list() == [["hip", "hop", "jazz"], None, None]
    assert data.songs["mood"].to_list() == ["calm", None, None]
    assert data.ignored_columns["songs"] == ["mood"]
    np.testing.assert_allclose(data.features["emb"][:2], [[0.5, -0.001], [1.0, 2.0]])


def test_songs_and_users_of_one_file_alone_are_kept(source: Path, made: Made) -> None:
    data, found = made(read, source)
    assert data.songs["song_id"].to_list() == ["007", "unheard", "s9"]
    assert data.users.select("user_id", "age", "gender").rows() == [("u1", 31.0, "f"), ("u2", None, None)]
    assert "friends" not in data.users.columns
    assert any("1 are in the log alone" in note for note in found.notes)


def test_a_year_of_release_is_its_first_day_but_not_after_the_first_play(source: Path, made: Made) -> None:
    item = source / "songs.item"
    item.write_text(item.read_text().replace("Jumanji\t", "Jumanji\t2012.0") + "s9\tNine\t2004-02-03\t\t\t\n")
    data, found = made(read, source)
    first = datetime(2000, 12, 31, 22, 35, 10)
    assert data.songs["released_at"].to_list() == [datetime(1995, 1, 1), datetime(2012, 1, 1), first]
    assert any("1 have a play before their published release" in note for note in found.notes)


@pytest.mark.parametrize("name", ["weight", "play_count"])
def test_counts_of_listening(source: Path, made: Made, name: str) -> None:
    (source / "songs.inter").write_text(f"user_id:token\tartist_id:token\t{name}:float\nu1\t007\t130\nu2\t007\t2.0\n")
    data, found = made(read, source)
    assert data.plays["play_count"].to_list() == [130, 2] and data.plays["played_at"].null_count() == 2
    assert {"recbole: user_id are users and artist_id songs", f"recbole: {name} is play_count"} <= set(found.notes)


def test_milliseconds_and_times_of_zero(source: Path, made: Made) -> None:
    (source / "songs.inter").write_text(INTER + "u1\t007\t5\t978300760123\nu2\t007\t3\t0\n")
    data, _ = made(read, source)
    assert data.plays["played_at"].to_list() == [datetime(2000, 12, 31, 22, 12, 40, 123_000), None]


def test_rows_that_cannot_be_read_are_named(source: Path, made: Made) -> None:
    with (source / "songs.inter").open("a") as file:
        file.write("u3\t007\nu3\t007\t1\tyesterday\nu1\t\t1\t978300760\n\n" + "u4\ts9\t1\t978300761")
    data, found = made(read, source)
    assert {key: entry["examples"] for key, entry in found.rejected.items()} == {
        "songs.inter_fields": ["songs.inter row 5"],
        "plays_without_number": ["songs.inter row 6"],
    }
    assert data.rejected["plays_without_id"]["count"] == 1 and "u4" in data.plays["user_id"]


def test_files_of_a_split_are_one_log(source: Path, made: Made) -> None:
    (source / "songs.inter").rename(source / "songs.train.inter")
    (source / "songs.valid.inter").write_text(INTER + "u5\ts9\t1\t978300761\n")
    data, found = made(read, source)
    assert data.plays.height == 4 and data.songs["title"][0] == 'Toy "Story"'
    assert "recbole: songs.train.inter, songs.valid.inter are read as one log" in found.notes


def test_vectors_of_other_files_by_item_or_by_link(source: Path, made: Made) -> None:
    (source / "songs.txt").write_text("item_id:token\tbert:float_seq\ns9\t1 2 3\n")
    (source / "songs.ent").write_text("ent_id:token\tent_emb:float_seq\nm.7\t-115.08 13.60\nm.8\t1 1\n")
    (source / "songs.link").write_text("item_id:token\tentity_id:token\n007\tm.7\n")
    (source / "songs.md").write_text("about the data\n")
    data, found = made(read, source)
    assert data.features["bert"][2].tolist() == [1, 2, 3] and np.isnan(data.features["bert"][:2]).all()
    np.testing.assert_allclose(data.features["ent_emb"][0], [-115.08, 13.6], rtol=1e-6)
    assert "recbole: songs.md is not read: its first line names no columns with types" in found.notes


def test_packed_files_are_refused(source: Path, made: Made) -> None:
    (source / "songs.item.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"has packed files, e\.g\. songs\.item\.gz: unpack them"):
        made(read, source)


def test_wrong_files(source: Path, made: Made, tmp_path: Path) -> None:
    (source / "other.inter").write_text(INTER)
    with pytest.raises(UserError, match="has the data sets other, songs"):
        made(read, source)
    wrong = [
        ("userID\titemID\n", r"songs\.inter: 'userID' in the first line is no name:type"),
        ("user_id:token\titem_id:text\n", "'item_id:text' in the first line is no name:type"),
        ("user_id:token\tx:float\n", r"songs\.inter has no column 'user_id:token' or 'item_id:token'"),
    ]
    for number, (header, what) in enumerate(wrong):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "songs.inter").write_text(header)
        with pytest.raises(UserError, match=what):
            read(folder, tmp_path, Found())
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"has no NAME\.inter"):
        read(tmp_path / "none", tmp_path, Found())
