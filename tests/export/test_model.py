"""Exports: the same vectors as the LightningModule gives, in a process without any training library; no tampering."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from torch import Tensor

from artifacts.runs import open_run
from configs.errors import UserError
from configs.load import load as options
from configs.serving import ExportConfig
from data.catalogue import Catalogue
from datamodules.boundary import BoundaryDataModule
from datamodules.catalogue import CatalogueDataModule
from datamodules.i2i import I2IDataModule
from export import model as export
from inference.vectors import boundary_vectors, data_options, restore
from lightning_modules.clip import ClipModule
from lightning_modules.i2i import I2IModule

ROOT = Path(__file__).parents[2]
TASKS = ("i2i", "boundary", "clip")
BLOCKED = {"lightning", "pytorch_lightning", "faiss", "polars", "pyarrow", "wandb", "transformers"}


@pytest.fixture(scope="module")
def runs(
    i2i_run: Path, boundary_run: Path, save_clip_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A trained i2i and boundary run, and a clip run with random weights."""
    torch.manual_seed(0)
    audio = {"sample_rate": 16000, "win_length": 800, "hop_length": 320, "n_mels": 64}
    towers = {"audio": {"model": "transformer", "dim": 0, "width": 16, "layers": 1, "heads": 2}}
    towers |= {"text": {"model": "minilm", "dim": 384}, "front": audio}
    module = ClipModule(towers | {"dim": 8, "dropout": 0.1, "temperature": 0.07}, audio | {"text_model": "minilm"})
    clip = save_clip_run(tmp_path_factory.mktemp("export") / "clip", module)
    return {"i2i": i2i_run, "boundary": boundary_run, "clip": clip}


@pytest.fixture(scope="module")
def exports(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("exports")
    for task, run in runs.items():
        export.export_model(options(ExportConfig, [f"run={run}", f"out={at}/{task}"]))
    return {task: at / task for task in runs}


def inputs_and_vectors(task: str, run_folder: Path, n_users: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the model is given, by argument, and what the LightningModule makes of it."""
    run = open_run(run_folder, task)
    if task == "clip":
        module = restore(ClipModule, run)
        rng = torch.Generator().manual_seed(0)
        logmel, frames = torch.randn(6, 50, 64, generator=rng), torch.tensor([50, 50, 50, 17, 3, 50])
        text = torch.randn(6, 384, generator=rng)
        audio = {"logmel": logmel[:, None], "frames": frames[:, None]}
        batch: dict[str, Any] = {"id": torch.arange(6), "audio": audio, "text": {"pooled": text}}
        batch |= {name: torch.ones(6, dtype=torch.bool) for name in ("has_audio", "has_text")}
        made = module.predict_step(batch, 0)
        wanted = {"audio": made["clip_audio"], "text": made["clip_text"]}
        return {"logmel": logmel, "frames": frames, "pooled": text}, wanted
    if task == "i2i":
        source = I2IDataModule(CatalogueDataModule(**data_options(run, None, None)))
        fields = source.fields.gather(np.arange(source.catalogue.n_songs))
        module = restore(I2IModule, run)
        # An export encodes new songs: content alone, as of a song that has no residual.
        batch = {"id": torch.arange(60), "fields": fields, "residual": torch.zeros(60, dtype=torch.long)}
        return fields, {"songs": module.predict_step(batch, 0)["vector"]}
    vocabularies = json.loads((run_folder / "vocabulary.json").read_text("utf-8"))
    catalogue = CatalogueDataModule(**data_options(run, None, None))
    data = BoundaryDataModule(catalogue, profile_vocabulary=vocabularies["users"])
    fields = data.fields.gather(np.arange(60))
    users = next(iter(data.users_loader(np.arange(n_users))))
    made = boundary_vectors(run_folder, np.arange(60))
    given = {f"field:{name}": value for name, value in fields.items()}
    given |= {f"song:{name}": value for name, value in users.pop("songs").items()}
    given |= {f"user:{name}": value for name, value in users.items()}
    return given, {"items": made.item_CD, "users": made.user_UD, "boundary": made.boundary_U}


ELSEWHERE = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it fails
import numpy as np, torch
from export.model import load, load_tower
given = {{name: torch.from_numpy(array) for name, array in np.load(sys.argv[2]).items()}}
part = lambda kind: {{name.split(":")[1]: value for name, value in given.items() if name.startswith(kind + ":")}}
{use}
assert not model.training
np.savez(sys.argv[3], **{{name: vectors.detach().numpy() for name, vectors in made.items()}})
"""
LOAD = "model, _ = load(sys.argv[1])\n"
USE = {
    "i2i": LOAD + 'made = {"songs": model(given)}',
    "boundary": LOAD + 'users, boundary = model.user_vectors(part("user") | {"songs": part("song")})\n'
    'made = {"items": model.item_vectors(part("field")), "users": users, "boundary": boundary}',
    "clip": LOAD + 'made = {"audio": model.embed_audio({k: given[k] for k in ("logmel", "frames")}), '
    '"text": model.embed_text({"pooled": given["pooled"]})}',
}
TOWER = """model = load_tower(sys.argv[1], "{tower}")
made = {{"{tower}": model(part("field") if "{tower}" == "item" else part("user") | {{"songs": part("song")}})}}"""


def made_elsewhere(folder: Path, given: dict[str, Tensor], use: str, *allowed: str) -> dict[str, np.ndarray]:
    """Vectors of an export in another process, without the training libraries."""
    np.savez(folder / "given.npz", **{name: value.numpy() for name, value in given.items()})
    code = ELSEWHERE.format(blocked=sorted(BLOCKED - set(allowed)), use=use)
    argv = [sys.executable, "-c", code, str(folder), f"{folder}/given.npz", f"{folder}/made.npz"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return dict(np.load(folder / "made.npz"))


@pytest.mark.parametrize("task", TASKS)
def test_elsewhere_the_same_vectors(
    task: str, runs: dict[str, Path], exports: dict[str, Path], catalogue: Catalogue, tmp_path: Path
) -> None:
    """From a folder that was moved, without anybody's ids."""
    given, wanted = inputs_and_vectors(task, runs[task], catalogue.n_users)
    moved = shutil.copytree(exports[task], tmp_path / "moved", ignore=shutil.ignore_patterns("*_ids.parquet"))
    # the text encoder's file imports transformers: only the clip model needs it
    made = made_elsewhere(moved, given, USE[task], *(["transformers"] if task == "clip" else []))
    assert set(made) == set(wanted)
    for name, vectors in wanted.items():
        np.testing.assert_allclose(made[name], vectors, rtol=1e-5, atol=1e-6)
        assert np.ptp(made[name], axis=0).max() > 1e-3, "not all songs or users are one"


def test_each_tower_alone_scores_the_same(
    runs: dict[str, Path], exports: dict[str, Path], catalogue: Catalogue, tmp_path: Path
) -> None:
    """Three processes, each with one tower's file and no other; put together, the scores of the whole model."""
    given, wanted = inputs_and_vectors("boundary", runs["boundary"], catalogue.n_users)
    made = {}
    for tower in export.TOWERS:
        others = shutil.ignore_patterns(*(f"{other}.safetensors" for other in export.TOWERS if other != tower))
        folder = shutil.copytree(exports["boundary"], tmp_path / tower, ignore=others)
        made |= made_elsewhere(folder, given, TOWER.format(tower=tower))
        with pytest.raises(UserError, match="cannot be loaded"):
            export.load(folder)
    np.testing.assert_allclose(made["item"], wanted["items"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made["user"], wanted["users"], rtol=1e-5, atol=1e-6)
    boundary = (made["user"] * made["boundary"]).sum(axis=1)
    np.testing.assert_allclose(boundary, wanted["boundary"], rtol=1e-4, atol=1e-5)


def test_a_tower_that_is_not_there(exports: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tower 'head': choose from item, user, boundary"):
        export.load_tower(exports["boundary"], "head")
    with pytest.raises(UserError, match="holds a model of the task i2i, which has no towers"):
        export.load_tower(exports["i2i"], "item")
    folder = shutil.copytree(exports["boundary"], tmp_path / "cut")
    cut(folder / "item.safetensors")
    with pytest.raises(UserError, match="cannot be loaded"):
        export.load_tower(folder, "item")


@pytest.mark.parametrize("task", TASKS)
def test_weights_are_safetensors_and_all_of_the_model(
    task: str, runs: dict[str, Path], exports: dict[str, Path]
) -> None:
    trained = {
        name.removeprefix("model."): value
        for name, value in open_run(runs[task], task).weights.items()
        if name.startswith("model.")
    }
    parts = {"item": "item.", "user": "user.", "boundary": "boundary."} if task == "boundary" else {"model": ""}
    found = {}
    for part, prefix in parts.items():
        with safe_open(exports[task] / f"{part}.safetensors", framework="pt") as file:
            found |= {prefix + name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            assert file.metadata() == {"format": "pt"}, "transformers and the hub ask for it"
    assert set(found) == set(trained) and all(torch.equal(found[name], value) for name, value in trained.items())
    assert {path.name for path in exports[task].iterdir()} == {
        *(f"{part}.safetensors" for part in parts),
        "config.json", "song_ids.parquet", "user_ids.parquet", "README.md", "manifest.json",
    }  # fmt: skip
    left = [path for path in exports[task].iterdir() if path.suffix in (".ckpt", ".pt", ".pkl", ".bin")]
    assert not left, "nothing that would have to be unpickled"
    modes = {path.stat().st_mode for path in exports[task].iterdir()}
    assert len(modes) == 1, "a service under another account reads the weights as it reads the rest"


@pytest.mark.parametrize("task", TASKS)
def test_the_card_names_the_task_and_its_figures(
    task: str, runs: dict[str, Path], exports: dict[str, Path], catalogue: Catalogue
) -> None:
    """To a reader, and to huggingface_hub: library, tags and the figures that the model was chosen by, all of them."""
    card = (exports[task] / "README.md").read_text("utf-8")
    best = json.loads((runs[task] / "manifest.json").read_text())["best"]
    fingerprint = open_run(runs[task], task).fingerprint
    assert f"---\n\n# FirstPlay {task} model {fingerprint}\n" in card
    assert best and all(f"chosen by: {name} {value:.4f}" in card for name, value in best.items())
    assert f"{catalogue.n_songs} songs (48 known), {catalogue.n_users} users, {catalogue.plays.height} plays" in card
    model, _ = export.load(exports[task])
    assert f"numbers in the model: {sum(one.numel() for one in model.state_dict().values()):,}" in card
    assert "from export.model import load" in card and "{" not in card
    read = ModelCard.load(exports[task] / "README.md").data
    assert read.library_name == "firstplay" and read.license == "unknown" and "cold-start" in read.tags
    assert read.pipeline_tag == {"boundary": None}.get(task, "feature-extraction") and "onnx" not in read.tags
    assert read.model_name == f"firstplay-{task}-{fingerprint}"
    assert {one.metric_type: one.metric_value for one in read.eval_results} == best
    assert "60 songs" in read.eval_results[0].dataset_name


def test_ids_and_codes_go_with_the_model(exports: dict[str, Path], runs: dict[str, Path], catalogue: Catalogue) -> None:
    for task, folder in exports.items():
        config = json.loads((folder / "config.json").read_text("utf-8"))
        assert config["task"] == task and config["audio"] == catalogue.manifest["audio"]
        assert config["vocabulary"] == json.loads((runs[task] / "vocabulary.json").read_text("utf-8"))
        songs = pl.read_parquet(folder / "song_ids.parquet")
        assert songs.equals(catalogue.songs.select("song_id", "split"))
        assert pl.read_parquet(folder / "user_ids.parquet")["user_id"].equals(catalogue.users["user_id"])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite(**model: Any) -> Callable[[Path], Any]:
    """Change arguments of the model in config.json."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"model": config["model"] | model}))

    return change


TAMPERED: dict[str, Callable[[Path], Any]] = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half the weights": lambda folder: cut(folder / "model.safetensors"),
    "half the config": lambda folder: cut(folder / "config.json"),
    "no object": lambda folder: (folder / "config.json").write_text("[]"),
    "unknown task": lambda folder: (folder / "config.json").write_text('{"task": "os.system", "model": {}}'),
    "no argument": lambda folder: (folder / "config.json").write_text('{"task": "i2i", "model": {}}'),
    "other size": rewrite(dim=9),
    "odd size": rewrite(dim=-1),
    "unknown argument": rewrite(depth=9),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_export_is_refused(how: str, exports: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exports["i2i"], tmp_path / "export")
    TAMPERED[how](folder)
    with pytest.raises(UserError) as caught:
        export.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_towers_of_an_earlier_version_are_read(exports: dict[str, Path], tmp_path: Path) -> None:
    """Its config.json does not name prior_plays: few plays of a user count as much as in its training."""
    folder = shutil.copytree(exports["boundary"], tmp_path / "export")
    config = json.loads((folder / "config.json").read_text())
    assert config["model"].pop("prior_plays") > 0
    (folder / "config.json").write_text(json.dumps(config))
    assert export.load(folder)[0].user.prior_plays == 0


def test_what_is_no_export_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    words = {tmp_path / "absent": "not found", runs["i2i"]: "not a export", tmp_path: "manifest.json"}
    for folder, said in words.items():
        with pytest.raises(UserError, match=said):
            export.load(folder)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"kind": 3}', '{"kind": "catalogue"}'])
def test_a_run_with_another_manifest_is_no_run(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="is not a run folder"):
        export.task_of(tmp_path)


def test_a_card_of_an_unfinished_run_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs["i2i"], tmp_path / "run"))
    (run / "manifest.json").write_text('{"kind": "i2i run", "finished": false}')
    export.export_model(options(ExportConfig, [f"run={run}", f"out={tmp_path}/out"]))
    card = tmp_path / "out" / "README.md"
    assert "training not finished" in card.read_text("utf-8")
    assert ModelCard.load(card).data.eval_results is None


def test_an_export_that_would_not_load_is_not_written(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "within", lambda *_: {"stray": torch.zeros(2)})
    with pytest.raises(UserError, match="cannot be loaded"):
        export.export_model(options(ExportConfig, [f"run={runs['i2i']}", f"out={tmp_path}/out"]))
    assert not list(tmp_path.iterdir())
