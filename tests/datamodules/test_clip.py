"""ClipDataModule, text vectors, one short CLIP training and the embed command, on a small catalogue made here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import polars as pl
import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import BertConfig, BertModel, BertTokenizerFast

from configs.embedding import EmbedConfig
from configs.errors import UserError
from data.text import USUAL, in_batch, text_vectors, token_rows, unknown_share
from datamodules.batches import Batch
from datamodules.clip import ClipDataModule
from lightning_modules.clip import ClipModule
from models.text_encoder import TextEncoder, load_tokenizer
from pipeline import embed

N_MELS, WARM, VALIDATION, SONGS = 8, 90, 10, 110
NO_AUDIO, NO_TEXT, SHORT = 4, 5, 6  # song rows
WORDS = ["rain", "sun", "road", "night", "love", "sea"]  # what a song is about: heard in its audio
OTHERS = ["dust", "wind", "fire", "gold", "hill", "door", "king"]  # of no consequence


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT with random weights in a folder of its own."""
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *OTHERS, "song", "of", "the"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    # At the usual spread of 0.02 an untrained BERT gives nearly the same vector to every text.
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=0.5, **sizes)
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 warm songs, 10 cold_val, 10 cold_test; each word has its own mel band, so audio and text agree."""
    folder = tmp_path_factory.mktemp("world") / "catalogue"
    folder.mkdir()
    rng = np.random.default_rng(0)
    word = np.arange(SONGS) % len(WORDS)
    frames = np.full(SONGS, 120)
    frames[NO_AUDIO], frames[SHORT] = 0, 13
    lines = rng.normal(0, 0.3, (frames.sum(), N_MELS)).astype(np.float16)
    lines[np.arange(len(lines)), np.repeat(word, frames)] += 3
    (folder / "audio").mkdir()
    (folder / "audio" / "all.raw").write_bytes(lines.tobytes())
    title = [f"song of {WORDS[w]} {OTHERS[row % 7]}" for row, w in enumerate(word)]
    title[NO_TEXT] = "  "
    title[8] = title[2]  # two songs of one text
    pl.DataFrame(
        {
            "song_id": [f"s{row}" for row in range(SONGS)],
            "title": title,
            "lyrics": pl.Series([None] * SONGS, dtype=pl.String),
            "tags": pl.Series([["the", "sea"]] + [[]] + [None] * (SONGS - 2), dtype=pl.List(pl.String)),
            "split": ["warm"] * WARM + ["cold_val"] * VALIDATION + ["cold_test"] * (SONGS - WARM - VALIDATION),
            "popularity": [1] * SONGS,
            "audio_shard": np.where(frames > 0, 0, -1),
            "audio_start": np.cumsum(frames) - frames,
            "audio_length": frames,
        }
    ).write_parquet(folder / "songs.parquet")
    audio = {"store": "logmel", "sample_rate": 1000, "n_mels": N_MELS, "hop_length": 20, "win_length": 50}  # 50 Hz
    shards = {"folders": ["audio"], "names": ["all"]}
    (folder / "manifest.json").write_text(json.dumps({"kind": "catalogue", "audio": audio, "audio_shards": shards}))
    return folder


def songs(folder: Path, bert: str, **options: Any) -> ClipDataModule:
    settings: dict[str, Any] = {"text_model": bert, "crop_seconds": 0.8, "crops": 3, "batch_size": 8, "max_tokens": 16}
    return ClipDataModule(folder, **(settings | options))


def module(data: ClipDataModule, bert: str, text_lr_scale: float = 0.1, **text: Any) -> ClipModule:
    """`text`: options of a BERT that is trained."""
    torch.manual_seed(0)
    prepared = {"text_model": bert, "text_fields": data.text_fields, "max_tokens": 16, "windows": data.windows}
    prepared |= {"frozen_text": data.frozen_text, "audio_model": data.audio_model, "frozen_audio": True}
    widths = data.widths()
    model = {
        "front": data.audio | {"freq_mask": 1, "time_mask": 5},
        "audio": {"model": data.audio_model, "dim": widths["audio"], "width": 16, "layers": 1, "heads": 2},
        "text": {"model": bert, "frozen": data.frozen_text, "dim": widths["text"], **text},
        **{"dim": 8, "dropout": 0.1, "temperature": 0.07},
    }
    prepared |= data.audio | {"crop_seconds": 0.8, "crops": data.crops.crops}
    rates: Any = {"lr": 3e-3, "weight_decay": 0.01, "warmup": 0.1, "audio_lr_scale": 0.1}
    return ClipModule(model, prepared, text_lr_scale=text_lr_scale, micro_batch=0, **rates)


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return L.Trainer(
        accelerator="cpu", default_root_dir=folder, **{**quiet, "use_distributed_sampler": False, **options}
    )


def test_training_rows_have_both_and_the_rest_is_counted(folder: Path, bert: str, capsys: Any) -> None:
    data = songs(folder, bert)
    data.setup("fit")
    assert data.rows("warm").tolist() == [row for row in range(WARM) if row not in (NO_AUDIO, NO_TEXT)]
    said = "88 of 90 warm songs; 2 lack audio or text, 0 of these have the other and are negatives"
    assert said in capsys.readouterr().out
    query, item = data.val_positives()
    assert query.tolist() == item.tolist() == list(range(WARM, WARM + VALIDATION))


def test_crops_are_read_inside_the_song_and_padded(folder: Path, bert: str) -> None:
    data = songs(folder, bert)
    lines = np.fromfile(folder / "audio" / "all.raw", dtype=np.float16).reshape(-1, N_MELS)
    start = data.catalogue.songs["audio_start"].to_numpy()
    rows = np.array([SHORT, 0, SONGS - 1, NO_AUDIO])
    crop, frames = (found.numpy() for found in data.crops.fixed(rows).values())
    assert crop.shape == (4, 3, 40, N_MELS) and frames.tolist() == [[13] * 3, [40] * 3, [40] * 3, [0] * 3]
    np.testing.assert_array_equal(crop[0, 1, :13], lines[start[SHORT] : start[SHORT] + 13])
    assert not crop[0, :, 13:].any() and not crop[3].any()
    for place, offset in enumerate((0, 40, 80)):
        np.testing.assert_array_equal(crop[2, place], lines[start[-1] + offset : start[-1] + offset + 40])
    offsets = set()
    for seed in range(200):
        found = data.crops.random(np.array([SONGS - 1]), np.random.default_rng(seed))
        crop, frames = (values.numpy() for values in found.values())
        match = [at for at in range(81) if np.array_equal(lines[start[-1] + at : start[-1] + at + 40], crop[0])]
        offsets.update(match)
        assert len(match) == 1 and frames.tolist() == [40]
    assert min(offsets) < 5 and max(offsets) > 75


def test_a_training_batch_is_a_function_of_its_seed(folder: Path, bert: str) -> None:
    data = songs(folder, bert)
    data.setup("fit")
    dataset: Any = data.train_dataloader().dataset
    rows = np.array([0, 3, 2, 7])
    first, again = dataset[Batch(rows, (0, 1, 2))], dataset[Batch(rows, (0, 1, 2))]
    assert torch.equal(first["audio"]["logmel"], again["audio"]["logmel"])
    assert not torch.equal(first["audio"]["logmel"], dataset[Batch(rows, (0, 1, 3))]["audio"]["logmel"])
    usable = [row for row in range(WARM) if row not in (NO_AUDIO, NO_TEXT)]
    assert first["id"].tolist() == [usable[row] for row in rows]
    assert first["audio"]["logmel"].dtype == torch.float16 and first["text"]["pooled"].shape == (4, 12)
    everything = dataset[Batch(np.arange(88), (0,))]
    same = everything["text_id"][:, None] == everything["text_id"]
    pairs = {(int(everything["id"][a]), int(everything["id"][b])) for a, b in same.nonzero().tolist() if a < b}
    assert (2, 8) in pairs


@pytest.mark.parametrize("frozen", [True, False])
def test_songs_with_one_of_the_two_end_each_training_batch(folder: Path, bert: str, frozen: bool, capsys: Any) -> None:
    data = songs(folder, bert, frozen_text=frozen, unpaired=5)
    data.setup("fit")
    assert "2 of these have the other and are negatives" in capsys.readouterr().out
    item = next(iter(data.train_dataloader()))
    assert len(item["id"]) == 8 + 2 and sorted(item["id"][8:].tolist()) == [NO_AUDIO, NO_TEXT]
    lacks_audio, lacks_text = item["id"] == NO_AUDIO, item["id"] == NO_TEXT
    assert torch.equal(item["has_audio"], ~lacks_audio) and torch.equal(item["has_text"], ~lacks_text)
    assert not item["audio"]["logmel"][lacks_audio].any() and len(item["audio"]["logmel"]) == 10
    step = module(data, bert)
    step.log_dict = lambda *_, **__: None  # type: ignore[assignment,method-assign]  # there is no trainer
    loss = step.training_step(item, 0)
    loss.backward()
    gradients = [weight.grad for weight in step.parameters() if weight.grad is not None]
    assert torch.isfinite(loss) and gradients and all(torch.isfinite(one).all() for one in gradients)
    assert {len(batch["id"]) for batch in data.val_dataloader()[0]} == {8, 2}, "validation has none of them"
    for index, view in enumerate(data.val_dataloader()):
        assert step.validation_step(next(iter(view)), 0, index)["id"].tolist() == list(range(WARM, WARM + 8))


def test_variants_of_the_text(folder: Path, bert: str) -> None:
    """Variant 0 is the whole text; a batch mixes them, and what it shows is what its numbers say."""
    data = songs(folder, bert, text_fields=["title", "tags"], text_variants=3, keep=0.5)
    data.setup("fit")
    assert len(data.texts) == len(data.text_vectors) == len(data.text_ids) == 4
    assert data.texts[0][0] == "song of rain dust\nthe, sea"
    shown = {one[0] for one in data.texts}
    assert len(shown) > 1 and all(text.startswith("song of rain dust") for text in shown if text)
    assert all(one[1:] == data.texts[0][1:] for one in data.texts), "songs without tags have nothing to leave out"
    dataset: Any = data.train_dataloader().dataset
    seen = set()
    for seed in range(40):
        item = dataset[Batch(np.arange(10), (seed,))]
        for song, number, vector in zip(item["id"].tolist(), item["shown_id"], item["text"]["pooled"], strict=True):
            (pooled,) = {
                tuple(vectors[song].tolist())
                for ids, vectors in zip(data.text_ids, data.text_vectors, strict=True)
                if ids[song] == number
            }
            assert pooled == tuple(vector.tolist())
            seen |= {pooled} if song == 0 else set()
        assert item["text_id"].tolist() == data.text_ids[0][item["id"]].tolist()
    assert len(seen) == len(shown)
    whole = next(iter(data.val_dataloader()[1]))
    np.testing.assert_array_equal(whole["text"]["pooled"], data.text_vectors[0][whole["id"]])


def test_training_without_usable_songs_is_refused(folder: Path, bert: str, tmp_path: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | {"audio_shards": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    table = pl.read_parquet(folder / "songs.parquet")
    table.with_columns(pl.lit(0).alias("audio_length")).write_parquet(tmp_path / "songs.parquet")
    data = songs(tmp_path, bert)  # no shards either: a catalogue of texts alone
    with pytest.raises(UserError, match="0 to train on"):
        data.setup("fit")
    data.setup("predict")
    item = next(iter(data.predict_dataloader()))
    assert item["has_audio"].sum() == 0 and item["has_text"].sum() == 7 and not item["audio"]["logmel"].any()


def test_text_vectors_are_the_same_in_a_training_with_other_attention(tmp_path: Path) -> None:
    """To the last bit: a song's vectors do not depend on which command came to its text first."""
    texts = [f"the long road of rain {'and the sun ' * n}" for n in range(24)]
    vectors = np.array(text_vectors(texts, "minilm", 64, 8, tmp_path / "embed"))
    with sdpa_kernel(SDPBackend.MATH):  # as `training.fit` in bfloat16 on a processor
        np.testing.assert_array_equal(text_vectors(texts, "minilm", 64, 8, tmp_path / "clip"), vectors)


def test_text_vectors_are_cached_and_do_not_depend_on_neighbours(tmp_path: Path, bert: str) -> None:
    texts = ["rain", None, "the sea of love " * 6, "sun", "road road"]
    vectors = np.array(text_vectors(texts, bert, 64, 4, tmp_path))
    assert vectors.shape == (5, 12) and np.isnan(vectors[1]).all() and np.isfinite(vectors[[0, 2, 3, 4]]).all()
    files = list(tmp_path.glob("*.npy"))
    stamp = files[0].stat().st_mtime_ns
    text_vectors(texts, bert, 64, 4, tmp_path)
    assert list(tmp_path.glob("*")) == files and files[0].stat().st_mtime_ns == stamp
    other = np.array(text_vectors(["night", "sun", "rain", texts[2], "love", "of"], bert, 64, 4, tmp_path))
    assert np.array_equal(other[[2, 3, 1]], vectors[[0, 2, 3]])
    text_vectors(texts, bert, 32, 4, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == len(list(tmp_path.glob("*"))) == 3
    with pytest.raises(UserError, match="text vectors cannot be kept here"):
        text_vectors(texts, bert, 16, 4, files[0])


def test_tokens_and_unknown_share(bert: str) -> None:
    ids, lengths = token_rows(["rain sea", None, "love " * 50], bert, 10)
    assert lengths.tolist() == [[4], [0], [10]] and ids.shape == (3, 1, 10)
    assert not ids[1].any() and not ids[0, 0, 4:].any()
    assert unknown_share(["rain sea", "xyz love"], bert) == pytest.approx(0.25)
    assert unknown_share([], bert) == 0.0
    assert unknown_share(["the night is dark and the rain falls"], "minilm") == 0.0
    assert unknown_share(["我愛你的歌聲和夜晚"], "minilm") > 0.2
    with pytest.raises(UserError, match="no-such-folder"):
        unknown_share(["x"], "./no-such-folder")


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "XLMRoberta"])
def test_a_text_model_without_a_vocabulary_is_refused(kind: str, tmp_path: Path) -> None:
    """Its tokenizer would know nothing: every word would be [UNK]."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(transformers, f"{kind}Config")(vocab_size=50, **sizes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    for reads in (lambda: unknown_share(["x"], str(tmp_path)), lambda: token_rows(["x"], str(tmp_path), 8)):
        with pytest.raises(UserError, match=r"has no vocabulary: add its tokenizer\.json or vocab\.txt") as error:
            reads()
        assert "\n" not in str(error.value)


def test_of_long_texts_fewer_are_in_a_batch() -> None:
    for tokens in (1, USUAL, USUAL + 1, 300, 8 * USUAL, 10**6):
        size = in_batch(32, tokens)
        assert 1 <= size <= 32 and (size == 1 or size * tokens <= 32 * USUAL)
        assert size == 32 or (size + 1) * tokens > 32 * USUAL


def test_a_long_text_goes_on_in_windows(bert: str, tmp_path: Path) -> None:
    """No token is lost or doubled; the vector is the mean over all tokens of the windows, each read by itself."""
    texts = ["rain sea", None, "love sea sun " * 8, "night " * 6]
    ids, lengths = token_rows(texts, bert, 10, windows=2)
    assert lengths.tolist() == [[4, 0], [0, 0], [10, 10], [8, 0]] and ids.shape == (4, 2, 10)
    tokenizer, encoder = load_tokenizer(bert), TextEncoder(bert)
    words = tokenizer("love sea sun " * 8, add_special_tokens=False)["input_ids"]
    assert ids[2, 0, 1:9].tolist() == words[:8] and ids[2, 1, 1:9].tolist() == words[8:16], "the rest is cut off"
    found = np.array(text_vectors(texts, bert, 10, 4, tmp_path, windows=2))
    assert np.isnan(found[1]).all()
    with torch.inference_mode():
        for text, rows in ((0, ids[0, :1, :4]), (2, ids[2]), (3, ids[3, :1, :8])):
            hidden = [encoder.bert(torch.tensor(row)[None].long()).last_hidden_state[0] for row in rows]
            np.testing.assert_allclose(found[text], torch.cat(hidden).mean(dim=0), atol=1e-5)
        mask = torch.from_numpy(np.arange(10) < lengths[:, :, None]).long()
        tuned = encoder(torch.from_numpy(ids).long(), mask).numpy()
    np.testing.assert_allclose(tuned[[0, 2, 3]], found[[0, 2, 3]], atol=1e-5)
    assert not tuned[1].any(), "the model that is trained reads windows alike"
    whole = np.array(text_vectors(texts, bert, 10, 4, tmp_path, windows=1))
    np.testing.assert_allclose(whole[[0, 3]], found[[0, 3]], atol=1e-6)
    assert not np.allclose(whole[2], found[2], atol=1e-3)


def predict(folder: Path, bert: str, batch_size: int, model: ClipModule, **options: Any) -> dict[str, torch.Tensor]:
    data = songs(folder, bert, batch_size=batch_size, **options)
    parts: Any = trainer(folder).predict(model, data)
    return {name: torch.cat([part[name] for part in parts]) for name in ("id", "clip_audio", "clip_text")}


@pytest.mark.parametrize("frozen", [True, False])
def test_vectors_are_bit_identical_whatever_the_batch(folder: Path, bert: str, frozen: bool) -> None:
    model = module(songs(folder, bert, frozen_text=frozen), bert)
    first = predict(folder, bert, 8, model, frozen_text=frozen)
    assert first["id"].tolist() == list(range(SONGS))
    assert torch.isnan(first["clip_audio"]).all(dim=1).nonzero().flatten().tolist() == [NO_AUDIO]
    assert torch.isnan(first["clip_text"]).all(dim=1).nonzero().flatten().tolist() == [NO_TEXT]
    for batch_size in (1, 3, SONGS):
        other = predict(folder, bert, batch_size, model, frozen_text=frozen)
        for name in ("clip_audio", "clip_text"):
            assert torch.equal(first[name].nan_to_num(), other[name].nan_to_num()), (name, batch_size)
    data = songs(folder, bert, frozen_text=frozen)
    data.setup("predict")
    order = np.random.default_rng(0).permutation(SONGS)
    with torch.inference_mode():
        shuffled = model.eval().predict_step(data.predict_dataloader().dataset[Batch(order, (0,))], 0)
    assert torch.equal(shuffled["clip_audio"].nan_to_num(), first["clip_audio"][order].nan_to_num())


def test_windows_reach_training_and_no_batch_is_larger_than_it_need_be(folder: Path, bert: str) -> None:
    data = songs(folder, bert, frozen_text=False, max_tokens=5, windows=3, batch_size=4)
    data.setup("fit")
    assert data.tokens[0][0].shape == (SONGS, 2, 5)  # four words and the ends of two windows
    item = next(iter(data.train_dataloader()))
    ids, mask = item["text"]["input_ids"], item["text"]["attention_mask"]
    assert ids.shape == mask.shape == (4, 2, 5) and mask.sum(dim=(1, 2)).tolist() == [8] * 4
    model = module(data, bert)
    model.log_dict = lambda *_, **__: None  # type: ignore[assignment,method-assign]
    assert torch.isfinite(model.training_step(item, 0))


@pytest.mark.parametrize("frozen", [True, False])
def test_training_brings_audio_and_text_together(folder: Path, bert: str, frozen: bool) -> None:
    data = songs(folder, bert, batch_size=22, frozen_text=frozen)
    model = module(data, bert, text_lr_scale=0.5)
    assert any("bert" in name for name in model.state_dict()) != frozen
    before = predict(folder, bert, 8, model, frozen_text=frozen)
    run = trainer(folder, max_epochs=40, enable_checkpointing=False, gradient_clip_val=1.0)
    run.fit(model, data)
    after = predict(folder, bert, 8, model, frozen_text=frozen)
    cold = list(range(WARM, SONGS))
    word = torch.tensor(cold) % len(WORDS)
    share = []
    for vectors in (before, after):
        found = (vectors["clip_text"][cold] @ vectors["clip_audio"][cold].T).argmax(dim=1)
        share.append((word[found] == word).float().mean().item())
    assert share[1] >= 0.8 and share[0] < 0.5, share


@pytest.fixture(scope="module")
def run_folder(folder: Path, bert: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run as train.py leaves it."""
    run = tmp_path_factory.mktemp("runs") / "clip"
    (run / "checkpoints").mkdir(parents=True)
    data = songs(folder, bert)
    fitted = trainer(run, max_epochs=1, enable_checkpointing=False)
    fitted.fit(module(data, bert), data)
    fitted.save_checkpoint(run / "checkpoints" / "best.ckpt")
    (run / "manifest.json").write_text(json.dumps({"kind": "clip run"}))
    (run / "config.yaml").write_text("seed: 0\n")
    return run


def test_embed_writes_the_feature_folder(folder: Path, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    arrays = []
    for batch_size in (3, 64):
        embed.main(EmbedConfig(str(run_folder), str(folder), str(out), batch_size=batch_size, accelerator="cpu"))
        arrays.append({name: np.load(out / f"{name}.npy") for name in ("clip_audio", "clip_text", "text")})
    for name, array in arrays[0].items():
        assert np.array_equal(array, arrays[1][name], equal_nan=True) and array.dtype == np.float32
        missing = NO_AUDIO if name == "clip_audio" else NO_TEXT
        assert np.flatnonzero(np.isnan(array).any(axis=1)).tolist() == [missing]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "features" and manifest["songs_with"]["clip_audio"] == SONGS - 1
    assert pl.read_parquet(out / "song_ids.parquet")["song_id"].to_list() == [f"s{row}" for row in range(SONGS)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features"]


def test_embed_refuses_what_does_not_fit(folder: Path, run_folder: Path, tmp_path: Path) -> None:
    def embed_with(clip: Path, data: Path) -> None:
        embed.main(EmbedConfig(str(clip), str(data), str(tmp_path / "out"), accelerator="cpu"))

    other_run = tmp_path / "other_run"
    other_run.mkdir()
    (other_run / "manifest.json").write_text(json.dumps({"kind": "i2i run"}))
    with pytest.raises(UserError, match="i2i run"):
        embed_with(other_run, folder)
    with pytest.raises(UserError, match="not a catalogue"):
        embed_with(run_folder, run_folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "songs.parquet").write_bytes((folder / "songs.parquet").read_bytes())
    shutil.copytree(folder / "audio", other / "audio")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["audio"]["hop_length"] = 10
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="hop_length 10"):
        embed_with(run_folder, other)
    assert not (tmp_path / "out").exists()


def test_labels_in_words_of_a_run_whose_bert_is_trained(folder: Path, bert: str, tmp_path: Path) -> None:
    """Each label's vector is its own, whatever labels stand beside it: padding is not read."""
    from artifacts.runs import Run
    from inference.zeroshot import label_vectors

    model = module(songs(folder, bert, frozen_text=False), bert)
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    made = Run(tmp_path, "clip", {}, dict(model.hparams), weights, "")
    long = "love of the sea and the road of gold"
    one, both = (label_vectors(made, labels, ["{}"], tmp_path) for labels in (["rain"], ["rain", long]))
    np.testing.assert_allclose(one[0], both[0], atol=1e-5)
    assert not np.allclose(both[0], both[1], atol=1e-2)
    assert label_vectors(made, [], ["{}", "{} music"], tmp_path).shape == (0, both.shape[1]), "nobody has a genre"


@pytest.mark.parametrize("options", [{"lora_rank": 2}, {"last_layers": 1}])
def test_partly_trained_bert_is_read_back_from_its_checkpoint(folder: Path, bert: str, options: dict[str, int]) -> None:
    data = songs(folder, bert, batch_size=22, frozen_text=False)
    model = module(data, bert, text_lr_scale=1.0, **options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(folder, max_epochs=1, enable_checkpointing=False).fit(model, data)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    of_bert = {name for name in changed if "text_encoder" in name}
    assert of_bert and all("lora_" in name if "lora_rank" in options else "layer.0." in name for name in of_bert)
    again = ClipModule(**model.hparams)
    again.load_state_dict(model.state_dict())
    first, second = (predict(folder, bert, 8, one, frozen_text=False)["clip_text"] for one in (model, again))
    assert torch.equal(first.nan_to_num(), second.nan_to_num())
