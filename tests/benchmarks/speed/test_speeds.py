"""Reports that the benchmarks of `make bench` write, and their table (prepare's: test_prepare_scale; the service's:
test_serve_load)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.speed import audience_scale, boundary_scale, index_scale, speeds, train_overhead
from configs.errors import UserError
from configs.load import load
from retrieval.boundary import margins
from tests.benchmarks.small import MODEL, listed

BOUNDARY = "users=3000 new=40 dim=16 budget=10 peer=15"
COMMANDS: dict[str, tuple[Any, type, str]] = {
    "audience_scale": (
        audience_scale, audience_scale.ScaleConfig, "users=600 plays=9000 songs=300 new=20 peer=5 reached=[0.5]",
    ),
    "boundary_scale": (boundary_scale, boundary_scale.BoundaryScaleConfig, BOUNDARY),
    "index_scale": (
        index_scale, index_scale.IndexScaleConfig, "sizes=[900,3000] dim=16 queries=50 repeats=2 index=IVF,Flat",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(catalogue_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reports")
    for name, (module, schema, options) in COMMANDS.items():
        module.main(load(schema, [*options.split(), f"out={out}/{name}.json"]))
    small = ["rounds=1", "steps=2", f"i2i={listed([*MODEL, 'bcl_batch_size=32'])}", f"boundary={listed(MODEL)}"]
    given = [f"data={catalogue_folder}", *small, f"out={out}/train_overhead.json"]
    train_overhead.main(load(train_overhead.OverheadConfig, given))
    return out


@pytest.fixture
def report(folder: Path, request: pytest.FixtureRequest) -> Any:
    return json.loads((folder / f"{request.param}.json").read_text())


@pytest.mark.parametrize("report", ["audience_scale"], indirect=True)
def test_audiences(report: Any) -> None:
    (size,) = report["sizes"]
    assert size["same_audiences"] and size["entries"] <= 9000 and report["cpus"] > 0
    assert size["plain_over_ours"] > 0 and size["polars_over_ours"] > 0
    assert set(size["reached"]) == {"1", "20"} and size["same_under_conditions"] == {
        "i2i2u": True, "taste": True, "cat": True
    }  # fmt: skip
    assert all(set(took) == {"1.0", "0.5"} for modes in size["reached"].values() for took in modes.values())


@pytest.mark.parametrize("report", ["boundary_scale"], indirect=True)
def test_boundaries(report: Any) -> None:
    shares, ratios = report["share_of_exact_list"], report["plain_over_ours"]
    assert shares["Flat"] == 1 and 0.5 < shares["IVF,Flat"] <= 1 and min(ratios.values()) > 0
    open_to = margins(*boundary_scale.towers(load(boundary_scale.BoundaryScaleConfig, BOUNDARY.split()))) > 0
    assert 0.02 < open_to.mean() < 0.1
    assert set(report["over_the_product"]) == set(report["seconds"]) - {"product"} and report["options"]["turns"] == 3
    assert report["users_with_a_song"] == pytest.approx(open_to.any(axis=0).mean(), rel=1e-3)


@pytest.mark.parametrize("report", ["index_scale"], indirect=True)
def test_indexes(report: Any) -> None:
    assert [(row["songs"], row["kind"]) for row in report["sizes"]] == [(900, "IVF60,Flat"), (3000, "IVF110,Flat")]
    for row in report["sizes"]:
        assert row["effort"] >= 1 and row["reason"] == "as asked for"
        assert all(0.7 < row[f"recall@10{after}"] <= 1 for after in ("", " after replacing", " after removing"))
        assert min(row["queries_per_second"], row["faiss_queries_per_second"], row["ours_over_faiss"]) > 0
    vectors = index_scale.song_like(260, 12, seed=3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("report", ["train_overhead"], indirect=True)
def test_trainings(report: Any) -> None:
    for task in ("i2i", "boundary"):
        assert report[task]["ours_over_bare"] > 0.05 and 0 < report[task]["share_of_waiting_for_data"] < 1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("audience_scale", "users=0"),
        ("boundary_scale", "users=0"),
        ("index_scale", "sizes=[]"),
        ("index_scale", "sizes=[0]"),
        ("index_scale", "queries=0"),
    ],
)
def test_what_cannot_be_measured(name: str, wrong: str) -> None:
    module, schema, _ = COMMANDS[name]
    with pytest.raises(UserError, match="must be at least 1"):
        module.main(load(schema, [wrong]))


def test_every_report_has_its_rows(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speeds.main(str(folder))
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert set(speeds.READERS) == {*COMMANDS, "train_overhead", "prepare_scale", "serve_load"}
    assert len(rows) == 4 + 2 + 2 + 2 and all(row.count("|") == head.count("|") == 5 for row in rows)
    size = json.loads((folder / "index_scale.json").read_text())["sizes"][1]
    assert f"{size['queries_per_second']:,.0f} a second" in rows[7] and f"| {size['ours_over_faiss']:.2f} |" in rows[7]
    with pytest.raises(UserError, match=r"holds no report: sh bench\.sh small\|full writes them"):
        speeds.main(str(tmp_path))
