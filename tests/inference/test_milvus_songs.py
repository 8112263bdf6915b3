"""An index folder whose songs are in Milvus: the same lists as with FAISS, built, updated, killed, and on a server.

A milvus-lite folder elsewhere stands for a server where none is installed: the same client, and the same calls.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from data.catalogue import Catalogue
from data.conditions import days_as_text
from inference.song_index import open_index, restricted
from retrieval.milvus import Connection, MilvusError
from tests.commands import run as command
from tests.milvus_server import ON_BOTH

pytest.importorskip("milvus_lite")
ROOT = Path(__file__).parents[2]


def make(run: Path, out: Path, *options: str) -> dict[str, Any]:
    command("index", f"run={run}", f"out={out}", "engine=milvus", *options)
    return json.loads((out / "manifest.json").read_text("utf-8"))


def lists(folder: Path, catalogue: Catalogue | None = None, where: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ten similar songs of every song, in scores and numbers."""
    index = open_index(folder, catalogue)
    index = restricted(index, Catalogue.read(index.manifest["data"]).songs, where)
    return index.similar(np.asarray(index.vectors), 10)


def same(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("at_milvus", ["inside", "lite", "server"], indirect=True)
@pytest.mark.parametrize("kind", ["Flat", "HNSW32"])
def test_the_lists_are_those_of_faiss(kind: str, at_milvus: list[str], i2i_run: Path, tmp_path: Path) -> None:
    manifest = make(i2i_run, tmp_path / "milvus", f"index={kind}", *at_milvus)
    command("index", f"run={i2i_run}", f"out={tmp_path / 'faiss'}", "index=Flat")
    assert manifest["index"] == kind and manifest["recall"] == 1 and manifest["version"] == 1
    assert not (tmp_path / "milvus" / "index.faiss").exists()
    same(lists(tmp_path / "milvus"), lists(tmp_path / "faiss"))


@ON_BOTH
def test_filters_are_those_of_faiss_and_of_the_table(milvus: str, i2i_run: Path, tmp_path: Path) -> None:
    make(i2i_run, tmp_path / "milvus", f"uri={milvus}")
    command("index", f"run={i2i_run}", f"out={tmp_path / 'faiss'}")
    songs = Catalogue.read(open_index(tmp_path / "faiss").manifest["data"]).songs
    rock = pl.col("genres").list.contains("genre1")
    middle = songs["released_at"].dt.date().sort()[len(songs) // 3]
    for where, rows in {
        'language == "zh"': pl.col("language") == "zh",
        'not (language == "zh" or "genre1" in genres)': (pl.col("language") != "zh") & ~rock,
        f'"genre1" in genres and song_id != "{songs["song_id"][3]}"': rock & (pl.col("song_id") != songs["song_id"][3]),
        "language is not null": pl.col("language").is_not_null(),
        f'released_at < "{middle}"': pl.col("released_at").dt.date() < middle,
    }.items():
        found, expected = (lists(tmp_path / name, where=where) for name in ("milvus", "faiss"))
        same(found, expected)
        allowed = songs.with_row_index().filter(rows, split="warm")["index"].to_numpy()
        assert set(found[1].ravel().tolist()) - {-1} <= set(allowed.tolist())
        assert (np.sum(found[1] >= 0, axis=1) == min(10, len(allowed))).all()
    for name in ("milvus", "faiss"):
        with pytest.raises(UserError, match="where=language == 'fr': no known song is so"):
            lists(tmp_path / name, where="language == 'fr'")
        with pytest.raises(UserError, match=r"tempo is not a column; columns: song_id \(text\)"):
            lists(tmp_path / name, where="tempo > 1")


@pytest.mark.parametrize("at_milvus", ["inside", "lite", "server"], indirect=True)
def test_an_update_is_the_index_that_would_be_built_anew(
    at_milvus: list[str],
    i2i_run: Path,
    later: Path,
    tmp_path: Path,
) -> None:
    out, elsewhere = tmp_path / "index", bool(at_milvus)
    made = make(i2i_run, out, *at_milvus)
    opened = open_index(out)
    before = opened.similar(np.asarray(opened.vectors[:4]), 6)
    manifest = make(i2i_run, out, f"data={later}", "update=true", *at_milvus)
    assert (manifest["added"], manifest["replaced"], manifest["removed"], manifest["version"]) == (3, 1, 2, 2)
    assert (manifest["collection"] == made["collection"]) and (manifest["uri"] == made["uri"]) == elsewhere
    make(i2i_run, tmp_path / "anew", f"data={later}")
    catalogue = Catalogue.read(later)
    same(lists(out, catalogue), lists(tmp_path / "anew", catalogue))
    again = opened.similar(np.asarray(opened.vectors[:4]), 6)[1]  # whoever had it open
    if elsewhere:
        assert (again < len(opened.vectors)).all(), "what is new to the collection is no song of theirs"
    else:
        np.testing.assert_array_equal(again, before[1])
    assert make(i2i_run, out, f"data={later}", "update=true", *at_milvus)["replaced"] == 0


def test_what_is_said_of_a_song_is_updated_too(i2i_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    data = shutil.copytree(make(i2i_run, out)["data"], tmp_path / "data")
    songs = pl.read_parquet(data / "songs.parquet")
    warm = songs.filter(pl.col("split") == "warm")["song_id"][0]
    language = pl.when(pl.col("song_id") == warm).then(pl.lit("xx")).otherwise("language")
    songs.with_columns(language.alias("language")).write_parquet(data / "songs.parquet")
    manifest = make(i2i_run, out, f"data={data}", "update=true")
    assert (manifest["added"], manifest["replaced"], manifest["removed"]) == (0, 1, 0)
    numbers = lists(out, where='language == "xx"')[1]
    assert set(numbers.ravel().tolist()) == {songs["song_id"].to_list().index(warm), -1}
    there = pl.read_parquet(out / "songs.parquet")
    days_as_text(there).write_parquet(out / "songs.parquet")  # as earlier versions wrote days
    assert there.schema["released_at"] == pl.Date
    assert make(i2i_run, out, f"data={data}", "update=true")["replaced"] == 0
    songs.with_columns(region=pl.lit("eu")).write_parquet(data / "songs.parquet")
    with pytest.raises(UserError, match="has other columns of songs than the catalogue now: build it anew"):
        make(i2i_run, out, f"data={data}", "update=true")


def test_builds_on_a_server_get_names_of_their_own(
    milvus: str, i2i_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    names = [make(i2i_run, out, f"uri={milvus}", "collection=known")["collection"] for _ in range(3)]
    encoder = json.loads((out / "manifest.json").read_text("utf-8"))["encoder"]
    assert names == [f"known_{encoder}_{number}" for number in (1, 2, 3)]
    monkeypatch.chdir(tmp_path)
    near = milvus.removeprefix(f"{tmp_path}/")  # by a path from here
    assert make(i2i_run, out, f"uri={near}", "collection=known", "update=true")["replaced"] == 0
    there = Connection.to(milvus)
    assert there.client.describe_collection("known")["collection_name"] == names[-1]
    assert sorted(there.client.list_collections()) == names[1:], "the last one stays for those who have it open"


def test_updates_that_cannot_be_are_told(
    i2i_run: Path,
    train_i2i: Callable[..., Path],
    later: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "index"
    make(i2i_run, out)
    state = (out / "manifest.json").read_bytes()
    other = train_i2i(tmp_path / "other", "seed=7", "trainer.epochs=1")
    with pytest.raises(UserError, match="holds the vectors of another encoder"):
        make(other, out, "update=true")
    with pytest.raises(UserError, match=r"is of engine=milvus: say so, or build it anew"):
        command("index", f"run={i2i_run}", f"out={out}", "update=true")
    with pytest.raises(UserError, match=r"is of engine=milvus: say so, or build it anew"):
        make(i2i_run, out, "update=true", f"uri={tmp_path / 'server.db'}")
    with pytest.raises(UserError, match="index 'IVF4,PQ8': in Milvus say Flat"):
        make(i2i_run, tmp_path / "new", "index=IVF4,PQ8")
    with pytest.raises(UserError, match="give the password"):
        make(i2i_run, out, "uri=http://me:secret@there")
    with pytest.raises(UserError, match="is an option of engine=milvus"):
        command("index", f"run={i2i_run}", f"out={out}", "uri=http://there")
    with pytest.raises(MilvusError, match="Fail connecting"):
        make(i2i_run, tmp_path / "new", "uri=http://127.0.0.1:9")
    assert (out / "manifest.json").read_bytes() == state and not (tmp_path / "new").exists()
    shutil.rmtree(out / json.loads(state)["uri"])
    with pytest.raises(MilvusError, match="Milvus at"):
        open_index(out)


KILLED = """
import os, runpy, signal, sys
import pymilvus
import retrieval.milvus as module

module.SENT = 20
upsert, left = pymilvus.MilvusClient.upsert, [int(sys.argv.pop(1))]

def killed(*of, **more):
    upsert(*of, **more)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

pymilvus.MilvusClient.upsert = killed
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


def kill(sent: int, module: str, *given: str) -> None:
    """Run a command that is killed when it has sent so many parts of 20 vectors to Milvus."""
    gc.collect()  # frames of errors that pymilvus caught hold the connection of this process
    argv = [sys.executable, "-c", KILLED, str(sent), module, *given]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_and_run_again(at_milvus: list[str], i2i_run: Path, later: Path, tmp_path: Path) -> None:
    """While it is built and while it is updated; inside a folder what was whole stays as it was."""
    out = tmp_path / "index"
    options = ["engine=milvus", *at_milvus]
    built, updated = (
        [f"run={i2i_run}", f"out={out}", *options, *more] for more in ([], [f"data={later}", "update=true"])
    )

    kill(2, "pipeline.index", *built)  # of three parts
    assert not out.exists()
    command("index", *built)
    expected = lists(out)
    kill(1, "pipeline.index", *updated)  # before anything is removed
    if not at_milvus:
        same(lists(out), expected)
    command("index", *updated)
    make(i2i_run, tmp_path / "anew", f"data={later}")
    catalogue = Catalogue.read(later)
    same(lists(out, catalogue), lists(tmp_path / "anew", catalogue))
    assert open_index(out, catalogue).index.ntotal == 49


def test_another_program_starts_while_a_milvus_is_open(tmp_path: Path) -> None:
    """By a fork with a function before exec, as Spark starts Java: gRPC has no part in it, else it ends some."""
    code = """
import subprocess
import sys
from pathlib import Path
from inference.milvus_folders import connected
connection = connected("a.db", Path(sys.argv[1]))
for _ in range(20):
    subprocess.run(["true"], preexec_fn=lambda: None, check=True)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=environment)
    assert done.returncode == 0 and "fork" not in done.stderr, done.stderr
