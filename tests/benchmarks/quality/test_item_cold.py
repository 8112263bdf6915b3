"""The whole command on the tiny dataset: what it writes, what it keeps, what it refuses; and its tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf
from scipy import stats

from benchmarks.quality.item_cold.__main__ import ItemColdConfig, main
from benchmarks.quality.item_cold.artists import artist_listeners
from benchmarks.quality.item_cold.boundary import BOUNDARY, UNION, picked, union
from benchmarks.quality.item_cold.characters import tf_idf
from benchmarks.quality.item_cold.closed_form import content_knn
from benchmarks.quality.item_cold.encoders import AUDIENCES, SETTINGS, VARIANTS, WITHOUT
from benchmarks.quality.item_cold.folds import content, make_fold
from benchmarks.quality.item_cold.measure import OVERLAPS, Scores, to_songs, to_users
from benchmarks.quality.item_cold.methods import FIXED, GROUPS, methods
from benchmarks.quality.item_cold.ranked import WAYS
from benchmarks.quality.item_cold.table import main as print_tables
from benchmarks.quality.item_cold.table import table
from configs.errors import UserError
from configs.load import command, load
from data.catalogue import Catalogue
from tests.benchmarks.small import I2I, MODEL, listed

METHODS = [
    "random", "content kNN (20)", "ridge to users, tuned", "firstplay", "CB2CF", "no posterior check", *AUDIENCES,
    BOUNDARY, UNION,
]  # fmt: skip
TRAINED = ["firstplay", "CB2CF", "no posterior check"]
TINY = [*I2I, "trainer.epochs=2"]
FIGURES = ["recall@20", "ndcg@20", "songs_to_users_recall@50", "target_users_found@50"]
FEATURES = "content+mood"
RIDGE = "methods=[ridge(10) to users]"
BY_ARTIST_OR_WORDS = ["artist mean vector, tuned", "artist listeners, tuned", "character kNN, tuned"]


@dataclass
class Ran:
    """The command after one run and after the next."""

    options: list[str]
    out: Path
    work: Path
    rows: list[list[dict[str, Any]]]
    changed: list[dict[str, int]]


def written_at(work: Path) -> dict[str, int]:
    """When every catalogue and every checkpoint was written."""
    files = [*work.rglob("last.ckpt"), *work.rglob("catalogue/manifest.json")]
    return {str(path.relative_to(work)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def ran(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("item_cold")
    file = folder / "config.yaml"
    of = {"i2i_of": {FEATURES: ["model.dropout=0"], "mood": ["model.dim=4"]}, "boundary_of": {"mood": ["model.dim=4"]}}
    OmegaConf.save({"i2i": TINY, "boundary": [*MODEL, "trainer.epochs=4"]} | of, file)
    out = folder / "results" / "tiny.json"
    options = [f"data={dataset}", f"out={out}", "seeds=2", f"features=[{FEATURES}]", f"methods={listed(METHODS)}"]
    rows, changed = [], []
    for _ in range(2):
        main(load(ItemColdConfig, options, file))
        rows.append(json.loads(out.read_text("utf-8")))
        changed.append(written_at(out.with_suffix("")))
    return Ran(options, out, out.with_suffix(""), rows, changed)


def of(ran: Ran, method: str) -> dict[str, Any]:
    (row,) = [row for row in ran.rows[0] if row["method"] == method]
    return row


def test_a_row_for_every_method_with_its_figures(ran: Ran) -> None:
    assert [row["method"] for row in ran.rows[0]] == METHODS
    for row in ran.rows[0]:
        assert (row["data"], row["features"], row["seeds"]) == ("dataset", FEATURES, 2)
        assert len(row["per_seed"]) == len(row["chosen"]) == 2 and row["seconds"] > 0
        for key in FIGURES:
            values = [one[key] for one in row["per_seed"]]
            assert row[key] == pytest.approx(np.mean(values))
            assert row[f"{key}_std"] == pytest.approx(np.std(values, ddof=1))
        assert all(0 < row[key] <= 1 for key in FIGURES[:3])
        assert ("ndcg@20_less" in row) == (row["method"] != "firstplay")


def test_figures_are_those_of_the_method_on_the_split(ran: Ran, dataset: Path) -> None:
    """kNN over again, step by step; and content is worth something, chance is not."""
    row = of(ran, "content kNN (20)")
    for seed in range(2):
        fold = make_fold(dataset, ran.work / f"seed{seed}", seed, [], [])
        held = fold.parts["cold_test"]
        x = content(fold, ["content", "mood"], [1.0, 1.0])
        score = content_knn(fold.plays_UW, x[fold.known], x[held.songs], k=20)
        expected = to_songs(score, held) | to_users(score, held, fold.plays_UW, 0.0)
        rooted = to_users(score, held, fold.plays_UW, 0.5)["songs_to_users_recall@50"]
        figures = row["per_seed"][seed]
        assert {key: figures[key] for key in expected} == pytest.approx(expected)
        assert figures["songs_to_users_recall@50_root"] == pytest.approx(rooted)
    chance = of(ran, "random")["ndcg@20"]
    able = [method for method in METHODS[1:] if method != "CAT"]  # here the audience that it clusters is everybody
    assert all(of(ran, method)["ndcg@20"] > chance + 0.05 for method in able)


def test_chosen_settings_are_told(ran: Ran) -> None:
    for chosen in of(ran, "ridge to users, tuned")["chosen"]:
        assert set(chosen) == {"songs", "users"} and "'ridge': " in chosen["songs"] and "power=" in chosen["users"]
        assert "weights=[" in chosen["songs"]
    for chosen in of(ran, "firstplay")["chosen"]:
        for way, others in (("songs", "taste, item bias="), ("users", ("taste", "listeners of", *AUDIENCES))):
            assert chosen[way].startswith(others) or chosen[way].split(" power=")[0].removesuffix(" nearest").isdigit()
    cat = of(ran, "CAT")
    assert all(0 < cat[key] < 1 for key in OVERLAPS) and OVERLAPS[0] not in of(ran, "union")
    said = f"taste names {cat[OVERLAPS[0]]:.3f} ± {cat[f'{OVERLAPS[0]}_std']:.3f}, I2I2U {cat[OVERLAPS[1]]:.3f}"
    assert said in table(ran.rows[0])
    assert of(ran, "random")["chosen"] == [{}, {}]


def test_the_first_seeds_validation_songs_choose_one_setting_for_all(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ["optim.lr=1e-9 objective.bcl_weight=0", "objective.bcl_weight=0", "optim.lr=1e-8 objective.bcl_weight=0"]
    monkeypatch.setitem(SETTINGS, "article, tuned", grid)
    options = [f"data={dataset}", f"out={tmp_path}/tiny.json", f"features=[{FEATURES}]", "methods=['article, tuned']"]
    main(load(ItemColdConfig, [*options, "seeds=2", f"i2i={listed([*TINY, 'trainer.epochs=8'])}"]))
    (row,) = json.loads((tmp_path / "tiny.json").read_text("utf-8"))
    assert [chosen["setting"] for chosen in row["chosen"]] == [grid[1]] * 2
    (settings,) = (tmp_path / "tiny" / "settings").rglob("*.json")
    values = json.loads(settings.read_text("utf-8"))["songs_to_users_recall@50"]
    assert values[1] > max(values[0], values[2])
    trained = [{run.name for run in (tmp_path / "tiny" / f"seed{seed}/runs/{FEATURES}").iterdir()} for seed in (0, 1)]
    assert trained == [{"article_tuned_0", "CB2CF", "article_tuned_2"}, {"CB2CF"}]  # a variant keeps its name


def test_ours_without_options_and_by_a_search(dataset: Path, tmp_path: Path) -> None:
    """Neither takes an option of i2i; the search leaves those of `untuned` as they are."""
    options = [f"data={dataset}", f"out={tmp_path}/tiny.json", f"features=[{FEATURES}]", "methods=[untuned]", "seeds=1"]
    given = [*TINY, "objective.users=16"]
    main(load(ItemColdConfig, [*options, "i2i=[optim.lr=1e-9]", f"untuned={listed(given)}", "search=3"]))
    rows = json.loads((tmp_path / "tiny.json").read_text("utf-8"))
    assert [row["method"] for row in rows] == ["firstplay, untuned", "firstplay, search"]
    plain, run = (tmp_path / f"tiny/seed0/runs/{FEATURES}/firstplay_{name}" for name in ("untuned", "search"))
    values = {one["trial"]: one for one in json.loads((run / "search.json").read_text("utf-8"))["trials"]}
    assert len(values) == 3 and "objective.users" not in {name for one in values.values() for name in one["options"]}
    assert json.loads((plain / "manifest.json").read_text("utf-8"))["best"] == {"val/audience": values["000"]["value"]}
    assert max(one["value"] for one in values.values()) > 0.5, "nothing has the rate of i2i"


def test_the_ranker_orders_candidates_and_says_how_they_are_found(dataset: Path, tmp_path: Path) -> None:
    """Every listener that it finds is a candidate; its lists are not those of I2I2U, and it is fitted once."""
    options = [f"data={dataset}", f"out={tmp_path}/tiny.json", f"features=[{FEATURES}]", "methods=[ranked]", "seeds=1"]
    trees = ["depth=60", "trees.min_leaf=5", "trees.rounds=20"]
    config = load(ItemColdConfig, [*options, f"i2i={listed([*TINY, 'trainer.epochs=8'])}", f"rank={listed(trees)}"])
    main(config)
    first, ranked = json.loads((tmp_path / "tiny.json").read_text("utf-8"))
    assert [first["method"], ranked["method"]] == ["firstplay", "firstplay, ranked"]
    assert ranked["chosen"][0]["users"] in WAYS
    run = tmp_path / f"tiny/seed0/runs/{FEATURES}/firstplay_ranked"
    about = json.loads((run / "ranker.json").read_text("utf-8"))
    assert about["fitted_on"] == "cold_val" and about["depth"] == 60
    found = ranked["songs_to_users_recall@50"]
    assert 0.5 < found <= 1 and found != first["songs_to_users_recall@50"]
    before = (run / "model.txt").stat().st_mtime_ns
    main(config)
    assert json.loads((tmp_path / "tiny.json").read_text("utf-8"))[1]["songs_to_users_recall@50"] == found
    assert (run / "model.txt").stat().st_mtime_ns == before


def test_a_union_takes_the_ways_chosen_for_each_direction() -> None:
    """Reciprocal ranks against a loop: along a user's songs, along a song's users; −inf is not in a list."""
    rng = np.random.default_rng(0)
    one, other = (Scores(*rng.standard_normal((2, 5, 7)).astype(np.float32)) for _ in range(2))
    one.users[2] = -np.inf
    found = union(one, other)
    for u in range(5):
        for c in range(7):
            expected = sum(1 / (61 + (of.songs[u] > of.songs[u, c]).sum()) for of in (one, other))
            assert found.songs[u, c] == pytest.approx(expected)
            lists = [of.users for of in (one, other)]
            expected = sum(1 / (61 + (of[:, c] > of[u, c]).sum()) for of in lists if np.isfinite(of[u, c]))
            assert found.users[u, c] == pytest.approx(expected)
    chosen = picked({"a": {"cold_test": one}, "b": {"cold_test": other}}, {"songs": "a", "users": "b power=0.0"})
    assert chosen.users is other.users and chosen.songs is one.songs


def test_a_second_call_trains_nothing_and_finds_the_same(ran: Ran) -> None:
    first, second = ran.changed
    assert first == second and len(first) == 2 * (len(TRAINED) + 1) + 4  # catalogues: two seeds, two teachers
    for one, other in zip(*ran.rows, strict=True):
        assert one["method"] == other["method"] and one["chosen"] == other["chosen"]
        assert {key: one[key] for key in FIGURES} == {key: other[key] for key in FIGURES}


def test_options_of_all_and_of_one_feature_set_reach_training(ran: Ran) -> None:
    for seed in range(2):
        for method in TRAINED:
            config = OmegaConf.load(ran.work / f"seed{seed}/runs/{FEATURES}/{method.replace(' ', '_')}/config.yaml")
            assert config.seed == seed and config.fields.use == ["content", "mood"]
            assert (config.model.dim, config.model.dropout) == (8, 0)  # i2i, and i2i_of these features alone
            assert config.objective.bcl_weight == (0 if method == "CB2CF" else 0.1)


def test_another_teacher_is_another_catalogue_with_the_same_split(ran: Ran) -> None:
    for seed in range(2):
        own = ran.work / "teacher-pairs.posterior=none" / f"seed{seed}" / "catalogue"
        common = ran.work / f"seed{seed}" / "catalogue"
        run = OmegaConf.load(ran.work / f"seed{seed}/runs/{FEATURES}/no_posterior_check/config.yaml")
        assert run.data == str(own)
        assert OmegaConf.load(ran.work / f"seed{seed}/runs/{FEATURES}/CB2CF/config.yaml").data == str(common)
        for name in ("songs", "plays", "cold_plays"):
            assert pl.read_parquet(own / f"{name}.parquet").equals(pl.read_parquet(common / f"{name}.parquet"))
        posterior = [Catalogue.read(folder).manifest["pairs"]["posterior"] for folder in (own, common)]
        assert posterior[0] == "none" != posterior[1]


def test_other_options_over_the_same_work_are_refused(ran: Ran) -> None:
    """Or finished training would pass for that of other options."""
    with pytest.raises(UserError, match="holds a run with other options"):
        main(load(ItemColdConfig, [*ran.options, f"i2i={listed([*TINY, 'model.dim=16'])}"]))
    with pytest.raises(UserError, match="made of other data or options"):
        main(load(ItemColdConfig, [*ran.options, "prepare=[split.by=time]"]))


def rows_after(out: Path, options: list[str]) -> list[dict[str, Any]]:
    """The rows that the command writes to `out`."""
    main(load(ItemColdConfig, [*options, f"out={out}"]))
    return list(json.loads(out.read_text("utf-8")))


def test_figures_of_other_data_are_measured_again(write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """A user who does what the error says (remove the catalogue) gets the new split's figures, and of changed data."""
    source = write_dataset(tmp_path / "data")
    options = [f"data={source}", "seeds=1", "features=[mood]", RIDGE]

    def figure(*more: str) -> float:
        return float(rows_after(tmp_path / "out.json", [*options, *more])[0]["ndcg@20"])

    catalogue, elsewhere = tmp_path / "out" / "seed0" / "catalogue", f"work={tmp_path}/elsewhere"
    random, by_time = figure(), figure("prepare=[split.by=time]", elsewhere)
    assert random != by_time
    with pytest.raises(UserError, match="was made of other data or options: remove it"):
        figure("prepare=[split.by=time]")
    shutil.rmtree(catalogue)
    assert figure("prepare=[split.by=time]") == by_time
    plays = pl.read_parquet(source / "plays.parquet")
    plays.gather_every(2).write_parquet(source / "plays.parquet")
    with pytest.raises(UserError, match="was made of other data or options: remove it"):
        figure("prepare=[split.by=time]")
    shutil.rmtree(catalogue)
    changed = figure("prepare=[split.by=time]")
    assert changed == figure("prepare=[split.by=time]", f"work={tmp_path}/third") != by_time


def test_text_never_replaces_the_users_own_vectors(write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "data")
    songs = pl.read_parquet(source / "songs.parquet").with_columns(
        pl.col("feature_mood").alias("feature_text"), (pl.col("song_id") + " of the moon").alias("title")
    )
    songs.write_parquet(source / "songs.parquet")
    options = [f"data={source}", "seeds=1", "features=[text]", RIDGE]
    rows_after(tmp_path / "out.json", options)
    with pytest.raises(UserError, match="has vectors text of its own"):
        rows_after(tmp_path / "out.json", [*options, "text=[title]"])


@pytest.fixture(scope="module")
def by_artists(write_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with artists, who each make songs of one taste, and with names that tell it."""
    source = write_dataset(tmp_path_factory.mktemp("by_artists") / "data")
    songs = pl.read_parquet(source / "songs.parquet")
    number = pl.int_range(pl.len())
    name = pl.format("a{}", pl.when(number % 5 == 2).then(number + 100).otherwise(number % 15))
    told = pl.concat_list("genres", pl.concat_list("song_id")).list.join(" ", ignore_nulls=True)
    songs = songs.with_columns(artist_id=name, feature_text="feature_mood", title=told)
    songs.write_parquet(source / "songs.parquet")
    return source


def test_artists_and_words_are_read_where_the_features_have_them(
    by_artists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of each as computed over again here, better than chance; and apart in the JSON and the table."""
    wanted = ["random", "artist listeners", "character kNN (100)", *BY_ARTIST_OR_WORDS, "ELSA on content"]
    options = [f"data={by_artists}", "seeds=1", "features=[text+artist_id,mood]", f"methods={listed(wanted)}"]
    rows = rows_after(tmp_path / "out.json", [*options, "words=[title]"])
    found = {row["method"]: row for row in rows if row["features"] == "text+artist_id"}
    assert list(found) == wanted
    assert [row["method"] for row in rows if row["features"] == "mood"] == ["random", "ELSA on content"]
    assert all(found[method]["ndcg@20"] > found["random"]["ndcg@20"] + 0.05 for method in wanted[1:])
    fold = make_fold(by_artists, tmp_path / "out" / "seed0", 0, [], [])
    held = fold.parts["cold_test"]
    assert fold.artist_S is not None and held.known_artist_C is not None
    x = content(fold, ["text", "artist_id"], [1.0, 1.0])
    of = (fold.artist_S[fold.known], fold.artist_S[held.songs])
    score = artist_listeners(fold.plays_UW, x[fold.known], x[held.songs], of)
    expected = to_songs(score, held) | to_users(score, held, fold.plays_UW, 0.0)
    assert {key: found["artist listeners"][key] for key in expected} == pytest.approx(expected)
    x = tf_idf(fold.catalogue.songs["title"].to_list(), fold.known)
    score = content_knn(fold.plays_UW, x[fold.known].toarray(), x[held.songs].toarray(), 100)
    assert found["character kNN (100)"]["recall@20"] == pytest.approx(to_songs(score, held)["recall@20"])
    heard = np.unique(held.position_of)
    for row in rows:
        assert row["songs_known_artist"] == held.known_artist_C[heard].sum() > 0
        assert row["songs_known_artist"] + row["songs_new_artist"] == len(heard) > row["songs_known_artist"]
    lines = table(list(found.values())).splitlines()
    head = next(line for line in lines if "songs of known artists" in line)
    assert f"R@50, {found['random']['songs_new_artist']:.0f} songs of new artists" in head
    cells = [line.split(" | ") for line in lines if line.startswith("| artist listeners |")]
    assert cells[2][2].startswith(f"{found['artist listeners']['songs_to_users_recall@50_new_artist']:.3f} ±")
    assert len(cells) == 3 and "not measured" not in capsys.readouterr().out


def test_what_the_data_lack_is_named(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["random", "artist listeners", "character kNN, tuned", "artist mean vector", *WITHOUT]
    options = [f"data={dataset}", "seeds=1", "features=[mood]", f"methods={listed(wanted)}"]
    rows = rows_after(tmp_path / "out.json", options)
    assert [row["method"] for row in rows] == ["random"] and "songs_known_artist" not in rows[0]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not measured")]
    assert told == [
        "not measured, since no feature set has artists (artist_id): artist listeners; artist mean vector",
        "not measured, since no feature set has columns of text (text= or words=) beside a field `text`: "
        "character kNN, tuned",
        f"not measured, since no feature set has both text and audio: {'; '.join(WITHOUT)}",
    ]
    assert "artists" not in table(rows)


def test_other_words_are_another_figure(by_artists: Path, tmp_path: Path) -> None:
    options = [f"data={by_artists}", "seeds=1", "features=[text]", "methods=[character kNN (100)]"]
    title, same = (rows_after(tmp_path / "out.json", [*options, "words=[title]"])[0] for _ in range(2))
    other = rows_after(tmp_path / "out.json", [*options, "words=[artist_id]"])[0]
    assert title["ndcg@20"] == same["ndcg@20"] != other["ndcg@20"]


def test_a_catalogue_from_before_an_option_is_read(write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "data")
    options = [f"data={source}", f"out={tmp_path}/out.json", "seeds=1", "features=[mood]", "methods=[random]"]
    main(load(ItemColdConfig, options))
    manifest = tmp_path / "out" / "seed0" / "catalogue" / "manifest.json"
    made = json.loads(manifest.read_text("utf-8"))
    del made["options"]["pairs"]["shrinkage"]
    manifest.write_text(json.dumps(made))
    main(load(ItemColdConfig, options))
    with pytest.raises(UserError, match="remove it"):
        main(load(ItemColdConfig, [*options, "prepare=[pairs.shrinkage=5]"]))


def test_the_tables(ran: Ran) -> None:
    text = table(ran.rows[0])
    lines = text.splitlines()
    assert lines[0] == "dataset, content+mood, 2 seeds"
    row = of(ran, "CB2CF")
    cells = [one.split(" | ") for one in lines if one.startswith("| CB2CF |")]
    assert cells[0][1] == f"{row['recall@20']:.3f} ± {row['recall@20_std']:.3f}"
    assert cells[0][4] == f"{row['target_users_found@50']:.0f} ± {row['target_users_found@50_std']:.0f}"
    assert cells[1][1].startswith(f"{row['songs_to_users_recall@50_rare']:.3f} ±") and len(cells) == 2
    ours = next(one for one in lines if one.startswith("| firstplay |")).split(" | ")
    assert ours[5:8] == ["–"] * 3
    assert all(line.count("|") == lines[at - 1].count("|") for at, line in enumerate(lines) if line[:2] == "|-")


def test_the_tables_against_another_method(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([str(ran.out), "against=CB2CF"])
    lines = capsys.readouterr().out.splitlines()
    runs = [[one["songs_to_users_recall@50_rare"] for one in of(ran, name)["per_seed"]] for name in ("CB2CF", "random")]
    less = np.subtract(*runs)
    half = stats.t.ppf(0.975, 1) * less.std(ddof=1) / 2**0.5
    figures, rare = (one.split(" | ") for one in lines if one.startswith("| random |"))
    assert rare[4].strip("*") == f"{less.mean():+.3f} ± {half:.3f}"
    seconds = of(ran, "random")["seconds"]
    assert figures[0] == "| random" and figures[-1] == f"{seconds:.0f} |", "the rest is as it was"
    assert next(one for one in lines if one.startswith("| CB2CF |")).split(" | ")[5:8] == ["–"] * 3
    assert next(one for one in lines if one.startswith("| firstplay |")).split(" | ")[5] != "–"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{out}", "against=moon"], "error: against=moon: choose from random; content kNN"),
        (["nowhere.json"], "nowhere.json"),
        (["{out}", "{out}"], "measured twice, so that no row is the one: dataset content+mood random;"),
        (["{other}"], "other.json: not written by benchmarks.quality.item_cold"),
    ],
)
def test_wrong_tables_are_one_line(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "other.json").write_text('{"audience": []}')
    with pytest.raises(SystemExit) as stopped:
        print_tables([one.format(out=ran.out, other=tmp_path / "other.json") for one in arguments])
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and says in shown and shown.count("\n") == 1


def test_only_the_same_seeds_are_paired(ran: Ran) -> None:
    rows = [dict(row) for row in ran.rows[0]]
    short = next(row for row in rows if row["method"] == "random")
    short["per_seed"] = short["per_seed"][:1]
    lines = table(rows, "CB2CF").splitlines()
    assert next(line for line in lines if line.startswith("| random |")).split(" | ")[5] == "–"
    assert next(line for line in lines if line.startswith("| firstplay |")).split(" | ")[5] != "–"


def test_bold_is_a_difference_beyond_its_interval() -> None:
    row = {"data": "d", "features": "f", "method": "m", "seeds": 3, "seconds": 1.0, "recall@20": 0.5}
    row |= {"recall@20_std": 0.1, "recall@20_less": 0.02, "ndcg@20_less": -0.02, "songs_to_users_recall@50_less": 0.01}
    row |= {"recall@20_less_ci95": 0.03, "ndcg@20_less_ci95": 0.01}
    line = next(line for line in table([row]).splitlines() if line.startswith("| m |"))
    assert line == "| m | 0.500 ± 0.100 | – | – | – | +0.020 ± 0.030 | **-0.020 ± 0.010** | +0.010 | 1 |"


def test_groups_are_opened_once() -> None:
    assert methods(["ours", "CAT", "firstplay"]) == [*GROUPS["ours"], "CAT"]
    assert methods(["CAT", "random", "CAT"]) == ["CAT", "random"]
    assert set(FIXED) < set(methods(["baselines"])) and len(methods(["baselines"])) == 25
    assert methods(["ablation"]) == [*VARIANTS, *AUDIENCES]
    assert not set(GROUPS) & {method for group in GROUPS.values() for method in group}  # a name means one thing
    with pytest.raises(UserError, match=r"methods=\['lightgcn', 'knn'\]: choose from baselines, ours, u2i, ablation, "):
        methods(["random", "lightgcn", "knn"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["data=nowhere"], "data=nowhere: no such folder or zip"),
        (["methods=[lightgcn]"], "choose from baselines"),
        (["methods=[]"], "methods=[]: choose from"),
        (["features=[lyrics]"], "features=['lyrics']: this data has"),
        (["seeds=0"], "seeds=0: must be at least 1"),
        (["out={tmp}/result"], "must be a file, say {tmp}/result.json"),
        (["out={tmp}/x.json", "work={tmp}/x.json"], "must be a file"),
        (["prepare=[split.by=moon]"], "split.by"),
        (["prepare=[pairs.moon=1]"], "moon"),
        (["text=[lyrics_of_the_moon]"], "lyrics_of_the_moon"),
        (["words=[poems_of_the_moon]"], "poems_of_the_moon"),
        (["methods=[firstplay]", "i2i=[model.moon=1]"], "moon"),
        (["moon=1"], "moon"),
    ],
)
def test_bad_input_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    argv = [f"data={dataset}", f"out={tmp_path}/out.json", "seeds=1", "methods=[random]", "features=[mood]"]
    with pytest.raises(SystemExit) as stopped:
        command(main, ItemColdConfig, "", [*argv, *(one.format(tmp=tmp_path) for one in options)])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err.replace("\r", "\n").splitlines()
    errors = [line for line in shown if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0] == shown[-1]  # before it there may be a progress bar
    assert says.format(tmp=tmp_path) in errors[0]
    assert not (tmp_path / "out.json").exists()


def test_of_a_split_by_time_closed_forms_are_measured_once(dataset: Path, tmp_path: Path) -> None:
    chosen = ["random", "content kNN (20)", "ridge to users, tuned"]
    options = [f"data={dataset}", "seeds=2", "prepare=[split.by=time]", "features=[mood]", f"methods={listed(chosen)}"]
    found = rows_after(tmp_path / "out.json", options)
    kept = {path.relative_to(tmp_path).parts[1:] for path in tmp_path.rglob("figures/*/*.json")}
    assert {(parts[0], parts[-1]) for parts in kept} == {
        ("seed0", "random.json"), ("seed1", "random.json"),
        ("seed0", "content_kNN_(20).json"), ("seed0", "ridge_to_users_tuned.json"),
    }  # fmt: skip
    rows = {row["method"]: row["per_seed"] for row in found}
    assert rows["random"][0] != rows["random"][1] and rows[chosen[1]][0] == rows[chosen[1]][1]


def test_odd_songs_and_users_have_defined_scores(write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """Songs without any field, with one NaN, all alike; users without a play; fewer songs and users than any K.

    Every figure is finite, and who has nothing to be judged by never hinders the others: that a song without fields
    scores by no content is tested with each method.
    """
    source = write_dataset(tmp_path / "data")
    songs = pl.read_parquet(source / "songs.parquet")
    content = songs["feature_content"].to_list()
    for row in (0, 1, 2):
        content[row] = None
    content[3] = [float("nan"), *content[3][1:]]
    for row in range(4, 12):
        content[row] = content[4]
    songs = songs.with_columns(pl.Series("feature_content", content, dtype=pl.List(pl.Float32)))
    none_at_all = pl.int_range(pl.len()) < 3
    songs = songs.with_columns(pl.when(none_at_all).then(None).otherwise("feature_mood").alias("feature_mood"))
    songs = songs.with_columns(feature_text="feature_mood", artist_id=pl.format("a{}", pl.int_range(pl.len()) % 20))
    songs = songs.with_columns(pl.when(none_at_all).then(None).otherwise("artist_id").alias("artist_id"))
    songs.write_parquet(source / "songs.parquet")
    users = pl.read_parquet(source / "users.parquet")["user_id"].to_list()
    plays = pl.read_parquet(source / "plays.parquet").filter(~pl.col("user_id").is_in(users[:5]))
    plays.write_parquet(source / "plays.parquet")
    assert songs.height < 200 and len(users) < 200, "the widest K"
    tuned = ["content kNN, tuned", "ridge to users, tuned", "ridge to EASE, tuned", *BY_ARTIST_OR_WORDS]
    chosen = [*FIXED, *tuned, "firstplay", *AUDIENCES]
    options = [f"data={source}", "seeds=1", "features=[content+text+artist_id]", "words=[artist_id,language]"]
    rows = rows_after(tmp_path / "out.json", [*options, f"methods={listed(chosen)}", f"i2i={listed(TINY)}"])
    assert [row["method"] for row in rows] == methods(chosen)
    assert all(np.isfinite(row[key]) and row[key] >= 0 for row in rows for key in FIGURES)
    assert all(row[key] <= 1 for row in rows for key in FIGURES[:3])
