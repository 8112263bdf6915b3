"""What `search=N` of a training varies, and what it tries: a function of the seed and the trial's number alone.

Ranges hold what has done well on some published data (configs/item_cold/, docs/results/), and the defaults.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from configs.errors import UserError
from configs.load import replaced


class Log(NamedTuple):
    """Numbers from low to high, even in their logarithm, of two digits."""

    low: float
    high: float


Space = dict[str, Log | tuple[float, ...]]  # option → range, or values that are equally likely

RATES: Space = {"optim.lr": Log(1e-3, 5e-3), "optim.weight_decay": Log(0.01, 1.0)}
SPACES: dict[str, Space] = {  # an option that is added goes to the end: the others keep their draws
    "i2i": {
        **RATES,
        "trainer.epochs": (4, 8, 16),
        "batch_size": (512, 1024, 2048),
        "model.dim": (64, 128, 256),
        "model.field_dim": (32, 64, 128),
        "model.hidden": (0, 256, 512),
        "model.dropout": (0.1, 0.2, 0.3, 0.4),
        "model.input_dropout": (0.0, 0.15, 0.3, 0.6),
        "objective.pair_weight": (0.1, 0.3, 1.0),
        "objective.bcl_weight": (0.0, 0.03, 0.1),
        "objective.users": (128, 256, 512),
        "objective.users_weight": (1.0, 3.0),
    },
    "boundary": {
        **RATES,
        "trainer.epochs": (4, 8, 16),
        "batch_size": (512, 1024, 2048),
        "model.dim": (64, 128),
        "model.field_dim": (32, 64),
        "model.hidden": (256, 512),
        "model.dropout": (0.1, 0.2, 0.3),
        "model.history": (25, 50, 100),
    },
}
FIRST: dict[str, dict[str, Any]] = {  # trial 1: a small encoder in small steps; of the boundary what suits lfm2k
    "i2i": {
        "optim.lr": 1e-3,
        "trainer.epochs": 16,
        "batch_size": 512,
        "model.dim": 64,
        "model.field_dim": 32,
        "model.dropout": 0.1,
        "model.input_dropout": 0.0,
        "objective.pair_weight": 1.0,
    },
    "boundary": {
        "optim.lr": 2e-3,
        "optim.weight_decay": 0.3,
        "trainer.epochs": 8,
        "model.dim": 128,
        "model.field_dim": 64,
        "model.hidden": 512,
        "model.dropout": 0.3,
    },
}


def searched(task: str, given: Collection[str]) -> list[str]:
    """Options that a search of the task varies: those of its space that the user has not given.

    Raises:
        UserError: none is left.
    """
    found = [name for name in SPACES[task] if name not in given]
    if not found:
        raise UserError("search: every option that it would vary is given (docs/method.md lists them)")
    return found


def trials(task: str, config: Any, given: Collection[str], folder: str, group: str) -> list[Any]:
    """The options of all trainings of a search, of which trial 0 is as given; each writes folder/000, 001 …

    Raises:
        UserError: nothing is left to vary, a trial's options do not go together, or trainings are to start from a run.
    """
    if config.start is not None:
        raise UserError("search= varies the model's sizes, which are given by start=: leave one of the two out")
    names = searched(task, given)
    every = [{}, FIRST[task], *draws(SPACES[task], config.seed, config.search - 2)][: config.search]
    return [
        replaced(
            config,
            {name: value for name, value in options.items() if name in names}
            | {"search": 0, "out": f"{folder}/{number:03}", "logger.group": group},
        )
        for number, options in enumerate(every)
    ]


def draws(space: Space, seed: int, n: int) -> list[dict[str, Any]]:
    """The first n points of a scrambled Sobol sequence in the space: a larger n adds some, and changes none."""
    from scipy.stats import qmc

    points = qmc.Sobol(len(space), rng=seed)
    return [
        {name: at(one, u) for (name, one), u in zip(space.items(), points.random(1)[0].tolist(), strict=True)}
        for _ in range(n)
    ]


def at(values: Log | tuple[float, ...], u: float) -> float:
    """What lies at the share u (from 0, below 1) of a range or of a list."""
    if isinstance(values, Log):
        return float(f"{values.low * (values.high / values.low) ** u:.2g}")
    return values[int(u * len(values))]
