"""What do waves find that a fixed budget does not? A simulation on built-in worlds, of which all chances are known.

    python -m benchmarks.quality.waves worlds=[1,2,3,4,5] out=runs/waves.json

Each world is made by its seed, without audio. New songs have ranked lists without training: I2I2U over untrained
vectors of words and categories. A way of giving out exposures sees outcomes of earlier waves alone. All ways have as
many exposures: `budget` times the songs, in `waves` parts. An outcome is drawn from the pair's true chance, once for
all ways, anew for each of `repeats`. Figures: favourites and completions an exposure; songs with fewer than ten
exposures; of the decisions at the end of each wave the share that the true rate of the next users bears out.

Rows: fixed (the first `budget` users of each song); Thompson sampling; posterior means; both without the exposures that
every song is due; Thompson sampling where rates do not fall with the rank; two oracles: one knows each song's true
rate, one each pair's true chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from tqdm import tqdm

from artifacts.folders import writing
from benchmarks.measure import write_json
from benchmarks.quality.item_cold.measure import row
from benchmarks.table import lines, writable
from configs.data import PrepareConfig
from configs.load import command, load
from configs.options import opt
from configs.targeting import TargetingConfig
from configs.waves import OUTCOMES, WavePolicyConfig
from data.arrays import AnyArray, BoolArray
from data.catalogue import Catalogue
from data.fields import read_fields
from data.item_pairs.verification import listening_matrix
from data.preparation import prepare
from data.world import behaviour, generate
from data.world.latent import draw_world
from evaluation.baselines import content_vectors
from evaluation.evaluation import untrained_index
from inference.targeting import targeting_of
from inference.waves import catalogue_rates, policy_of
from retrieval.listening import Listening
from retrieval.waves import STOP, WIDEN, Beliefs, Exposures, Policy, expected_rates, judge, next_wave

FEW = 10  # exposures
FIXED = "fixed budget"
FIGURES = {
    "favourites": "favourites an exposure",
    "completions": "completions an exposure",
    "few": "songs with fewer than 10 exposures",
    "median": "median exposures of a song",
    "most": "most",
    "stopped": "stopped",
    "stopped_rightly": "rightly",
    "widened": "widened",
    "widened_rightly": "rightly",
}
SHARES = ("favourites", "completions", "stopped", "stopped_rightly", "widened", "widened_rightly")


@dataclass
class WavesBenchmarkConfig:
    """Options of this benchmark."""

    out: str = opt("runs/waves.json", "JSON file to write")
    work: str | None = opt(None, "folder for worlds and catalogues (default: beside out, without .json)")
    worlds: list[int] = opt([1, 2, 3, 4, 5], "seeds of the worlds")
    songs: int = opt(2000, "songs of a world, a tenth of them new")
    users: int = opt(3000, "users of a world")
    width: int = opt(500, "users in a song's list")
    budget: int = opt(50, "exposures a song, on average")
    waves: int = opt(10, "waves in which they are given out")
    repeats: int = opt(4, "times that outcomes are drawn")
    policy: WavePolicyConfig = field(default_factory=WavePolicyConfig)


@dataclass(frozen=True)
class World:
    """Lists of new songs, the true chances of their pairs (2, P) as in OUTCOMES, and the catalogue's rates."""

    lists: Exposures
    chance_2P: AnyArray
    policy: Policy


Way = Callable[[World, BoolArray, WavesBenchmarkConfig], tuple[BoolArray, list[dict[str, float]]]]


def main(config: WavesBenchmarkConfig) -> None:
    """Run the command (see the module's docstring)."""
    work = Path(config.work or config.out.removesuffix(".json"))
    writable(config.out, work)
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in tqdm(config.worlds, desc="worlds"):
        world = world_of(config, work, seed)
        for name, way in ways().items():
            runs.setdefault(name, []).append(measured(config, world, way, seed))
    rows = []
    for name, found in runs.items():
        shared = [key for key in found[0] if all(key in one for one in found)]  # no decision, none is right
        found = [{key: one[key] for key in shared} for one in found]
        rows.append({"way": name} | row(found, None if name == FIXED else runs[FIXED]))
    write_json(config.out, rows)
    print(table(rows))


def world_of(config: WavesBenchmarkConfig, work: Path, seed: int) -> World:
    """A world with its lists."""
    at = work / f"songs{config.songs}_users{config.users}_seed{seed}"
    if not (at / "dataset").exists():
        with writing(at / "dataset", "dataset", {"source": "benchmarks.quality.waves"}) as folder:
            generate(folder, config.songs, config.users, truth_users=0, audio=False, seed=seed)
    if not (at / "catalogue").exists():
        prepare(load(PrepareConfig, [f"source={at}/dataset", f"out={at}/catalogue", "split.cutoff=2026-06-01"]))
    catalogue = Catalogue.read(at / "catalogue")
    new = catalogue.rows("cold")
    listening = Listening(listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs))
    fields = read_fields(catalogue, None, [], min_count=1)
    index = untrained_index(content_vectors(fields, catalogue.rows("warm")), catalogue.rows("warm"))
    targeting = targeting_of(index, listening, TargetingConfig())
    users_CB = targeting.audience(targeting.songs(index.vectors[new], new), "i2i2u", config.width).users_CB
    song, rank = np.nonzero(users_CB >= 0)
    user = users_CB[song, rank]
    numbers = [catalogue.songs["song_id"].gather(new[song]), catalogue.users["user_id"].gather(user)]
    chance_2P = true_chances(config, seed, *(ids.str.slice(1).cast(int).to_numpy() for ids in numbers))
    nothing = np.zeros((2, len(song)), dtype=bool)
    lists = Exposures(song, user, rank + 1, nothing[0], nothing, len(new))
    return World(lists, chance_2P, policy_of(config.policy, catalogue_rates(catalogue, config.policy.outcomes)))


def true_chances(config: WavesBenchmarkConfig, seed: int, song_P: AnyArray, user_P: AnyArray) -> AnyArray:
    """Chance that a user favourites, and that they complete a new song, by the world's own formula, (2, P)."""
    songs, users = draw_world(config.songs, config.users, np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 2])
    _, odds, _ = behaviour.log_outcomes(songs, users, behaviour.draw_plays(songs, users, rng), rng)
    appeal_P = behaviour.SLOPE * behaviour.appeal(songs, users, user_P, song_P, np.ones(len(user_P)))
    completed_P = expit(appeal_P + odds.completed)
    return np.stack([completed_P * expit(appeal_P + odds.favourited), completed_P])


def ways() -> dict[str, Way]:
    """The rows by name."""
    return {
        FIXED: fixed,
        "Thompson sampling": in_waves,
        "posterior means": partial(in_waves, thompson=False),
        "Thompson sampling, nothing due": partial(in_waves, first=0),
        "posterior means, nothing due": partial(in_waves, thompson=False, first=0),
        "Thompson sampling, no fall with the rank": partial(in_waves, falls=False),
        "oracle of songs": oracle_of_songs,
        "oracle of pairs": oracle_of_pairs,
    }


def measured(config: WavesBenchmarkConfig, world: World, way: Way, seed: int) -> dict[str, float]:
    """Figures of a way in a world, means over the draws of outcomes; those of decisions over all decisions."""
    found, decisions = [], []
    for repeat in range(config.repeats):
        luck_2P = np.random.default_rng([seed, repeat]).random(world.chance_2P.shape)
        favourited_P, completed_P = world.chance_2P
        completed_P = luck_2P[1] < completed_P
        favourited_P = completed_P & (luck_2P[0] < favourited_P / world.chance_2P[1])
        outcome_2P = np.stack([favourited_P, completed_P])
        shown_P, more = way(world, outcome_2P, config)
        n_C = world.lists.count(shown_P)
        found.append([*outcome_2P[:, shown_P].mean(axis=1), (n_C < FEW).sum(), np.median(n_C), n_C.max(), n_C.sum()])
        decisions += more
    names = ("favourites", "completions", "few", "median", "most", "exposures")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True)) | shares(decisions)


def shares(decisions: list[dict[str, float]]) -> dict[str, float]:
    """Shares of decisions that stop and widen songs, and of these the ones that are right."""
    sums = {key: sum(one[key] for one in decisions) for one in decisions[:1] for key in one}
    pairs = [("stopped", "songs"), ("stopped_rightly", "stopped"), ("widened", "songs"), ("widened_rightly", "widened")]
    return {key: sums[key] / sums[of] for key, of in pairs if sums.get(of)}


def fixed(world: World, outcome_2P: BoolArray, config: WavesBenchmarkConfig) -> tuple[BoolArray, list[Any]]:
    """The first users of each list."""
    return world.lists.rank_P <= config.budget, []


def in_waves(
    world: World,
    outcome_2P: BoolArray,
    config: WavesBenchmarkConfig,
    thompson: bool | None = None,
    first: int | None = None,
    falls: bool = True,
) -> tuple[BoolArray, list[dict[str, float]]]:
    """What `retrieval.waves` gives out, and the decisions of each wave."""
    lists, policy, shown_P = world.lists, world.policy, world.lists.shown_P
    policy = policy if thompson is None else replace(policy, thompson=thompson)
    policy = policy if first is None else replace(policy, first=first)
    rows = [OUTCOMES.index(name) for name in config.policy.outcomes]
    total, decisions = config.budget * lists.n_songs // config.waves, []
    for wave in range(1, config.waves + 1):
        seen = replace(lists, shown_P=shown_P, outcome_OP=outcome_2P[rows] & shown_P)
        expected_OP = expected_rates(seen, policy) if falls else flat(seen, policy)
        beliefs = judge(seen, expected_OP, policy)
        decisions.append(borne_out(seen, beliefs, policy, world.chance_2P[rows]))
        given = total, wave, np.arange(lists.n_songs), config.policy.per_user_cap
        shown_P = shown_P | next_wave(seen, expected_OP, beliefs, policy, *given)
    return shown_P, decisions


def flat(seen: Exposures, policy: Policy) -> AnyArray:
    """The mean rate of all that was shown, of every pair."""
    mean_O = seen.outcome_OP[:, seen.shown_P].mean(axis=1) if seen.shown_P.any() else policy.rate_O
    return np.repeat(mean_O[:, None], len(seen.song_P), axis=1)


def borne_out(seen: Exposures, beliefs: Beliefs, policy: Policy, chance_OP: AnyArray) -> dict[str, float]:
    """How many decisions there are, and how many are right: next users truly above all the catalogue's rates or not."""
    turn_P = seen.turn()
    coming_P = (turn_P >= 0) & (turn_P < policy.size)
    n_C = seen.count(coming_P)
    true_OC = np.stack([seen.by_song(one, coming_P) for one in chance_OP]) / np.maximum(n_C, 1)
    above_C = (true_OC >= policy.rate_O[:, None]).all(axis=0)
    stopped_C, widened_C = ((beliefs.state_C == state) & (n_C > 0) for state in (STOP, WIDEN))
    judged_C = (seen.count(seen.shown_P) >= max(policy.first, 1)) & (n_C > 0)
    counts = {"songs": judged_C, "stopped": stopped_C, "widened": widened_C}
    counts |= {"stopped_rightly": stopped_C & ~above_C, "widened_rightly": widened_C & above_C}
    return {name: float(of_C.sum()) for name, of_C in counts.items()}


def oracle_of_songs(world: World, outcome_2P: BoolArray, config: WavesBenchmarkConfig) -> tuple[BoolArray, list[Any]]:
    """The songs' true rates of favourites are known, and how rates fall with the rank, but no pair's own chance."""
    lists, rank_P = world.lists, world.lists.rank_P
    fall_R = np.bincount(rank_P, world.chance_2P[0]) / np.maximum(np.bincount(rank_P), 1)
    early_P = rank_P <= 2 * config.budget
    lift_C = lists.by_song(world.chance_2P[0], early_P) / lists.by_song(fall_R[rank_P], early_P)
    return best(world, lift_C[lists.song_P] * fall_R[rank_P], config), []


def oracle_of_pairs(world: World, outcome_2P: BoolArray, config: WavesBenchmarkConfig) -> tuple[BoolArray, list[Any]]:
    """Each pair's true chance of a favourite is known."""
    return best(world, world.chance_2P[0], config), []


def best(world: World, value_P: AnyArray, config: WavesBenchmarkConfig) -> BoolArray:
    """As many pairs as there are exposures, of the highest values."""
    chosen_P = np.zeros(len(value_P), dtype=bool)
    chosen_P[np.argsort(-value_P, kind="stable")[: config.budget * world.lists.n_songs]] = True
    return chosen_P


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean ± standard deviation over the worlds, and favourites over those of the fixed budget."""
    body = []
    for one in rows:
        cells = []
        for key in FIGURES:
            digits = 3 if key in SHARES else 0
            cells.append(f"{one[key]:.{digits}f} ± {one[f'{key}_std']:.{digits}f}" if key in one else "–")
        ratio = one["favourites"] / rows[0]["favourites"]
        body.append([one["way"], *cells[:1], f"{ratio:.2f}", *cells[1:]])
    names = list(FIGURES.values())
    return lines(["way", names[0], "over fixed", *names[1:]], body)


if __name__ == "__main__":
    command(main, WavesBenchmarkConfig, __doc__)
