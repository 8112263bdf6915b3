"""Audience targeting: whom new songs go to, in which order, and why.

One `Targeting` answers for a whole catalogue of new songs (`pipeline.audience`, `pipeline.evaluate`) and for one song
at a time (the service), also with plays that have come in since: what is listened to is in its `listening`, which
grows, and users' vectors are replaced row by row.

Modes: "i2i2u" are the listeners of similar songs; "taste" those whose songs are similar on the whole; "cat" those near
clusters of the first; "union" the first and the third, or the second; "boundary" those whose interest boundary the song
clears; "rank" the candidates of all of these, as a learned ranker orders them.
Memory is bounded by `memory_mb`: new songs are scored so many at a time.

Shapes: C new songs, S known songs, U users, N some users, K similar songs, B budget, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.allocation import Exploration, rank_values, share_out
from retrieval.audience import (
    Allowed,
    Audience,
    Excluded,
    best_of,
    empty_audience,
    join,
    listener_scores,
    numbered,
    rank_by_score,
    scale_of,
    similarity_weights,
    slices,
    song_rows,
    songs_at_once,
    union,
    without_itself,
)
from retrieval.boundary import NO_EXCLUSIONS, margins, songs_above, users_above
from retrieval.candidates import Candidates, merge_channels
from retrieval.clusters import MOST, Tastes, centroids, relevance, user_vectors
from retrieval.distinct import distinct
from retrieval.gate import probability
from retrieval.index import unit_rows
from retrieval.listening import Listening
from retrieval.products import best_scores, rescored
from retrieval.rank_reasons import RankReasons, rank_reasons
from retrieval.ranking import Ranker
from retrieval.reasons import explain, nearest_heard, nearest_of, placed
from retrieval.songs import Similar, SongFacts, Songs

Array = NDArray[Any]
Mode = Literal["i2i2u", "taste", "cat", "union", "boundary", "rank"]
CHOICES = 4  # with a cap or exploration lists are made so many times longer, so that a song has a next choice


@dataclass(frozen=True)
class TargetingOptions:
    """How audiences are found; `configs.targeting.TargetingConfig` says what each option means."""

    neighbours: int
    activity_power: float
    popularity_power: float
    similarity_power: float
    seed_users: int
    clusters: int
    song_weight: float
    seed: int
    union: str
    users_index: str
    memory_mb: float


@dataclass
class Targeting:
    """Targeting on one catalogue: its listening, its songs' vectors, and users' interest boundaries.

    Args:
        listening: who listened to what.
        song_SD: vectors of all songs of the catalogue.
        search: (vectors (Q, D), k) → scores and numbers (Q, k) of the k most similar known songs, −1 where fewer.
        options: how audiences are found.
        user_UD: user vectors of the boundary model, where there is one.
        boundary_U: boundary scores of the same.
        ranker: what orders candidates, where there is one.
    """

    listening: Listening
    song_SD: Array
    search: Callable[[Array, int], tuple[Array, Array]]
    options: TargetingOptions
    user_UD: Array | None = None
    boundary_U: Array | None = None
    ranker: Ranker | None = None

    @cached_property
    def activity_U(self) -> Array:
        """Factor of each user, by their known plays."""
        return scale_of(self.listening.songs_U, self.options.activity_power)

    @cached_property
    def popularity_S(self) -> Array:
        """Factor of each song, by its known listeners."""
        return scale_of(self.listening.listeners_S, self.options.popularity_power)

    @cached_property
    def taste(self) -> Tastes:
        """Mean directions of users' songs."""
        return Tastes(user_vectors(self.listening.known_US, self.song_SD, np.ones(len(self.song_SD))))

    @cached_property
    def cat_taste(self) -> Tastes:
        """The same, less of popular songs: what CAT clusters."""
        return Tastes(user_vectors(self.listening.known_US, self.song_SD, self.popularity_S))

    def follow(self, users_N: Array) -> None:
        """Compute the tastes of some users anew, with what has come in since; and the activity of new ones."""
        heard_NS, is_new_N = self.listening.heard(users_N), self.listening.is_new(users_N)
        self.activity_U[users_N[is_new_N]] = scale_of(np.diff(heard_NS.indptr)[is_new_N], self.options.activity_power)
        songs = distinct(heard_NS.indices)
        heard_NS, song_SD, popularity_S = heard_NS[:, songs], self.song_SD[songs], self.popularity_S[songs]
        self.taste.replace(users_N, user_vectors(heard_NS, song_SD, np.ones(len(songs))))
        self.cat_taste.replace(users_N, user_vectors(heard_NS, song_SD, popularity_S))

    def similar(self, vector_CD: Array, song_C: Array, k: int) -> tuple[Array, Array]:
        """Scores and numbers, each (C, k), of the known songs most similar to some songs, none of them itself."""
        return without_itself(*self.search(vector_CD, k + 1), song_C)

    def songs(
        self,
        vector_CD: Array,
        song_C: Array,
        item_CD: Array | None = None,
        excluded: Excluded = NO_EXCLUSIONS,
        facts: SongFacts | None = None,
    ) -> Songs:
        """Songs to be targeted: by vector, number, item vector; a neighbour weighs less the more popular it is."""
        scores, positions = self.similar(vector_CD, song_C, self.options.neighbours)
        weights = similarity_weights(scores, positions, self.options.similarity_power) * self.popularity_S[positions]
        weights_CS = song_rows(positions, weights, self.listening.known_US.shape[1])
        return Songs(vector_CD, Similar(positions, scores, weights, weights_CS), item_CD, excluded, facts=facts)

    def audience(
        self,
        songs: Songs,
        mode: Mode,
        budget: int,
        gate: bool = False,
        margin: float = 0.0,
        cap: int = 0,
        exploration: Exploration | None = None,
    ) -> Audience:
        """Users of each song by a mode.

        Args:
            songs: whom users are looked for.
            mode: see the module's docstring.
            budget: users per song, at most as many as there are.
            gate: only users whose boundary the song clears ("boundary" does anyway).
            margin: how far it must clear it.
            cap: songs that a user may be named for over all of them; 0: no limit. Songs then share the users out: by
                σ(score) in the mode "boundary", and in "rank" where scores are log-odds; by rank in the others, whose
                scores have no scale in common.
            exploration: how many users are drawn at random among the song's next ones; None: none.
        """
        budget = min(budget, self.listening.n_users)
        depth = min(CHOICES * budget, self.listening.n_users) if cap or exploration else budget
        allowed = self.allowed(songs, gate, margin)
        if mode == "boundary":
            found = self.above_boundary(songs, depth, margin)
        elif mode == "taste":
            found = self.near_taste(songs, depth, allowed)
        elif mode == "i2i2u":
            found = self.listeners(songs, depth, allowed)
        elif mode == "rank":
            found = self.ranked(songs, depth, gate, margin)
        elif mode == "cat":
            found = self.near_clusters(songs, depth, allowed)
        elif self.options.union == "taste":
            found = union(self.listeners(songs, depth, allowed), self.near_taste(songs, depth, allowed), depth)
        else:
            listened, seeds_CP = self.seeded(songs, depth, allowed)
            found = union(listened, self.near_clusters(songs, depth, allowed, seeds_CP), depth)
        if not cap and exploration is None:
            return found
        logits = mode == "boundary" or (mode == "rank" and self.ranker is not None and self.ranker.logits)
        value_CB = probability(found.scores_CB) if logits else rank_values(found)
        return replace(share_out(found, value_CB, budget, cap, exploration), asked=found.asked)

    def listeners(self, songs: Songs, budget: int, allowed: Allowed | None = None) -> Audience:
        """I2I2U: the listeners of similar songs."""

        def score(rows: slice) -> Any:
            score_CU = self._heard_similar(songs, rows)
            return score_CU if allowed is None else allowed.kept(score_CU, rows)

        return rank_by_score(score, len(songs), budget, self._chunk())

    def seeded(self, songs: Songs, budget: int, allowed: Allowed | None = None) -> tuple[Audience, Array]:
        """`listeners` and `seed_users` of the same scores."""
        count, listened, seeds = min(self.options.seed_users, self.listening.n_users), [], []
        for rows in slices(len(songs), self._chunk()):
            score = self._heard_similar(songs, rows)
            seeds.append(best_of(score, count))
            listened.append(best_of(score if allowed is None else allowed.kept(score, rows), budget))
        return join(listened), join(seeds).users_CB

    def near_taste(self, songs: Songs, budget: int, allowed: Allowed | None = None) -> Audience:
        """Users whose mean direction is nearest to the song: the similarities of all their songs, not of K neighbours.

        A user's vector is the sum of their songs', so ⟨u, i/‖i‖⟩ sums their songs' similarities to song i, near and
        far, over the length of the sum: the score that `objectives.ranking.listening_loss` trains.
        """
        unit_CD, everything = unit_rows(songs.vector_CD), slice(0, len(songs))
        return self._nearest(self.taste, lambda part, user_UD: unit_CD[part] @ user_UD.T, everything, budget, allowed)

    def ranked(self, songs: Songs, budget: int, gate: bool = False, margin: float = 0.0) -> Audience:
        """The candidates that the ranker scores highest; no more users than there are candidates."""
        assert self.ranker is not None
        candidates = self.candidates(songs, self.ranker.depth, gate, margin)
        return self.ranker.audience(self, songs, candidates, budget)

    def candidates(self, songs: Songs, depth: int, gate: bool = False, margin: float = 0.0) -> Candidates:
        """The first `depth` users of each channel, those by margin whether or not they clear it unless gated."""
        budget, allowed = min(depth, self.listening.n_users), self.allowed(songs, gate, margin)
        listened, seeds_CP = self.seeded(songs, budget, allowed)
        taste, near = self.near_taste(songs, budget, allowed), self.near_clusters(songs, budget, allowed, seeds_CP)
        found = {"i2i2u": listened, "taste": taste, "cat": near}
        if self.boundary_U is not None:
            found["boundary"] = self.above_boundary(songs, budget, margin if gate else -np.inf)
        return merge_channels(found, depth)

    def new_songs_of(self, users_N: Array, songs: Songs, mode: Literal["i2i2u", "taste"], k: int) -> Audience:
        """Of some new songs those that score highest for each of some users, the other way round.

        Read `users_CB` of the result as places of songs, (N, k). A user's activity is left out: it moves no song.
        """

        def score(rows: slice) -> Any:
            if mode == "taste":
                return self.taste.user_UD[users_N[rows]] @ unit_rows(songs.vector_CD).T
            return sparse.csr_matrix(self.listening.heard(users_N[rows]) @ songs.similar.weights_CS.T)

        chunk = songs_at_once(self.options.memory_mb, len(songs))
        return rank_by_score(score, len(users_N), min(k, len(songs)), chunk)

    def near_clusters(
        self, songs: Songs, budget: int, allowed: Allowed | None = None, seeds_CP: Array | None = None
    ) -> Audience:
        """CAT: users near a cluster of the seed users, who are looked for unless they are given."""

        def near(rows: slice, centre_CKD: Array, any_C: Array) -> Audience:
            def score(part: slice, user_UD: Array) -> Array:
                return relevance(centre_CKD[part], user_UD)

            found = self._nearest(self.cat_taste, score, rows, budget, allowed)
            found.users_CB[~any_C], found.scores_CB[~any_C] = -1, -np.inf
            return found

        if songs.centres is not None:
            return near(slice(0, len(songs)), *songs.centres)
        seeds_CP = self.seed_users(songs) if seeds_CP is None else seeds_CP
        return join([near(*part) for part in self.centres(songs, seeds_CP)])

    def centres(self, songs: Songs, seeds_CP: Array) -> Iterator[tuple[slice, Array, Array]]:
        """`centroids` of some songs after others: which songs, and what it gives."""
        options, user_UD = self.options, self.cat_taste.user_UD
        how = options.clusters, options.seed, options.song_weight
        width, most = user_UD.shape[1] * user_UD.itemsize, options.clusters or MOST
        points = seeds_CP.shape[1] * (4 * width + 16 * most)  # bytes of a song's points, and their copies
        for rows in slices(len(songs), max(1, int(options.memory_mb * 2**20 / points))):
            yield rows, *centroids(seeds_CP[rows], user_UD, songs.vector_CD[rows], *how)

    def seed_users(self, songs: Songs) -> Array:
        """The audience that CAT clusters: the first I2I2U users of each song, (C, P), −1 where fewer.

        Also those who may not be reached: they may still tell about taste.
        """
        return self.listeners(songs, min(self.options.seed_users, self.listening.n_users)).users_CB

    def above_boundary(self, songs: Songs, budget: int, margin: float = 0.0) -> Audience:
        """The users of each song whose own boundary it clears the furthest."""
        if songs.margin_CU is not None:
            return self._by_margins(songs, budget, margin)
        assert songs.item_CD is not None and self.user_UD is not None and self.boundary_U is not None
        options, parts = self.options, (songs.item_CD, self.user_UD, self.boundary_U)
        return users_above(*parts, budget, margin, songs.excluded, options.users_index, options.memory_mb)

    def songs_of_users(
        self, item_CD: Array, k: int, margin: float, excluded: Excluded, users: slice | Array = slice(None)
    ) -> Audience:
        """The songs of each user, or of `users` (by whose places `excluded` goes), that clear their boundary furthest.

        Read `users_CB` of the result as places of songs, (U, k).
        """
        assert self.user_UD is not None and self.boundary_U is not None
        of_users = self.user_UD[users], self.boundary_U[users]
        return songs_above(item_CD, *of_users, min(k, len(item_CD)), margin, excluded, self.options.memory_mb)

    def margins(self, songs: Songs, rows: slice = slice(None), users: slice | Array = slice(None)) -> Array:
        """How far songs clear each user's boundary, (C, U): positive where they do."""
        if songs.margin_CU is not None:
            return songs.margin_CU[rows, users]
        assert songs.item_CD is not None and self.user_UD is not None and self.boundary_U is not None
        return margins(songs.item_CD[rows], self.user_UD[users], self.boundary_U[users])

    def allowed(self, songs: Songs, gate: bool, margin: float) -> Allowed | None:
        """Who may be reached: not excluded and, with a gate, the boundary cleared by more than `margin`; None: all."""
        if not gate and not songs.excluded:
            return None

        def clears(rows: slice, users: slice | Array) -> Array:
            return self.margins(songs, rows, users) > margin

        return Allowed(songs.excluded, self.listening.n_users, clears if gate else None)

    def reasons(self, users_CB: Array, songs: Songs) -> Array:
        """Why users are in an audience: song numbers (C, B, 3), −1 padded.

        They are the similar songs that a user listened to, the strongest contribution first; or else those of their
        own that are nearest to the new song.
        """
        users_N, place_CB = placed(users_CB)
        heard_NS = self.listening.heard(users_N)
        because = explain(place_CB, songs.similar.positions_CK, songs.similar.weights_CK, heard_NS)
        without_CB = np.where(because[:, :, 0] < 0, place_CB, -1)
        if (without_CB < 0).all():
            return because
        nearest = nearest_heard(without_CB, songs.vector_CD, self.song_SD, heard_NS)
        return np.where(without_CB[:, :, None] >= 0, nearest, because)

    def rank_reasons(self, found: Audience) -> RankReasons:
        """Why users are in an audience of the mode "rank": who named them, and what raised their score."""
        assert self.ranker is not None
        return rank_reasons(self.ranker, found)

    def nearest_of(self, user: int, vector_CD: Array) -> Array:
        """The songs that a user listened to that are most similar to each song, (C, 3), −1 padded."""
        return nearest_of(self.listening.heard_by(user), vector_CD, self.song_SD)

    def _heard_similar(self, songs: Songs, rows: slice) -> sparse.csr_matrix:
        """Scores of I2I2U of some songs."""
        return listener_scores(songs.similar.weights_CS[rows], self.listening, self.activity_U)

    def _chunk(self) -> int:
        return songs_at_once(self.options.memory_mb, self.listening.n_users)

    def _by_margins(self, songs: Songs, budget: int, margin: float) -> Audience:
        """The users of each song by margins that are known, of those above `margin`."""
        allowed = Allowed(songs.excluded, self.listening.n_users)
        some = allowed.some(len(songs))
        users = slice(0, self.listening.n_users) if some is None else some

        def score(rows: slice) -> Array:
            margin_Cu = np.array(self.margins(songs, rows, users))
            margin_Cu[margin_Cu <= margin] = -np.inf
            allowed.cut(margin_Cu, rows, users)
            return margin_Cu

        found = rank_by_score(score, len(songs), budget, self._chunk())
        return found if some is None else numbered(found, some)

    def _nearest(
        self,
        tastes: Tastes,
        score_of: Callable[[slice, Array], Array],
        rows: slice,
        budget: int,
        allowed: Allowed | None,
    ) -> Audience:
        """The users of some songs (from the first of `rows`) by scores of vectors, none without a taste."""
        n = rows.stop - rows.start
        some = None if allowed is None else allowed.some(n)
        size = len(tastes.user_UD) if some is None else len(some)

        def score(part: slice, at: slice) -> Array:
            users = at if some is None else some[at]
            score_Cu = tastes.scores(lambda user_UD: score_of(part, user_UD), users)
            score_Cu[:, tastes.empty_U[users]] = -np.inf
            if allowed is not None:
                allowed.cut(score_Cu, slice(rows.start + part.start, rows.start + part.stop), users)
            return score_Cu

        def best(depth: int) -> Audience:
            found = best_scores(score, n, size, depth, memory_mb=self.options.memory_mb)
            return found if some is None else numbered(found, some)

        if tastes.code_UD is None:
            return best(budget)
        if not size:
            return empty_audience(n, budget)
        return rescored(lambda depth: best(min(depth, size)), score_of, tastes.user_UD, budget)
