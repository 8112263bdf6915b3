"""Who likes a song that nobody has heard: likes and dislikes of emotify, songs held out, listeners' profiles known.

    python -m pipeline.prepare source=$FIRSTPLAY_DATA/emotify out=runs/emotify audio.store=samples
    python -m pipeline.embed clip=RUN data=runs/emotify out=runs/emotify_features     (RUN trained on other music)
    python -m benchmarks.quality.likes data=$FIRSTPLAY_DATA/emotify \
        catalogue=runs/emotify features=runs/emotify_features out=runs/likes.json

Marks are reduced to one a (profile, song) by net sign; ties and neither are dropped. Songs are dealt into five folds;
of each fold's training songs an eighth validates. Figures: area under the ROC curve and balanced accuracy of like
against dislike on the held-out songs. Rows: logistic regressions, popularity of the genre within the profile, and our
towers, with each listener's own boundary or with one threshold for all. Thresholds, strengths and epochs are chosen on
the validation songs. Mean ± standard deviation over folds and seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from omegaconf import MISSING
from polars import selectors
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from benchmarks.measure import write_json
from benchmarks.quality.towers import best_epoch
from benchmarks.table import markdown
from configs.data import PrepareConfig
from configs.errors import UserError
from configs.load import command, load
from configs.options import opt
from configs.training import BoundaryConfig
from data.arrays import AnyArray, FloatArray
from data.catalogue import Catalogue, read_features
from data.preparation import prepare
from evaluation.probing import mel_of_songs

FOLDS, HELD = 5, 8  # one part of HELD of the training songs validates
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
CHOSEN = ("model.dim=16", "model.hidden=32", "model.dropout=0.3", "optim.lr=2e-3", "optim.weight_decay=0.1")
HEARD = {"": [], ", genre without audio": ["fields.use=[genres]"]}  # of a song, by our towers


@dataclass
class LikesConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "the emotify folder")
    catalogue: str = opt(MISSING, "pipeline.prepare of it, whatever the split")
    features: str = opt(MISSING, "pipeline.embed of it with a CLIP run")
    out: str = opt("runs/likes.json", "JSON file to write")
    seeds: int = opt(5, "seeds 0 … n−1 of folds and training")
    epochs: int = opt(30, "epochs of our towers")
    boundary: list[str] = opt(list(CHOSEN), "options of train.py boundary")


@dataclass
class Marks:
    """(profile, song) rows with y: 1 liked, 0 disliked; users and songs as row numbers."""

    user: AnyArray
    song: AnyArray
    liked: AnyArray


def main(config: LikesConfig) -> None:
    """Run the command (see the module's docstring)."""
    catalogue = Catalogue.read(config.catalogue)
    audio = np.asarray(read_features(Path(config.features), catalogue.n_songs).get("clip_audio"))
    if audio.ndim != 2:
        raise UserError(f"{config.features} has no clip_audio: make it with pipeline.embed clip=RUN")
    marks = read_marks(Path(config.data), catalogue)
    described = {"clip": np.nan_to_num(audio), "mel": np.nan_to_num(mel_of_songs(catalogue))}  # type: ignore[arg-type]
    runs = []
    for seed in tqdm(range(config.seeds), "seeds"):
        order = np.random.default_rng(seed).permutation(catalogue.n_songs)
        for fold, test in enumerate(np.array_split(order, FOLDS)):
            others = np.setdiff1d(order, test, assume_unique=True)
            held = np.random.default_rng((seed, fold)).permutation(others)[: len(others) // HELD]
            part = np.zeros(catalogue.n_songs, dtype=int)  # 0 trains, 1 validates, 2 tests
            part[held], part[test] = 1, 2
            runs.append(one_fold(config, catalogue, marks, described, part, seed, fold))
    write_json(config.out, runs)
    print(markdown("method", runs, ["AUC", "balanced accuracy", "validation AUC"]))


def read_marks(data: Path, catalogue: Catalogue) -> Marks:
    """One mark a (profile, song) by net sign; on the screen what was dropped."""
    plays = pl.read_parquet(data / "plays.parquet")
    sign = pl.col("favourited").cast(pl.Int32) - pl.col("disliked").cast(pl.Int32)
    pairs = plays.group_by("user_id", "song_id").agg(sign.sum().alias("net"), sign.abs().sum().alias("marks"))
    kept = pairs.filter(pl.col("net") != 0)
    ties = pairs.filter((pl.col("net") == 0) & (pl.col("marks") > 0)).height
    print(
        f"{plays.height:,} rows, {pairs.height:,} (profile, song) pairs: {kept.height:,} kept, of these "
        f"{kept.filter(pl.col('net') > 0).height:,} likes; {ties} ties and {pairs.height - kept.height - ties:,} "
        "without a mark dropped"
    )
    song_of = catalogue.songs.select("song_id").with_row_index("song")
    user_of = catalogue.users.select("user_id").with_row_index("user")
    kept = kept.join(song_of, on="song_id").join(user_of, on="user_id").sort("user", "song")
    user, song = (kept[name].to_numpy().astype(np.int64) for name in ("user", "song"))
    return Marks(user, song, (kept["net"] > 0).to_numpy().astype(int))


def one_fold(
    config: LikesConfig, catalogue: Catalogue, marks: Marks, described: dict[str, FloatArray], part: AnyArray, *at: int
) -> list[dict[str, Any]]:
    """Rows of one fold."""
    of = part[marks.song]
    known, text = catalogue.users.drop("user_id"), selectors.string()
    profile = known.with_columns(text.fill_null("?")).to_dummies(text).to_numpy()[marks.user]  # a column a value
    genre = catalogue.songs["genres"].list.get(0).fill_null("?").to_dummies().to_numpy()[marks.song]
    rate = rate_of(marks, of, np.zeros(len(of), dtype=int))[:, None]
    scores: dict[str, AnyArray] = {"genre's rate within the profile": rate_of(marks, of, genre.argmax(axis=1))}
    for name, vectors in described.items():
        x = np.concatenate([vectors[marks.song], profile], axis=1, dtype=np.float32)
        scores[f"logistic regression, {name} + profile"] = regression(x, marks.liked, of)
        more = np.concatenate([x, genre, rate], axis=1)
        scores[f"logistic regression, {name} + profile + genre + own rate"] = regression(more, marks.liked, of)
    for name, options in HEARD.items():
        found = towers(config, catalogue, marks, part, options, *at)
        scores |= {f"our towers{name}: {way}": score for way, score in found.items()}
    return [{"method": name, **figures(score, marks.liked, of)} for name, score in scores.items()]


def figures(score: AnyArray, liked: AnyArray, of: AnyArray) -> dict[str, float]:
    """AUC on the test marks, and balanced accuracy at the threshold that is best on the validation marks."""
    held, test = of == 1, of == 2
    cuts = np.unique(np.quantile(score[held], np.linspace(0.02, 0.98, 49)))
    best = max(cuts, key=lambda cut: balanced_accuracy_score(liked[held], score[held] > cut))
    return {
        "AUC": float(roc_auc_score(liked[test], score[test])),
        "validation AUC": float(roc_auc_score(liked[held], score[held])),
        "balanced accuracy": float(balanced_accuracy_score(liked[test], score[test] > best)),
    }


def regression(x: AnyArray, liked: AnyArray, of: AnyArray) -> AnyArray:
    """Log-odds of all marks; the strength does best on the validation marks."""
    z = StandardScaler().fit(x[of == 0]).transform(x)
    found = []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=2000).fit(z[of == 0], liked[of == 0])
        score = fitted.decision_function(z)
        found.append((roc_auc_score(liked[of == 1], score[of == 1]), score))
    return np.asarray(max(found, key=lambda one: one[0])[1])


def rate_of(marks: Marks, of: AnyArray, kind: AnyArray) -> AnyArray:
    """Share of likes among a profile's other training marks on that kind of song, the kind's own worth four marks."""
    train = of == 0
    cell = marks.user * (kind.max() + 1) + kind
    size = int(cell.max()) + 1
    n, likes = (np.bincount(cell[train], weight, minlength=size) for weight in (None, marks.liked[train]))
    prior = np.array([marks.liked[train & (kind == one)].mean() for one in range(kind.max() + 1)])[kind]
    return np.asarray((likes[cell] - train * marks.liked + 4 * prior) / (n[cell] - train + 4))


def towers(
    config: LikesConfig, catalogue: Catalogue, marks: Marks, part: AnyArray, more: list[str], seed: int, fold: int
) -> dict[str, AnyArray]:
    """Margins over each listener's boundary, and plain scores, of our towers at the epoch that validates best."""
    folder = Path(config.out).with_suffix("") / f"seed{seed}" / f"fold{fold}"
    if not (folder / "catalogue").exists():
        write_dataset(config, catalogue, marks, part, folder / "dataset")
        given = [f"source={folder}/dataset", f"out={folder}/catalogue", "split.by=column"]
        prepare(load(PrepareConfig, [*given, "pairs.min_common=1", "pairs.posterior=none"]))
    options = [f"data={folder}/catalogue", f"out={folder}/run", f"seed={seed}"]
    options += [f"trainer.epochs={config.epochs}", "trainer.accelerator=cpu"]
    chosen = load(BoundaryConfig, [*options, "objective.alpha=1", "batch_size=256", *config.boundary, *more])
    chosen.objective.negatives = 0  # marked songs alone, which train.py, made for plays, does not offer
    of, liked = part[marks.song], marks.liked

    def judge(item_SD: FloatArray, user_UD: FloatArray, boundary_U: FloatArray) -> tuple[float, dict[str, AnyArray]]:
        score = np.einsum("nd,nd->n", item_SD[marks.song], user_UD[marks.user])
        margin = score - boundary_U[marks.user]
        value = float(roc_auc_score(liked[of == 1], margin[of == 1]))
        return value, {"own boundary": margin, "one threshold": score}

    found: dict[str, AnyArray] = best_epoch(chosen, judge)
    return found


def write_dataset(config: LikesConfig, catalogue: Catalogue, marks: Marks, part: AnyArray, folder: Path) -> None:
    """A dataset folder in the contract: songs with their CLIP vector and split, marks as plays."""
    folder.mkdir(parents=True, exist_ok=True)
    audio = np.asarray(read_features(Path(config.features), catalogue.n_songs)["clip_audio"])
    split = pl.Series("split", np.array(["warm", "cold_val", "cold_test"])[part])
    vectors = pl.Series("feature_clip", audio.tolist())
    catalogue.songs.select("song_id", "genres").with_columns(split, vectors).write_parquet(folder / "songs.parquet")
    catalogue.users.write_parquet(folder / "users.parquet")
    plays = {
        "user_id": catalogue.users["user_id"].gather(marks.user),
        "song_id": catalogue.songs["song_id"].gather(marks.song),
        "favourited": pl.Series(marks.liked == 1),
        "disliked": pl.Series(marks.liked == 0),
    }
    pl.DataFrame(plays).write_parquet(folder / "plays.parquet")


if __name__ == "__main__":
    command(main, LikesConfig, __doc__)
