"""Crops from samples on disk and straight from the files: the same sound, and what a bad file does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch

from configs.errors import UserError
from data.audio import recordings
from data.audio.crops import CropReader
from data.audio.recordings import decode
from data.audio.shards import windows
from data.catalogue import Catalogue

RATE = 16000
SECONDS = {0: 3.0, 1: 5.0, 2: 1.2}  # song row → length; the others have no recording
LONG, SHORT = 1, 2

Prepare = Callable[..., Path]


@pytest.fixture(scope="module")
def source(with_recordings: Prepare, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with three recordings, one of them stereo at 44.1 kHz, and one file that is none."""
    folder = tmp_path_factory.mktemp("source")
    for row, seconds in SECONDS.items():
        rate, channels = (44100, 2) if row == 0 else (RATE, 1)
        wave = np.random.default_rng(row).normal(0, 0.1, (round(seconds * rate), channels))
        soundfile.write(folder / f"{row}.wav", wave, rate, subtype="PCM_16")
    (folder / "bad.wav").write_text("this is not sound\n" * 100)
    return with_recordings(folder, {row: f"{row}.wav" for row in SECONDS} | {3: "bad.wav"})


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory, prepare: Prepare) -> dict[str, Catalogue]:
    folder = tmp_path_factory.mktemp("catalogues")
    return {
        store: Catalogue.read(prepare(source, folder / store, f"audio.store={store}", "audio.max_seconds=4"))
        for store in ("logmel", "samples", "files")
    }


def test_every_store_knows_the_same_recordings(made: dict[str, Catalogue]) -> None:
    for store, catalogue in made.items():
        length = catalogue.songs["audio_length"].to_numpy()
        assert set(np.flatnonzero(length)) == set(SECONDS), store
        wanted = {row: min(seconds, 4.0) for row, seconds in SECONDS.items()}
        for row, seconds in wanted.items():
            expected = 1 + seconds * RATE // 320 if store == "logmel" else seconds * RATE
            assert length[row] == pytest.approx(expected, abs=1), (store, row)
        assert catalogue.manifest["rejected"]["audio: unreadable"]["examples"] == ["s03"]
        kept = sum(file.stat().st_size for file in catalogue.folder.with_name(f"{store}_audio").glob("*.raw"))
        assert (kept > 0) == (store != "files")
    assert made["files"].manifest["audio_shards"] == {} and made["files"].audio_shards() is None


def test_samples_and_files_give_the_same_crops(made: dict[str, Catalogue], source: Path) -> None:
    rows = np.array([LONG, 5, SHORT])
    samples, files = (CropReader(made[store], 2.0, 3) for store in ("samples", "files"))
    kept, read = samples.fixed(rows), files.fixed(rows)
    assert kept["samples"].dtype == torch.int16 and kept["samples"].shape == (3, 3, 2 * RATE)
    assert kept["length"].tolist() == read["length"].tolist() == [[2 * RATE] * 3, [0] * 3, [round(1.2 * RATE)] * 3]
    assert torch.equal(kept["samples"], read["samples"]), "16-bit files, to the last bit"
    other = np.array([0])
    apart = samples.fixed(other)["samples"].int() - files.fixed(other)["samples"].int()
    assert apart.abs().max() <= 1, "resampled ones too, but for rounding"
    wave = np.rint(decode(source / "1.wav", RATE, 4.0) * 32768).astype(np.int16)
    for place, start in enumerate((0, RATE, 2 * RATE)):
        np.testing.assert_array_equal(kept["samples"][0, place], wave[start : start + 2 * RATE])
    assert not kept["samples"][1].any() and not kept["samples"][2, :, round(1.2 * RATE) :].any()
    assert CropReader(made["samples"], None, 1).fixed(rows)["length"][:, 0].tolist() == [4 * RATE, 0, round(1.2 * RATE)]
    for reader in (samples, files):
        first, again = (reader.random(rows, np.random.default_rng(7)) for _ in range(2))
        assert first["samples"].shape == (3, 2 * RATE) and torch.equal(first["samples"], again["samples"])
    assert torch.equal(first["samples"], samples.random(rows, np.random.default_rng(7))["samples"])


def test_a_file_that_goes_bad_later_is_named_once(
    source: Path, tmp_path: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = Catalogue.read(prepare(source, tmp_path / "files", "audio.store=files"))
    reader, path = CropReader(catalogue, 1.0, 2), source / "2.wav"
    whole = path.read_bytes()
    capsys.readouterr()
    try:
        path.write_text("no sound")
        crops = [reader.fixed(np.array([SHORT, LONG])) for _ in range(2)]
    finally:
        path.write_bytes(whole)
    assert crops[0]["length"].tolist() == [[0, 0], [RATE, RATE]] and not crops[0]["samples"][0].any()
    assert capsys.readouterr().out == f"{path}: unreadable; the song goes on without audio\n"


FAULTS = ("whole", "cut", "inverted", "scaled", "silent", "short", "spike", "holes", "text", "gone")


@pytest.fixture(scope="module")
def faulty(with_recordings: Prepare, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with a recording for each of FAULTS, in this order."""
    folder = tmp_path_factory.mktemp("faulty")
    wave = np.random.default_rng(0).normal(0, 0.1, 10 * RATE).astype(np.float32)
    waves = {"whole": wave, "cut": wave, "inverted": np.stack([wave, -wave], axis=1), "scaled": wave * 32768}
    waves |= {"silent": 0 * wave, "short": wave[: RATE // 2], "spike": wave.copy(), "holes": wave}
    waves["spike"][5 * RATE] = 1e30
    for name, sound in waves.items():
        kind, subtype = ("WAV", "FLOAT") if name in ("scaled", "spike") else ("FLAC", "PCM_16")
        soundfile.write(folder / name, sound, RATE, subtype, format=kind)
    data = {name: bytearray((folder / name).read_bytes()) for name in ("cut", "holes")}
    (folder / "cut").write_bytes(data["cut"][: 6 * len(data["cut"]) // 10])
    data["holes"][60_000::500] = bytes(byte ^ 0xFF for byte in data["holes"][60_000::500])
    (folder / "holes").write_bytes(data["holes"])
    (folder / "text").write_text("this is not sound\n" * 100)
    return with_recordings(folder, dict(enumerate(FAULTS)))


def test_one_verdict_in_all_stores_and_a_line_for_every_fault(
    faulty: Path, tmp_path: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths, said = [], []
    for store in ("logmel", "samples", "files"):
        catalogue = Catalogue.read(prepare(faulty, tmp_path / store, f"audio.store={store}", "audio.max_seconds=4"))
        lengths.append(np.flatnonzero(catalogue.songs["audio_length"].to_numpy()).tolist())
        said.append([line for line in capsys.readouterr().out.splitlines() if "audio" in line and "/" not in line])
        read = CropReader(catalogue, 2.0, 3).fixed(np.arange(len(FAULTS)))
        assert (
            read["frames" if store == "logmel" else "length"].bool().any(dim=1).nonzero()[:, 0].tolist() == lengths[0]
        )
    assert lengths == [[0, 1, 2, 3]] * 3 and said[0] == said[1] == said[2]
    meant = {
        "s04": "silent: nothing above -80 dB",
        "s05": "too short: shorter than audio.min_seconds",
        "s06": "out of range: single samples far beyond full scale",
        "s07": "damaged: a part that is needed cannot be decoded",
        "s08": "unreadable: not audio",
        "s09": "missing: no such file (correct audio_path",
        "s01": "audio: 1 are cut short",
        "s02": "audio: 1 cancel out",
        "s03": "audio: 1 hold integers",
    }
    for song, meaning in meant.items():
        assert sum(meaning in line and line.endswith(f"e.g. {song}") for line in said[0]) == 1, (song, said[0])
    changed = catalogue.manifest["audio"]
    assert [changed[name] for name in ("cut_short", "one_channel", "scaled")] == [1, 1, 1]


def test_what_is_special_is_the_same_from_samples_and_from_files(
    faulty: Path, tmp_path: Path, prepare: Prepare
) -> None:
    rows = np.arange(4)
    crops = [
        CropReader(Catalogue.read(prepare(faulty, tmp_path / store, f"audio.store={store}")), 1.0, 3).fixed(rows)
        for store in ("samples", "files")
    ]
    assert crops[0]["samples"].int().abs().amax(dim=(1, 2)).min() > 5000, "none is soft"
    assert torch.equal(crops[0]["samples"], crops[1]["samples"])


def test_the_files_are_not_decoded_again_for_another_catalogue(
    faulty: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("audio.store=files", f"audio.cache={tmp_path}/kept", "workers=0")
    prepare(faulty, tmp_path / "one", *options)
    read, real = [], recordings.read
    monkeypatch.setattr(recordings, "read", lambda path, *of: (read.append(path.name), real(path, *of))[1])
    prepare(faulty, tmp_path / "two", *options, "split.seed=7")
    assert sorted(read) == ["holes", "text"], "tried again: a disk may have been away"


def test_a_catalogue_of_files_of_an_earlier_version_is_named(faulty: Path, tmp_path: Path, prepare: Prepare) -> None:
    old = prepare(faulty, tmp_path / "old", "audio.store=files")
    pl.read_parquet(old / "songs.parquet").drop("audio_mix").write_parquet(old / "songs.parquet")
    with pytest.raises(UserError, match="made by an earlier version: make it again with"):
        CropReader(Catalogue.read(old), 1.0, 1)


def test_what_is_kept_decides_what_is_shared(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    """Samples do not depend on mel options, frames do."""
    cache = f"audio.cache={tmp_path}/audio"
    prepare(source, tmp_path / "one", "audio.store=samples", cache)
    prepare(source, tmp_path / "two", "audio.store=samples", "audio.n_mels=32", cache)
    names = [Catalogue.read(tmp_path / name).manifest["audio_shards"]["names"] for name in ("one", "two")]
    assert names[0] == names[1]
    with pytest.raises(UserError, match="decoded with other audio"):
        prepare(source, tmp_path / "three", "audio.store=logmel", cache)
    assert not list(tmp_path.glob("*_audio"))


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("length", [1, 4, 20, 33])
def test_windows_against_a_loop(width: int, length: int) -> None:
    """Also where they reach beyond the end, and where a shard is shorter than a window."""
    steps = np.random.default_rng(0).normal(size=(20, width)).astype(np.float16)
    first, real = np.array([0, 3, 19, 16, 3]), np.minimum([20, 17, 1, 2, 0], length)
    found = windows(steps, first, real, length)
    for at, (start, end) in enumerate(zip(first, first + real, strict=True)):
        expected = [steps[step] if step < end else np.zeros(width) for step in range(start, start + length)]
        np.testing.assert_array_equal(found[at], np.stack(expected))
    assert windows(steps, first[:0], real[:0], length).shape == (0, length, width)
