"""Options of waves: how a day's exposures are given out to new songs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from omegaconf import MISSING

from configs.errors import UserError
from configs.options import AUDIENCE, CATALOGUE, REQUIRED, WAVES, CommandLoggerConfig, above, at_least, opt

OUTCOMES = ("favourited", "completed")


@dataclass
class WavePolicyConfig:
    choose: Literal["thompson", "mean"] = opt(
        "thompson", "what of a song's rates counts today: a draw from the posterior, or its mean (explores nothing)"
    )
    worth: dict[str, float] = opt(
        {"favourited": 1.0, "completed": 0.5}, "what an outcome is worth (0: it does not count)"
    )
    strength: float = opt(10.0, "weight of the expected rate, in exposures")
    widen: float = opt(0.9, "widen a song from this chance on that its next users' rates are above the catalogue's")
    stop: float = opt(0.1, "stop a song from this chance downwards")
    first: int = opt(10, "exposures that every song gets, whatever their outcome")
    size: int = opt(10, "users of a song in a wave; of one that is widened as many as it has been shown, if more")
    per_user_cap: int = opt(0, "new songs a user is shown in a wave (0: no limit)")
    seed: int = opt(0, "seed of the draws")

    def __post_init__(self) -> None:
        """Check the ranges, and that some outcome is worth something."""
        if unknown := sorted(set(self.worth) - set(OUTCOMES)):
            raise UserError(
                f"policy.worth: no outcome is called {', '.join(unknown)}; choose from {', '.join(OUTCOMES)}"
            )
        if not self.outcomes or min(self.worth.values()) < 0:
            raise UserError(f"policy.worth={self.worth}: an outcome must be worth something, and none less than 0")
        above(self, 0, "policy.strength")
        above(self, 0, "policy.widen", "policy.stop", below=1)
        at_least(self, 0, *(f"policy.{name}" for name in ("first", "per_user_cap", "seed")))
        at_least(self, 1, "policy.size")
        if self.stop >= self.widen:
            raise UserError(f"policy.stop={self.stop:g} must be below policy.widen={self.widen:g}")

    @property
    def outcomes(self) -> list[str]:
        """Those that count."""
        return [name for name in OUTCOMES if self.worth.get(name, 0) != 0]


@dataclass
class WavesConfig:
    audience: str = opt(REQUIRED, "audience folder: the ranked users of each song", AUDIENCE)
    out: str = opt(REQUIRED, "waves folder to write")
    exposures: int = opt(MISSING, "how many (song, user) pairs to show in this wave, over all songs")
    after: str | None = opt(None, "waves folder of the wave before (default: this is the first)", WAVES)
    outcomes: str | None = opt(
        None, "what users did so far: a Parquet file, folder or glob of plays (user_id, song_id, favourited, completed)"
    )
    data: str | None = opt(None, "catalogue folder: the rates of its plays are the catalogue's rates", CATALOGUE)
    rates: dict[str, float] = opt({}, "or these rates an exposure: rates.favourited=0.1 rates.completed=0.55")
    policy: WavePolicyConfig = field(default_factory=WavePolicyConfig)
    show: int = opt(10, "songs in the printed table")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        """Check that there are rates, and that no folder is read and written at once."""
        at_least(self, 1, "exposures")
        at_least(self, 0, "show")
        if bool(self.rates) == bool(self.data):
            raise UserError(
                "give either data=CATALOGUE, whose plays tell the catalogue's rates, or these: rates.favourited=… "
                "rates.completed=…"
            )
        missing = [name for name in self.policy.outcomes if name not in self.rates]
        if self.rates and (missing or not all(0 < rate < 1 for rate in self.rates.values())):
            raise UserError(f"rates={self.rates}: give {', '.join(self.policy.outcomes)}, each above 0 and below 1")
        if self.after and Path(self.after).resolve() == Path(self.out).resolve():
            raise UserError(f"after={self.after} is out= too: give each wave a folder, so that it can be made again")
        if self.outcomes and not self.after:
            raise UserError("outcomes= is of earlier waves: give after=, the folder of the last one")
