"""`train.py text`: the loss is transformers' own, the model learns, and its folder is a text model like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifacts.runs import open_run
from configs.errors import UserError
from configs.load import load
from configs.training import CorpusConfig
from data.text import text_vectors, unknown_share
from datamodules.masked_lm import IGNORED, MaskedLMDataModule
from lightning_modules.masked_lm import MaskedLMModule
from models.text_encoder import TextEncoder, load_tokenizer
from tests.callbacks.test_resume import assert_same, kill_when
from training.tasks import train_text

ALPHABET = "天地玄黄宇宙洪荒日月盈昃"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents that go round the alphabet from some place on: a neighbour tells a hidden character."""
    path = tmp_path_factory.mktemp("corpus") / "lyrics.jsonl"
    rng = np.random.default_rng(0)
    texts = [(ALPHABET * 5)[(at := int(rng.integers(12))) : at + 30] for _ in range(300)]
    path.write_text("\n".join(json.dumps({"lyrics": text}, ensure_ascii=False) for text in texts))
    return path


def options(corpus: Path, out: Path, *more: str) -> CorpusConfig:
    small = ["fields=[lyrics]", "model.width=32", "model.layers=1", "model.heads=2", "model.dropout=0"]
    small += ["max_tokens=40", "batch_size=16"]
    quiet = ["trainer.accelerator=cpu", "trainer.progress=false", "logger.wandb=off", "optim.lr=1e-2"]
    return load(CorpusConfig, [f"corpus={corpus}", f"out={out}", "trainer.epochs=40", *small, *quiet, *more])


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "text"
    train_text(options(corpus, out))
    return out


def test_the_loss_is_that_of_the_model_itself(corpus: Path) -> None:
    data = MaskedLMDataModule(corpus, ["lyrics"], max_tokens=40, batch_size=16)
    batch = next(iter(data.train_dataloader()))
    torch.manual_seed(0)
    module: Any = MaskedLMModule(len(data.tokenizer), 40, width=32, layers=1, heads=2, dropout=0.0)
    module.log = lambda *_, **__: None
    assert (batch["labels"] != IGNORED).any()
    torch.testing.assert_close(module.training_step(batch, 0), module.model(**batch).loss)


def test_it_learns_and_its_folder_is_a_text_model(run: Path, tmp_path: Path) -> None:
    best = json.loads((run / "manifest.json").read_text())["best"]["val/accuracy"]
    assert best > 0.4, "neighbours tell; chance is one in twelve"
    name = str(run / "model")
    trained = open_run(run, "text")
    encoder = TextEncoder(name)
    weight = encoder.bert.embeddings.word_embeddings.weight
    assert torch.equal(weight, trained.weights["model.bert.embeddings.word_embeddings.weight"])
    assert unknown_share([ALPHABET], name) == 0.0 < unknown_share([ALPHABET], "minilm")
    assert load_tokenizer(name).model_max_length == 40
    vectors = np.array(text_vectors([ALPHABET[:4], None, ALPHABET[4:]], name, 16, 4, tmp_path))
    assert vectors.shape == (3, 32) and np.isnan(vectors[1]).all() and not np.allclose(vectors[0], vectors[2], atol=0.1)


def test_a_finished_run_is_not_trained_again_and_other_text_is_refused(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_text(options(corpus, run))
    assert "already finished" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"other options \(model.layers: 1 → 2\)"):
        train_text(options(corpus, run, "model.layers=2"))
    corpus.write_text(corpus.read_text() + "\n")
    with pytest.raises(UserError, match=r"an earlier state of .*lyrics\.jsonl"):
        train_text(options(corpus, run))


def test_a_killed_run_goes_on_to_the_same_weights(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_text(options(corpus, tmp_path / "whole", "trainer.epochs=3"))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # what Lightning makes of Ctrl-C
        kill_when(patch, MaskedLMModule, "training_step", lambda m, *_: m.current_epoch == 2, KeyboardInterrupt)
        train_text(options(corpus, tmp_path / "killed", "trainer.epochs=3"))
    assert not (tmp_path / "killed" / "model").exists()
    train_text(options(corpus, tmp_path / "killed", "trainer.epochs=3"))
    assert_same(*(open_run(tmp_path / name, "text").weights for name in ("whole", "killed")))
    assert (tmp_path / "killed" / "model" / "tokenizer.json").exists()
