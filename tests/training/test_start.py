"""Training on from an earlier run: rows follow songs and values into a later catalogue, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from artifacts.folders import writing
from artifacts.runs import open_run, origin, read_vocabularies
from configs.errors import UserError
from configs.load import load
from configs.training import BoundaryConfig, I2IConfig
from data.catalogue import Catalogue
from data.fields import codes_of, extended, field_codes, made_with
from inference.vectors import boundary_vectors, encode_songs, predict
from lightning_modules.i2i import I2IModule
from tests.callbacks.test_resume import Killed, assert_same_run, kill_when
from tests.conftest import QUIET, TOWERS, as_before_prior_plays, i2i_options
from tests.distributed.test_launch import ended, launch
from tests.offline_wandb import runs_in
from training.parts import boundary_parts, i2i_parts
from training.start import lists, rows_so_far, start_run, starting

STILL = ["optim.lr=1e-12", "trainer.epochs=1"]  # what is trained stays what it was at the start
GONE, DAY = "s10", 45


def later_dataset(dataset: Path, out: Path) -> Path:
    """The dataset as it is some days later: one song is gone, rows are in another order, tags and countries are new."""
    shutil.copytree(dataset, out)
    songs = pl.read_parquet(out / "songs.parquet").filter(pl.col("song_id") != GONE)
    number = pl.col("song_id").str.slice(1).cast(pl.Int64)
    tags = pl.when(number.is_between(40, 52)).then(pl.lit(["fresh"])).when(number % 6 == 0).then(pl.lit(["tag1"]))
    songs = songs.with_columns(tags.otherwise("tags").alias("tags")).sample(fraction=1, shuffle=True, seed=1)
    songs.write_parquet(out / "songs.parquet")
    plays = pl.read_parquet(out / "plays.parquet").filter(pl.col("song_id") != GONE)
    plays.write_parquet(out / "plays.parquet")
    users = pl.read_parquet(out / "users.parquet").sample(fraction=1, shuffle=True, seed=2)
    country = pl.when(pl.int_range(pl.len()) < 20).then(pl.lit("BR")).otherwise("country").alias("country")
    users.with_columns(country).write_parquet(out / "users.parquet")
    return out


@pytest.fixture(scope="module")
def days(dataset: Path, prepare: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Catalogues of two days."""
    at = tmp_path_factory.mktemp("days")
    first = prepare(dataset, at / "first", "split.cutoff=2026-02-10")
    later_dataset(dataset, at / "dataset")
    return first, prepare(at / "dataset", at / "second", "split.cutoff=2026-02-15")


@pytest.fixture(scope="module")
def earlier(days: tuple[Path, Path], train_i2i: Callable[..., Path]) -> Path:
    """The encoder of the first day."""
    return train_i2i(days[0].parent / "i2i", f"data={days[0]}", "trainer.epochs=2")


@pytest.fixture(scope="module")
def earlier_boundary(days: tuple[Path, Path], train_boundary: Callable[..., Path]) -> Path:
    """The boundary model of the first day."""
    return train_boundary(days[0].parent / "boundary", f"data={days[0]}", "trainer.epochs=1")


def begun(schema: type, task: str, data: Path, start: Path, *more: str) -> tuple[Any, Any, dict[str, Any]]:
    """The LightningModule before its first step, its data and its vocabulary."""
    sizes = i2i_options(data, Path("out")) if task == "i2i" else [f"data={data}", "out=out", *TOWERS, *QUIET]
    config = load(schema, [*sizes, f"start={start}", *more])
    run = start_run(task, config)
    parts: Any = i2i_parts if task == "i2i" else boundary_parts
    module, source, vocabulary = parts(config, run)
    (callback,) = starting(run, module, vocabulary, source.catalogue)
    module.load_state_dict(callback.weights)
    return module.eval(), source, vocabulary


def complaint(*given: Any) -> str:
    with pytest.raises(UserError) as caught:
        begun(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_song_keeps_its_row_and_a_new_one_has_none(
    days: tuple[Path, Path], earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, data, vocabulary = begun(I2IConfig, "i2i", days[1], earlier)
    before, known = read_vocabularies(earlier)["known"]["song_id"], vocabulary["known"]["song_id"]
    old, weights = open_run(earlier, "i2i").weights["residual.weight"], module.residual.weight
    assert len(weights) == len(known) + 1 == data.residual_size and sorted(known) != known
    new = {*known} - {*before}
    assert {*before} - {*known} == {GONE} and {"s40", "s41"} <= new <= {f"s{n}" for n in range(30, DAY)}
    for row, song in enumerate(known, 1):
        wanted = old[before.index(song) + 1] if song in before else torch.zeros(old.shape[1])
        assert torch.equal(weights[row], wanted)
    assert (old[1:] != 0).any(dim=1).all() and not weights[0].any()
    said = capsys.readouterr().out
    told = f"{len(before) - 1} known songs go on, {len(new)} are new, 1 are gone; new values: tags 1"
    assert f"start={earlier}: {told}\n" in said


def test_a_value_keeps_its_row_and_a_new_one_has_that_of_unknown(days: tuple[Path, Path], earlier: Path) -> None:
    module, data, vocabulary = begun(I2IConfig, "i2i", days[1], earlier)
    before, run = read_vocabularies(earlier)["songs"], open_run(earlier, "i2i")
    at = list(before).index("tags")
    old, new = run.weights[f"model.embedding.categories.{at}.weight"], module.model.embedding.categories[at].weight
    assert vocabulary["songs"]["tags"] == [*before["tags"], "fresh"]
    assert torch.equal(new[: len(old)], old) and torch.equal(new[-1], old[1]) and len(new) == len(old) + 1
    counts = data.catalogue.songs.filter(pl.col("split") == "warm")["tags"].explode().value_counts(sort=True)
    assert counts["tags"].drop_nulls()[0] != before["tags"][0], "an own vocabulary would have another order"


def test_on_the_same_songs_it_starts_as_the_earlier_encoder(days: tuple[Path, Path], earlier: Path) -> None:
    module, data, _ = begun(I2IConfig, "i2i", days[1], earlier)
    _, expected = encode_songs(earlier, str(days[1]))
    found = predict(module, data.songs_loader(np.arange(data.catalogue.n_songs)))
    for name in ("vector", "item_bias"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_and_as_the_earlier_boundary(days: tuple[Path, Path], earlier_boundary: Path) -> None:
    module, data, vocabulary = begun(BoundaryConfig, "boundary", days[1], earlier_boundary)
    before = read_vocabularies(earlier_boundary)["users"]
    assert vocabulary["users"] == before | {"country": [*before["country"], "BR"]}
    expected = boundary_vectors(earlier_boundary, np.arange(data.catalogue.n_songs), str(days[1]))
    items = predict(module, data.songs_loader(np.arange(data.catalogue.n_songs)))["vector"]
    users = predict(module, data.users_loader(np.arange(data.catalogue.n_users)))
    np.testing.assert_array_equal(items, expected.item_CD)
    np.testing.assert_array_equal(users["vector"], expected.user_UD)
    np.testing.assert_array_equal(users["boundary"], expected.boundary_U)


def test_a_new_year_starts_as_the_nearest() -> None:
    assert extended({"year": ["2024", "2019"], "age": []}, {"year": ["2026", "2019"], "age": ["1"]}) == {
        "year": ["2024", "2019", "2026"], "age": []
    }  # fmt: skip
    codes = field_codes("year", lists(["2024", "2019", "2026", "2001"]), codes_of(["2024", "2019"]))
    assert rows_so_far(codes).tolist() == [0, 1, 2, 3, 2, 3]
    assert rows_so_far(field_codes("tags", lists([]), codes_of(["a"]))).tolist() == [0, 1]


@pytest.mark.parametrize("task", ["i2i", "boundary"])
def test_a_training_without_steps_validates_as_before(
    task: str, days: tuple[Path, Path], earlier: Path, earlier_boundary: Path, train_i2i: Callable[..., Path],
    train_boundary: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    """On the same data; centre and scale of its inputs are those of the run, too. Then it needs that run no more."""
    run, train = (earlier, train_i2i) if task == "i2i" else (earlier_boundary, train_boundary)
    start = shutil.copytree(run, tmp_path / "start")
    out = train(tmp_path / "out", f"data={days[0]}", f"start={start}", *STILL)
    (monitor, before), (_, now) = (
        *json.loads((run / "manifest.json").read_text())["best"].items(),
        *json.loads((out / "manifest.json").read_text())["best"].items(),
    )
    assert now == pytest.approx(before, rel=1e-5), monitor
    shutil.rmtree(start)
    songs = np.arange(60)
    vectors = [
        encode_songs(one)[1]["vector"] if task == "i2i" else boundary_vectors(one, songs).item_CD for one in (out, run)
    ]
    np.testing.assert_allclose(*vectors, atol=1e-5)


@pytest.mark.parametrize("epoch", [0, 1])
def test_killed_and_resumed_ends_with_the_same_weights(
    epoch: int, days: tuple[Path, Path], earlier: Path, train_i2i: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    options = [f"data={days[1]}", f"start={earlier}", "trainer.epochs=2"]
    undisturbed = train_i2i(tmp_path / "undisturbed", *options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_when(patch, I2IModule, "training_step", lambda m, _, i: m.current_epoch == epoch and i == 2)
        train_i2i(tmp_path / "out", *options)
    torch.manual_seed(99)
    assert_same_run(train_i2i(tmp_path / "out", *options), undisturbed)
    first = open_run(earlier, "i2i").weights["model.skip.weight"]
    assert not torch.equal(open_run(tmp_path / "out", "i2i").weights["model.skip.weight"], first)


def test_on_two_ranks_it_starts_the_same(
    days: tuple[Path, Path], earlier: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    one = train_i2i(tmp_path / "one", f"data={days[1]}", f"start={earlier}", *STILL)
    options = i2i_options(days[1], tmp_path / "two")
    said = ended(launch("torchrun.sh", ["i2i", *options, f"start={earlier}", *STILL], RANKS=2))
    assert said.count("known songs go on") == 1, "rank 0 alone tells"
    torch.testing.assert_close(*(open_run(tmp_path / run, "i2i").weights for run in ("one", "two")), rtol=0, atol=1e-6)
    best = [json.loads((tmp_path / run / "manifest.json").read_text())["best"] for run in ("one", "two")]
    assert best[0] == pytest.approx(best[1], rel=1e-4) and one.exists()


REFUSED = {
    "model.dim=16 fields.block=3": "is a model of other options: fields.block: 4 → 3; model.dim: 8 → 16",
    "model.residual=false": "model.residual: True → False",
    "fields.use=[content,tags]": "fields.use: ['content', 'genres', 'language', 'mood', 'tags'] → ['content', 'tags']",
}


@pytest.mark.parametrize("options", REFUSED)
def test_another_architecture_is_refused(options: str, days: tuple[Path, Path], earlier: Path) -> None:
    assert REFUSED[options] in complaint(I2IConfig, "i2i", days[1], earlier, *options.split())


def test_users_of_few_plays_stay_as_far_from_those_of_none(
    days: tuple[Path, Path], earlier_boundary: Path, tmp_path: Path
) -> None:
    """Also where the run is of a version that did not shrink them."""
    before, given = as_before_prior_plays(earlier_boundary, tmp_path / "before"), ("boundary", days[1])
    told = "is a model of other options: model.prior_plays:"
    assert f"{told} 4.0 → 0.0" in complaint(BoundaryConfig, *given, earlier_boundary, "model.prior_plays=0")
    assert f"{told} 0.0 → 4.0" in complaint(BoundaryConfig, *given, before)
    module, data, _ = begun(BoundaryConfig, *given, before, "model.prior_plays=0")
    users = predict(module, data.users_loader(np.arange(data.catalogue.n_users)))["vector"]
    np.testing.assert_array_equal(users, boundary_vectors(before, np.arange(3), str(days[1])).user_UD)


def test_what_is_no_start(
    days: tuple[Path, Path], earlier: Path, earlier_boundary: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    assert "is a boundary run folder, not a i2i run" in complaint(I2IConfig, "i2i", days[1], earlier_boundary)
    later = train_i2i(tmp_path / "later", f"data={days[1]}", "trainer.epochs=1")
    message = complaint(I2IConfig, "i2i", days[0], later)
    assert "was trained on plays of 4 songs that" in message and "holds out as new, e.g. s40" in message
    manifest = json.loads((later / "manifest.json").read_text())
    (later / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    assert "is not finished" in complaint(I2IConfig, "i2i", days[1], later)
    with pytest.raises(UserError, match="search= varies the model's sizes"):
        import train

        train.train("i2i", load(I2IConfig, [*i2i_options(days[1], tmp_path / "o"), f"start={earlier}", "search=2"]))


def test_other_songs_are_refused(days: tuple[Path, Path], earlier: Path, tmp_path: Path) -> None:
    others = Path(shutil.copytree(days[1], tmp_path / "others"))
    songs = pl.read_parquet(others / "songs.parquet").with_columns(pl.format("other {}", "song_id").alias("song_id"))
    songs.write_parquet(others / "songs.parquet")
    assert "knows none of the known songs of" in complaint(I2IConfig, "i2i", others, earlier)


def vectors(data: Path, out: Path, **made: Any) -> Path:
    """A feature folder."""
    songs = Catalogue.read(data).songs
    with writing(out, "features", made) as folder:
        songs.select("song_id").write_parquet(folder / "song_ids.parquet")
        np.save(folder / "text.npy", np.random.default_rng(0).standard_normal((songs.height, 6)).astype(np.float32))
    return out


def test_vectors_of_another_encoder_are_refused(
    days: tuple[Path, Path], train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    text = {"model": "minilm", "fields": ["title"], "max_tokens": 128, "windows": 1}
    folder = [vectors(data, tmp_path / f"features{n}", text=text) for n, data in enumerate(days)]
    run = train_i2i(tmp_path / "run", f"data={days[0]}", f"features={folder[0]}", "trainer.epochs=1")
    begun(I2IConfig, "i2i", days[1], run, f"features={folder[1]}")
    vectors(days[1], folder[1], text=text | {"windows": 2})
    assert "vectors that another encoder made" in complaint(I2IConfig, "i2i", days[1], run, f"features={folder[1]}")
    assert "another encoder" in complaint(I2IConfig, "i2i", days[1], run)
    vectors(days[1], folder[1], text=text | {"model": "tfidf"})
    of = []
    for content in (b"1", b"2", b"1"):
        (folder[1] / "tfidf.safetensors").write_bytes(content)
        of.append(made_with(str(folder[1]))["encoder"])
    assert of[0] == of[2] != of[1], "tf-idf is of the songs that it was fitted to"


def test_what_a_run_goes_back_to_and_what_it_is_told_to_have_read(
    days: tuple[Path, Path], earlier: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    """Folds of a ranker train anew, by the options of the first run; W&B knows the one that a training started from."""
    out = train_i2i(tmp_path / "second", f"data={days[1]}", f"start={earlier}", *STILL, "logger.wandb=offline")
    third = train_i2i(tmp_path / "third", f"data={days[1]}", f"start={out}", *STILL)
    for run in (out, third):
        assert origin(run).read_text() == (earlier / "config.yaml").read_text()
    assert origin(earlier) == earlier / "config.yaml"
    (run,) = runs_in(out)
    assert f"{earlier.parent.name}-i2i" in run.used
    with pytest.raises(UserError, match=r"trainer\.epochs: 2 → 3\).* train on from it: start=.* and another out="):
        train_i2i(earlier, f"data={days[0]}", "trainer.epochs=3")
    with pytest.raises(UserError, match=r"an earlier state of .* or of start="):
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps(manifest | {"best": {}}))
        train_i2i(third, f"data={days[1]}", f"start={out}", *STILL)
