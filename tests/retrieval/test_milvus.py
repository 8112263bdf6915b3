"""Search in Milvus (milvus-lite, and a server) against brute force, and what goes wrong in one line."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.audience import Excluded
from retrieval.boundary import above, users_above
from retrieval.index import Only, add, exact_neighbours, remove, search, tune
from retrieval.milvus import Connection, MilvusError, MilvusIndex, next_version, publish
from tests.milvus_server import ON_BOTH
from tests.retrieval.test_index import brute, vectors

pytest.importorskip("milvus_lite")


@pytest.fixture
def connection(milvus: str) -> Iterator[Connection]:
    there = Connection.to(milvus)
    yield there
    there.close()


def made(connection: Connection, items: np.ndarray, kind: str = "Flat", **fields: Any) -> MilvusIndex:
    return MilvusIndex.made(connection, "some", kind, items, np.arange(len(items)), **fields)


@pytest.mark.parametrize("asked", [0, 20])
@pytest.mark.parametrize("given", [np.asfortranarray, np.float64])
def test_flat_is_exact(asked: int, given: Any, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in parts, and where scores are below zero."""
    monkeypatch.setattr("retrieval.milvus.SENT", 70)
    monkeypatch.setattr("retrieval.milvus.RESULTS", 2000)
    items, queries = vectors(300), vectors(asked, seed=1)
    scores, positions = search(made(connection, given(items)), given(queries), 300)
    expected_scores, expected = brute(items, queries, 300)
    assert (positions == expected).all()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
    assert positions.dtype == np.int64 and scores.dtype == np.float32


@pytest.mark.parametrize("kind", ["Flat", "IVF2,Flat", "HNSW32"])
def test_fewer_items_than_k(kind: str, connection: Connection) -> None:
    scores, positions = search(made(connection, vectors(5), kind), vectors(3, seed=1), 9)
    assert (positions[:, 5:] == -1).all() and np.isneginf(scores[:, 5:]).all()
    assert all(sorted(row) == [0, 1, 2, 3, 4] for row in positions[:, :5].tolist())


@pytest.mark.parametrize(
    ("kind", "told"), [("IVF40,Flat", {"nlist": 40}), ("IVF40,SQ8", {"nlist": 40}), ("HNSW24", {"M": 24})]
)
def test_approximate_kinds_are_built_as_said_and_tuned(kind: str, told: dict[str, int], connection: Connection) -> None:
    items, queries = vectors(2000), vectors(60, seed=1)
    index = made(connection, items, kind)
    built = connection.client.describe_index(index.name, "vector")["params"]
    assert told.items() <= built.items()
    exact = exact_neighbours(queries, items, 10)
    effort, recall = tune(index, kind, queries, exact, 0.9)
    assert recall >= 0.9 and index.effort == effort < 2000
    if "IVF" in kind:
        index.effort = 1
        assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, search(index, queries, 10)[1], strict=True)]) < 0.9


@ON_BOTH
def test_vectors_come_are_replaced_and_go(connection: Connection) -> None:
    items = vectors(200)
    index = made(connection, items)
    more = vectors(40, seed=2)
    numbers = np.r_[np.arange(20), 500 + np.arange(20)]
    add(index, more, numbers)
    remove(index, np.array([30, 31, 510, 999]))
    every = dict(enumerate(items)) | dict(zip(numbers.tolist(), more, strict=True))
    for gone in (30, 31, 510):
        del every[gone]
    names, rows = np.array(list(every)), np.array(list(every.values()))
    scores, found = search(index, vectors(10, seed=3), 30)
    expected_scores, expected = brute(rows, vectors(10, seed=3), 30)
    assert index.ntotal == len(rows) == 217
    np.testing.assert_array_equal(found, names[expected])
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
    index.remove_from(500)
    assert index.ntotal == 198 and search(index, rows[:1], 300)[1].max() < 500
    with pytest.raises(ValueError, match="1 vectors have NaN"):
        add(index, np.full((1, 16), np.nan), np.array([1]))


@pytest.mark.parametrize("kind", ["Flat", "IVF20,Flat", "HNSW16"])
def test_some_vectors_alone(kind: str, connection: Connection) -> None:
    """As many as are asked for, though an approximate index has to look farther for them."""
    items, queries = vectors(600), vectors(15, seed=1)
    about = [{"language": ["zh", "en", ""][at % 3], "year": at} for at in range(600)]
    index = made(
        connection, items, kind, columns={"language": "text", "year": "integer"}, values=lambda rows: about[rows]
    )
    index.effort = 1
    only = Only(np.arange(0, 300, 3), '(language == "zh" and year < 300)')
    scores, found = search(index, queries, 120, only)
    assert (found[:, :100] >= 0).all() and (found[:, 100:] == -1).all() and np.isneginf(scores[:, 100:]).all()
    assert (np.sort(found[:, :100]) == only.numbers).all()
    if kind == "Flat":
        np.testing.assert_array_equal(found[:, :100], only.numbers[brute(items[only.numbers], queries, 100)[1]])


def test_users_margins_are_found_as_elsewhere(connection: Connection) -> None:
    """[u, −⟨u, b⟩] beside [i, 1]: the same class serves users, pairs left out too."""
    rng = np.random.default_rng(0)
    users, items, boundary = vectors(300), vectors(12, seed=1), rng.standard_normal(300).astype(np.float32)
    excluded = Excluded(song=np.array([0, 0, 3]), user=np.array([1, 2, 3]))
    expected = users_above(items, users, boundary, 20, 0.1, excluded)
    index = made(connection, np.c_[users, -boundary])
    found = above(index, np.c_[items, np.ones(12)], 20, 0.1, (excluded.song, excluded.user))
    np.testing.assert_array_equal(found.users_CB, expected.users_CB)
    np.testing.assert_allclose(found.scores_CB, expected.scores_CB, rtol=1e-4, atol=1e-5)


def test_versions_an_alias_and_what_is_dropped(connection: Connection) -> None:
    client, dim = connection.client, {"dimension": 4}
    for name in ("songs_other", "songs2_ab_7"):
        client.create_collection(name, **dim)
    for number in range(1, 5):
        assert next_version(connection, "songs") == number
        client.create_collection(f"songs_ab_{number}", **dim)
        if number != 3:  # this build was killed
            publish(connection, "songs", f"songs_ab_{number}", ["songs_ab_1"])
            assert client.describe_collection("songs")["collection_name"] == f"songs_ab_{number}"
    left = {name for name in client.list_collections() if name.startswith("songs")}
    assert left == {"songs_ab_1", "songs_ab_2", "songs_ab_4", "songs_other", "songs2_ab_7"}


def test_what_goes_wrong_is_one_line(connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MilvusError, match=rf"Milvus at {re.escape(connection.uri)}: .*nothing"):
        MilvusIndex(connection, "nothing", "Flat")
    with pytest.raises(ValueError, match=r"index 'IVF4,PQ8': in Milvus say Flat, IVF,Flat"):
        made(connection, vectors(3), "IVF4,PQ8")
    with pytest.raises(ValueError, match=r"at most 16,384 results, 20,000"):
        made(connection, vectors(3)).search(vectors(1), 20_000)
    with pytest.raises(MilvusError, match=r"Milvus at http://127\.0\.0\.1:9: Fail connecting"):
        Connection("http://127.0.0.1:9")
    with pytest.raises(MilvusError, match=r"Milvus at somewhere: .*illegal"):
        Connection("somewhere")
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MilvusError, match=r"Milvus needs pymilvus: pip install"):
        Connection(str(tmp_path / "b.db"))


def test_one_process_has_a_folder(tmp_path: Path) -> None:
    there, own = Connection(str(tmp_path / "a.db")), str(tmp_path / "own.db")
    other = f"""
from retrieval.milvus import Connection, MilvusIndex
for uri in ({there.uri!r}, {own!r}):
    try:
        MilvusIndex(Connection(uri), "nothing", "Flat")
    except OSError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    locked, missing = done.stdout.splitlines()
    assert "another process has it open" in locked and "nothing" in missing
    assert not done.stderr, "no trace beside it"


def test_a_connection_is_shared_and_ends_with_its_last_user(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")

    def use() -> tuple[bool, int]:
        one, other = made(Connection.to(path), vectors(9)), Connection.to(path)
        shared = one.connection is other
        del other
        return shared, len(search(one, vectors(9), 1)[1])

    assert use() == (True, 9)
    gc.collect()  # frames of errors that pymilvus caught hold it
    code = f"from retrieval.milvus import *; print(MilvusIndex(Connection.to({path!r}), 'some', 'Flat').ntotal)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "9", done.stderr
