"""What `pipeline.audience` shows and refuses; tests/retrieval/test_targeting.py has whom it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from artifacts.folders import read_manifest
from configs.errors import UserError
from configs.targeting import TargetingConfig
from data.catalogue import Catalogue
from inference.audience import audience_table, exploration_of, show
from retrieval.audience import Audience
from retrieval.songs import Similar
from tests.commands import run as command


def test_the_page_of_a_song() -> None:
    catalogue = Catalogue(Path("catalogue"), {})
    catalogue.songs = pl.DataFrame(
        {
            "song_id": ["a", "b", "c"],
            "title": ["Rain · live", None, "Sun"],
            "artist_id": ["me", None, None],
            "genres": [["folk", "pop"], None, []],
        }
    )
    near = Similar(np.array([[1, 0, -1]]), np.array([[2.0, 1.0, -np.inf]]), np.ones(0), sparse.csr_matrix((0, 0)))
    because: list[list[str]] = [["a", "b"], [], ["a"]]
    rows = {"song_id": ["c", "c", "a"], "user_id": ["u1", "u2", "u3"], "score": [0.5, 0.25, 0.75], "because": because}
    for table, users in ((pl.DataFrame(rows), 2), (pl.DataFrame(rows).clear(), 0)):
        page = show(table, near, catalogue, np.array([2]), 0).splitlines()
        assert page[1:6] == [
            "new song c: Sun · ? · ",
            "  similar known songs:",
            "       2.000  (no title) · ? · ?",
            "       1.000  Rain · live · me · folk/pop",
            "  first listeners (user, score, because of):",
        ]
        lines = ["    u1              0.500  Rain · live; (no title)", "    u2              0.250  "]
        assert page[6:] == lines[:users]


def test_what_was_drawn_is_logged_with_its_propensity() -> None:
    """The two columns are there if anything is drawn; a draw goes by the song's id, not by its place."""
    catalogue = Catalogue(Path("catalogue"), {})
    catalogue.songs = pl.DataFrame({"song_id": ["a", "b", "c"]})
    catalogue.users = pl.DataFrame({"user_id": ["u0", "u1", "u2"]})
    users, because = np.array([[2, 0], [1, -1]]), np.full((2, 2, 3), -1)
    found, new = Audience(users, np.array([[0.5, 0.25], [0.125, -np.inf]])), np.array([1, 2])
    plain = audience_table(found, because, catalogue, new, None)
    found.explored_CB, found.propensity_CB = np.array([[False, True], [True, False]]), np.array([[1, 0.25], [0.5, 0]])
    table = audience_table(found, because, catalogue, new, None)
    assert table.columns == [*plain.columns, "explored", "propensity"]
    assert table.select("song_id", "user_id", "explored", "propensity").rows() == [
        ("b", "u2", False, 1.0), ("b", "u0", True, 0.25), ("c", "u1", True, 0.5),
    ]  # fmt: skip
    assert exploration_of(TargetingConfig(), catalogue, new) is None
    names = [exploration_of(TargetingConfig(exploration=0.1), catalogue, one).name_C for one in (new, new[::-1])]
    assert names[0].tolist() == names[1][::-1].tolist() and names[0][0] != names[0][1]


@pytest.mark.parametrize("engine", ["faiss", "milvus"])
def test_only_some_known_songs_stand_for_a_new_one(engine: str, i2i_run: Path, tmp_path: Path) -> None:
    if engine == "milvus":
        pytest.importorskip("milvus_lite")
    command("index", f"run={i2i_run}", f"out={tmp_path / 'index'}", f"engine={engine}")
    audience = "audience", f"index={tmp_path / 'index'}", f"out={tmp_path / 'audience'}", "split=cold"
    shown = {}
    for where, wanted in (('language == "zh"', ["zh"]), ('not (language == "zh")', ["en"]), (None, ["en", "zh"])):
        command(*audience, *([f"where={where}"] if where else []))
        songs = Catalogue.read(read_manifest(tmp_path / "index", "index", "")["data"]).songs
        similar = pl.read_parquet(tmp_path / "audience" / "similar.parquet")
        languages = similar.join(songs, left_on="similar_song_id", right_on="song_id")["language"]
        assert languages.drop_nulls().unique().sort().to_list() == wanted
        assert (languages.null_count() > 0) == (where is None)
        shown[where] = pl.read_parquet(tmp_path / "audience" / "audience.parquet")
    assert not shown[None].equals(shown['language == "zh"'])
    with pytest.raises(
        UserError, match=r"where='lang == 1': lang is not a column; columns: song_id \(text\), language"
    ):
        command(*audience, "where=lang == 1")


def test_only_some_users_are_reached(i2i_run: Path, boundary_run: Path, tmp_path: Path, capsys: Any) -> None:
    command("index", f"run={i2i_run}", f"out={tmp_path / 'index'}")
    catalogue = Catalogue.read(read_manifest(tmp_path / "index", "index", "")["data"])
    audience = "audience", f"index={tmp_path / 'index'}", f"out={tmp_path / 'audience'}", f"boundary={boundary_run}"
    told = pl.DataFrame({"user_id": catalogue.users["user_id"][3:5]})
    told.write_parquet(tmp_path / "no.parquet")
    where = 'country in ["CN"] and age >= 25'
    command(*audience, "mode=taste", "targeting.budget=8", f"users_where={where}", f"exclude={tmp_path / 'no.parquet'}")
    fits = catalogue.users.filter((pl.col("country") == "CN") & (pl.col("age") >= 25))
    assert f"users_where={where}: {fits.height} of {catalogue.n_users} users\n" in capsys.readouterr().out
    fits = fits.join(told, on="user_id", how="anti")
    for name in ("audience", "recommendations"):
        users = pl.read_parquet(tmp_path / "audience" / f"{name}.parquet")["user_id"]
        assert users.n_unique() > 1 and users.is_in(fits["user_id"].implode()).all()
    lists = pl.read_parquet(tmp_path / "audience" / "audience.parquet").group_by("song_id").len()["len"]
    assert (lists == 8).all(), "left out before the best are taken"
    for where, wrong in (
        ("aeg > 3", r"aeg is not a column; columns: user_id \(text\)"),
        ("age > 1000", "no user is so"),
    ):
        with pytest.raises(UserError, match=f"users_where=.*{wrong}"):
            command(*audience, f"users_where={where}")


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (("neighbours", "budget", "seed_users", "songs_per_user", "memory_mb", "warm_up"), 0),
        (("per_user_cap", "seed", "clusters", "song_weight"), -0.5),
        (("memory_mb", "song_weight", "exploration"), float("nan")),
        (("exploration",), 1.5),
        (("exploration",), -0.1),
        (("song_weight",), float("inf")),
    ],
)
def test_options_that_mean_nothing_are_refused(options: tuple[str, ...], value: float) -> None:
    for option in options:
        with pytest.raises(UserError, match=f"targeting.{option}="):
            TargetingConfig(**{option: value})
