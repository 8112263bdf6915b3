"""`pipeline.embed` on one, two and three processes, and with one of them killed in the middle: the same files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.commands import call
from tests.distributed.test_launch import ROOT, ended, launch

SMALL = "songs=64 users=60 truth_users=10 seconds=1.5 workers=1"
CLIP = (
    "model.dim=16 model.width=16 model.layers=1 model.heads=2 model.crop_seconds=1 model.crops=2 batch_size=32 "
    "text.max_tokens=16 trainer.epochs=1 trainer.accelerator=cpu trainer.progress=false logger.wandb=off"
)
# embeds like pipeline/embed.py, in shards of few songs; tells of each, and one process may be killed at its `fate`-th
EMBED = """
import os, runpy, signal
from pathlib import Path
from data import row_shards
row_shards.LEAST = 8
real, here, made = row_shards.RowShards.write, Path(__file__).parents[1], []
def write(shards, shard, **arrays):
    real(shards, shard, **arrays)
    made.append(shard)
    with (here / "made").open("a") as file:
        file.write(f"{{'+'.join(arrays)}} {{shard}}\\n")
    if "{name}" in arrays and (len(made), os.environ.get("RANK")) == ({fate}, "{rank}"):
        os.kill(os.getpid(), signal.SIGKILL)
row_shards.RowShards.write = write
runpy.run_path({embed!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a catalogue of recordings and a CLIP run."""
    at = tmp_path_factory.mktemp("source")
    call(f"world {SMALL} out={at}/world")
    call(f"prepare source={at}/world out={at}/catalogue workers=0")
    call(f"clip data={at}/catalogue out={at}/clip {CLIP}")
    return at


def options(source: Path, kind: str, folder: Path) -> list[str]:
    """Of embed, on a catalogue of the folder's own: text vectors are cached in it."""
    if not (folder / "catalogue").exists():
        (folder / "catalogue").mkdir(parents=True)
        for path in (source / "catalogue").iterdir():
            (folder / "catalogue" / path.name).symlink_to(path)
        (folder / "catalogue" / "text_cache").unlink(missing_ok=True)
    more = [f"clip={source}/clip"] if kind == "clip" else ["text.fields=[tags,title]", "text.max_tokens=16"]
    return ["embed", f"data={folder}/catalogue", f"out={folder}/features", "accelerator=cpu", *more]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "features").iterdir() if path.name != "manifest.json"}


def embed_in(folder: Path, fate: int = 0, rank: int = 0, name: str = "") -> None:
    (folder / "pipeline").mkdir(parents=True, exist_ok=True)
    (folder / "pipeline" / "__init__.py").touch()
    real = str(ROOT / "pipeline" / "embed.py")
    (folder / "pipeline" / "embed.py").write_text(EMBED.format(fate=fate, rank=rank, name=name, embed=real))


@pytest.fixture(scope="module")
def one_process(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of one process with shards of the usual size."""
    found = {}
    for kind in ("clip", "text"):
        at = tmp_path_factory.mktemp(kind)
        call(" ".join(options(source, kind, at)))
        found[kind] = files(at)
    return found


def test_several_processes_write_what_one_does(
    source: Path, one_process: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """The vectors of the text encoder alone."""
    embed_in(tmp_path)
    ended(launch("torchrun.sh", options(source, "text", tmp_path), where=tmp_path, RANKS=2))
    assert files(tmp_path) == one_process["text"]
    made = Counter((tmp_path / "made").read_text().splitlines())
    assert made == {f"text {shard}": 1 for shard in range(8)}


def test_a_killed_process_loses_its_shard_alone(
    source: Path, one_process: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """One of two is killed while it encodes recordings, then three go on: no finished shard is made again."""
    embed_in(tmp_path, fate=6, rank=1, name="clip_audio")
    killed = launch("torchrun.sh", options(source, "clip", tmp_path), where=tmp_path, RANKS=2, RESTARTS=0)
    killed.communicate(timeout=240)
    assert killed.returncode and not (tmp_path / "features").exists()
    before = (tmp_path / "made").read_text().splitlines()
    assert {line.split()[0] for line in before} == {"text", "clip_audio+clip_text"}
    embed_in(tmp_path)
    ended(launch("torchrun.sh", options(source, "clip", tmp_path), where=tmp_path, RANKS=3))
    made = Counter((tmp_path / "made").read_text().splitlines())
    assert len(before) < len(made) == 16 and set(made.values()) == {1}
    assert files(tmp_path) == one_process["clip"]
    assert sorted(path.name for path in tmp_path.glob(".*")) == [], "nothing is left over"
    assert [path.suffix for path in (tmp_path / "catalogue" / "text_cache").iterdir()] == [".npy"]
