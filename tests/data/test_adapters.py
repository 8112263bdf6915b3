"""Published data sets in their own layouts: tiny fabricated copies, and the real ones where there are any."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data.adapters import read_hetrec, read_lfm2k


@pytest.fixture
def lfm2k(tmp_path: Path) -> Path:
    """Three artists and two listeners; original artist ids 70, 50, 60 are items 0, 1, 2."""
    folder = tmp_path / "lfm2k"
    folder.mkdir()
    pairs = [(0, 1, 0), (0, 0, 2), (1, 2, 1), (1, 1, 0)]
    original = {0: 70, 1: 50, 2: 60}
    head = "userID\titemID\trating\tx_label\n"
    inter = "".join(f"{user}\t{item}\t1\t{label}\n" for user, item, label in pairs)
    og = "".join(f"{user + 2}\t{original[item]}\t1\t{label}\n" for user, item, label in pairs)
    (folder / "lfm2k.inter").write_text(head + inter)
    (folder / "lfm2k_og.inter").write_text(head + og)
    (folder / "lfm2k_song.tsv").write_text(
        "artistID\tname_artist\tsong\tlink_song\n"
        "50\tBjörk\tJóga\tl\n50\tBjörk\tHunter\tl\n"
        '60\t"The ""Quoted"" Ones"\tOne\tl\n70\tSeventy\tTwo\tl\n'
    )
    (folder / "lfm2k_text.tsv").write_text("artistID\ttext\n50\tart pop,icelandic\n70\trock\n999\tunused\n")
    for seed, (name, dim) in enumerate({"vggish": 4, "whisper": 3, "all-MiniLM-L6-v2": 2}.items()):
        np.save(folder / f"{name}.npy", np.random.default_rng(seed).normal(size=(3, dim)))
    return folder


def test_lfm2k_rows_ids_and_names(lfm2k: Path) -> None:
    data = read_lfm2k(lfm2k)
    assert data.songs["song_id"].to_list() == ["0", "1", "2"]
    assert data.songs["title"].to_list() == ["Seventy", "Björk", 'The "Quoted" Ones']
    assert data.songs["tags"].to_list() == [["rock"], ["art pop", "icelandic"], None]
    assert data.plays.select("user_id", "song_id").rows() == [("0", "1"), ("0", "0"), ("1", "2"), ("1", "1")]
    assert data.users["user_id"].to_list() == ["0", "1"]
    shapes = {name: vectors.shape for name, vectors in data.features.items()}
    assert shapes == {"vggish": (3, 4), "whisper": (3, 3), "text": (3, 2)}
    np.testing.assert_array_equal(data.features["text"], np.load(lfm2k / "all-MiniLM-L6-v2.npy").astype(np.float32))


@pytest.mark.parametrize("name", ["lfm2k.inter", "lfm2k_og.inter", "lfm2k_song.tsv", "lfm2k_text.tsv", "vggish.npy"])
def test_lfm2k_missing_file(lfm2k: Path, name: str) -> None:
    (lfm2k / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        read_lfm2k(lfm2k)


def test_lfm2k_files_that_do_not_fit_together(lfm2k: Path) -> None:
    np.save(lfm2k / "vggish.npy", np.zeros((2, 4)))
    with pytest.raises(UserError, match=r"vggish\.npy has shape \(2, 4\), wanted one row for each of the 3 items"):
        read_lfm2k(lfm2k)
    (lfm2k / "vggish.npy").write_text("not an array")
    with pytest.raises(UserError, match="cannot be read as a NumPy array"):
        read_lfm2k(lfm2k)
    og = lfm2k / "lfm2k_og.inter"
    og.write_text(og.read_text().replace("\t60\t", "\t70\t").replace("3\t50", "3\t51"))
    with pytest.raises(UserError, match="no one-to-one map"):
        read_lfm2k(lfm2k)
    og.write_text(og.read_text() + "9\t50\t1\t0\n")
    with pytest.raises(UserError, match="differ in length"):
        read_lfm2k(lfm2k)
    og.write_text("a\tb\n1\t2\n")
    with pytest.raises(UserError, match="no column 'userID'"):
        read_lfm2k(lfm2k)


HETREC = {
    "artists.dat": 'id\tname\turl\tpictureURL\n5\tBjörk\tu\tp\n7\t"Weird\tu\t\n9\t1349\tu\tp\n',
    "user_artists.dat": "userID\tartistID\tweight\r\n2\t5\t130\r\n2\t7\t1\r\n3\t5\t0\r\n10\t8\t4\r\n",
    "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\r\n"
    "2\t5\t1\t1\t4\t2009\r\n3\t5\t2\t1\t4\t2009\r\n3\t8\t2\t1\t4\t2009\r\n3\t7\t4\t1\t4\t2009\r\n",
    "tags.dat": 'tagID\ttagValue\r\n1\trock français\r\n2\t"80s\r\n',
}


@pytest.fixture(params=["folder", "zip"])
def hetrec(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three artists (one with a stray quotation mark), one play of an unknown artist and one with no weight;
    tags that are not UTF-8, one of an unknown artist and one without a name."""
    content = {name: text.encode("cp1252" if name == "tags.dat" else "utf-8") for name, text in HETREC.items()}
    for name, text in content.items():
        (tmp_path / name).write_bytes(text)
    if request.param == "folder":
        return tmp_path
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return tmp_path / "set.zip"


def test_hetrec_tables(hetrec: Path) -> None:
    data = read_hetrec(hetrec)
    assert data.songs.select("song_id", "title").rows() == [("5", "Björk"), ("7", '"Weird'), ("9", "1349")]
    assert data.plays.select("user_id", "song_id", "play_count").rows() == [("2", "5", 130), ("2", "7", 1)]
    assert data.users["user_id"].to_list() == ["2", "3", "10"]
    assert data.songs["tags"].null_count() == 3, "what may be shown is known after the split"
    assert data.tag_assignments is not None
    assert data.tag_assignments.rows() == [("2", "5", "rock français"), ("3", "5", '"80s')]
    assert {key: entry["count"] for key, entry in data.rejected.items()} == {
        "plays_of_unknown_songs": 1,
        "plays_without_count": 1,
        "tags_of_unknown_songs": 1,
        "tags_incomplete": 1,
    }


def test_hetrec_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        read_hetrec(tmp_path / "nowhere.zip")
    with pytest.raises(UserError, match=r"has no artists\.dat"):
        read_hetrec(tmp_path)
    for name, text in HETREC.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "tags.dat").unlink()
    with pytest.raises(UserError, match=r"has no tags\.dat"):
        read_hetrec(tmp_path)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match="cannot be read"):
        read_hetrec(tmp_path / "text.zip")


def test_real_lfm2k(real: Callable[[str], Path]) -> None:
    data = read_lfm2k(real("lfm2k"))
    assert (data.songs.height, data.users.height, data.plays.height) == (1425, 1858, 56345)
    widths = {name: vectors.shape[1] for name, vectors in data.features.items()}
    assert widths == {"vggish": 128, "whisper": 512, "text": 384}
    assert data.songs["title"].null_count() == 0 and data.rejected == {}


def test_real_hetrec(real: Callable[[str], Path]) -> None:
    data = read_hetrec(real("hetrec2011-lastfm-2k.zip"))
    assert (data.songs.height, data.users.height, data.plays.height) == (17632, 1892, 92834)
    assert data.tag_assignments is not None and data.tag_assignments.height == 186_479 - 1_538
    assert {key: entry["count"] for key, entry in data.rejected.items()} == {"tags_of_unknown_songs": 1_538}
    assert "tropicália" in data.tag_assignments["tag"]
