"""A folder of music: what its tags say in every kind of file, what is left out, and the way to a catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from unicodedata import normalize

import mutagen
import numpy as np
import polars as pl
import pytest
from mutagen.asf import ASFUnicodeAttribute
from mutagen.id3 import TCON, TDRC, TIT2, TPE1, UFID, USLT
from mutagen.mp4 import MP4FreeForm

from benchmarks.speed.formats import by_ffmpeg, by_soundfile, cbr, song
from configs.errors import UserError
from data.catalogue import Catalogue
from data.contract.play_rules import usable_plays
from data.music_folder import Found, decoded, read_folder, released, scan, tags_of

SAYS = {"title": ["Night"], "artist": ["Anna"], "date": ["2019-05-03"], "genre": ["Rock", "Folk"], "lyrics": ["la la"]}
MBID = "b1a9c0e9-d987-4042-ae91-78d6a3267d69"
WAVE = song(1.2)
MADE = {
    "a.mp3": lambda: cbr(WAVE),
    "a.wav": lambda: by_soundfile(WAVE, "WAV", "PCM_16"),
    "a.aiff": lambda: by_soundfile(WAVE, "AIFF", "PCM_16"),
    "a.flac": lambda: by_soundfile(WAVE, "FLAC", "PCM_16"),
    "a.ogg": lambda: by_soundfile(WAVE, "OGG", "VORBIS"),
    "a.opus": lambda: by_soundfile(song(1.2, 48000), "OGG", "OPUS", 48000),
    "a.m4a": lambda: by_ffmpeg(WAVE, "aac", "ipod"),
    "a.wma": lambda: by_ffmpeg(WAVE, "wmav2", "asf", b="128000"),
    "a.wv": lambda: by_ffmpeg(WAVE, "wavpack", "wv"),
}


def tagged(path: Path) -> None:
    """Write SAYS, and a MusicBrainz id, as programs do in a file of this kind."""
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    kind = type(file.tags).__name__
    if "ID3" in kind:
        frames = [TIT2(text="Night"), TPE1(text="Anna"), TDRC(text="2019-05-03"), TCON(text=["(17)", "Folk"])]
        frames += [USLT(lang="eng", desc="", text="la la"), UFID(owner="http://musicbrainz.org", data=MBID.encode())]
        for frame in frames:
            file.tags.add(frame)
    elif kind == "MP4Tags":
        names = {"title": "\xa9nam", "artist": "\xa9ART", "date": "\xa9day", "genre": "\xa9gen", "lyrics": "\xa9lyr"}
        file.tags.update({names[key]: values for key, values in SAYS.items()})
        file.tags["----:com.apple.iTunes:MusicBrainz Track Id"] = [MP4FreeForm(MBID.encode())]
    elif kind == "ASFTags":
        names = {"title": "Title", "artist": "Author", "date": "WM/Year", "genre": "WM/Genre", "lyrics": "WM/Lyrics"}
        names_values = {names[key]: values for key, values in SAYS.items()} | {"MusicBrainz/Track Id": [MBID]}
        file.tags.update({key: [ASFUnicodeAttribute(text) for text in values] for key, values in names_values.items()})
    else:
        names_values = {key.upper(): values for key, values in SAYS.items()} | {"MUSICBRAINZ_TRACKID": [MBID]}
        file.tags.update(names_values)
    file.save()


@pytest.mark.parametrize("name", MADE)
def test_tags_of_every_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MADE[name]())
    bare = tags_of(tmp_path / name)
    assert bare is not None and not bare.keys() & {"title", "artist", "date"}
    tagged(tmp_path / name)
    assert tags_of(tmp_path / name) == SAYS | {"musicbrainz": [MBID]}


@pytest.mark.parametrize("name", ["a.webm", "a.mka", "b.wav"])
def test_what_mutagen_does_not_know_is_asked_of_ffmpeg(tmp_path: Path, name: str) -> None:
    import av

    codec, rate = ("pcm_s16le", 44100) if name == "b.wav" else ("libopus", 48000)
    with av.open(str(tmp_path / name), "w") as file:
        file.metadata.update({"title": "Night", "artist": "Anna", "date": "2019", "genre": "Rock"})
        stream = file.add_stream(codec, rate=rate, layout="mono")
        for at in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = rate, 960 * at
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    found = tags_of(tmp_path / name)
    assert found == {"title": ["Night"], "artist": ["Anna"], "date": ["2019"], "genre": ["Rock"]}


@pytest.mark.parametrize(
    ("text", "day", "is_year"),
    [
        ("2019-05-03", date(2019, 5, 3), False),
        ("2019-05-03T12:00:00Z", date(2019, 5, 3), False),
        ("20190503", date(2019, 5, 3), False),
        ("2019-05", date(2019, 5, 1), False),
        ("2019", date(2019, 1, 1), True),
        ("2019-00-00", date(2019, 1, 1), True),
        ("0000", None, False),
        ("May 2019", None, False),
        ("", None, False),
    ],
)
def test_dates_as_they_are_written(text: str, day: date | None, is_year: bool) -> None:
    assert released(text) == (day, is_year)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Two albums; files that are none, hidden or without tags; links."""
    folder = tmp_path / "music"
    flac = by_soundfile(WAVE, "FLAC", "PCM_16")
    for name in (
        "one/01 - Erstes Lied.flac",
        "one/02.flac",
        "two/01 - Erstes Lied.flac",
        ".trash/old.flac",
        "._x.flac",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(flac)
    tagged(folder / "one" / "02.flac")
    (folder / "one" / "01 - Erstes Lied.lrc").write_bytes("[00:01.00]月亮代表我的心".encode("gbk"))
    (folder / "text.mp3").write_text("no sound\n" * 500)
    (folder / "empty.flac").write_bytes(b"")
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.flac").write_bytes(flac)
    (folder / "away.flac").symlink_to(outside / "secret.flac")
    (folder / "album").symlink_to(outside)
    os.mkfifo(folder / "pipe.mp3")
    (folder / "here.flac").symlink_to(folder / "one" / "02.flac")
    with open(os.fsencode(folder) + b"/\xc4\xe3.flac", "wb") as file:  # GBK
        file.write(flac)
    return folder


def test_what_is_a_song_and_what_is_left_out(music: Path) -> None:
    found = scan(music, "path")
    songs = {one["song_id"]: one for one in found.songs}
    assert list(songs) == ["here.flac", "one/01 - Erstes Lied.flac", "one/02.flac", "two/01 - Erstes Lied.flac"]
    assert all(one["audio_path"] == name for name, one in songs.items())
    assert found.skipped == {
        "not readable as sound (left out)": ["empty.flac", "text.mp3"],
        "links out of the folder (not followed)": ["away.flac"],
        "links to folders (not followed)": ["album"],
        "no regular file (left out)": ["pipe.mp3"],
        "with a name that is not UTF-8 (left out)": ["??.flac"],
    }
    full, bare = songs["one/02.flac"], songs["one/01 - Erstes Lied.flac"]
    assert full["title"] == "Night" and full["artist_id"] == "Anna" and full["genres"] == ["Rock", "Folk"]
    assert full["released_at"] == date(2019, 5, 3) and full["lyrics"] == "la la"
    assert bare["title"] == "Erstes Lied" and bare["lyrics"] == "[00:01.00]月亮代表我的心"
    assert bare["artist_id"] is bare["genres"] is bare["released_at"] is None
    assert found.lacking["artist in their tags"] == 2 and found.lacking["date of release in their tags"] == 2


def test_other_ids(music: Path) -> None:
    by_name, by_mbid = scan(music, "name"), scan(music, "musicbrainz")
    assert [one["song_id"] for one in by_name.songs] == ["here", "01 - Erstes Lied", "02"]
    assert by_name.skipped["of an id that an earlier file has (left out)"] == ["two/01 - Erstes Lied.flac"]
    assert [one["song_id"] for one in by_mbid.songs] == [MBID, "one/01 - Erstes Lied.flac", "two/01 - Erstes Lied.flac"]
    assert by_mbid.skipped["of an id that an earlier file has (left out)"] == ["one/02.flac"], "the link came first"
    for ids in ("path", "name", "musicbrainz"):
        found = scan(music, ids)
        without = sum(one["artist_id"] is None for one in found.songs)
        assert found.lacking["artist in their tags"] == without, "a file that is left out lacks nothing"


def test_nothing_to_read(tmp_path: Path, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of plays it is told before all tags are read."""
    (tmp_path / "none").mkdir()
    plays = pl.DataFrame({"user_id": ["u"], "song_id": ["a"]})
    plays.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match="holds no recording that can be read"):
        read_folder(tmp_path / "none", str(tmp_path / "log.parquet"), usable_plays)
    with pytest.raises(UserError, match="folder of music not found"):
        read_folder(tmp_path / "nowhere", None, usable_plays)
    monkeypatch.setattr("data.music_folder.tags_of", lambda path: pytest.fail("tags are read"))
    with pytest.raises(UserError, match=r"no plays\.parquet .*: give plays=FILE"):
        read_folder(music, None, usable_plays)
    with pytest.raises(UserError, match="nothing is there"):
        read_folder(music, "nowhere.parquet", usable_plays)
    plays.drop("song_id").write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match="no column 'song_id'"):
        read_folder(music, str(tmp_path / "log.parquet"), usable_plays)
    (tmp_path / "log.parquet").write_text("x")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_folder(music, str(tmp_path / "log.parquet"), usable_plays)
    assert Found().songs == []


LYRICS = {
    "utf-8": "été\n月亮",
    "utf-8-sig": "été\n月亮",
    "utf-16": "[00:01]月亮",
    "utf-32": "月亮",
    "gb18030": "月亮代表\n我的愛",
    "utf-16-le": "[00:01.00]月亮\n[00:02.00]代表",
    "utf-16-be": "one\ntwo",
    "cp1252": "l'été où j'étais\ncréé à l’école",
}


@pytest.mark.parametrize("encoding", LYRICS)
def test_lyrics_beside_in_every_encoding(encoding: str) -> None:
    assert (decoded(LYRICS[encoding].encode(encoding)) or "").removeprefix("\ufeff") == LYRICS[encoding]


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_with_and_without_its_mark(mark: str, order: str) -> None:
    assert decoded((mark + LYRICS["utf-16-le"]).encode(f"utf-16-{order}")) == LYRICS["utf-16-le"]


def test_files_of_lyrics_however_their_names_are_written(tmp_path: Path) -> None:
    """Upper case, another Unicode form; one without words hides none that has some; same case first."""
    files = {
        "one.LRC": "one",
        "two.Txt": "two",
        "THREE.lrc": "three",
        "caf\u00e9.lrc": "four",
        "five.lrc": "\n",
        "five.txt": "five",
        "six.lrc": "[ti:Six]\n[00:00.00]",
        "six.txt": "six",
        "a.lrc": "small",
        "A.LRC": "large",
        "seven.lrc": "[ti:7]",
        "eight.lrc": "eight",
        "eight.txt": "no",
        "ten.SRT": "1\n00:00:01,000 --> 00:00:02,000\nten",
        "ten.txt": "no",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "nine.txt").write_bytes(b"\xff\xfe\x00")
    songs = ["one", "two", "three", "cafe\u0301", "five", "six", "a", "A", "seven", "eight", "nine", "ten"]
    for name in songs:
        (tmp_path / f"{name}.wav").write_bytes(MADE["a.wav"]())
    found = scan(tmp_path, "path")
    lyrics = {one["audio_path"].removesuffix(".wav"): one["lyrics"] for one in found.songs}
    assert [lyrics[name] for name in songs] == [
        "one", "two", "three", "four", "five", "six", "small", "large", "[ti:7]", "eight", None, files["ten.SRT"]
    ]  # fmt: skip
    assert found.skipped == {"of lyrics in an unknown encoding (not read)": ["nine.txt"]}


TITLES = {  # the names of a folder's files → titles
    "99 Luftballons": "99 Luftballons", "2 Become 1": "2 Become 1", "7 Rings": "7 Rings", "24-7": "24-7",
    "7-Eleven": "7-Eleven", "01 Intro": "Intro", "003 Intro": "Intro", "12 - Intro": "Intro", "12. Intro": "Intro",
    "5) Intro": "Intro", "01_Intro": "Intro", "1999": "1999", "02": "02", "1984 (Live)": "1984 (Live)",
}  # fmt: skip


def test_a_number_is_dropped_where_it_is_a_tracks(tmp_path: Path) -> None:
    """By itself with a separator or a zero; without, where all files of a folder are numbered from the first on."""

    def titles(*names: str) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name in names:
            (folder / f"{name}.wav").write_bytes(MADE["a.wav"]())
        return [one["title"] for one in scan(folder, "path").songs]

    assert {name: titles(name)[0] for name in TITLES} == TITLES
    assert titles(*TITLES) == [TITLES[name] for name in sorted(TITLES)]
    assert titles("1 One", "2 Become 1", "3-Three", "4_Four") == ["One", "Become 1", "Three", "Four"]
    assert titles("101 One", "102 Two", "201 Three") == ["One", "Two", "Three"]
    assert titles("2 Become 1", "7 Rings", "99 Luftballons") == ["2 Become 1", "7 Rings", "99 Luftballons"]
    assert titles("1 Thing", "99 Luftballons") == ["1 Thing", "99 Luftballons"]


@pytest.mark.parametrize(("of_files", "of_plays"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("ids", ["path", "name"])
def test_ids_are_composed_and_match_plays_in_either_form(
    tmp_path: Path, of_files: Any, of_plays: Any, ids: str
) -> None:
    name = "Beyonc\u00e9/D\u00e9j\u00e0 Vu"
    path = tmp_path / "music" / f"{normalize(of_files, name)}.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(MADE["a.wav"]())
    song_id = f"{name}.wav" if ids == "path" else name.split("/")[1]
    pl.DataFrame({"user_id": ["u"], "song_id": [normalize(of_plays, song_id)]}).write_parquet(tmp_path / "log.parquet")
    data = read_folder(tmp_path / "music", str(tmp_path / "log.parquet"), usable_plays, ids)
    assert data.plays["song_id"].to_list() == data.songs["song_id"].to_list() == [song_id]
    assert (tmp_path / "music" / data.songs["audio_path"][0]).exists()


def test_from_a_folder_to_a_catalogue(
    tmp_path: Path, prepare: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, begin = tmp_path / "music", datetime(2020, 1, 1)
    folder.mkdir()
    for number in range(30):
        path = folder / f"{number:02}.flac"
        path.write_bytes(by_soundfile(WAVE * (1 + number) / 40, "FLAC", "PCM_16"))
        file = mutagen.File(path)
        day = (begin + timedelta(days=number)).date().isoformat()
        file.tags.update({"TITLE": f"Song {number}", "GENRE": ["folk", "pop"][number % 2], "DATE": day})
        file.save()
    (folder / "broken.mp3").write_text("no sound\n" * 500)
    plays = [
        {"user_id": user, "song_id": f"{number:02}.flac", "played_at": begin + timedelta(days=number + user % 5)}
        for user in range(20)
        for number in range(30)
        if number % 2 == user % 2
    ]
    pl.DataFrame(plays).write_parquet(tmp_path / "log.parquet")
    made = prepare(folder, tmp_path / "catalogue", "format=folder", f"plays={tmp_path}/log.parquet")
    songs = Catalogue.read(made).songs
    assert songs["song_id"].to_list() == [f"{number:02}.flac" for number in range(30)]
    assert songs["title"][3] == "Song 3" and songs["genres"][3].to_list() == ["pop"]
    assert (songs["audio_length"] > 0).all() and set(songs["split"]) == {"warm", "cold_val", "cold_test"}
    said = capsys.readouterr().out
    (skipped,) = (line for line in said.splitlines() if "files: not readable" in line)
    assert skipped.split()[0] == "1" and skipped.endswith("e.g. broken.mp3")
    assert "note: folder: 30 of 30 songs have no artist in their tags" in said
