"""Compute song features of a catalogue: a CLIP model's vectors of audio and text, or BERT's vectors alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from artifacts.fingerprints import CONTENT, of_folder, of_values
from artifacts.folders import check_replaceable, writing
from artifacts.runs import Run, open_run
from artifacts.tracking import made, tracked, used
from configs.errors import UserError
from configs.load import as_dict
from configs.training import TFIDF, EmbedConfig
from data.arrays import AnyArray, FloatArray
from data.catalogue import Catalogue
from data.fields import FEATURES, check_names
from data.text import folder_state, song_texts, text_vectors, unknown_share
from data.tfidf import CharacterTfidf, fit
from datamodules.clip import BERT_BATCH, FRAME_OPTIONS, ClipDataModule
from inference.vectors import restore
from lightning_modules.clip import ClipModule

KIND, _ = FEATURES
NAMES, TEXT = ("clip_audio", "clip_text"), "text"


@tracked("embed")
def embed(config: EmbedConfig, tracking: Any) -> None:
    """Run `pipeline.embed` (its docstring says what it reads and writes)."""
    out = Path(config.out)
    check_replaceable(out, KIND)
    if config.clip is None:
        return embed_text(config, tracking)
    run = open_run(config.clip, "clip")
    data = song_data(run, config)
    check_names(data.catalogue, (*NAMES, TEXT))
    parts = out.with_name(f".{out.name}.ranks")
    trainer = L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        callbacks=[PartWriter(parts)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.predict(restore(ClipModule, run), data, return_predictions=False)
    trainer.strategy.barrier("every rank has written its part")
    if trainer.is_global_zero:
        written = [parts / f"{rank}.npz" for rank in range(trainer.world_size)]
        arrays = merge([path for path in written if path.exists()], data.catalogue.n_songs)
        if data.text_vectors:
            arrays[TEXT] = np.asarray(data.text_vectors[0])
        read = [folder_state(run.hparams["prepared"][name]) for name in ("text_model", "audio_model")]
        made_by = {"clip": str(run.folder.resolve()), "encoder": run.fingerprint}
        made_by[CONTENT] = of_values(run.fingerprint, read, of_folder(data.catalogue.folder))
        write_features(out, arrays, data.catalogue, made_by)
        shutil.rmtree(parts)
        used(tracking, run.folder, config.data)
        made(tracking, out, config.logger.upload)


def embed_text(config: EmbedConfig, tracking: Any) -> None:
    """text.npy alone, through the cache that `ClipDataModule` uses; tf-idf is fitted anew, and kept beside it.

    Raises:
        UserError: no song has any text, a field is no text column, or the text model cannot be loaded.
    """
    options = config.text
    catalogue = Catalogue.read(config.data)
    check_names(catalogue, (TEXT,))
    texts = song_texts(catalogue.songs, options.fields)
    present = [text for text in texts if text]
    if not present:
        raise UserError(f"{config.data}: no song has any text in {', '.join(options.fields)}: choose other text.fields")
    made_by: dict[str, Any] = {"text": as_dict(options)}
    state = folder_state(options.model)
    same = as_dict(options) | ({"model": state} if state else {})
    made_by[CONTENT] = of_values(same, of_folder(catalogue.folder))
    told, fitted = f"  {len(texts) - len(present):,} songs without text", None
    if options.model == TFIDF:
        fitted = fit([texts[song] for song in catalogue.rows("warm")])
        vectors = fitted.vectors(texts)
    else:
        unknown = unknown_share(present, options.model)
        cache = catalogue.folder / "text_cache"
        vectors = text_vectors(texts, options.model, options.max_tokens, BERT_BATCH, cache, options.windows)
        made_by["unknown_words"] = round(unknown, 4)
        told += f"; {unknown:.1%} of words and characters unknown to {options.model}"
    write_features(Path(config.out), {TEXT: vectors}, catalogue, made_by, fitted)
    used(tracking, config.data)
    made(tracking, config.out, config.logger.upload)
    print(told)


def song_data(run: Run, config: EmbedConfig) -> ClipDataModule:
    """The catalogue's songs, cut and tokenised as in the run's training.

    Raises:
        UserError: the catalogue's log-mel frames are not those of the run.
    """
    if "prepared" not in run.hparams:
        raise UserError(f"{run.folder} was trained by an earlier version: train it again")
    prepared = run.hparams["prepared"]
    options = {name: value for name, value in prepared.items() if name not in FRAME_OPTIONS}
    data = ClipDataModule(config.data, config.batch_size, workers=config.workers, **options)
    # Of samples the model makes the frames itself.
    same = FRAME_OPTIONS if data.crops.is_logmel else ("sample_rate",)
    other = [
        f"{name} {data.audio[name]} (run: {prepared[name]})" for name in same if data.audio[name] != prepared[name]
    ]
    if other:
        raise UserError(
            f"{config.data} has other log-mel frames than {config.clip} was trained on: {', '.join(other)}; "
            "prepare it again with audio.* options as in the run's catalogue"
        )
    return data


class PartWriter(L.Callback):
    """Each rank writes its songs' vectors into `<folder>/<rank>.npz`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.columns: dict[str, list[AnyArray]] = {name: [] for name in ("id", *NAMES)}

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Keep the vectors of one batch, on the CPU."""
        for name, column in self.columns.items():
            column.append(outputs[name].cpu().numpy())

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write them; a rank without any song writes nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{trainer.global_rank}.npz"
        path.unlink(missing_ok=True)  # left by a killed run
        if self.columns["id"]:
            arrays: dict[str, Any] = {name: np.concatenate(column) for name, column in self.columns.items()}
            np.savez(path, **arrays)


def merge(parts: Sequence[Path], n_songs: int) -> dict[str, FloatArray]:
    """Arrays (songs, dim) in catalogue order from the parts of all ranks; a song found twice is taken once."""
    arrays: dict[str, FloatArray] = {}
    for path in parts:
        with np.load(path) as part:
            for name in NAMES:
                if name not in arrays:
                    arrays[name] = np.full((n_songs, part[name].shape[1]), np.nan, dtype=np.float32)
                arrays[name][part["id"]] = part[name]
    return arrays


def write_features(
    out: Path,
    arrays: dict[str, FloatArray],
    catalogue: Catalogue,
    made_by: dict[str, Any],
    fitted: CharacterTfidf | None = None,
) -> None:
    """The feature folder, with the text model if it was fitted, and on the screen how many songs have which vector."""
    have = {name: int(np.isfinite(array).all(axis=1).sum()) for name, array in arrays.items()}
    manifest = {
        **made_by,
        "data": str(catalogue.folder.resolve()),
        "songs": catalogue.n_songs,
        "songs_with": have,
    }
    with writing(out, KIND, manifest) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        catalogue.songs.select("song_id").write_parquet(folder / "song_ids.parquet")
        if fitted is not None:
            fitted.save(folder)
    shown = ", ".join(f"{name} {count:,}" for name, count in have.items())
    print(f"{out}: {catalogue.n_songs:,} songs; with {shown}")
