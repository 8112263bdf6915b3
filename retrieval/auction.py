"""The compiled loops of `retrieval.allocation`: a forward and reverse auction with ε-scaling.

Songs and users are the two kinds of nodes, each with a limit of pairs that it may have and a price p of its places.
Songs bid for users at ever smaller ε, starting from the users' last prices; then users who stand empty at a price bid
for songs. In the end, of every pair e of song c and user u, of value v,

    not chosen:  v_e ≤ p_c + p_u            chosen:  v_e ≥ p_c + p_u − ε            p > 0: the node is full

(ε-complementary slackness), so that the choice is within ε a chosen pair of the best, and the prices prove it
(Bertsekas and Castañón, "A forward/reverse auction algorithm for asymmetric assignment problems", 1992).

Shapes: E pairs, N nodes (songs, then users).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def greedy(order_E: Array, ends_2E: Array, limit_N: Array) -> Array:
    """Choose pairs in the order given, each where both its nodes have a place left: (E,)."""
    room_N = limit_N.copy()
    chosen_E = np.zeros(len(order_E), dtype=np.bool_)
    for e in order_E:
        song, user = ends_2E[0, e], ends_2E[1, e]
        if room_N[song] > 0 and room_N[user] > 0:
            room_N[song] -= 1
            room_N[user] -= 1
            chosen_E[e] = True
    return chosen_E


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def settle_ties(order_E: Array, ends_2E: Array, value_E: Array, limit_N: Array, chosen_E: Array) -> None:
    """Swap chosen pairs, in place, for equally good ones of the same song whose users come first and have room.

    `order_E` is by song, falling value, then user.
    """
    room_N = limit_N.copy()
    for e in range(len(chosen_E)):
        if chosen_E[e]:
            room_N[ends_2E[1, e]] -= 1
    start = 0
    while start < len(order_E):
        stop, one = start + 1, order_E[start]
        while (
            stop < len(order_E)
            and value_E[order_E[stop]] == value_E[one]
            and (ends_2E[0, order_E[stop]] == ends_2E[0, one])
        ):
            stop += 1
        low, high = start, stop - 1
        while low < high:
            to, out = order_E[low], order_E[high]
            if chosen_E[to] or room_N[ends_2E[1, to]] <= 0:
                low += 1
            elif not chosen_E[out]:
                high -= 1
            else:
                chosen_E[to], chosen_E[out] = True, False
                room_N[ends_2E[1, to]] -= 1
                room_N[ends_2E[1, out]] += 1
        start = stop


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def auction(
    pair_at: Array, pairs: Array, ends_2E: Array, value_E: Array, limit_N: Array, n_songs: int, epsilons: Array
) -> tuple[Array, Array]:
    """Choose the pairs of the largest total value: chosen (E,), prices (N,).

    Args:
        pair_at: where the pairs of each node begin in `pairs`, and the end, (N + 1,).
        pairs: pairs of each node, (2 E,), in the order in which ties are broken.
        ends_2E: song and user of each pair, as nodes.
        value_E: its value, above 0.
        limit_N: pairs that a node may have, at least 1.
        n_songs: the first so many nodes are songs.
        epsilons: ε of each phase, falling; above 0.
    """
    n_nodes = len(limit_N)
    slot_at = np.zeros(n_nodes + 1, dtype=np.int64)  # a node's places, as many as it can fill
    for n in range(n_nodes):
        slot_at[n + 1] = slot_at[n] + min(limit_N[n], pair_at[n + 1] - pair_at[n])
    slot, place_2E = np.empty(slot_at[-1], dtype=np.int32), np.empty(ends_2E.shape, dtype=np.int32)
    chosen_E, used_N = np.zeros(len(value_E), dtype=np.bool_), np.zeros(n_nodes, dtype=np.int32)
    price_N, waits_N = np.zeros(n_nodes), np.zeros(n_nodes, dtype=np.bool_)
    price_N[:n_songs] = np.inf
    queue = np.empty(n_nodes, dtype=np.int32)
    graph, state = (pair_at, pairs, ends_2E, value_E, limit_N), (slot_at, slot, place_2E, chosen_E, used_N, price_N)
    for epsilon in epsilons:
        for e in range(len(value_E)):  # who paid more than this ε allows
            if chosen_E[e] and value_E[e] - price_N[ends_2E[0, e]] - price_N[ends_2E[1, e]] < -epsilon:
                _part(e, ends_2E, state)
        for start, stop in ((0, n_songs), (n_songs, n_nodes)):
            size = stop - start
            head, waiting = 0, 0
            for n in range(start, stop):
                if used_N[n] < limit_N[n] and price_N[n] > 0:
                    queue[waiting], waits_N[n] = n, True
                    waiting += 1
            while waiting > 0:
                n = queue[head]
                head, waiting, waits_N[n] = (head + 1) % size, waiting - 1, False
                for loser in _bid(n, graph, epsilon, state):
                    if not waits_N[loser]:
                        queue[(head + waiting) % size], waits_N[loser] = loser, True
                        waiting += 1
    return chosen_E, price_N


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _bid(n: int, graph: Any, epsilon: float, state: Any) -> Any:
    """A node takes the partners it lacks, the best at their prices, and pays up to what the next best is worth.

    Returns the nodes from which it took them.
    """
    pair_at, pairs, ends_2E, value_E, limit_N = graph
    slot_at, slot, place_2E, chosen_E, used_N, price_N = state
    side = 0 if ends_2E[0, pairs[pair_at[n]]] == n else 1
    other = ends_2E[1 - side]
    lacks = limit_N[n] - used_N[n]
    size = min(lacks + 1, pair_at[n + 1] - pair_at[n])
    best, gain, found = np.empty(size, dtype=np.int32), np.empty(size), 0
    for e in pairs[pair_at[n] : pair_at[n + 1]]:
        if chosen_E[e]:
            continue
        worth = value_E[e] - price_N[other[e]]
        if worth <= 0 or (found == size and worth <= gain[found - 1]):
            continue
        at = min(found, size - 1)
        while at > 0 and worth > gain[at - 1]:
            best[at], gain[at] = best[at - 1], gain[at - 1]
            at -= 1
        best[at], gain[at] = e, worth
        found = min(found + 1, size)
    price_N[n] = gain[lacks] if found > lacks else 0.0
    for e in slot[slot_at[n] : slot_at[n] + used_N[n]]:  # what it has it will pay as much for
        _reprice(other[e], 1 - side, graph, epsilon, state)
    losers = np.empty(min(found, lacks), dtype=np.int32)
    lost = 0
    for e in best[: min(found, lacks)]:
        m = other[e]
        if used_N[m] == limit_N[m]:  # who pays least gives way
            out, least = slot[slot_at[m]], np.inf
            for held in slot[slot_at[m] : slot_at[m + 1]]:
                paid = value_E[held] - price_N[ends_2E[side, held]]
                if paid < least:
                    out, least = held, paid
            losers[lost] = ends_2E[side, out]
            lost += 1
            _part(out, ends_2E, state)
        chosen_E[e] = True
        for which in range(2):
            k = ends_2E[which, e]
            slot[slot_at[k] + used_N[k]], place_2E[which, e] = e, used_N[k]
            used_N[k] += 1
        _reprice(m, 1 - side, graph, epsilon, state)
    return losers[:lost]


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _part(e: int, ends_2E: Array, state: Any) -> None:
    """Take a pair out of both its nodes' places; the last takes its place."""
    slot_at, slot, place_2E, chosen_E, used_N, _ = state
    chosen_E[e] = False
    for side in range(2):
        n = ends_2E[side, e]
        used_N[n] -= 1
        last = slot[slot_at[n] + used_N[n]]
        slot[slot_at[n] + place_2E[side, e]], place_2E[side, last] = last, place_2E[side, e]


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _reprice(m: int, side: int, graph: Any, epsilon: float, state: Any) -> None:
    """A full node costs what the partner pays that pays least."""
    _, _, ends_2E, value_E, limit_N = graph
    slot_at, slot, _, _, used_N, price_N = state
    if used_N[m] == limit_N[m]:
        least = np.inf
        for held in slot[slot_at[m] : slot_at[m + 1]]:
            least = min(least, value_E[held] - price_N[ends_2E[1 - side, held]] + epsilon)
        price_N[m] = max(price_N[m], least)
