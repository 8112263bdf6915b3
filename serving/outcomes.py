"""What those who played a song did with it, beside the catalogue: posteriors as those of `pipeline.waves`.

The rate at which a song's users complete it, or favourite it, is Beta(s·c + k, s·(1 − c) + n − k): c is the catalogue's
rate, n the users whose plays of the song tell, k those of them who did. A service is not told who was shown a song and
did not play it. So these are rates among those who played it, not among those who were shown it, and they make no
state: whether a song is to be widened is for `pipeline.waves` to say, which knows the exposures.

Shapes: P users who have played a song, N rows of theirs, O outcomes.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from configs.waves import OUTCOMES, WavePolicyConfig
from data.arrays import FloatArray
from retrieval.waves import MASS, interval, posterior
from serving.state import State, told

STRENGTH = WavePolicyConfig().strength  # of the prior, in users


class Rate(BaseModel):
    """How often users who played a song did something with it; the rate is a posterior's."""

    known: int = Field(description="users whose plays of the song tell whether they did")
    did: int = Field(description="of these, those who did, in whichever play")
    rate: float | None = Field(description="posterior mean; here and below, null: the catalogue's rate is not known")
    low: float | None = Field(description="lower end of the 90 % interval")
    high: float | None = Field(description="upper end")
    catalogue: float | None = Field(description="share of the training's plays of which it is known")


class Outcomes(BaseModel):
    """What those who played a song did with it, in the training and since."""

    song_id: str
    played: int = Field(description="users who have played it; who was shown it and did not is not known")
    completed: Rate
    favourited: Rate


def outcomes(state: State, number: int) -> Outcomes:
    """What those who played a song did with it; several plays of a user count once."""
    did_PO = of_users(state, number)
    rates = {name: rate(did_P, state.model.rates[name]) for name, did_P in zip(OUTCOMES, did_PO.T, strict=True)}
    return Outcomes(song_id=state.song_id(number), played=len(did_PO), **rates)


def of_users(state: State, number: int) -> FloatArray:
    """Whether each user who has played a song did what `OUTCOMES` names, (P, 2): 1, 0, or NaN where no play tells."""
    with state.lock:
        since = dict(state.met.get(number, {}))
    user_N, did_NO = np.array(list(since), dtype=np.int64), told(np.array(list(since.values()), dtype=np.int64))
    if number not in state.pool.row_of:  # it has training plays, or came in before this model was made
        at, users_N = state.model.plays_of(number)
        known_NO = np.stack([state.model.plays.known[f"{name}_N"][at] for name in OUTCOMES], axis=1)
        user_N, did_NO = np.append(user_N, users_N), np.concatenate([did_NO, known_NO])
    users_P, place_N = np.unique(user_N, return_inverse=True)
    did_PO = np.full((len(users_P), len(OUTCOMES)), np.nan)
    np.fmax.at(did_PO, place_N, did_NO)  # of a number and NaN the number
    return did_PO


def rate(did_P: FloatArray, catalogue: float | None) -> Rate:
    """The posterior of an outcome's rate."""
    known, did = int(np.isfinite(did_P).sum()), int(np.nansum(did_P))
    if catalogue is None:
        return Rate(known=known, did=did, rate=None, low=None, high=None, catalogue=None)
    a, b = posterior(np.array(catalogue), np.array(known), np.array(did), STRENGTH)
    mean, low, high = (float(one) for one in (a / (a + b), *interval(a, b, MASS)))
    return Rate(known=known, did=did, rate=mean, low=low, high=high, catalogue=catalogue)
