"""Fit a ranker on songs that its encoders have not heard: the cold validation songs, or known songs in folds.

Every piece of work is a folder under out=, written whole: a fold's catalogue, its encoders, its examples. A killed
command goes on with the piece that it was at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.fingerprints import of_folder
from artifacts.folders import kind_of, read_manifest, write_json, writing
from artifacts.runs import (
    Run,
    finish_run,
    is_finished,
    open_run,
    origin,
    read_vocabularies,
    read_vocabulary,
    run_folder,
)
from artifacts.tracking import made, tracked, used
from configs.errors import UserError
from configs.load import as_dict, dump, load
from configs.options import MADE_BY
from configs.ranking import RankConfig
from configs.training import BoundaryConfig, I2IConfig
from data.arrays import IntArray
from data.catalogue import Catalogue, held_out_listeners
from data.fields import Vocabulary
from data.folds import Fold, folds_of, write_fold
from data.item_pairs.verification import listening_matrix
from data.profiles import read_profile
from datamodules.catalogue import CatalogueDataModule
from inference.ranking import (
    ABOUT,
    MODEL,
    examples_of,
    feature_source,
    import_lightgbm,
    like,
    read_ranker,
    song_facts,
)
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from inference.vectors import boundary_vectors, data_options, encode_songs
from retrieval.candidates import ceilings
from retrieval.distinct import distinct
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.rank_histories import Histories, histories_of, joined_histories
from retrieval.ranking import Examples
from training.rank_trees import Fitted, fit_trees, reached

EXAMPLES = "rank examples"
VALIDATION, FOLDS = "cold_val", "folds"  # what a ranker was fitted on
BUDGET = 50
ARRAYS, OF_HISTORIES = ("song_P", "user_P", "feature_PF", "label_PL"), ("song_RT", "signal_RT", "row_P")
Runs = dict[str, Run]  # "i2i" and maybe "boundary"


@tracked("rank")
def train_rank(config: RankConfig, tracking: Any) -> None:
    """Run `train.py rank` (docs/ranking.md says what it reads and writes)."""
    out, catalogue = Path(config.out), Catalogue.read(config.data)
    runs = {"i2i": open_run(config.i2i, "i2i")}
    if config.boundary:
        runs["boundary"] = open_run(config.boundary, "boundary")
    for run in runs.values():
        check_unseen(run, catalogue, catalogue.rows("cold"))
    about = described(config, runs)
    if is_finished(out, "rank", as_dict(config)):
        if any(read_ranker(out)[name] != about[name] for name in ("encoder", "boundary")):
            raise UserError(f"{out} was fitted with earlier encoders: choose another out= or remove it")
        print(f"{out}: already finished (remove it to fit again)")
        return
    if config.model == "trees":
        import_lightgbm()  # or say at once that it is missing, not after hours of folds
    active = distinct(catalogue.plays["user"].to_numpy())
    vocabulary = read_profile(catalogue.users, active).vocabulary
    codes = {"users": vocabulary, "songs": read_vocabulary(runs["i2i"].folder)}
    with run_folder(out, "rank", dump(config), codes):
        examples = joined([*parts_of(config, catalogue, runs, vocabulary)])
        metrics, fitted = fit(examples, config, runs["i2i"], vocabulary)
        (out / MODEL[config.model]).write_bytes(fitted.model)
        found = about | {"model": config.model, "features": fitted.names, **fitted.about}
        write_json(out / ABOUT, found)
        counts = {"songs": len(examples.sizes_G), "candidates": len(examples), "listeners": examples.listeners}
        finish_run(out, "rank", metrics, fitted_on=about["fitted_on"], counts=counts)
    used(tracking, config.data, config.i2i, config.boundary)
    made(tracking, out, config.logger.upload)
    size = f"{fitted.rounds} {'trees' if config.model == 'trees' else 'epochs'}"
    print(f"{out}: {size} on {len(fitted.names)} features, fitted on {about['fitted_on']}")


def described(config: RankConfig, runs: Runs) -> dict[str, Any]:
    """What a ranker is tied to: the models of its candidates, how they are found, and what it was fitted on."""
    return ({"history": config.network.history} if config.model == "network" else {}) | {
        "fitted_on": FOLDS if config.folds else VALIDATION,
        "depth": config.depth,
        "new_days": config.new_days,
        "encoder": runs["i2i"].fingerprint,
        "boundary": runs["boundary"].fingerprint if "boundary" in runs else None,
        "targeting": like(config.targeting),
    }


def parts_of(config: RankConfig, catalogue: Catalogue, runs: Runs, vocabulary: Vocabulary) -> list[Examples]:
    """Labelled candidates of the validation songs, or of the songs of each fold.

    Raises:
        UserError: there are too few songs, or none of them has a listener.
    """
    out = Path(config.out)
    if not config.folds:
        songs = catalogue.rows("cold_val")
        return [examples_in(out / "examples", catalogue, songs, runs, config, vocabulary)]
    parts = []
    for number, fold in enumerate(folds_of(catalogue, config.folds, config.fold_share, config.seed)):
        folder = out / "folds" / str(number)
        within = write_fold(catalogue, fold, folder / "catalogue", config.label_days)
        of_fold = {task: trained_again(run, within, folder / task) for task, run in runs.items()}
        for run in of_fold.values():
            check_unseen(run, within, np.r_[fold.songs, fold.validation])
        print(about_fold(number, fold))
        parts.append(examples_in(folder / "examples", within, fold.songs, of_fold, config, vocabulary))
    return parts


def about_fold(number: int, fold: Fold) -> str:
    """A fold in a line."""
    until = f", trained on plays before {fold.cutoff:%Y-%m-%d}" if fold.cutoff else ""
    return f"fold {number}: {len(fold.songs)} songs as new ones, {len(fold.known)} known{until}"


def trained_again(run: Run, catalogue: Catalogue, out: Path) -> Run:
    """A run of the same options on the catalogue of a fold, trained anew; one found in `out` goes on.

    Weights that a run has started from have seen the fold's songs: the run it goes back to has the options of a whole
    training.
    """
    from training.tasks import train_boundary, train_i2i  # here: a ranker without folds needs no Lightning

    features = run.config["features"] or "null"
    given = [f"data={catalogue.folder}", f"features={features}", f"out={out}"]
    if run.task == "i2i":
        train_i2i(load(I2IConfig, given, origin(run.folder)))
    else:
        given.append(f"model.prior_plays={run.hparams.get('prior_plays', 0.0)}")  # of an earlier version: its default
        train_boundary(load(BoundaryConfig, given, origin(run.folder)))
    return open_run(out, run.task)


def check_unseen(run: Run, catalogue: Catalogue, songs: IntArray) -> None:
    """Refuse a run that may have seen plays of songs that are to be new.

    Raises:
        UserError: it was trained on another catalogue, or one of the songs is known to it.
    """
    made_from = read_manifest(run.folder, f"{run.task} run", MADE_BY[f"{run.task} run"]).get("made_from", {})
    if made_from.get("data") != of_folder(catalogue.folder):
        raise UserError(
            f"{run.folder} was trained on another catalogue than {catalogue.folder}, and may know plays of its new "
            "songs: train it again on this one"
        )
    known = read_vocabularies(run.folder).get("known", {}).get("song_id", [])
    if seen := sorted(set(known) & set(catalogue.songs["song_id"].gather(songs))):
        raise UserError(f"{run.folder} has seen plays of {len(seen)} songs that are to be new, e.g. {seen[0]}")


def examples_in(
    out: Path, catalogue: Catalogue, songs: IntArray, runs: Runs, config: RankConfig, vocabulary: Vocabulary
) -> Examples:
    """Labelled candidates of cold songs of a catalogue, by encoders that have not heard them; kept in `out`."""
    tied = described(config, runs) | {"data": of_folder(catalogue.folder)}
    if kind_of(out) != EXAMPLES or read_manifest(out, EXAMPLES, MADE_BY["rank run"])["made_from"] != tied:
        if not len(held_out_listeners(catalogue, songs)[0]):
            raise UserError(
                f"{catalogue.folder}: none of {len(songs)} cold songs has a held-out listener to learn from"
            )
        examples, shares = made_examples(catalogue, songs, runs, config, vocabulary)
        about = {"names": examples.names, "codes": examples.codes, "listeners": examples.listeners}
        with writing(out, EXAMPLES, {"made_from": tied, **about, "ceilings": shares}) as folder:
            for of, names in (
                (examples, ARRAYS),
                *([(examples.histories, OF_HISTORIES)] if examples.histories else []),
            ):
                for name in names:
                    np.save(folder / f"{name}.npy", getattr(of, name))
    examples, manifest = read_examples(out)
    shown = ", ".join(f"{share:.3f} at {depth}" for depth, share in manifest["ceilings"]["all"].items())
    print(f"{out}: {len(examples)} candidates hold, of {examples.listeners} listeners, {shown}")
    return examples


def read_examples(folder: Path) -> tuple[Examples, dict[str, Any]]:
    """The examples in a folder, and its manifest."""
    manifest = read_manifest(folder, EXAMPLES, MADE_BY["rank run"])
    read = "history" in manifest["made_from"]
    arrays = {name: np.load(folder / f"{name}.npy") for name in (*ARRAYS, *(OF_HISTORIES if read else ()))}
    histories = Histories(*(arrays.pop(name) for name in OF_HISTORIES)) if read else None
    names, codes, listeners = tuple(manifest["names"]), tuple(manifest["codes"]), manifest["listeners"]
    return Examples(**arrays, names=names, codes=codes, listeners=listeners, histories=histories), manifest


def made_examples(
    catalogue: Catalogue, songs: IntArray, runs: Runs, config: RankConfig, vocabulary: Vocabulary
) -> tuple[Examples, dict[str, Any]]:
    """Labelled candidates of some songs, and the share of their listeners that the channels' lists hold."""
    features, data = runs["i2i"].config["features"], str(catalogue.folder)
    vectors, warm = encode_songs(runs["i2i"].folder, data, features)[1]["vector"], catalogue.rows("warm")
    index = SongIndex({}, build_index(vectors[warm], "auto"), warm, vectors)
    boundary = None
    if "boundary" in runs:
        boundary = boundary_vectors(runs["boundary"].folder, songs, data, runs["boundary"].config["features"])
    listening = Listening(listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs))
    targeting = targeting_of(index, listening, config.targeting, boundary)
    source = feature_source(catalogue, vocabulary, config.new_days, config.targeting.memory_mb)
    items, facts = boundary.item_CD if boundary else None, song_facts(source, catalogue, songs)
    asked = targeting.songs(vectors[songs], songs, items, facts=facts)
    examples, candidates = examples_of(targeting, asked, songs, catalogue, source, config.depth)
    if config.model == "network":
        log, pairs = source.log, (candidates.song_P, candidates.user_P)
        examples.histories = histories_of(log, log.cuts(facts.before_C), *pairs, config.network.history)
    song_L, user_L = held_out_listeners(catalogue, songs)
    return examples, ceilings(candidates, (np.searchsorted(songs, song_L), user_L))


def joined(parts: Sequence[Examples]) -> Examples:
    """Examples of several folds as one; no song is in two of them."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    listeners, histories = sum(part.listeners for part in parts), [part.histories for part in parts if part.histories]
    of_all = joined_histories(histories) if histories else None
    return Examples(**arrays, names=parts[0].names, codes=parts[0].codes, listeners=listeners, histories=of_all)


def fit(examples: Examples, config: RankConfig, encoder: Run, profile: Vocabulary) -> tuple[dict[str, float], Fitted]:
    """The model, and what it finds on songs that it did not see, beside I2I2U.

    Contents of songs are the fields that the song encoder was trained on; no vector of an encoder is among them, since
    those of two folds are not of one space.
    """
    if config.model == "trees":
        fitted = fit_trees(examples, config.trees, config.seed, config.grades)
    else:
        from training.rank_network import fit_network

        source = CatalogueDataModule(**data_options(encoder, config.data, None))
        parts = examples, source.fields, source.warm, profile
        fitted = fit_network(*parts, config.network, config.seed, config.grades)
    scores = {"ranked": fitted.apart_P, "i2i2u": examples.columns(("i2i2u_score",))[:, 0]}
    rows = {name: reached(examples, score_P, BUDGET) for name, score_P in scores.items()}
    for name, row in rows.items():
        rates = ", ".join(f"{key.replace('_', ' ')} {row[key]:.3f}" for key in row if key != "found")
        print(f"songs left out, {BUDGET} users each, {name}: {row['found']:.0f} listeners found, {rates}")
    return {f"{name}/{key}": one for name, row in rows.items() for key, one in row.items() if one == one}, fitted
