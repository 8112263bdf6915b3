"""Users' margin vectors in Milvus: the audiences of `mode=boundary` are those of the local engine.

A milvus-lite folder elsewhere stands for a server where none is installed: the same client, and the same calls.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from retrieval.milvus import Connection, MilvusError
from tests.commands import run as command
from tests.inference.test_milvus_songs import kill

pytest.importorskip("milvus_lite")
ROOT = Path(__file__).parents[2]
EVERYBODY = "targeting.margin=-100"


@pytest.fixture(scope="module")
def index(i2i_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("of_songs") / "index"
    command("index", f"run={i2i_run}", f"out={folder}")
    return folder


@pytest.fixture(scope="module", params=["inside", "server"])
def margins(request: pytest.FixtureRequest, boundary_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("of_users") / "margins"
    server = [f"uri={request.getfixturevalue('server_of_milvus').place()}"] if request.param == "server" else []
    make(boundary_run, folder, *server)
    return folder


def make(run: Path, out: Path, *options: str) -> dict[str, Any]:
    command("margins", f"run={run}", f"out={out}", *options)
    return json.loads((out / "manifest.json").read_text("utf-8"))


def audience(index: Path, run: Path, out: Path, *options: str) -> pl.DataFrame:
    command("audience", "mode=boundary", f"index={index}", f"boundary={run}", f"out={out}", *options)
    return pl.read_parquet(out / "audience.parquet")


def same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """The same lists; users whose margins differ by rounding alone may change places."""
    assert found.columns == expected.columns and expected.height > 40
    assert found.select("song_id", "rank").equals(expected.select("song_id", "rank"))
    for name in ("score", "margin"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
    both = found.join(expected, on=["song_id", "user_id"], suffix="_there")
    assert both.height >= expected.height - 2, "but for those who share the last place"
    np.testing.assert_allclose(both["margin"], both["margin_there"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        (),
        (EVERYBODY, "targeting.budget=30", "long_tail=100"),
        (EVERYBODY, 'users_where=country in ["CN"] and age >= 25'),
        (EVERYBODY, "targeting.budget=10", 'users_where=not (country == "CN")', "long_tail=8", "exclude=file"),
        (EVERYBODY, "targeting.budget=10", "exclude=file"),
        (EVERYBODY, "targeting.budget=8", "targeting.per_user_cap=2", "targeting.exploration=0.25"),
    ],
)
def test_audiences_are_those_of_the_local_engine(
    options: tuple[str, ...], index: Path, margins: Path, boundary_run: Path, tmp_path: Path
) -> None:
    no = {"user_id": ["u03", "u04", "u07", "u08"], "song_id": [None, None, None, "s55"]}
    pl.DataFrame(no).write_parquet(tmp_path / "no.parquet")
    given = [one.replace("exclude=file", f"exclude={tmp_path / 'no.parquet'}") for one in options]
    of = index, boundary_run, tmp_path / "audience"
    expected = audience(*of, *given)
    found = audience(*of, *given, f"margins={margins}")
    same(found, expected)
    assert not (tmp_path / "audience" / "recommendations.parquet").exists(), "it takes vectors of all users"


@pytest.mark.parametrize("kind", ["IVF8,Flat", "HNSW32"])
def test_an_approximate_index_is_tuned_on_new_songs(
    kind: str, index: Path, boundary_run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.margins.WIDEST", 20)  # of a world of 80 users every index finds all 80
    manifest = make(boundary_run, tmp_path / "margins", f"index={kind}")
    assert manifest["index"] == kind and manifest["effort"] > 0 and manifest["recall"] >= 0.95
    assert f"of a song's exact 80 users (effort {manifest['effort']})\n" in capsys.readouterr().out
    of = index, boundary_run, tmp_path / "audience", EVERYBODY, "targeting.budget=20"
    expected, found = audience(*of), audience(*of, f"margins={tmp_path / 'margins'}")
    both = found.join(expected, on=["song_id", "user_id"])
    assert both.height >= 0.9 * expected.height == 0.9 * found.height
    np.testing.assert_allclose(both["margin"], both["margin_right"], rtol=1e-4, atol=1e-5)


def test_builds_on_a_server_get_names_of_their_own(
    milvus: str, index: Path, boundary_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "margins"
    names = [make(boundary_run, out, f"uri={milvus}")["collection"] for _ in range(3)]
    encoder = json.loads((out / "manifest.json").read_text("utf-8"))["encoder"]
    assert names == [f"users_{encoder}_{number}" for number in (1, 2, 3)]
    there = Connection.to(milvus)
    assert there.client.describe_collection("users")["collection_name"] == names[-1]
    assert sorted(there.client.list_collections()) == names[1:], "the last one stays for those who have it open"
    of = index, boundary_run, tmp_path / "audience"
    same(audience(*of, f"margins={out}"), audience(*of))


def test_what_does_not_belong_together_is_one_line(
    index: Path,
    margins: Path,
    boundary_run: Path,
    train_boundary: Callable[..., Path],
    tmp_path: Path,
) -> None:
    of = index, boundary_run, tmp_path / "audience"
    other = train_boundary(tmp_path / "other", "batch_size=128", "trainer.epochs=1", "seed=7")
    with pytest.raises(UserError, match=r"was made of another boundary run: run python -m pipeline\.margins"):
        audience(index, other, tmp_path / "audience", f"margins={margins}")
    content = json.loads((margins / "manifest.json").read_text("utf-8"))["made_of"][0]
    for name, change in {
        "users.parquet": lambda path: pl.read_parquet(path).reverse().write_parquet(path),
        "manifest.json": lambda path: path.write_text(path.read_text("utf-8").replace(content, "0" * 16), "utf-8"),
    }.items():
        changed = shutil.copytree(margins, tmp_path / name)
        change(changed / name)
        with pytest.raises(UserError, match="was made of other users, plays or features than"):
            audience(*of, f"margins={changed}")
    (changed / "users.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        audience(*of, f"margins={changed}")
    for wrong in ("mode=taste", "plays=first.parquet", "engine=spark", f"rank={other}"):
        with pytest.raises(UserError, match="margins= is for mode=boundary engine=local, without plays= and rank="):
            audience(*of, f"margins={margins}", wrong)
    with pytest.raises(UserError, match="is a index folder, not a margins folder"):
        audience(*of, f"margins={index}")
    with pytest.raises(UserError, match="index 'IVF4,PQ8': in Milvus say Flat"):
        make(boundary_run, tmp_path / "new", "index=IVF4,PQ8")
    with pytest.raises(MilvusError, match="Fail connecting"):
        make(boundary_run, tmp_path / "new", "uri=http://127.0.0.1:9")
    assert not (tmp_path / "audience").exists() and not (tmp_path / "new").exists()


def test_more_users_than_milvus_names(
    index: Path, margins: Path, boundary_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.margins.MOST", 20)
    of = index, boundary_run, tmp_path / "audience", f"margins={margins}"
    audience(*of, "targeting.budget=20")
    with pytest.raises(UserError, match="at most 20 users of a song; 21 are needed"):
        audience(*of, "targeting.budget=21")


def test_killed_and_run_again(at_milvus: list[str], index: Path, boundary_run: Path, tmp_path: Path) -> None:
    """The folder that was there stays whole, and answers as before."""
    out, of = tmp_path / "margins", (index, boundary_run, tmp_path / "audience")
    make(boundary_run, out, *at_milvus)
    expected = audience(*of)
    kill(2, "pipeline.margins", f"run={boundary_run}", f"out={out}", *at_milvus)
    same(audience(*of, f"margins={out}"), expected)
    make(boundary_run, out, *at_milvus)
    same(audience(*of, f"margins={out}"), expected)
