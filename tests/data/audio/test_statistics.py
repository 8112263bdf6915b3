"""The field `audio_stats`: who has it, that it is measured once, and runs and catalogues with and without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from configs.errors import UserError
from data.audio import statistics
from data.audio import vectors as audio_vectors
from data.audio.recordings import decode, to_steps
from data.audio.statistics import recording_statistics
from data.catalogue import AUDIO_STATS, Catalogue
from data.fields import read_fields
from inference.vectors import encode_songs
from models.audio_statistics import STATISTICS
from tests.conftest import FIRST_DAY

RATE = 16000
SECONDS = {0: 3.0, 1: 5.0, 2: 1.2, 4: 2.0, 30: 8.0, 55: 2.0}  # song row → length; the others have no recording
MISSING, BAD = 7, 3
Prepare = Callable[..., Path]


@pytest.fixture(scope="module")
def source(with_recordings: Prepare, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with clicks of a tempo of their own, a file that is no sound and one that is not there."""
    folder = tmp_path_factory.mktemp("source")
    for row, seconds in SECONDS.items():
        rate = 44100 if row == 0 else RATE
        wave = np.random.default_rng(row).normal(0, 0.3 / (1 + row), round(seconds * rate))
        wave *= 0.99 ** (np.arange(len(wave)) * 1000 // rate % (400 + row))
        soundfile.write(folder / f"{row}.wav", wave, rate, subtype="PCM_16")
    (folder / "bad.wav").write_text("this is not sound\n" * 100)
    return with_recordings(folder, {row: f"{row}.wav" for row in SECONDS} | {BAD: "bad.wav", MISSING: "gone.wav"})


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory, prepare: Prepare) -> dict[str, Catalogue]:
    folder = tmp_path_factory.mktemp("catalogues")
    return {
        store: Catalogue.read(prepare(source, folder / store, f"audio.store={store}"))
        for store in ("logmel", "samples", "files")
    }


def test_songs_with_a_usable_recording_have_it(source: Path, made: dict[str, Catalogue]) -> None:
    for store in ("logmel", "samples"):
        found = made[store].features()[AUDIO_STATS]
        assert found.shape == (made[store].n_songs, len(STATISTICS)) and found.dtype == np.float32
        assert np.flatnonzero(np.isfinite(found).all(axis=1)).tolist() == list(SECONDS)
        assert np.isnan(found).any(axis=1).sum() == made[store].n_songs - len(SECONDS)
        audio = made[store].manifest["audio"]
        steps = [to_steps(decode(source / f"{row}.wav", RATE, audio["max_seconds"]), audio) for row in SECONDS]
        alone = np.concatenate([recording_statistics([one], audio) for one in steps])
        np.testing.assert_allclose(alone, found[list(SECONDS)], atol=1e-5, rtol=0)
        tempo = 120 * 2 ** alone[[0, 1, 4], list(STATISTICS).index("tempo")]
        np.testing.assert_allclose(tempo, [60 / 0.4, 60 / 0.401, 60 / 0.43], rtol=0.03)
    both = (made[store].features()[AUDIO_STATS][list(SECONDS)] for store in ("logmel", "samples"))
    np.testing.assert_allclose(*both, atol=0.02, err_msg="frames are kept in 16 bits")


def test_it_is_a_field_by_default_where_sound_is_kept(
    made: dict[str, Catalogue], dataset: Path, prepare: Prepare, tmp_path: Path
) -> None:
    assert AUDIO_STATS in read_fields(made["logmel"], None, [], 2).dense_dims
    assert AUDIO_STATS not in read_fields(made["logmel"], None, ["genres"], 2).dense_dims
    silent = Catalogue.read(prepare(dataset, tmp_path / "silent"))
    for catalogue in (made["files"], silent):
        assert AUDIO_STATS not in catalogue.features()
        with pytest.raises(UserError, match=f"fields.use names .'{AUDIO_STATS}'.; this catalogue has"):
            read_fields(catalogue, None, [AUDIO_STATS], 2)


def test_a_column_of_that_name_is_left_out_and_said(
    source: Path, made: dict[str, Catalogue], prepare: Prepare, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "source")
    songs = pl.read_parquet(source / "songs.parquet").with_columns(feature_audio_stats=pl.lit([1.0, 2.0]))
    songs.write_parquet(tmp_path / "source" / "songs.parquet")
    catalogue = Catalogue.read(prepare(tmp_path / "source", tmp_path / "catalogue"))
    assert any("feature_audio_stats left out" in note for note in catalogue.manifest["notes"])
    np.testing.assert_array_equal(catalogue.features()[AUDIO_STATS], made["logmel"].features()[AUDIO_STATS])


def test_recordings_are_measured_once(
    source: Path, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    compute = audio_vectors.compute
    monkeypatch.setattr(
        audio_vectors,
        "compute",
        lambda reader, *rest: (measured.append(len(reader.length)), compute(reader, *rest))[1],
    )
    shared = f"audio.cache={tmp_path / 'cache'}"
    first = Catalogue.read(prepare(source, tmp_path / "first", shared, f"split.until={FIRST_DAY:%Y}-02-20"))
    whole = Catalogue.read(prepare(source, tmp_path / "whole", shared))
    again = Catalogue.read(prepare(source, tmp_path / "again", shared))
    late = sum(row >= first.n_songs for row in SECONDS)
    assert measured == [len(SECONDS) - late, late] and late
    np.testing.assert_array_equal(again.features()[AUDIO_STATS], whole.features()[AUDIO_STATS])
    np.testing.assert_array_equal(first.features()[AUDIO_STATS], whole.features()[AUDIO_STATS][: first.n_songs])

    one = Catalogue.read(prepare(source, tmp_path / "one"))
    assert one.manifest["content"] == whole.manifest["content"], "however the shards are cut"
    monkeypatch.setattr(statistics, "VERSION", 0)
    other = Catalogue.read(prepare(source, tmp_path / "other", shared))
    assert other.manifest["content"] != whole.manifest["content"]


def test_runs_and_catalogues_with_and_without_it(
    made: dict[str, Catalogue], train_i2i: Prepare, tmp_path: Path
) -> None:
    """A catalogue from before the field: its runs read new catalogues; a run with the field says what it misses."""
    new, old = made["logmel"].folder, tmp_path / "old"
    shutil.copytree(new, old)
    (old / "features" / f"{AUDIO_STATS}.npy").unlink()
    short = "trainer.epochs=1"
    without = train_i2i(tmp_path / "without", f"data={old}", short)
    within = train_i2i(tmp_path / "within", f"data={new}", short)
    vocabularies = [json.loads((run / "vocabulary.json").read_text()) for run in (without, within)]
    assert vocabularies[0] == vocabularies[1]
    found = [encode_songs(without, str(data))[1]["vector"] for data in (old, new)]
    np.testing.assert_array_equal(*found)
    heard, hidden = (encode_songs(within, None, None, names)[1]["vector"] for names in ((), (AUDIO_STATS,)))
    assert (heard != hidden).any(axis=1).nonzero()[0].tolist() == list(SECONDS)
    with pytest.raises(UserError, match=rf"{AUDIO_STATS} missing \(run: {len(STATISTICS)}\)"):
        encode_songs(within, str(old))


def test_the_documents_name_the_numbers_in_their_order() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
    table = page.partition("| number | is | unit |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert [line.split("`")[1] for line in table.splitlines()] == list(STATISTICS)
