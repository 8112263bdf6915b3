"""Known songs treated as new ones: folds of songs, each with a catalogue of what was known before them.

By release date, where songs and plays have dates: the latest windows of the training period. A fold's songs are one
window, those of the window before it choose the checkpoints, and training ends where that window begins. Without dates,
folds are random parts of the known songs. A fold's catalogue has the songs of the whole catalogue in the same order, so
that features made for it still fit; those that come later are in the split "later", which nothing reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.fingerprints import CONTENT, of_folder, of_table, of_values
from artifacts.folders import kind_of, read_manifest, writing
from configs.data import PairsConfig, PrepareConfig
from configs.errors import UserError
from configs.load import as_dict
from data.arrays import IntArray
from data.catalogue import KIND, MADE_BY, Catalogue
from data.item_pairs import mining
from data.play_tables import plays_of_songs, separate
from data.split import COLD_TEST, COLD_VAL, WARM, Split

LATER = "later"


@dataclass(frozen=True)
class Fold:
    """Songs that are new in a fold, songs that its checkpoints are chosen by, when its training ends, what is known."""

    songs: IntArray
    validation: IntArray
    known: IntArray
    cutoff: datetime | None


def folds_of(catalogue: Catalogue, count: int, share: float, seed: int) -> list[Fold]:
    """Folds of the known songs, by release date where there are dates.

    Raises:
        UserError: there are too few songs.
    """
    warm, songs, plays = catalogue.rows("warm"), catalogue.songs, catalogue.plays
    dated = songs["released_at"][warm].is_not_null().mean() or 0.0
    timed = plays["played_at"].is_not_null().mean() or 0.0
    made = (
        by_date(songs, warm, count, max(1, round(share * len(warm))))
        if min(float(dated), float(timed)) > 0.5  # type: ignore[arg-type]
        else by_part(warm, count, len(catalogue.rows("cold_val")), seed)
    )
    if any(not (len(fold.songs) and len(fold.validation) and len(fold.known)) for fold in made):
        raise UserError(f"folds={count}: {len(warm)} known songs are too few for so many folds (fold_share={share:g})")
    return made


def by_date(songs: pl.DataFrame, warm: IntArray, count: int, size: int) -> list[Fold]:
    """Windows of about `size` songs, the latest ones; songs of one day are in one window, also where they are more."""
    released = songs["released_at"][warm]
    in_order = released.drop_nulls().sort(descending=True)
    edges: list[datetime] = []
    for place in range(count + 1):
        edge = in_order[min(size * (place + 1), len(in_order)) - 1]
        if edges and edge >= edges[-1]:  # the window before has taken this day
            edge = in_order.filter(in_order < edges[-1]).max() or edges[-1]
        edges.append(edge)
    edges.reverse()
    made = []
    for number in range(1, count + 1):
        start, stop = edges[number], edges[number + 1] if number < count else None
        before, first = released < start, edges[number - 1]
        window = released >= start if stop is None else (released >= start) & (released < stop)
        masks = [window, before & (released >= first), (released < first).fill_null(True)]
        parts = [warm[mask.fill_null(False).to_numpy()] for mask in masks]
        made.append(Fold(parts[0], parts[1], parts[2], first))
    return made


def by_part(warm: IntArray, count: int, validation: int, seed: int) -> list[Fold]:
    """Random parts; of the songs of the other parts some choose the checkpoints, as many as in the whole catalogue."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(warm)
    made = []
    for part in np.array_split(order, count):
        others = rng.permutation(np.setdiff1d(warm, part))
        held = min(max(1, validation), max(1, len(others) // 5))
        made.append(Fold(np.sort(part), np.sort(others[:held]), np.sort(others[held:]), None))
    return made


def write_fold(catalogue: Catalogue, fold: Fold, out: Path, label_days: int) -> Catalogue:
    """Write the catalogue of a fold, or take the one that is there; pairs are mined anew from the plays that are left.

    Raises:
        UserError: no pair is left, or the folder is something else.
    """
    source = of_folder(catalogue.folder)
    about = {
        "of": source,
        "songs": of_values(fold.songs.tolist(), fold.validation.tolist()),
        "cutoff": fold.cutoff and fold.cutoff.isoformat(),
        "label_days": label_days,
    }
    if kind_of(out) != KIND or read_manifest(out, KIND, MADE_BY).get("fold") != about:
        manifest = dict(catalogue.manifest) | {"fold": about, "notes": []}
        manifest["split"] = {"by": "fold", "cutoff": about["cutoff"], "zone": zone(catalogue)}
        with writing(out, KIND, manifest) as folder:
            evidence = write_tables(catalogue, fold, folder, label_days)
            tables = {path.name: of_table(path) for path in sorted(folder.glob("*.parquet"))}
            manifest |= {CONTENT: of_values(tables, source), "pairs": evidence}
    made = Catalogue.read(out)
    check_fold(made, fold)
    return made


def write_tables(catalogue: Catalogue, fold: Fold, folder: Path, label_days: int) -> dict[str, Any]:
    """Tables of a fold's catalogue; returns the counts of its pairs."""
    of_song = np.full(catalogue.n_songs, LATER, dtype=object)
    for split, songs in ((WARM, fold.known), (COLD_VAL, fold.validation), (COLD_TEST, fold.songs)):
        of_song[songs] = split
    plays = catalogue.plays
    if fold.cutoff is not None:
        plays = plays.filter(pl.col("played_at").is_not_null())  # one without a time may be later
    warm, cold, _ = separate(plays, Split(of_song, "fold", fold.cutoff, zone(catalogue)))
    cold = cold.filter(pl.col("song").is_in(pl.Series(np.r_[fold.songs, fold.validation]).cast(pl.Int32).implode()))
    if fold.cutoff is not None and label_days:
        released = catalogue.songs["released_at"].gather(cold["song"])
        cold = cold.filter(cold["played_at"] < released + timedelta(days=label_days))
    popularity = plays_of_songs(warm, catalogue.n_songs)
    songs = catalogue.songs.with_columns(
        pl.Series("split", of_song, dtype=pl.String), pl.Series("popularity", popularity)
    )
    for name, table in (("songs", songs), ("users", catalogue.users), ("plays", warm), ("cold_plays", cold)):
        table.write_parquet(folder / f"{name}.parquet")
    (folder / "features").symlink_to((catalogue.folder / "features").resolve())
    shape, options, seed = (catalogue.n_users, catalogue.n_songs), *pair_options(catalogue)
    pairs, evidence = mining.mine(pl.scan_parquet(folder / "plays.parquet", glob=False), None, shape, options, seed)
    if not len(pairs):
        raise UserError(f"folds: no song pair is left to learn from in {folder.name}: fewer folds, or a smaller share")
    val_pairs = mining.validation_pairs(folder, fold.validation, shape, options.top_k)
    pairs.frame().write_parquet(folder / "pairs.parquet")
    val_pairs.frame().write_parquet(folder / "val_pairs.parquet")
    return evidence | {"val_pairs": len(val_pairs)}


def pair_options(catalogue: Catalogue) -> tuple[PairsConfig, int]:
    """How the catalogue's pairs were mined, and the seed; feedback is of all times, so that it verifies no fold's."""
    recorded = catalogue.manifest["options"]
    known = as_dict(PrepareConfig(source="", out="").pairs)
    options = PairsConfig(**{name: value for name, value in recorded["pairs"].items() if name in known})
    if "feedback" in options.posterior:
        options.posterior = "auto"
    return options, recorded["split"]["seed"]


def zone(catalogue: Catalogue) -> str | None:
    """The time zone of a catalogue's days of release."""
    found: str | None = catalogue.manifest.get("split", {}).get("zone")
    return found


def check_fold(made: Catalogue, fold: Fold) -> None:
    """Refuse a fold's catalogue that knows of its songs or of what came later.

    Raises:
        UserError: a play or pair of a new song (`Catalogue` refuses it), a known song of the fold, or a late play.
    """
    if np.intersect1d(made.rows("warm"), np.r_[fold.songs, fold.validation]).size:
        raise UserError(f"{made.folder}: songs of the fold are known songs in it: remove the folder and run again")
    made.pairs()
    before = Split(made.songs["split"].to_numpy(), "fold", fold.cutoff, zone(made)).plays_before
    if before is None or fold.cutoff is None:
        return
    late = made.plays.filter((pl.col("played_at") >= before).fill_null(True)).height
    if late:
        raise UserError(
            f"{made.folder / 'plays.parquet'}: {late} plays are not earlier than the fold's songs "
            f"({fold.cutoff:%Y-%m-%d}): remove the folder and run again"
        )
