"""Cold-start methods beside each other on new items that nobody has played: users → songs and songs → users.

    python -m benchmarks.quality.item_cold --config configs/item_cold/lfm2k.yaml \
        data=$FIRSTPLAY_DATA/lfm2k out=runs/lfm2k.json
    python -m benchmarks.quality.item_cold data=$FIRSTPLAY_DATA/lfm2k methods=[ablation] features=[text] out=…

For each seed the data are split anew, and every method is fitted on the warm plays. Ours is `firstplay`; `methods`
takes names, or `baselines`, `ours` (with CB2CF), `u2i` (our boundary towers, and their union with `firstplay`),
`ablation`, `missing` (new songs without text or audio). "tuned" rows
choose their settings on the cold validation songs, each direction apart. Finished training and the figures of baselines
are kept in work=, so that a killed run goes on. Protocol: docs/results.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from artifacts.folders import write_text
from benchmarks.quality.item_cold import boundary, closed_form, encoders, neural
from benchmarks.quality.item_cold.folds import (
    LFM2K_SETS,
    Fold,
    content,
    feature_sets,
    fingerprint,
    make_fold,
    read_json,
)
from benchmarks.quality.item_cold.measure import POWERS, Scores, both, rows_of, tuned
from benchmarks.quality.item_cold.methods import CLOSED, FIXED, OURS, SEEDED, TUNED, methods
from benchmarks.quality.item_cold.table import table
from benchmarks.table import writable
from configs.errors import UserError
from configs.load import command
from configs.options import opt

Runs = dict[str, dict[str, list[dict[str, Any]]]]  # feature set → method → one entry a seed


@dataclass
class ItemColdConfig:
    """Options of this benchmark."""

    data: str = opt("", "dataset folder, the published lfm2k folder, or hetrec2011-lastfm-2k.zip")
    out: str = opt("runs/item_cold/result.json", "JSON file to write")
    work: str | None = opt(None, "folder for catalogues and runs (default: beside out, without .json)")
    seeds: int = opt(5, "seeds 0 … n−1 of the split and of all training")
    features: list[str] = opt([], "feature sets: fields joined by + (lfm2k: text, audio, text+audio); empty: all")
    methods: list[str] = opt(["baselines", "ours"], "methods or groups of them")
    prepare: list[str] = opt([], "options of pipeline.prepare: split.by=time (at random else), pairs.top_k=50, …")
    text: list[str] = opt([], "columns whose text makes a field `text` (pipeline.embed without a CLIP run)")
    text_model: str = opt("minilm", "text encoder that reads it (text.model of pipeline.embed)")
    i2i: list[str] = opt([], "options of our encoder, as train.py i2i takes them")
    i2i_of: dict[str, list[str]] = opt({}, "more of them for one feature set")
    boundary: list[str] = opt([], "options of our boundary towers, as train.py boundary takes them")
    boundary_of: dict[str, list[str]] = opt({}, "more of them for one feature set")


def main(config: ItemColdConfig) -> None:
    """Run the command (see the module's docstring)."""
    if not config.data or not Path(config.data).exists():
        raise UserError(f"data={config.data}: no such folder or zip (docs/data.md says where the published ones are)")
    if config.seeds < 1:
        raise UserError(f"seeds={config.seeds} must be at least 1")
    wanted = methods(config.methods)
    work = Path(config.work or config.out.removesuffix(".json"))
    writable(config.out, work)
    found: Runs = {}
    for seed in tqdm(range(config.seeds), desc="seeds"):
        fold = fold_of(config, work / f"seed{seed}", seed)
        for name, fields in feature_sets(Path(config.data), fold, config.features).items():
            of_set = found.setdefault(name, {})
            for method, figures in measure_all(config, fold, work, name, fields, wanted, seed):
                of_set.setdefault(method, []).append(figures)
    rows = [one for name, of_set in found.items() for one in rows_of(Path(config.data).stem, name, of_set)]
    if left_out := [method for method in wanted if not any(method in of_set for of_set in found.values())]:
        print(f"not measured, since no feature set has both text and audio: {'; '.join(left_out)}")
    write_text(Path(config.out), json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    print(table(rows))


def fold_of(config: ItemColdConfig, work: Path, seed: int, more: Sequence[str] = ()) -> Fold:
    """One seed's data, with further options of pipeline.prepare."""
    return make_fold(Path(config.data), work, seed, [*config.prepare, *more], config.text, config.text_model)


def measure_all(
    config: ItemColdConfig, fold: Fold, work: Path, name: str, fields: list[str], wanted: list[str], seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The test figures of every method, with its seconds."""
    steps: dict[str, Callable[[], Any]] = {}
    for method in wanted:
        if method in FIXED:
            steps[method] = partial(fixed, fold, fields, *FIXED[method], seed)
        elif method in TUNED:
            steps[method] = partial(choose, fold, fields, TUNED[method], seed)
        elif method in encoders.WITHOUT and not set(LFM2K_SETS[encoders.WITHOUT[method][1]]) < set(fields):
            continue
        elif method in encoders.VARIANTS or method in encoders.WITHOUT:
            steps[method] = partial(encoder, config, fold, work, name, fields, method, seed)
        elif method in (boundary.BOUNDARY, boundary.UNION):
            steps[method] = partial(towers, config, fold, work, name, fields, method, seed)
        else:
            steps[method] = partial(audience, config, fold, work, name, fields, method, seed)
    of = fingerprint(fold, fields)
    same_split = fold.catalogue.manifest["split"]["by"] in ("time", "column")  # for all seeds
    for method, step in tqdm(steps.items(), desc=f"seed {seed}, {name}", leave=False):
        kept = (
            work / f"seed{0 if same_split and method in CLOSED else seed}" / "figures" / name / f"{slug(method)}.json"
        )
        before = read_json(kept)
        if before is not None and before.get("of") != of:
            before = None  # measured on other data
        if before is None or method not in (*FIXED, *TUNED):
            started = time.monotonic()
            figures, chosen = step()
            seconds = time.monotonic() - started
            # Of a run that was found finished, the time it took when it was trained.
            seconds = seconds if before is None else max(seconds, before["seconds"])
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_text(kept, json.dumps(figures | {"seconds": seconds, "chosen": chosen, "of": of}))
        yield method, read_json(kept)


def slug(method: str) -> str:
    """A method's name as a file name."""
    return method.replace(" ", "_").replace(",", "")


def fixed(fold: Fold, fields: list[str], method: Any, options: dict[str, Any], seed: int) -> Any:
    """A baseline with its fixed settings; songs → users also with users' scores over the root of their plays + 1."""
    scores = baseline(fold, content(fold, fields, [1.0] * len(fields)), method, options, seed)["cold_test"]
    figures = both(scores, fold.parts["cold_test"], fold.plays_UW)
    rooted = both(scores, fold.parts["cold_test"], fold.plays_UW, power=0.5)
    return figures | {f"{key}_root": value for key, value in rooted.items() if key.startswith("songs_to_users")}, {}


def choose(fold: Fold, fields: list[str], method: Any, seed: int) -> Any:
    """A baseline with the settings, modality weights and user normalisation that do best on validation."""
    grids = closed_form.GRIDS | neural.GRIDS
    spaces = {str(weights): content(fold, fields, weights) for weights in modality_weights(len(fields), method)}
    settings = [(f"{options} weights={w}", (w, options)) for w in spaces for options in grids[method.__name__]]
    kept: dict[str, Any] = {}

    def score_of(setting: tuple[str, dict[str, Any]]) -> dict[str, Scores]:
        space, options = setting
        if method in (closed_form.content_knn, closed_form.ridge_to_ease):
            for other in kept.keys() - {space}:
                del kept[other]  # one space's solutions at a time
            options = options | {"kept": kept.setdefault(space, {})}
        return baseline(fold, spaces[space], method, options, seed)

    return tuned(settings, POWERS, score_of, fold.parts, fold.plays_UW)


def modality_weights(n: int, method: Any) -> list[list[float]]:
    """Closed forms: all fields alike, or one in full and the others at .3. Trained ones scale their input anyway."""
    if n == 1 or method in SEEDED:
        return [[1.0] * n]
    return [[1.0] * n] + [[1.0 if field == one else 0.3 for field in range(n)] for one in range(n)]


def baseline(fold: Fold, x_SD: Any, method: Any, options: dict[str, Any], seed: int) -> dict[str, Scores]:
    """Scores of both cold parts from one fit."""
    options = options | ({"seed": seed} if method in SEEDED else {})
    cold = [held.songs for held in fold.parts.values()]
    score_UC = method(fold.plays_UW, x_SD[fold.known], x_SD[np.concatenate(cold)], **options)
    parts = np.split(score_UC, np.cumsum([len(one) for one in cold])[:-1], axis=1)
    return {part: Scores(one, one) for part, one in zip(fold.parts, parts, strict=True)}


def encoder(
    config: ItemColdConfig, fold: Fold, work: Path, name: str, fields: list[str], method: str, seed: int
) -> Any:
    """One variant of our encoder; validation chooses how its vectors score, for each direction apart."""
    of, lacking = encoders.WITHOUT.get(method, (method, ""))
    run, fold = trained(config, fold, work, name, fields, of, seed)
    ways, similar = encoder_ways(fold, encoders.outputs(fold, run, LFM2K_SETS[lacking] if lacking else None))
    figures, chosen = best_way(fold, ways)
    return figures | encoders.neighbour_popularity(fold, similar["cold_test"]), chosen


def best_way(fold: Fold, ways: boundary.Ways) -> tuple[dict[str, float], dict[str, str]]:
    """Test figures of the way of scoring that does best on validation, and which it is, for each direction apart."""
    return tuned([(name, name) for name in ways], (0.0,), ways.__getitem__, fold.parts, fold.plays_UW)


def encoder_ways(fold: Fold, found: encoders.Outputs) -> tuple[boundary.Ways, dict[str, encoders.Similar]]:
    """All ways from an encoder's outputs to scores, and the similar songs."""
    scores = encoders.score(fold, found)
    ways = {f"taste, item bias={w}": {part: scores[part][w] for part in scores} for w in encoders.BIAS_WEIGHTS}
    ways |= encoders.nearest(fold, found.vectors)
    similar = encoders.similar_songs(fold, found.vectors)
    to_users = encoders.listeners(fold, similar)
    for way, of_part in encoders.audiences(fold, found.vectors, similar).items():
        to_users[way] = {part: one.users for part, one in of_part.items()}
    for way, users_of in to_users.items():
        ways[way] = {part: Scores(scores[part][0.0].songs, users_of[part]) for part in users_of}
    return ways, similar


def towers(config: ItemColdConfig, fold: Fold, work: Path, name: str, fields: list[str], method: str, seed: int) -> Any:
    """The boundary towers; or they and `firstplay` together, each as validation scores it best."""
    options = [*config.boundary, *config.boundary_of.get(name, [])]
    run = boundary.train(fold, fields, work / f"seed{seed}" / "runs" / name / "boundary", seed, options)
    ways = boundary.ways(fold, run)
    figures, chosen = best_way(fold, ways)
    if method == boundary.BOUNDARY:
        return figures, chosen
    encoded, _ = encoder_ways(fold, encoders.outputs(fold, trained(config, fold, work, name, fields, OURS[0], seed)[0]))
    one, other = boundary.picked(ways, chosen), boundary.picked(encoded, best_way(fold, encoded)[1])
    return both(boundary.union(one, other)["cold_test"], fold.parts["cold_test"], fold.plays_UW), {}


def audience(
    config: ItemColdConfig, fold: Fold, work: Path, name: str, fields: list[str], method: str, seed: int
) -> Any:
    """Another way from the vectors of `firstplay` to users."""
    run, fold = trained(config, fold, work, name, fields, "firstplay", seed)
    vectors = encoders.outputs(fold, run).vectors
    found = encoders.audiences(fold, vectors, encoders.similar_songs(fold, vectors))[method]["cold_test"]
    return both(found, fold.parts["cold_test"], fold.plays_UW), {}


def trained(
    config: ItemColdConfig, fold: Fold, work: Path, name: str, fields: list[str], method: str, seed: int
) -> tuple[Path, Fold]:
    """The run folder of a variant, and the fold that it was trained on: a teacher of its own is another catalogue."""
    given = encoders.VARIANTS[method].split()
    teacher = [one for one in given if one.startswith("pairs.")]
    if teacher:
        of_teacher = work / "-".join(["teacher", *teacher]) / f"seed{seed}"
        fold = fold_of(config, of_teacher, seed, teacher)
    options = [*config.i2i, *config.i2i_of.get(name, []), *[one for one in given if one not in teacher]]
    out = work / f"seed{seed}" / "runs" / name / slug(method)
    return encoders.train(fold, fields, out, seed, options), fold


if __name__ == "__main__":
    command(main, ItemColdConfig, __doc__)
