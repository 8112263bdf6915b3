"""Compute song features of a catalogue: a CLIP model's vectors of audio and text, or BERT's vectors alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from artifacts.fingerprints import CONTENT, of_folder, of_values
from artifacts.folders import check_replaceable, writing
from artifacts.runs import Run, open_run
from artifacts.tracking import made, tracked, used
from configs.embedding import TFIDF, EmbedConfig
from configs.errors import UserError
from configs.load import as_dict
from data.arrays import AnyArray, FloatArray
from data.catalogue import Catalogue
from data.fields import FEATURES, check_names
from data.row_shards import Ranks, RowShards
from data.text import folder_state, song_texts, text_vectors, unknown_share
from data.tfidf import CharacterTfidf, fit
from data.words import READING
from datamodules.clip import BERT_BATCH, FRAME_OPTIONS, ClipDataModule
from inference.earlier import AUDIO, Earlier, earlier_vectors, nothing_earlier
from inference.vectors import restore
from lightning_modules.clip import ClipModule

KIND, _ = FEATURES
NAMES, TEXT = (AUDIO, "clip_text"), "text"


@tracked("embed")
def embed(config: EmbedConfig, tracking: Any) -> None:
    """Run `pipeline.embed` (its docstring says what it reads and writes)."""
    out = Path(config.out)
    check_replaceable(out, KIND)
    if config.clip is None:
        return embed_text(config, tracking)
    run, catalogue = open_run(config.clip, "clip"), Catalogue.read(config.data)
    check_names(catalogue, (*NAMES, TEXT))
    prepared = prepared_for(run)
    read = [folder_state(prepared[name]) for name in ("text_model", "audio_model")]

    def made_of(catalogue: Catalogue) -> str:
        return of_values(run.fingerprint, read, of_folder(catalogue.folder), READING)

    earlier = earlier_vectors(config.earlier, catalogue, prepared["text_fields"], True, made_of)
    data = song_data(run, config, catalogue.part(earlier.new))
    made_by = {"clip": str(run.folder.resolve()), "encoder": run.fingerprint, CONTENT: made_of(catalogue)}
    aside = out.with_name(f".{out.name}.shards")
    data.shards = RowShards(aside / of_values(made_by[CONTENT], earlier.row_S.tobytes()), data.catalogue.n_songs)
    trainer = L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        callbacks=[ShardWriter(data.shards)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if len(earlier.new):
        trainer.predict(restore(ClipModule, run), data, return_predictions=False)
    trainer.strategy.barrier("every rank has written its shards")
    if trainer.is_global_zero:
        arrays: dict[str, FloatArray] = {}
        if len(earlier.new):
            arrays = {name: data.shards.join(name, aside / f"{name}.npy") for name in NAMES}
            arrays |= {TEXT: data.text_vectors[0]} if data.text_vectors else {}
        write_features(out, arrays, catalogue, made_by, earlier=earlier)
        shutil.rmtree(aside, ignore_errors=True)
        used(tracking, run.folder, config.data, config.earlier)
        made(tracking, out, config.logger.upload)


def embed_text(config: EmbedConfig, tracking: Any) -> None:
    """text.npy alone, through the cache that `ClipDataModule` uses; tf-idf is fitted anew, and kept beside it.

    Raises:
        UserError: no song has any text, a field is no text column, or the text model cannot be loaded.
    """
    options, catalogue = config.text, Catalogue.read(config.data)
    check_names(catalogue, (TEXT,))
    texts = song_texts(catalogue.songs, options.fields)
    present = [text for text in texts if text]
    if not present:
        raise UserError(f"{config.data}: no song has any text in {', '.join(options.fields)}: choose other text.fields")
    fabric = L.Fabric(accelerator=config.accelerator, devices=config.devices, num_nodes=config.nodes)
    fabric.launch()  # devices= may ask for further processes
    state = folder_state(options.model)
    same = as_dict(options) | ({"model": state} if state else {})

    def made_of(catalogue: Catalogue) -> str:
        return of_values(same, of_folder(catalogue.folder), READING)

    made_by: dict[str, Any] = {"text": as_dict(options), CONTENT: made_of(catalogue)}
    told, fitted = f"  {len(texts) - len(present):,} songs without text", None
    if options.model == TFIDF:
        fitted = fit([texts[song] for song in catalogue.rows("warm")])
        arrays = {TEXT: fitted.vectors(texts)}
        earlier = nothing_earlier(catalogue)
    else:
        earlier = earlier_vectors(config.earlier, catalogue, options.fields, False, made_of)
        new = [texts[song] for song in earlier.new]
        how = (options.model, options.max_tokens, BERT_BATCH, catalogue.folder / "text_cache", options.windows)
        ranks = Ranks(fabric.global_rank, fabric.world_size, fabric.barrier)
        arrays = {TEXT: text_vectors(new, *how, ranks)} if new else {}
        unknown = unknown_share(present, options.model)
        made_by["unknown_words"] = round(unknown, 4)
        told += f"; {unknown:.1%} of words and characters unknown to {options.model}"
    if not fabric.is_global_zero:
        return
    write_features(Path(config.out), arrays, catalogue, made_by, fitted, earlier)
    used(tracking, config.data, config.earlier)
    made(tracking, config.out, config.logger.upload)
    print(told)


def prepared_for(run: Run) -> dict[str, Any]:
    """How audio and text were prepared for a CLIP run.

    Raises:
        UserError: an earlier version trained it.
    """
    if "prepared" not in run.hparams:
        raise UserError(f"{run.folder} was trained by an earlier version: train it again")
    prepared: dict[str, Any] = run.hparams["prepared"]
    return prepared


def song_data(run: Run, config: EmbedConfig, catalogue: Catalogue) -> ClipDataModule:
    """Songs of the catalogue, cut and tokenised as in the run's training.

    Raises:
        UserError: the catalogue's log-mel frames are not those of the run.
    """
    prepared = prepared_for(run)
    options = {name: value for name, value in prepared.items() if name not in FRAME_OPTIONS}
    data = ClipDataModule(catalogue, config.batch_size, workers=config.workers, **options)
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


class ShardWriter(L.Callback):
    """Keeps the songs' vectors of each shard as soon as the last of its batches is done."""

    def __init__(self, shards: RowShards) -> None:
        self.shards = shards
        self.batches: list[dict[str, AnyArray]] = []

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Take the vectors of one batch; they come in the order of songs."""
        self.batches.append({name: outputs[name].float().cpu().numpy() for name in NAMES})
        last = int(outputs["id"][-1])
        shard = last // self.shards.size
        if last + 1 == self.shards.rows(shard).stop:
            arrays = {name: np.concatenate([batch[name] for batch in self.batches]) for name in NAMES}
            self.shards.write(shard, **arrays)
            self.batches.clear()
        if trainer.received_sigterm:
            raise SystemExit(143)


def write_features(
    out: Path,
    new: dict[str, FloatArray],
    catalogue: Catalogue,
    made_by: dict[str, Any],
    fitted: CharacterTfidf | None = None,
    earlier: Earlier | None = None,
) -> None:
    """The feature folder, with the text model if it was fitted, and on the screen how many songs have which vector.

    `new` has the vectors of all songs, or of those that keep no earlier ones.
    """
    earlier = earlier or nothing_earlier(catalogue)
    manifest = {**made_by, "data": str(catalogue.folder.resolve()), "songs": catalogue.n_songs}
    with writing(out, KIND, manifest) as folder:
        have = {name: whole_rows(array) for name, array in earlier.write(new, folder).items()}
        manifest["songs_with"] = have
        catalogue.songs.select("song_id").write_parquet(folder / "song_ids.parquet")
        if fitted is not None:
            fitted.save(folder)
    shown = ", ".join(f"{name} {count:,}" for name, count in have.items())
    print(f"{out}: {catalogue.n_songs:,} songs; with {shown}")
    if earlier.arrays:
        kept = catalogue.n_songs - len(earlier.new)
        print(f"  {kept:,} songs are as they were and keep their vectors; {len(earlier.new):,} are new or changed")


def whole_rows(array: FloatArray, at_a_time: int = 65_536) -> int:
    """Number of rows without NaN or infinite values."""
    parts = (array[at : at + at_a_time] for at in range(0, len(array), at_a_time))
    return sum(int(np.isfinite(part).all(axis=1).sum()) for part in parts)
