"""Crops from samples on disk and straight from the files: the same sound, and what a bad file does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from configs.errors import UserError
from data.audio.crops import CropReader
from data.audio.recordings import decode
from data.audio.shards import windows
from data.catalogue import Catalogue
from evaluation.probing import mel_of_songs

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
        assert catalogue.folder.with_name(f"{store}_audio").exists() == (store != "files")
    assert made["files"].manifest["audio_shards"] == {} and made["files"].audio_shards() is None


def test_samples_and_files_give_the_same_crops(made: dict[str, Catalogue], source: Path) -> None:
    rows = np.array([LONG, 5, SHORT])
    samples, files = (CropReader(made[store], 2.0, 3) for store in ("samples", "files"))
    kept, read = samples.fixed(rows), files.fixed(rows)
    assert kept["samples"].dtype == torch.int16 and kept["samples"].shape == (3, 3, 2 * RATE)
    assert kept["length"].tolist() == read["length"].tolist() == [[2 * RATE] * 3, [0] * 3, [round(1.2 * RATE)] * 3]
    assert torch.equal(kept["samples"], read["samples"]), "16-bit files, to the last bit"
    wave = np.rint(decode(source / "1.wav", RATE, 4.0) * 32768).astype(np.int16)
    for place, start in enumerate((0, RATE, 2 * RATE)):
        np.testing.assert_array_equal(kept["samples"][0, place], wave[start : start + 2 * RATE])
    assert not kept["samples"][1].any() and not kept["samples"][2, :, round(1.2 * RATE) :].any()
    assert CropReader(made["samples"], None, 1).fixed(rows)["length"][:, 0].tolist() == [4 * RATE, 0, round(1.2 * RATE)]
    for reader in (samples, files):
        first, again = (reader.random(rows, np.random.default_rng(7)) for _ in range(2))
        assert first["samples"].shape == (3, 2 * RATE) and torch.equal(first["samples"], again["samples"])
    assert torch.equal(first["samples"], samples.random(rows, np.random.default_rng(7))["samples"])


def test_a_resampled_file_is_read_in_place(source: Path) -> None:
    whole = decode(source / "0.wav", RATE, 4.0)
    for start, length in ((0, 4000), (8000, 16000), (47000, 1000)):
        part = decode(source / "0.wav", RATE, 4.0, (start, length))
        assert abs(len(part) - length) <= 1
        inside = slice(50, length - 50)  # a resampled end has nothing beyond it
        likeness = np.corrcoef(part[inside], whole[start : start + length][inside])[0, 1]
        assert likeness > 0.98, "white noise: a sample further it would be none"


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


def test_a_file_that_is_good_in_part_or_silent_is_no_audio(
    tmp_path: Path, prepare: Prepare, with_recordings: Prepare
) -> None:
    """A vector of some crops of sound and some of nothing would be no vector of the song."""
    wave = np.random.default_rng(0).normal(0, 0.1, 10 * RATE)
    for name, sound in (("whole", wave), ("cut", wave), ("silent", 0 * wave)):
        soundfile.write(tmp_path / f"{name}.flac", sound, RATE)
    data = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: 6 * len(data) // 10])
    with_recordings(tmp_path, {0: "whole.flac", 1: "cut.flac", 2: "silent.flac"})
    catalogue = Catalogue.read(prepare(tmp_path, tmp_path / "files", "audio.store=files"))
    found = CropReader(catalogue, 2.0, 3).fixed(np.arange(3))
    assert found["length"].tolist() == [[2 * RATE] * 3, [0] * 3, [0] * 3] and not found["samples"][1:].any()
    measured = mel_of_songs(catalogue)
    assert measured is not None and np.isfinite(measured[:, 0]).nonzero()[0].tolist() == [0]


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
