"""Which words the vocabulary of a text model lacks; without torch where the model has a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.packaged import KIND, NO_VOCABULARY, resolve_model

ALONE: dict[str, Any] = {"add_special_tokens": False, "truncation": True, "max_length": 512}  # a word is read so


def unknown_words(words: Sequence[str], model: str) -> list[bool]:
    """Whether each word has a token that stands for what a text model's vocabulary lacks.

    Raises:
        ValueError: the model cannot be loaded, or has no vocabulary.
    """
    folder = Path(resolve_model(model))
    if not (folder / "tokenizer.json").is_file():
        from models.text_encoder import load_tokenizer  # here: torch is half a gigabyte

        tokenizer = load_tokenizer(model)
        rows, unknown = tokenizer(list(words), **ALONE)["input_ids"], tokenizer.unk_token_id
        return [unknown in row for row in rows]
    tokenizer, unknown = read_tokenizer(folder, model)
    return [unknown in row.ids for row in tokenizer.encode_batch(list(words), add_special_tokens=False)]


def read_tokenizer(folder: Path, model: str) -> tuple[Any, int | None]:
    """The tokenizer of a folder's tokenizer.json, and its token for unknown words.

    Raises:
        ValueError: a file is damaged, or there is no vocabulary.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        options = folder / "tokenizer_config.json"
        token = json.loads(options.read_text("utf-8")).get("unk_token") if options.is_file() else None
    except Exception as error:  # tokenizers raises it itself
        raise ValueError(f"{KIND} '{model}' cannot be loaded: its tokenizer is damaged ({error})") from error
    if tokenizer.get_vocab_size() <= len(tokenizer.get_added_tokens_decoder()):
        raise ValueError(NO_VOCABULARY.format(model))
    tokenizer.no_padding()
    tokenizer.enable_truncation(ALONE["max_length"])
    token = token.get("content") if isinstance(token, dict) else token
    token = token or getattr(tokenizer.model, "unk_token", None)
    return tokenizer, tokenizer.token_to_id(token) if token else None
