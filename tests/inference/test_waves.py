"""pipeline.waves on small lists: waves follow each other, odd input is counted and named, nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from artifacts.folders import write_manifest
from configs.errors import UserError
from inference import waves
from tests.commands import run

RATES = "rates.favourited=0.2", "rates.completed=0.5"
SONGS, USERS = 6, 80
LIKED = {"s0": 0.8, "s1": 0.02}  # others: 0.2


@pytest.fixture
def audience(tmp_path: Path) -> Path:
    """Six songs with all eighty users, in an order of each song's own."""
    rng, folder = np.random.default_rng(0), tmp_path / "audience"
    folder.mkdir()
    rows = [(f"s{c}", f"u{user}", rank) for c in range(SONGS) for rank, user in enumerate(rng.permutation(USERS), 1)]
    pl.DataFrame(rows, ["song_id", "user_id", "rank"], orient="row").write_parquet(folder / "audience.parquet")
    write_manifest(folder, "audience", {})
    return folder


@pytest.fixture
def wave(audience: Path, tmp_path: Path) -> Callable[..., Path]:
    """`wave(n, *options)` runs the command for wave n, after wave n − 1 if there is one."""

    def make(n: int, *options: str, rates: tuple[str, ...] = ()) -> Path:
        out, before = tmp_path / f"wave{n}", tmp_path / f"wave{n - 1}"
        after = [f"after={before}"] * before.exists()
        small = ["policy.first=8", "policy.size=8"]
        run("waves", f"audience={audience}", f"out={out}", "exposures=48", *small, *after, *(rates or RATES), *options)
        return out

    return make


def heard(folder: Path, seed: int = 0) -> pl.DataFrame:
    """What users did with what a wave showed them."""
    pairs = pl.read_parquet(folder / "wave.parquet")
    rng, likes = np.random.default_rng(seed), np.array([LIKED.get(one, 0.2) for one in pairs["song_id"]])
    completed = rng.random(pairs.height) < np.sqrt(likes)
    return pairs.select("song_id", "user_id").with_columns(
        completed=pl.Series(completed), favourited=pl.Series(completed & (rng.random(pairs.height) < np.sqrt(likes)))
    )


def test_waves_follow_each_other(wave: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plays, shown = tmp_path / "plays", []
    plays.mkdir()
    for n in range(1, 6):
        out = wave(n, *[f"outcomes={plays}"] * (n > 1))
        heard(out, n).write_parquet(plays / f"{n}.parquet")
        next_ones, before = (pl.read_parquet(out / f"{name}.parquet") for name in ("wave", "shown"))
        assert next_ones["wave"].unique().to_list() == [n] and next_ones.height <= 48
        shown.append(next_ones)
        assert_frame_equal(before, pl.concat(shown[:-1]) if n > 1 else before.clear())
        states = pl.read_parquet(out / "songs.parquet")
        assert states["shown"].sum() == before.height and states["next"].sum() == next_ones.height
        assert (states["shown"] + states["next"] + states["left"] == USERS).all()
    every = pl.concat(shown)
    assert not every.select("song_id", "user_id").is_duplicated().any(), "nobody is shown a song twice"
    outcomes = pl.concat([pl.read_parquet(plays / f"{n}.parquet") for n in range(1, 5)])
    for name in ("favourited", "completed"):
        counted = dict(outcomes.group_by("song_id").agg(pl.col(name).sum()).iter_rows())
        assert dict(states.select("song_id", name).iter_rows()) == counted
    of = {one["song_id"]: one for one in states.iter_rows(named=True)}
    assert of["s0"]["state"] == "widen" and of["s1"]["state"] == "stop" and of["s1"]["next"] == 0
    assert of["s0"]["shown"] > 2 * of["s1"]["shown"]
    assert (states["favourited_low"] < states["favourited_mean"]).all()
    said = capsys.readouterr().out
    assert "wave 5" in said and "widen" in said and "the catalogue's rate is 0.200" in said


def test_the_same_command_makes_the_same_wave(
    wave: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where it was killed on its last steps."""
    first = pl.read_parquet(wave(1) / "wave.parquet")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(waves, "state_table", lambda *_: pl.DataFrame({"x": [object()]}))  # cannot be written
        with pytest.raises(Exception, match=r".+"):
            wave(1)
        patch.undo()
        patch.setattr("artifacts.folders.write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            wave(1)
    assert_frame_equal(pl.read_parquet(wave(1) / "wave.parquet"), first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audience", "wave1"]
    some, other = (pl.read_parquet(wave(1, "exposures=20", f"policy.seed={n}") / "wave.parquet") for n in (0, 1))
    assert not some.equals(other), "which songs go first is drawn"


def test_odd_rows_are_counted_and_named(
    wave: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plays = heard(wave(1))
    wave(2, f"outcomes={write(plays, tmp_path)}")
    clean = pl.read_parquet(tmp_path / "wave2" / "songs.parquet")
    never = pl.read_parquet(tmp_path / "audience" / "audience.parquet").join(
        plays, on=["song_id", "user_id"], how="anti"
    )
    odd = [("ghost", "u1"), ("s0", "nobody"), ("s0", None), never.select("song_id", "user_id").row(0)]
    more = pl.DataFrame(odd, ["song_id", "user_id"], orient="row").with_columns(completed=True, favourited=True)
    again = plays.head(3).with_columns(pl.lit(None, pl.Boolean).alias(name) for name in ("completed", "favourited"))
    capsys.readouterr()
    wave(2, f"outcomes={write(pl.concat([plays, more.select(plays.columns), again]), tmp_path)}")
    said = capsys.readouterr().out
    for words in (
        "1 rows without user_id or song_id are left out",
        "3 further rows of a pair count together with its first",
        "1 of songs in no list: ghost (1)",
        "1 of users in no list: nobody (1)",
        f"1 of pairs that were never shown: {odd[-1][0]} to {odd[-1][1]} (1)",
    ):
        assert words in said
    assert_frame_equal(pl.read_parquet(tmp_path / "wave2" / "songs.parquet"), clean)


def write(plays: pl.DataFrame, folder: Path) -> Path:
    path = folder / "plays.parquet"
    plays.write_parquet(path)
    return path


def test_a_pair_without_an_outcome_was_shown_in_vain(
    wave: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = pl.read_parquet(wave(1) / "wave.parquet")
    wave(2)
    assert "48 of 48 shown pairs have no outcome" in capsys.readouterr().out
    states = pl.read_parquet(tmp_path / "wave2" / "songs.parquet")
    assert states["shown"].sum() == shown.height and states["favourited"].sum() == 0
    assert (states["favourited_mean"] < 0.2).all()


def test_a_new_audience_keeps_what_was_shown(
    wave: Callable[..., Path], audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A song is gone, and the listeners of the others are no longer in their lists."""
    shown = pl.read_parquet(wave(1) / "wave.parquet")
    lists = pl.read_parquet(audience / "audience.parquet").filter(pl.col("song_id") != "s3")
    lists.join(shown, on=["song_id", "user_id"], how="anti").write_parquet(audience / "audience.parquet")
    out = wave(2)
    assert "no longer has s3 (1) of earlier waves" in capsys.readouterr().out
    assert_frame_equal(pl.read_parquet(out / "shown.parquet"), shown)
    states = pl.read_parquet(out / "songs.parquet")
    assert states.height == 5 and states["shown"].sum() == shown.filter(pl.col("song_id") != "s3").height


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("column", "has no column favourited: add it, or give policy.worth.favourited=0"),
        ("absent", "nothing is there"),
        ("text", "favourited' has type String, wanted: Boolean"),
        ("lists", "audience.parquet cannot be read"),
        ("kind", "is a audience folder, not a waves folder"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    damage: str, said: str, wave: Callable[..., Path], audience: Path, tmp_path: Path
) -> None:
    plays = heard(wave(1))
    plays = plays.drop("favourited") if damage == "column" else plays
    plays = plays.with_columns(favourited=pl.lit("yes")) if damage == "text" else plays
    path = tmp_path / "absent.parquet" if damage == "absent" else write(plays, tmp_path)
    if damage == "lists":
        (audience / "audience.parquet").write_bytes(b"PAR1")
    options = [f"after={audience}"] if damage == "kind" else []
    with pytest.raises(UserError, match=said) as caught:
        wave(2, f"outcomes={path}", *options)
    assert "\n" not in str(caught.value) and not (tmp_path / "wave2").exists()


def test_rates_of_a_catalogue_are_those_of_its_plays(
    wave: Callable[..., Path], write_dataset: Callable[..., Path], prepare: Callable[..., Path], tmp_path: Path
) -> None:
    catalogue = prepare(write_dataset(tmp_path / "data"), tmp_path / "catalogue")
    plays = pl.read_parquet(catalogue / "plays.parquet")
    out = wave(1, rates=(f"data={catalogue}",))
    states = pl.read_parquet(out / "songs.parquet")
    assert states["favourited_expected"].to_list() == pytest.approx([plays["favourited"].mean()] * SONGS)
    plays.drop("favourited").write_parquet(catalogue / "plays.parquet")
    with pytest.raises(UserError, match=r"at which rate songs are favourited: give rates\.favourited="):
        wave(1, rates=(f"data={catalogue}",))
    wave(1, "policy.worth.favourited=0", rates=(f"data={catalogue}",))
