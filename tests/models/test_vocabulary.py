"""The words that a vocabulary lacks: as the text model's own tokenizer has them, and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from models.packaged import resolve_model
from models.vocabulary import unknown_words

WORDS = [
    "rain",
    "Rain",
    "CAFÉ",
    "cafe\u0301",
    "愛",
    "我",
    "ф",
    "Ünïcödé",
    "ok",
    "1984",
    "ｆｕｌｌ",
    "가",
    "กา",
    "x" * 600,
    "♪",
]
SPECIAL = {"unk_token": "<unk>", "pad_token": "<pad>"}


def folders(root: Path) -> Iterator[tuple[str, Path]]:
    """The packaged model, and folders with vocabularies of the other kinds."""
    yield "word pieces", Path(resolve_model("minilm"))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    kinds: dict[str, tuple[Any, Any]] = {
        "unigram": (models.Unigram([("<unk>", 0.0), ("<pad>", 0.0), ("▁rain", -1.0), ("▁", -2.0), ("o", -3.0)], 0),
                    pre_tokenizers.Metaspace()),
        "bytes": (models.BPE({token: n for n, token in enumerate(["<unk>", "<pad>", *letters])}, []),
                  pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "words": (models.WordLevel({"<unk>": 0, "<pad>": 1, "rain": 2, "我": 3}, unk_token="<unk>"),
                  pre_tokenizers.Whitespace()),
    }  # fmt: skip
    for name, (model, splits) in kinds.items():
        tokenizer = Tokenizer(model)
        tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizers.NFC(), splits, decoders.Fuse()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(root / name)
        yield name, root / name


def test_unknown_words_are_those_of_the_models_tokenizer(tmp_path: Path) -> None:
    lacking = {}
    for name, folder in folders(tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        rows = tokenizer(WORDS, add_special_tokens=False, truncation=True, max_length=512)["input_ids"]
        lacking[name] = unknown_words(WORDS, str(folder))
        assert lacking[name] == [tokenizer.unk_token_id in row for row in rows], name
    assert {name: sum(found) > 0 for name, found in lacking.items()} == {
        "word pieces": True, "unigram": True, "bytes": False, "words": True
    }  # fmt: skip
    assert not any(all(found) for found in lacking.values())
    assert unknown_words([], "minilm") == []


@pytest.mark.parametrize("damaged", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_one_line(damaged: str, tmp_path: Path) -> None:
    _, folder = next(one for one in folders(tmp_path) if one[0] == "words")
    (folder / damaged).write_text("")
    with pytest.raises(ValueError, match=r"words' cannot be loaded: its tokenizer is damaged \(.") as error:
        unknown_words(["rain"], str(folder))
    assert "\n" not in str(error.value)
    table = {"<unk>": 0}
    Tokenizer(models.WordLevel(table, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    made = json.loads((folder / "tokenizer.json").read_text())
    made["added_tokens"] = [
        {"id": 0, "content": "<unk>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
    ]  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(made))
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="has no vocabulary"):
        unknown_words(["rain"], str(folder))


def test_a_folder_without_a_model_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be loaded: the folder has no config\.json, so it holds no model$"):
        unknown_words(["rain"], str(tmp_path))


def test_prepare_counts_them_without_torch() -> None:
    """Which is half a gigabyte."""
    code = """
import sys, polars as pl
from data.preparation import text_notes
schema = {"title": pl.String, "lyrics": pl.String}
songs = pl.DataFrame({"title": ["我愛你的歌聲和夜晚"], "lyrics": [None]}, schema=schema)
assert "are unknown to text_model=minilm" in text_notes(songs, "minilm")[0]
print(*sorted({"torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
