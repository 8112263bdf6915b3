"""clip_moodclips and zeroshot: their figures against loops, and both commands on a small world with sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.quality import clip_features, clip_moodclips, zeroshot
from benchmarks.quality.clip_moodclips import TOWERS, ClipMoodclipsConfig, chance, retrieval, ridge
from configs.errors import UserError
from configs.load import load
from data.catalogue import Catalogue, read_features
from tests.benchmarks.small import listed

TINY = [
    "model.dim=16", "model.width=16", "model.layers=1", "model.heads=2", "model.crop_seconds=1", "model.crops=1",
    "trainer.epochs=2", "trainer.accelerator=cpu", "batch_size=32", "text.max_tokens=16", "text.variants=1",
]  # fmt: skip


def test_figures_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    audio, text = rng.normal(size=(2, 17, 3))
    of = rng.random(17) < 0.5
    for mask, rows in ((None, range(17)), (of, np.flatnonzero(of))):
        found = retrieval(audio, text, mask)
        for way, query, item in (("text→audio", text, audio), ("audio→text", audio, text)):
            ranks = [sum(query[row] @ other >= query[row] @ item[row] for other in item) for row in rows]
            assert found[f"{way} median rank"] == np.median(ranks) and found["clips"] == len(ranks)
            for k in (1, 5, 10):
                assert found[f"{way} R@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]))


def test_chance_is_the_mean_of_random_vectors() -> None:
    rng = np.random.default_rng(0)
    drawn = [retrieval(*rng.normal(size=(2, 20, 8))) for _ in range(400)]
    for key, expected in chance(20).items():
        spread = np.std([one[key] for one in drawn]) / 20
        assert abs(np.mean([one[key] for one in drawn]) - expected) <= 4 * spread + 1e-9, key


def test_ridge_solves_its_equation_and_takes_the_best_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (60, 5)).astype(np.float32)
    text = (x @ rng.normal(size=(5, 4)) + rng.normal(0, 0.5, (60, 4))).astype(np.float32)
    train, validation = np.arange(40), np.arange(40, 60)
    value = {}
    for strength in (1.0, 1000.0):
        monkeypatch.setattr(clip_moodclips, "RIDGES", (strength,))
        audio, words = ridge(x, text, train, validation)
        z = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-6)
        y = text - text[train].mean(axis=0)
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        weight = np.linalg.inv(z[train].T @ z[train] + strength * np.eye(5)) @ z[train].T @ y[train]
        expected = z @ weight / np.linalg.norm(z @ weight, axis=1, keepdims=True)
        np.testing.assert_allclose(audio, expected, atol=1e-4)
        np.testing.assert_allclose(words, y, atol=1e-5)
        figures = retrieval(audio[validation], words[validation])
        value[strength] = figures["text→audio R@10"] + figures["audio→text R@10"]
    monkeypatch.setattr(clip_moodclips, "RIDGES", (1.0, 1000.0))
    figures = retrieval(*(one[validation] for one in ridge(x, text, train, validation)))
    assert figures["text→audio R@10"] + figures["audio→text R@10"] == max(value.values())


def options_of(data: Path, out: Path) -> list[str]:
    return [f"data={data}", f"out={out}/runs", "seeds=2", f"clip={listed(TINY)}", "texts=[genres and moods]"]


@pytest.fixture(scope="module")
def both(sounding: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both commands on a world of 120 songs with sound."""
    at = tmp_path_factory.mktemp("clip")
    clip_moodclips.main(load(ClipMoodclipsConfig, options_of(sounding, at)))
    for tower in TOWERS:
        options = [f"data={sounding}", f"clip={at}/runs", f"out={at}/zeroshot", "seeds=1", f"tower={tower}"]
        zeroshot.main(load(zeroshot.BenchmarkConfig, options))
    return at


@pytest.mark.slow
def test_artists_are_split_as_the_protocol_says(both: Path) -> None:
    for seed in range(2):
        songs = Catalogue.read(both / "runs" / f"seed{seed}" / "logmel" / "catalogue").songs
        artists = sorted(set(songs["artist_id"]))
        order = np.random.default_rng(seed).permutation(artists)
        test, held = round(0.2 * len(artists)), round(0.3 * len(artists))
        for part, names in (("cold_test", order[:test]), ("cold_val", order[test:held]), ("warm", order[held:])):
            assert set(songs.filter(pl.col("split") == part)["artist_id"]) == set(names)


@pytest.mark.slow
def test_rows_of_both(both: Path) -> None:
    runs: list[list[dict[str, Any]]] = json.loads((both / "runs" / "results.json").read_text())
    assert len(runs) == 2
    for seed, rows in enumerate(runs):
        of = {row["method"].removeprefix("genres and moods: "): row for row in rows}
        for tower, (store, _) in TOWERS.items():
            test = Catalogue.read(both / "runs" / f"seed{seed}" / store / "catalogue").rows("cold_test")
            ours = of[f"{tower}: firstplay"]
            parts = [of[f"{tower}: firstplay, text of {one}"]["clips"] for one in ("one clip", "several")]
            assert ours["clips"] == sum(parts) == of[f"{tower}: ridge"]["clips"] == of["chance"]["clips"] <= len(test)
            audio, text = (
                np.load(both / "runs" / f"seed{seed}" / f"clip_{tower}_0_features" / f"clip_{name}.npy")[test]
                for name in ("audio", "text")
            )
            heard = np.isfinite(audio[:, 0])
            expected = retrieval(audio[heard], text[heard])
            assert {key: ours[key] for key in expected} == pytest.approx(expected)
            assert ours["seconds"] > 1
    for tower in TOWERS:
        (rows,) = json.loads((both / "zeroshot" / f"results_{tower}.json").read_text())
        found = {row["method"]: row["accuracy"] for row in rows}
        assert 0 < found["chance"] <= found["most frequent label"] < found["linear probe"]
        assert 0 <= found["zero-shot"] <= 1


@pytest.mark.slow
def test_a_second_call_trains_nothing(sounding: Path, both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (both / "runs" / "results.json").read_text()
    clip_moodclips.main(load(ClipMoodclipsConfig, options_of(sounding, both)))
    assert capsys.readouterr().out.count("already finished") == 4
    drop = [[{k: v for k, v in row.items() if k != "seconds"} for row in run] for run in json.loads(before)]
    now = json.loads((both / "runs" / "results.json").read_text())
    assert [[{k: v for k, v in row.items() if k != "seconds"} for row in run] for run in now] == drop
    assert [run[2]["seconds"] for run in now] == [run[2]["seconds"] for run in json.loads(before)]


@pytest.mark.slow
def test_descriptions_side_by_side(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["trainer.epochs=1", "model.field_dim=4", "model.hidden=8", "model.dim=8", "trainer.accelerator=cpu"]
    given = [f"clip={both}/runs", f"out={both}/features.json", "seeds=2", f"i2i={listed(tiny)}"]
    clip_features.main(load(clip_features.FeaturesConfig, given))
    rows = {(row["features"], row["method"]): row for row in json.loads((both / "features.json").read_text())}
    assert set(rows) == {(name, method) for name in clip_features.SETS for method in clip_features.METHODS}
    for (name, method), row in rows.items():
        text = rows["text", method]
        assert 0 <= row["recall@20"] <= 1 and len(row["per_seed"]) == 2
        assert ("recall@20_less" in row) == (name != "text")
        if name != "text":
            assert row["recall@20_less"] == pytest.approx(text["recall@20"] - row["recall@20"])
    assert capsys.readouterr().out.count("| text + CLIP audio, musicnn |") == 3
    for seed in range(2):
        made = read_features(both / "features" / f"seed{seed}" / "features", 120)
        kept = both / "runs" / f"seed{seed}" / "clip_musicnn_0_features"
        np.testing.assert_array_equal(made["audio_musicnn"], np.load(kept / "clip_audio.npy"))
        heard = np.isfinite(made["mel"][:, 0])
        assert heard.sum() == np.isfinite(made["musicnn"][:, 0]).sum() > 90
        assert made["mel"].shape == (120, 5 * 64) and made["musicnn"].shape == (120, 200)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no encoder of transformer, musicnn"):
        clip_features.main(load(clip_features.FeaturesConfig, [f"clip={tmp_path}"]))
    with pytest.raises(UserError, match=r"has no songs\.parquet"):
        clip_moodclips.main(load(ClipMoodclipsConfig, [f"data={tmp_path}"]))
    with pytest.raises(UserError, match="not trained yet"):
        zeroshot.main(load(zeroshot.BenchmarkConfig, [f"data={tmp_path}", f"clip={tmp_path}"]))
