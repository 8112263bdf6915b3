"""Give out the next wave of exposures: read lists, what was shown and what came of it; write pairs and states."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl

from artifacts.folders import read_manifest, writing
from artifacts.tracking import made, tracked, used
from configs.errors import UserError, first_of
from configs.load import recorded
from configs.options import AUDIENCE, MADE_BY, WAVES
from configs.waves import WavePolicyConfig, WavesConfig
from data.arrays import BoolArray
from data.catalogue import Catalogue
from data.contract.columns import PAIR, typed
from data.contract.dataset import plays_files
from data.contract.play_files import as_parquet, read_log
from retrieval.waves import HOLD, MASS, STOP, WIDEN, Beliefs, Exposures, Policy, expected_rates, judge, next_wave

STATES = {WIDEN: "widen", HOLD: "hold", STOP: "stop"}
NAMED = 3  # ids in a message
SHOWN = {"song_id": pl.String, "user_id": pl.String, "rank": pl.Int64, "wave": pl.Int64}


@dataclass
class Seen:
    """Pairs of all songs' lists and of earlier waves, in the order of songs and ranks, with what users did.

    `table` has song_id, user_id, rank, wave (null: not shown yet), song and user as numbers, and a flag an outcome.
    `lines` say what was left out.
    """

    table: pl.DataFrame
    songs: pl.DataFrame
    earlier: pl.DataFrame
    wave: int
    lines: list[str] = field(default_factory=list)

    def exposures(self, outcomes: list[str]) -> Exposures:
        """As arrays."""
        song, user, rank = (self.table[name].to_numpy().astype(np.int64) for name in ("song", "user", "rank"))
        shown = self.table["wave"].is_not_null().to_numpy()
        return Exposures(song, user, rank, shown, self.table.select(outcomes).to_numpy().T & shown, self.songs.height)


@tracked("waves")
def make_wave(config: WavesConfig, run: Any) -> None:
    """Run `pipeline.waves` (its docstring says what it reads and writes)."""
    outcomes = config.policy.outcomes
    rates = dict(config.rates) or catalogue_rates(Catalogue.read(str(config.data)), outcomes)
    seen = read_seen(config, outcomes)
    exposures, policy = seen.exposures(outcomes), policy_of(config.policy, rates)
    names = np.array([crc32(one.encode()) for one in seen.songs["song_id"].to_list()])
    expected_OP = expected_rates(exposures, policy)
    beliefs = judge(exposures, expected_OP, policy)
    given = config.exposures, seen.wave, names, config.policy.per_user_cap
    chosen_P = next_wave(exposures, expected_OP, beliefs, policy, *given)
    states = state_table(seen, exposures, beliefs, chosen_P, outcomes)
    manifest = {"options": recorded(config), "wave": seen.wave, "rates": rates, "exposures": int(chosen_P.sum())}
    with writing(config.out, WAVES, manifest) as folder:
        wave = seen.table.filter(pl.Series(chosen_P)).with_columns(wave=pl.lit(seen.wave, pl.Int64)).select(*SHOWN)
        wave.write_parquet(folder / "wave.parquet")
        seen.earlier.write_parquet(folder / "shown.parquet")
        states.write_parquet(folder / "songs.parquet")
    used(run, config.audience, config.after, config.data)
    made(run, config.out, config.logger.upload)
    print("\n".join([*seen.lines, *summary(config, seen, states, rates)]))


def policy_of(config: WavePolicyConfig, rates: dict[str, float]) -> Policy:
    """The policy of options and the catalogue's rates by outcome."""
    return Policy(
        worth_O=np.array([config.worth[name] for name in config.outcomes]),
        rate_O=np.array([rates[name] for name in config.outcomes]),
        strength=config.strength,
        widen=config.widen,
        stop=config.stop,
        first=config.first,
        size=config.size,
        thompson=config.choose == "thompson",
        seed=config.seed,
    )


def catalogue_rates(catalogue: Catalogue, outcomes: list[str]) -> dict[str, float]:
    """Share of the catalogue's plays in which each outcome happened, among those of which it is known.

    Raises:
        UserError: no play tells, or all or none are so.
    """
    rates = {}
    for name in outcomes:
        known = (
            catalogue.plays[name].drop_nulls() if name in catalogue.plays.columns else pl.Series([], dtype=pl.Boolean)
        )
        rates[name] = float(known.sum() / max(len(known), 1))
        if not 0 < rates[name] < 1:
            raise UserError(
                f"{catalogue.folder}: its plays do not tell at which rate songs are {name}: give "
                f"rates.{name}=…, or policy.worth.{name}=0"
            )
    return rates


def read_seen(config: WavesConfig, outcomes: list[str]) -> Seen:
    """Lists, earlier waves and outcomes as one table.

    Raises:
        UserError: a folder or file is missing, damaged or of another kind.
    """
    read_manifest(config.audience, AUDIENCE, MADE_BY[AUDIENCE])
    lists = read_table(Path(config.audience, "audience.parquet"), AUDIENCE)
    lines, earlier, wave = [], pl.DataFrame(schema=SHOWN), 1
    if config.after:
        wave = int(read_manifest(config.after, WAVES, MADE_BY[WAVES]).get("wave", 0)) + 1
        earlier = pl.concat([read_table(Path(config.after, f"{name}.parquet"), WAVES) for name in ("shown", "wave")])
    songs = lists.select(pl.col("song_id").unique(maintain_order=True)).with_row_index("song")
    gone = earlier.join(songs, on="song_id", how="anti")
    if gone.height:
        lines.append(f"{config.audience} no longer has {named(gone['song_id'])} of earlier waves: left out")
    pairs = [lists.select(*PAIR, "rank"), earlier.select(*PAIR, "rank")]
    table = pl.concat(pairs).unique(PAIR, keep="first", maintain_order=True).join(songs, on="song_id")
    table = table.join(earlier.select(*PAIR, "wave"), on=PAIR, how="left")
    done = read_outcomes(config.outcomes, outcomes, lists, earlier, lines) if config.outcomes else None
    if done is None:
        table = table.with_columns(pl.lit(False).alias(name) for name in outcomes)
    else:
        table = table.join(done, on=PAIR, how="left").with_columns(pl.col(outcomes).fill_null(False))
    if silent := earlier.height - (0 if done is None else done.height):
        lines.append(f"{silent:,} of {earlier.height:,} shown pairs have no outcome: neither {' nor '.join(outcomes)}")
    table = table.with_columns(user=pl.col("user_id").rank("dense").cast(pl.Int64) - 1).sort("song", "rank", "user")
    return Seen(table, songs, earlier, wave, lines)


def read_table(path: Path, kind: str) -> pl.DataFrame:
    """Pairs of a folder's table: song_id, user_id, rank, and wave where it has one; each pair once.

    Raises:
        UserError: the file is missing or damaged, or lacks a column.
    """
    try:
        table = pl.read_parquet(path, glob=False)
        columns = {name: dtype for name, dtype in SHOWN.items() if name != "wave" or kind == WAVES}
        return table.select(pl.col(name).cast(dtype) for name, dtype in columns.items()).unique(
            PAIR, maintain_order=True
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({reason}); make the folder again with: {MADE_BY[kind]}") from None


def read_outcomes(
    path: str, outcomes: list[str], lists: pl.DataFrame, earlier: pl.DataFrame, lines: list[str]
) -> pl.DataFrame:
    """One row a shown pair that has an outcome; an outcome holds if it does in any of the pair's rows.

    `lines` gets what was left out: songs and users that no list has, and pairs that were never shown.

    Raises:
        UserError: no such file, not Parquet, a missing column or wrong type.
    """
    files, notes = plays_files(Path(), path), list[str]()
    with as_parquet(files):
        log = read_log(files, notes)
        have = {name for piece in log for name in piece.collect_schema()}
        if missing := [name for name in outcomes if name not in have]:
            raise UserError(f"outcomes={path} has no column {missing[0]}: add it, or give policy.worth.{missing[0]}=0")
        rows = pl.concat([typed("plays", piece, notes) for piece in log]).select(*PAIR, *outcomes).collect()
    if incomplete := rows.filter(pl.any_horizontal(pl.col(PAIR).is_null())).height:
        lines.append(f"outcomes={path}: {incomplete:,} rows without user_id or song_id are left out")
    found = rows.drop_nulls(PAIR).group_by(PAIR, maintain_order=True).agg(pl.col(outcomes).any(), pl.len())
    if again := found["len"].sum() - found.height:
        lines.append(f"outcomes={path}: {again:,} further rows of a pair count together with its first")
    known = pl.concat([lists.select(PAIR), earlier.select(PAIR)])
    for column, what in (("song_id", "songs"), ("user_id", "users")):
        unknown = found.join(known, on=column, how="anti")
        found = found.join(known, on=column, how="semi")
        if unknown.height:
            lines.append(f"outcomes={path}: {unknown.height:,} of {what} in no list: {named(unknown[column])}")
    never = found.join(earlier, on=PAIR, how="anti")
    if never.height:
        pairs = never.select(pl.format("{} to {}", "song_id", "user_id")).to_series()
        lines.append(f"outcomes={path}: {never.height:,} of pairs that were never shown: {named(pairs)}")
    return found.join(earlier, on=PAIR, how="semi").drop("len")


def named(ids: pl.Series) -> str:
    """Some of the ids, and how many there are."""
    ids = ids.unique(maintain_order=True)
    return f"{first_of(ids, NAMED)} ({len(ids):,})"


def state_table(
    seen: Seen, exposures: Exposures, beliefs: Beliefs, chosen_P: BoolArray, outcomes: list[str]
) -> pl.DataFrame:
    """One row a song: its state, exposures and posteriors."""
    low_OC, high_OC = beliefs.interval(MASS)
    table: dict[str, Any] = {
        "song_id": seen.songs["song_id"],
        "state": [STATES[state] for state in beliefs.state_C.tolist()],
        "shown": exposures.count(exposures.shown_P),
        "next": exposures.count(chosen_P),
        "left": exposures.count(~exposures.shown_P & ~chosen_P),
    }
    for at, name in enumerate(outcomes):
        table |= {
            name: exposures.by_song(exposures.outcome_OP[at], exposures.shown_P).astype(np.int64),
            f"{name}_expected": beliefs.expected_OC[at],
            f"{name}_mean": beliefs.mean_OC[at],
            f"{name}_low": low_OC[at],
            f"{name}_high": high_OC[at],
            f"{name}_next": beliefs.mean_OC[at] / beliefs.expected_OC[at] * beliefs.next_OC[at],
            f"{name}_chance": beliefs.chance_OC[at],
        }
    return pl.DataFrame(table)


def summary(config: WavesConfig, seen: Seen, states: pl.DataFrame, rates: dict[str, float]) -> list[str]:
    """What was given out, and a table of the songs that get most of it."""
    outcomes, shown = config.policy.outcomes, max(seen.earlier.height, 1)
    counts = ", ".join(f"{state} {states.filter(pl.col('state') == state).height:,}" for state in STATES.values())
    lines = [
        f"{config.out}: wave {seen.wave}, {states['next'].sum():,} of {config.exposures:,} exposures, for "
        f"{states.filter(pl.col('next') > 0).height:,} of {states.height:,} songs ({counts})",
    ]
    for name in outcomes:
        so_far = f"{states[name].sum():,} of {seen.earlier.height:,} exposures ({states[name].sum() / shown:.3f})"
        lines.append(f"  {name}: {so_far}; the catalogue's rate is {rates[name]:.3f}")
    if not config.show:
        return lines
    heads = "".join(f"  {f'{name}: rate, {MASS:.0%} interval, chance':>42}" for name in outcomes)
    lines.append(f"  {'song':<16}{'state':>6}{'shown':>7}{'next':>6}{heads}")
    for one in (
        states.sort("next", "shown", descending=True, maintain_order=True).head(config.show).iter_rows(named=True)
    ):
        cells = ""
        for name in outcomes:
            rate, low, high, chance = (one[f"{name}_{key}"] for key in ("mean", "low", "high", "chance"))
            cells += f"  {f'{rate:.3f}  {low:.3f} to {high:.3f}  {chance:.2f}':>42}"
        lines.append(f"  {one['song_id']:<16}{one['state']:>6}{one['shown']:>7,}{one['next']:>6,}{cells}")
    return lines
