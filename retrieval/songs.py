"""New songs to be targeted: what is known of each, and whom it must not go to.

Shapes: C new songs, S known songs, U users, K similar songs, V values of a field, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray
from scipy import sparse

from retrieval.audience import Excluded
from retrieval.boundary import NO_EXCLUSIONS

Array = NDArray[Any]


class Vectors(Protocol):
    """The vectors of a catalogue: of its songs and, with a boundary model, of users, and users' boundaries."""

    song_SD: Array
    user_UD: Array | None
    boundary_U: Array | None


@dataclass
class Similar:
    """Similar known songs of each new song, −1 where there are fewer, how similar they are and how much each weighs."""

    positions_CK: Array
    scores_CK: Array
    weights_CK: Array
    weights_CS: sparse.csr_matrix


@dataclass(frozen=True)
class SongFacts:
    """Fields of new songs, (C, V) each, and the day before which plays count for each; NaN: all do.

    A song's values of a field weigh 1 together, as in `KnownSongs`. `number_C` are the songs' numbers in the catalogue,
    for a ranker that reads their contents; None: of none. Songs that are not of the catalogue are numbered from its
    size on, in the order of their fields by name, `content`.
    """

    fields: dict[str, sparse.csr_matrix]
    before_C: Array
    number_C: Array | None = None
    content: dict[str, Any] | None = None


@dataclass
class Songs:
    """New songs: what is known of them, and whom they must not go to."""

    vector_CD: Array
    similar: Similar
    item_CD: Array | None = None  # vectors of the boundary model
    excluded: Excluded = NO_EXCLUSIONS
    margin_CU: Array | None = None  # where it is known already; else computed where needed
    facts: SongFacts | None = None  # what a ranker asks of them
    centres: tuple[Array, Array] | None = None  # `centroids` of their audiences, as margins

    def __len__(self) -> int:
        return len(self.vector_CD)
