"""The tables of README.md, docs/data.md and docs/results/ equal what the measurements in docs/results/data/ give."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.tables import BLOCK, ROOT, filled, main, pages
from configs.errors import UserError

DATA = ROOT / "docs" / "results" / "data"


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.name)
def test_the_committed_tables_are_those_of_the_measurements(page: Path) -> None:
    text = page.read_text("utf-8")
    assert filled(text, DATA) == text, "python -m benchmarks.tables rewrites them"
    assert text.count("<!-- table:") == text.count("<!-- /table -->") == len(BLOCK.findall(text))


def test_every_measurement_is_shown_and_names_no_machine() -> None:
    shown = {file for page in pages(ROOT) for _, file, *_ in BLOCK.findall(page.read_text("utf-8"))}
    assert shown == {file.name for file in DATA.iterdir()}
    for file in DATA.iterdir():
        assert not re.search(r'"(/|~|[A-Z]:\\)', file.read_text("utf-8")), f"{file.name} holds a path"


def test_a_changed_measurement_rewrites_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "docs" / "results")
    for page in ("README.md", "docs/data.md"):
        shutil.copy(ROOT / page, tmp_path / page)
    file = tmp_path / "docs" / "results" / "data" / "demo_metrics.json"
    metrics = json.loads(file.read_text("utf-8"))
    metrics["audience"][0]["target_users_found@10"] = 77777
    file.write_text(json.dumps(metrics))
    main(tmp_path)
    assert "| 77777 |" in (tmp_path / "docs" / "results" / "demo.md").read_text("utf-8")
    assert capsys.readouterr().out == "docs/results/demo.md: rewritten\n"
    main(tmp_path)
    assert capsys.readouterr().out == "", "nothing left to do"


def test_differences_may_be_to_another_method() -> None:
    block = "<!-- table: item_cold_lfm2k_one_seed.json buckets text+audio{} -->\n<!-- /table -->"
    plain, turned = (filled(block.format(one), DATA) for one in ("", " against CB2CF"))
    assert "rare songs, less than firstplay |" in plain and "rare songs, less than CB2CF |" in turned
    assert re.search(r"\| CB2CF \|.* \| -0.005 \|", plain) and re.search(r"\| firstplay \|.* \| \+0.005 \|", turned)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("absent.json methods", "has no absent.json"),
        ("demo_metrics.json nothing", "no such table"),
        ("demo_metrics.json comparison text", "no such table"),
        ("demo_metrics.json examples encoder AUC", "no such table"),
        ("item_cold_lfm2k_one_seed.json buckets audio", "no such table"),
        ("item_cold_lfm2k_one_seed.json methods", "no such table"),
        ("item_cold_lfm2k_one_seed.json buckets text+audio against nobody", "choose from"),
    ],
)
def test_a_block_without_a_table_is_refused(named: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        filled(f"<!-- table: {named} -->\n<!-- /table -->", DATA)
