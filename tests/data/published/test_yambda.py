"""Yambda's files as published, with each quirk of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from configs.errors import UserError
from data.contract.dataset import Dataset
from data.published.files import Found, Reader, convert
from data.published.yambda import read

Made = Callable[[Reader, Path], tuple[Dataset, Found]]
EVENT = {"uid": pl.UInt32, "timestamp": pl.UInt32, "item_id": pl.UInt32, "is_organic": pl.UInt8}
LISTEN = EVENT | {"played_ratio_pct": pl.UInt16, "track_length_seconds": pl.UInt32}
# user, second, song, chosen by themselves, per cent, length
LISTENS = [
    (1, 100, 10, 1, 100, 200),
    (1, 300, 20, 0, 49, 200),  # recommended after 10, not complete
    (1, 400, 30, 0, 180, 200),  # rewound; liked 100 s later
    (1, 5000, 20, 0, 100, 200),  # too long after 10
    (2, 0, 10, 1, 50, 200),
    (2, 200, 30, 0, 90, 200),
    (2, 86_400, 40, 0, 100, 200),  # nothing before it
]
LIKES = [(1, 500, 30, 0), (2, 700, 10, 1), (2, 900, 10, 1)]
UNLIKES = [(2, 800, 10, 1)]  # the second like of 10 stands
DISLIKES = [(1, 350, 20, 0), (2, 90_000, 40, 0)]
UNDISLIKES = [(2, 90_100, 40, 0)]


def frame(rows: Sequence[tuple[int, ...]], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The root of the published files, with one size."""
    at = tmp_path / "yambda" / "flat" / "50m"
    at.mkdir(parents=True)
    frame(LISTENS, LISTEN).write_parquet(at / "listens.parquet")
    events = {"likes": LIKES, "unlikes": UNLIKES, "dislikes": DISLIKES, "undislikes": UNDISLIKES}
    for name, rows in events.items():
        frame(rows, EVENT).write_parquet(at / f"{name}.parquet")
    root = tmp_path / "yambda"
    vectors = {"item_id": [10, 30, 99], "embed": [[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]}
    normal = {"normalized_embed": [[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]]}
    pl.DataFrame(vectors | normal).write_parquet(root / "embeddings.parquet")
    artists = {"artist_id": [7, 5, 6], "item_id": [10, 10, 30]}
    pl.DataFrame(artists).write_parquet(root / "artist_item_mapping.parquet")
    return root


def test_times_are_seconds_and_a_song_is_released_at_its_first_event(source: Path, made: Made) -> None:
    data, found = made(read, source)
    assert data.songs["song_id"].to_list() == ["10", "20", "30", "40"]
    assert data.songs["released_at"].dt.epoch("s").to_list() == [0, 300, 200, 86_400]
    assert data.plays["played_at"].dt.epoch("s").max() == 86_400
    assert any("arbitrary start" in note for note in found.notes)


def test_half_a_song_is_complete_and_so_is_one_that_was_rewound(source: Path, made: Made) -> None:
    data, _ = made(read, source)
    listens = data.plays.filter(pl.col("completed").is_not_null())
    rows = listens.filter(user_id="1").select("song_id", "completed").rows()
    assert rows == [("10", True), ("20", False), ("30", True), ("20", True)]
    assert listens.filter(user_id="2", song_id="10")["completed"].to_list() == [True], "50 per cent are Listen+"


def test_likes_and_dislikes_are_rows_of_their_own_without_those_taken_back(source: Path, made: Made) -> None:
    data, found = made(read, source)
    flags = data.plays.filter(pl.col("completed").is_null())
    liked = flags.filter(pl.col("favourited")).select("user_id", "song_id").rows()
    assert sorted(liked) == [("1", "30"), ("2", "10")], "the like after the unlike stands"
    assert flags.filter(pl.col("favourited"), user_id="2")["played_at"].dt.epoch("s").to_list() == [900]
    assert flags.filter(pl.col("disliked")).select("user_id", "song_id").rows() == [("1", "20")]
    assert {key: (entry["count"], entry["examples"]) for key, entry in found.rejected.items()} == {
        "like_taken_back": (1, ["2 / 10"]),
        "dislike_taken_back": (1, ["2 / 40"]),
    }


def test_songs_without_vector_and_with_several_artists(source: Path, made: Made) -> None:
    data, found = made(read, source)
    assert data.features["audio"][[0, 2]].tolist() == [[1.0, 0.0], [0.0, 1.0]], "the normalised vectors, of songs there"
    assert data.songs["artist_id"].to_list() == ["5", None, "6", None]
    assert any("1 songs have several artists" in note for note in found.notes)


def test_what_was_recommended_tells_of_the_song_before_it(source: Path, made: Made) -> None:
    data, _ = made(read, source)
    assert data.feedback is not None
    columns = ("source_song_id", "recommended_song_id", "plays", "completes", "favourites")
    assert sorted(data.feedback.select(columns).rows()) == [("10", "20", 1, 0, 0), ("10", "30", 2, 2, 1)]


def test_batches_change_nothing(source: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users at the edge of a batch are read with the next."""
    monkeypatch.setattr("data.published.yambda.BATCH", 2)
    monkeypatch.setattr("data.published.yambda.MOST", 1)
    data, found = made(read, source)
    assert data.feedback is not None
    assert data.feedback.select("recommended_song_id", "plays").rows() == [("30", 2)]
    assert any("pairs with at least 2 plays" in note for note in found.notes)


def test_listens_that_are_not_sorted_tell_nothing_of_recommendations(source: Path, made: Made) -> None:
    path = source / "flat" / "50m" / "listens.parquet"
    pl.read_parquet(path).sort("timestamp").write_parquet(path)
    data, found = made(read, source)
    assert data.feedback is None and data.plays.height == 10
    assert any("not sorted by user" in note for note in found.notes)


def test_one_file_of_all_events_is_the_same(source: Path, made: Made, tmp_path: Path) -> None:
    expected, _ = made(read, source)
    at, other = source / "flat" / "50m", tmp_path / "other"
    other.mkdir()
    kinds = {
        "listens": "listen",
        "likes": "like",
        "unlikes": "unlike",
        "dislikes": "dislike",
        "undislikes": "undislike",
    }
    parts = [pl.read_parquet(at / f"{name}.parquet").with_columns(event_type=pl.lit(of)) for name, of in kinds.items()]
    events = pl.concat(parts, how="diagonal").sort("uid", "timestamp", maintain_order=True)
    events.with_columns(pl.col("event_type").cast(pl.Categorical)).write_parquet(other / "multi_event.parquet")
    found = Found()
    folder = tmp_path / "again"
    (folder / "plays").mkdir(parents=True)
    read(other, folder, found)
    assert pl.read_parquet(folder / "i2i_feedback.parquet")["plays"].sort().to_list() == [1, 2]
    plays = pl.concat([pl.read_parquet(file) for file in sorted((folder / "plays").iterdir())], how="diagonal")
    assert plays.height == expected.plays.height


def test_wrong_files(source: Path, made: Made, tmp_path: Path) -> None:
    at = source / "flat" / "50m"
    (source / "flat" / "5b").mkdir()
    (source / "flat" / "5b" / "listens.parquet").write_bytes((at / "listens.parquet").read_bytes())
    with pytest.raises(UserError, match="several sizes of Yambda"):
        made(read, source)
    lists = pl.read_parquet(at / "listens.parquet").group_by("uid").agg(pl.all())
    lists.write_parquet(at / "listens.parquet")
    with pytest.raises(UserError, match=r"listens\.parquet: column 'item_id' has type List"):
        run(at, tmp_path / "1")
    pl.DataFrame({"uid": [1], "item_id": [2]}).write_parquet(at / "listens.parquet")
    with pytest.raises(UserError, match=r"listens\.parquet has no column 'timestamp'"):
        run(at, tmp_path / "2")
    (at / "listens.parquet").write_text("no Parquet")
    with pytest.raises(UserError, match=r"listens\.parquet cannot be read"):
        run(at, tmp_path / "3")
    with pytest.raises(UserError, match=r"has no listens\.parquet"):
        run(tmp_path, tmp_path / "4")


@pytest.mark.parametrize("name", ["embeddings", "artist_item_mapping", "flat/50m/likes", "flat/50m/listens"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_file_is_named(source: Path, tmp_path: Path, name: str, whole: bool) -> None:
    """Truncated, or with bytes within that are others; whether the root or the folder of the size is given."""
    path = source / f"{name}.parquet"
    data = path.read_bytes()
    path.write_bytes(b"PAR1" + bytes(len(data) // 3) + data[4 + len(data) // 3 :] if whole else data[: len(data) // 2])
    for given in (source, source / "flat" / "50m"):
        with pytest.raises(UserError, match=rf"/{name}\.parquet cannot be read \(.*\): get it again"):
            convert(read, given, tmp_path / f"from {given.name}")


def run(source: Path, folder: Path) -> None:
    (folder / "plays").mkdir(parents=True)
    read(source, folder, Found())
