"""Generate the demo world: a synthetic music service with songs, users, a year of plays, and outcomes of new songs.

    content: genre, mood, theme, traits ──▶ audio (all but theme), words and tags (all but most traits)
    content ½, hidden taste ¼, fame and quality ¼ ──▶ affinity; with openness to the unknown, and luck ──▶ outcome
    popularity, freshness, taste, a noisy recommender ──▶ exposure: which plays happen at all

Popularity is a power law of fame, which depends on the artist, on quality and on luck. Openness to unknown songs
differs between users and shows in what they play and complete. `latent` draws songs and users, `text` and `audio`
express them, `behaviour` simulates listening. The songs of the last month (a tenth) are the new releases. Everything
follows from the seed, whatever the number of processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from data.arrays import AnyArray
from data.world import behaviour, latent, text
from data.world.audio import Recording, record
from data.world.latent import END, GENRES, MOODS, NEW_DAYS, Songs, Users, draw_world

MISSING = {"audio_path": 0.03, "lyrics": 0.04, "language": 0.02, "genres": 0.03, "tags": 0.05}  # share of songs without


def generate(
    folder: Path,
    songs: int = 2000,
    users: int = 3000,
    seconds: float = 5.0,
    truth_users: int = 1000,
    audio: bool = True,
    workers: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Write songs, plays, users, i2i_feedback and truth (Parquet) and audio/*.flac into `folder`, which exists.

    The options are those of `WorldConfig`; a tenth of the songs (at least five) are new releases. Returns counts and
    rates for the manifest.
    """
    rng = [np.random.default_rng([seed, stream]) for stream in range(3)]
    world_songs, world_users = draw_world(songs, users, rng[0])
    table = song_table(world_songs, audio, rng[1])
    tables = {"songs": table, "users": user_table(world_users, rng[1])}
    tables |= listen(world_songs, world_users, truth_users, rng[2])
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet")
    if audio:
        write_audio(world_songs, table["audio_path"], folder, seconds, workers, seed)
    return counts(tables, world_songs)


def listen(songs: Songs, users: Users, truth_users: int, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """Simulate one year of listening: the tables plays (in time order), i2i_feedback and truth."""
    with tqdm(total=4, desc="listening", unit="step") as steps:
        plays = behaviour.draw_plays(songs, users, rng)
        steps.update()
        outcomes, odds, met_2UC = behaviour.log_outcomes(songs, users, plays, rng)
        steps.update()
        feedback = behaviour.draw_feedback(songs, users, plays, odds, rng)
        sides = ("source_song_id", "recommended_song_id")
        feedback = feedback.with_columns(ids("s", feedback[side]).alias(side) for side in sides)
        steps.update()
        truth = truth_table(songs, met_2UC, truth_users, rng)
        steps.update()
    play_table = pl.DataFrame(
        {
            "user_id": ids("u", plays.user_N),
            "song_id": ids("s", plays.song_N),
            "played_at": days_before_end(behaviour.LOG_DAYS - plays.day_N),
        }
    ).hstack(outcomes)
    return {"plays": play_table, "i2i_feedback": feedback, "truth": truth}


def counts(tables: dict[str, pl.DataFrame], songs: Songs) -> dict[str, Any]:
    """Counts and rates for the manifest."""
    plays, new = tables["plays"], tables["songs"].filter(pl.Series(songs.new_S))["song_id"]
    rates = plays.select(pl.col("completed", "favourited").mean().round(4)).row(0)
    return {
        "songs": len(songs),
        "new_songs": len(new),
        "songs_with_audio": tables["songs"]["audio_path"].count(),
        "users": tables["users"].height,
        "plays": plays.height,
        "plays_of_new_songs": plays.filter(pl.col("song_id").is_in(new.implode())).height,
        "feedback_pairs": tables["i2i_feedback"].height,
        "truth_outcomes": tables["truth"].height,
        "completion_rate": rates[0],
        "favourite_rate": rates[1],
        "new_releases_from": (END - timedelta(days=NEW_DAYS)).date().isoformat(),
    }


def song_table(songs: Songs, audio: bool, rng: np.random.Generator) -> pl.DataFrame:
    """Table songs of the data contract, with some values missing at random."""
    titles, lyrics = text.write_texts(songs, rng)
    names = list(GENRES)
    song_ids = ids("s", np.arange(len(songs)))
    table = pl.DataFrame(
        {
            "song_id": song_ids,
            "title": titles,
            "lyrics": lyrics,
            "language": np.where(songs.chinese_S, "zh", "en"),
            "genres": [
                [names[first]] + ([names[second]] if second >= 0 else [])
                for first, second in zip(songs.genre_S, songs.second_S, strict=True)
            ],
            "tags": text.write_tags(songs, rng),
            "artist_id": ids("a", songs.artist_S),
            "released_at": days_before_end(songs.released_S),
            "audio_path": ("audio/" + song_ids + ".flac") if audio else [None] * len(songs),
        },
        schema_overrides={"audio_path": pl.String},
    )
    return table.with_columns(
        pl.when(pl.Series(rng.random(len(songs)) >= share)).then(pl.col(column)) for column, share in MISSING.items()
    )


def user_table(users: Users, rng: np.random.Generator) -> pl.DataFrame:
    """Table users: profile columns, which correlate with tastes and activity."""
    sessions_U = 0.08 * users.activity_U * rng.lognormal(0, 0.4, size=len(users))
    return pl.DataFrame(
        {
            "user_id": ids("u", np.arange(len(users))),
            "age_group": np.array(latent.AGE_GROUPS)[users.age_U],
            "gender": np.array(latent.GENDERS)[users.gender_U],
            "country": np.array(latent.COUNTRIES)[users.country_U],
            "sessions_per_week": sessions_U.round(1),
            "member_days": users.joined_U.astype(np.int64),
        }
    ).with_columns(pl.when(pl.Series(rng.random(len(users)) >= 0.05)).then(pl.col("gender")))


def truth_table(songs: Songs, met_2UC: AnyArray, truth_users: int, rng: np.random.Generator) -> pl.DataFrame:
    """Table truth, read by `evaluate` only: the outcome of every pair of a sampled user and a new song, if played."""
    n_users = met_2UC.shape[1]
    user_T = np.sort(rng.choice(n_users, size=min(truth_users, n_users), replace=False))
    new_C = np.flatnonzero(songs.new_S)
    completed_TC, favourited_TC = met_2UC[:, user_T]
    return pl.DataFrame(
        {
            "user_id": ids("u", np.repeat(user_T, len(new_C))),
            "song_id": ids("s", np.tile(new_C, len(user_T))),
            "completed": completed_TC.ravel(),
            "favourited": favourited_TC.ravel(),
        }
    )


def write_audio(songs: Songs, paths: pl.Series, folder: Path, seconds: float, workers: int, seed: int) -> None:
    """Synthesise the recordings named in `paths`."""
    (folder / "audio").mkdir()
    names, feelings = list(GENRES), list(MOODS.values())
    recordings = [
        Recording(
            folder / path, names[songs.genre_S[i]], names[songs.second_S[i]] if songs.second_S[i] >= 0 else None,
            feelings[songs.mood_S[i]], tuple(songs.traits_ST[i].tolist()), seconds, (seed, 1000, i),
        )
        for i, path in enumerate(paths) if path is not None
    ]  # fmt: skip
    with _mapper(workers) as mapped:
        for _ in tqdm(mapped(record, recordings), "audio", total=len(recordings), unit="song"):
            pass


@contextmanager
def _mapper(workers: int) -> Iterator[Any]:
    """Give `map` in this process, or over spawned ones (polars' threads do not survive a fork)."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker) as pool:
        yield lambda function, items: pool.map(function, items, chunksize=16)


def _start_worker() -> None:
    np.empty(
        2**24, dtype=np.uint8
    )  # freed at once: glibc then keeps blocks up to this size, which doubles the speed of synthesis
    parent = parent_process()  # a worker whose parent was killed would wait for ever
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def ids(prefix: str, numbers: AnyArray | pl.Series) -> pl.Series:
    """Format numbers as ids such as s00017."""
    return prefix + pl.Series(numbers).cast(pl.String).str.zfill(5)


def days_before_end(days: AnyArray) -> pl.Series:
    """Convert days before the world's end to Datetime (ms)."""
    milliseconds = pl.Series((-days * 86_400_000).astype(np.int64)).cast(pl.Duration("ms"))
    return pl.select(pl.lit(END).cast(pl.Datetime("ms")) + milliseconds).to_series()
