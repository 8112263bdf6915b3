"""`retrieval.targeting.Targeting` from an index, a listening matrix, the options, and a boundary model's vectors."""

from __future__ import annotations

from dataclasses import fields

from configs.targeting import TargetingConfig
from inference.song_index import SongIndex
from inference.vectors import Boundary
from retrieval.listening import Listening
from retrieval.targeting import Targeting, TargetingOptions


def targeting_of(
    index: SongIndex, listening: Listening, config: TargetingConfig, boundary: Boundary | None = None
) -> Targeting:
    """Targeting on the index's songs."""
    users = (None, None) if boundary is None else (boundary.user_UD, boundary.boundary_U)
    return Targeting(listening, index.vectors, index.similar, options_of(config), *users)


def options_of(config: TargetingConfig) -> TargetingOptions:
    """Those of the options that say how audiences are found."""
    return TargetingOptions(**{one.name: getattr(config, one.name) for one in fields(TargetingOptions)})
