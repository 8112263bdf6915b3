"""`--help`, wrong options and missing input are answered before any large library is imported (no timing here)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks.speed.startup import COMMANDS, questions

ROOT = Path(__file__).parents[1]
LARGE = ("torch", "lightning", "wandb", "polars", "faiss", "transformers", "numpy")
RUN = """
import runpy, sys
name, *sys.argv[1:] = sys.argv[1:]
if name == "-m":
    name = sys.argv.pop(1)
sys.argv[0], sys.path[0], code = name, ".", 0
try:
    runpy.run_path(name, run_name="__main__") if name.endswith(".py") else runpy.run_module(name, run_name="__main__")
except SystemExit as ended:
    code = ended.code
print("imported", code or 0, *sorted({module.split(".")[0] for module in sys.modules}))
"""


@pytest.mark.parametrize(("line", "argv"), questions(), ids=[line for line, _ in questions()])
def test_commands_answer_before_anything_large_is_imported(line: str, argv: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, *argv], cwd=ROOT, capture_output=True, text=True)
    said, last = done.stdout.strip().splitlines()[:-1], done.stdout.strip().splitlines()[-1].split()
    assert last[0] == "imported", done.stderr
    if line.endswith("--help"):
        assert last[1] == "0" and any("options (key=value" in one for one in said)
    else:
        assert last[1] == "2" and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert ("nosuch" if line.endswith("nosuch=1") else "nowhere") in done.stderr
    assert not set(LARGE) & set(last)
    assert not (ROOT / "never").exists()


def test_every_command_is_asked() -> None:
    commands = {f"-m pipeline.{path.stem}" for path in (ROOT / "pipeline").glob("*.py") if path.stem != "__init__"}
    assert commands < set(COMMANDS)


def test_prepare_reads_tables_without_torch(tmp_path: Path) -> None:
    songs = [f"s{n}" for n in range(20)]
    pl.DataFrame({"song_id": songs, "genres": [["rock"]] * 20}).write_parquet(tmp_path / "songs.parquet")
    plays = [(f"u{user}", song) for user in range(40) for n, song in enumerate(songs) if (user + n) % 4]
    pl.DataFrame(plays, ["user_id", "song_id"], orient="row").write_parquet(tmp_path / "plays.parquet")
    argv = ["-m", "pipeline.prepare", f"source={tmp_path}", f"out={tmp_path / 'catalogue'}", "split.by=random"]
    done = subprocess.run([sys.executable, "-c", RUN, *argv], cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1].split()
    assert last[:2] == ["imported", "0"], done.stderr
    assert "polars" in last and not {"torch", "transformers", "lightning"} & set(last)  # half a gigabyte
