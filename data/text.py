"""A song's text, its tokens, and its vector under a frozen BERT (computed once, then read from a cache).

Shapes: N texts, W windows of a text, L tokens of a window, B BERT's width.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
from tqdm import tqdm

from artifacts.fingerprints import of_file
from configs.errors import UserError
from data.arrays import AnyArray, FloatArray, IntArray
from data.contract.columns import TEXT_TYPES, TEXTS
from data.row_shards import ALONE, Ranks, RowShards
from data.words import plain
from models.packaged import resolve_model
from models.vocabulary import unknown_words

if TYPE_CHECKING:  # torch is half a gigabyte: what needs it imports it
    import torch

BUCKET = 16  # texts are padded to a multiple of this many tokens
USUAL = 128  # tokens of a text; of longer ones fewer are in a batch
SAMPLE = 2000  # texts on which the share of unknown words is measured
READ = 2000  # characters of each of them
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}"  # scripts without spaces, of which each character counts as a word
WORDS = rf"[{UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}--[{UNSPACED}]]+"

Texts = Sequence[str | None]
Loaded = TypeVar("Loaded")


def read_as(prepared: dict[str, Any]) -> dict[str, Any]:
    """Options by which a CLIP run reads texts: `model`, `fields`, `max_tokens`, `windows`."""
    names = {"model": "text_model", "fields": "text_fields", "max_tokens": "max_tokens", "windows": "windows"}
    return {name: prepared[of] for name, of in names.items()}


def song_texts(songs: pl.DataFrame, fields: Sequence[str]) -> list[str | None]:
    """One text a song: the given columns, one below the other; list columns are joined by commas. None: no text.

    Lyrics are without what is form and no word (`data.words`).
    Any column of text or lists of text will do, also one that the contract does not know.

    Raises:
        UserError: a field is no text column of the table.
    """
    lists = [name for name, dtype in songs.schema.items() if getattr(dtype, "inner", None) in TEXT_TYPES]
    usable = [name for name, dtype in songs.schema.items() if dtype in TEXT_TYPES or name in lists]
    wrong = [name for name in fields if name not in usable]
    if wrong or not fields:
        raise UserError(
            f"text.fields: {', '.join(wrong) or 'empty'}; choose among the text columns {', '.join(usable)}"
        )
    columns = [
        pl.col(name).cast(TEXTS).list.join(", ", ignore_nulls=True) if name in lists else pl.col(name).cast(pl.String)
        for name in fields
    ]
    songs = plain(songs.select(*dict.fromkeys(fields)))
    parts = [column.str.strip_chars().replace("", None) for column in columns]
    joined = pl.concat_str(parts, separator="\n", ignore_nulls=True).replace("", None)
    return songs.select(joined.alias("text"))["text"].to_list()


def text_variants(songs: pl.DataFrame, fields: Sequence[str], variants: int, keep: float) -> list[list[str | None]]:
    """The texts of `song_texts`, and after them `variants` lists of texts with part of each song's tags.

    In a variant every element of a list column (genres, tags) stays with probability `keep`, and what stays is in a
    random order; other columns are whole. A song of which nothing would be left keeps its whole text. Seeded: the same
    table gives the same variants.

    Raises:
        UserError: a field is no text column.
    """
    whole = song_texts(songs, fields)
    found = [whole]
    for variant in range(variants):
        rng = np.random.default_rng((variant, songs.height))
        columns = list(dict.fromkeys(fields))
        lists = [name for name in columns if songs[name].dtype.is_nested()]
        part = songs.select(columns).with_columns(_part_of_lists(songs[name], keep, rng) for name in lists)
        texts = song_texts(part, fields)
        found.append([text or all_of_it for text, all_of_it in zip(texts, whole, strict=True)])
    return found


def _part_of_lists(column: pl.Series, keep: float, rng: np.random.Generator) -> pl.Series:
    elements = pl.DataFrame({"row": np.arange(len(column)), "value": column}).explode("value")
    drawn = elements.with_columns(pl.Series("draw", rng.random(elements.height))).filter(pl.col("draw") < keep)
    kept = drawn.sort("draw").group_by("row").agg(pl.col("value").drop_nulls())
    rows = pl.DataFrame({"row": np.arange(len(column))})
    return rows.join(kept, on="row", how="left", maintain_order="left")["value"].alias(column.name)


def text_numbers(texts: Sequence[Texts]) -> list[IntArray]:
    """A number for each text of each list, the same for the same text; a song without text counts as the empty one."""
    every = pl.Series([text or "" for one in texts for text in one], dtype=pl.String)
    return np.split(every.rank("dense").to_numpy().astype(np.int64), len(texts))


def token_rows(
    texts: Texts, model: str, max_tokens: int, windows: int = 1, tokenizer: Any = None
) -> tuple[AnyArray, IntArray]:
    """Token ids (N, W ≤ windows, L ≤ max_tokens) int32, zero-padded, and lengths (N, W); 0 where there is no text.

    A text longer than one window goes on in the next, each with its own [CLS] and [SEP]; what is beyond the last one
    is cut off. `tokenizer` is the model's where it is loaded already; one thread may use it at a time.

    Raises:
        UserError: the text model cannot be loaded, or cannot cut texts into windows.
    """
    has = [row for row, text in enumerate(texts) if text]
    if not has:
        return np.zeros((len(texts), 1, 1), dtype=np.int32), np.zeros((len(texts), 1), dtype=np.int64)
    if tokenizer is None:
        from models.text_encoder import load_tokenizer

        tokenizer = or_user_error(load_tokenizer, model)
    more = {"return_overflowing_tokens": True} if windows > 1 else {}
    if more and not tokenizer.is_fast:
        raise UserError(f"text.windows={windows}: the tokenizer of {model} cannot cut texts into windows; use 1")
    encoded = tokenizer([texts[row] for row in has], truncation=True, max_length=max_tokens, **more)
    row = np.asarray(has)[encoded.get("overflow_to_sample_mapping", np.arange(len(has)))]
    window = np.arange(len(row)) - np.searchsorted(row, row)  # rows come in order
    kept = np.flatnonzero(window < windows)
    row, window, ids = row[kept], window[kept], [encoded["input_ids"][at] for at in kept]
    lengths = np.zeros((len(texts), int(window.max()) + 1), dtype=np.int64)
    lengths[row, window] = [len(one) for one in ids]
    rows: AnyArray = np.zeros((*lengths.shape, int(lengths.max())), dtype=np.int32)
    rows[np.arange(rows.shape[2]) < lengths[:, :, None]] = np.concatenate([np.asarray(one) for one in ids])
    return rows, lengths


def token_batch(ids_NWL: AnyArray, lengths_NW: IntArray) -> dict[str, torch.Tensor]:
    """Inputs of `TextEncoder`, {"input_ids", "attention_mask"} (N, W, L), in which only real tokens are seen."""
    import torch

    mask_NWL = np.arange(ids_NWL.shape[2]) < lengths_NW[:, :, None]
    return {"input_ids": torch.from_numpy(ids_NWL).long(), "attention_mask": torch.from_numpy(mask_NWL).long()}


def text_vectors(
    texts: Texts,
    model: str,
    max_tokens: int,
    batch_size: int,
    cache: Path,
    windows: int = 1,
    ranks: Ranks = ALONE,
) -> FloatArray:
    """Pooled vectors (N, B) under the frozen model, memory-mapped from `cache`; NaN for a song without text.

    A text of several windows has the mean over the tokens of all of them.

    Texts go through BERT in batches of one shape for each bucket of lengths. That wastes little on padding, and makes
    a text's vector independent of the texts beside it, to the last bit on a CPU. `ranks` share the texts in shards;
    all of them call this with the same texts, and see the same cache folder.

    Raises:
        UserError: the text model cannot be loaded, or the cache folder cannot be written.
    """
    key = _key(texts, model, max_tokens, windows)
    path, shards = cache / f"{key}.npy", RowShards(cache / f"{key}.shards", len(texts), "text vectors")
    if not path.exists():
        _compute(texts, model, max_tokens, batch_size, windows, shards, shards.left(ranks))
    ranks.wait()
    if ranks.rank == 0 and not path.exists():
        shards.join("text", path)
        shutil.rmtree(shards.folder)
    ranks.wait()
    stored: FloatArray = np.load(path, mmap_mode="r")
    return stored


def text_dim(model: str) -> int:
    """Width B of a model's pooled vectors.

    Raises:
        UserError: the text model cannot be loaded.
    """
    from models.text_encoder import text_width

    return or_user_error(text_width, model)


def unknown_share(texts: Sequence[str], model: str) -> float:
    """Share of words, and of characters of scripts without spaces, that have [UNK] for this model's vocabulary, 0 … 1.

    It is measured on evenly spaced texts. Tokens would be the wrong measure: an unknown word is one token, a known one
    may be many.

    Raises:
        UserError: the text model cannot be loaded.
    """
    rows = np.unique(np.linspace(0, len(texts) - 1, SAMPLE).astype(int))[: len(texts)]
    sample = pl.Series([texts[row] for row in rows], dtype=pl.String).str.head(READ)
    counted = sample.str.extract_all(WORDS).explode().drop_nulls().value_counts(name="n")
    every = counted.to_series(0).to_list()
    unknown = or_user_error(lambda name: unknown_words(every, name), model)
    return float(counted["n"].filter(pl.Series(unknown, dtype=pl.Boolean)).sum() / max(counted["n"].sum(), 1))


def _compute(
    texts: Texts,
    model: str,
    max_tokens: int,
    batch_size: int,
    windows: int,
    shards: RowShards,
    left: Sequence[int],
) -> None:
    """Write the vectors of the texts of some shards."""
    encoder, device = _frozen(model)
    for shard in left:
        ids_NWL, lengths_NW = token_rows(texts[shards.rows(shard)], model, max_tokens, windows)
        vectors_NB = np.full((len(ids_NWL), text_dim(model)), np.nan, dtype=np.float32)
        batches = list(_buckets(lengths_NW, batch_size))
        title = "text vectors" if shards.count == 1 else f"text vectors {shard + 1}/{shards.count}"
        for rows, n_windows, length in tqdm(batches, desc=title, disable=not batches):
            size = in_batch(batch_size, n_windows * length)
            ids_RWL = np.zeros((size, n_windows, length), dtype=np.int64)
            width = min(length, ids_NWL.shape[2])
            ids_RWL[: len(rows), :, :width] = ids_NWL[rows, :n_windows, :width]
            lengths_RW = np.resize(lengths_NW[rows, :n_windows], (size, n_windows))
            vectors_NB[rows] = _pooled(encoder, device, ids_RWL, lengths_RW)[: len(rows)]
        shards.write(shard, text=vectors_NB)


def _frozen(model: str) -> tuple[Any, torch.device]:
    """The text model, and the device that it is on: a GPU if there is one."""
    import torch

    from models.packed_bert import packed
    from models.text_encoder import TextEncoder

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = or_user_error(TextEncoder, model).to(device)
    if device.type == "cpu":
        encoder.bert = packed(encoder.bert)
    return encoder, device


def _pooled(encoder: Any, device: torch.device, ids_RWL: AnyArray, lengths_RW: IntArray) -> FloatArray:
    """Vectors of texts, (R, B)."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch = token_batch(ids_RWL, lengths_RW)
    # a training may have chosen another attention, whose last digits differ (training/fit.py)
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
    with torch.inference_mode(), sdpa_kernel(backends):
        pooled_RB: FloatArray = encoder(**{k: v.to(device) for k, v in batch.items()}).float().cpu().numpy()
    return pooled_RB


def _buckets(lengths_NW: IntArray, batch_size: int) -> Iterator[tuple[IntArray, int, int]]:
    """(rows, windows, padded length): at most `in_batch` songs of one bucket; songs without text in none."""
    windows_N, longest_N = (lengths_NW > 0).sum(axis=1), lengths_NW.max(axis=1)
    shapes_N2 = np.stack([windows_N, -(-longest_N // BUCKET) * BUCKET], axis=1)
    for shape in np.unique(shapes_N2[windows_N > 0], axis=0):
        rows = np.flatnonzero((shapes_N2 == shape).all(axis=1))
        size = in_batch(batch_size, int(shape.prod()))
        for at in range(0, len(rows), size):
            yield rows[at : at + size], int(shape[0]), int(shape[1])


def in_batch(batch_size: int, tokens: int) -> int:
    """Texts of so many tokens in a batch: `batch_size` or, of long ones, what keeps a batch's tokens within limits."""
    return max(1, min(batch_size, batch_size * USUAL // tokens))


def _key(texts: Texts, model: str, max_tokens: int, windows: int) -> str:
    more = (windows,) if windows > 1 else ()
    or_user_error(resolve_model, model)
    state = folder_state(model)
    digest = hashlib.sha256(repr(("" if state else model, max_tokens, BUCKET, *more)).encode())
    digest.update(state.encode())
    for text in texts:
        digest.update(b"\0" if text is None else b"\1" + text.encode() + b"\0")
    return digest.hexdigest()[:32]


def folder_state(model: str) -> str:
    """Names and contents of the files of a model that is a folder, else "": weights may change under the same name."""
    folder = Path(model)
    if not folder.is_dir():
        return ""
    return repr([(file.name, of_file(file)) for file in sorted(folder.iterdir()) if file.is_file()])


def or_user_error(load: Callable[[str], Loaded], model: str, option: str = "text.model or text_model") -> Loaded:
    """Load a model by its name; a ValueError becomes a UserError that names the option."""
    try:
        return load(model)
    except ValueError as error:
        raise UserError(f"{error} (option {option})") from error
