"""Lyrics and titles as blocks of masked tokens: the DataModule of the text encoder's own pretraining.

The vocabulary is characters: enough for Chinese, where a character is about a word's worth, and for any script that an
English vocabulary does not know. Shapes: N blocks of a batch, L tokens.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import polars as pl
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from configs.errors import UserError
from data.arrays import AnyArray, IntArray
from data.text import song_texts
from datamodules.batches import Batch, batches_of, loader

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
MASKED, KEPT, RANDOM = 0.15, 0.1, 0.1  # Devlin et al., arXiv 1810.04805, §3.1
HELD_OUT = 0.05  # of the documents: validation
IGNORED = -100  # label of a token that is not asked for
NORMALIZER = normalizers.BertNormalizer(lowercase=True)
SINGLE = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex("."), "isolated")])

Item = dict[str, torch.Tensor]


class MaskedLMDataModule(L.LightningDataModule):
    """Documents cut into blocks of at most `max_tokens` tokens; batches are {"input_ids", "attention_mask", "labels"},
    each (N, L).

    In training each block is masked anew in every epoch, in validation always in the same way.
    """

    def __init__(
        self,
        corpus: str | Path,
        fields: Sequence[str] = ("title", "lyrics"),
        max_tokens: int = 128,
        min_count: int = 5,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        documents = read_corpus(Path(corpus), fields)
        order = np.random.default_rng(seed).permutation(len(documents))
        held = np.isin(np.arange(len(documents)), order[: max(1, round(HELD_OUT * len(documents)))])
        train, val = ([documents[row] for row in np.flatnonzero(part)] for part in (~held, held))
        if not train:
            raise UserError(f"{corpus}: {len(documents)} documents with text; at least two are needed")
        self.characters = frequent_characters(train, min_count)
        if not self.characters:
            raise UserError(f"{corpus}: no character is seen {min_count} times; lower min_count or bring more text")
        self.tokenizer = character_tokenizer(self.characters, max_tokens)
        self.blocks = {
            name: blocks(self.tokenizer, part, max_tokens) for name, part in (("train", train), ("val", val))
        }
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.documents = len(documents)

    def setup(self, stage: str | None = None) -> None:
        """Print the sizes of corpus and vocabulary when training starts."""
        if stage == "fit" and (self.trainer is None or self.trainer.is_global_zero):
            sizes = ", ".join(f"{len(one):,} blocks to {name}" for name, one in self.blocks.items())
            print(f"{self.documents:,} documents, {len(self.tokenizer):,} tokens in the vocabulary; {sizes}")

    def train_dataloader(self) -> DataLoader[Item]:
        """Blocks in a new order and with new masks each epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Item]:
        """Held-out documents."""
        return self._loader("val")

    def _loader(self, name: str) -> DataLoader[Item]:
        rows = self.blocks[name]
        batches = batches_of(self, len(rows), self.batch_size, shuffle=name == "train")
        return loader(MaskedBlocks(rows, len(self.tokenizer)), batches, self.workers)


class MaskedBlocks(Dataset[Item]):
    """A whole `Batch` of blocks with a share of their tokens hidden."""

    def __init__(self, rows: IntArray, vocabulary: int) -> None:
        self.rows, self.vocabulary = rows, vocabulary

    def __getitem__(self, batch: Batch) -> Item:
        ids = self.rows[batch.rows].astype(np.int64)
        ids = ids[:, : max(1, int((ids != PAD).sum(axis=1).max()))]
        shown, labels = mask(ids, self.vocabulary, np.random.default_rng(batch.seed))
        return {
            "input_ids": torch.from_numpy(shown),
            "attention_mask": torch.from_numpy((ids != PAD).astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }


def mask(ids_NL: IntArray, vocabulary: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """What the model sees, and labels: the true token where it is asked for, else −100, both (N, L).

    15 % of the tokens are asked for, special ones never; of these 80 % become [MASK], 10 % a random token, 10 % stay
    (Devlin et al., arXiv 1810.04805, §3.1).
    """
    may = ids_NL >= len(SPECIAL)
    asked = (rng.random(ids_NL.shape) < MASKED) & may
    if not asked.any():
        asked = may  # a batch of a few short texts: a loss over nothing would be no number
    fate = rng.random(ids_NL.shape)
    shown = np.where(asked & (fate >= KEPT), MASK, ids_NL)
    drawn = rng.integers(len(SPECIAL), vocabulary, ids_NL.shape)
    return np.where(asked & (fate >= 1 - RANDOM), drawn, shown), np.where(asked, ids_NL, IGNORED)


def read_corpus(path: Path, fields: Sequence[str]) -> list[str]:
    """One text a document: the given fields of a JSON-lines file (.jsonl, .jsonl.gz) or of a Parquet table, one below
    the other.

    Raises:
        UserError: no such file, not readable, or no document has any text in the fields.
    """
    if not path.is_file():
        raise UserError(f"corpus={path}: no such file (.jsonl, .jsonl.gz or .parquet)")
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path, glob=False)
        else:
            lines = path.read_bytes()
            lines = gzip.decompress(lines) if path.suffix == ".gz" else lines
            lines = lines.removeprefix(b"\xef\xbb\xbf")  # the mark that some editors put in front
            table = pl.read_ndjson(lines, infer_schema_length=None)
    except (OSError, EOFError, ValueError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if unknown := [name for name in fields if name not in table.columns]:
        raise UserError(f"{path}: fields={unknown}: the documents have {', '.join(table.columns)}")
    table = table.with_columns(pl.col(pl.Null).cast(pl.String))  # a field that is empty everywhere
    if wrong := [name for name in fields if table[name].dtype not in (pl.String, pl.List(pl.String))]:
        raise UserError(f"{path}: fields={wrong}: not text")
    texts = [text for text in song_texts(table, fields) if text]
    if not texts:
        raise UserError(f"{path}: no document has any text in {', '.join(fields)}")
    return texts


def frequent_characters(texts: Sequence[str], min_count: int) -> list[str]:
    """Characters seen at least `min_count` times, in order, as the tokenizer would meet them."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(piece for piece, _ in SINGLE.pre_tokenize_str(NORMALIZER.normalize_str(text)))
    return sorted(character for character, count in seen.items() if count >= min_count)


def character_tokenizer(characters: Sequence[str], max_tokens: int) -> Any:
    """A tokenizer whose pieces are single characters; others than the given ones are unknown.

    Lower case, accents off, no spaces. One unknown character hides no other, whatever the script.
    """
    vocabulary = {piece: at for at, piece in enumerate([*SPECIAL, *characters])}
    model = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL[UNK]))
    model.normalizer, model.pre_tokenizer = NORMALIZER, SINGLE
    model.post_processor = processors.BertProcessing((SPECIAL[SEP], SEP), (SPECIAL[CLS], CLS))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=model, model_max_length=max_tokens, **dict(zip(names, SPECIAL, strict=True))
    )


def blocks(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> IntArray:
    """Every document's tokens in rows of at most `max_tokens`, each with its own [CLS] and [SEP]: (N, L) int32."""
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_tokens, return_overflowing_tokens=True, padding="max_length"
    )
    rows: AnyArray = np.asarray(encoded["input_ids"], dtype=np.int32)
    return rows
