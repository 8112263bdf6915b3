"""Training plays as a ranker's features read them: all of them, or those that a new song may see.

Shapes: C new songs, S known songs, P (song, user) pairs, N plays; in `Seen` also some users.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
COLUMNS = ("user_N", "song_N", "day_N", "strength_N", "completed_N", "favourited_N", "disliked_N")  # of a log


@dataclass(frozen=True)
class PlayLog:
    """Training plays in the order of time, undated ones last; days since any fixed day, flags NaN where not told."""

    user_N: Array
    song_N: Array
    day_N: Array
    strength_N: Array
    completed_N: Array
    favourited_N: Array
    disliked_N: Array
    n_users: int

    @cached_property
    def dated(self) -> int:
        """Number of plays with a time."""
        return int(np.isfinite(self.day_N).sum())

    def first(self, n_plays: int) -> PlayLog:
        """The first plays."""
        return self.take(slice(n_plays))

    def take(self, at: Any) -> PlayLog:
        """Some plays: a slice, or places in order."""
        return PlayLog(**{name: getattr(self, name)[at] for name in COLUMNS}, n_users=self.n_users)

    def cuts(self, before_C: Array) -> Array:
        """What tells songs with other plays before them apart, for `seen`."""
        return self.earlier(before_C)

    def seen(self, cut: Any, user_P: Array) -> Seen:
        """The plays that songs of a cut may see, of all users."""
        return Seen(self.first(int(cut)))

    def earlier(self, day_C: Array) -> Array:
        """How many plays, the first ones, are strictly earlier than each day, (C,).

        An undated play may be later than a dated song, and does not count. All count for a song without a day, and
        where no play has a time.
        """
        if not self.dated:
            return np.full(len(day_C), len(self.day_N))
        count_C = np.searchsorted(self.day_N[: self.dated], day_C, side="left")
        return np.where(np.isfinite(day_C), count_C, len(self.day_N))


class Plays(Protocol):
    """A log, wherever it is, as features ask for it; `PlayLog` says what its methods answer."""

    def cuts(self, before_C: Array) -> Array:
        """See there."""

    def seen(self, cut: Any, user_P: Array) -> Seen:
        """See there."""


@dataclass(frozen=True)
class Seen:
    """Plays that a song may see: of all users or of `users_N`, ascending; each user's in the order of time.

    Where not all users' plays are there, `listeners_S` and `last_day` tell of all: listeners of songs that some of
    these users heard, and the day of the last play.
    """

    log: PlayLog
    users_N: Array | None = None
    listeners_S: Array | None = None
    last_day: float | None = None
