"""How long a day's songs take to be embedded where all others keep yesterday's vectors (`earlier=`), and all anew.

    make demo
    python -m benchmarks.speed.embed_again data=runs/demo/world clip=runs/demo/clip out=runs/embed_again.json

Prepares two catalogues of the data set, of the songs before `yesterday` and before `today`, embeds the first with the
CLIP run, and then the second in turns: all songs anew, and with the vectors of the first. The caches of texts are
removed before each. Both make the same vectors, to the last bit; seconds are processor seconds.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from artifacts.folders import scratch
from benchmarks.measure import tell
from configs.data import PrepareConfig
from configs.embedding import EmbedConfig
from configs.load import command, load
from configs.options import at_least, opt
from data.catalogue import Catalogue, read_features
from data.preparation import prepare
from inference.embedding import embed


@dataclass
class EmbedAgainConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "dataset folder with recordings and days of release")
    clip: str = opt(MISSING, "run folder of train.py clip")
    yesterday: str = opt("2026-06-17", "songs before it are in the first catalogue, YYYY-MM-DD")
    today: str = opt("2026-06-24", "songs before it are in the second one")
    out: str = opt("runs/embed_again.json", "JSON file to write")
    rounds: int = opt(5, "rounds, in each of which both run")


def main(config: EmbedAgainConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "rounds")
    with scratch(Path(config.out).with_suffix("")) as work:
        tell(config, measured(config, work))


def measured(config: EmbedAgainConfig, work: Path) -> dict[str, Any]:
    """How many songs are new, and the median seconds of both ways."""
    days = {name: prepared(config, work, name) for name in ("yesterday", "today")}
    embedded(config, days["yesterday"], work / "yesterdays")
    took: dict[str, list[float]] = {"anew": [], "with earlier=": []}
    vectors = {}
    for _ in range(config.rounds):
        for name, options in {"anew": [], "with earlier=": [f"earlier={work}/yesterdays"]}.items():
            shutil.rmtree(days["today"] / "text_cache", ignore_errors=True)
            took[name].append(embedded(config, days["today"], work / "features", *options))
            vectors[name] = read_features(work / "features", Catalogue.read(days["today"]).n_songs)
    for name, array in vectors["anew"].items():
        assert np.array_equal(array, vectors["with earlier="][name], equal_nan=True), f"{name} differs"
    songs = {name: Catalogue.read(folder).n_songs for name, folder in days.items()}
    ratios = np.array(took["with earlier="]) / np.array(took["anew"])
    return {
        "songs": songs["today"],
        "new_songs": songs["today"] - songs["yesterday"],
        "seconds": {name: float(np.median(each)) for name, each in took.items()},
        "ratio": {"median": float(np.median(ratios)), "least": float(ratios.min()), "most": float(ratios.max())},
    }


def prepared(config: EmbedAgainConfig, work: Path, name: str) -> Path:
    """The catalogue of the songs before a day; both share their decoded audio."""
    until = getattr(config, name)
    given = [f"source={config.data}", f"out={work}/{name}", f"audio.cache={work}/audio", "split.by=random"]
    prepare(load(PrepareConfig, [*given, f"split.until={until}"]))
    return work / name


def embedded(config: EmbedAgainConfig, catalogue: Path, out: Path, *options: str) -> float:
    """Processor seconds of embedding a catalogue."""
    began = time.process_time()
    embed(load(EmbedConfig, [f"clip={config.clip}", f"data={catalogue}", f"out={out}", "accelerator=cpu", *options]))
    return time.process_time() - began


if __name__ == "__main__":
    command(main, EmbedAgainConfig, __doc__)
