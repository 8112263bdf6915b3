"""A small trained world as a service folder, and the real service on it in a process of its own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.serve_process import Running, serving
from configs.data import PrepareConfig, WorldConfig
from configs.embedding import EmbedConfig
from configs.load import load
from configs.ranking import RankConfig
from configs.serving import ServiceConfig
from configs.targeting import IndexConfig
from configs.training import BoundaryConfig, ClipConfig, I2IConfig
from pipeline import embed, index, prepare, service, world
from tests.serving.postgres_server import Server
from tests.serving.postgres_server import running as postgres_running
from training import tasks as train
from training.ranking import train_rank

TOKEN = "a-token-of-the-tests-only"
QUICK = ["trainer.accelerator=cpu", "trainer.progress=false", "logger.wandb=off", "trainer.epochs=1"]
SMALL = ["model.hidden=32", "model.dim=16", "model.field_dim=8", "optim.lr=3e-3", *QUICK]


def run(main: Any, of: type, *options: str) -> None:
    main(load(of, options))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with world, catalogue, clip, features, i2i, boundary, index, rank and service (read-only by agreement).

    Made once for all processes that the tests run in.
    """
    base = tmp_path_factory.getbasetemp()
    at = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "served"
    at.mkdir(exist_ok=True)
    with (at / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (at / "service").exists():
            train_small_world(at)
    return at


def train_small_world(at: Path) -> None:
    few = ["songs=160", "users=120", "seconds=2", "truth_users=20", "workers=1"]
    run(world.main, WorldConfig, f"out={at}/world", *few)
    cut = ["split.cutoff=2026-05-01", "workers=0"]
    run(prepare.main, PrepareConfig, f"source={at}/world", f"out={at}/catalogue", *cut)
    data, both = [f"data={at}/catalogue"], [f"data={at}/catalogue", f"features={at}/features"]
    size = ["model.dim=16", "model.width=32", "model.layers=1", "model.crop_seconds=1", "model.crops=2"]
    size += ["text.max_tokens=32", "batch_size=32"]
    run(train.train_clip, ClipConfig, *data, f"out={at}/clip", *size, *QUICK)
    run(embed.main, EmbedConfig, *data, f"clip={at}/clip", "accelerator=cpu", f"out={at}/features")
    run(train.train_i2i, I2IConfig, *both, f"out={at}/i2i", "bcl_batch_size=64", *SMALL)
    run(train.train_boundary, BoundaryConfig, *both, f"out={at}/boundary", "model.history=20", *SMALL)
    run(index.main, IndexConfig, f"run={at}/i2i", f"out={at}/index")
    few = ["depth=20", "trees.min_leaf=5", "trees.rounds=40", "trees.parts=3", "trees.leaves=4"]
    run(train_rank, RankConfig, *data, f"i2i={at}/i2i", f"boundary={at}/boundary", f"out={at}/rank", *few)
    models = [f"index={at}/index", f"boundary={at}/boundary", f"rank={at}/rank"]
    run(service.main, ServiceConfig, *models, f"out={at}/service", "new_users=20")


@pytest.fixture(scope="session")
def service_folder(trained: Path) -> Path:
    """The service folder of the same (read-only by agreement)."""
    return trained / "service"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; skips where none is installed."""
    with postgres_running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """`store=` of a new store: a folder, and a schema of PostgreSQL."""
    if request.param == "sqlite":
        return str(tmp_path / "store")
    made: str = request.getfixturevalue("postgres").place()
    return made


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """`with serve(model, store, "key=value", …, token=None) as service:` runs the real service."""
    return serving


@pytest.fixture(scope="module")
def live(service_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a token, for the tests of one file."""
    with serving(service_folder, tmp_path_factory.mktemp("live") / "store", token=TOKEN) as running:
        yield running
