"""The table of `make bench`, from reports that the benchmarks themselves write (prepare's: test_prepare_scale; the
service's: test_serve_load)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import audience_scale, boundary_scale, index_scale, speeds, train_overhead
from configs.errors import UserError
from configs.load import load

SMALL = "batch_size=64,fields.block=4,model.field_dim=8,model.hidden=16,model.dim=8"
REPORTS = {
    "audience_scale": (audience_scale, audience_scale.ScaleConfig, "users=600 plays=9000 songs=300 new=20 peer=5"),
    "boundary_scale": (boundary_scale, boundary_scale.BoundaryScaleConfig, "users=600 new=20 dim=8 peer=5"),
    "index_scale": (index_scale, index_scale.IndexScaleConfig, "sizes=[500,900] dim=16 queries=20 repeats=1"),
    "train_overhead": (
        train_overhead,
        train_overhead.OverheadConfig,
        f"rounds=1 steps=2 i2i=[{SMALL},bcl_batch_size=32,objective.negatives=32] boundary=[{SMALL}]",
    ),
}


def test_every_report_has_its_rows(catalogue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = {"train_overhead": f" data={catalogue_folder}"}
    for name, (module, schema, options) in REPORTS.items():
        given = f"{options}{where.get(name, '')} out={tmp_path}/{name}.json"
        module.main(load(schema, given.split()))  # type: ignore[attr-defined]
    capsys.readouterr()
    speeds.main(str(tmp_path))
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert set(speeds.READERS) == {*REPORTS, "prepare_scale", "serve_load"} and len(rows) == 4 + 2 + 2 + 2
    assert all(row.count("|") == head.count("|") == 5 for row in rows)
    report = json.loads((tmp_path / "index_scale.json").read_text())
    assert f"{report['sizes'][1]['queries_per_second']:,.0f} a second" in rows[7]
    (audience,) = json.loads((tmp_path / "audience_scale.json").read_text())["sizes"]
    assert audience["same_audiences"] and f"| {audience['polars_over_ours']:.2f} |" in rows[1]
    assert f"| {report['sizes'][1]['ours_over_faiss']:.2f} |" in rows[7] and "among 900, Flat" in rows[7]
    (tmp_path / "index_scale.json").unlink()
    speeds.main(str(tmp_path))
    assert len(capsys.readouterr().out.strip().splitlines()) == 2 + 8


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no report: sh bench\.sh small\|full writes them"):
        speeds.main(str(tmp_path))
