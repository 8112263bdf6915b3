"""A small but real dataset, and the catalogue that `pipeline.prepare` makes of it; shared by many tests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from omegaconf import OmegaConf
from polars.testing import assert_frame_equal

from tests import milvus_server

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads only wait for each other on a busy machine
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # as inference/milvus_folders.py: gRPC may end what Spark forks

SONGS, USERS, TASTES, FIRST_DAY = 60, 80, 3, datetime(2026, 1, 1)
TABLES = ("songs", "users", "plays", "cold_plays", "pairs", "val_pairs")
UNPLAYED, BARE = 3, 8  # song numbers: one without a play, one without any field
TOWERS = ["model.field_dim=8", "model.hidden=16", "model.dim=8", "fields.block=4", "batch_size=64"]
QUIET = ["trainer.accelerator=cpu", "trainer.progress=false", "trainer.log_every=1", "logger.wandb=off"]
FRONT = {"sample_rate": 16000, "n_mels": 10, "win_length": 800, "hop_length": 320}
OWN = {"model": "transformer", "dim": 0, "width": 16, "layers": 2, "heads": 2}
CLIP: dict[str, Any] = {  # arguments of a small ClipModel
    "front": FRONT, "audio": OWN, "text": {"model": "minilm", "dim": 6}, "dim": 8, "dropout": 0.0, "temperature": 0.07
}  # fmt: skip


def tiny_dataset(folder: Path, seed: int = 0) -> Path:
    """60 songs of three tastes, one released a day; 80 listeners with one taste each, who mostly follow it.

    `feature_content` and the tags carry the taste, `feature_mood` is half noise. Song 3 has no play, song 5 no content
    vector, song 8 nothing at all. The last twelve songs come out cold (by date).
    """
    rng = np.random.default_rng(seed)
    taste = np.arange(SONGS) % TASTES
    content = 2 * rng.standard_normal((TASTES, 12))[taste] + 0.5 * rng.standard_normal((SONGS, 12))
    mood = rng.standard_normal((TASTES, 6))[taste] + rng.standard_normal((SONGS, 6))
    known = np.arange(SONGS) != BARE
    songs = pl.DataFrame(
        {
            "song_id": [f"s{i:02d}" for i in range(SONGS)],
            "language": [["en", "zh"][i % 2] if known[i] else None for i in range(SONGS)],
            "genres": [[f"genre{taste[i]}"] if known[i] else None for i in range(SONGS)],
            "tags": [[f"tag{taste[i]}", f"tag{3 + i % 4}"][: 1 + i % 2] if known[i] else [] for i in range(SONGS)],
            "released_at": [FIRST_DAY + timedelta(days=i) for i in range(SONGS)],
            "feature_content": [row.tolist() if known[i] and i != 5 else None for i, row in enumerate(content)],
            "feature_mood": [row.tolist() if known[i] else None for i, row in enumerate(mood)],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    songs.write_parquet(folder / "songs.parquet")
    tiny_plays(rng, taste).write_parquet(folder / "plays.parquet")
    users = {"user_id": [f"u{i:02d}" for i in range(USERS)], "age": (20 + np.arange(USERS) % 40).tolist()}
    pl.DataFrame(users | {"country": ["DE", "CN"] * (USERS // 2)}).write_parquet(folder / "users.parquet")
    return folder


def tiny_plays(rng: np.random.Generator, taste: np.ndarray) -> pl.DataFrame:
    rows = []
    for user in range(USERS):
        weight = np.where(taste == user % TASTES, 8.0, 1.0)
        weight[UNPLAYED] = 0
        for song in rng.choice(SONGS, 30, replace=False, p=weight / weight.sum()):
            day = rng.uniform(song, SONGS + 15)
            liked = taste[song] == user % TASTES and rng.random() < 0.3
            played_at = FIRST_DAY + timedelta(days=float(day))
            rows.append((f"u{user:02d}", f"s{song:02d}", played_at, rng.random() < 0.6, liked))
    columns = ["user_id", "song_id", "played_at", "completed", "favourited"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(pl.col("completed", "favourited").cast(bool))


@pytest.fixture(scope="session", autouse=True)
def wandb_data(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What W&B puts by outside of a run's folder stays out of the home folder."""
    os.environ["WANDB_DATA_DIR"] = os.environ["WANDB_CACHE_DIR"] = str(tmp_path_factory.mktemp("wandb_data"))


def dirty_dataset(folder: Path, users_table: bool = True, times: bool = True, rows: int = 9000) -> Path:
    """A log with every fault there is, repeats far from each other, users of very unequal activity, extra columns."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    released = [FIRST_DAY + timedelta(days=n) if n % 3 else None for n in range(60)]
    tags = {"user_id": [f"u{n % 90}" for n in range(500)], "song_id": [f"s{n % 61}" for n in range(500)]}
    pl.DataFrame(tags | {"tag": [f"t{n % 7}" for n in range(500)]}).write_parquet(folder / "tags.parquet")
    pl.DataFrame({"song_id": [f"s{n}" for n in range(60)], "released_at": released}).write_parquet(
        folder / "songs.parquet"
    )
    if users_table:
        names = rng.permutation([f"u{n}" for n in range(120)])
        pl.DataFrame({"user_id": names, "age": np.arange(120)}).write_parquet(folder / "users.parquet")
    user = (rng.random(rows) ** 2 * 130).astype(int)
    song = (rng.random(rows) ** 1.5 * 64).astype(int)
    chance = rng.random((5, rows))
    plays = pl.DataFrame(
        {
            "user_id": [f"u{n}" if drawn > 0.01 else None for n, drawn in zip(user, chance[0], strict=True)],
            "song_id": [f"s{n}" if drawn < 0.99 else None for n, drawn in zip(song, chance[0], strict=True)],
            "played_at": [FIRST_DAY + timedelta(days=int(n)) for n in rng.integers(0, 90, rows)],
            "play_count": rng.integers(-1, 30, rows),
            "favourited": chance[1] < 0.2,
            "disliked": chance[2] < 0.1,
            "completed": chance[3] < 0.5,
            "device": pl.Series([f"d{n % 3}" for n in range(rows)], dtype=pl.Categorical),
            "nested": [[int(n)] for n in user],
        }
    ).with_columns(pl.when(pl.Series(chance[4] > 0.02)).then("played_at").alias("played_at"))
    plays = pl.concat([plays, plays.sample(700, seed=1)])
    (plays if times else plays.drop("played_at")).write_parquet(folder / "plays.parquet", row_group_size=700)
    return folder


def assert_same_catalogue(one: Path, other: Path) -> dict[str, Any]:
    """Same tables; same manifest but for the options."""
    for name in TABLES:
        assert_frame_equal(pl.read_parquet(one / f"{name}.parquet"), pl.read_parquet(other / f"{name}.parquet"))
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (one, other)]
    for manifest in manifests:
        manifest.pop("options"), manifest.pop("source")
    assert manifests[0] == manifests[1]
    assert list(manifests[0]["rejected"]) == list(manifests[1]["rejected"]), "the screen has them in one order"
    return manifests[0]


@pytest.fixture(scope="session")
def dirty() -> Callable[..., Path]:
    """`dirty(folder, users_table=True, times=True)` writes the dirty dataset."""
    return dirty_dataset


@pytest.fixture(scope="session")
def same_catalogue() -> Callable[..., dict[str, Any]]:
    """`same_catalogue(one, other)` compares two catalogues and gives their manifest."""
    return assert_same_catalogue


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """`write_dataset(folder, seed=0)` writes the tiny dataset."""
    return tiny_dataset


@pytest.fixture(scope="session")
def prepare() -> Callable[..., Path]:
    """`prepare(source, out, "key=value", …)` runs `pipeline.prepare` in this process."""
    from configs.data import PrepareConfig
    from configs.load import load
    from pipeline.prepare import main

    def run(source: Path, out: Path, *overrides: str) -> Path:
        main(load(PrepareConfig, [f"source={source}", f"out={out}", "workers=0", *overrides]))
        return out

    return run


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset folder (read-only by agreement)."""
    return tiny_dataset(tmp_path_factory.mktemp("world") / "dataset")


@pytest.fixture(scope="session")
def catalogue_folder(dataset: Path, prepare: Callable[..., Path]) -> Path:
    """The catalogue made of the tiny dataset (read-only by agreement)."""
    return prepare(dataset, dataset.parent / "catalogue")


@pytest.fixture(scope="session")
def catalogue(catalogue_folder: Path) -> Any:
    """The same, opened."""
    from data.catalogue import Catalogue

    return Catalogue.read(catalogue_folder)


@pytest.fixture(scope="session")
def server_of_milvus() -> Iterator[milvus_server.Server]:
    """A Milvus server; skips where none is installed."""
    with milvus_server.running() as server:
        yield server


@pytest.fixture(params=["lite", milvus_server.SLOW])
def milvus(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """`uri=` of a Milvus that has nothing: a folder of milvus-lite, and a database of a server."""
    return uri_of_milvus(request, tmp_path)


@pytest.fixture(params=["inside", "lite", milvus_server.SLOW])
def at_milvus(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Options of a Milvus that has nothing: none, for milvus-lite inside the folder that is made, or `uri=`."""
    return [] if request.param == "inside" else [f"uri={uri_of_milvus(request, tmp_path)}"]


def uri_of_milvus(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "lite":
        pytest.importorskip("milvus_lite")
        return str(tmp_path / "server.db")
    uri: str = request.getfixturevalue("server_of_milvus").place()
    return uri


@pytest.fixture(scope="session")
def train_i2i(catalogue_folder: Path) -> Callable[..., Path]:
    """`train_i2i(out, "key=value", …)` runs `train.py i2i` on the tiny catalogue, in this process: three epochs."""
    from configs.load import load
    from configs.training import I2IConfig
    from training.tasks import train_i2i

    def run(out: Path, *overrides: str) -> Path:
        train_i2i(load(I2IConfig, [*i2i_options(catalogue_folder, out), *overrides]))
        return out

    return run


@pytest.fixture(scope="session")
def train_boundary(catalogue_folder: Path) -> Callable[..., Path]:
    """`train_boundary(out, "key=value", …)` runs `train.py boundary` in the same way."""
    from configs.load import load
    from configs.training import BoundaryConfig
    from training.tasks import train_boundary

    def run(out: Path, *overrides: str) -> Path:
        train_boundary(load(BoundaryConfig, [f"data={catalogue_folder}", f"out={out}", *TOWERS, *QUIET, *overrides]))
        return out

    return run


def module_options(schema: type, **given: Any) -> dict[str, Any]:
    """Options of a task's LightningModule: the defaults of its schema, but for those given."""
    from configs.load import as_dict

    options = as_dict(schema(data="", out=""))
    return options["model"] | options["objective"] | options["optim"] | {"block": options["fields"]["block"]} | given


def as_before_prior_plays(run: Path, out: Path) -> Path:
    """A copy of a boundary run as if a version had trained it that did not have the option model.prior_plays."""
    shutil.copytree(run, out)
    config = OmegaConf.load(out / "config.yaml")
    del config.model["prior_plays"]
    (out / "config.yaml").write_text(OmegaConf.to_yaml(config))
    for path in (out / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["hyper_parameters"]["prior_plays"]
        torch.save(checkpoint, path)
    return out


def i2i_options(data: Path, out: Path) -> list[str]:
    """A small model, everything switched on."""
    drawn = ["bcl_batch_size=32", "objective.negatives=32", "trainer.epochs=3", "optim.lr=1e-2"]
    return [f"data={data}", f"out={out}", *TOWERS, *QUIET, *drawn]


@pytest.fixture(scope="session")
def i2i_run(train_i2i: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted, finished run (read-only by agreement)."""
    return train_i2i(tmp_path_factory.mktemp("runs") / "i2i")


@pytest.fixture(scope="session")
def boundary_run(train_boundary: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the three towers on the tiny catalogue, one epoch (read-only by agreement)."""
    return train_boundary(tmp_path_factory.mktemp("runs") / "boundary", "batch_size=128", "trainer.epochs=1")
