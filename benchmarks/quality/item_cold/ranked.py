"""The ranker on new items: candidates of `firstplay` (and of the boundary towers), ordered by what was learned.

It is fitted by `train.py rank` on the cold validation songs, or with `rank=[folds=K]` on known songs treated as new
ones. What it is compared with, `firstplay`, chooses its way from vectors to users on the same validation songs.

Shapes: U users, C cold songs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.item_cold.encoders import dense
from benchmarks.quality.item_cold.folds import Fold
from benchmarks.quality.item_cold.measure import TO_USERS, Scores, to_users
from configs.load import load
from configs.ranking import RankConfig
from configs.targeting import TargetingConfig
from data.arrays import FloatArray, IntArray
from data.catalogue import Catalogue
from data.item_pairs.verification import listening_matrix
from inference.ranking import open_ranker, song_facts
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from inference.vectors import Boundary, boundary_vectors, encode_songs
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.targeting import Targeting
from training.ranking import train_rank

RANKED, RANKED_BOUNDARY = "firstplay, ranked", "firstplay + boundary, ranked"
BUDGET = 200  # users of a list
WAYS = [
    f"targeting.neighbours={k} targeting.activity_power={power}" for k in (50, 100, 200) for power in (0.0, 0.25, 0.5)
]


def ranked(fold: Fold, i2i: Path, boundary: Path | None, out: Path, options: Sequence[str]) -> tuple[Scores, str]:
    """Scores of the test songs by a ranker of these runs, and the options of targeting that validation chose."""
    index, held, catalogue = index_of(fold, i2i), fold.parts["cold_val"], fold.catalogue
    listening = Listening(listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs))

    def found(way: str) -> float:
        score_UC = lists(catalogue, targeting_of(index, listening, options_of(way)), held.songs)
        return to_users(score_UC, held, fold.plays_UW, 0.0)[TO_USERS]

    way = max(WAYS, key=found)
    towers = [] if boundary is None else [f"boundary={boundary}"]
    given = [f"data={fold.folder}", f"i2i={i2i}", f"out={out}", *towers, *way.split(), *options, "logger.wandb=off"]
    config = load(RankConfig, given)
    train_rank(config)
    songs = fold.parts["cold_test"].songs
    vectors = boundary_vectors(boundary, songs, str(fold.folder), fold.features) if boundary else None
    ranker = open_ranker(str(out), catalogue, index, vectors, config.targeting)
    score_UC = lists(catalogue, targeting_of(index, listening, config.targeting, vectors, ranker), songs, vectors)
    return Scores(score_UC, score_UC), way


def options_of(way: str) -> TargetingConfig:
    """Options of targeting that are given as a command takes them."""
    return load(TargetingConfig, [one.removeprefix("targeting.") for one in way.split()])


def index_of(fold: Fold, i2i: Path) -> SongIndex:
    """The known songs of a fold as `pipeline.index` has them."""
    opened, found = encode_songs(i2i, str(fold.folder), fold.features)
    vectors = found["vector"]
    about = {"encoder": opened.fingerprint, "features": fold.features}
    return SongIndex(about, build_index(vectors[fold.known]), fold.known, vectors)


def lists(catalogue: Catalogue, targeting: Targeting, songs: IntArray, boundary: Boundary | None = None) -> FloatArray:
    """Scores of the users whom each song goes to, by the ranker or else by I2I2U, (U, C): −inf for all others."""
    items, ranker = boundary.item_CD if boundary else None, targeting.ranker
    facts = song_facts(ranker.source, catalogue, songs) if ranker else None
    asked = targeting.songs(targeting.song_SD[songs], songs, items, facts=facts)
    return dense(targeting.audience(asked, "rank" if ranker else "i2i2u", BUDGET), catalogue.n_users).T
