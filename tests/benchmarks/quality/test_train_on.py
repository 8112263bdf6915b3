"""Training on beside training anew, on the tiny dataset: every row is of the last day's new songs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.runs import open_run
from benchmarks.quality import train_on
from configs.errors import UserError
from configs.load import load
from tests.benchmarks.small import I2I, listed

DAYS = ["2026-02-05", "2026-02-08", "2026-02-12", "2026-04-01"]


def options(data: Path, out: Path, days: list[str]) -> train_on.TrainOnConfig:
    given = [f"data={data}", f"out={out}", f"cutoffs={listed(days)}", "seeds=1", "text=[]"]
    settings = listed(["trainer.epochs=1", "trainer.epochs=1 optim.lr=1e-12"])
    return load(train_on.TrainOnConfig, [*given, f"i2i={listed([*I2I, 'trainer.epochs=2'])}", f"settings={settings}"])


def test_rows_of_a_chain_of_days(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "train_on.json"
    train_on.main(options(dataset, out, DAYS))
    found = json.loads(out.read_text())
    assert [one["songs_warm"] for one in found["catalogues"]] == [35, 38, 42]
    rows = {row["method"]: row for row in found["rows"]}
    still, moved = (rows[f"trained on, trainer.epochs=1{more}"] for more in (" optim.lr=1e-12", ""))
    assert list(rows)[:2] == [train_on.EARLIER, train_on.ANEW] and len(rows) == 4
    for key in train_on.FIGURES:
        assert 0 < moved[key] <= 1 and still[key] == pytest.approx(rows[train_on.EARLIER][key], abs=0.02)
    chain = [open_run(tmp_path / "train_on" / day / "runs/0/on_0", "i2i").config["start"] for day in DAYS[1:3]]
    assert chain == [
        str(tmp_path / "train_on" / DAYS[0] / "runs/0/full"),
        str(tmp_path / "train_on" / DAYS[1] / "runs/0/on_0"),
    ]
    said = capsys.readouterr().out
    train_on.main(options(dataset, out, DAYS))
    assert json.loads(out.read_text()) == found, "what is finished is kept, with its seconds"
    assert capsys.readouterr().out.endswith(said[said.index("| encoder") :])


def test_one_day_is_no_increment(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name two days"):
        train_on.main(options(dataset, tmp_path / "o.json", DAYS[:2]))
