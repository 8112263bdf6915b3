"""Zero-shot tagging: compare each song's audio with each label, put into words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from artifacts.folders import read_manifest, writing
from artifacts.runs import Run, open_run
from configs.errors import UserError
from configs.targeting import ZeroshotConfig
from data.arrays import FloatArray, IntArray
from data.catalogue import Catalogue, read_features
from data.fields import FEATURES, check_same_songs
from data.text import text_vectors, token_batch, token_rows
from datamodules.clip import BERT_BATCH
from inference.vectors import restore
from lightning_modules.clip import ClipModule
from retrieval.index import build_index, search, unit_rows

KIND = "tags"


def tag_songs(config: ZeroshotConfig) -> None:
    """Run `pipeline.zeroshot` (its docstring says what it reads and writes)."""
    catalogue = Catalogue.read(config.data)
    audio_SD = audio_vectors(config.features, catalogue)
    own = own_labels(catalogue, config.column) if config.column else None
    labels = list(config.labels) if own is None else sorted({label for one in own for label in one})
    run = run_of(config.features)
    label_LD = label_vectors(run, labels, list(config.prompts), Path(config.data) / "text_cache")
    heard = np.flatnonzero(np.isfinite(audio_SD[:, 0]))
    scores_SK, at_SK = search(build_index(label_LD), audio_SD[heard], min(config.top, len(labels)))
    figures = None if own is None else accuracy(at_SK[:, 0], heard, own, labels)
    manifest = {"labels": labels, "prompts": list(config.prompts), "encoder": run.fingerprint}
    with writing(config.out, KIND, manifest) as folder:
        k = at_SK.shape[1]
        table = {
            "song_id": catalogue.songs["song_id"].gather(np.repeat(heard, k)),
            "rank": np.tile(np.arange(1, k + 1), len(heard)),
            "label": np.array(labels)[at_SK.ravel()],
            "score": scores_SK.ravel(),
        }
        pl.DataFrame(table).write_parquet(folder / "tags.parquet")
    print(f"{config.out}: {len(heard):,} of {catalogue.n_songs:,} songs have audio; {len(labels)} labels")
    if figures is not None:
        right = f"first tag right for {figures['accuracy']:.3f} of {figures['songs']:,} labelled songs"
        print(f"{right} (most frequent label {figures['most_frequent']:.3f}, chance {figures['chance']:.3f})")


def audio_vectors(features: str, catalogue: Catalogue) -> FloatArray:
    """`clip_audio` of a feature folder, (songs, D); NaN for a song without audio.

    Raises:
        UserError: no feature folder, of another catalogue, made without CLIP, or no song has audio.
    """
    found = read_features(Path(features), catalogue.n_songs)
    if "clip_audio" not in found:
        raise UserError(f"{features} has no audio vectors: make it with python -m pipeline.embed clip=RUN …")
    check_same_songs(catalogue, Path(features))
    vectors: FloatArray = np.asarray(found["clip_audio"])
    if not np.isfinite(vectors[:, 0]).any():
        raise UserError(f"{features}: no song has audio")
    return vectors


def run_of(features: str) -> Run:
    """The CLIP run that made a feature folder.

    Raises:
        UserError: it was moved or trained again since.
    """
    made = read_manifest(features, *FEATURES)
    run = open_run(made["clip"], "clip")
    if run.fingerprint != made["encoder"]:
        raise UserError(f"{features} was made by an earlier state of {run.folder}: embed again")
    return run


def own_labels(catalogue: Catalogue, column: str) -> list[list[str]]:
    """Each song's values in a column of text or lists of text.

    Raises:
        UserError: no such column, or it has no value.
    """
    songs = catalogue.songs
    if column not in songs.columns or songs[column].dtype not in (pl.String, pl.List(pl.String)):
        raise UserError(f"column={column}: {catalogue.folder} has no such column of text or lists of text")
    own = [[one] if isinstance(one, str) else one or [] for one in songs[column].to_list()]
    own = [[label for label in one if label] for one in own]
    if not any(own):
        raise UserError(f"column={column}: no song has a value")
    return own


def label_vectors(run: Run, labels: Sequence[str], prompts: Sequence[str], cache: Path) -> FloatArray:
    """A unit vector for each label, (L, D): the mean over its prompts (prompt ensembling, arXiv 2103.00020, §3.1.4)."""
    texts = [prompt.replace("{}", label) for label in labels for prompt in prompts]
    texts, n = texts or [""], len(texts)  # where there is no label, D is still to be known
    model, prepared = restore(ClipModule, run).model, run.hparams["prepared"]
    name, max_tokens = prepared["text_model"], prepared["max_tokens"]
    with torch.inference_mode():
        if prepared["frozen_text"]:
            pooled = np.array(text_vectors(texts, name, max_tokens, BERT_BATCH, cache))
            text = {"pooled": torch.from_numpy(pooled)}
        else:
            text = token_batch(*token_rows(texts, name, max_tokens))
        vectors = model.embed_text(text).numpy()
    return unit_rows(vectors[:n].reshape(len(labels), len(prompts), vectors.shape[1]).mean(axis=1))


def accuracy(first: IntArray, heard: IntArray, own: list[list[str]], labels: list[str]) -> dict[str, float]:
    """Share of songs whose first tag is one of their own labels, and what a constant and a random answer reach.

    Only songs with audio and a label count.

    Raises:
        UserError: no such song.
    """
    judged = [(labels[tag], set(own[song])) for tag, song in zip(first, heard, strict=True) if own[song]]
    if not judged:
        raise UserError("no song with audio has a label, so that no answer can be checked: give labels=[…] instead")
    counts = Counter(label for _, truth in judged for label in truth)
    return {
        "songs": len(judged),
        "accuracy": float(np.mean([tag in truth for tag, truth in judged])),
        "most_frequent": max(counts.values()) / len(judged),
        "chance": float(np.mean([len(truth) / len(labels) for _, truth in judged])),
    }
