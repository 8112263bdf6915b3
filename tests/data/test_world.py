"""The demo world: reproducible, true to the data contract, and neither trivial nor hopeless."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from artifacts.folders import read_manifest
from configs.data import WorldConfig
from data.contract.dataset import read_dataset
from data.world import behaviour, generate
from data.world.audio import STYLES, Recording, render
from data.world.latent import CONTENT, END, MOODS, NEW_DAYS, Songs, Users, draw_world
from pipeline import world

TINY = {"songs": 60, "users": 60, "seconds": 1.0, "truth_users": 20, "workers": 1}
HIDDEN_NUMBERS = 8  # the last numbers of a match vector are the hidden tastes
Listened = tuple[Songs, Users, behaviour.Plays, pl.DataFrame, np.ndarray]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "world"
    world.main(WorldConfig(out=str(out), **TINY))
    return out


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A larger world without audio."""
    folder = tmp_path_factory.mktemp("silent")
    generate(folder, songs=600, users=800, truth_users=100, audio=False)
    return folder


@pytest.fixture(scope="module")
def listened() -> Listened:
    songs, users = draw_world(800, 1000, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    plays = behaviour.draw_plays(songs, users, rng)
    outcomes, _, met_2UC = behaviour.log_outcomes(songs, users, plays, rng)
    return songs, users, plays, outcomes, met_2UC


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".flac"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_whatever_the_number_of_processes(tiny: Path, tmp_path: Path) -> None:
    generate(tmp_path, **(TINY | {"workers": 2}))
    assert len(digests(tmp_path)) > 55
    assert digests(tmp_path) == digests(tiny)


def test_another_seed_is_another_world(tiny: Path, tmp_path: Path) -> None:
    generate(tmp_path, **TINY, seed=1)
    ours, theirs = digests(tiny), digests(tmp_path)
    assert not [name for name in ours if ours[name] == theirs.get(name)]


def test_manifest_counts_what_is_there(tiny: Path) -> None:
    manifest = read_manifest(tiny, "dataset", "pipeline.world")
    assert manifest["counts"]["plays"] == pl.read_parquet(tiny / "plays.parquet").height
    assert manifest["counts"]["songs_with_audio"] == len(list((tiny / "audio").glob("*.flac")))
    assert manifest["options"]["songs"] == 60


def test_the_contract_accepts_every_row(silent: Path, tiny: Path) -> None:
    for folder in (silent, tiny):
        dataset = read_dataset(folder)
        assert dataset.rejected == {}
        assert dataset.ignored_columns == {}
        assert dataset.feedback is not None and dataset.feedback.height > 100


def test_no_play_before_release_to_the_millisecond_nor_after_the_end(silent: Path) -> None:
    plays = pl.read_parquet(silent / "plays.parquet").join(pl.read_parquet(silent / "songs.parquet"), on="song_id")
    assert plays.filter(pl.col("played_at") < pl.col("released_at")).is_empty()
    assert plays["played_at"].max() < END
    assert plays["played_at"].dtype == pl.Datetime("ms")


def test_a_tenth_of_the_songs_is_new_and_has_plays(silent: Path) -> None:
    songs, plays = pl.read_parquet(silent / "songs.parquet"), pl.read_parquet(silent / "plays.parquet")
    new = songs.filter(pl.col("released_at") >= pl.lit(END) - pl.duration(days=NEW_DAYS))
    assert new.height == 60
    assert plays.join(new, on="song_id")["song_id"].n_unique() >= 57
    feedback = pl.read_parquet(silent / "i2i_feedback.parquet")
    for side in ("source_song_id", "recommended_song_id"):
        assert feedback.join(new, left_on=side, right_on="song_id").is_empty()


def test_some_songs_lack_something_and_some_are_chinese(silent: Path) -> None:
    songs = pl.read_parquet(silent / "songs.parquet")
    for column in ("lyrics", "language", "genres", "tags"):
        assert 0 < songs[column].null_count() < 60
    chinese = songs.filter(pl.col("language") == "zh")
    assert 5 < chinese.height < 60
    assert chinese["lyrics"].drop_nulls().str.contains(r"\p{Han}").all()
    words = songs.filter(pl.col("language") == "en")["lyrics"].drop_nulls().str.split(" ").list.len()
    assert 45 < words.mean() < 75  # type: ignore[operator]
    assert not songs["lyrics"].drop_nulls().str.contains(r"[{}]").any()


def test_truth_has_every_new_song_for_each_of_its_users_and_agrees_with_the_log(silent: Path) -> None:
    truth, plays = pl.read_parquet(silent / "truth.parquet"), pl.read_parquet(silent / "plays.parquet")
    assert truth.height == 100 * 60
    assert truth.select(pl.struct("user_id", "song_id").n_unique()).item() == truth.height
    both = plays.join(truth, on=["user_id", "song_id"], suffix="_truth")
    assert both.height > 20
    assert (both["favourited"] == both["favourited_truth"]).all()
    assert (both["completed"] == both["completed_truth"]).all()


def test_genre_is_heard_but_songs_of_a_genre_differ() -> None:
    """Nearest centroid on mean log band energies and their changes, on songs it has not seen."""
    rng = np.random.default_rng(0)
    moods, genres, per_genre = list(MOODS.values()), list(STYLES), 16
    sounds, labels = [], np.repeat(np.arange(len(genres)), per_genre)
    for song, label in enumerate(labels):
        mood, traits = moods[rng.integers(len(moods))], tuple(rng.normal(size=4))
        sounds.append(spectral(render(Recording(Path(), genres[label], None, mood, traits, 3.0, (0, song)))))
    x_ND = np.array(sounds)
    x_ND = (x_ND - x_ND.mean(0)) / x_ND.std(0)
    seen_N = np.arange(len(labels)) % 2 == 0
    centre_GD = np.stack([x_ND[seen_N & (labels == genre)].mean(0) for genre in range(len(genres))])
    near_N = ((x_ND[~seen_N, None] - centre_GD) ** 2).sum(-1).argmin(1)
    accuracy = (near_N == labels[~seen_N]).mean()
    assert 0.4 < accuracy < 0.98  # chance is 0.08
    spread = np.stack([x_ND[labels == genre].std(0) for genre in range(len(genres))]).mean()
    assert spread > 0.3  # of a total spread of 1


def spectral(wave: np.ndarray) -> np.ndarray:
    frames = wave[: len(wave) // 512 * 512].reshape(-1, 512) * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = np.log(np.add.reduceat(power, [1, 2, 4, 7, 12, 20, 36, 64, 110, 180], axis=1) + 1e-6)
    return np.concatenate([bands.mean(0), bands.std(0), np.abs(np.diff(bands, axis=0)).mean(0)])


@pytest.mark.parametrize("genre", STYLES)
def test_recordings_are_sound(genre: str) -> None:
    wave = render(Recording(Path(), genre, "pop", (-0.8, 0.8), (3.0, -3.0, 3.0, -3.0), 1.0, (1,)))
    assert wave.shape == (16_000,) and wave.dtype == np.float32
    assert np.isfinite(wave).all() and 0.3 < np.abs(wave).max() <= 1


def test_popularity_is_skewed(listened: Listened) -> None:
    songs, _, plays, _, _ = listened
    count_S = np.sort(np.bincount(plays.song_N, minlength=len(songs)))[::-1]
    assert count_S[: len(songs) // 10].sum() > 0.25 * count_S.sum()
    assert np.median(count_S) < 0.8 * count_S.mean()


def test_rates_are_what_they_are_meant_to_be(listened: Listened) -> None:
    outcomes = listened[3]
    assert outcomes["completed"].mean() == pytest.approx(behaviour.COMPLETED_RATE, abs=0.02)
    assert outcomes["favourited"].mean() == pytest.approx(behaviour.FAVOURITED_RATE, abs=0.02)
    assert not outcomes.filter(pl.col("favourited") & ~pl.col("completed")).height
    assert not outcomes.filter(pl.col("favourited") & pl.col("disliked")).height


def test_favourites_rise_with_affinity(listened: Listened) -> None:
    songs, users, plays, outcomes, _ = listened
    affinity_N = behaviour.affinity(songs, users, plays.user_N, plays.song_N)
    fifths = np.array_split(outcomes["favourited"].to_numpy()[np.argsort(affinity_N)], 5)
    rates = [fifth.mean() for fifth in fifths]
    assert rates == sorted(rates)
    assert rates[-1] > 5 * rates[0]


def test_content_explains_about_half_of_affinity(listened: Listened) -> None:
    songs, users = listened[:2]
    rng = np.random.default_rng(0)
    user_N, song_N = rng.integers(len(users), size=20_000), rng.integers(len(songs), size=20_000)
    product_ND = users.match_UD[user_N] * songs.match_SD[song_N]
    content_N = product_ND[:, :-HIDDEN_NUMBERS].sum(1)
    explained = np.corrcoef(content_N, behaviour.affinity(songs, users, user_N, song_N))[0, 1] ** 2
    assert explained == pytest.approx(CONTENT, abs=0.12)


def test_the_open_minded_play_and_like_more_unknown_songs(listened: Listened) -> None:
    songs, users, plays, outcomes, met_2UC = listened
    unknown_N = songs.fame_S[plays.song_N] < 0.7
    favourited_N = outcomes["favourited"].to_numpy()
    open_N = users.openness_U[plays.user_N]
    share = [unknown_N[mask].mean() for mask in (open_N > 1, open_N < -1)]
    assert share[0] > 1.5 * share[1]
    liked = [favourited_N[mask & unknown_N].mean() for mask in (open_N > 1, open_N < -1)]
    assert liked[0] > 1.5 * liked[1]
    truth = [met_2UC[1][mask].mean() for mask in (users.openness_U > 1, users.openness_U < -1)]
    assert truth[0] > 1.5 * truth[1]


def test_exposure_selects(listened: Listened) -> None:
    """Users like what they were played better than what they would be played at random: logged rates are not truth."""
    songs, _, plays, outcomes, met_2UC = listened
    new_N = songs.new_S[plays.song_N]
    assert outcomes["favourited"].to_numpy()[new_N].mean() > 1.5 * met_2UC[1].mean()


def test_sampling_by_rows_follows_the_softmax() -> None:
    logits_BS = np.log(np.array([[1.0, 2.0, 7.0], [8.0, 1.0, 1.0]]))
    row_N = np.repeat([0, 1], 20_000)
    song_N = behaviour._sample_rows(logits_BS, row_N, np.random.default_rng(0))
    for row, expected in enumerate(([0.1, 0.2, 0.7], [0.8, 0.1, 0.1])):
        share = np.bincount(song_N[row_N == row], minlength=3) / 20_000
        assert share == pytest.approx(expected, abs=0.02)


def test_feedback_tells_good_pairs_from_bad_ones(listened: Listened) -> None:
    """Co-listened songs do better with the source's listeners than popular songs drawn at random."""
    songs, users, plays, _, _ = listened
    odds = behaviour.calibrate(behaviour.appeal(songs, users, plays.user_N, plays.song_N, np.zeros(len(plays.user_N))))
    feedback = behaviour.draw_feedback(songs, users, plays, odds, np.random.default_rng(0))
    ordered = (pl.col("favourites") <= pl.col("completes")) & (pl.col("completes") <= pl.col("plays"))
    assert feedback.select(ordered.all()).item()
    close_P = (songs.match_SD[feedback["source_song_id"]] * songs.match_SD[feedback["recommended_song_id"]]).sum(1)
    rate_P = (feedback["completes"] / feedback["plays"]).to_numpy()
    high, low = rate_P[close_P > np.quantile(close_P, 0.8)], rate_P[close_P < np.quantile(close_P, 0.2)]
    assert high.mean() > low.mean() + 0.1
