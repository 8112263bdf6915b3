"""Draw the latent variables of the demo world: content of songs, tastes of users, and their affinity.

A song's content (genre, mood, theme, traits) is expressed in its audio, text and tags; its quality, fame and hidden
traits are not. Half the variance of the hidden traits is the artist's, so the artist's name is informative about them.

affinity = √.5·content + √.25·hidden + √.1·quality + √.15·fame, each of unit variance over random (user, song) pairs:
content explains a little under half, since quality raises fame too. `hidden` is a match of tastes that only
co-listening reveals; quality and fame do not depend on the user.

Shapes: S songs, U users, D numbers in a taste match, G genres, M moods, H themes, T traits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from data.arrays import AnyArray, BoolArray, FloatArray, IntArray

END = datetime(2026, 7, 1)  # end of the log
NEW_DAYS = 30  # songs released in the last NEW_DAYS days are the new releases
LAST_RELEASE_DAY = 7  # no release in the last week: every new song has had a week to be heard
CATALOGUE_DAYS = 3 * 365

# (valence, arousal) in -1 … 1; they correlate genre, mood and theme.
GENRES = {
    "pop": (0.6, 0.4),
    "rock": (0.1, 0.6),
    "metal": (-0.5, 1.0),
    "electronic": (0.2, 0.8),
    "hip-hop": (0.0, 0.3),
    "jazz": (0.3, -0.2),
    "classical": (0.1, -0.5),
    "folk": (0.2, -0.4),
    "ambient": (0.0, -1.0),
    "reggae": (0.7, -0.1),
    "latin": (0.8, 0.7),
    "blues": (-0.6, -0.3),
}
MOODS = {
    "joyful": (0.9, 0.5),
    "tender": (0.5, -0.5),
    "melancholy": (-0.7, -0.5),
    "angry": (-0.8, 0.8),
    "calm": (0.4, -0.9),
    "dreamy": (0.1, -0.4),
    "restless": (-0.3, 0.5),
    "triumphant": (0.5, 0.9),
}
THEMES = {
    "love": (0.6, 0.1),
    "heartbreak": (-0.8, -0.2),
    "city": (-0.1, 0.4),
    "sea": (0.3, -0.5),
    "road": (0.2, 0.3),
    "home": (0.5, -0.4),
    "revolt": (-0.5, 0.8),
    "party": (0.8, 0.8),
    "memory": (-0.2, -0.5),
    "winter": (-0.4, -0.6),
}
TRAITS = ("energy", "brightness", "density", "warmth")
AGE_GROUPS = ("under 18", "18-24", "25-34", "35-49", "50 and over")
GENDERS = ("female", "male", "other")
COUNTRIES = ("BR", "CN", "DE", "FR", "GB", "IN", "JP", "MX", "NG", "US")
CONTENT, HIDDEN, QUALITY, FAME = 0.5, 0.25, 0.1, 0.15  # shares of affinity variance
CONTENT_PARTS = {"genre": 0.5, "mood": 0.2, "theme": 0.12, "traits": 0.18}  # shares of content variance


@dataclass
class Songs:
    """One value or row a song. `second_S` is the second genre or -1; `released_S` is in days before END."""

    genre_S: IntArray
    second_S: IntArray
    mood_S: IntArray
    theme_S: IntArray
    traits_ST: AnyArray
    artist_S: IntArray
    chinese_S: BoolArray
    released_S: IntArray
    quality_S: AnyArray
    fame_S: AnyArray  # in 0 … 1, the share of songs that are less famous
    reach_S: AnyArray  # log popularity, a power law of the fame rank
    match_SD: FloatArray = field(init=False)  # hangs on the users too, as does bias_S
    bias_S: FloatArray = field(init=False)

    @property
    def new_S(self) -> BoolArray:
        """Which songs are the new releases of the last month."""
        return self.released_S <= NEW_DAYS

    def __len__(self) -> int:
        return len(self.genre_S)


@dataclass
class Users:
    """One value or row a user. `openness_U` scales the appeal of unfamiliar songs."""

    age_U: IntArray
    gender_U: IntArray
    country_U: IntArray
    joined_U: AnyArray  # days before END
    activity_U: AnyArray  # expected plays in the log
    openness_U: AnyArray
    strictness_U: AnyArray
    match_UD: FloatArray = field(init=False)

    def __len__(self) -> int:
        return len(self.age_U)


def draw_world(n_songs: int, n_users: int, rng: np.random.Generator) -> tuple[Songs, Users]:
    """Draw songs and users, with `match` vectors scaled to the variance shares of the module docstring."""
    space = {name: rng.normal(size=(n, dim)) for name, n, dim in (("genre", 12, 6), ("mood", 8, 3), ("theme", 10, 3))}
    songs, song_parts = _draw_songs(n_songs, space, rng)
    users, user_parts = _draw_users(n_users, space, rng)
    shares = {name: CONTENT * share for name, share in CONTENT_PARTS.items()} | {"hidden": HIDDEN}
    pair_U, pair_S = rng.integers(n_users, size=20_000), rng.integers(n_songs, size=20_000)
    for name, share in shares.items():  # each part's match gets its share of the variance
        std = (user_parts[name][pair_U] * song_parts[name][pair_S]).sum(1).std()
        user_parts[name] *= np.sqrt(share) / std
    users.match_UD = np.concatenate([user_parts[name] for name in shares], axis=1).astype(np.float32)
    songs.match_SD = np.concatenate([song_parts[name] for name in shares], axis=1).astype(np.float32)
    centre = (users.match_UD[pair_U] * songs.match_SD[pair_S]).sum(1).mean()
    fame_S = (songs.fame_S - 0.5) * np.sqrt(12)
    songs.bias_S = (np.sqrt(QUALITY) * songs.quality_S + np.sqrt(FAME) * fame_S - centre).astype(np.float32)
    return songs, users


def _draw_songs(n: int, space: dict[str, AnyArray], rng: np.random.Generator) -> tuple[Songs, dict[str, AnyArray]]:
    n_artists = max(6, n * 3 // 20)
    weight_A = (np.arange(n_artists) + 5.0) ** -0.6  # artist 0 is the best known and releases most
    artist_S = rng.choice(n_artists, size=n, p=weight_A / weight_A.sum())
    near_GG = _near(GENRES, GENRES)
    home_A = rng.permutation(np.arange(n_artists) % len(GENRES))
    strays_S = rng.random(n) < 0.15
    genre_S = np.where(strays_S, _pick(near_GG[home_A[artist_S]], rng), home_A[artist_S])
    second_S = np.where(rng.random(n) < 0.3, _pick(near_GG[genre_S], rng), -1)
    second_S[second_S == genre_S] = -1
    mood_S = _pick(1.5 * _near(GENRES, MOODS)[genre_S], rng)
    lore_GH = rng.normal(scale=0.7, size=(len(GENRES), len(THEMES)))  # what a genre likes to sing about
    theme_S = _pick(1.5 * _near(MOODS, THEMES)[mood_S] + lore_GH[genre_S], rng)
    traits_ST = 0.8 * rng.normal(size=(n, len(TRAITS))) + 0.6 * rng.normal(size=(n_artists, len(TRAITS)))[artist_S]

    fame_A = -np.log(np.arange(n_artists) + 5.0)
    quality_S = rng.normal(size=n)
    score_S = 0.6 * _unit(fame_A)[artist_S] + 0.4 * quality_S + 0.7 * rng.normal(size=n)
    rank_S = np.empty(n)
    rank_S[np.argsort(-score_S)] = np.arange(n)
    hidden_SD = np.sqrt(0.5) * rng.normal(size=(n_artists, 8))[artist_S] + np.sqrt(0.5) * rng.normal(size=(n, 8))
    genre_SD = space["genre"][genre_S] + 0.5 * (second_S >= 0)[:, None] * space["genre"][second_S]
    parts = {
        "genre": genre_SD,
        "mood": space["mood"][mood_S],
        "theme": space["theme"][theme_S],
        "traits": traits_ST.copy(),
        "hidden": hidden_SD,
    }
    songs = Songs(
        genre_S, second_S, mood_S, theme_S, traits_ST, artist_S, _chinese(artist_S, n_artists, rng),
        _release_days(n, rng), quality_S, 1 - (rank_S + 0.5) / n, -0.9 * np.log(rank_S + 8),
    )  # fmt: skip
    return songs, parts


def _draw_users(n: int, space: dict[str, AnyArray], rng: np.random.Generator) -> tuple[Users, dict[str, AnyArray]]:
    age_U = rng.choice(len(AGE_GROUPS), size=n, p=(0.12, 0.3, 0.28, 0.2, 0.1))
    gender_U = rng.choice(len(GENDERS), size=n, p=(0.47, 0.47, 0.06))
    country_U = rng.integers(len(COUNTRIES), size=n)
    by_age = rng.normal(scale=0.8, size=(len(AGE_GROUPS), len(GENRES)))
    by_country = rng.normal(scale=0.6, size=(len(COUNTRIES), len(GENRES)))
    parts = {
        "genre": _mixture(by_age[age_U] + by_country[country_U], 3, rng) @ space["genre"],
        "mood": _mixture(np.zeros((n, len(MOODS))), 2, rng) @ space["mood"],
        "theme": _mixture(np.zeros((n, len(THEMES))), 2, rng) @ space["theme"],
        "traits": rng.normal(size=(n, len(TRAITS))),
        "hidden": rng.normal(size=(n, 8)),
    }
    activity_U = 28 + 110 * rng.pareto(2.5, size=n)  # Lomax: a power-law tail
    young_U = (age_U - 2) * -0.2  # the young are a little more curious
    openness_U = young_U + rng.normal(size=n)
    users = Users(
        age_U, gender_U, country_U, rng.uniform(45, CATALOGUE_DAYS, size=n), activity_U, openness_U,
        0.4 * rng.normal(size=n),
    )  # fmt: skip
    return users, parts


def _release_days(n: int, rng: np.random.Generator) -> IntArray:
    n_new = min(n, max(5, round(0.1 * n)))
    new = rng.integers(LAST_RELEASE_DAY, NEW_DAYS + 1, size=n_new)
    old = rng.integers(NEW_DAYS + 1, CATALOGUE_DAYS + 1, size=n - n_new)
    return rng.permutation(np.concatenate([new, old])).astype(np.int64)


def _chinese(artist_S: IntArray, n_artists: int, rng: np.random.Generator) -> BoolArray:
    """Mask of the songs of Chinese artists, chosen until they have about 3 percent of the songs (at least one)."""
    order = rng.permutation(n_artists)
    songs_A = np.bincount(artist_S, minlength=n_artists)[order]
    early_A = np.asarray(np.cumsum(songs_A) - songs_A < max(1, 0.03 * len(artist_S)))
    return np.isin(artist_S, order[early_A])


def _mixture(logits_UK: AnyArray, most: int, rng: np.random.Generator) -> AnyArray:
    """Weights over 1 … `most` of the K choices for each user, drawn by the logits (Gumbel top-k)."""
    n, k = logits_UK.shape
    order_UK = np.argsort(-(logits_UK + rng.gumbel(size=(n, k))), axis=1)[:, :most]
    kept_U1 = rng.integers(1, most + 1, size=(n, 1))
    weight_UK = rng.gamma(1.5, size=(n, most)) * (np.arange(most) < kept_U1)
    full_UK = np.zeros((n, k))
    np.put_along_axis(full_UK, order_UK, weight_UK / np.linalg.norm(weight_UK, axis=1, keepdims=True), axis=1)
    return full_UK


def _near(a: dict[str, tuple[float, float]], b: dict[str, tuple[float, float]]) -> AnyArray:
    """Negative squared distance of every `a` to every `b` in valence and arousal."""
    a_N2, b_M2 = np.array(list(a.values())), np.array(list(b.values()))
    return -((a_N2[:, None] - b_M2) ** 2).sum(-1)


def _pick(logits_NK: AnyArray, rng: np.random.Generator) -> IntArray:
    """Draw a column of each row from softmax(logits), by the Gumbel-max trick."""
    return np.asarray(np.argmax(logits_NK + rng.gumbel(size=logits_NK.shape), axis=1))


def _unit(x: AnyArray) -> AnyArray:
    return np.asarray((x - x.mean()) / x.std())
