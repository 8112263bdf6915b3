"""CLIP training on this device: songs a second, share of the device's own matmul speed, memory.

    python -m benchmarks.speed.gpu_speed out=runs/gpu_speed.json

Generated log-mel crops and text vectors stay on the device, so that only the model is measured. Beside each other, in
one run: full precision and bfloat16, activations kept and computed again, blocks as they are and compiled. The peak is
a product of two square matrices in the same precision; the step's operations are counted by torch, once, so that those
that are computed again are no progress.

Shapes: N songs, T frames, M mel bands, B text vector size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.measure import tell
from configs.errors import UserError
from configs.load import command
from configs.options import at_least, opt
from lightning_modules.clip import compile_blocks
from models.clip import ClipModel
from objectives.contrastive import clip_loss

FRONT = {"sample_rate": 16000, "n_mels": 64, "win_length": 800, "hop_length": 320}
TEXT = 384  # numbers of a text vector, as MiniLM has
WARMUP = 3  # steps that are not timed
# bfloat16, activations computed again, blocks compiled
VARIANTS = [(False, False, False), (False, True, False), (True, False, False), (True, True, False), (True, False, True)]


@dataclass
class GpuSpeedConfig:
    """Options of this benchmark."""

    device: str = opt("cuda", "cuda | cpu")
    batch_size: int = opt(512, "songs a step")
    frames: int = opt(500, "frames of a crop (50 a second)")
    width: int = opt(512, "audio Transformer width")
    layers: int = opt(8, "audio Transformer layers")
    heads: int = opt(8, "attention heads")
    matrix: int = opt(8192, "rows of the matrices that the peak is measured with")
    steps: int = opt(20, "timed steps")
    out: str | None = opt(None, "JSON file to write")


def main(config: GpuSpeedConfig) -> None:
    """Run the command (see the module's docstring)."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch finds no GPU here: device=cpu runs the same on the CPU")
    at_least(config, 1, "batch_size", "frames", "width", "layers", "matrix", "steps")
    name = torch.cuda.get_device_name() if config.device == "cuda" else "CPU"
    peak = {half: matmul_peak(config, torch.bfloat16 if half else torch.float32) for half in (False, True)}
    rows, counted = [measure(config, *variant) for variant in tqdm(VARIANTS, "variants")], operations(config)
    for row, (half, *_) in zip(rows, VARIANTS, strict=True):
        row["share_of_matmul_peak"] = counted / row["seconds"] / peak[half]
    tflops = {"float32": peak[False] / 1e12, "bfloat16": peak[True] / 1e12}
    tell(config, {"device": name, "torch": torch.__version__, "matmul_tflops": tflops, "rows": rows})


def matmul_peak(config: GpuSpeedConfig, dtype: torch.dtype) -> float:
    """Operations a second of a product of square matrices."""
    a = torch.randn(config.matrix, config.matrix, device=config.device, dtype=dtype)
    return 2 * config.matrix**3 / seconds_of(lambda: a @ a, config)


def measure(config: GpuSpeedConfig, half: bool, recompute: bool, compiled: bool) -> dict[str, Any]:
    """Seconds and memory of one variant of the training step."""
    loss, model = training(config, half, recompute)
    if compiled:
        compile_blocks(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    if config.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(step, config)
    return {
        "precision": "bf16-mixed" if half else "32-true",
        "recompute": recompute,
        "compile": compiled,
        "seconds": seconds,
        "songs_a_second": config.batch_size / seconds,
        "peak_memory_mb": torch.cuda.max_memory_allocated() // 2**20 if config.device == "cuda" else None,
    }


def operations(config: GpuSpeedConfig) -> int:
    """Multiplications and additions of a step, forward and backward, as torch counts them."""
    loss, _ = training(config, half=False, recompute=False)
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return int(counter.get_total_flops())


def training(config: GpuSpeedConfig, half: bool, recompute: bool) -> tuple[Callable[[], Tensor], ClipModel]:
    """A model and its loss on generated songs."""
    torch.manual_seed(0)
    own = {"model": "transformer", "dim": 0, "width": config.width, "layers": config.layers, "heads": config.heads}
    text = {"model": "minilm", "frozen": True, "dim": TEXT}
    model = ClipModel(FRONT, own | {"recompute": recompute}, text, 128, 0.1, 0.07).to(config.device).train()
    logmel_NTM = torch.randn(config.batch_size, config.frames, FRONT["n_mels"], device=config.device)
    frames_N = torch.full((config.batch_size,), config.frames, device=config.device)
    pooled_NB = torch.randn(config.batch_size, TEXT, device=config.device)
    same_NN = torch.eye(config.batch_size, dtype=torch.bool, device=config.device)

    def loss() -> Tensor:
        with torch.autocast(config.device, torch.bfloat16) if half else nullcontext():
            audio_ND = model.embed_audio({"logmel": logmel_NTM, "frames": frames_N})
            text_ND = model.embed_text({"pooled": pooled_NB})
        return clip_loss(audio_ND, text_ND, model.logit_scale(), same_NN)

    return loss, model


def seconds_of(work: Callable[[], Any], config: GpuSpeedConfig) -> float:
    """Seconds a call, on average over `steps`; the device is waited for."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    timer.timeit(WARMUP)
    return float(timer.timeit(config.steps).mean)


if __name__ == "__main__":
    command(main, GpuSpeedConfig, __doc__)
