"""The linear probe on planted labels, and how zero-shot answers are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from configs.load import load
from configs.targeting import ProbeConfig
from data.catalogue import Catalogue
from evaluation.probing import mel_of_songs, probe
from inference.zeroshot import accuracy, own_labels
from models.audio_encoder import mel_statistics
from pipeline.probe import main


def planted(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of which two numbers tell one of three labels; four songs an artist, artists keep to their label."""
    rng = np.random.default_rng(seed)
    artist = np.arange(n) // 4
    label = np.array(["jazz", "pop", "rock"])[artist % 3]
    x = rng.normal(0, 1, (n, 10))
    x[:, 0] += 4 * (artist % 3 == 0)
    x[:, 1] += 4 * (artist % 3 == 1)
    return x.astype(np.float32), label, np.array([f"a{one}" for one in artist])


def test_a_linear_label_is_found_and_noise_is_not() -> None:
    x, label, artist = planted(240)
    found = probe(x, label, artist, 4, 0)
    assert len(found) == 4 and np.mean(found) > 0.85
    noise = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    assert np.mean(probe(noise, label, artist, 4, 0)) < 0.5


def test_artists_are_never_split() -> None:
    """Vectors that name the artist, who names the label: known artists would be answered without a mistake."""
    _, label, artist = planted(240)
    rng = np.random.default_rng(0)
    own = {name: rng.normal(size=60) for name in artist}
    other = {name: rng.choice(["jazz", "pop", "rock"]) for name in artist}
    x = np.array([own[name] for name in artist], dtype=np.float32)
    label = np.array([other[name] for name in artist])
    assert np.mean(probe(x, label, artist, 4, 0)) < 0.6
    assert np.mean(probe(x, label, np.arange(240).astype(str), 4, 0)) > 0.75, "songs of one artist in both parts"


AUDIO = {"store": "logmel", "sample_rate": 1000, "n_mels": 4, "win_length": 50, "hop_length": 20}


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """120 songs with planted vectors, labels and recordings; one without a label, one without a recording."""
    x, label, artist = planted(120)
    frames = np.full(120, 40)
    frames[5] = 0
    rng = np.random.default_rng(0)
    lines = rng.normal(size=(int(frames.sum()), 4)).astype(np.float16)
    lines[:, 0] += np.repeat(np.unique(label, return_inverse=True)[1], frames)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "all.raw").write_bytes(lines.tobytes())
    genres = [[str(one)] for one in label]
    genres[9] = []
    songs = {"song_id": [f"s{n}" for n in range(120)], "artist_id": artist.tolist(), "genres": genres}
    more = {
        "audio_shard": np.where(frames > 0, 0, -1),
        "audio_start": np.cumsum(frames) - frames,
        "audio_length": frames,
        "split": ["warm"] * 120,
    }
    pl.DataFrame(songs | more).write_parquet(tmp_path / "songs.parquet")
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "mood.npy", x)
    manifest = {"kind": "catalogue", "audio": AUDIO, "audio_shards": {"folders": ["audio"], "names": ["all"]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_the_command(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(load(ProbeConfig, [f"data={catalogue}", "use=[mood]", "folds=3", f"out={catalogue}/to/probe.json"]))
    said = capsys.readouterr().out
    assert "genres of 118 songs, 3 labels, 3 folds" in said, "without the one that lacks a label or a recording"
    rows = {row["space"]: row for row in json.loads((catalogue / "to" / "probe.json").read_text())["rows"]}
    assert list(rows) == ["most frequent label", "mood", "mel statistics"]
    assert rows["mood"]["accuracy"] > 0.8 and rows["mel statistics"]["accuracy"] > 0.8
    assert rows["most frequent label"]["accuracy"] == pytest.approx(40 / 118, abs=0.01)
    assert all(f"{row['accuracy']:.3f}" in said for row in rows.values())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["column=moods"], "column=moods"),
        (["use=[clip_audio]"], "use=.'clip_audio'.: there are mood"),
        (["folds=100"], "too few for folds=100"),
        (["folds=31"], r"folds=31 that share no artist cannot be made of 118 songs by 30 artists"),
    ],
)
def test_what_cannot_be_probed_is_told(catalogue: Path, options: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        main(load(ProbeConfig, [f"data={catalogue}", *options]))


def test_statistics_of_whole_recordings(catalogue: Path) -> None:
    opened = Catalogue.read(catalogue)
    found = mel_of_songs(opened)
    assert found is not None and found.shape == (120, 20) and np.isnan(found[5]).all()
    import torch

    logmel = np.fromfile(catalogue / "audio" / "all.raw", dtype=np.float16).reshape(-1, 4)[40 * 5 : 40 * 6]  # song 6
    expected = mel_statistics(torch.from_numpy(logmel.astype(np.float32)).unsqueeze(0), torch.tensor([40]))
    np.testing.assert_allclose(found[6], expected.flatten(), atol=1e-6)


def test_labels_of_a_column(catalogue: Path) -> None:
    opened = Catalogue.read(catalogue)
    assert own_labels(opened, "genres")[8:10] == [["rock"], []] and own_labels(opened, "artist_id")[4] == ["a1"]
    for column in ("audio_length", "nothing"):
        with pytest.raises(UserError, match=f"column={column}"):
            own_labels(opened, column)


def test_a_first_tag_is_right_if_it_is_one_of_the_song_s_own() -> None:
    labels = ["jazz", "pop", "rock"]
    own = [["pop"], ["jazz", "rock"], [], ["rock"], ["rock", "pop"]]
    heard, first = np.array([0, 1, 2, 3, 4]), np.array([1, 2, 0, 0, 2])
    with pytest.raises(UserError, match="no song with audio has a label"):
        accuracy(np.array([0]), np.array([2]), own, labels)
    result = accuracy(first, heard, own, labels)
    assert result == {
        "songs": 4,
        "accuracy": 0.75,
        "most_frequent": 0.75,
        "chance": pytest.approx((1 + 2 + 1 + 2) / 12),
    }
