"""Rank runs: features and labels of candidates from a catalogue, and the ranker that a run folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load
from scipy import sparse

from artifacts.folders import read_manifest
from artifacts.runs import Run, fingerprint, read_config, read_vocabulary
from configs.errors import UserError
from configs.options import MADE_BY
from configs.targeting import TargetingConfig
from data.arrays import AnyArray, FloatArray, IntArray
from data.catalogue import Catalogue
from data.contract.columns import DAY_OF_RELEASE
from data.fields import SongFields, Vocabulary, read_fields, values_of
from data.profiles import read_profile
from inference.rank_network import network, song_keys
from inference.song_index import SongIndex
from inference.targeting import options_of
from inference.vectors import Boundary, restore
from models.ranker import RankNetwork
from retrieval.play_log import PlayLog
from retrieval.rank_features import FIELDS, FeatureSource, KnownSongs
from retrieval.ranking import LABELS, Examples, Ranker, Score
from retrieval.songs import SongFacts, Songs
from retrieval.targeting import Targeting

RUN = "rank run"
MODEL = {"trees": "model.txt", "network": "weights.safetensors"}  # the file of each model
ABOUT = "ranker.json"
LOGITS = "cross_entropy"  # the objective by which scores are log-odds of a grade
COLUMNS = {"artist": "artist_id"}  # of songs.parquet, where it is not called as the field is
KeyedNetwork = tuple[RankNetwork, FloatArray]  # and its `song_keys`
DAY = 86_400_000  # milliseconds
UNLIKE = ("memory_mb", "union", "users_index")  # options of targeting that leave candidates as they are, or nearly so


def play_log(catalogue: Catalogue) -> PlayLog:
    """Training plays in the order of time."""
    plays = catalogue.plays
    day_N = days(plays["played_at"])
    order = np.argsort(day_N, kind="stable")  # NaN last
    numbers = {name: plays[name].to_numpy().astype(np.int64)[order] for name in ("user", "song")}
    flags = {f"{name}_N": flag(plays, name)[order] for name in ("completed", "favourited", "disliked")}
    strength_N = plays["strength"].to_numpy().astype(np.float32)[order]
    return PlayLog(numbers["user"], numbers["song"], day_N[order], strength_N, **flags, n_users=catalogue.n_users)


def days(times: pl.Series) -> AnyArray:
    """Times in days since 1970, NaN where there is none."""
    return times.cast(pl.Datetime("ms")).cast(pl.Int64).cast(pl.Float64).fill_null(float("nan")).to_numpy() / DAY


def flag(plays: pl.DataFrame, name: str) -> FloatArray:
    """A Boolean column as 0 and 1, NaN where it does not tell."""
    if name not in plays.columns:
        return np.full(plays.height, np.nan, dtype=np.float32)
    return plays[name].cast(pl.Boolean).cast(pl.Float32).fill_null(float("nan")).to_numpy()


def field_codes(songs: pl.DataFrame, column: str) -> dict[str, int]:
    """The values of a field of songs, in alphabetical order, and their places in it."""
    values = values_of(songs, column).explode().drop_nulls().unique().sort() if column in songs.columns else []
    return {value: code for code, value in enumerate(values)}


def field_matrix(songs: pl.DataFrame, column: str, codes: dict[str, int]) -> sparse.csr_matrix:
    """Values of a field of songs, (S, V + 1), the last column for values without a code; a row sums to 1, or is
    empty."""
    if column not in songs.columns:
        return sparse.csr_matrix((songs.height, len(codes) + 1), dtype=np.float32)
    values = pl.DataFrame({"song": np.arange(songs.height), "value": values_of(songs, column).list.unique()})
    values = values.explode("value").drop_nulls()
    place = pl.col("value").replace_strict(codes, default=len(codes), return_dtype=pl.Int64)
    song, code = values["song"].to_numpy(), values.select(place)["value"].to_numpy()
    weight = 1 / np.maximum(np.bincount(song, minlength=songs.height), 1)[song]
    shape = songs.height, len(codes) + 1
    return sparse.csr_matrix((weight.astype(np.float32), (song, code)), shape=shape)


def feature_source(
    catalogue: Catalogue,
    vocabulary: Vocabulary,
    new_days: float,
    memory_mb: float,
    log: Any = None,
) -> FeatureSource:
    """What features are made from, with profile columns coded by the vocabulary; `log` holds the catalogue's plays."""
    songs = catalogue.songs
    codes = {name: field_codes(songs, COLUMNS.get(name, name)) for name in FIELDS}
    fields = {name: field_matrix(songs, COLUMNS.get(name, name), of) for name, of in codes.items()}
    known = KnownSongs(days(songs["released_at"]), fields, codes)
    profile = read_profile(catalogue.users, np.zeros(0, dtype=np.int64), vocabulary)
    numbers = [name for name, values in vocabulary.items() if not values]
    columns = dict(zip(profile.vocab_sizes, profile.codes.T, strict=True)) | dict(
        zip(numbers, profile.numbers.T, strict=True)
    )
    log = play_log(catalogue) if log is None else log
    return FeatureSource(log, known, columns, tuple(profile.vocab_sizes), new_days, memory_mb)


def song_facts(source: FeatureSource, catalogue: Catalogue, songs: IntArray) -> SongFacts:
    """What features ask of some songs: a new one sees the plays before its release, a known one all of them."""
    fields = {name: of_SV[songs] for name, of_SV in source.songs.fields.items()}
    known = (catalogue.songs["split"] == "warm").to_numpy()[songs]
    return SongFacts(fields, np.where(known, np.nan, source.songs.released_S[songs]), songs)


def facts_of(source: FeatureSource, about: dict[str, Any]) -> SongFacts:
    """The same of one song that is not of the catalogue; without a day of release (YYYY-MM-DD) it is asked for now."""
    fields = {}
    for name, codes in source.songs.codes.items():
        given = about.get(COLUMNS.get(name, name)) or ()
        values = sorted({given} if isinstance(given, str) else set(given))
        at = [codes.get(value, len(codes)) for value in values]
        weight = np.full(len(at), 1 / max(1, len(at)), dtype=np.float32)
        fields[name] = sparse.csr_matrix((weight, ([0] * len(at), at)), shape=(1, len(codes) + 1))
    released = about.get(DAY_OF_RELEASE)
    day = (date.fromisoformat(released) - date(1970, 1, 1)).days if released else np.nan
    return SongFacts(fields, np.array([day], dtype=np.float64))


def examples_of(
    targeting: Targeting, songs: Songs, numbers: IntArray, catalogue: Catalogue, source: FeatureSource, depth: int
) -> tuple[Examples, Any]:
    """Labelled candidates of songs, by the held-out plays of a catalogue, and the candidates; `numbers` ascend."""
    candidates = targeting.candidates(songs, depth)
    feature_PF = source.features(targeting, songs, candidates)
    song_P, user_P = numbers[candidates.song_P], candidates.user_P
    plays = catalogue.cold_plays.filter(pl.col("song").is_in(pl.Series(numbers).cast(pl.Int32).implode()))
    label_PL = labels(plays, song_P, user_P)
    listeners = plays.filter(pl.col("strength") > 0).select("song", "user").n_unique()
    examples = Examples(song_P, user_P, feature_PF, source.names, source.codes, label_PL, listeners)
    return examples, candidates


def labels(plays: pl.DataFrame, song_P: IntArray, user_P: IntArray) -> FloatArray:
    """LABELS of (song, user) pairs by some plays, (P, L); all 0 where there is no play, NaN where a play does not tell.

    Skipped is who neither completed nor favourited the song in any play.
    """
    flags = {name: pl.Series(flag(plays, name)).fill_nan(None) for name in ("completed", "favourited", "disliked")}
    one = plays.select(pl.col("song", "user").cast(pl.Int64), "strength").with_columns(**flags)
    told = one.group_by("song", "user").agg((pl.col("strength") > 0).any().alias("played"), pl.col(*flags).max())
    liked = pl.max_horizontal(pl.col("completed"), pl.col("favourited").fill_null(0))
    told = told.with_columns(pl.col("played").cast(pl.Float32), (1 - liked).alias("skipped"))
    told = told.with_columns(
        pl.when(pl.col("completed").is_null()).then(None).otherwise(pl.col("skipped")).alias("skipped")
    )
    asked = pl.DataFrame({"song": song_P, "user": user_P}).cast(pl.Int64)
    found = asked.join(told.with_columns(known=True), on=["song", "user"], how="left", maintain_order="left")
    without = pl.col("known").is_null()
    columns = [
        pl.when(without).then(0.0).otherwise(pl.col(name)).fill_null(float("nan")).alias(name) for name in LABELS
    ]
    return found.select(columns).cast(pl.Float32).to_numpy()


def like(options: TargetingConfig) -> dict[str, Any]:
    """The options of targeting on which candidates and their features depend."""
    return {name: value for name, value in asdict(options_of(options)).items() if name not in UNLIKE}


def open_ranker(
    folder: str,
    catalogue: Catalogue,
    index: SongIndex,
    boundary: Boundary | None,
    options: TargetingConfig,
    log: Any = None,
) -> Ranker:
    """The ranker of a run, for targeting with these models and options; `log` as below.

    Raises:
        UserError: not a finished rank run, damaged, or fitted with another encoder, boundary model or other options.
    """
    about = read_ranker(Path(folder))
    of_boundary = boundary.run.fingerprint if boundary else None
    check_ranker(folder, about, index.manifest["encoder"], of_boundary, options)
    network = None
    if about.get("model") == "network":
        network = keyed_network(Path(folder), catalogue, index.manifest["features"])
    return ranker_in(Path(folder), about, catalogue, options.memory_mb, network, log)


def check_ranker(
    folder: str | Path, about: dict[str, Any], encoder: str, boundary: str | None, options: TargetingConfig
) -> None:
    """Refuse a ranker that was fitted with another encoder or boundary model (fingerprints), or with other options.

    Raises:
        UserError: it was.
    """
    if encoder != about["encoder"]:
        raise UserError(
            f"{folder} was fitted with another song encoder than that of the index: run train.py rank again"
        )
    if about["boundary"] != boundary:
        wanted = "with another boundary model, or with one" if about["boundary"] else "without a boundary model"
        raise UserError(f"{folder} was fitted {wanted}: give boundary= as train.py rank was given it")
    now = like(options)
    if other := [f"targeting.{name}={value}" for name, value in about["targeting"].items() if now.get(name) != value]:
        raise UserError(f"{folder} was fitted with {', '.join(other)}: give the same options")


def ranker_in(
    folder: Path,
    about: dict[str, Any],
    catalogue: Catalogue,
    memory_mb: float,
    keyed: KeyedNetwork | None = None,
    log: Any = None,
) -> Ranker:
    """The ranker of a folder, of which `about` tells, with features from a catalogue: its trees, or a network.

    Args:
        folder: the ranker's.
        about: `read_ranker` of it.
        catalogue: what features are made from.
        memory_mb: working memory.
        keyed: the network, where it is one.
        log: the catalogue's plays by user, which may grow, or as Spark reads them; None: as they are read here.

    Raises:
        UserError: LightGBM is not installed, or a file is damaged.
    """
    source = feature_source(catalogue, read_vocabulary(folder, "users"), about["new_days"], memory_mb, log)
    names = tuple(about["features"])
    if keyed is not None:
        score, contributions, attention = network(keyed[0], names, keyed[1])
        return Ranker(score, source, about["depth"], True, contributions, about["history"], attention)
    score, contributions = trees(folder / MODEL["trees"], names)
    return Ranker(score, source, about["depth"], about["objective"] == LOGITS, contributions)


def contents(folder: Path, catalogue: Catalogue, features: str | None, dense: Sequence[str]) -> SongFields:
    """Fields of all songs of the catalogue that a rank run reads: by its codes, and those dense ones."""
    vocabulary = read_vocabulary(folder)
    fields = read_fields(catalogue, features, list(dense), 0, vocabulary)
    return SongFields({name: fields.dense[name] for name in dense}, fields.codes, vocabulary)


def keyed_network(folder: Path, catalogue: Catalogue, features: str | None) -> KeyedNetwork:
    """The network of a rank run, and what its attention reads of all songs of a catalogue.

    Raises:
        UserError: its weights do not fit, or the songs have other fields than those that it was fitted on.
    """
    from lightning_modules.rank import RankModule  # here: the service takes this module, and no Lightning

    run = open_network(folder)
    model = restore(RankModule, run).model
    fields = contents(folder, catalogue, features, run.hparams["dense_dims"])
    return model, song_keys(model, fields, catalogue.n_songs, folder)


def read_ranker(folder: Path) -> dict[str, Any]:
    """What a rank run says of its ranker.

    Raises:
        UserError: not a rank run, not finished, or damaged.
    """
    if not read_manifest(folder, RUN, MADE_BY[RUN]).get("finished"):
        raise UserError(f"{folder} is not finished: run train.py rank again")
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / ABOUT}: cannot be read ({error}); run train.py rank again") from None
    return about


def open_network(folder: Path) -> Run:
    """The network of a rank run, as other runs are opened.

    Raises:
        UserError: its ranker is not a network, or is damaged.
    """
    about, path = read_ranker(folder), folder / MODEL["network"]
    if about.get("model") != "network":
        raise UserError(f"{folder} holds trees, which LightGBM itself reads: {MODEL['trees']}")
    try:
        weights = load(path.read_bytes())
    except Exception as error:  # safetensors raises types of its own
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run train.py rank again") from None
    return Run(path.parent, "rank", read_config(path.parent), about["network"], weights, fingerprint(weights))


def trees(path: Path, names: tuple[str, ...]) -> tuple[Score, Score]:
    """The scores of LightGBM's trees, read from their text file, and the contributions of features to them.

    Raises:
        UserError: LightGBM is not installed, or the file is damaged.
    """
    lightgbm = import_lightgbm()
    try:
        booster = lightgbm.Booster(model_str=path.read_text("utf-8"))
        if booster.num_feature() != len(names):
            raise ValueError("other features than those of the run")
    except (OSError, ValueError, lightgbm.basic.LightGBMError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); run train.py rank again") from None

    def predicted(examples: Examples, **how: bool) -> AnyArray:
        threads = torch.get_num_threads()
        return np.asarray(booster.predict(examples.columns(names), num_threads=threads, **how))

    def score(examples: Examples) -> AnyArray:
        return predicted(examples, raw_score=True) if len(examples) else np.zeros(0)

    def contributions(examples: Examples) -> AnyArray:
        """Shapley values (TreeSHAP) of all features, (P, F); with the mean score they sum to the score."""
        found_PF = np.zeros(examples.feature_PF.shape)
        if len(examples):
            of_model = [examples.names.index(name) for name in names]
            found_PF[:, of_model] = predicted(examples, pred_contrib=True)[:, :-1]
        return found_PF

    return score, contributions


def import_lightgbm() -> Any:
    """LightGBM, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import lightgbm
    except ImportError:
        raise UserError("the ranker needs LightGBM: pip install -e '.[rank]'") from None
    return lightgbm
