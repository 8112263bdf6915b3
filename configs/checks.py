"""Options of the audience and of its evaluation that cannot be."""

from __future__ import annotations

import numpy as np

from configs.data import PrepareConfig
from configs.errors import UserError
from configs.targeting import AudienceConfig, TargetingConfig


def check_options(config: AudienceConfig) -> str:
    """The index folder; raises UserError where a folder is missing that the mode needs, or `check_targeting` does."""
    if config.index is None:
        raise UserError("missing option: index=… (python -m pipeline.index): the similar songs come from it")
    if config.boundary is None and (config.mode == "boundary" or config.gate):
        raise UserError("missing option: boundary=… (python train.py boundary …): the users' boundaries come from it")
    check_targeting(config.targeting)
    return config.index


def check_targeting(options: TargetingConfig) -> None:
    """Raise UserError for an audience of nobody, and for sizes that are none."""
    if options.neighbours < 1 or options.budget < 1:
        raise UserError(
            f"targeting.neighbours={options.neighbours} and targeting.budget={options.budget}: both must be at least 1"
        )
    if options.seed_users < 1 or options.clusters < 1:
        raise UserError(
            f"targeting.seed_users={options.seed_users} and targeting.clusters={options.clusters}: "
            "both must be at least 1"
        )
    if options.per_user_cap < 0 or options.seed < 0:
        raise UserError(
            f"targeting.per_user_cap={options.per_user_cap} and targeting.seed={options.seed}: "
            "neither may be negative (a cap of 0 is none)"
        )
    if options.songs_per_user < 1:
        raise UserError(f"targeting.songs_per_user={options.songs_per_user}: must be at least 1")
    if not 0 < options.warm_up < np.inf:
        raise UserError(f"targeting.warm_up={options.warm_up}: must be above 0 and finite")
    if not np.isfinite(options.margin):
        raise UserError(f"targeting.margin={options.margin}: must be a finite number")
    if not (0 < options.memory_mb < np.inf and 0 <= options.song_weight < np.inf):
        raise UserError(
            f"targeting.memory_mb={options.memory_mb} and targeting.song_weight={options.song_weight}: "
            "the first must be above 0, the second at least 0, both finite"
        )


def check_preparation(config: PrepareConfig) -> None:
    """Raise UserError where numbers are out of range, or options do not go together."""
    least = {"shrinkage": 0, "max_history": 0, "prior_plays": 0, "min_lift": 0, "top_k": 1, "min_common": 1}
    ranges = [("memory_gb", config.memory_gb, 0)]
    ranges += [(f"pairs.{name}", getattr(config.pairs, name), from_) for name, from_ in least.items()]
    for name, value, from_ in ranges:
        if not from_ <= value < 1e9:
            raise UserError(f"{name}={value:g} must be a number from {from_} on")
    if config.format != "contract" and (config.engine == "spark" or config.plays or config.memory_gb):
        raise UserError(
            f"format={config.format} is read as published: plays=, memory_gb= and engine=spark are for others"
        )
    if config.engine == "spark" and config.memory_gb:
        raise UserError(
            "memory_gb= is for engine=local: give Spark's driver and workers their memory by its own settings"
        )
