"""`retrieval.targeting.Targeting` from an index, a listening matrix, options, a boundary model's vectors, a ranker."""

from __future__ import annotations

from dataclasses import fields, replace

from configs.targeting import TargetingConfig
from inference.song_index import SongIndex
from inference.vectors import Boundary
from retrieval.listening import Listening
from retrieval.ranking import Ranker
from retrieval.targeting import Targeting, TargetingOptions


def targeting_of(
    index: SongIndex,
    listening: Listening,
    config: TargetingConfig,
    boundary: Boundary | None = None,
    ranker: Ranker | None = None,
) -> Targeting:
    """Targeting on the index's songs."""
    of = listening, index.vectors, index.similar, options_of(config)
    if boundary is None:
        return Targeting(*of, ranker=ranker)
    return Targeting(*of, boundary.user_UD, boundary.boundary_U, ranker)


def targeting_on(index: SongIndex, like: Targeting) -> Targeting:
    """Targeting on the songs of another index, with the listening of `like` alone."""
    return replace(like, song_SD=index.vectors, search=index.similar, user_UD=None, boundary_U=None, ranker=None)


def options_of(config: TargetingConfig) -> TargetingOptions:
    """Those of the options that say how audiences are found."""
    return TargetingOptions(**{one.name: getattr(config, one.name) for one in fields(TargetingOptions)})
