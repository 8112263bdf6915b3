"""A dataset folder in an object store: the catalogue is that of the same folder on disk. moto's S3 server has it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import polars as pl
import pytest
import soundfile
from pyarrow import fs

from benchmarks.speed.formats import by_ffmpeg, cbr, song
from configs.errors import UserError
from data import remote_source
from data.audio import recordings
from data.audio.recordings import AudioError
from data.remote_source import Parts, RemoteSource, brought
from tests.data.test_music_folder import tagged
from tests.serving import test_remote as store

address, upload = store.address, store.upload
Upload = Callable[[Path, str], str]
RATE = 16000
NAMES = ["a b.wav", "#1 100%.flac", "deep/雨.ogg", "deep/ä+?.mp3", "text.wav", "short.flac", "good.wav"]


@pytest.fixture
def source(write_dataset: Callable[..., Path], tmp_path: Path) -> Path:
    """The tiny dataset with recordings, one of which is no sound, one too short, one not there and one elsewhere; its
    plays are in two files, beside one that is half written."""
    folder, rng = write_dataset(tmp_path / "source"), np.random.default_rng(0)
    (folder / "audio" / "deep").mkdir(parents=True)
    for name in NAMES:
        seconds = 0.5 if name == "short.flac" else 1.5
        soundfile.write(folder / "audio" / name, 0.1 * rng.standard_normal((int(seconds * RATE), 2)), RATE)
    (folder / "audio" / "text.wav").write_text("no sound" * 50)
    paths = [f"audio/{name}" for name in NAMES] + [
        "./audio//good.wav",
        "audio/gone.wav",
        "../outside.wav",
        "/nowhere/x.wav",
    ]
    songs = pl.read_parquet(folder / "songs.parquet")
    audio_path = pl.Series("audio_path", paths + [None] * (songs.height - len(paths)))
    songs.with_columns(audio_path).write_parquet(folder / "songs.parquet")
    plays = pl.read_parquet(folder / "plays.parquet")
    (folder / "plays").mkdir()
    plays[:1000].write_parquet(folder / "plays" / "a.parquet")
    plays[1000:].write_parquet(folder / "plays" / "b.parquet")
    (folder / "plays" / "_c.parquet").write_bytes(b"PAR1")
    (folder / "plays.parquet").unlink()
    return folder


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute have gone by since the upload."""
    now = time.time_ns
    monkeypatch.setattr(remote_source.time, "time_ns", lambda: now() + remote_source.JUST_WRITTEN + 2 * 10**9)


def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is fetched from now on."""
    fetched, fetch = [], remote_source.fetch

    def noted(uri: str, name: str, path: Path) -> None:
        fetched.append(name)
        fetch(uri, name, path)

    monkeypatch.setattr(remote_source, "fetch", noted)
    return fetched


def told(folder: Path) -> dict[str, Any]:
    """What the manifest says, but for where things are."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return {key: one for key, one in manifest.items() if key not in ("source", "options", "audio_shards")}


@pytest.mark.parametrize("workers", [0, 1])
def test_the_catalogue_is_that_of_the_folder_on_disk(
    workers: int, source: Path, upload: Upload, prepare: Callable[..., Path], tmp_path: Path
) -> None:
    of = f"workers={workers}"
    local = prepare(source, tmp_path / "local", of)
    uri = upload(source, f"same{workers}")
    found = prepare(uri.replace("?", "/?"), tmp_path / "found", of)
    assert told(found) == told(local) and told(found)["content"]
    assert told(found)["counts"]["songs_with_audio"] == 6
    problems = {key: one["count"] for key, one in told(found)["rejected"].items() if key.startswith("audio")}
    assert problems == {"audio: missing": 3, "audio: unreadable": 1, "audio: too short": 1}
    files = [path.relative_to(local) for path in local.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert len(files) == 9 and all((found / name).read_bytes() == (local / name).read_bytes() for name in files)
    raw = [[path.read_bytes() for path in (tmp_path / f"{name}_audio").glob("*.raw")] for name in ("local", "found")]
    assert raw[0] == raw[1] and len(raw[0]) == 1
    assert json.loads((found / "manifest.json").read_text("utf-8"))["source"] == uri.replace("?", "/?")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"source", "local", "local_audio", "found", "found_audio"}, "nothing else is left on the disk"


def test_one_recording_is_on_disk_at_a_time_and_once(
    source: Path, upload: Upload, prepare: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, read = [], recordings.read

    def counted(path: Path, *more: Any) -> Any:
        seen.append([one.suffix for one in path.parent.iterdir() if one.is_file()])
        return read(path, *more)

    monkeypatch.setattr(recordings, "read", counted)
    fetched = fetches(monkeypatch)
    uri, out = upload(source, "once"), tmp_path / "catalogue"
    tables = {"songs.parquet", "users.parquet", "plays/a.parquet", "plays/b.parquet"}
    later(monkeypatch)
    prepare(uri, out)
    assert sorted(fetched) == sorted(tables | {f"audio/{name}" for name in NAMES})
    assert seen == [[Path(name).suffix] for name in NAMES]
    fetched.clear()
    prepare(uri, out)
    assert set(fetched) == tables | {"audio/text.wav"}, "what could not be read is tried again"
    soundfile.write(source / "audio" / "good.wav", np.random.default_rng(9).standard_normal(4 * RATE) / 9, RATE)
    fetched.clear()
    prepare(upload(source, "once"), out)
    assert "audio/good.wav" in fetched
    songs = pl.read_parquet(out / "songs.parquet")
    assert songs["audio_length"][6] == songs["audio_length"][7] == 201


def test_what_was_written_twice_in_a_second_is_fetched_twice(
    source: Path, upload: Upload, prepare: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store tells the time of a change in seconds: of the same size, the second writing looks as the first."""
    out, rng = tmp_path / "catalogue", np.random.default_rng(9)
    prepare(upload(source, "twice"), out)
    assert pl.read_parquet(out / "songs.parquet")["audio_length"][6] == 76
    size = (source / "audio" / "good.wav").stat().st_size
    soundfile.write(source / "audio" / "good.wav", rng.standard_normal(3 * RATE) / 9, RATE)
    assert (source / "audio" / "good.wav").stat().st_size == size
    uri = upload(source, "twice")
    prepare(uri, out)
    assert pl.read_parquet(out / "songs.parquet")["audio_length"][6] == 151
    later(monkeypatch)
    prepare(uri, out)
    fetched = fetches(monkeypatch)
    prepare(uri, out)
    assert [name for name in fetched if name.startswith("audio/")] == ["audio/text.wav"], (
        "a minute later they are known"
    )


def test_what_is_gone_when_it_is_read(
    source: Path,
    upload: Upload,
    address: str,
    prepare: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A recording is missing; a table ends the command."""
    uri, tables = upload(source, "gone"), RemoteSource.tables
    system = fs.S3FileSystem(endpoint_override=address, scheme="http")

    def without(name: str, before: bool) -> None:
        def changed(self: RemoteSource, music: bool) -> Path:
            if before:
                system.delete_file(f"{store.BUCKET}/gone/{name}")
            folder = tables(self, music)
            if not before:
                system.delete_file(f"{store.BUCKET}/gone/{name}")
            return folder

        monkeypatch.setattr(RemoteSource, "tables", changed)

    without("audio/good.wav", before=False)
    catalogue = prepare(uri, tmp_path / "catalogue")
    assert told(catalogue)["rejected"]["audio: missing"]["count"] == 5
    without("plays/b.parquet", before=True)
    with pytest.raises(UserError, match=r"plays/b\.parquet is gone: is the folder being written"):
        prepare(uri, tmp_path / "other")
    assert not (tmp_path / "other").exists()


KILLED = """
import os, signal, sys
from configs.data import PrepareConfig
from configs.load import load
from data import preparation, remote_source

fetch, left = remote_source.fetch, [int(sys.argv[1])]

def killed(*of):
    fetch(*of)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

remote_source.fetch = killed
preparation.prepare(load(PrepareConfig, sys.argv[2:]))
"""


@pytest.mark.parametrize("fetched", [3, 6])
def test_killed_and_run_again(
    fetched: int, source: Path, upload: Upload, prepare: Callable[..., Path], tmp_path: Path
) -> None:
    """While tables come, and with a recording on the disk: nothing of it stays."""
    uri, out = upload(source, f"killed{fetched}"), tmp_path / "catalogue"
    command = [sys.executable, "-c", KILLED, str(fetched), f"source={uri}", f"out={out}", "workers=0"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file() and source not in path.parents]
    assert not out.exists() and len([path for path in left if path.suffix in (".wav", ".flac", ".ogg")]) == (
        fetched > 4
    )
    assert told(prepare(uri, out))["counts"]["songs_with_audio"] == 6
    assert {path.name for path in tmp_path.iterdir()} == {"source", "catalogue", "catalogue_audio"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_refuses_ends_the_command_in_one_line(
    workers: int,
    source: Path,
    upload: Upload,
    address: str,
    prepare: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not with a catalogue that lacks recordings; also where it is a worker that was refused."""
    uri, tables = upload(source, "refused"), RemoteSource.tables

    def refusing(self: RemoteSource, music: bool) -> Path:
        folder = tables(self, music)
        store.secure(address, "2")
        return folder

    monkeypatch.setattr(RemoteSource, "tables", refusing)
    try:
        with pytest.raises(UserError) as caught:
            prepare(uri, tmp_path / "catalogue", f"workers={workers}")
    finally:
        store.secure(address, "inf")
    assert "check its address, the credentials" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "catalogue").exists()
    monkeypatch.setattr(RemoteSource, "tables", tables)
    assert told(prepare(uri, tmp_path / "catalogue"))["counts"]["songs_with_audio"] == 6


def test_what_cannot_be_a_source_is_one_line(
    source: Path, upload: Upload, address: str, prepare: Callable[..., Path], tmp_path: Path
) -> None:
    uri, out = upload(source, "wrong"), tmp_path / "catalogue"

    def error(of: str, *options: str) -> str:
        with pytest.raises(UserError) as caught:
            prepare(of, out, *options)
        assert "\n" not in str(caught.value) and not out.exists() and str(tmp_path) not in str(caught.value)
        return str(caught.value)

    assert "nothing is there" in error(store.uri(address, "nowhere"))
    assert "NO_SUCH_BUCKET" in (said := error(store.uri(address, "x", "no-such-bucket"))) or "nothing is there" in said
    assert "check its address" in error(store.uri("127.0.0.1:9", "x"))
    assert "no address of an object store" in error("nothing://bucket/x")
    assert "it has no songs.parquet" in error(store.uri(address, "wrong/audio"))
    assert "credentials in the environment" in error("s3://key:secret@bucket/x")
    for option in ("format=mpd", "audio.store=files", "plays=s3://bucket/plays.parquet"):
        assert option.partition("=")[0] in error(uri, option)
    system = fs.S3FileSystem(endpoint_override=address, scheme="http")
    with system.open_output_stream(f"{store.BUCKET}/wrong/plays/a.parquet") as file:
        file.write(b"no table")
    assert uri in error(uri), "the address is named, not the copy"


@pytest.fixture
def music(source: Path) -> Path:
    """The recordings with tags, at the beginning, at the end and for FFmpeg alone; lyrics; hidden files and others."""
    folder = source / "audio"
    for name, made in {"a.m4a": by_ffmpeg(song(1.2), "aac", "ipod"), "deep/a.mp3": cbr(song(1.2))}.items():
        (folder / name).write_bytes(made)
        tagged(folder / name)
    cover = mutagen.id3.APIC(mime="image/jpeg", type=3, desc="", data=bytes(10**6))
    file = mutagen.File(folder / "deep" / "a.mp3")
    file.tags.add(cover)
    file.save()
    (folder / "b.webm").write_bytes(by_ffmpeg(song(1.2, 48000), "libopus", "webm", 48000))
    tagged(folder / "#1 100%.flac")
    (folder / "deep" / "雨.LRC").write_bytes("[00:01.00]月亮代表我的心".encode("gbk"))
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "empty.flac").write_bytes(b"")
    (folder / "._x.flac").write_bytes((folder / "good.wav").read_bytes())
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    rng, plays = np.random.default_rng(0), pl.read_parquet(source / "plays" / "a.parquet")
    plays = plays.with_columns(song_id=pl.Series(rng.choice(names, plays.height)), played_at=datetime(2026, 3, 1))
    plays.with_columns(pl.col("played_at") + pl.duration(hours=pl.int_range(pl.len()))).write_parquet(
        folder / "plays.parquet"
    )
    return folder


def test_a_folder_of_music_is_read_alike(
    music: Path, upload: Upload, prepare: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = ["format=folder", "split.by=random", "pairs.posterior=none", "pairs.min_common=1"]
    local = prepare(music, tmp_path / "local", *of)
    got, read = [], Parts.readinto

    def counted(self: Parts, buffer: Any) -> int:
        got.append((self.name, read(self, buffer)))
        return got[-1][1]

    monkeypatch.setattr(Parts, "readinto", counted)
    uri = upload(music, "music")
    found = prepare(uri, tmp_path / "found", *of)
    assert told(found) == told(local) and told(found)["rejected"]["not readable as sound (left out)"]["count"] == 2
    songs = pl.read_parquet(found / "songs.parquet")
    assert songs.equals(pl.read_parquet(local / "songs.parquet")) and songs.height == 9
    assert songs["title"].eq("Night").sum() == 3 and songs["lyrics"].count() == 4
    of_cover = sum(size for name, size in got if name == "deep/a.mp3")
    assert 10**6 < of_cover < 2 * 10**6, "little more than the tags"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "local", "local_audio", "found", "found_audio"}


def test_tags_that_cannot_be_fetched_end_the_command(
    music: Path, upload: Upload, prepare: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where mutagen would take it for a broken file, and the song would have no title."""

    def broken(self: Parts, buffer: Any) -> int:
        self.error = OSError("reset by peer")
        raise self.error

    monkeypatch.setattr(Parts, "readinto", broken)
    with pytest.raises(UserError, match=r"music\?.* cannot be read: .*\(reset by peer\)"):
        prepare(upload(music, "music"), tmp_path / "catalogue", "format=folder", "split.by=random")
    assert not (tmp_path / "catalogue").exists()


def test_names_that_no_file_has_are_named(upload: Upload, address: str, music: Path, tmp_path: Path) -> None:
    uri = upload(music, "names")
    system = fs.S3FileSystem(endpoint_override=address, scheme="http")
    with system.open_output_stream(f"{store.BUCKET}/names/{'x' * 300}.flac") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"xxx\.flac' can be no file on disk \(File name too long\): rename it"):
        RemoteSource.listed(uri, tmp_path).tables(music=True)


def test_an_address_of_nothing_is_missing(source: Path, upload: Upload, tmp_path: Path) -> None:
    uri = upload(source, "nothing")
    with pytest.raises(AudioError, match="missing"), brought(f"{uri.partition('?')[0]}/audio/gone.wav", uri, tmp_path):
        pass
    with brought(source / "x.wav", uri, tmp_path) as path:
        assert path == source / "x.wav", "a path stays one"


@pytest.mark.parametrize("asked", ["my set/#1 雨 [x]+", "my%20set/%231%20%E9%9B%A8%20%5Bx%5D+"])
def test_an_address_may_hold_what_a_name_may_hold(asked: str, upload: Upload, address: str, tmp_path: Path) -> None:
    """With an end at `#` the folder above would be read."""
    (tmp_path / "one").write_text("1")
    upload(tmp_path, "my set/#1 雨 [x]+")
    found = RemoteSource.listed(store.uri(address, asked), tmp_path)
    assert list(found.objects) == ["one"]
    remote_source.fetch(found.uri, "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "1"
