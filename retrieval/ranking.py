"""Ranking: candidates of new songs, with features and labels, and the model that orders them.

Shapes: C new songs, P (song, user) pairs, G songs that have pairs, F features, L labels, B places of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.audience import Audience, ranked
from retrieval.candidates import Candidates
from retrieval.rank_features import FeatureSource
from retrieval.rank_histories import Histories
from retrieval.songs import Songs, Vectors

Array = NDArray[Any]
LABELS = ("played", "completed", "favourited", "skipped", "disliked")


@dataclass
class Examples:
    """Pairs to be scored or learned from, by song: numbers of songs and users in a catalogue, features, labels.

    `label_PL` are LABELS: 1, 0, or NaN where the data do not tell; None where they are to be found out. `names` are
    the columns of `feature_PF`, `codes` those of them that are category codes. `listeners` counts all held-out
    listeners of these songs, candidates or not. `content` is that of `SongFacts`.
    """

    song_P: Array
    user_P: Array
    feature_PF: Array
    names: tuple[str, ...]
    codes: tuple[str, ...] = ()
    label_PL: Array | None = None
    listeners: int = 0
    histories: Histories | None = None
    content: Any = None

    def __len__(self) -> int:
        return len(self.song_P)

    @property
    def sizes_G(self) -> Array:
        """Pairs of each song, in order."""
        edges = np.flatnonzero(np.diff(self.song_P, prepend=-1, append=-1))
        return np.diff(edges)

    @property
    def group_P(self) -> Array:
        """Which of the songs, in order, each pair is of."""
        return np.repeat(np.arange(len(self.sizes_G)), self.sizes_G)

    def take(self, at: Array) -> Examples:
        """Some pairs: places or a mask, in order."""
        label = None if self.label_PL is None else self.label_PL[at]
        arrays = self.song_P[at], self.user_P[at], self.feature_PF[at]
        histories = self.histories and self.histories.take(at)
        return Examples(*arrays, self.names, self.codes, label, 0, histories, self.content)

    def columns(self, names: tuple[str, ...]) -> Array:
        """Some features, (P, F)."""
        return self.feature_PF[:, [self.names.index(name) for name in names]]


def listened(examples: Examples) -> Array:
    """Played, completed and favourited, (P, 3): 1, 0 or NaN; who disliked the song counts as if they had not played."""
    assert examples.label_PL is not None
    disliked = examples.label_PL[:, LABELS.index("disliked")] == 1
    return np.where(disliked[:, None], np.float32(0), examples.label_PL[:, :3])


def grades(examples: Examples) -> Array:
    """3 for a favourite, 2 for a complete play, 1 for a play, 0 otherwise, also for who disliked the song, (P,)."""
    played, completed, favourited = (listened(examples) == 1).T
    return np.select([favourited, completed, played], [3, 2, 1], 0)


def grade_shares(examples: Examples, worth: Sequence[float]) -> Array:
    """What a pair's grade is worth, as a share of the highest grade's worth, (P,)."""
    return np.array([0.0, *worth])[grades(examples)] / worth[-1]


Score = Callable[[Examples], Array]  # examples → (P,), the higher the better


@dataclass
class Asked:
    """Candidates, by song and then by user, and their features."""

    candidates: Candidates
    examples: Examples


@dataclass
class Ranker:
    """A model, and what it needs to score candidates: how deep they go and what their features are made from.

    `logits`: a score is the log-odds of a grade, and means the same for every song; else it orders one song's users.
    `contributions`: what each feature adds to a score, (P, F) in the order of `Examples.names`; None where a model
    cannot tell. `history`: songs of a user's history that the model reads; 0: it reads none. `attention`: how much it
    looks at each of them, (P, T) in the order of `Examples.histories`; None where it does not look.
    """

    score: Score
    source: FeatureSource
    depth: int
    logits: bool = False
    contributions: Score | None = None
    history: int = 0
    attention: Score | None = None

    def audience(self, known: Vectors, songs: Songs, candidates: Candidates, budget: int) -> Audience:
        """The best `budget` candidates of each song; what they were chosen from is kept as `Audience.asked`."""
        feature_PF, histories = self.source.told(known, songs, candidates, self.history)
        song_P, user_P, source = candidates.song_P, candidates.user_P, self.source
        asked = Examples(song_P, user_P, feature_PF, source.names, source.codes, histories=histories)
        if self.history:
            assert songs.facts is not None and songs.facts.number_C is not None
            asked.song_P, asked.content = songs.facts.number_C[song_P], songs.facts.content
        score_P = self.score(asked).astype(np.float32)
        found = ranked(candidates.song_P, candidates.user_P, score_P, len(songs), budget)
        return replace(found, asked=Asked(candidates, asked))
