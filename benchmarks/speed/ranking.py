"""Time and memory of ranking at the size of a real service, beside recall, on synthetic power-law listening.

    python -m benchmarks.speed.ranking users=1000000 plays=50000000 new=1000 candidates=1000 out=runs/ranking.json

The listening is that of `benchmarks.speed.audience_scale`; every play has a day, songs have an artist and a genre, and
users two profile columns. Candidates come from I2I2U, taste and CAT at a depth that gives `candidates` a song at most.
The ranker's trees are fitted to labels drawn at random by a score: their shape costs what real ones cost. Written:
seconds of each stage, peak memory, and pairs ranked a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.measure import forget_peak, memory, tell, timed
from benchmarks.speed.audience_scale import GENRES, ScaleConfig, world
from configs.load import command
from configs.options import at_least, opt
from configs.ranking import TreesConfig
from configs.targeting import TargetingConfig
from inference.ranking import trees
from inference.targeting import targeting_of
from retrieval.audience import ranked
from retrieval.candidates import Candidates
from retrieval.listening import Listening
from retrieval.play_log import PlayLog
from retrieval.rank_features import FeatureSource, KnownSongs
from retrieval.ranking import LABELS, Examples, Score
from retrieval.songs import SongFacts
from training.rank_trees import fit_trees

CHANNELS = 3  # of this benchmark: there is no boundary model
DAYS, SONGS_OF_AN_ARTIST, FITTED = 1000, 20, 50


@dataclass
class RankingSpeedConfig:
    """Options of this benchmark."""

    users: int = opt(1_000_000, "listeners")
    plays: int = opt(50_000_000, "plays, repeated ones included")
    songs: int = opt(100_000, "known songs")
    new: int = opt(1000, "new songs")
    candidates: int = opt(1000, "users who are a candidate of a song, at most")
    dim: int = opt(64, "size of a song vector")
    budget: int = opt(100, "users a song")
    seed: int = opt(0, "seed of the listening")
    out: str | None = opt(None, "JSON file to write")
    targeting: TargetingConfig = field(default_factory=TargetingConfig)


def main(config: RankingSpeedConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "users", "plays", "songs", "new", "dim", "budget")
    at_least(config, CHANNELS, "candidates")
    sizes = {name: getattr(config, name) for name in ("users", "plays", "songs", "new", "dim", "seed")}
    index, listening = world(ScaleConfig(**sizes))
    source, facts = source_of(config, listening)
    targeting = targeting_of(index, Listening(listening), config.targeting)
    new = np.arange(config.songs, config.songs + config.new)
    depth, seconds = config.candidates // CHANNELS, dict[str, float]()
    songs = targeting.songs(index.vectors[new], new, facts=facts)
    before = memory("VmRSS")
    forget_peak()
    with timed(seconds, "recall alone: i2i2u"):
        targeting.listeners(songs, config.budget)
    peak = {"peak_memory_mb_of_recall": memory("VmHWM")}
    forget_peak()
    with timed(seconds, "candidates of three channels"):
        candidates = targeting.candidates(songs, depth)
    with timed(seconds, "facts of users"):
        for _, seen in source.seen(songs, candidates):
            source.users(seen, targeting.song_SD, facts)
    with timed(seconds, "features"):
        feature_PF = source.features(targeting, songs, candidates)
    examples = Examples(candidates.song_P, candidates.user_P, feature_PF, source.names, source.codes)
    score = fitted(config, examples)
    with timed(seconds, "scores of the trees"):
        score_P = score(examples).astype(np.float32)
    with timed(seconds, "lists"):
        ranked(candidates.song_P, candidates.user_P, score_P, config.new, config.budget)
    tell(config, {"seconds": seconds, "memory_before_mb": before, **peak, **about(candidates, seconds)})


def about(candidates: Candidates, seconds: dict[str, float]) -> dict[str, Any]:
    """Peak memory and speed of ranking, the recall of candidates apart."""
    ranking = sum(seconds[name] for name in ("features", "scores of the trees", "lists"))
    return {
        "peak_memory_mb": memory("VmHWM"),
        "pairs": len(candidates),
        "pairs_a_second": round(len(candidates) / ranking),
        "ranking_over_candidates": ranking / seconds["candidates of three channels"],
    }


def source_of(config: RankingSpeedConfig, listening: sparse.csr_matrix) -> tuple[FeatureSource, SongFacts]:
    """Features' source: a day for every play, an artist and a genre for every song, two profile columns."""
    rng = np.random.default_rng(config.seed + 1)
    n_plays, n_songs = listening.nnz, listening.shape[1]
    user_N = np.repeat(np.arange(config.users, dtype=np.int64), np.diff(listening.indptr))
    day_N = np.sort(rng.uniform(0, DAYS, n_plays))
    shuffled = rng.permutation(n_plays)
    strength_N = listening.data[shuffled]
    flags = {
        "completed_N": (strength_N >= 2).astype(np.float32),
        "favourited_N": (strength_N >= 3).astype(np.float32),
        "disliked_N": np.zeros(n_plays, dtype=np.float32),
    }
    song_N = listening.indices[shuffled].astype(np.int64)
    log = PlayLog(user_N[shuffled], song_N, day_N, strength_N, **flags, n_users=config.users)
    number = np.arange(n_songs)
    fields = {
        "artist": one_value(number // GENRES // SONGS_OF_AN_ARTIST * GENRES + number % GENRES),
        "genres": one_value(number % GENRES),
    }
    profile = {"age": rng.integers(15, 70, config.users), "country": rng.integers(0, 30, config.users)}
    known = KnownSongs(rng.uniform(-DAYS, DAYS, n_songs), fields)
    source = FeatureSource(log, known, profile, ("country",), 30.0, config.targeting.memory_mb)
    return source, SongFacts({name: of[config.songs :] for name, of in fields.items()}, np.full(config.new, np.nan))


def one_value(value_S: Any) -> sparse.csr_matrix:
    """A field of which every song has one value, (S, V)."""
    shape = len(value_S), int(value_S.max()) + 1
    return sparse.csr_matrix((np.ones(len(value_S), dtype=np.float32), (np.arange(len(value_S)), value_S)), shape=shape)


def fitted(config: RankingSpeedConfig, examples: Examples) -> Score:
    """Trees fitted to some songs' candidates, of whom those with a high score more often listened."""
    rng = np.random.default_rng(config.seed)
    some = examples.take(examples.song_P < FITTED)
    chance_P = 0.1 * np.nan_to_num(some.columns(("taste_score",))[:, 0]).clip(0, 1)
    label_PL = np.zeros((len(some), len(LABELS)), dtype=np.float32)
    label_PL[:, 0] = rng.random(len(some)) < chance_P
    some.label_PL = label_PL
    found = fit_trees(some, TreesConfig(rounds=150), config.seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.txt"
        path.write_bytes(found.model)
        return trees(path, found.names)[0]


if __name__ == "__main__":
    command(main, RankingSpeedConfig, __doc__)
