"""What only a GPU can show; skipped without one. `make gpu-check` runs these and benchmarks.speed.gpu_speed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks.index_recall import retrieve
from configs.data import PrepareConfig, WorldConfig
from configs.load import load
from configs.training import ClipConfig
from pipeline import prepare, world
from retrieval.index import add, build_index, gpu_resources, remove, search, to_cpu, tune
from tests.test_precision import losses
from training.tasks import train_clip

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: run `make gpu-check` where there is one"),
]


def vectors(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((50, 64))
    return (centres[rng.integers(50, size=n)] + 0.7 * rng.standard_normal((n, 64))).astype(np.float32)


def test_faiss_and_torch_share_a_process() -> None:
    """FAISS brings CUDA libraries of its own; both must compute after each other, in both orders."""
    for _ in range(2):
        product = torch.randn(512, 512, device="cuda") @ torch.randn(512, 512, device="cuda")
        assert torch.isfinite(product).all()
        assert (search(build_index(vectors(1000)), vectors(1000)[:9], 1)[1][:, 0] == np.arange(9)).all()


@pytest.mark.parametrize("kind", ["Flat", "IVF64,Flat", "IVF64,SQ8", "IVF64,PQ16"])
def test_the_gpus_index_is_the_cpus(kind: str) -> None:
    assert gpu_resources(0) is not None and gpu_resources(0) is gpu_resources(0), "created once"
    items, queries = vectors(20_000), vectors(200, seed=1)
    exact = search(build_index(items, devices=()), queries, 10)[1]
    index = build_index(items, kind)
    tune(index, kind, queries, exact, 1.0)
    on_gpu, on_cpu = search(index, queries, 10), search(to_cpu(index), queries, 10)
    np.testing.assert_allclose(on_gpu[0], on_cpu[0], rtol=1e-3, atol=1e-2)
    assert (on_gpu[1] == on_cpu[1]).mean() > 0.99
    assert (retrieve(items, np.arange(len(items)), queries, 10) == exact).mean() > 0.999


def test_vectors_are_divided_among_all_gpus() -> None:
    items, everyone = vectors(10_000), range(torch.cuda.device_count())
    index = build_index(items, devices=everyone)
    assert (search(index, items[:50], 1)[1][:, 0] == np.arange(50)).all()
    assert to_cpu(index).ntotal == len(items)


def test_a_gpus_index_is_changed_in_main_memory() -> None:
    items = vectors(5000)
    index = to_cpu(build_index(items, "IVF64,Flat", np.arange(5000)))
    remove(index, np.arange(50))
    add(index, items[:50], np.arange(5000, 5050))
    index.nprobe = 64
    assert (search(index, items[:50], 1)[1][:, 0] == np.arange(5000, 5050)).all()


def assert_alike(half: Path, full: Path) -> None:
    one, other = losses(half), losses(full)
    assert len(one) == len(other) > 2 and np.isfinite(one).all()
    np.testing.assert_allclose(one, other, rtol=0.1)


@pytest.mark.parametrize("task", ["i2i", "boundary"])
def test_small_models_train_in_bfloat16(
    task: str, train_i2i: Callable[..., Path], train_boundary: Callable[..., Path], tmp_path: Path
) -> None:
    for name, precision in (("half", "auto"), ("full", "32-true")):
        more = [f"trainer.precision={precision}", "trainer.accelerator=gpu", "trainer.devices=1", "trainer.epochs=2"]
        {"i2i": train_i2i, "boundary": train_boundary}[task](tmp_path / name, *more)
    assert_alike(tmp_path / "half", tmp_path / "full")


@pytest.mark.parametrize("more", [[], ["trainer.strategy=fsdp"], ["model.recompute=true"], ["model.compile=true"]])
def test_clip_trains_in_bfloat16_sharded_and_compiled(more: list[str], tmp_path: Path) -> None:
    os.environ.setdefault("MASTER_PORT", "29511")
    size = ["songs=64", "users=60", "truth_users=10", "seconds=1.5", "workers=1"]
    world.main(load(WorldConfig, [f"out={tmp_path}/world", *size]))
    prepare.main(load(PrepareConfig, [f"source={tmp_path}/world", f"out={tmp_path}/data", "workers=0"]))
    small = ["model.width=32", "model.layers=2", "model.heads=2", "model.dim=16", "model.crop_seconds=1"]
    quiet = ["trainer.epochs=2", "trainer.log_every=1", "trainer.progress=false", "logger.wandb=off", "batch_size=16"]
    still = ["model.dropout=0", "objective.freq_mask=0", "objective.time_mask=0", "trainer.devices=1"]
    for name, given in (("half", more), ("full", ["trainer.precision=32-true"])):
        train_clip(
            load(ClipConfig, [f"data={tmp_path}/data", f"out={tmp_path}/{name}", *small, *quiet, *still, *given])
        )
    assert_alike(tmp_path / "half", tmp_path / "full")
