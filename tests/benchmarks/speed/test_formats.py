"""The benchmark of sound formats: every figure of its table against files whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import formats
from benchmarks.speed.formats import FORMATS, before, by_soundfile, main, measured, rows, song, whole
from configs.load import load
from data.audio import sound_files


def test_a_report_and_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ["WAV, 16 bits", "FLAC, streamed (total 0)", "Ogg Vorbis, chained", "MP3, CBR"]
    given = ["seconds=2", "rounds=1", f"only={json.dumps(only)}", f"out={tmp_path}/report.json"]
    main(load(formats.FormatsConfig, given))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["versions"].keys() == {"av", "soundfile"}
    table = rows(report)
    assert [row[:4] for row in table] == [
        [name, "libsndfile" if "WAV" in name else "FFmpeg", "yes", "yes"] for name in only
    ]
    assert [row[5] for row in table] == ["read", "not read", "length wrong", "read"]
    assert all(float(row[4]) > 0 for row in table) and [row[6] == "–" for row in table] == [False, True, True, False]
    assert "seconds_an_hour" in capsys.readouterr().out


def test_a_wrong_length_and_an_inexact_stretch_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "song"
    path.write_bytes(FORMATS["Ogg Vorbis, chained"](song(3)))
    monkeypatch.setattr(sound_files, "_is_chained", lambda file: False)
    wrong = measured(path, 1)
    assert not wrong["length"] and rows({"formats": [{"format": "x"} | wrong]})[0][2:4] == ["no", "no"]
    path.write_bytes(FORMATS["Ogg Opus"](song(3, 48000)))
    monkeypatch.setattr(sound_files, "WARM_UP", 0.0)
    inexact = measured(path, 1)
    assert inexact["length"] and rows({"formats": [{"format": "x"} | inexact]})[0][3] != "yes"


def test_the_references(tmp_path: Path) -> None:
    wave, path = song(2), tmp_path / "song"
    path.write_bytes(by_soundfile(wave, "WAV", "FLOAT"))
    np.testing.assert_array_equal(whole(path), wave.T)
    middle = before(path, 1.0)
    assert middle is not None
    np.testing.assert_allclose(middle, wave[22050:66150].mean(axis=1), atol=1e-7)
    path.write_bytes(FORMATS["WAV, data size 0"](wave))
    assert before(path, 1.0) is None
