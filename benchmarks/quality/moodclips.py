"""The whole road on 900 real recordings and real listeners, split by artist, over several seeds.

    python -m benchmarks.quality.moodclips data=$FIRSTPLAY_DATA/moodclips out=runs/moodclips seeds=3

For each seed (of the split and of all training) every command of the pipeline runs as a user would run it; then the
figures of all seeds are printed as tables (benchmarks/table.py). Finished steps are kept when it is run again.
docs/data.md names the source of the recordings and of the listeners.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from benchmarks.table import main as print_tables
from configs.errors import UserError
from configs.load import command
from configs.options import opt


@dataclass
class MoodclipsConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "the moodclips folder")
    out: str = opt("runs/moodclips", "folder for all runs")
    seeds: int = opt(3, "seeds 0 … n−1")
    epochs: int = opt(40, "CLIP epochs")
    crop_seconds: float = opt(5.0, "length of a training crop; at inference five of them are averaged")


def main(config: MoodclipsConfig) -> None:
    """Run the command (see the module's docstring)."""
    if not (Path(config.data) / "songs.parquet").is_file():
        raise UserError(f"{config.data} has no songs.parquet: give data=… the moodclips folder (docs/data.md)")
    for seed in range(config.seeds):
        started = time.monotonic()
        one_seed(config, Path(config.out) / f"seed{seed}", seed)
        print(f"seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    print_tables([f"{config.out}/seed{seed}/evaluation/metrics.json" for seed in range(config.seeds)])


def one_seed(config: MoodclipsConfig, out: Path, seed: int) -> None:
    """All commands for one seed."""
    catalogue, features = f"data={out}/catalogue", f"features={out}/features"
    if not (out / "catalogue").exists():
        run(
            "-m pipeline.prepare",
            f"source={config.data}",
            f"out={out}/catalogue",
            "split.by=artist",
            f"split.seed={seed}",
        )
    train = ("trainer.progress=false", f"seed={seed}")
    text = "text.fields=[genres,tags]"
    crop = (f"model.crop_seconds={config.crop_seconds}", "model.crops=5", f"trainer.epochs={config.epochs}")
    run("train.py clip", catalogue, f"out={out}/clip", text, *crop, *train)
    run("-m pipeline.embed", f"clip={out}/clip", catalogue, f"out={out}/features")
    run("train.py i2i", catalogue, features, f"out={out}/i2i", "trainer.epochs=40", *train)
    run("train.py i2i", catalogue, features, f"out={out}/cb2cf", "objective.bcl_weight=0", "trainer.epochs=40", *train)
    run("train.py boundary", catalogue, features, f"out={out}/boundary", "trainer.epochs=15", *train)
    run("-m pipeline.index", f"run={out}/i2i", f"out={out}/index")
    run("-m pipeline.index", f"run={out}/cb2cf", f"out={out}/cb2cf_index")
    run("-m pipeline.audience", "mode=i2i2u", f"index={out}/index", f"out={out}/audience")
    run("-m pipeline.audience", "mode=boundary", f"index={out}/index", f"boundary={out}/boundary", f"out={out}/u2i")
    models = (f"index={out}/index", f"cb2cf={out}/cb2cf_index", features, f"boundary={out}/boundary")
    run("-m pipeline.evaluate", catalogue, *models, f"out={out}/evaluation")
    run("-m pipeline.export", f"run={out}/i2i", f"out={out}/export")


def run(script: str, *options: str) -> None:
    """One command, in a process of its own.

    Raises:
        UserError: the command failed (it has said why).
    """
    line = [sys.executable, *script.split(), *options]
    print("$ python " + " ".join(line[1:]), flush=True)
    if subprocess.run(line).returncode != 0:
        raise UserError(f"this step failed: python {' '.join(line[1:])}")


if __name__ == "__main__":
    command(main, MoodclipsConfig, __doc__)
