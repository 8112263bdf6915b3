"""serve_conditions: ratios to all users, the conditions, and what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from benchmarks.speed import serve_conditions
from benchmarks.speed.serve_beside import Turn
from benchmarks.speed.serve_conditions import ALL, ANEW, ServeConditionsConfig, conditions_of, summed
from configs.errors import UserError
from configs.load import load
from data.conditions import condition


def test_ratios_are_of_the_same_round() -> None:
    times = [(10, 5), (20, 12), (30, 30)]
    turns = [{ALL: Turn(every, every, [b"200 a"]), "10%": Turn(some, 2 * some, [b"500 b"])} for every, some in times]
    found = summed("a kind", turns)["conditions"]["10%"]
    assert (found["ms"], found["over_all"], found["by_clock"], found["errors"]) == (12, 0.6, 1.2, 3)


def test_conditions_leave_the_shares_that_they_say() -> None:
    users = [f'u"{number:03}' for number in range(200)]
    table, kinds = pl.DataFrame({"user_id": users}), {"user_id": "text"}
    found = conditions_of(users, [0.5, 0.1, 0.01])
    assert list(found) == [ALL, "50%", "10%", "1%", f"1%, {ANEW}"] and found[ALL](0, 3) == [None]
    for name, left in (("50%", 100), ("10%", 20), ("1%", 2), (f"1%, {ANEW}", 2)):
        texts = found[name](1, 3)
        for text in texts:
            assert text and table.select(condition(text, kinds).rows).to_series().sum() == left
        assert len({*texts, *found[name](2, 3)}) == (6 if name.endswith(ANEW) else 1)


def test_every_kind_is_asked_under_every_condition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["users=300", "songs=400", "new=30", "plays=4000", "requests=10", "rounds=1"]
    kinds = "kinds=['song by words and features, i2i2u','audience, taste']"
    work, out = tmp_path / "work", tmp_path / "conditions.json"
    serve_conditions.main(load(ServeConditionsConfig, [*sizes, kinds, f"work={work}", f"out={out}"]))
    rows = json.loads(out.read_text())["rows"]
    assert [one["kind"] for one in rows] == ["song by words and features, i2i2u", "audience, taste"]
    assert all(len(one["conditions"]) == 5 for one in rows) and not work.exists()
    assert not sum(one["errors"] for row in rows for one in row["conditions"].values())
    assert "| audience, taste |" in capsys.readouterr().out
    with pytest.raises(UserError, match="shares between 0 and 1"):
        serve_conditions.main(load(ServeConditionsConfig, [*sizes, "shares=[0.5,1]"]))
