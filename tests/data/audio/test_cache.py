"""The audio cache: what is in it, that it is decoded once, and that neither a kill nor damage leaves anything wrong."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import torch

from configs.errors import UserError
from data.audio import cache as audio_cache
from data.audio import recordings as audio
from data.audio import sound_files
from data.audio.cache import Cached, cached
from data.audio.crops import CropReader
from data.audio.shards import Shards
from data.catalogue import Catalogue

ROOT = Path(__file__).parents[3]
RATE, MELS = 16000, 64
OPTIONS: dict[str, Any] = {
    "store": "logmel", "sample_rate": RATE, "n_mels": MELS, "win_length": 800, "hop_length": 320,
    "max_seconds": 4.0, "min_seconds": 1.0,
}  # fmt: skip


def sound(path: Path, seconds: float = 1.5, seed: int = 0, rate: int = RATE, channels: int = 1) -> Path:
    wave = np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, wave, rate)
    return path


def fill(paths: list[Path | None], folder: Path, workers: int = 0, verify: bool = False, **options: Any) -> Cached:
    return cached(paths, folder, OPTIONS | options, workers, verify)


def steps_of(found: Cached, folder: Path, row: int, store: str = "logmel") -> np.ndarray:
    steps = Shards(folder, found.shards, *audio.step_type(OPTIONS | {"store": store})).shard(int(found.shard[row]))
    return np.asarray(steps[found.start[row] : found.start[row] + found.length[row]])


def check(found: Cached, folder: Path, paths: list[Path | None], rows: list[int]) -> None:
    for row in rows:
        expected = audio.log_mel(audio.decode(paths[row] or Path(), RATE, 4.0), RATE, MELS, 800, 320)
        np.testing.assert_allclose(steps_of(found, folder, row), expected, atol=2e-3, err_msg=str(row))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were decoded (in this process)."""
    seen: list[Path] = []
    real = audio.read

    def read(path: Path, *arguments: Any) -> Any:
        seen.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(audio, "read", read)
    return seen


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recordings of 1.5 s fill a shard."""
    monkeypatch.setattr(audio_cache, "SHARD_BYTES", 2 * 76 * MELS * 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_recording_is_found_and_every_bad_one_named(tmp_path: Path, workers: int) -> None:
    good = [sound(tmp_path / f"good{number}.wav", 1 + number / 10, number) for number in range(12)]
    bad = {name: tmp_path / f"{name}.wav" for name in ("missing", "text", "silent", "short")}
    bad["text"].write_text("this is not sound\n" * 100)
    soundfile.write(bad["silent"], np.zeros(2 * RATE), RATE)
    sound(bad["short"], 0.5)
    stereo = sound(tmp_path / "stereo.wav", 2, rate=44100, channels=2)
    paths = [*good[:6], None, *bad.values(), stereo, sound(tmp_path / "slow.wav", 2, rate=8000), *good[6:], good[0]]
    torch.ones(600, 600) @ torch.ones(600, 600)  # threads in the parent must not hang the workers
    found = fill(paths, tmp_path / "cache", workers)
    assert found.problems == {"missing": [7], "unreadable": [8], "silent": [9], "too short": [10]}
    assert found.length[6:11].tolist() == [0] * 5 and found.shard[6:11].tolist() == [-1] * 5
    changed = {name: len(rows) for name, rows in found.changes.items() if rows}
    assert changed == {"resampled": 2, "downmixed": 1} and len(found.shards) == 1
    check(found, tmp_path / "cache", paths, [0, 5, 11, 12, 13, 18])
    assert (found.start[0], found.length[0]) == (found.start[19], found.length[19]), "one file of two songs, kept once"


def test_one_band_is_still_a_frame(tmp_path: Path) -> None:
    found = fill([sound(tmp_path / "a.wav")], tmp_path / "cache", n_mels=1)
    steps = Shards(tmp_path / "cache", found.shards, np.dtype(np.float16), 1).shard(0)
    assert found.length.tolist() == [76] == [len(steps)] and np.isfinite(steps).all()


def test_the_cache_does_not_depend_on_workers(tmp_path: Path) -> None:
    paths: list[Path | None] = [sound(tmp_path / f"{number}.flac", 2, number) for number in range(5)]
    contents = []
    for workers in (0, 1, 2):
        fill(paths, tmp_path / f"cache{workers}", workers)
        files = sorted((tmp_path / f"cache{workers}").glob("*.raw"))
        contents.append([(file.name, file.read_bytes()) for file in files])
    assert contents[0] == contents[1] == contents[2]


def test_only_what_is_new_or_changed_is_decoded(tmp_path: Path, counted: list[Path], small_shards: None) -> None:
    paths: list[Path | None] = [sound(tmp_path / f"{number}.wav", seed=number) for number in range(5)]
    first = fill(paths, tmp_path / "cache")
    assert len(counted) == 5 and len(first.shards) == 3
    again = fill(paths[::-1], tmp_path / "cache")
    assert len(counted) == 5 and again.length.tolist() == first.length.tolist()[::-1]
    check(again, tmp_path / "cache", paths[::-1], [0, 4])
    counted.clear()
    sound(tmp_path / "1.wav", 2.0, seed=9)
    more = [*paths, sound(tmp_path / "5.wav", seed=5)]
    found = fill(more, tmp_path / "cache")
    assert [path.name for path in counted] == ["1.wav", "5.wav"]
    check(found, tmp_path / "cache", more, list(range(6)))


def test_a_file_without_use_is_not_tried_again_until_it_changes(tmp_path: Path, counted: list[Path]) -> None:
    bad = sound(tmp_path / "bad.wav", 0.5)
    assert fill([bad], tmp_path / "cache").problems == fill([bad], tmp_path / "cache").problems == {"too short": [0]}
    assert len(counted) == 1
    sound(bad)
    assert fill([bad], tmp_path / "cache").problems == {} and len(counted) == 2


def test_what_an_earlier_version_has_refused_is_tried_again(
    tmp_path: Path, counted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its good recordings are kept, and so is what this version refuses."""
    paths: list[Path | None] = [sound(tmp_path / "good.wav"), sound(tmp_path / "bad.wav", 0.5)]
    monkeypatch.setattr(audio_cache, "DECODER", 1)
    fill(paths, tmp_path / "cache")
    for table in (tmp_path / "cache").glob("*.parquet"):  # as it was before decoders had versions
        pl.read_parquet(table).drop("decoder", "place", "mix", "scaled", "cut_short", "one_channel").write_parquet(
            table
        )
    monkeypatch.undo()
    seen: list[Path] = []
    real = audio.read
    monkeypatch.setattr(audio, "read", lambda path, *of: (seen.append(path), real(path, *of))[1])
    for _ in range(2):
        found = fill(paths, tmp_path / "cache")
        assert found.problems == {"too short": [1]} and found.length.tolist() == [76, 0]
    assert [path.name for path in seen] == ["bad.wav"]
    check(found, tmp_path / "cache", paths, [0])


def test_what_could_not_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network disk was away: the file is as it was."""
    paths: list[Path | None] = [sound(tmp_path / "a.wav")]

    def away(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sound_files.soundfile, "SoundFile", away)
    assert fill(paths, tmp_path / "cache").problems == {"unreadable": [0]}
    assert fill(paths, tmp_path / "cache").problems == {"unreadable": [0]}
    monkeypatch.undo()
    found = fill(paths, tmp_path / "cache")
    assert found.problems == {}
    check(found, tmp_path / "cache", paths, [0])
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 1, "failures leave no shards behind"


KILLED = """
import os, sys
from pathlib import Path
from data.audio import recordings as audio
from data.audio import cache as audio_cache
from tests.data.audio.test_cache import fill

def killed(*arguments, real=audio.decoded):
    for number, one in enumerate(real(*arguments)):
        if number == 5:
            os.kill(os.getpid(), 9)
        yield one

audio_cache.decoded, audio_cache.SHARD_BYTES = killed, int(sys.argv[3])
fill([Path(sys.argv[1]) / f"{number}.wav" for number in range(7)], Path(sys.argv[2]))
"""


def test_a_killed_command_goes_on(tmp_path: Path, counted: list[Path], small_shards: None) -> None:
    """Killed in the middle of its third shard it keeps two, and never counts the frames of the third."""
    paths: list[Path | None] = [sound(tmp_path / f"{number}.wav", seed=number) for number in range(7)]
    arguments = [str(tmp_path), str(tmp_path / "cache"), str(audio_cache.SHARD_BYTES)]
    ran = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, timeout=120)
    assert ran.returncode == -9, ran.stderr.decode()
    left = list((tmp_path / "cache").glob("*.part"))
    assert len(left) == 1 and len(audio_cache.read_tables(tmp_path / "cache")) == 4
    os.utime(left[0], (0, 0))
    found = fill(paths, tmp_path / "cache")
    assert [path.name for path in counted] == ["4.wav", "5.wav", "6.wav"]
    assert not list((tmp_path / "cache").glob("*.part")), "what a kill left long ago is removed"
    check(found, tmp_path / "cache", paths, list(range(7)))
    whole = fill(paths, tmp_path / "whole")
    assert whole.length.tolist() == found.length.tolist()


def test_an_error_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Iterator[Any]:
        yield audio.Kept(None, np.ones((3, MELS), dtype=np.float16))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(audio_cache, "decoded", broken)
    with pytest.raises(RuntimeError):
        fill([sound(tmp_path / "a.wav"), sound(tmp_path / "b.wav")], tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "table cut"])
def test_damage_is_seen_and_mended(
    tmp_path: Path, counted: list[Path], small_shards: None, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths: list[Path | None] = [sound(tmp_path / f"{number}.wav", seed=number) for number in range(4)]
    first = fill(paths, tmp_path / "cache")
    counted.clear()
    hurt = tmp_path / "cache" / f"{first.shards[int(first.shard[2])]}.raw"
    data = bytearray(hurt.read_bytes())
    if damage == "gone":
        hurt.unlink()
    elif damage == "table cut":
        hurt = hurt.with_suffix(".parquet")
        hurt.write_bytes(hurt.read_bytes()[:50])
    else:
        data[100] ^= 1
        hurt.write_bytes(bytes(data[:-2] if damage == "cut" else data))
    asked = paths if damage == "table cut" else paths[:3]  # the shard is mended for those who need its other file too
    fill(asked, tmp_path / "cache", verify=damage == "flipped")
    found = fill(paths, tmp_path / "cache")
    assert sorted(path.name for path in counted) == ["2.wav", "3.wav"]
    assert "is damaged: its recordings are decoded again" in capsys.readouterr().out
    check(found, tmp_path / "cache", paths, [0, 1, 2, 3])
    assert found.shards == first.shards, "mended, it is the same again"


def test_other_options_and_other_folders_are_refused(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav")
    fill([path], tmp_path / "cache")
    with pytest.raises(UserError, match=r"decoded with other audio\.\* options: choose another audio\.cache="):
        fill([path], tmp_path / "cache", hop_length=160)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("hello")
    with pytest.raises(UserError, match="choose another out= or remove it"):
        fill([path], tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "hello"


@pytest.mark.parametrize("paths", [[], [None, None]])
def test_without_any_recording(tmp_path: Path, paths: list[Path | None]) -> None:
    found = fill(paths, tmp_path / "cache")
    assert len(found.shard) == len(found.length) == len(paths) and not found.length.any()
    assert found.problems == {} and found.shards == [] and (found.shard == -1).all()


def test_a_catalogue_of_an_earlier_version_is_named(catalogue_folder: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(catalogue_folder, tmp_path / "old"))
    pl.read_parquet(old / "songs.parquet").drop("audio_shard").write_parquet(old / "songs.parquet")
    with pytest.raises(UserError, match="made by an earlier version: make it again with"):
        Catalogue.read(old).audio_shards()


def test_a_process_that_gets_the_frames_opens_them_itself(tmp_path: Path) -> None:
    found = fill([sound(tmp_path / "a.wav")], tmp_path / "cache")
    frames = Shards(tmp_path / "cache", found.shards, np.dtype(np.float16), MELS)
    steps = frames.shard(0)
    copy = pickle.loads(pickle.dumps(frames))
    assert copy.maps == {} and np.array_equal(copy.shard(0), steps)
    (tmp_path / "cache" / f"{found.shards[0]}.raw").unlink()
    with pytest.raises(UserError, match="is gone: put the audio cache back, or prepare the catalogue again"):
        Shards(tmp_path / "cache", found.shards, np.dtype(np.float16), MELS).shard(0)


@pytest.mark.parametrize("cache", ["out", "out/audio"])
def test_a_cache_inside_the_catalogue_is_refused(dataset: Path, tmp_path: Path, prepare: Any, cache: str) -> None:
    """The catalogue is replaced as a whole, and the audio would go with it."""
    with pytest.raises(UserError, match="which is replaced as a whole: choose a folder beside it"):
        prepare(dataset, tmp_path / "out", f"audio.cache={tmp_path}/{cache}")


def test_two_catalogues_share_a_cache_and_both_move_with_it(
    with_recordings: Any, tmp_path: Path, prepare: Any, counted: list[Path]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with_recordings(source, {row: sound(source / f"{row}.wav", seed=row).name for row in range(3)})
    both = tmp_path / "both"
    for name in ("one", "two"):
        prepare(source, both / name, f"audio.cache={both}/sound", f"split.seed={len(name)}")
    assert len(counted) == 3
    moved = both.rename(tmp_path / "moved")
    crops = [CropReader(Catalogue.read(moved / name), 1.0, 1).fixed(np.arange(5)) for name in ("one", "two")]
    assert torch.equal(crops[0]["logmel"], crops[1]["logmel"])
    assert crops[0]["frames"][:, 0].tolist() == [50, 50, 50, 0, 0]
    assert crops[0]["logmel"][:3].any() and not crops[0]["logmel"][3:].any()
    moved.rename(both)
    alone = (both / "one").rename(tmp_path / "alone")
    again = CropReader(Catalogue.read(alone), 1.0, 1).fixed(np.arange(5))
    assert torch.equal(again["logmel"], crops[0]["logmel"])
