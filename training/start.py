"""Start a training from a finished run (`start=`): its weights, with rows for the songs and values that are new.

A row belongs to a song's id or to a value, never to a place in a table. What is new begins as what it was for the
earlier run: a song without residual embedding, an unknown value, the nearest year. On the same songs the model
therefore starts as the very function that the earlier run is.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import polars as pl
import torch

from artifacts.folders import read_manifest
from artifacts.runs import Run, differences, open_run, read_vocabularies, read_vocabulary
from artifacts.tracking import first_rank
from callbacks.start import StartWeights
from configs.errors import UserError
from configs.load import as_dict
from configs.options import MADE_BY
from data import fields, profiles
from data.arrays import IntArray
from data.catalogue import Catalogue
from datamodules.i2i import places
from retrieval.distinct import distinct

SAME = {  # options that make a model's architecture
    "clip": {
        "model": ("dim", "width", "layers", "heads"),
        "audio": ("last_layers", "lora_rank"),
        "text": ("last_layers", "lora_rank"),
        "objective": ("loss",),
    },
    "i2i": {
        "fields": ("block",),
        "model": ("field_dim", "hidden", "dim", "normalise", "residual"),
        "objective": ("cut_fields",),
    },
    "boundary": {"fields": ("block",), "model": ("field_dim", "hidden", "dim", "prior_plays")},
}
INPUTS = ("prepared", "dense_dims", "n_numbers")  # hyper-parameters that say what a model reads
TOWERS = ("model.user", "model.boundary")  # that read profiles
EMBEDDINGS = {
    "i2i": ("model.embedding",),
    "boundary": tuple(f"{tower}.embedding" for tower in ("model.item", *TOWERS)),
}


def start_run(task: str, config: Any) -> Run | None:
    """The run that a training starts from; None where it starts anew.

    Raises:
        UserError: it is no finished run of the task, has another architecture, or was trained on vectors of another
            encoder.
    """
    if config.start is None:
        return None
    run, kind = open_run(config.start, task), f"{task} run"
    manifest = read_manifest(run.folder, kind, MADE_BY[kind])
    if not manifest.get("finished"):
        raise UserError(f"start={run.folder} is not finished: run its own command again first")
    changed = differences(architecture(task, run.config), architecture(task, as_dict(config)))
    if task != "clip" and config.fields.use:
        has = [*run.hparams["dense_dims"], *read_vocabulary(run.folder)]
        changed += differences(sorted(has), sorted(config.fields.use), "fields.use.")
    if changed:
        raise UserError(f"start={run.folder} is a model of other options: {'; '.join(changed)}")
    made = fields.made_with(getattr(config, "features", None))
    if manifest.get("encoder") != made.get("encoder"):
        raise UserError(
            f"start={run.folder} was trained on vectors that another encoder made than those of features="
            f"{config.features}: embed the songs with the same clip= or text.model, or train anew"
        )
    return run


def architecture(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that must be equal; a run of an earlier version may lack some."""
    return {
        group: {name: options[group][name] for name in names if name in options[group]}
        for group, names in SAME[task].items()
    }


def song_vocabulary(start: Run, catalogue: Catalogue, min_count: int) -> fields.Vocabulary:
    """The category values of a run's songs, and after them those that are new in a catalogue."""
    earlier = read_vocabulary(start.folder)
    values = {name: fields.field_values(catalogue.songs, name) for name in earlier}
    return fields.extended(earlier, fields.build_vocabulary(catalogue, values, min_count))


def profile_vocabulary(start: Run, catalogue: Catalogue) -> fields.Vocabulary:
    """The same of its users."""
    active = distinct(catalogue.plays["user"].to_numpy())
    return fields.extended(read_vocabulary(start.folder, "users"), profiles.build_vocabulary(catalogue.users[active]))


def starting(
    start: Run | None, module: L.LightningModule, vocabulary: dict[str, Any], catalogue: Catalogue
) -> list[StartWeights]:
    """Callbacks that give a module the weights of a run; says on the screen what goes on and what is new.

    Raises:
        UserError: the songs have other fields, none of them was known to the run, or one that is new now was.
    """
    if start is None:
        return []
    reads = [{name: hparams.get(name) for name in INPUTS} for hparams in (start.hparams, module.hparams)]
    if changed := differences(reads[0], reads[1]):
        raise UserError(f"start={start.folder} reads other inputs than {catalogue.folder} has: {'; '.join(changed)}")
    if start.task == "clip":  # at once: under trainer.strategy=fsdp ranks divide the weights before they train
        module.load_state_dict(start.weights)
        return []
    earlier = read_vocabularies(start.folder)
    before, known = (one.get("known", {}).get("song_id", []) for one in (earlier, vocabulary))
    place = places(pl.Series(known, dtype=pl.String), before)
    check_songs(start, catalogue, before, place)
    weights = start.weights | rows_of_values(start, earlier, vocabulary)
    if "residual.weight" in weights:
        weights["residual.weight"] = weights["residual.weight"][torch.from_numpy(np.r_[0, place])]
    if first_rank():
        kept = int((place > 0).sum())
        added = {name: len(values) - len(earlier["songs"][name]) for name, values in vocabulary["songs"].items()}
        new = ", ".join(f"{name} {n:,}" for name, n in added.items() if n) or "none"
        told = f"{kept:,} known songs go on, {len(known) - kept:,} are new, {len(before) - kept:,} are gone"
        print(f"start={start.folder}: {told}; new values: {new}")
    return [StartWeights(weights)]


def check_songs(start: Run, catalogue: Catalogue, before: list[str], place: IntArray) -> None:
    """Refuse a run of other songs, and one that has seen plays of songs that are held out now.

    Args:
        start: the run.
        catalogue: of the new training.
        before: ids of the songs that the run knows.
        place: of each song known now among these, 0: it is not there.

    Raises:
        UserError: as said, or the run does not tell.
    """
    if not before:
        raise UserError(f"start={start.folder} does not say which songs it knows: an earlier version trained it")
    if not place.any():
        raise UserError(f"start={start.folder} knows none of the known songs of {catalogue.folder}")
    new = catalogue.songs["song_id"].gather(catalogue.rows("cold"))
    if len(seen := new.filter(pl.Series(places(new, before) > 0))):
        raise UserError(
            f"start={start.folder} was trained on plays of {len(seen)} songs that {catalogue.folder} holds out as new, "
            f"e.g. {seen[0]}: prepare it with a later split.cutoff, or train anew"
        )


def rows_of_values(start: Run, earlier: dict[str, Any], vocabulary: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of all tables of category values: each value has the row by which the run has known it so far."""
    found = {}
    for at, (name, values) in enumerate(vocabulary["songs"].items()):
        rows = rows_so_far(fields.field_codes(name, lists(values), fields.codes_of(earlier["songs"][name])))
        for place in EMBEDDINGS[start.task]:
            key = f"{place}.categories.{at}.weight"
            found[key] = start.weights[key][rows]
    categories = {name: values for name, values in vocabulary.get("users", {}).items() if values}
    for at, (name, values) in enumerate(categories.items()):
        rows = rows_so_far(fields.list_codes(lists(values), fields.codes_of(earlier["users"][name])))
        for place in TOWERS:
            key = f"{place}.categories.{at}.weight"
            found[key] = start.weights[key][rows]
    return found


def lists(values: list[str]) -> pl.Series:
    """Each value as a list of its own."""
    return pl.Series([[value] for value in values], dtype=pl.List(pl.String))


def rows_so_far(codes_VL: IntArray) -> torch.Tensor:
    """Rows of "none", of "unknown" and of all values, by the codes that these have had."""
    return torch.from_numpy(np.r_[0, fields.UNKNOWN, codes_VL[:, 0]])
