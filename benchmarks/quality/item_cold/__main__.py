"""Cold-start methods beside each other on new items that nobody has played: users → songs and songs → users.

    python -m benchmarks.quality.item_cold --config configs/item_cold/lfm2k.yaml \
        data=$FIRSTPLAY_DATA/lfm2k out=runs/lfm2k.json
    python -m benchmarks.quality.item_cold data=$FIRSTPLAY_DATA/lfm2k methods=[ablation] features=[text] out=…

For each seed the data are split anew, and every method is fitted on the warm plays. Ours is `firstplay`; `methods`
takes names, or `baselines`, `ours` (with CB2CF), `u2i` (our boundary towers, and their union with `firstplay`),
`ablation`, `contrastive` (the article's loss with and without views, each with four settings), `missing` (new songs
without text or audio), `ranked` (a learned order of candidates), `ranked u2i` (with the boundary towers), `untuned`
(ours by the defaults of train.py, and by its search from there). "tuned" rows choose their settings on the cold
validation songs, each direction apart (those of `contrastive`: on the first seed's, for both). Finished training and
the figures of baselines are kept in work=, so that a killed run goes on. Protocol: docs/results/item_cold.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.measure import read_json, timed, write_json
from benchmarks.quality.item_cold import boundary, encoders, ranked
from benchmarks.quality.item_cold.characters import tf_idf
from benchmarks.quality.item_cold.encoders import WITHOUT
from benchmarks.quality.item_cold.folds import LFM2K_SETS, Fold, content, feature_sets, fingerprint, make_fold
from benchmarks.quality.item_cold.measure import POWERS, TO_USERS, Scores, both, rows_of, to_users, tuned
from benchmarks.quality.item_cold.methods import (
    BASELINES,
    BY_ARTIST,
    BY_CHARACTERS,
    CLOSED,
    FIXED,
    GRIDS,
    KEEPING,
    OURS,
    SEEDED,
    TUNED,
    UNWEIGHTED,
    methods,
)
from benchmarks.quality.item_cold.table import table
from benchmarks.table import writable
from configs.errors import UserError
from configs.load import command, given, load
from configs.options import at_least, opt
from configs.training import BoundaryConfig, I2IConfig
from data.text import song_texts
from training.search import search
from training.tasks import train_boundary, train_i2i

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
    words: list[str] = opt([], "columns that character kNN reads where there is a field `text` (empty: as text=)")
    i2i: list[str] = opt([], "options of our encoder, as train.py i2i takes them")
    i2i_of: dict[str, list[str]] = opt({}, "more of them for one feature set")
    untuned: list[str] = opt([], "options of `firstplay, untuned` and `firstplay, search`, which take none of i2i")
    search: int = opt(8, "trainings of `firstplay, search`")
    rank: list[str] = opt([], "options of train.py rank: folds=K, depth=…; by default fitted on the validation songs")
    boundary: list[str] = opt([], "options of our boundary towers, as train.py boundary takes them")
    boundary_of: dict[str, list[str]] = opt({}, "more of them for one feature set")


@dataclass
class Task:
    """One seed's data described by one feature set, and where its runs are kept."""

    config: ItemColdConfig
    fold: Fold
    work: Path
    name: str  # of the feature set
    fields: list[str]
    seed: int


def main(config: ItemColdConfig) -> None:
    """Run the command (see the module's docstring)."""
    wanted = methods(config.methods)
    found: Runs = {}
    without: dict[str, str] = {}
    for task in tasks(config):
        of_set, lacking = found.setdefault(task.name, {}), lacks(task, wanted)
        without |= lacking
        for method, figures in measure_all(task, [method for method in wanted if method not in lacking]):
            of_set.setdefault(method, []).append(figures)
    rows = [one for name, of_set in found.items() for one in rows_of(Path(config.data).stem, name, of_set)]
    for what in dict.fromkeys(without.values()):
        left_out = [method for method, lack in without.items() if lack == what]
        if left_out := [one for one in left_out if not any(one in of_set for of_set in found.values())]:
            print(f"not measured, since no feature set has {what}: {'; '.join(left_out)}")
    write_json(config.out, rows)
    print(table(rows))


def tasks(config: ItemColdConfig) -> Iterator[Task]:
    """Every seed's data by every feature set.

    Raises:
        UserError: there is no data, or an option cannot be used.
    """
    if not config.data or not Path(config.data).exists():
        raise UserError(f"data={config.data}: no such folder or zip (docs/data.md says where the published ones are)")
    at_least(config, 1, "seeds", "search")
    work = Path(config.work or config.out.removesuffix(".json"))
    writable(config.out, work)
    for seed in tqdm(range(config.seeds), desc="seeds"):
        fold = fold_of(config, work / f"seed{seed}", seed)
        for name, fields in feature_sets(Path(config.data), fold, config.features).items():
            yield Task(config, fold, work, name, fields, seed)


def fold_of(config: ItemColdConfig, work: Path, seed: int, more: Sequence[str] = ()) -> Fold:
    """One seed's data, with further options of pipeline.prepare."""
    fold = make_fold(Path(config.data), work, seed, [*config.prepare, *more], config.text, config.text_model)
    words = config.words or config.text
    return replace(fold, texts=song_texts(fold.catalogue.songs, words)) if words else fold


def lacks(task: Task, wanted: list[str]) -> dict[str, str]:
    """The methods that cannot be measured on a feature set, each with what it lacks: none sees more than its set."""
    found = {}
    for method in wanted:
        of = BASELINES.get(method)
        if of in BY_ARTIST and (task.fold.artist_S is None or "artist_id" not in task.fields):
            found[method] = "artists (artist_id)"
        elif of in BY_CHARACTERS and (task.fold.texts is None or "text" not in task.fields):
            found[method] = "columns of text (text= or words=) beside a field `text`"
        elif method in WITHOUT and not set(LFM2K_SETS[WITHOUT[method][1]]) < set(task.fields):
            found[method] = "both text and audio"
    return found


def measure_all(task: Task, wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The test figures of every method, with its seconds."""
    of, fold = fingerprint(task.fold, task.fields), task.fold
    same_split = fold.catalogue.manifest["split"]["by"] in ("time", "column")  # for all seeds
    for method in tqdm(wanted, desc=f"seed {task.seed}, {task.name}", leave=False):
        seed = 0 if same_split and method in CLOSED else task.seed
        path = task.work / f"seed{seed}" / "figures" / task.name / f"{slug(method)}.json"
        found = read_json(path)
        before = found if found and found.get("of") == of else None  # else measured on other data
        if before is None or method not in BASELINES:
            took: dict[str, float] = {}
            with timed(took, "seconds"):
                figures, chosen = measured(task, method)
            # Of a run that was found finished, the time it took when it was trained.
            seconds = max(took["seconds"], before["seconds"] if before else 0.0)
            found = figures | {"seconds": seconds, "chosen": chosen, "of": of}
            write_json(path, found)
        yield method, found


def measured(task: Task, method: str) -> Any:
    """Test figures of one method, and the settings that were chosen."""
    if method in FIXED:
        return fixed(task.fold, task.fields, *FIXED[method], task.seed)
    if method in TUNED:
        return choose(task.fold, task.fields, TUNED[method], task.seed)
    if method in encoders.AUDIENCES:
        return audience(task, method)
    if method in (ranked.RANKED, ranked.RANKED_BOUNDARY):
        return ranking(task, method)
    return (towers if method in (boundary.BOUNDARY, boundary.UNION) else encoder)(task, method)


def slug(method: str) -> str:
    """A method's name as a file name."""
    return method.replace(" ", "_").replace(",", "")


def fixed(fold: Fold, fields: list[str], method: Any, options: dict[str, Any], seed: int) -> Any:
    """A baseline with its fixed settings; songs → users also with users' scores over the root of their plays + 1."""
    scores = baseline(fold, read(fold, fields, [1.0] * len(fields), method), method, options, seed)["cold_test"]
    figures = both(scores, fold.parts["cold_test"], fold.plays_UW)
    rooted = both(scores, fold.parts["cold_test"], fold.plays_UW, power=0.5)
    return figures | {f"{key}_root": value for key, value in rooted.items() if key.startswith("songs_to_users")}, {}


def choose(fold: Fold, fields: list[str], method: Any, seed: int) -> Any:
    """A baseline with the settings, modality weights and user normalisation that do best on validation."""
    spaces = {str(weights): read(fold, fields, weights, method) for weights in modality_weights(len(fields), method)}
    settings = [(f"{options} weights={w}", (w, options)) for w in spaces for options in GRIDS[method.__name__]]
    plays: dict[Any, Any] = {}  # solutions that hang on no content
    kept: dict[str, Any] = {}

    def score_of(setting: tuple[str, dict[str, Any]]) -> dict[str, Scores]:
        space, options = setting
        if method in KEEPING:
            for other in kept.keys() - {space}:
                del kept[other]  # one space's solutions at a time
            options = options | {"kept": kept.setdefault(space, {"plays": plays})}
        return baseline(fold, spaces[space], method, options, seed)

    return tuned(settings, POWERS, score_of, fold.parts, fold.plays_UW)


def modality_weights(n: int, method: Any) -> list[list[float]]:
    """Closed forms: all fields alike, or one in full and the others at .3. Trained ones scale their input anyway."""
    if n == 1 or method in UNWEIGHTED:
        return [[1.0] * n]
    return [[1.0] * n] + [[1.0 if field == one else 0.3 for field in range(n)] for one in range(n)]


def read(fold: Fold, fields: list[str], weights: list[float], method: Any) -> Any:
    """What a baseline is told of all songs, (songs, D): their weighted fields, or their texts' characters."""
    if method in BY_CHARACTERS:
        assert fold.texts is not None
        return tf_idf(fold.texts, fold.known)
    return content(fold, fields, weights)


def baseline(fold: Fold, x_SD: Any, method: Any, options: dict[str, Any], seed: int) -> dict[str, Scores]:
    """Scores of both cold parts from one fit."""
    options = options | ({"seed": seed} if method in SEEDED else {})
    cold = [held.songs for held in fold.parts.values()]
    songs = np.concatenate(cold)
    if method in BY_ARTIST:
        assert fold.artist_S is not None
        options["artists"] = (fold.artist_S[fold.known], fold.artist_S[songs])
    score_UC = method(fold.plays_UW, x_SD[fold.known], x_SD[songs], **options)
    parts = np.split(score_UC, np.cumsum([len(one) for one in cold])[:-1], axis=1)
    return {part: Scores(one, one) for part, one in zip(fold.parts, parts, strict=True)}


def encoder(task: Task, method: str) -> Any:
    """One variant of our encoder; validation chooses how its vectors score, for each direction apart."""
    of, lacking = WITHOUT.get(method, (method, ""))
    run, fold = trained(task, of)
    found = encoders.outputs(fold, run, LFM2K_SETS[lacking] if lacking else None)
    figures, chosen = best_way(fold, encoders.ways(fold, found))
    similar = encoders.similar_songs(fold, found.vectors, fold.parts["cold_test"].songs)
    shape = {"effective_rank": encoders.effective_rank(found.vectors[fold.known])}
    if of in encoders.SETTINGS:
        chosen = chosen | {"setting": encoders.SETTINGS[of][setting_of(task, of)]}
    return figures | encoders.neighbour_popularity(fold, similar) | shape, chosen


def best_way(fold: Fold, ways: encoders.Ways) -> tuple[dict[str, float], dict[str, str]]:
    """Test figures of the way of scoring that does best on validation, and which it is, for each direction apart."""
    return tuned([(name, name) for name in ways], (0.0,), ways.__getitem__, fold.parts, fold.plays_UW)


def towers(task: Task, method: str) -> Any:
    """The boundary towers; or they and `firstplay` together, each as validation scores it best."""
    fold = task.fold
    ways = boundary.ways(fold, trained_towers(task))
    figures, chosen = best_way(fold, ways)
    if method == boundary.BOUNDARY:
        return figures, chosen
    encoded = encoders.ways(fold, encoders.outputs(fold, trained(task, OURS[0])[0]))
    one, other = boundary.picked(ways, chosen), boundary.picked(encoded, best_way(fold, encoded)[1])
    return both(boundary.union(one, other), fold.parts["cold_test"], fold.plays_UW), {}


def trained_towers(task: Task) -> Path:
    """The run folder of the boundary towers."""
    run = run_of(task, "boundary")
    options = [*task.config.boundary, *task.config.boundary_of.get(task.name, [])]
    train_boundary(load(BoundaryConfig, [*options_of(task.fold, task.fields, task.seed, run), *options]))
    return run


def ranking(task: Task, method: str) -> Any:
    """The ranker of `firstplay`, or of it and the boundary towers."""
    run, fold = trained(task, "firstplay")
    towers = trained_towers(task) if method == ranked.RANKED_BOUNDARY else None
    scores, way = ranked.ranked(fold, run, towers, run_of(task, method), [f"seed={task.seed}", *task.config.rank])
    return both(scores, fold.parts["cold_test"], fold.plays_UW), {"users": way}


def audience(task: Task, method: str) -> Any:
    """Another way from the vectors of `firstplay` to users."""
    run, fold = trained(task, "firstplay")
    vectors, held = encoders.outputs(fold, run).vectors, fold.parts["cold_test"]
    score_UC = encoders.audiences(fold, vectors, held.songs)[method]
    figures = both(Scores(score_UC, score_UC), held, fold.plays_UW)
    return figures | (encoders.overlaps(fold, vectors, held.songs) if method == "CAT" else {}), {}


def run_of(task: Task, method: str) -> Path:
    """The run folder of a trained method."""
    return task.work / f"seed{task.seed}" / "runs" / task.name / slug(method)


def trained(task: Task, method: str) -> tuple[Path, Fold]:
    """The run folder of a variant, or of the chosen setting of a grid, and the fold that it was trained on."""
    if method in encoders.SETTINGS:
        return train_setting(task, method, setting_of(task, method))
    if method in encoders.UNTUNED:
        return untuned(task, method), task.fold
    return train(task, method, encoders.VARIANTS[method])


def untuned(task: Task, method: str) -> Path:
    """The run folder of a training with the defaults of train.py, or of its search."""
    run = run_of(task, method)
    options = [*options_of(task.fold, task.fields, task.seed, run), *task.config.untuned]
    if method == encoders.UNTUNED[0]:
        train_i2i(load(I2IConfig, options))
    else:
        config = load(I2IConfig, [*options, f"search={task.config.search}"])
        search("i2i", config, given(I2IConfig, options), train_i2i)
    return run


def setting_of(task: Task, method: str) -> int:
    """Number of the setting of a grid by which most listeners of the first seed's validation songs are found."""
    path = task.work / "settings" / task.name / f"{slug(method)}.json"
    found = read_json(path)
    if found is None or found["of"] != encoders.SETTINGS[method]:
        values = []
        for number in tqdm(range(len(encoders.SETTINGS[method])), desc=method, leave=False):
            run, fold = train_setting(task, method, number)
            ways = encoders.ways(fold, encoders.outputs(fold, run)).values()
            held = fold.parts["cold_val"]
            values.append(max(to_users(way["cold_val"].users, held, fold.plays_UW, 0.0)[TO_USERS] for way in ways))
        found = {"of": encoders.SETTINGS[method], TO_USERS: values, "seed": task.seed}
        write_json(path, found)
    return int(np.argmax(found[TO_USERS]))


def train_setting(task: Task, method: str, number: int) -> tuple[Path, Fold]:
    """Train one setting of a grid; one that a variant or an earlier grid has too has the run of that."""
    setting = encoders.SETTINGS[method][number]
    return train(task, encoders.run_name(setting), setting)


def train(task: Task, name: str, setting: str) -> tuple[Path, Fold]:
    """Train with further options, unless that is done; a teacher of its own is another catalogue."""
    config, fold, given = task.config, task.fold, setting.split()
    teacher = [one for one in given if one.startswith("pairs.")]
    if teacher:
        of_teacher = task.work / "-".join(["teacher", *teacher]) / f"seed{task.seed}"
        taught = fold_of(replace(config, text=[], words=[]), of_teacher, task.seed, teacher)
        fold = replace(taught, features=fold.features, texts=fold.texts)  # of the same songs
    options = [*config.i2i, *config.i2i_of.get(task.name, []), *[one for one in given if one not in teacher]]
    run = run_of(task, name)
    train_i2i(load(I2IConfig, [*options_of(fold, task.fields, task.seed, run), *options]))
    return run, fold


def options_of(fold: Fold, fields: list[str], seed: int, out: Path) -> list[str]:
    """Options of any training on a fold."""
    given = [f"data={fold.folder}", f"out={out}", f"fields.use=[{','.join(fields)}]", f"seed={seed}"]
    given += [f"features={fold.features}"] if fold.features else []
    return [*given, "logger.wandb=off", "trainer.progress=false"]


if __name__ == "__main__":
    command(main, ItemColdConfig, __doc__)
