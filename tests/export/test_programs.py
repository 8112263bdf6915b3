"""Programs of an export: ONNX and torch.export give the vectors of the model, whatever the sizes, without its code."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers as hf
from huggingface_hub import ModelCard
from tokenizers import Tokenizer
from torch import Tensor

from artifacts.runs import open_run
from configs.errors import UserError
from configs.load import load as options
from configs.serving import ExportConfig
from data.text import token_batch, token_rows
from datamodules.boundary import BoundaryDataModule
from datamodules.catalogue import CatalogueDataModule
from datamodules.i2i import I2IDataModule
from export import model as export
from export import model_card, parts, programs
from inference.vectors import data_options
from lightning_modules.clip import ClipModule
from models.clip import ClipModel
from models.packaged import resolve_model
from models.song_encoder import SongEncoder
from models.towers import BoundaryModel
from tests.tiny_models import tiny_bert, tiny_wav2vec2

ROOT = Path(__file__).parents[2]
PARTS = {"i2i": ["song"], "boundary": ["item", "user", "boundary"], "clip": ["audio", "text"]}
FRONT = {"sample_rate": 16000, "win_length": 800, "hop_length": 320, "n_mels": 64}
OWN = {"model": "transformer", "dim": 0, "width": 16, "layers": 1, "heads": 2}
SMALL: dict[str, Any] = {"dim": 8, "dropout": 0.1, "temperature": 0.07}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("bert"), resolve_model("minilm"))


@pytest.fixture(scope="module")
def exports(
    i2i_run: Path, boundary_run: Path, bert: str, save_clip_run: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:  # fmt: skip
    """Both formats of a trained i2i and boundary run, and of a clip run with random weights, low-rank ones too."""
    at = tmp_path_factory.mktemp("programs")
    torch.manual_seed(0)
    text = {"model": bert, "dim": 16, "frozen": False, "lora_rank": 4}
    model = {"audio": OWN, "text": text, "front": FRONT, **SMALL}
    module = ClipModule(model, FRONT | {"text_model": bert, "crops": 3, "windows": 1, "crop_seconds": 2.0})
    shake(module)
    for task, run in {"i2i": i2i_run, "boundary": boundary_run, "clip": save_clip_run(at / "run", module)}.items():
        export.export_model(options(ExportConfig, [f"run={run}", f"out={at}/{task}", "formats=[onnx,torch_export]"]))
    return {task: at / task for task in PARTS}


@torch.no_grad()
def shake(model: Any) -> None:
    """Move all weights: low-rank additions start at zero, and would not be seen."""
    for weight in model.parameters():
        weight += 0.05 * torch.randn_like(weight)


def run_onnx(path: Path, batch: dict[str, Tensor]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    made: np.ndarray = session.run(["vector"], {name: value.numpy() for name, value in batch.items()})[0]
    return made


def run_both(folder: Path, part: str, batch: dict[str, Tensor]) -> list[np.ndarray]:
    """Of ONNX, and of torch.export."""
    program = torch.export.load(folder / "torch_export" / f"{part}.pt2").module(check_guards=False)
    return [run_onnx(folder / "onnx" / f"{part}.onnx", batch), program(batch).detach().numpy()]


def songs(fields: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"songs.{name}": value for name, value in fields.items()}


@pytest.mark.parametrize("rows", [[8], [5, 8, 0], list(range(60))], ids=len)
def test_songs_have_the_vectors_of_the_model(rows: list[int], exports: dict[str, Path], i2i_run: Path) -> None:
    """Song 8 has nothing at all, song 5 no content vector; the plain model is `test_export`'s business."""
    source = I2IDataModule(CatalogueDataModule(**data_options(open_run(i2i_run, "i2i"), None, None)))
    fields = source.fields.gather(np.array(rows))
    model, _ = export.load(exports["i2i"])
    wanted = model(fields).numpy()
    for made in run_both(exports["i2i"], "song", songs(fields)):
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)
    fewer = fields | {name: value[:, :1] for name, value in fields.items() if value.dtype == torch.int64}
    wanted = model(fewer).numpy()
    np.testing.assert_allclose(run_both(exports["i2i"], "song", songs(fewer))[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 80])
def test_three_towers_decide_as_the_model_does(n: int, exports: dict[str, Path], boundary_run: Path) -> None:
    run = open_run(boundary_run, "boundary")
    vocabularies = json.loads((boundary_run / "vocabulary.json").read_text("utf-8"))
    catalogue = CatalogueDataModule(**data_options(run, None, None))
    data = BoundaryDataModule(catalogue, profile_vocabulary=vocabularies["users"])
    users = next(iter(data.users_loader(np.arange(n))))
    users["mask"][0] = False  # a user without any history, the only one of the smallest batch
    users["numbers"][0] = torch.nan
    fields = data.fields.gather(np.arange(n, 60))
    model, _ = export.load(exports["boundary"])
    item, (user, bar) = model.item_vectors(fields).numpy(), model.user_vectors(users)
    batch = songs(users["songs"]) | {name: users[name] for name in ("codes", "numbers", "history", "mask", "strength")}
    made = zip(*(run_both(exports["boundary"], part, batch) for part in ("user", "boundary")), strict=True)
    for (user_ND, boundary_ND), item_MD in zip(made, run_both(exports["boundary"], "item", songs(fields)), strict=True):
        np.testing.assert_allclose(user_ND, user.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose((user_ND * boundary_ND).sum(axis=1), bar.numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(item_MD, item, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "frames"), [(1, 1), (3, 5), (2, 64), (1, 65), (4, 333)])
def test_crops_of_any_length(n: int, frames: int, exports: dict[str, Path]) -> None:
    rng = torch.Generator().manual_seed(frames)
    batch = {"logmel": torch.randn(n, frames, 64, generator=rng), "frames": torch.full((n,), frames)}
    batch["frames"][-1] = frames // 3  # none, of the shortest
    model, config = export.load(exports["clip"])
    wanted = model.embed_audio(batch).numpy()
    path = exports["clip"] / "onnx" / "audio.onnx"
    np.testing.assert_allclose(run_onnx(path, batch), wanted, atol=1e-5)
    padded = batch | {"logmel": torch.nn.functional.pad(batch["logmel"], (0, 0, 0, 40))}
    np.testing.assert_allclose(run_onnx(path, padded), wanted, atol=1e-5, err_msg="padding is not heard")
    assert config["torch_export"]["audio"]["at_least"] == {"frames": 65}
    if frames >= 65:
        np.testing.assert_allclose(run_both(exports["clip"], "audio", batch)[1], wanted, atol=1e-5)
    else:
        with pytest.raises(RuntimeError, match=">= 65"):
            run_both(exports["clip"], "audio", batch)


def test_words_from_the_tokenizer_beside_the_program(
    exports: dict[str, Path], bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch or transformers: tokenizer.json, then ONNX; as the catalogue's texts are read in training."""
    texts = ["a low note", None, "A Very High Note, Played Again and Again", "réveil"]
    tokenizer = Tokenizer.from_file(str(exports["clip"] / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch([text or "" for text in texts])
    ids = torch.tensor([one.ids for one in encoded])
    mask = torch.tensor([one.attention_mask for one in encoded])
    mask[1] = 0
    read = token_batch(*token_rows(texts, bert, 32))
    assert torch.equal(read["input_ids"][:, 0] * mask, ids * mask) and torch.equal(read["attention_mask"][:, 0], mask)
    model, _ = export.load(exports["clip"])
    assert any("lora" in name for name, _ in model.named_parameters())
    wanted = model.embed_text(read).numpy()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.zero_()
    assert np.abs(model.embed_text(read).numpy() - wanted).max() > 1e-3, "the low-rank additions show"
    for made in run_both(exports["clip"], "text", {"input_ids": ids, "attention_mask": mask}):
        np.testing.assert_allclose(made, wanted, atol=1e-5)
    shown = (ROOT / "docs" / "export.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(exports["clip"])
    made: dict[str, Any] = {"np": np, "onnxruntime": onnxruntime, "Tokenizer": Tokenizer}
    exec(shown, made)
    read = token_batch(*token_rows(["Song title\nand its lyrics"], bert, 32))
    model, _ = export.load(exports["clip"])
    np.testing.assert_allclose(made["vector"], model.embed_text(read).numpy(), atol=1e-5)
    assert hf.AutoTokenizer.from_pretrained(exports["clip"])("a low note")["input_ids"] == encoded[0].ids[:5]


@pytest.mark.parametrize("task", PARTS)
def test_the_config_says_what_a_program_takes(task: str, exports: dict[str, Path]) -> None:
    config = json.loads((exports[task] / "config.json").read_text("utf-8"))
    assert "onnx" in ModelCard.load(exports[task] / "README.md").data.tags
    for form, result in ((form, config[form]) for form in ("onnx", "torch_export")):
        assert list(result) == PARTS[task] and max(part["max_difference"] for part in result.values()) < 1e-5
        assert {part["file"] for part in result.values()} == {
            str(path.relative_to(exports[task])) for path in (exports[task] / form).iterdir()
        }
    for part in config["onnx"].values():
        session = onnxruntime.InferenceSession(exports[task] / part["file"])
        assert {one.name: one.shape for one in session.get_inputs()} == {
            name: one["shape"] for name, one in part["inputs"].items()
        }
        kinds = {"float32": "float", "int64": "int64", "bool": "bool"}
        assert {one.name: one.type for one in session.get_inputs()} == {
            name: f"tensor({kinds[one['dtype']]})" for name, one in part["inputs"].items()
        }
        (output,) = session.get_outputs()
        assert part["outputs"] == {output.name: {"dtype": "float32", "shape": output.shape}}


def test_a_program_tells_nothing_of_this_machine_and_holds_no_pickle(exports: dict[str, Path]) -> None:
    paths = [path for folder in exports.values() for path in folder.glob("*/*") if path.suffix in (".onnx", ".pt2")]
    assert len(paths) == 12
    for path in paths:
        whole = path.read_bytes()
        assert str(ROOT).encode() not in whole and b"site-packages" not in whole
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
            assert held["data/sample_inputs/model.pt"] == b""
            for kind in ("weights", "constants"):
                result = json.loads(held[f"data/{kind}/model_{kind}_config.json"])["config"]
                assert not any(one["use_pickle"] for one in result.values()) and (result or kind == "constants")
    whole = (exports["clip"] / "torch_export" / "audio.pt2").stat().st_size
    assert whole < 1_000_000, "the audio part holds no BERT"


@pytest.mark.parametrize("task", PARTS)
def test_the_examples_of_the_card_run(task: str, exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are printed, in the export's folder; that of ONNX where there is neither torch nor FirstPlay."""
    examples = (exports[task] / "README.md").read_text("utf-8").split("```python\n")[1:]
    of_onnx, of_torch = (example.split("```")[0] for example in examples)
    assert len(of_onnx.strip().splitlines()) <= 14
    config = json.loads((exports[task] / "config.json").read_text("utf-8"))
    code = f"import sys\nsys.modules['torch'] = sys.modules['pipeline'] = None\n{of_onnx}\nprint(vector.tolist())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=exports[task], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    monkeypatch.chdir(exports[task])
    made: dict[str, Any] = {}
    exec(of_torch, made)
    width = config["onnx"][PARTS[task][0]]["outputs"]["vector"]["shape"][1]
    assert made["vector"].shape == (2, width)
    np.testing.assert_allclose(json.loads(ended.stdout), made["vector"].detach().numpy(), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------- other towers


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_wav2vec2(tmp_path_factory.mktemp("wav2vec2"), tells_padding=True)


def written(model: Any, config: dict[str, Any], name: str, folder: Path, *formats: str) -> dict[str, Any]:
    """What is reported of the ONNX program of one part, after it has given the vectors of the model."""
    rest = {"audio": FRONT | {"store": "samples"}, "prepared": {"crop_seconds": 0.5}}
    shake(model)
    part = parts.parts_of(model.eval(), rest | config)[name]
    result: dict[str, Any] = programs.write_program(part, name, ["onnx", *formats], folder)["onnx"]
    return result


SLOW_TOWERS = [pytest.param(tower, marks=pytest.mark.slow) for tower in ("transformer", "published trained")]


@pytest.mark.parametrize("tower", ["musicnn", "published", *SLOW_TOWERS])
def test_every_audio_tower(tower: str, bert: str, wav2vec2: str, tmp_path: Path) -> None:
    """A frozen one of transformers stays outside; the others are part of the program, their front end too."""
    torch.manual_seed(0)
    published = {"model": wav2vec2, "dim": 24, "frozen": "trained" not in tower}
    audio = {"transformer": OWN, "musicnn": {"model": "musicnn", "dim": 200}}.get(tower, published)
    text = {"model": bert, "dim": 16}
    model = ClipModel(FRONT, audio, text, **SMALL)
    result = written(
        model, {"task": "clip", "model": {"audio": audio, "text": text}}, "audio", tmp_path, "torch_export"
    )
    inputs = {name: one["shape"] for name, one in result["inputs"].items()}
    assert (
        inputs
        == {
            "transformer": {"samples": ["crops", "samples"], "length": ["crops"]},
            "musicnn": {"samples": ["crops", "samples"], "length": ["crops"]},
            "published": {"pooled": ["crops", 24]},
            "published trained": {"input_values": ["crops", 8000], "attention_mask": ["crops", 8000]},
        }[tower]
    )
    assert 0 < result["max_difference"] < 1e-4
    if "samples" in inputs:  # shorter than what was traced, and not all of it real
        samples = (torch.randn(3, 24000).clamp(-3, 3) * 3000).to(torch.int16)
        batch = {"samples": samples, "length": torch.tensor([24000, 4000, 24000])}
        wanted = model.embed_audio(batch).numpy()
        for made in run_both(tmp_path, "audio", batch):
            np.testing.assert_allclose(made, wanted, atol=1e-4)


def test_a_frozen_bert_becomes_part_of_the_program(bert: str) -> None:
    torch.manual_seed(0)
    tower = {"model": bert, "dim": 16}
    model = ClipModel(FRONT, OWN, tower, **SMALL).eval()
    ids = torch.randint(0, 30522, (3, 6))
    pooled = hf.AutoModel.from_pretrained(bert).eval()(input_ids=ids).last_hidden_state.mean(dim=1)
    wanted = model.embed_text({"pooled": pooled})
    part = parts.parts_of(
        model,
        {"task": "clip", "model": {"audio": OWN, "text": tower}, "audio": {"store": "logmel"}, "prepared": {}},
    )["text"]
    made = part({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    torch.testing.assert_close(made, wanted)
    held = {name.split(".")[1] for name in part.state_dict()}
    assert held == {"0", "1"}, "BERT and its projection, nothing of the audio tower"
    assert sum(one.numel() for one in part.state_dict().values()) < sum(one.numel() for one in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [{"lora_rank": 4}, {"last_layers": 1}, {"recompute": True}], ids=str)
def test_a_text_tower_that_was_trained(tuned: dict[str, int], bert: str, wav2vec2: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    windows = 3 if "lora_rank" in tuned else 1
    audio, text = {"model": wav2vec2, "dim": 24}, {"model": bert, "dim": 16, "frozen": False}
    model = ClipModel(FRONT, audio, text | tuned, **SMALL)
    config = {"task": "clip", "model": {"audio": audio, "text": text | tuned}, "prepared": {"windows": windows}}
    result = written(model, config, "text", tmp_path)
    shape = ["texts", 3, "tokens"] if windows == 3 else ["texts", "tokens"]
    assert result["inputs"]["input_ids"]["shape"] == shape
    ids = torch.randint(0, 30522, (2, 3, 6) if windows == 3 else (2, 6))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch["attention_mask"][1, ..., 3:] = 0
    wanted = model.embed_text(batch).numpy()
    other = ClipModel(FRONT, audio, text, **SMALL).eval()
    other.text_project.load_state_dict(model.text_project.state_dict())
    assert np.abs(other.embed_text(batch).numpy() - wanted).max() > 1e-3, "training shows"
    np.testing.assert_allclose(run_onnx(tmp_path / "onnx" / "text.onnx", batch), wanted, atol=1e-5)


# ------------------------------------------------------------------------------------------- edges


def test_a_field_may_be_called_anything(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = {"vector": 3, "a b/c.ö\"'": 2}
    model = SongEncoder(names, {"mask": 5}, 8, 16, 8, dropout=0.1, block=64, normalise=True, input_dropout=0.0)
    result = written(model, {"task": "i2i"}, "song", tmp_path)
    assert list(result["inputs"]) == [f"songs.{name}" for name in (*names, "mask")]
    card = model_card.programs({"onnx": {"song": result}, "model": {}, "audio": FRONT})
    code = card.split("```python\n")[1].split("```")[0].replace("onnx/song.onnx", f"{tmp_path}/onnx/song.onnx")
    made: dict[str, Any] = {}
    exec(code, made)
    assert made["vector"].shape == (2, 8)


def test_users_without_a_profile(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"block": 64, "field_dim": 4, "hidden": 8, "dim": 4, "dropout": 0.1, "prior_plays": 2.0}
    model = BoundaryModel({"content": 5}, {}, {}, 0, **sizes)
    result = written(model, {"task": "boundary"}, "user", tmp_path)
    assert result["inputs"]["codes"]["shape"] == ["users", 0]


def test_a_program_that_differs_is_not_published(
    i2i_run: Path, exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = programs.opened
    monkeypatch.setattr(programs, "opened", lambda path: lambda batch: honest(path)(batch) * 1.001)
    with pytest.raises(
        UserError, match=r"torch_export/song.pt2 gives other vectors than the model: largest difference 0.00"
    ):
        export.export_model(options(ExportConfig, [f"run={i2i_run}", f"out={tmp_path}/out", "formats=[torch_export]"]))
    assert not list(tmp_path.iterdir())
    model, _ = export.load(exports["i2i"])
    path = exports["i2i"] / "onnx" / "song.onnx"
    for hurt in (lambda made: made, lambda made: made * torch.nan if len(made) > 1 else made):
        monkeypatch.setattr(programs, "opened", lambda path, hurt=hurt: lambda batch: hurt(honest(path)(batch)))
        if hurt(torch.ones(2)).isfinite().all():
            assert programs.checked(parts.song_part(model), path) < 1e-5
        else:
            with pytest.raises(UserError, match="nan in two batches"):
                programs.checked(parts.song_part(model), path)


def test_what_cannot_be_traced_is_told(tmp_path: Path) -> None:
    class Odd(SongEncoder):
        def forward(self, fields: dict[str, Tensor]) -> Tensor:
            return super().forward(fields) * float(fields["content"].nan_to_num().sum())

    with pytest.raises(UserError, match=r"the part song cannot be traced by torch\.export"):
        written(Odd({"content": 4}, {}, 4, 8, 4, 0.1, 64, True, 0.0), {"task": "i2i"}, "song", tmp_path)


def test_without_the_packages_it_says_which(i2i_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = programs.find_spec
    monkeypatch.setattr(programs, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    given = [f"run={i2i_run}", f"out={tmp_path}/out"]
    with pytest.raises(UserError, match=r"formats=\[onnx\] needs onnxscript: pip install"):
        export.export_model(options(ExportConfig, [*given, "formats=[onnx]"]))
    with pytest.raises(UserError, match="formats"):
        options(ExportConfig, [*given, "formats=[onx]"])
    export.export_model(options(ExportConfig, [*given, "formats=[torch_export]"]))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "onnx" not in config and list(config["torch_export"]) == ["song"]
    assert not (tmp_path / "out" / "onnx").exists()
