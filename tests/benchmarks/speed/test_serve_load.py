"""serve_load: the generated folder is one that the service serves, and what the command writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.speed import serve_load, speeds
from benchmarks.speed.serve_load import ServeLoadConfig, summary
from benchmarks.speed.serve_requests import BY_TEXT, KINDS, RANKED, Material
from benchmarks.speed.serve_world import OPEN, write_world
from configs.errors import UserError
from configs.load import load
from retrieval.boundary import margins
from serving import answers
from serving.model import Model
from serving.state import State


def test_a_generated_service_folder(tmp_path: Path) -> None:
    write_world(tmp_path / "service", users=300, songs=500, new=200, plays=6000, seed=0, dim=64)
    state = State(Model(tmp_path / "service"))
    model = state.model
    assert model.index.vectors.shape == (700, 64)
    assert (model.n_users, model.n_songs, len(model.new)) == (300, 700, 200) and model.listening_US.nnz > 3000
    about = [model.about(int(song)) for song in model.new]
    vectors, items = model.encoder.vectors({name: model.dense[name][model.new] for name in model.dense}, about)
    np.testing.assert_allclose(vectors, model.index.vectors[model.new], atol=1e-4)
    np.testing.assert_allclose(items, model.item_SD[model.new], atol=1e-4)
    assert (margins(items, model.user_UD, model.boundary_U) > 0).mean() == pytest.approx(OPEN, abs=0.005)
    near = [answers.similar_songs(state, int(song), 10)[0] for song in model.new]
    same = [model.songs["genres"][int(song)][0] == model.songs["genres"][int(one)][0]
            for song, found in zip(model.new, near, strict=True) for one in found]  # fmt: skip
    assert np.mean(same) > 0.3, "genres stay apart: by chance one in fifty"
    assert "rank" in model.modes and Material(tmp_path / "service", 0).kinds == list(KINDS)
    for mode in model.modes:
        assert len(answers.audience(state, int(model.new[0]), mode, 20, False, -100.0).users_B) == 20


def test_a_folder_is_asked_for_what_it_has(tmp_path: Path) -> None:
    write_world(tmp_path / "service", users=30, songs=50, new=20, plays=300, seed=0)
    manifest = json.loads((tmp_path / "service" / "manifest.json").read_text())
    (tmp_path / "service" / "manifest.json").write_text(json.dumps(manifest | {"ranker": None}))
    kinds = Material(tmp_path / "service", 0).kinds
    assert RANKED == "audience, rank" and [*kinds, RANKED] == list(KINDS)
    shutil.rmtree(tmp_path / "service" / "words")
    assert Material(tmp_path / "service", 0).kinds == [kind for kind in kinds if kind != BY_TEXT]


def test_rows_for_users_who_come_are_nobodys(tmp_path: Path) -> None:
    write_world(tmp_path / "service", users=30, songs=50, new=20, plays=300, seed=0)
    users = pl.read_parquet(table := tmp_path / "service" / "catalogue" / "users.parquet")
    pl.concat([users, users.clear(9)]).write_parquet(table)
    assert Material(tmp_path / "service", 0).users.to_list() == users["user_id"].to_list()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["users=300", "songs=400", "new=30", "plays=4000", "clients=[2]", "seconds=0.15", "past=100", "soak=1"]
    work, out = tmp_path / "work", tmp_path / "serve_load.json"
    serve_load.main(load(ServeLoadConfig, [*sizes, f"work={work}", f"out={out}"]))
    report = json.loads(out.read_text())
    assert [one["kind"] for one in report["phases"]] == list(KINDS) and not work.exists()
    assert all(one[side]["answered"] > 0 for one in report["phases"] for side in ("service", "in_process"))
    assert not any(one[side]["refused"] for one in report["phases"] for side in ("service", "in_process"))
    assert report["restart"]["accepted_songs"] == report["accepted_songs"] > 0 < report["start_seconds"]
    assert report["past"]["refused"].keys() == {"429"}, "nothing worse"
    assert min(report["memory"]["own_mb"]) > 100 and report["memory"]["songs"][0] == 0
    assert report["memory"]["songs"] == sorted(report["memory"]["songs"])
    printed = capsys.readouterr().out
    assert f"| {KINDS[0]} | 2 |" in printed
    speeds.main(str(tmp_path))
    assert capsys.readouterr().out.count(", 2 clients | ") == len(KINDS)
    assert "| audience, rank | 2 |" in printed and "| audience, union | 2 |" in printed
    with pytest.raises(UserError, match="must be above 0"):
        serve_load.main(load(ServeLoadConfig, ["clients=[0]"]))


def test_percentiles() -> None:
    seen = [(201, number / 1000) for number in range(1, 101)] + [(429, 9.0), (0, 9.0), (429, 9.0)]
    found = summary(seen, 4.0)
    assert (found["answered"], found["per_second"], found["refused"]) == (100, 25.0, {"429": 2, "0": 1})
    assert [found[f"p{part}_ms"] for part in (50, 95, 99)] == pytest.approx([50.5, 95.05, 99.01])
