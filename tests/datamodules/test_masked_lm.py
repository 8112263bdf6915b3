"""Corpora, character vocabularies, blocks and masks of the text encoder's own pretraining."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from datamodules import masked_lm
from datamodules.batches import Batch
from datamodules.masked_lm import CLS, IGNORED, MASK, PAD, SEP, SPECIAL, UNK, MaskedLMDataModule, mask

LINES = [
    {"title": "夜曲", "lyrics": "一群嗜血的蚂蚁\n被腐肉所吸引", "artist": "x"},
    {"title": "Rain", "lyrics": None},
    {"lyrics": " "},
]


def written(folder: Path, name: str) -> Path:
    path = folder / name
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in LINES).encode("utf-8-sig")  # as some editors do
    if name.endswith(".parquet"):
        pl.DataFrame(LINES).write_parquet(path)
    else:
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.parquet"])
def test_a_corpus_is_the_text_of_its_fields(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    assert masked_lm.read_corpus(path, ["title", "lyrics"]) == ["夜曲\n一群嗜血的蚂蚁\n被腐肉所吸引", "Rain"]
    assert masked_lm.read_corpus(path, ["lyrics"]) == ["一群嗜血的蚂蚁\n被腐肉所吸引"]
    with pytest.raises(UserError, match=r"fields=\['lyrcs'\]: the documents have title, lyrics, artist"):
        masked_lm.read_corpus(path, ["title", "lyrcs"])


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (None, "c.jsonl", "no such file"),
        (b"{broken", "c.jsonl", "cannot be read"),
        (b"not gzip", "c.jsonl.gz", "cannot be read"),
        (b"not parquet", "c.parquet", "cannot be read"),
        (b'{"title": " ", "lyrics": null}\n{"title": null}', "c.jsonl", "no document has any text in title, lyrics"),
        (b'{"title": "a", "lyrics": 7}', "c.jsonl", r"fields=\['lyrics'\]: not text"),
    ],
)
def test_a_bad_corpus_is_one_line(tmp_path: Path, content: bytes | None, name: str, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        masked_lm.read_corpus(tmp_path / name, ["title", "lyrics"])


def test_pieces_are_characters_and_a_rare_one_hides_no_other() -> None:
    tokenizer = masked_lm.character_tokenizer(
        masked_lm.frequent_characters(["愛愛 Love", "愛 love さくら", "罕 été さくら"], 2), 32
    )
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("愛罕 LOVEx さくz")["input_ids"])
    assert pieces == ["[CLS]", "愛", "[UNK]", "l", "o", "v", "e", "[UNK]", "さ", "く", "[UNK]", "[SEP]"]
    assert set(tokenizer.get_vocab()) == {*SPECIAL, *"愛loveさくら"}
    ids = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert [*ids, tokenizer.mask_token_id] == [PAD, UNK, CLS, SEP, MASK]


def test_a_corpus_of_rare_characters_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no character is seen 5 times; lower min_count or bring more text"):
        MaskedLMDataModule(written(tmp_path, "c.jsonl"))


def test_blocks_hold_every_token_once_and_documents_apart() -> None:
    texts = ["abcdefghijklmnop" * 2, "abc", "ponm"]
    tokenizer = masked_lm.character_tokenizer(masked_lm.frequent_characters(texts, 1), 10)
    rows = masked_lm.blocks(tokenizer, texts, 10)
    whole = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert rows.shape == (4 + 1 + 1, 10) and rows.dtype == np.int32
    assert (rows[:, 0] == CLS).all() and ((rows == SEP).sum(axis=1) == 1).all()
    inner = [[int(token) for token in row if token not in (PAD, CLS, SEP)] for row in rows]
    assert [token for row in inner[:4] for token in row] == whole[0] and inner[4:] == whole[1:]


def test_masks_follow_the_rule() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(len(SPECIAL), 50, (400, 100))
    ids[:, 0], ids[:, 90:] = CLS, PAD
    shown, labels = mask(ids, 50, np.random.default_rng(1))
    asked = labels != IGNORED
    assert not asked[:, 0].any() and not asked[:, 90:].any() and (labels[asked] == ids[asked]).all()
    assert (shown[~asked] == ids[~asked]).all()
    assert asked[:, 1:90].mean() == pytest.approx(0.15, abs=0.01)
    hidden, same = (shown == MASK)[asked].mean(), (shown == ids)[asked].mean()
    assert hidden == pytest.approx(0.8, abs=0.02) and same == pytest.approx(0.1 + 0.1 / 45, abs=0.02)
    assert shown.min() >= 0 and shown.max() < 50 and not np.isin(shown[asked], [PAD, CLS, SEP]).any()
    short = mask(np.array([[CLS, 9, SEP]]), 50, np.random.default_rng(0))
    assert (short[1] != IGNORED).any(), "something is always asked for"


@pytest.fixture
def data(tmp_path: Path) -> MaskedLMDataModule:
    rng = np.random.default_rng(0)
    rows = [{"title": "".join(rng.choice(list("abcdefgh"), 40)), "lyrics": None} for _ in range(60)]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return MaskedLMDataModule(tmp_path / "c.jsonl", max_tokens=16, min_count=1, batch_size=8)


def test_held_out_documents_are_apart_and_batches_are_functions_of_their_seed(data: MaskedLMDataModule) -> None:
    train, val = ({tuple(row) for row in data.blocks[name].tolist()} for name in ("train", "val"))
    assert len(val) == 3 * 3 and not train & val
    dataset: Any = data.train_dataloader().dataset
    first, again, other = (dataset[Batch(np.arange(8), seed)] for seed in ((0, 1), (0, 1), (0, 2)))
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["labels"].equal(other["labels"])
    assert (first["attention_mask"] == (first["input_ids"] != PAD)).all()
    one, two = ([batch["labels"].tolist() for batch in data.val_dataloader()] for _ in range(2))
    assert one == two, "validation asks the same every time"
