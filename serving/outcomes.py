"""What those who played a song did with it, beside the catalogue: posteriors as those of `pipeline.waves`.

The rate at which a song's users complete it, or favourite it, is Beta(s·c + k, s·(1 − c) + n − k): c is the catalogue's
rate, n the users whose plays of the song tell, k those of them who did. A service is not told who was shown a song and
did not play it. So these are rates among those who played it, not among those who were shown it, and they make no
state. If whoever asks says how many users were shown it, the state is that of `pipeline.waves` for so many exposures;
only that knows who they were, and that later ones of a list like a song less.

Shapes: P users who have played a song, N rows of theirs, O outcomes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from configs.waves import OUTCOMES, WavePolicyConfig
from data.arrays import FloatArray
from retrieval.waves import HOLD, MASS, STOP, WIDEN, chance_above, interval, posterior, states
from serving.state import State, told

POLICY = WavePolicyConfig()
NAMES: dict[int, Literal["widen", "hold", "stop"]] = {WIDEN: "widen", HOLD: "hold", STOP: "stop"}


class Rate(BaseModel):
    """How often users who played a song did something with it; the rate is a posterior's."""

    known: int = Field(description="users whose plays of the song tell whether they did")
    did: int = Field(description="of these, those who did, in whichever play")
    rate: float | None = Field(description="posterior mean; here and below, null: the catalogue's rate is not known")
    low: float | None = Field(description="lower end of the 90 % interval")
    high: float | None = Field(description="upper end")
    catalogue: float | None = Field(description="share of the training's plays of which it is known")


class Advice(BaseModel):
    """Whether a song is worth showing to more users, as `pipeline.waves` judges it."""

    shown: int = Field(description="users who were shown the song, as the request says; all who played it, if more")
    state: Literal["widen", "hold", "stop"] | None = Field(description="null: no outcome can be judged")
    completed: float | None = Field(description="chance that the rate of those shown is above the catalogue's")
    favourited: float | None = Field(description="the same; null where the plays or the catalogue do not tell")


class Outcomes(BaseModel):
    """What those who played a song did with it, in the training and since."""

    song_id: str
    played: int = Field(description="users who have played it; who was shown it and did not is not known")
    completed: Rate
    favourited: Rate
    advice: Advice | None = Field(description="null: the request does not say how many users were shown the song")


def outcomes(state: State, number: int, shown: int | None = None) -> Outcomes:
    """What those who played a song did with it; several plays of a user count once."""
    did_PO = of_users(state, number)
    rates = {name: rate(did_P, state.model.rates[name]) for name, did_P in zip(OUTCOMES, did_PO.T, strict=True)}
    told_of = None if shown is None else advice(rates, len(did_PO), max(shown, len(did_PO)))
    return Outcomes(song_id=state.song_id(number), played=len(did_PO), **rates, advice=told_of)


def advice(rates: dict[str, Rate], played: int, shown: int) -> Advice:
    """The state of a song that so many users were shown: who did not play it counts as neither.

    Left out are users whose plays do not tell an outcome, and outcomes that no play or the catalogue tells.
    """
    judged = {name: one for name, one in rates.items() if one.catalogue is not None and (one.known or not played)}
    if not judged:
        return Advice(shown=shown, state=None, completed=None, favourited=None)
    c_O, known_O, did_O = (
        np.array([getattr(one, key) for one in judged.values()]) for key in ("catalogue", "known", "did")
    )
    chance_O = chance_above(*posterior(c_O, shown - played + known_O, did_O, POLICY.strength), c_O)
    (state,) = states(chance_O[:, None], np.array([shown]), POLICY.widen, POLICY.stop, POLICY.first).tolist()
    chances = dict.fromkeys(rates) | dict(zip(judged, chance_O.tolist(), strict=True))
    return Advice(shown=shown, state=NAMES[state], **chances)


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
    a, b = posterior(np.array(catalogue), np.array(known), np.array(did), POLICY.strength)
    mean, low, high = (float(one) for one in (a / (a + b), *interval(a, b, MASS)))
    return Rate(known=known, did=did, rate=mean, low=low, high=high, catalogue=catalogue)
