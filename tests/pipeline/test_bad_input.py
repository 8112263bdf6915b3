"""Wrong input through the command line: one line that names the thing, exit status 2, and nothing left behind.

Then real kills: whatever a killed command leaves, the next run of the same command ends well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from artifacts.folders import write_manifest
from tests.commands import call

ROOT = Path(__file__).parents[2]
CPU = "trainer.accelerator=cpu trainer.progress=false logger.wandb=off trainer.epochs=1"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world, and everything that is made of it (read-only by agreement)."""
    at = tmp_path_factory.mktemp("bad")
    call(f"world songs=90 users=90 seconds=1.5 workers=1 truth_users=20 out={at}/world")
    call(f"prepare source={at}/world workers=0 out={at}/catalogue")
    small = "model.dim=16 model.width=16 model.layers=1 model.heads=2 model.crop_seconds=1 model.crops=1 batch_size=32"
    call(f"clip data={at}/catalogue {small} text.max_tokens=16 {CPU} out={at}/clip")
    call(f"embed clip={at}/clip data={at}/catalogue accelerator=cpu out={at}/features")
    for name in ("i2i", "boundary"):
        call(f"{name} data={at}/catalogue features={at}/features model.dim=8 model.hidden=16 {CPU} out={at}/{name}")
    call(f"index run={at}/i2i out={at}/index")
    return at


@pytest.fixture(scope="module")
def other(at: Path) -> Path:
    """Folders that are whole, but not of the same songs, split, audio or width as those of `at`."""
    call(f"world songs=100 users=90 seconds=1.5 workers=1 seed=1 out={at}/other/world")
    call(f"prepare source={at}/other/world workers=0 audio.n_mels=32 out={at}/other/catalogue")
    call(f"prepare source={at}/world workers=0 split.cold_share=0.25 out={at}/other/split")
    call(f"prepare source={at}/world workers=0 audio.n_mels=32 out={at}/other/mels")
    call(f"world songs=90 users=90 audio=false out={at}/other/words")
    call(f"prepare source={at}/other/words workers=0 out={at}/other/silent")
    shutil.copytree(at / "other" / "silent", at / "other" / "nobody")
    pairs, plays = (pl.read_parquet(at / "catalogue" / f"{name}.parquet") for name in ("pairs", "cold_plays"))
    pairs.clear().write_parquet(at / "other" / "nobody" / "val_pairs.parquet")
    plays.clear().write_parquet(at / "other" / "nobody" / "cold_plays.parquet")
    for name in ("narrow", "without", "shuffled"):
        shutil.copytree(at / "features", at / "other" / name)
    np.save(at / "other" / "narrow" / "clip_audio.npy", np.load(at / "features" / "clip_audio.npy")[:, :8])
    (at / "other" / "without" / "clip_audio.npy").unlink()
    ids = pl.read_parquet(at / "features" / "song_ids.parquet")
    ids.reverse().write_parquet(at / "other" / "shuffled" / "song_ids.parquet")
    call(f"i2i data={at}/other/silent model.dim=8 model.hidden=16 {CPU} out={at}/other/i2i")
    call(f"index run={at}/other/i2i data={at}/catalogue features={at}/other/without out={at}/other/fewer")
    return at / "other"


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in folder.rglob("*")}


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused(line)` gives the one line that the command complains with; nothing under tmp_path may change."""

    def run(line: str) -> str:
        before = everything(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            call(line)
        written = capsys.readouterr().err
        message = "\n".join(line for line in written.split("\n") if "%|" not in line)  # progress bars are no complaint
        assert ended.value.code == 2
        assert message.startswith("error: ") and message.endswith("\n") and message.count("\n") == 1, message
        assert everything(tmp_path) == before, "something was left behind"
        return message

    return run


WRONG = {  # command line → words of the complaint; out= is added
    "embed clip={at}/clip dat={at}/catalogue": ["dat", "'data'"],
    "i2i data={at}/catalogue optim.learning=1": ["optim.learning"],
    "prepare source={at}/clip": ["clip", "songs.parquet"],
    "prepare source={at}/absent": ["absent"],
    "prepare source={at}/world pairs.shrinkage=-1": ["pairs.shrinkage=-1: must be at least 0"],
    "prepare source={at}/world pairs.max_history=-1": ["pairs.max_history=-1: must be at least 0"],
    "prepare source={at}/world pairs.prior_outcomes=nan": ["pairs.prior_outcomes=nan: must be at least 0"],
    "prepare source={at}/world memory_gb=1e300": ["memory_gb=1e+300: must be at least 0 and below 1e+09"],
    "prepare source={at}/world plays={at}/nowhere": ["/nowhere: nothing is there"],
    "prepare source={at}/world format=lfm2k memory_gb=1": ["format=lfm2k is read as published"],
    "prepare source={at}/world format=mpd plays={at}/world": ["format=mpd has its own plays"],
    "prepare source={at}/world format=yambda": ["world has no listens.parquet: give the folder of a size of Yambda"],
    "prepare source={at}/world engine=spark memory_gb=1": ["memory_gb= is for engine=local"],
    "embed clip={at}/clip data={at}/world": ["world is a dataset folder", "catalogue folder", "pipeline.prepare"],
    "embed clip={at}/i2i data={at}/catalogue": ["i2i is a i2i run folder", "clip run folder", "train.py clip"],
    "embed clip={at}/clip data={at}/absent": ["folder not found", "absent"],
    "i2i data={at}/world": ["world is a dataset folder", "pipeline.prepare"],
    "i2i data={at}/catalogue features={at}/index": ["index is a index folder", "features"],
    "clip data={at}/features": ["features is a features folder"],
    "clip data={at}/catalogue model.heads=3": ["model.* or text.* options", "heads=3"],
    "clip data={at}/catalogue objective.micro_batch=-1": ["objective.micro_batch=-1", "at least 0"],
    "clip data={at}/catalogue text.frozen=false text.last_layers=1 text.lora_rank=2": ["one of them"],
    "text corpus={at}/absent.jsonl": ["absent.jsonl", "no such file"],
    "zeroshot features={at}/clip data={at}/catalogue labels=[a]": ["has no audio vectors", "pipeline.embed clip=RUN"],
    "probe data={at}/catalogue use=[moods]": ["use=['moods']"],
    "boundary data={at}/catalogue fields.use=[mood]": ["fields.use", "mood"],
    "index run={at}/boundary": ["boundary is a boundary run folder", "i2i run folder"],
    "index run={at}/catalogue": ["catalogue is a catalogue folder"],
    "index run={at}/i2i data={at}/world": ["world is a dataset folder"],
    "index run={at}/i2i features={at}/clip": ["clip is a clip run folder", "features"],
    "audience index={at}/features": ["features is a features folder", "pipeline.index"],
    "audience index={at}/i2i": ["i2i is a i2i run folder"],
    "audience mode=i2i2u": ["index="],
    "audience mode=boundary index={at}/index boundary={at}/clip": ["clip is a clip run folder"],
    "audience index={at}/index show=nobody": ["show=nobody"],
    "evaluate data={at}/catalogue index={at}/index truth={at}/world/outcomes.parquet": ["outcomes.parquet"],
    "evaluate data={at}/catalogue index={at}/index truth={at}/world/songs.parquet": ["columns missing", "favourited"],
    "evaluate data={at}/catalogue index={at}/index truth={at}/world/manifest.json": ["manifest.json"],
    "evaluate data={at}/catalogue index={at}/index budgets=[]": ["budgets"],
    "evaluate data={at}/catalogue index={at}/index compare.other={at}/absent": ["folder not found", "absent", "index"],
    "i2i data={at}/catalogue trainer.accelerator=magic": ["trainer.*", "magic"],
    "i2i data={at}/catalogue trainer.devices=many": ["trainer.*", "devices"],
    "boundary data={at}/catalogue trainer.epochs=0": ["trainer.epochs=0"],
    "boundary data={at}/catalogue batch_size=0 recall_k=-1": ["batch_size=0, recall_k=-1"],
    "clip data={other}/silent logger.wandb=off": ["silent", "both audio and text"],
    "i2i data={other}/nobody logger.wandb=off": ["nobody"],
    "boundary data={other}/nobody logger.wandb=off": ["nobody"],
    "export run={at}/index": ["index is not a run folder"],
    "export run={at}/absent": ["folder not found", "absent", "run folder", "train.py clip|i2i|boundary"],
    "index run={at}/i2i data={other}/catalogue": ["features", "other songs"],
    "i2i data={other}/catalogue features={at}/features": ["features", "other songs"],
    "index run={at}/i2i features={other}/narrow": ["narrow", "clip_audio", "8", "16"],
    "index run={at}/i2i features={other}/without": ["without", "clip_audio"],
    "audience mode=boundary index={other}/fewer boundary={at}/boundary": ["without", "clip_audio"],
    "zeroshot features={other}/shuffled data={at}/catalogue labels=[a]": ["shuffled", "other songs"],
    "probe features={other}/shuffled data={at}/catalogue use=[clip_audio]": ["shuffled", "other songs"],
    "embed clip={at}/clip data={other}/mels": ["n_mels 32", "64", "prepare"],
    "evaluate data={other}/catalogue index={at}/index": ["index", "other songs"],
    "evaluate data={other}/split index={at}/index": ["index", "split"],
    "evaluate data={at}/catalogue index={at}/index cb2cf={at}/clip": ["clip is a clip run folder"],
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_input_is_one_line(line: str, at: Path, other: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused(f"{line.format(at=at, other=other)} out={tmp_path}/out")
    for words in WRONG[line]:
        assert words in message
    assert not list(tmp_path.iterdir())


GOOD = {
    "world": "songs=50 users=50 audio=false",
    "prepare": "source={at}/world workers=0",
    "clip": f"data={{at}}/catalogue {CPU}",
    "i2i": f"data={{at}}/catalogue {CPU}",
    "boundary": f"data={{at}}/catalogue {CPU}",
    "embed": "clip={at}/clip data={at}/catalogue accelerator=cpu",
    "index": "run={at}/i2i",
    "audience": "index={at}/index",
    "evaluate": "data={at}/catalogue index={at}/index",
    "export": "run={at}/i2i",
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("where", ["thesis", "file", "kind", "file/out"])
def test_an_out_that_is_not_ours_is_left_alone(
    name: str, where: str, at: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "kind").mkdir()
    write_manifest(tmp_path / "kind", "something else", {})
    assert str(tmp_path / where.split("/")[0]) in refused(f"{name} {GOOD[name].format(at=at)} out={tmp_path}/{where}")


DAMAGE = {  # file → a command that needs it
    "catalogue/songs.parquet": f"i2i data={{at}}/catalogue {CPU}",
    "catalogue/plays.parquet": f"boundary data={{at}}/catalogue {CPU}",
    "catalogue/pairs.parquet": f"i2i data={{at}}/catalogue {CPU}",
    "catalogue/users.parquet": "audience index={at}/index",
    "catalogue/cold_plays.parquet": "evaluate data={at}/catalogue index={at}/index",
    "catalogue/manifest.json": "embed clip={at}/clip data={at}/catalogue",
    "features/song_ids.parquet": f"i2i data={{at}}/catalogue features={{at}}/features {CPU}",
    "features/clip_audio.npy": f"i2i data={{at}}/catalogue features={{at}}/features {CPU}",
    "catalogue/val_pairs.parquet": f"i2i data={{at}}/catalogue {CPU}",
    "clip/checkpoints/best.ckpt": "embed clip={at}/clip data={at}/catalogue",
    "i2i/checkpoints/best.ckpt": "audience index={at}/index",
    "boundary/checkpoints/best.ckpt": "export run={at}/boundary",
    "i2i/vocabulary.json": "export run={at}/i2i",
    "i2i/config.yaml": "index run={at}/i2i",
    "index/index.faiss": "audience index={at}/index",
    "index/vectors.npy": "audience index={at}/index",
    "index/songs.parquet": "evaluate data={at}/catalogue index={at}/index",
    "world/plays.parquet": "prepare source={at}/world",
}


@pytest.mark.parametrize("file", DAMAGE)
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_file_is_named(file: str, how: str, at: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    if (file, how) in (("i2i/config.yaml", "cut"), ("features/clip_audio.npy", "gone")):
        pytest.skip("half a YAML file may be a whole one; a feature folder may hold any arrays")
    damaged = at / file
    whole = damaged.read_bytes()
    if how == "gone":
        damaged.unlink()
    else:
        flipped = bytes(255 - byte for byte in whole[:64]) + whole[64:]
        damaged.write_bytes(flipped if how == "flipped" else whole[: len(whole) // 2])
    try:
        message = refused(f"{DAMAGE[file].format(at=at)} out={tmp_path}/out")
    finally:
        damaged.write_bytes(whole)
    assert str(at / file.split("/")[0]) in message


def test_an_index_of_another_encoder_is_refused(
    train_i2i: Callable[..., Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    """The run was trained again, into the same path, after the index was built."""
    run, folder = train_i2i(tmp_path / "run"), tmp_path / "index"
    call(f"index run={run} out={folder}")
    call(f"audience index={folder} out={tmp_path}/audience")
    shutil.rmtree(run)
    train_i2i(run, "seed=1")
    assert "another encoder" in refused(f"audience index={folder} out={tmp_path}/audience")
    data = json.loads((folder / "manifest.json").read_text())["data"]
    assert "another encoder" in refused(f"evaluate data={data} index={folder} out={tmp_path}/evaluation")
    call(f"index run={run} out={folder}")
    call(f"audience index={folder} out={tmp_path}/audience")


def test_a_catalogue_that_was_split_again_needs_a_new_index(
    at: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Or else new songs would be found among the known ones: themselves first."""
    for name in ("catalogue", "index"):
        shutil.copytree(at / name, tmp_path / name)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text()) | {"data": f"{tmp_path}/catalogue"}
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    call(f"audience index={tmp_path}/index out={tmp_path}/audience")
    call(f"prepare source={at}/world workers=0 split.cold_share=0.25 out={tmp_path}/catalogue")
    assert "another split" in refused(f"audience index={tmp_path}/index out={tmp_path}/audience")


def test_the_shell_sees_the_same(at: Path, tmp_path: Path) -> None:
    """Three real processes: the entry points are wired, the exit status is 2, no traceback."""
    for line, words in (
        ("train.py i2i dat=x out={out}", "'data'"),
        ("train.py i2j", "clip | i2i | boundary"),
        ("-m pipeline.audience index={at}/features out={out}", "features is a features folder"),
    ):
        argv = [sys.executable, *line.format(at=at, out=tmp_path / "out").split()]
        ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 2 and ended.stderr.startswith("error: ") and words in ended.stderr
        assert ended.stderr.count("\n") == 1 and ended.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_killed_training_goes_on(at: Path, tmp_path: Path) -> None:
    """From outside, at no chosen moment, once an epoch is saved; no epoch's figures are lost."""
    out, last = tmp_path / "i2i", tmp_path / "i2i" / "checkpoints" / "last.ckpt"
    options = f"data={at}/catalogue model.dim=8 model.hidden=16 batch_size=32 {CPU} trainer.epochs=15 out={out}".split()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "train.py", "i2i", *options], cwd=ROOT, stdout=log, stderr=log)
    while not last.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert json.loads((out / "manifest.json").read_text())["finished"] is False
    call(f"i2i {' '.join(options)}")
    assert json.loads((out / "manifest.json").read_text())["finished"] is True and not list(out.rglob("*.part"))
    before, after = (pl.read_csv(out / "logs" / f"metrics{n}.csv")["epoch"].drop_nulls() for n in (".1", ""))
    assert {*before, *after} == set(range(15)) and after.min() > 0


DEADLY = """
import os, signal, sys
import numpy as np
from tests.commands import call

open_memmap = np.lib.format.open_memmap
np.save = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
np.lib.format.open_memmap = lambda file, mode="r+", **how: np.save() if mode == "w+" else open_memmap(file, mode, **how)
call(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("name", "line"),
    [("features", "embed clip={at}/clip data={at}/catalogue accelerator=cpu"), ("index", "index run={at}/i2i")],
)
def test_a_killed_command_is_run_again(name: str, line: str, at: Path, tmp_path: Path) -> None:
    """Killed while it writes its folder, where an earlier one was."""
    shutil.copytree(at / name, tmp_path / "out")
    before, line = everything(tmp_path / "out"), f"{line.format(at=at)} out={tmp_path}/out"
    killed = subprocess.run([sys.executable, "-c", DEADLY, line], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert everything(tmp_path / "out") == before
    assert any(path.name.startswith(".out") for path in tmp_path.iterdir()), "killed before it wrote anything"
    call(line)
    assert os.listdir(tmp_path) == ["out"], "the leftovers are gone"
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(at / name))
    for path in (at / name).glob("*.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "out" / path.name), np.load(path))
