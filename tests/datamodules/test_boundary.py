from datetime import datetime, timedelta

import lightning as L
import numpy as np
import polars as pl
import pytest
import torch

from artifacts.folders import write_manifest
from callbacks.index_recall import IndexRecall
from configs.errors import UserError
from configs.training import BoundaryConfig
from data.catalogue import KIND
from data.profiles import read_profile
from datamodules import boundary
from datamodules.batches import Batch
from datamodules.boundary import BoundaryDataModule, UserBatches, draw_others, labels
from datamodules.catalogue import CatalogueDataModule
from datamodules.histories import Histories
from lightning_modules.boundary import BoundaryModule
from objectives.boundary import boundary_loss
from tests.conftest import module_options

START = datetime(2024, 1, 1)
FLAGS = dict.fromkeys(("completed", "favourited", "disliked"), pl.Boolean)
SCHEMA = {"user": pl.Int32, "song": pl.Int32, "played_at": pl.Datetime("ms"), **FLAGS, "strength": pl.Float32}


def table(user, song, hours=None, completed=None):
    """Plays as `pipeline.prepare` writes them; `hours` after the start, None: no time."""
    none = [None] * len(user)
    times = none if hours is None else [None if h is None else START + timedelta(hours=int(h)) for h in hours]
    strength = np.random.default_rng(1).choice([-1, 1, 2, 3], len(user))
    columns = [user, song, times, none if completed is None else completed, none, none, strength]
    frame = pl.DataFrame({name: list(values) for name, values in zip(SCHEMA, columns, strict=True)}, schema=SCHEMA)
    return frame.sort("user", "played_at", "song", maintain_order=True)


def write(folder, split, users, plays, cold_plays, vectors=None):
    (folder / "features").mkdir(parents=True)
    genres = [["ab"[i % 2]] for i in range(len(split))]
    songs = pl.DataFrame({"song_id": [f"s{i}" for i in range(len(split))], "split": split, "genres": genres})
    songs = songs.with_columns(language=None, tags=None, artist_id=None)
    for name, frame in {"songs": songs, "users": users, "plays": plays, "cold_plays": cold_plays}.items():
        frame.write_parquet(folder / f"{name}.parquet")
    if vectors is not None:
        np.save(folder / "features" / "taste.npy", vectors.astype(np.float32))
    write_manifest(folder, KIND, {})
    return str(folder)


def random_catalogue(folder, timed, seed=0):
    """30 users, 40 songs of which 32 to 39 are cold; repeats, equal times, a few undated plays, users without plays."""
    rng = np.random.default_rng(seed)
    split = ["warm"] * 32 + ["cold_val"] * 4 + ["cold_test"] * 4
    n = 500
    hours = [None if rng.random() < 0.05 else h for h in rng.integers(0, 60, n)] if timed else None
    plays = table(rng.integers(0, 25, n), rng.integers(0, 32, n), hours, rng.random(n) < 0.5)
    cold = table(rng.integers(0, 30, 40), rng.integers(32, 40, 40))
    users = pl.DataFrame({"user_id": [f"u{i}" for i in range(30)]})
    return write(folder, split, users, plays, cold, vectors=np.arange(40.0)[:, None] + 100)


def batch_of(dataset, rows, seed=(0,)):
    return dataset[Batch(np.asarray(rows), seed)]


def history_songs(batch, n):
    """Songs of one history, by the feature value that names them."""
    ids = batch["songs"]["taste"][:, 0] - 100
    return [int(ids[batch["history"][n, t]]) for t in range(batch["mask"].shape[1]) if batch["mask"][n, t]]


def item_songs(batch):
    """Songs that each play is scored on, (B, M), by the feature value that names them."""
    return (batch["items"]["taste"][:, 0] - 100).long()[batch["item"]]


@pytest.mark.parametrize("length", [3, 50])
def test_timed_history_is_the_past_without_the_target(tmp_path, length):
    data = BoundaryDataModule(random_catalogue(tmp_path / "c", timed=True), history=length, positives="played")
    plays = data.catalogue.plays.rows(named=True)
    batch = batch_of(data.train_dataloader().dataset, np.arange(len(plays)))
    seen_some = seen_cut = 0
    for n, row in enumerate(plays):
        past = [
            p for p in plays
            if p["user"] == row["user"] and p["played_at"] and row["played_at"] and p["played_at"] < row["played_at"]
        ]  # fmt: skip
        expected = [p for p in past[::-1][:length] if p["song"] != row["song"]]
        assert history_songs(batch, n) == [p["song"] for p in expected]
        assert batch["strength"][n][batch["mask"][n]].tolist() == [p["strength"] for p in expected]
        seen_some += len(expected) > 0
        seen_cut += len(expected) < len(past[:length])
    assert seen_some > 300 and seen_cut > 10  # the toy has what the test is about
    assert batch["mask"].shape[1] <= length


@pytest.mark.parametrize("length", [3, 50])
def test_untimed_history_is_the_users_other_plays(tmp_path, length):
    data = BoundaryDataModule(random_catalogue(tmp_path / "c", timed=False), history=length, positives="played")
    plays = data.histories.table.rows(named=True)
    assert sorted(data.catalogue.plays["song"].to_list()) == sorted(p["song"] for p in plays)
    batch = batch_of(data.train_dataloader().dataset, np.arange(len(plays)))
    of_user = {u: [i for i, p in enumerate(plays) if p["user"] == u] for u in range(25)}
    for n, row in enumerate(plays):
        mine = of_user[row["user"]]
        at = mine.index(n)
        following = (mine[at + 1 :] + mine[:at])[:length]
        assert history_songs(batch, n) == [plays[i]["song"] for i in following if plays[i]["song"] != row["song"]]
    again = BoundaryDataModule(str(tmp_path / "c"), history=length).histories.song
    assert np.array_equal(again, data.histories.song)  # the order is seeded


@pytest.mark.parametrize("timed", [True, False])
def test_latest_history_and_users_without_plays(tmp_path, timed):
    data = BoundaryDataModule(random_catalogue(tmp_path / "c", timed), history=4, positives="played")
    (batch,) = list(data.users_loader(np.arange(30), batch_size=64))
    plays = data.histories.table.rows(named=True)
    for user in range(30):
        mine = [p["song"] for p in plays if p["user"] == user]
        assert history_songs(batch, user) == mine[::-1][:4]
    assert not batch["mask"][25:].any()
    assert batch["id"].tolist() == list(range(30))
    new = batch_of(UserBatches(data.fields, data.profile, data.histories, np.array([27, 28])), [0, 1])
    assert new["history"].shape == (2, 1) and not new["mask"].any()  # a batch in which nobody has a history


def test_a_share_of_the_profiles_is_hidden(tmp_path):
    folder, rows = random_catalogue(tmp_path / "c", timed=True), np.arange(300)
    users = pl.read_parquet(f"{folder}/users.parquet")
    profile = users.with_columns(country=pl.Series([*"abc"] * 10), age=pl.Series(np.arange(30.0)))
    profile.write_parquet(f"{folder}/users.parquet")
    batches = [
        batch_of(BoundaryDataModule(folder, profile_dropout=share).train_dataloader().dataset, rows)
        for share in (0.0, 0.4, 1.0)
    ]
    whole = batches[0]
    assert (whole["codes"] > 1).any() and whole["numbers"].isfinite().any()
    for batch, share in zip(batches, (0.0, 0.4, 1.0), strict=True):
        shown = (batch["codes"] == whole["codes"]).all(dim=1) & (whole["codes"] > 0).any(dim=1)
        assert abs(float(shown.float().mean()) - (1 - share)) < 0.1
        assert not batch["codes"][~shown].any() and batch["numbers"][~shown].isnan().all()
        same = torch.allclose(batch["numbers"][shown], whole["numbers"][shown], equal_nan=True)
        assert same and all(torch.equal(batch[name], whole[name]) for name in ("item", "history", "weight"))


@pytest.mark.parametrize("timed", [True, False])
def test_cold_songs_take_no_part_and_negatives_are_unplayed(tmp_path, timed):
    data = BoundaryDataModule(random_catalogue(tmp_path / "c", timed), negatives=6)
    dataset = data.train_dataloader().dataset
    plays = data.histories.table.rows(named=True)
    batch = batch_of(dataset, np.arange(len(plays)))
    played = {(p["user"], p["song"]) for p in plays}
    item = item_songs(batch)
    assert item.shape == (len(plays), 7) and len(batch["items"]["taste"]) == len(item.unique())  # each song once
    assert item.max() < 32 and (batch["songs"]["taste"] - 100).max() < 32
    assert item[:, 0].tolist() == [p["song"] for p in plays]
    assert batch["label"][:, 0].tolist() == [float(p["completed"]) for p in plays]
    assert (batch["weight"][:, 0] == 1).all() and (batch["label"][:, 1:] == 0).all()
    for n, p in enumerate(plays):
        for m in range(1, 7):
            counts = p["completed"] and (p["user"], int(item[n, m])) not in played
            assert batch["weight"][n, m] == float(counts)
    assert {tuple(batch["weight"][:, 1:].unique().tolist())} == {(0.0, 1.0)}
    drawn = np.bincount(item[:, 1:].flatten(), minlength=32)
    assert drawn.min() > 0.5 * drawn.mean()  # uniform, whatever the popularity
    same, other = batch_of(dataset, np.arange(9)), batch_of(dataset, np.arange(9), seed=(1,))
    assert torch.equal(item_songs(same), item_songs(batch_of(dataset, np.arange(9))))
    assert not torch.equal(item_songs(same), item_songs(other))


@pytest.mark.parametrize("sampling", ["popularity", "batch"])
def test_negatives_by_popularity_and_from_the_batch(tmp_path, sampling):
    data = BoundaryDataModule(random_catalogue(tmp_path / "c", timed=True), sampling=sampling, negatives=40)
    dataset, histories = data.train_dataloader().dataset, data.histories
    counts = np.bincount(histories.song, minlength=40)
    rows = np.arange(0, len(histories.song), 9)
    batches = [batch_of(dataset, rows, seed=(s,)) for s in range(30)]
    drawn = np.bincount(np.concatenate([item_songs(one)[:, 1:].ravel() for one in batches]), minlength=40)
    source = np.bincount(histories.song[rows], minlength=40) if sampling == "batch" else counts
    assert np.allclose(drawn / drawn.sum(), source / source.sum(), atol=0.005) and drawn[32:].sum() == 0
    for one in batches[:2]:
        song, played = item_songs(one).numpy(), set(zip(histories.user, histories.song, strict=True))
        assert np.allclose(one["log_q"], np.log(counts[song] / counts.sum() * 32))
        own = [(u, s) in played for u, s in zip(np.repeat(histories.user[rows], 40), song[:, 1:].ravel(), strict=True)]
        weight = one["label"][:, :1].numpy() * ~np.reshape(own, (-1, 40))
        assert (one["weight"][:, 1:].numpy() == weight).all() and weight.any()
        if sampling == "batch":  # only plays of the batch
            assert set(np.unique(song[:, 1:])) <= set(histories.song[rows])
    few = batch_of(dataset, np.arange(5))
    assert few["item"].shape == ((5, 5) if sampling == "batch" else (5, 41))


def test_mixed_negatives_are_half_from_the_batch_and_half_shared(tmp_path):
    data = BoundaryDataModule(random_catalogue(tmp_path / "c", timed=True), sampling="mixed", negatives=20)
    dataset, histories = data.train_dataloader().dataset, data.histories
    rows = np.arange(0, len(histories.song), 7)
    drawn = np.stack([item_songs(batch_of(dataset, rows, seed=(s,)))[:, 1:].numpy() for s in range(60)])
    shared = drawn[:, :, 10:]
    assert drawn.shape == (60, len(rows), 20) and (shared == shared[:, :1]).all()
    assert np.isin(drawn[:, :, :10], histories.song[rows]).all()
    uniform = np.bincount(shared[:, 0].ravel(), minlength=40)
    assert uniform[:32].min() > 5 and uniform[32:].sum() == 0  # each about 19 times
    plays = np.bincount(histories.song, minlength=40)
    one = batch_of(dataset, rows)
    expected = np.log(0.5 * plays[item_songs(one)] / plays.sum() * 32 + 0.5)
    np.testing.assert_allclose(one["log_q"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("completed", "size"), [(1.0, 1000), (0.5, 1000), pytest.param(1.0, 8, marks=pytest.mark.slow)]
)
def test_corrected_scores_mean_the_same_however_negatives_are_drawn(tmp_path, completed, size):
    """One free score a song settles at log(p / (α · (d + p' · negatives / songs))), whatever the sampling: with p of
    positive and d of skipped plays, p' of positive plays by others; also where a batch is smaller than the draws."""
    rng = np.random.default_rng(0)
    share = np.array([0.02, 0.03, 0.05, 0.1, 0.1, 0.15, 0.25, 0.3])
    plays = table(np.arange(8000), rng.choice(8, 8000, p=share), completed=rng.random(8000) < completed)
    users = pl.DataFrame({"user_id": [str(u) for u in range(8000)]})
    vectors = np.arange(9.0)[:, None] + 100
    folder = write(tmp_path / "c", ["warm"] * 8 + ["cold_val"], users, plays, table([0], [8]), vectors)
    settled = {}
    for sampling in ("uniform", "popularity", "batch", "mixed"):
        data = BoundaryDataModule(folder, sampling=sampling, negatives=20)
        dataset, score = data.train_dataloader().dataset, torch.zeros(8, requires_grad=True)
        optimiser = torch.optim.Adam([score], lr=0.1)
        steps = 400 if size > 100 else 6000
        for step in range(steps):
            batch = batch_of(dataset, np.random.default_rng(step).choice(8000, size), seed=(step,))
            margin = score[item_songs(batch)] - batch["log_q"]
            loss = boundary_loss(margin, torch.zeros(len(margin), 1), batch["label"], 0.1, batch["weight"])
            optimiser.zero_grad()
            (loss * batch["weight"].sum()).backward()  # the sum, so that batches of unlike weight count alike
            optimiser.step()
            optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        settled[sampling] = score.detach().numpy()
    # no user is asked about their own song, so that a song's negatives come from the others' positive plays alone
    label = data.label
    p, d = (np.bincount(data.histories.song, one, minlength=9)[:8] / 8000 for one in (label, 1 - label))
    expected = np.log(p / (0.1 * (d + (label.mean() - p) * 20 / 8)))
    for sampling, score in settled.items():
        assert np.abs(score - expected).max() < (0.12 if size > 100 else 0.25), (sampling, score, expected)


def test_a_positive_weighs_what_its_strength_does(tmp_path):
    folder = random_catalogue(tmp_path / "c", timed=True)
    data = BoundaryDataModule(folder, strengths=(1.0, 2.0, 5.0), positives="played")
    batch = batch_of(data.train_dataloader().dataset, np.arange(len(data.label)))
    expected = np.array([{-1: 1.0, 1: 1.0, 2: 2.0, 3: 5.0}[strength] for strength in data.histories.strength])
    assert set(expected) == {1, 2, 5}
    assert batch["weight"][:, 0].tolist() == expected.tolist()
    liked = BoundaryDataModule(folder, strengths=(1.0, 2.0, 5.0))
    first = batch_of(liked.train_dataloader().dataset, np.arange(len(liked.label)))
    assert first["weight"][:, 0].tolist() == np.where(liked.label > 0, expected, 1).tolist()  # a negative weighs 1


def test_labels_from_flags():
    flags = pl.DataFrame(
        {
            "completed": [True, False, None, False, None, True, False, None],
            "favourited": [None, False, None, True, True, False, None, False],
            "disliked": [None, False, None, False, None, True, None, None],
        },
        schema=FLAGS,
    )
    assert labels(flags, "liked").tolist() == [1, 0, 1, 1, 1, 0, 0, 1]
    assert labels(flags, "played").tolist() == [1, 1, 1, 1, 1, 0, 1, 1]
    bare = flags.with_columns(pl.lit(None, pl.Boolean).alias(name) for name in ("completed", "favourited"))
    assert labels(bare, "liked").tolist() == [1, 1, 1, 1, 1, 0, 1, 1]


def test_undated_plays_in_a_dated_table_are_in_no_training_history():
    plays = table([0, 0, 0, 0, 1], [5, 1, 2, 3, 4], [None, 1, 1, 2, None])
    histories = Histories(plays, n_users=2, n_songs=6, length=9)
    got = histories.before(np.arange(5))
    latest = histories.latest(np.array([0, 1]))
    for found, expected in ((got, [[], [], [], [2, 1], []]), (latest, [[3, 2, 1, 5], [4]])):
        pairs = zip(found["history"], found["mask"], strict=True)
        assert [found["songs"][one[mask].numpy()].tolist() for one, mask in pairs] == expected


def test_validation_asks_for_cold_songs_that_were_not_disliked(tmp_path):
    split = ["warm", "warm", "cold_val", "cold_val", "cold_test"]
    cold = table([0, 1, 1, 1, 2], [2, 2, 3, 3, 4]).with_columns(strength=pl.Series([1.0, -1, 3, 1, 3]))
    users = pl.DataFrame({"user_id": ["a", "b", "c"]})
    folder = write(tmp_path / "c", split, users, table([0, 0], [0, 1], [1, 2]), cold)
    data = BoundaryDataModule(CatalogueDataModule(folder, min_count=1))
    user, song = data.val_positives()
    assert user.tolist() == [0, 1] and song.tolist() == [2, 3]
    items, queries = (torch.cat([b["id"] for b in one]).tolist() for one in data.val_dataloader())
    assert items == [2, 3] and queries == [0, 1]


def test_unusable_catalogues_are_named(tmp_path):
    users, warm = pl.DataFrame({"user_id": ["a", "b"]}), ["warm", "warm", "cold_val"]
    nothing = table([], [])
    with pytest.raises(UserError, match="no play of a known song"):
        BoundaryDataModule(write(tmp_path / "a", warm, users, nothing, nothing))
    skipped = table([0, 1], [0, 1], None, [False, False])
    with pytest.raises(UserError, match="none of 2 plays is positive"):
        BoundaryDataModule(write(tmp_path / "b", warm, users, skipped, nothing))
    assert BoundaryDataModule(str(tmp_path / "b"), positives="played").label.tolist() == [1, 1]
    with pytest.raises(UserError, match="no held-out play"):
        BoundaryDataModule(str(tmp_path / "b"), positives="played").val_dataloader()


def test_profile_columns():
    users = pl.DataFrame(
        {
            "user_id": ["a", "b", "c", "d", "e"],
            "country": ["de", "fr", "de", None, "it"],
            "type": [True, False, True, True, None],
            "age": [20, 40, None, 1000, 30],
            "level": [1.0, float("inf"), 1.0, 2.0, 1.0],
            "friends": [["b"], [], None, [], []],
            "nickname": ["v", "w", "x", "y", "z"],
            "joined": [START] * 5,
        }
    )
    profile = read_profile(users, np.array([0, 1, 2, 4]))
    assert profile.vocabulary == {"country": ["de"], "type": ["true"], "age": [], "level": []}
    assert profile.vocab_sizes == {"country": 3, "type": 3} and profile.n_numbers == 2
    got = profile.gather(np.array([0, 1, 3, 4]))
    assert got["codes"].tolist() == [[2, 2], [1, 1], [0, 2], [1, 0]]
    assert got["numbers"].isnan().tolist() == [[False, False], [False, True], [False, False], [False, False]]
    mean, scale = profile.number_statistics(np.array([0, 1, 2, 4]))  # user d's 1000 is not among them
    assert mean.tolist() == [30, 1] and scale.tolist() == pytest.approx([np.std([20, 40, 30]), 1])
    other = read_profile(pl.DataFrame({"user_id": ["x"], "country": ["de"]}), np.array([0]), profile.vocabulary)
    assert other.gather(np.array([0]))["codes"].tolist() == [[2, 0]] and np.isnan(other.numbers).all()
    bare = read_profile(pl.DataFrame({"user_id": ["x", "y"]}), np.array([0]))
    assert bare.vocab_sizes == {} and bare.gather(np.array([1]))["numbers"].shape == (1, 0)


def test_users_beside_a_song_are_drawn_uniformly_among_those_who_did_not_listen():
    users = np.array([2, 3, 5, 8, 13, 21])
    listeners = {7: [2, 5, 21, 30], 9: [], 4: [8, 13], 6: users.tolist(), 1: [3]}  # 30 cannot be drawn
    pairs = np.array([(song, user) for song, who in listeners.items() for user in who])
    pairs = pairs[np.random.default_rng(0).permutation(len(pairs))]
    asked = np.array([7, 9, 7, 6, 4])
    drawn, of = draw_others(asked, *pairs.T, users, 3000, np.random.default_rng(1))
    assert np.bincount(of, minlength=5).tolist() == [3000, 3000, 3000, 0, 3000], "all listened to song 6"
    for row, song in enumerate(asked):
        names, counts = np.unique(drawn[of == row], return_counts=True)
        possible = [] if song == 6 else sorted(set(users.tolist()) - set(listeners[song]))
        assert names.tolist() == possible
        assert np.all(np.abs(counts - 3000 / max(1, len(possible))) < 5 * np.sqrt(3000 / max(1, len(possible))))


@pytest.mark.parametrize("many", [False, True])
def test_pairs_that_the_boundary_is_validated_on(tmp_path, monkeypatch, many):
    monkeypatch.setattr(boundary, "VAL_PAIRS", 20 if many else 1 << 20)
    folder = random_catalogue(tmp_path / "c", timed=True)
    data = BoundaryDataModule(folder, negatives=3, positives="played")
    song, user, label = data.val_pairs
    listened = set(zip(*data.val_positives()[::-1], strict=True))
    positive = list(zip(song[label > 0], user[label > 0], strict=True))
    assert len(set(positive)) == len(positive) and set(positive) <= listened
    assert len(positive) == 5 if many else set(positive) == listened
    assert not listened & set(zip(song[label == 0], user[label == 0], strict=True))
    assert set(user[label == 0]) <= set(data.active)
    at = song[label > 0]
    assert np.bincount(song[label == 0], minlength=40).tolist() == (3 * np.bincount(at, minlength=40)).tolist()
    again, other = (BoundaryDataModule(folder, negatives=3, positives="played", seed=s).val_pairs[1] for s in (0, 1))
    assert np.array_equal(user, again) and not np.array_equal(user, other)
    asked = np.concatenate([batch["id"].numpy() for batch in data.val_dataloader()[1]])
    assert asked.tolist() == sorted({*user.tolist(), *data.val_positives()[0].tolist()})


def tastes(folder, seed=0):
    """160 users and 200 songs of 5 hidden tastes; a song's vector shows its taste through noise, a user's plays too."""
    rng = np.random.default_rng(seed)
    song_taste, user_taste = rng.integers(0, 5, 200), rng.integers(0, 5, 160)
    centres = rng.normal(size=(5, 16))
    vectors = centres[song_taste] + 0.5 * rng.normal(size=(200, 16))
    vectors[rng.choice(150, 10, replace=False)] = np.nan
    split = ["warm"] * 150 + ["cold_val"] * 50
    user, song = np.repeat(np.arange(160), 25), rng.integers(0, 150, 4000)
    same = user_taste[user] == song_taste[song]
    keep = rng.random(4000) < np.where(same, 0.9, 0.15)
    hours, completed = rng.integers(0, 500, keep.sum()), rng.random(keep.sum()) < np.where(same, 0.9, 0.2)[keep]
    plays = table(user[keep], song[keep], hours, completed)
    listeners = [np.flatnonzero(user_taste == song_taste[s]) for s in range(150, 200)]
    cold = table(np.concatenate(listeners), np.repeat(np.arange(150, 200), [len(one) for one in listeners]))
    cold = cold.with_columns(pl.lit(1.0, pl.Float32).alias("strength"))
    users = pl.DataFrame(
        {"user_id": [str(u) for u in range(160)], "age": rng.integers(18, 60, 160), "town": ["x", "y"] * 80}
    )
    return write(folder, split, users, plays, cold, vectors), user_taste, song_taste


def test_training_finds_planted_tastes_of_new_songs(tmp_path):
    L.seed_everything(0, verbose=False)
    folder, user_taste, song_taste = tastes(tmp_path / "c")
    data = BoundaryDataModule(folder, batch_size=64, history=20)
    module = BoundaryModule(
        data.fields.dense_dims, data.fields.vocab_sizes, data.profile.vocab_sizes, data.profile.n_numbers,
        **module_options(BoundaryConfig, field_dim=16, hidden=32, dim=16, lr=3e-3, alpha=0.25),
    )  # fmt: skip
    losses = []

    class Losses(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    trainer = L.Trainer(
        max_epochs=10, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        callbacks=[IndexRecall(10), Losses()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert module.model.item.embedding.get_buffer("scale_0") != 1
    assert module.model.user.number_mean.item() == pytest.approx(float(data.catalogue.users["age"].mean()), rel=1e-4)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["train/positives_above_boundary"] > metrics["train/negatives_above_boundary"]
    chance = 10 / 50
    assert metrics["val/recall@10"] > 2.5 * chance

    items = trainer.predict(module, data.songs_loader(np.arange(150, 200)))
    users = trainer.predict(module, data.users_loader(np.arange(160)))
    item, user = (torch.cat([b["vector"] for b in one]) for one in (items, users))
    above = user @ item.T > torch.cat([b["boundary"] for b in users])[:, None]
    same = torch.from_numpy(user_taste[:, None] == song_taste[None, 150:])
    assert above[same].float().mean() > above[~same].float().mean() + 0.4  # the gate itself parts new songs
